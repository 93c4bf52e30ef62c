//! librdkafka's errors about properties, in words that reveal no secret.

use rdkafka::error::KafkaError;

use super::{ClusterConfig, ClusterError};

/// librdkafka's own text quotes the value or a part of it, which may be a secret, possibly one that was
/// entered for the wrong property. The two texts that are passed on quote no value.
pub(super) fn describe(description: &str) -> String {
    let safe = ["No such configuration property", "not supported in this build"];
    match safe.iter().any(|safe| description.contains(safe)) {
        true => format!("librdkafka refuses it: {}", description.trim_end_matches(['.', '\n'])),
        false => "librdkafka refuses its value; see librdkafka's CONFIGURATION.md".to_owned(),
    }
}

impl ClusterConfig {
    /// Why a client could not be created.
    pub(super) fn refused(&self, error: KafkaError) -> ClusterError {
        ClusterError::ClientRefused(match error {
            KafkaError::ClientConfig(_, description, name, _) => {
                return ClusterError::PropertyRefused { name, why: describe(&description) };
            }
            KafkaError::ClientCreation(description) => {
                KafkaError::ClientCreation(self.properties.redact(description.trim_end()))
            }
            other => other,
        })
    }
}
