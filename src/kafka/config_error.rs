//! What librdkafka refuses of the properties, in words that may be read by anybody.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use super::ClusterConfig;
use crate::config::ConfigErrors;

/// librdkafka's own text quotes the value, or the part of it that it does not like, and that may be a secret,
/// also one in the wrong place. These two quote none.
fn describe(description: &str) -> String {
    let safe = ["No such configuration property", "not supported in this build"];
    match safe.iter().any(|safe| description.contains(safe)) {
        true => format!("librdkafka refuses it: {}", description.trim_end_matches(['.', '\n'])),
        false => "librdkafka does not take its value; see its CONFIGURATION.md".to_owned(),
    }
}

/// Why a client could not be made.
pub(super) fn refused(error: KafkaError) -> anyhow::Error {
    match error {
        KafkaError::ClientConfig(_, description, name, _) => {
            anyhow::anyhow!("kafka.properties.{name}: {}", describe(&description))
        }
        other => anyhow::Error::new(other).context("librdkafka refuses [kafka]"),
    }
}

impl ClusterConfig {
    /// Adds each property that librdkafka does not know or whose value it does not take. Speaks to no broker.
    pub fn validate(&self, problems: &mut ConfigErrors) {
        for (name, value) in self.properties.iter() {
            let alone = ClientConfig::new().set(name, value).create_native_config();
            if let Err(KafkaError::ClientConfig(_, description, ..)) = alone {
                problems.add(format!("kafka.properties.{name}"), describe(&description));
            }
        }
    }
}
