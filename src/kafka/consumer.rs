//! Reads topics without side effects on the cluster: it assigns partitions directly, joins no consumer
//! group and commits nothing.
//!
//! Decision: each partition has a queue of its own. The end-of-partition event loses its topic in rdkafka.
//! Counting offsets up to the end would wait forever if compaction or a transaction marker has taken the
//! last ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{StreamExt as _, select_all};
use jiff::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::consumer::{Consumer as _, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::hidden::hidden;
use super::last_error::LastError;
use super::{ClusterConfig, ClusterError, TRIES, TRY};

mod fetched;
pub(super) mod first_unread;
#[cfg(test)]
mod tests;

pub use fetched::Fetched;

/// librdkafka requires a group name to create a consumer. Nobody joins this group.
const GROUP: &str = "hookstream-tail";

/// The time limit of every other call to the cluster.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The pause before another lookup while a partition has no leader.
const LEADER_PAUSE: Duration = Duration::from_millis(200);

/// A bounded read fails if the cluster sends nothing for this long.
const STALL: Duration = Duration::from_secs(30);

/// The minimum interval between two messages about the same outage.
const QUIET: Duration = Duration::from_secs(30);

/// The prefix of the cluster id of librdkafka's in-memory cluster.
const IN_MEMORY: &str = "mockCluster";

/// The position at which reading begins in each partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The oldest record that Kafka retains.
    Beginning,
    /// The current end: only records added from now on.
    End,
    /// This many offsets before the end; fewer records if compaction has removed some.
    Last(u32),
    /// The first record whose timestamp is this or later.
    Time(Timestamp),
}

/// The offsets of a partition to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub topic: Arc<str>,
    pub partition: i32,
    /// The first offset to read.
    pub start: i64,
    /// The log end when the span was determined.
    pub end: i64,
    /// Milliseconds since 1970; earlier records are skipped.
    not_before: Option<i64>,
}

impl Span {
    fn wants(&self, record: &Fetched) -> bool {
        self.not_before.is_none_or(|time| record.timestamp_ms >= Some(time))
    }
}

/// An event of a read.
#[derive(Debug)]
pub enum ConsumerEvent {
    Record(Fetched),
    /// The cluster cannot be read at the moment and is retried. The text is for people.
    Trouble(String),
}

/// Reads topics.
pub struct Consumer {
    inner: Arc<StreamConsumer<ConsumerCallbacks>>,
    bootstrap_servers: String,
}

/// Records librdkafka's reasons.
#[derive(Default)]
struct ConsumerCallbacks(LastError);

impl ClientContext for ConsumerCallbacks {
    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.0.record(code, reason);
        }
    }
}

impl ConsumerContext for ConsumerCallbacks {}

impl Consumer {
    /// Creates the client without waiting for brokers.
    ///
    /// # Errors
    /// If librdkafka refuses a property.
    pub fn new(connection: &ClusterConfig) -> Result<Self, ClusterError> {
        Self::with(connection, &[])
    }

    /// `forced` overrides the user's properties.
    fn with(connection: &ClusterConfig, forced: &[(&str, &str)]) -> Result<Self, ClusterError> {
        let config = Self::config(connection, forced);
        let inner = config.create_with_context(ConsumerCallbacks::default());
        let inner = inner.map_err(|error| connection.refused(error))?;
        Ok(Self { inner: Arc::new(inner), bootstrap_servers: connection.bootstrap_servers().to_owned() })
    }

    /// The complete librdkafka configuration.
    pub(super) fn config(connection: &ClusterConfig, forced: &[(&str, &str)]) -> ClientConfig {
        let defaults = [
            ("group.id", GROUP),
            // Retention may have deleted the requested start meanwhile.
            ("auto.offset.reset", "earliest"),
            // Per partition: a reader slower than the cluster must not fill the memory.
            ("queued.max.messages.kbytes", "2048"),
            ("queued.min.messages", "1000"),
            // librdkafka's in-memory cluster answers a waiting fetch only when its time is over. A person who
            // watches notices the default of half a second.
            ("fetch.wait.max.ms", "100"),
            // A topic deleted during the read is reported after this time instead of half a minute.
            ("topic.metadata.propagation.max.ms", "5000"),
        ];
        let mut config = connection.client_config(&defaults);
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("enable.partition.eof", "true");
        // hookstream writes no transactions. `read_committed` would stop before another producer's open transaction
        // as if no records followed. The price: records of aborted transactions are shown.
        config.set("isolation.level", "read_uncommitted");
        for (name, value) in forced {
            config.set(*name, *value);
        }
        config
    }

    /// The topics that are visible to the client, with their partition counts.
    ///
    /// # Errors
    /// If no broker answers in time; contains the last reason that librdkafka gave.
    pub async fn topics(&self) -> Result<BTreeMap<String, i32>, ClusterError> {
        for _ in 0..TRIES {
            let metadata = self.call(|consumer| consumer.fetch_metadata(None, TRY)).await?;
            if let Ok(metadata) = metadata {
                let topics = metadata.topics().iter();
                let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
                return Ok(topics.map(|t| (t.name().to_owned(), count(t.partitions().len()))).collect());
            }
            if self.inner.context().0.is_hopeless() {
                break;
            }
        }
        Err(ClusterError::Unreachable { servers: self.bootstrap_servers.clone(), reason: self.reason() })
    }

    /// Those of the topics that hookstream's user may not see, whether they exist or not. Pass only topics that
    /// [`Self::topics`] does not return: each costs a request.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub async fn hidden(&self, topics: &[String]) -> Result<BTreeSet<String>, ClusterError> {
        let topics = topics.to_vec();
        let hidden = self.call(move |consumer| hidden(consumer.client(), &topics, TIMEOUT)).await?;
        hidden.map_err(ClusterError::no_broker)
    }

    /// The current span of each partition from `start` to the log end.
    ///
    /// # Errors
    /// If the cluster does not answer in time or reports an error for a partition.
    pub async fn spans(&self, partitions: &[(String, i32)], start: Start) -> Result<Vec<Span>, ClusterError> {
        let not_before = match start {
            Start::Time(time) if self.is_in_memory().await? => Some(time.as_millisecond()),
            _ => None,
        };
        let ends = self.offsets(partitions, Offset::End).await?;
        let beginnings = match start {
            Start::End => ends.clone(),
            _ if not_before.is_some() => self.offsets(partitions, Offset::Beginning).await?,
            Start::Beginning | Start::Last(_) => self.offsets(partitions, Offset::Beginning).await?,
            Start::Time(time) => self.offsets(partitions, Offset::Offset(time.as_millisecond())).await?,
        };
        let spans = partitions.iter().zip(ends.into_iter().zip(beginnings));
        Ok(spans
            .map(|((topic, partition), (end, beginning))| {
                // No offset means that no record is as late as the requested time: read from the end.
                let (end, beginning) = (end.unwrap_or(0), beginning.or(end).unwrap_or(0));
                let start = match start {
                    Start::Last(count) => beginning.max(end.saturating_sub(i64::from(count))),
                    _ => beginning,
                };
                Span { topic: topic.as_str().into(), partition: *partition, start, end, not_before }
            })
            .collect())
    }

    /// librdkafka's in-memory cluster answers a lookup by time with the log end. A read by time therefore
    /// starts at the beginning there and skips earlier records, which is cheap because it holds little.
    async fn is_in_memory(&self) -> Result<bool, ClusterError> {
        let id = self.call(|consumer| consumer.client().fetch_cluster_id(TIMEOUT)).await?;
        Ok(id.is_some_and(|id| id.starts_with(IN_MEMORY)))
    }

    /// Sends the records of the spans to `out`, in order within each partition. A `bounded` read returns at
    /// the spans' ends; otherwise it continues with new records forever. It also returns when the receiver
    /// is dropped.
    ///
    /// # Errors
    /// If a topic was deleted or may not be read; if `bounded`, also when the cluster sends nothing for too long.
    ///
    /// # Cancellation
    /// Dropping the future stops the read and leaves nothing behind on the cluster.
    pub async fn read(
        &self,
        spans: &[Span],
        bounded: bool,
        out: &mpsc::Sender<ConsumerEvent>,
    ) -> Result<(), ClusterError> {
        let spans: Vec<&Span> = spans.iter().filter(|span| !bounded || span.start < span.end).collect();
        if spans.is_empty() {
            return Ok(());
        }
        let queues = self.assign(&spans)?;
        let mut records = select_all(
            queues.iter().enumerate().map(|(at, queue)| queue.stream().map(move |result| (at, result))),
        );
        let mut open: Vec<Option<&Span>> = spans.into_iter().map(Some).collect();
        let mut remaining = open.len();
        let (mut last_activity, mut last_trouble) = (Instant::now(), None::<Instant>);
        while remaining > 0 {
            let event = tokio::select! {
                Some((at, result)) = records.next() => {
                    let Some(slot) = open.get_mut(at) else { continue };
                    let Some(span) = *slot else { continue };
                    last_activity = Instant::now();
                    let (event, done) = step(span, result)?;
                    if bounded && done {
                        *slot = None;
                        remaining -= 1;
                    }
                    event.filter(|event| !bounded || !matches!(event, ConsumerEvent::Record(r) if r.offset >= span.end))
                }
                result = self.inner.recv() => self.trouble(result),
                () = tokio::time::sleep_until((last_activity + STALL).into()), if bounded => {
                    return Err(ClusterError::Silent { seconds: STALL.as_secs(), reason: self.reason() })
                }
            };
            let Some(event) = event else { continue };
            let record = matches!(event, ConsumerEvent::Record(_));
            if !record {
                if last_trouble.is_some_and(|last_trouble| last_trouble.elapsed() < QUIET) {
                    continue;
                }
                last_trouble = Some(Instant::now());
            }
            if out.send(event).await.is_err() {
                break;
            }
            // A slow receiver must not count as a silent cluster.
            if record {
                last_activity = Instant::now();
            }
        }
        Ok(())
    }

    /// Starts fetching, with one queue for each span.
    fn assign(&self, spans: &[&Span]) -> Result<Vec<StreamPartitionQueue<ConsumerCallbacks>>, ClusterError> {
        let (mut queues, mut list) = (Vec::with_capacity(spans.len()), TopicPartitionList::new());
        for Span { topic, partition, start, .. } in spans {
            // Split before `assign`, so that no record arrives in the common queue.
            let queue = self.inner.split_partition_queue(topic, *partition);
            let missing = || ClusterError::NoPartition { topic: topic.to_string(), partition: *partition };
            queues.push(queue.ok_or_else(missing)?);
            list.add_partition_offset(topic, *partition, Offset::Offset(*start))?;
        }
        self.inner.assign(&list).map_err(ClusterError::failed("the partitions cannot be read"))?;
        Ok(queues)
    }

    /// Handles the common queue, which carries errors of the whole connection. Group errors are ignored,
    /// because nobody joins the group and the user may not be authorized for it.
    fn trouble(&self, result: Result<BorrowedMessage<'_>, KafkaError>) -> Option<ConsumerEvent> {
        match result.err()?.rdkafka_error_code()? {
            Code::AllBrokersDown | Code::Authentication => {
                Some(ConsumerEvent::Trouble(format!("no Kafka broker answers; retrying{}", self.reason())))
            }
            _ => None,
        }
    }

    /// `: reason`, or an empty string.
    fn reason(&self) -> String {
        self.inner.context().0.text()
    }

    /// One offset for each partition, in their order; `None` if no record is as late as the requested time.
    async fn offsets(
        &self,
        partitions: &[(String, i32)],
        requested: Offset,
    ) -> Result<Vec<Option<i64>>, ClusterError> {
        let found = self.lookup(partitions, requested).await?;
        let mut offsets = Vec::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            let unknown = |cause| {
                let (topic, partition) = (topic.clone(), *partition);
                ClusterError::NoOffset { topic, partition, cause }
            };
            let found = found.find_partition(topic, *partition).ok_or_else(|| unknown(None))?;
            found.error().map_err(|cause| unknown(Some(cause)))?;
            offsets.push(match found.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            });
        }
        Ok(offsets)
    }

    /// Looks up the offsets; each partition of the result has its own error.
    async fn lookup(
        &self,
        partitions: &[(String, i32)],
        requested: Offset,
    ) -> Result<TopicPartitionList, ClusterError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition_offset(topic, *partition, requested)?;
        }
        let until = Instant::now() + TIMEOUT;
        loop {
            let requested = list.clone();
            let lookup = self.call(move |consumer| consumer.offsets_for_times(requested, TIMEOUT)).await?;
            let code = match lookup {
                Ok(found) => return Ok(found),
                Err(error) => error.rdkafka_error_code(),
            };
            // A topic that was created a moment ago, or a partition whose leader has just changed.
            let moves = code
                .is_some_and(|code| [Code::NotLeaderForPartition, Code::LeaderNotAvailable].contains(&code));
            if !moves || Instant::now() > until {
                return Err(ClusterError::NoOffsets(code));
            }
            tokio::time::sleep(LEADER_PAUSE).await;
            // The leaders are known anew; an error shows in the next lookup.
            let _ = self.call(|consumer| consumer.fetch_metadata(None, TRY)).await?;
        }
    }

    /// Runs a blocking call on a thread of its own. It polls meanwhile, so that [`ConsumerCallbacks`] receives errors.
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&StreamConsumer<ConsumerCallbacks>) -> T + Send + 'static,
    ) -> Result<T, ClusterError> {
        let consumer = self.inner.clone();
        let mut call = tokio::task::spawn_blocking(move || call(&consumer));
        loop {
            tokio::select! {
                result = &mut call => return Ok(result?),
                _ = self.inner.recv() => {}
            }
        }
    }
}

/// Converts one result of a partition's queue; the flag is true after the last record of the span.
fn step(
    span: &Span,
    result: Result<BorrowedMessage<'_>, KafkaError>,
) -> Result<(Option<ConsumerEvent>, bool), ClusterError> {
    let error = match result {
        Ok(message) => {
            let done = message.offset() + 1 >= span.end;
            let record = Fetched::from(&message);
            return Ok((span.wants(&record).then_some(ConsumerEvent::Record(record)), done));
        }
        Err(KafkaError::PartitionEOF(_)) => return Ok((None, true)),
        Err(error) => error,
    };
    let topic = &span.topic;
    match error.rdkafka_error_code() {
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
            Err(ClusterError::TopicDeleted(topic.to_string()))
        }
        Some(Code::TopicAuthorizationFailed) => Err(ClusterError::ReadDenied(topic.to_string())),
        Some(code) => {
            let text = format!("{topic} [{}] cannot be read at the moment: {code}", span.partition);
            Ok((Some(ConsumerEvent::Trouble(text)), false))
        }
        None => Err(error.into()),
    }
}
