//! librdkafka's errors about properties, in words that reveal no secret.

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::BaseProducer;

use super::{ClusterConfig, Consumer, Producer, Tuning};
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

    /// Adds a problem if librdkafka refuses the properties together, or cannot use a file that they name: it reads
    /// certificates, keys and mechanisms only when it creates a client. Contacts no broker: these clients know none.
    pub fn validate_clients(&self, tuning: Tuning, problems: &mut ConfigErrors) {
        let without_brokers = |mut config: ClientConfig| {
            config.remove("bootstrap.servers");
            config
        };
        let producer: KafkaResult<BaseProducer> = without_brokers(Producer::config(self, tuning)).create();
        let consumer: KafkaResult<BaseConsumer> = without_brokers(Consumer::config(self, &[])).create();
        let Some(error) = producer.err().or(consumer.err()) else { return };
        let cause = match &error {
            KafkaError::ClientCreation(cause) => cause.clone(),
            other => other.to_string(),
        };
        let cause = self.properties.redact(cause.trim_end());
        problems.add("kafka.properties", format!("librdkafka cannot create a client: {cause}"));
    }
}
