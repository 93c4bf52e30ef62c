//! What librdkafka refuses of the properties, in words that may be read by anybody.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use super::Connection;
use crate::config::{Problems, is_secret};

/// librdkafka's own text holds the value, which may be a secret: this names the property, and says what is wrong
/// with it where no secret can stand in that.
fn said(name: &str, description: &str) -> String {
    match is_secret(name) {
        // "... not supported in this build" is worth knowing, and quotes no value.
        true if !description.contains("not supported") => "librdkafka refuses its value".to_owned(),
        _ => format!("librdkafka refuses it: {}", description.trim_end_matches(['.', '\n'])),
    }
}

/// Why a client could not be made.
pub(super) fn refused(error: KafkaError) -> anyhow::Error {
    match error {
        KafkaError::ClientConfig(_, description, name, _) => {
            anyhow::anyhow!("kafka.properties.{name}: {}", said(&name, &description))
        }
        other => anyhow::Error::new(other).context("librdkafka refuses [kafka]"),
    }
}

impl Connection {
    /// Adds each property that librdkafka does not know or whose value it does not take. Speaks to no broker.
    pub fn judge(&self, problems: &mut Problems) {
        for (name, value) in self.properties.iter() {
            let alone = ClientConfig::new().set(name, value).create_native_config();
            if let Err(KafkaError::ClientConfig(_, description, ..)) = alone {
                problems.add(format!("kafka.properties.{name}"), said(name, &description));
            }
        }
    }
}
