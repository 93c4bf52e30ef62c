//! An in-memory Kafka for `hookstream dev` and for fault tests: librdkafka's mock cluster.
//!
//! Its limits: it does not answer topic administration (create topics with [`Embedded::create_topic`]), it
//! stamps records with a constant time, it retains 5 MiB per partition, and Java clients cannot use it. The
//! first member of a group waits three seconds for others.
//!
//! Decision: [`MockCluster`] is not `Send`, so this stores the client that owns the cluster and gets the
//! cluster from it at each call. That client never polls: its log level is the lowest, because every log line
//! would stay in its queue.

use std::time::Duration;

use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::mocking::MockCluster;
pub use rdkafka::types::RDKafkaRespErr;
use rdkafka::types::{RDKafkaApiKey, RDKafkaType};

use super::ClusterError;

/// One broker suffices for clients, and a forwarder then needs only one address.
const BROKERS: &str = "1";

/// librdkafka's broker id for "each broker".
const ALL: i32 = -1;

/// A Kafka cluster of one broker inside this process, on a free port of 127.0.0.1. It stops when dropped.
pub struct Embedded {
    client: Client<DefaultClientContext>,
}

impl Embedded {
    /// Starts the cluster; it accepts connections when this returns.
    ///
    /// # Errors
    /// If librdkafka cannot create a client or bind a port.
    pub fn start() -> Result<Self, ClusterError> {
        let mut config = ClientConfig::new();
        config.set("test.mock.num.brokers", BROKERS).set("client.id", "hookstream-embedded");
        config.set_log_level(RDKafkaLogLevel::Emerg);
        let native = config.create_native_config()?;
        let client = Client::new(&config, native, RDKafkaType::RD_KAFKA_PRODUCER, DefaultClientContext)
            .map_err(ClusterError::failed("cannot start the in-memory Kafka"))?;
        client.mock_cluster().ok_or(ClusterError::Embedded("did not start"))?;
        Ok(Self { client })
    }

    /// The address for clients: `127.0.0.1:PORT`.
    pub fn bootstrap_servers(&self) -> String {
        self.client.mock_cluster().map(|cluster| cluster.bootstrap_servers()).unwrap_or_default()
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// If the topic exists, or the name contains a NUL.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), ClusterError> {
        let what = format!("cannot create the topic {name} in the in-memory Kafka");
        self.cluster()?.create_topic(name, partitions, 1).map_err(ClusterError::failed(what))
    }

    /// Closes each connection and accepts no new ones.
    ///
    /// # Errors
    /// If librdkafka refuses.
    pub fn broker_down(&self) -> Result<(), ClusterError> {
        Ok(self.cluster()?.broker_down(ALL)?)
    }

    /// Accepts connections again.
    ///
    /// # Errors
    /// If librdkafka refuses.
    pub fn broker_up(&self) -> Result<(), ClusterError> {
        Ok(self.cluster()?.broker_up(ALL)?)
    }

    /// Delays each answer by `round_trip` from now on. Zero ends the delay.
    ///
    /// # Errors
    /// If librdkafka refuses.
    pub fn delay(&self, round_trip: Duration) -> Result<(), ClusterError> {
        Ok(self.cluster()?.broker_round_trip_time(ALL, round_trip)?)
    }

    /// Answers the next produce requests with these errors, one for each request, in this order.
    /// The producer retries after a retriable error and receives the next one.
    ///
    /// # Errors
    /// If the cluster has stopped.
    pub fn fail_produce(&self, errors: &[RDKafkaRespErr]) -> Result<(), ClusterError> {
        self.cluster()?.request_errors(RDKafkaApiKey::Produce, errors);
        Ok(())
    }

    /// Discards the remaining errors of [`Embedded::fail_produce`].
    ///
    /// # Errors
    /// If the cluster has stopped.
    pub fn fail_produce_no_more(&self) -> Result<(), ClusterError> {
        self.cluster()?.clear_request_errors(RDKafkaApiKey::Produce);
        Ok(())
    }

    fn cluster(&self) -> Result<MockCluster<'_, DefaultClientContext>, ClusterError> {
        self.client.mock_cluster().ok_or(ClusterError::Embedded("has stopped"))
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("bootstrap_servers", &self.bootstrap_servers()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::Message as _;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::error::{KafkaError, RDKafkaErrorCode};
    use rdkafka::producer::{FutureProducer, FutureRecord};
    use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
    use rdkafka::util::Timeout;

    use super::*;

    const TOPIC: &str = "datagrid.batch_prediction.completed";

    fn producer(kafka: &Embedded, timeout_ms: &str) -> FutureProducer {
        ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap_servers())
            .set("message.timeout.ms", timeout_ms)
            .set("reconnect.backoff.max.ms", "100")
            .set("enable.idempotence", "true")
            .create()
            .unwrap()
    }

    async fn send(producer: &FutureProducer, value: &str) -> Result<i64, KafkaError> {
        let record = FutureRecord::to(TOPIC).key("evt_1").payload(value).partition(0);
        let sent = producer.send(record, Timeout::After(Duration::ZERO)).await;
        sent.map(|delivery| delivery.offset).map_err(|(error, _)| error)
    }

    fn consume(kafka: &Embedded, count: usize) -> Vec<(String, String)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap_servers())
            .set("group.id", "reader")
            .create()
            .unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
        consumer.assign(&from).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        let mut seen = Vec::new();
        while seen.len() < count && Instant::now() < end {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
                seen.push((text(message.key()), text(message.payload())));
            }
        }
        seen
    }

    #[test]
    fn it_can_be_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Embedded>();
    }

    #[tokio::test]
    async fn what_is_produced_is_consumed() {
        let kafka = Embedded::start().unwrap();
        kafka.create_topic(TOPIC, 3).unwrap();
        let producer = producer(&kafka, "10000");
        assert_eq!(send(&producer, "one").await.unwrap(), 0);
        assert_eq!(send(&producer, "two").await.unwrap(), 1);
        let expected = [("evt_1".into(), "one".into()), ("evt_1".into(), "two".into())];
        assert_eq!(consume(&kafka, 2), expected);
    }

    #[test]
    fn a_topic_has_the_partitions_it_was_created_with_and_is_created_once() {
        let kafka = Embedded::start().unwrap();
        kafka.create_topic(TOPIC, 6).unwrap();
        let reader: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", kafka.bootstrap_servers()).create().unwrap();
        let metadata = reader.fetch_metadata(Some(TOPIC), Duration::from_secs(10)).unwrap();
        assert_eq!(metadata.topics()[0].partitions().len(), 6);
        assert!(kafka.create_topic(TOPIC, 6).unwrap_err().to_string().contains(TOPIC));
    }

    #[tokio::test]
    async fn a_broker_that_is_down_acknowledges_nothing_until_it_is_up_again() {
        let kafka = Embedded::start().unwrap();
        kafka.create_topic(TOPIC, 1).unwrap();
        let producer = producer(&kafka, "30000");
        send(&producer, "before").await.unwrap();

        kafka.broker_down().unwrap();
        let waiting = send(&producer, "during");
        tokio::pin!(waiting);
        let early = tokio::time::timeout(Duration::from_millis(500), &mut waiting).await;
        assert!(early.is_err(), "acknowledged while the broker was down: {early:?}");

        kafka.broker_up().unwrap();
        let late = tokio::time::timeout(Duration::from_secs(15), waiting).await;
        assert_eq!(late.unwrap().unwrap(), 1);
    }

    #[tokio::test]
    async fn a_delay_holds_back_the_acknowledgement() {
        let kafka = Embedded::start().unwrap();
        kafka.create_topic(TOPIC, 1).unwrap();
        let producer = producer(&kafka, "10000");
        send(&producer, "warm").await.unwrap();
        kafka.delay(Duration::from_millis(400)).unwrap();
        let start = Instant::now();
        send(&producer, "slow").await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(350), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn an_injected_error_refuses_one_produce_request() {
        let kafka = Embedded::start().unwrap();
        kafka.create_topic(TOPIC, 1).unwrap();
        let producer = producer(&kafka, "10000");
        kafka.fail_produce(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]).unwrap();
        let refused = send(&producer, "refused").await.unwrap_err();
        assert_eq!(refused.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));
    }
}
