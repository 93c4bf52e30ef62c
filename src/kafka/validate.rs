//! Checks `[kafka]` before a client is used.

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::BaseProducer;

use super::config_error::describe;
use super::{ClusterConfig, Consumer, Producer, Tuning};
use crate::config::ConfigErrors;

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
        let description = match &error {
            KafkaError::ClientCreation(description) => description.clone(),
            // [`Self::validate`] reports it, without the value.
            KafkaError::ClientConfig(..) => return,
            other => other.to_string(),
        };
        let cause = self.properties.redact(description.trim_end());
        problems.add("kafka.properties", format!("librdkafka cannot create a client: {cause}"));
    }
}
