//! librdkafka's errors about properties, in words that reveal no secret.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use super::ClusterConfig;
use crate::config::ConfigErrors;

/// librdkafka's own text quotes the value or a part of it, which may be a secret, possibly one that was
/// entered for the wrong property. The two texts that are passed on quote no value.
fn describe(description: &str) -> String {
    let safe = ["No such configuration property", "not supported in this build"];
    match safe.iter().any(|safe| description.contains(safe)) {
        true => format!("librdkafka refuses it: {}", description.trim_end_matches(['.', '\n'])),
        false => "librdkafka refuses its value; see librdkafka's CONFIGURATION.md".to_owned(),
    }
}

/// Why a client could not be created.
pub(super) fn refused(error: KafkaError) -> anyhow::Error {
    match error {
        KafkaError::ClientConfig(_, description, name, _) => {
            anyhow::anyhow!("kafka.properties.{name}: {}", describe(&description))
        }
        other => anyhow::Error::new(other).context("librdkafka refuses [kafka]"),
    }
}

impl ClusterConfig {
    /// Adds a problem for each property whose name or value librdkafka refuses. Contacts no broker.
    pub fn validate(&self, problems: &mut ConfigErrors) {
        for (name, value) in self.properties.iter() {
            let alone = ClientConfig::new().set(name, value).create_native_config();
            if let Err(KafkaError::ClientConfig(_, description, ..)) = alone {
                problems.add(format!("kafka.properties.{name}"), describe(&description));
            }
        }
    }
}
