//! Why topics and subjects cannot be read or changed.

use std::path::PathBuf;

use tokio::task::JoinError;

use crate::kafka::ClusterError;
use crate::schema::registry::RegistryError;

/// Why topics and subjects cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// A call to Kafka failed.
    #[error(transparent)]
    Kafka(#[from] ClusterError),
    /// A call of the registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Kafka refuses to change a topic.
    #[error("{topic}: {why}")]
    Refused {
        /// The topic.
        topic: String,
        /// The broker's reason.
        why: String,
    },
    /// The saved versions of a schema cannot be read; the text is a sentence.
    #[error("{0}")]
    Versions(String),
    /// A version of a schema cannot be saved.
    #[error("cannot save a version of {}", file.display())]
    NotSaved {
        /// The schema's file.
        file: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The thread of a call has panicked, or the runtime is shutting down.
    #[error(transparent)]
    Thread(#[from] JoinError),
}
