//! Reads topics without leaving a trace: partitions are assigned directly, no group is joined,
//! nothing is committed.
//!
//! Decision: each partition has a queue of its own. librdkafka's end-of-partition event names no
//! topic once it has passed rdkafka, and counting offsets up to the end would wait for ever where
//! compaction or a transaction's marker has taken the last ones.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::stream::{StreamExt as _, select_all};
use jiff::Timestamp;
use rdkafka::ClientContext;
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::consumer::{Consumer as _, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::ClusterConfig;
use super::config_error::refused;

mod fetched;
pub(super) mod first_unread;
#[cfg(test)]
mod tests;

pub use fetched::Fetched;

/// librdkafka makes no consumer without a group's name. Nobody joins it.
const GROUP: &str = "hookstream-tail";

/// One try to learn the topics, and how many there are. Short, since a try cannot be called off.
const TRY: Duration = Duration::from_secs(3);
const TRIES: usize = 3;

/// The bound of each further call to the cluster.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long reading up to the end goes on without a sign of the cluster.
const STALL: Duration = Duration::from_secs(30);

/// Between two words about the same outage.
const QUIET: Duration = Duration::from_secs(30);

/// How the id of librdkafka's in-memory cluster begins.
const IN_MEMORY: &str = "mockCluster";

/// Where reading begins in each partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The oldest record that is kept.
    Beginning,
    /// What comes from now on.
    End,
    /// So many offsets before the end; fewer records where compaction has taken some.
    Last(u32),
    /// The first record whose timestamp is this or later.
    Time(Timestamp),
}

/// The part of a partition that is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub start: i64,
    /// The offset that the next record would have had when this was asked.
    pub end: i64,
    /// Milliseconds since 1970: earlier records are left out.
    not_before: Option<i64>,
}

impl Span {
    fn wants(&self, record: &Fetched) -> bool {
        self.not_before.is_none_or(|time| record.timestamp_ms >= Some(time))
    }
}

/// What comes while reading.
#[derive(Debug)]
pub enum Event {
    /// A record.
    Record(Fetched),
    /// The cluster cannot be read just now; tried again. A sentence for people.
    Trouble(String),
}

/// Reads topics.
pub struct Consumer {
    inner: Arc<StreamConsumer<Callbacks>>,
    bootstrap_servers: String,
}

/// Keeps the last reason that librdkafka gave, for error messages.
#[derive(Default)]
struct Callbacks(Mutex<Option<(KafkaError, String)>>);

impl ClientContext for Callbacks {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(Code::PartitionEOF) {
            return;
        }
        // What "all brokers are down" says about the cause is less than what came before it.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = match last.take() {
            Some((_, reason)) if error.rdkafka_error_code() == Some(Code::AllBrokersDown) => reason,
            // What follows counts repeats.
            _ => reason.split(" (after ").next().unwrap_or_default().to_owned(),
        };
        *last = Some((error, reason));
    }
}

impl ConsumerContext for Callbacks {}

impl Callbacks {
    fn last(&self) -> Option<(KafkaError, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Consumer {
    /// Creates the client. Brokers are not waited for.
    ///
    /// # Errors
    /// When librdkafka refuses a property.
    pub fn new(connection: &ClusterConfig) -> anyhow::Result<Self> {
        Self::with(connection, &[])
    }

    /// `forced` stands over the user's properties.
    fn with(connection: &ClusterConfig, forced: &[(&str, &str)]) -> anyhow::Result<Self> {
        let defaults = [
            ("group.id", GROUP),
            // The start may have fallen under retention since it was asked for.
            ("auto.offset.reset", "earliest"),
            // A reader that is slower than the cluster must not fill the memory: for each partition.
            ("queued.max.messages.kbytes", "2048"),
            ("queued.min.messages", "1000"),
            // librdkafka's in-memory cluster answers a waiting fetch at its end only; half a second is
            // seen by who watches.
            ("fetch.wait.max.ms", "100"),
            // A topic that is deleted while we read is missed after this, not after half a minute.
            ("topic.metadata.propagation.max.ms", "5000"),
        ];
        let mut config = connection.client_config(&defaults);
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("enable.partition.eof", "true");
        // What we write is in no transaction. Reading what is committed would end before somebody else's that is open,
        // as if nothing were behind it. The price: records of one that was aborted are shown, too.
        config.set("isolation.level", "read_uncommitted");
        for (name, value) in forced {
            config.set(*name, *value);
        }
        let inner = config.create_with_context(Callbacks::default()).map_err(refused)?;
        Ok(Self { inner: Arc::new(inner), bootstrap_servers: connection.bootstrap_servers().to_owned() })
    }

    /// The topics that may be seen, with the number of their partitions.
    ///
    /// # Errors
    /// When no broker answers in time, with the last reason that librdkafka gave.
    pub async fn topics(&self) -> anyhow::Result<BTreeMap<String, i32>> {
        for _ in 0..TRIES {
            let metadata = self.call(|consumer| consumer.fetch_metadata(None, TRY)).await?;
            if let Ok(metadata) = metadata {
                let topics = metadata.topics().iter();
                let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
                return Ok(topics.map(|t| (t.name().to_owned(), count(t.partitions().len()))).collect());
            }
            let hopeless = [Code::AllBrokersDown, Code::Authentication, Code::Resolve, Code::SSL];
            let last = self.inner.context().last();
            let code = last.and_then(|(error, _)| error.rdkafka_error_code());
            if code.is_some_and(|code| hopeless.contains(&code)) {
                break;
            }
        }
        Err(anyhow::anyhow!(
            "no Kafka broker answers at {}{}; see [kafka] of the configuration, or give -X kafka.bootstrap_servers=HOST:PORT",
            self.bootstrap_servers,
            self.reason()
        ))
    }

    /// Where each of the partitions begins and ends now.
    ///
    /// # Errors
    /// When the cluster does not answer in time, or not for each of them.
    pub async fn spans(&self, partitions: &[(String, i32)], start: Start) -> anyhow::Result<Vec<Span>> {
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
                // None is later than the time: the end.
                let (end, beginning) = (end.unwrap_or(0), beginning.or(end).unwrap_or(0));
                let start = match start {
                    Start::Last(count) => beginning.max(end.saturating_sub(i64::from(count))),
                    _ => beginning,
                };
                Span { topic: topic.as_str().into(), partition: *partition, start, end, not_before }
            })
            .collect())
    }

    /// librdkafka's in-memory cluster answers every time with the end. It is read from its start,
    /// then, and what is too early left out: it keeps little.
    async fn is_in_memory(&self) -> anyhow::Result<bool> {
        let id = self.call(|consumer| consumer.client().fetch_cluster_id(TIMEOUT)).await?;
        Ok(id.is_some_and(|id| id.starts_with(IN_MEMORY)))
    }

    /// Sends what the spans hold, in each partition's order, to `out`. With `bounded`, up to the
    /// ends as they were, then returns; else it goes on with what is added, for ever. Returns, too,
    /// when nobody listens any more.
    ///
    /// # Errors
    /// When a topic is gone or may not be read; with `bounded`, when the cluster falls silent.
    ///
    /// # Cancellation
    /// Dropping the future ends the reading; nothing is left behind on the cluster.
    pub async fn read(&self, spans: &[Span], bounded: bool, out: &mpsc::Sender<Event>) -> anyhow::Result<()> {
        let spans: Vec<&Span> = spans.iter().filter(|span| !bounded || span.start < span.end).collect();
        if spans.is_empty() {
            return Ok(());
        }
        let queues = self.assign(&spans)?;
        let mut records = select_all(
            queues.iter().enumerate().map(|(at, queue)| queue.stream().map(move |result| (at, result))),
        );
        let mut open: Vec<Option<&Span>> = spans.into_iter().map(Some).collect();
        let mut left = open.len();
        let (mut heard, mut told) = (Instant::now(), None::<Instant>);
        while left > 0 {
            let event = tokio::select! {
                Some((at, result)) = records.next() => {
                    let Some(slot) = open.get_mut(at) else { continue };
                    let Some(span) = *slot else { continue };
                    heard = Instant::now();
                    let (event, done) = step(span, result)?;
                    if bounded && done {
                        *slot = None;
                        left -= 1;
                    }
                    event.filter(|event| !bounded || !matches!(event, Event::Record(r) if r.offset >= span.end))
                }
                result = self.inner.recv() => self.trouble(result),
                () = tokio::time::sleep_until((heard + STALL).into()), if bounded => {
                    anyhow::bail!("Kafka sent nothing for {} s{}", STALL.as_secs(), self.reason())
                }
            };
            let Some(event) = event else { continue };
            let record = matches!(event, Event::Record(_));
            if !record {
                if told.is_some_and(|told| told.elapsed() < QUIET) {
                    continue;
                }
                told = Some(Instant::now());
            }
            if out.send(event).await.is_err() {
                break;
            }
            // A slow listener is no silent cluster.
            if record {
                heard = Instant::now();
            }
        }
        Ok(())
    }

    /// Begins to fetch; a queue for each span.
    fn assign(&self, spans: &[&Span]) -> anyhow::Result<Vec<StreamPartitionQueue<Callbacks>>> {
        let (mut queues, mut list) = (Vec::with_capacity(spans.len()), TopicPartitionList::new());
        for Span { topic, partition, start, .. } in spans {
            // Before `assign`, so that nothing comes through the common queue.
            let queue = self.inner.split_partition_queue(topic, *partition);
            queues.push(queue.with_context(|| format!("{topic} [{partition}] does not exist"))?);
            list.add_partition_offset(topic, *partition, Offset::Offset(*start))?;
        }
        self.inner.assign(&list).context("the partitions cannot be read")?;
        Ok(queues)
    }

    /// What the common queue brings: faults of the whole connection. One of the group is none,
    /// since nobody joins it and it may well be forbidden.
    fn trouble(&self, result: Result<BorrowedMessage<'_>, KafkaError>) -> Option<Event> {
        match result.err()?.rdkafka_error_code()? {
            Code::AllBrokersDown | Code::Authentication => {
                Some(Event::Trouble(format!("no Kafka broker answers; trying on{}", self.reason())))
            }
            _ => None,
        }
    }

    /// `: why`, or nothing.
    fn reason(&self) -> String {
        self.inner.context().last().map(|(_, reason)| format!(": {reason}")).unwrap_or_default()
    }

    /// One offset for each partition, in their order; none where none is as late as a wished time.
    async fn offsets(
        &self,
        partitions: &[(String, i32)],
        wished: Offset,
    ) -> anyhow::Result<Vec<Option<i64>>> {
        let found = self.found(partitions, wished).await?;
        let mut offsets = Vec::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            let place = || format!("Kafka does not say where {topic} [{partition}] ends");
            let found = found.find_partition(topic, *partition).with_context(place)?;
            found.error().with_context(place)?;
            offsets.push(match found.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            });
        }
        Ok(offsets)
    }

    /// The same as Kafka tells it, each partition with its own error.
    async fn found(
        &self,
        partitions: &[(String, i32)],
        wished: Offset,
    ) -> anyhow::Result<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition_offset(topic, *partition, wished)?;
        }
        let found = self.call(move |consumer| consumer.offsets_for_times(list, TIMEOUT)).await?;
        found.map_err(|error| {
            let code = error.rdkafka_error_code();
            let why = code.map_or_else(String::new, |code| format!(": {code}"));
            anyhow::anyhow!("Kafka does not say where the partitions end{why}")
        })
    }

    /// Runs a blocking call on a thread of its own; meanwhile events are served, so that
    /// [`Callbacks`] hears of faults.
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&StreamConsumer<Callbacks>) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
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

/// What a partition's queue brings, and whether that was the last of the span.
fn step(
    span: &Span,
    result: Result<BorrowedMessage<'_>, KafkaError>,
) -> anyhow::Result<(Option<Event>, bool)> {
    let error = match result {
        Ok(message) => {
            let done = message.offset() + 1 >= span.end;
            let record = Fetched::from(&message);
            return Ok((span.wants(&record).then_some(Event::Record(record)), done));
        }
        Err(KafkaError::PartitionEOF(_)) => return Ok((None, true)),
        Err(error) => error,
    };
    let topic = &span.topic;
    match error.rdkafka_error_code() {
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
            anyhow::bail!("the topic {topic} is gone")
        }
        Some(Code::TopicAuthorizationFailed) => {
            anyhow::bail!(
                "Kafka does not let us read {topic}; grant it with: kafka-acls ... --operation Read"
            )
        }
        Some(code) => {
            let text = format!("{topic} [{}] cannot be read just now: {code}", span.partition);
            Ok((Some(Event::Trouble(text)), false))
        }
        None => Err(error.into()),
    }
}
