//! The idempotent producer, always with acks=all.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use jiff::Timestamp;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders, Timestamp as KafkaTimestamp};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::{ClientConfig, ClientContext, statistics};
use serde::Deserialize;

use super::health_reporter::HealthReporter;
use super::partitions::{PartitionCounts, TopicStatistics};
use super::{ClusterConfig, ClusterError, PublishError, partition_of};
use crate::observe::clock::{Clocks, Reference};
use crate::observe::health::{Health, PartState};
use crate::observe::metrics::{self, Broker, ProducerQueue};
use crate::record::Record;

/// The position of an acknowledged record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub partition: i32,
    pub offset: i64,
}

/// Producer settings that follow from the service's own limits.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// The longest time that a delivery waits for Kafka. librdkafka gives up a record one second later: its
    /// time-out is only an upper bound, and this budget decides.
    pub kafka_budget: Duration,
    /// The largest record, in bytes.
    pub max_record: usize,
    /// The memory limit of librdkafka's queue, in KiB. The limit of deliveries in flight takes effect
    /// earlier; this one is the last resort.
    pub queue_kib: u32,
}

impl Tuning {
    /// [`Self::queue_kib`] of `serve` and `replay`.
    pub const QUEUE_KIB: u32 = 256 * 1024;
}

/// Publishes records; share it by reference. It replaces its librdkafka producer after a fatal error, see
/// [`Producer::supervise`].
pub struct Producer {
    pub(super) connection: ClusterConfig,
    pub(super) tuning: Tuning,
    pub(super) current: ArcSwap<ActiveProducer>,
    pub(super) partitions: Arc<PartitionCounts>,
    clocks: Arc<Clocks>,
}

/// One librdkafka producer, with its reporter of Kafka's health.
pub(super) struct ActiveProducer {
    pub(super) inner: FutureProducer<ProducerCallbacks>,
    pub(super) reporter: HealthReporter,
}

impl ActiveProducer {
    pub(super) fn new(
        connection: &ClusterConfig,
        tuning: Tuning,
        reporter: HealthReporter,
        partitions: Arc<PartitionCounts>,
    ) -> Result<Self, ClusterError> {
        let callbacks = ProducerCallbacks { reporter: reporter.clone(), partitions };
        let inner = Producer::config(connection, tuning).create_with_context(callbacks);
        let inner = inner.map_err(|error| connection.refused(error))?;
        Ok(Self { inner, reporter })
    }

    /// Whether the producer has failed fatally. If so, marks Kafka as down and wakes [`Producer::supervise`].
    pub(super) fn check_fatal(&self) -> bool {
        let Some((code, why)) = self.inner.client().fatal_error() else { return false };
        self.reporter.failed(&format!("{code:?}: {why}"));
        self.reporter.suspect();
        true
    }
}

pub(super) struct ProducerCallbacks {
    reporter: HealthReporter,
    partitions: Arc<PartitionCounts>,
}

/// The used part of librdkafka's statistics. The figures of each partition, some KB every second, are skipped.
#[derive(Deserialize)]
struct Statistics {
    msg_cnt: u64,
    msg_size: u64,
    brokers: HashMap<String, statistics::Broker>,
    topics: HashMap<String, TopicStatistics>,
}

impl ClientContext for ProducerCallbacks {
    fn stats_raw(&self, statistics: &[u8]) {
        let statistics: Statistics = match serde_json::from_slice(statistics) {
            Ok(statistics) => statistics,
            Err(error) => return tracing::debug!(%error, "librdkafka's statistics"),
        };
        metrics::queue(ProducerQueue { records: statistics.msg_cnt, bytes: statistics.msg_size });
        // Bootstrap addresses and the group coordinator are listed as well, without an id.
        for broker in statistics.brokers.values().filter(|broker| broker.nodeid >= 0) {
            let rtt = broker.rtt.as_ref().filter(|window| window.cnt > 0);
            metrics::broker(Broker {
                id: broker.nodeid,
                round_trip: rtt.map(|window| Duration::from_micros(window.p99.unsigned_abs())),
                retries: broker.txretries,
                errors: broker.txerrs + broker.rxerrs + broker.req_timeouts,
            });
        }
        let counts = statistics.topics.iter().map(|(name, topic)| (name.as_str(), topic.partitions.0));
        self.partitions.update(counts);
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            self.reporter.broker_answered();
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reporter.suspect();
        self.reporter.report(|health| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) if health.kafka.state() == PartState::Ok => {
                health.kafka.set(PartState::Down, "no broker answers");
            }
            // While no broker answers, these codes name the cause.
            Some(
                RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SSL
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::BrokerTransportFailure,
            ) if health.kafka.state() != PartState::Ok => health.kafka.set(PartState::Down, reason),
            _ => tracing::debug!(%error, reason, "librdkafka"),
        });
    }
}

impl Producer {
    /// Creates the producer without waiting for brokers.
    ///
    /// # Errors
    /// If librdkafka refuses a property.
    pub fn new(
        connection: &ClusterConfig,
        tuning: Tuning,
        health: Arc<Health>,
    ) -> Result<Self, ClusterError> {
        let connection = connection.clone();
        let partitions = Arc::<PartitionCounts>::default();
        let clocks = health.clocks.clone();
        let live = ActiveProducer::new(&connection, tuning, HealthReporter::new(health), partitions.clone())?;
        Ok(Self { connection, tuning, current: ArcSwap::from_pointee(live), partitions, clocks })
    }

    /// The complete librdkafka configuration. Public for the benchmarks: the clients that they compare with
    /// hookstream publish with the same settings.
    pub fn config(connection: &ClusterConfig, tuning: Tuning) -> ClientConfig {
        let defaults = [
            // 0 more than doubles the CPU time of service and broker; 5 only adds latency.
            ("linger.ms", "1"),
            ("compression.type", "lz4"),
            ("statistics.interval.ms", "1000"),
        ];
        let mut config = connection.client_config(&defaults);
        // The delivery guarantee depends on these; the configuration refuses them as properties.
        config.set("acks", "all");
        config.set("enable.idempotence", "true");
        // The Java clients' partitioner, so that joins and repartitioning agree.
        config.set("partitioner", "murmur2_random");
        config.set("message.timeout.ms", (tuning.kafka_budget.as_millis() + 1_000).to_string());
        // Below the budget, so that the error for a missing topic names the topic instead of a time-out.
        config.set("topic.metadata.propagation.max.ms", (tuning.kafka_budget.as_millis() / 2).to_string());
        config.set("message.max.bytes", tuning.max_record.to_string());
        config.set("queue.buffering.max.kbytes", tuning.queue_kib.to_string());
        config
    }

    pub(super) fn live(&self) -> Guard<Arc<ActiveProducer>> {
        self.current.load()
    }

    /// Hands the record to librdkafka now and returns its acknowledgement as a future. Its Kafka timestamp
    /// is the current time, see [`Clocks::stamp`]; the time of receipt is in its headers and its value.
    ///
    /// # Errors
    /// Immediately if librdkafka's queue is full or librdkafka refuses the record; later the error from Kafka.
    ///
    /// # Cancellation
    /// The future owns nothing: dropping it does not recall the record, which may or may not be
    /// written.
    pub fn publish(
        &self,
        record: &Record,
    ) -> Result<impl Future<Output = Result<Ack, PublishError>> + Send + use<>, PublishError> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers().len());
        for (key, value) in record.headers() {
            headers = headers.insert(Header { key, value: Some(value.as_ref()) });
        }
        let (clocks, stamp) = (self.clocks.clone(), self.clocks.stamp(Timestamp::now()));
        let message = FutureRecord::to(record.topic())
            .key(record.key())
            .payload(record.value())
            .timestamp(stamp.ms)
            .headers(headers);
        let live = self.live();
        let ack = live.inner.send_result(message).map_err(|(error, _)| {
            live.check_fatal();
            PublishError::at_once(&error)
        })?;
        Ok(async move {
            match ack.await {
                // librdkafka counts a record as written if Kafka acknowledged a later one, and then has no offset for
                // it. This was wrong in a partition that was just being created: the first record was missing.
                // Another attempt costs at most a duplicate.
                Ok(Ok(delivered)) if delivered.offset < 0 => {
                    Err(PublishError::unanswered("Kafka acknowledged a later record but not this one"))
                }
                Ok(Ok(delivered)) => {
                    if let KafkaTimestamp::LogAppendTime(ms) = delivered.timestamp {
                        clocks.learn(Reference::Kafka, ms);
                    }
                    clocks.accept(stamp);
                    Ok(Ack { partition: delivered.partition, offset: delivered.offset })
                }
                Ok(Err((error, _))) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::InvalidRecord) if !clocks.is_accepted(stamp) => {
                        Err(PublishError::Ambiguous)
                    }
                    Some(RDKafkaErrorCode::InvalidTimestamp) => {
                        clocks.refuse(stamp);
                        Err(PublishError::from(&error))
                    }
                    _ => Err(PublishError::from(&error)),
                },
                Err(_) => Err(PublishError::unanswered("the producer was dropped")),
            }
        })
    }

    /// The partition of the record's key and the topic's partition count; `None` while the count is unknown.
    pub fn place_of(&self, record: &Record) -> Option<(i32, i32)> {
        let count = self.partitions.get(record.topic())?;
        Some((partition_of(record.key().as_bytes(), count), count))
    }

    /// Only the partition of [`Producer::place_of`].
    pub fn partition_of(&self, record: &Record) -> Option<i32> {
        self.place_of(record).map(|(partition, _)| partition)
    }

    /// Sets `health` to Ok if a broker answers within `timeout`. Blocks. Without traffic, nothing else makes
    /// librdkafka reconnect.
    pub fn probe(&self, timeout: Duration) {
        let live = self.live();
        if live.inner.client().fetch_metadata(None, timeout).is_ok() {
            live.reporter.broker_answered();
        }
    }

    /// Sets `health` to Ok after a broker answered another client, unless this producer has failed fatally.
    pub fn kafka_answers(&self) {
        self.live().reporter.broker_answered();
    }

    /// Requests the metadata of `topics`, so that the first record of each need not wait for it. Blocks up to `timeout`.
    ///
    /// Decision: one request for the metadata of all topics, which librdkafka keeps as if it had asked for each by name.
    /// The price is the memory of other topics on the cluster, until they expire; a request for each topic took seconds with
    /// hundreds of sources.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub fn warm_up(&self, topics: &[String], timeout: Duration) -> Result<(), ClusterError> {
        if topics.is_empty() {
            return Ok(());
        }
        let metadata = self.live().inner.client().fetch_metadata(None, timeout);
        let metadata = metadata.map_err(ClusterError::failed("no metadata of the topics"))?;
        let partitions = |topic: &MetadataTopic| i32::try_from(topic.partitions().len()).unwrap_or(0);
        let counts: HashMap<&str, i32> =
            metadata.topics().iter().map(|topic| (topic.name(), partitions(topic))).collect();
        let counts =
            topics.iter().map(|name| (name.as_str(), counts.get(name.as_str()).copied().unwrap_or(0)));
        self.partitions.update(counts);
        Ok(())
    }

    /// Waits up to `timeout` until no record is in flight. Blocks.
    ///
    /// # Errors
    /// If records are still in flight then.
    pub fn flush(&self, timeout: Duration) -> Result<(), ClusterError> {
        self.live().inner.flush(timeout).map_err(ClusterError::failed("records are still in flight"))
    }
}
