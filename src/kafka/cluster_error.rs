//! Why a client or a call to the cluster failed.

use std::borrow::Cow;
use std::ffi::NulError;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::task::JoinError;

/// Why a client could not be created, or a call to the cluster failed. Without the reason of a source, which
/// [`ErrorChain`](crate::observe::error_chain::ErrorChain) adds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// librdkafka refuses a property.
    #[error("kafka.properties.{name}: {why}")]
    PropertyRefused {
        /// The property's name.
        name: String,
        /// The reason, without the value.
        why: String,
    },
    /// librdkafka refuses to create a client.
    #[error("librdkafka refuses [kafka]")]
    ClientRefused(#[source] KafkaError),
    /// No broker answers in time.
    #[error("no Kafka broker answers")]
    NoBroker(#[source] Option<KafkaError>),
    /// No broker answers in time to a command.
    #[error(
        "no Kafka broker answers at {servers}{reason}; check [kafka] in the configuration or set -X kafka.bootstrap_servers=HOST:PORT"
    )]
    Unreachable {
        /// The bootstrap servers.
        servers: String,
        /// `: ` and librdkafka's last reason; empty if there is none.
        reason: String,
    },
    /// The cluster stopped sending.
    #[error("Kafka sent nothing for {seconds} s{reason}")]
    Silent {
        /// For how long.
        seconds: u64,
        /// `: ` and librdkafka's last reason; empty if there is none.
        reason: String,
    },
    /// A topic was deleted while it was read.
    #[error("the topic {0} no longer exists")]
    TopicDeleted(String),
    /// hookstream lacks the authorization to read a topic.
    #[error("hookstream is not authorized to read {0}; grant it with: kafka-acls ... --operation Read")]
    ReadDenied(String),
    /// A partition does not exist.
    #[error("{topic} [{partition}] does not exist")]
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The brokers do not list the groups.
    #[error("the groups cannot be listed")]
    GroupsNotListed(#[source] KafkaError),
    /// The offsets of partitions are unknown.
    #[error("Kafka does not report the partitions' offsets{}", .0.map(|code| format!(": {code}")).unwrap_or_default())]
    NoOffsets(Option<Code>),
    /// The offsets of one partition are unknown.
    #[error("Kafka does not report the offsets of {topic} [{partition}]")]
    NoOffset {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The partition's error, if there is one.
        #[source]
        cause: Option<KafkaError>,
    },
    /// The in-memory cluster has no consumer groups.
    #[error("the in-memory Kafka of `hookstream dev` lists no consumer groups")]
    NoGroupsInMemory,
    /// The in-memory cluster does not run.
    #[error("the in-memory Kafka {0}")]
    Embedded(&'static str),
    /// Another operation failed.
    #[error("{what}")]
    Failed {
        /// What failed, as a sentence.
        what: Cow<'static, str>,
        /// Why.
        #[source]
        cause: KafkaError,
    },
    /// A broker or librdkafka refuses an admin call.
    #[error("{what}: {why}")]
    Refused {
        /// What is refused, as a sentence.
        what: Cow<'static, str>,
        /// The reason as librdkafka returned it.
        why: String,
    },
    /// librdkafka does not behave as documented.
    #[error("librdkafka {0}")]
    Library(&'static str),
    /// librdkafka refuses a call.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A name contains NUL.
    #[error(transparent)]
    Name(#[from] NulError),
    /// The thread of a call has panicked, or the runtime is shutting down.
    #[error(transparent)]
    Thread(#[from] JoinError),
}

impl ClusterError {
    /// Use with `map_err`.
    pub(super) fn failed(what: impl Into<Cow<'static, str>>) -> impl FnOnce(KafkaError) -> Self {
        move |cause| Self::Failed { what: what.into(), cause }
    }

    pub(super) fn refused(what: impl Into<Cow<'static, str>>, why: String) -> Self {
        Self::Refused { what: what.into(), why }
    }

    pub(super) fn no_broker(cause: KafkaError) -> Self {
        Self::NoBroker(Some(cause))
    }
}
