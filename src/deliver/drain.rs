//! Empties the spool into Kafka: in order of arrival for each partition, bounded in flight, and giving
//! way to live traffic. What is out is left alone for a growing while: [`super::backoff`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::backoff::{ProbeTarget, TopicBackoff, Turn};
use super::batch_size::{BatchSizer, MAX_ROWS};
use super::holds::Holds;
use super::outages::Outages;
use crate::failpoints::{self, Failpoint};
use crate::kafka::{Ack, Producer, PublishError, Reach};
use crate::observe::health::{Health, PartState};
use crate::observe::metrics::{self, Via};
use crate::spool::{Row, Spool, TopicUsage};

/// Bytes of one topic's rows on their way at a time.
const BATCH_BYTES: u64 = 4 * 1024 * 1024;

/// Between two looks at an empty spool, or at a Kafka that is out.
const IDLE: Duration = Duration::from_millis(250);

/// A live delivery counts so long as one that comes.
const LIVELY: Duration = Duration::from_secs(1);

/// While live deliveries come, the drain waits so many times as long as its batch took. The price: a
/// backlog takes that much longer. Measured on three brokers that share two cores: with 1, p99 of live
/// deliveries was over twice that without a backlog.
const GIVE_WAY: u32 = 4;

/// How long a batch is waited for. Rows that are not acknowledged by then hold up their partition only.
const BATCH: Duration = Duration::from_secs(1);

/// How long one row may wait for its acknowledgement.
const PATIENCE: Duration = Duration::from_secs(10);

/// The task that empties the spool.
pub struct Drain {
    producer: Arc<Producer>,
    spool: Arc<Spool>,
    outages: Arc<Outages>,
    health: Arc<Health>,
    pub(super) backoffs: HashMap<String, TopicBackoff>,
    /// Rows on their way that no batch waits for.
    lingering: FuturesUnordered<BoxFuture<'static, PublishedRow>>,
    pace: BatchSizer,
    /// Counts live deliveries; its value at the last batch; and until when they count as coming.
    live: Arc<AtomicU64>,
    seen: u64,
    lively: Instant,
    /// Live deliveries that no row has followed yet.
    owed: usize,
    /// Whose turn is next, where there are more topics than rows.
    turn: usize,
    /// Who knows of topics whose rows have to wait; and those that had to, when it was asked last.
    holds: Arc<dyn Holds>,
    held: BTreeMap<Arc<str>, (u64, &'static str)>,
    /// Whether the last rows that were asked for were held back, or tried, all of them or some.
    sorted_out: bool,
}

/// A row that was handed to Kafka, and its answer.
struct PublishedRow {
    row: Row,
    partition: Option<i32>,
    /// Of one that nobody waited for.
    tried: Option<ProbeTarget>,
    result: Result<Ack, PublishError>,
}

impl Drain {
    pub(super) fn new(
        producer: Arc<Producer>,
        spool: Arc<Spool>,
        outages: Arc<Outages>,
        health: Arc<Health>,
        live: Arc<AtomicU64>,
        holds: Arc<dyn Holds>,
    ) -> Self {
        Self {
            producer,
            spool,
            outages,
            health,
            backoffs: HashMap::new(),
            lingering: FuturesUnordered::new(),
            pace: BatchSizer::new(),
            live,
            seen: 0,
            lively: Instant::now(),
            owed: 0,
            turn: 0,
            holds,
            held: BTreeMap::new(),
            sorted_out: false,
        }
    }

    /// Runs until dropped.
    pub async fn run(mut self) {
        loop {
            if !self.step().await {
                self.idle().await;
            }
        }
    }

    /// One round over the topics; false when there was nothing to do, or no room for it.
    pub(super) async fn step(&mut self) -> bool {
        while let Some(Some(sent)) = futures_util::FutureExt::now_or_never(self.lingering.next()) {
            self.acknowledge(sent).await;
        }
        if self.health.kafka.state() == PartState::Down {
            self.holds.outage();
            return false;
        }
        if self.spool.stats().live == 0 {
            self.hold(&mut Vec::new());
            return false;
        }
        let gives_way = self.gives_way();
        let count = if gives_way { self.pace.rows(self.owed) } else { MAX_ROWS };
        let rows = self.rows(count).await;
        self.owed = self.owed.saturating_sub(rows.len());
        if rows.is_empty() {
            // Behind those that are held back there may be others.
            return std::mem::take(&mut self.sorted_out);
        }
        let start = Instant::now();
        let (well, full) = self.publish(rows).await;
        let took = start.elapsed();
        if gives_way {
            if well {
                self.pace.record(took);
            }
            tokio::time::sleep((took * GIVE_WAY).min(IDLE)).await;
        }
        // Live traffic has filled it: it goes first.
        !full
    }

    /// Waits a little, or until a row that nobody waits for is answered.
    async fn idle(&mut self) {
        let answered = async {
            match self.lingering.next().await {
                Some(sent) => sent,
                None => std::future::pending().await,
            }
        };
        if let Ok(sent) = tokio::time::timeout(IDLE, answered).await {
            self.acknowledge(sent).await;
        }
    }

    /// Whether live deliveries come, which then have Kafka for themselves most of the time.
    fn gives_way(&mut self) -> bool {
        let (live, now) = (self.live.load(Ordering::Relaxed), Instant::now());
        let came = live.wrapping_sub(std::mem::replace(&mut self.seen, live));
        if came > 0 {
            self.lively = now + LIVELY;
        }
        // No more than one batch's worth: what came while nothing could be drained is not caught up at once.
        self.owed = self.owed.saturating_add(came as usize).min(MAX_ROWS);
        now < self.lively
    }

    /// The oldest rows, `count` in all, of what is not left alone; where there are more topics than that,
    /// they take turns. On the way, what is due is tried with one row each.
    pub(super) async fn rows(&mut self, count: usize) -> Vec<Row> {
        let mut topics: Vec<TopicUsage> =
            self.spool.topics().into_iter().filter(|topic| topic.live > 0).collect();
        self.hold(&mut topics);
        let outages = &self.outages;
        self.backoffs.retain(|topic, backoff| {
            // A live delivery may have found it well.
            backoff.forget_unless(|partition| outages.is_unavailable(topic, || partition));
            !backoff.is_over()
        });
        self.sorted_out = false;
        let room: Vec<usize> = topics.iter().map(|topic| self.room(&topic.name)).collect();
        let mut topics: Vec<(TopicUsage, usize)> = topics.into_iter().zip(room).collect();
        topics.retain(|(_, room)| *room > 0);
        let (first, some) = (self.turn % topics.len().max(1), topics.len().min(count));
        self.turn = first + some;
        let share = count / some.max(1);
        let mut rows = Vec::new();
        for (topic, room) in topics.iter().cycle().skip(first).take(some) {
            match self.spool.lease_oldest(&topic.name, share.min(*room), BATCH_BYTES).await {
                Ok(found) => rows.extend(found.into_iter().filter_map(|row| self.sort(row))),
                Err(error) => tracing::error!(%error, "the spool cannot be read"),
            }
        }
        rows
    }

    /// Takes away the topics whose rows have to wait, and tells what has changed of them.
    fn hold(&mut self, topics: &mut Vec<TopicUsage>) {
        let before = std::mem::take(&mut self.held);
        topics.retain(|TopicUsage { name, live, .. }| {
            let Some(why) = self.holds.why(name) else { return true };
            if before.get(name) != Some(&(*live, why)) {
                self.outages.set_held(name, *live, why);
            }
            self.held.insert(name.clone(), (*live, why));
            false
        });
        for topic in before.keys().filter(|topic| !self.held.contains_key(*topic)) {
            self.outages.set_held(topic, 0, "");
        }
    }

    /// How many rows of the topic may be asked for.
    fn room(&mut self, topic: &str) -> usize {
        if !self.backoffs.contains_key(topic) && self.outages.is_topic_unavailable(topic) {
            return 1;
        }
        self.backoffs.get_mut(topic).map_or(usize::MAX, |backoff| backoff.room(Instant::now()))
    }

    /// The row, if it goes with the others; else it is held back, or tried.
    fn sort(&mut self, row: Row) -> Option<Row> {
        let (topic, now) = (row.record.topic(), Instant::now());
        let partition = self.producer.partition_of(&row.record);
        let is_out = self.outages.is_unavailable(topic, || partition);
        if !is_out && !self.backoffs.contains_key(topic) {
            return Some(row);
        }
        let partition = if self.outages.is_topic_unavailable(topic) { None } else { partition };
        self.sorted_out = true;
        match self.backoffs.entry(topic.to_owned()).or_default().turn(row, partition, is_out, now) {
            Turn::Go(row) => return Some(row),
            Turn::Wait => {}
            Turn::Try(row, tried) => {
                let ack = self.hand_over(&row);
                self.lingering.push(Box::pin(async move {
                    let result = answer(ack).await;
                    PublishedRow { row, partition, tried: Some(tried), result }
                }));
            }
        }
        None
    }

    fn hand_over(&self, row: &Row) -> Result<BoxFuture<'static, Result<Ack, PublishError>>, PublishError> {
        Ok(Box::pin(self.producer.publish(&row.record)?))
    }

    /// Publishes rows and waits for most of them: whether all were acknowledged, and whether our queue is full.
    async fn publish(&mut self, rows: Vec<Row>) -> (bool, bool) {
        if failpoints::is_active(Failpoint::RowDroppedBeforeAck) {
            self.spool.remove(&rows.iter().map(|row| row.id).collect::<Vec<_>>());
        }
        // Handed over in order; librdkafka keeps the order within each partition. From a full queue
        // on none is, since a smaller one behind it might still fit in.
        let (mut full, mut well) = (false, true);
        let mut batch: FuturesUnordered<BoxFuture<'static, PublishedRow>> = FuturesUnordered::new();
        let mut waiting = HashMap::new();
        for row in rows {
            let partition = self.producer.partition_of(&row.record);
            let ack = if full { Err(PublishError::QueueFull) } else { self.hand_over(&row) };
            full = matches!(ack, Err(PublishError::QueueFull));
            waiting.insert(row.id, (row.record.topic().to_owned(), partition));
            batch.push(Box::pin(async move {
                let result = answer(ack).await;
                PublishedRow { row, partition, tried: None, result }
            }));
        }
        let until = tokio::time::Instant::now() + BATCH;
        while let Ok(Some(sent)) = tokio::time::timeout_at(until, batch.next()).await {
            waiting.remove(&sent.row.id);
            well &= sent.result.is_ok();
            self.acknowledge(sent).await;
        }
        let now = Instant::now();
        for (topic, partition) in waiting.into_values() {
            well = false;
            self.backoffs.entry(topic).or_default().lingers(partition, now);
        }
        self.lingering.extend(batch.into_iter().map(|sent| -> BoxFuture<'static, PublishedRow> {
            Box::pin(async move {
                let sent = sent.await;
                PublishedRow { tried: Some(ProbeTarget::Place(sent.partition)), ..sent }
            })
        }));
        (well, full)
    }

    async fn acknowledge(&mut self, sent: PublishedRow) {
        let PublishedRow { row, partition, tried, result } = sent;
        let (topic, now) = (row.record.topic().to_owned(), Instant::now());
        self.outages.record(&topic, || self.producer.place_of(&row.record), &result);
        let mut backoff = self.backoffs.get_mut(&topic);
        let refused_before = backoff.as_ref().map_or(0, |backoff| backoff.refused());
        if let (Some(tried), Some(backoff)) = (tried, &mut backoff) {
            backoff.answered(tried);
        }
        let mut why = String::new();
        match result {
            Ok(_) => {
                metrics::record(&topic, Via::Spool);
                if let Some(backoff) = backoff {
                    backoff.record_success(partition, tried, now);
                }
                // Before the row is dropped: until then it is not given out again.
                self.spool.remove(&[row.id]);
            }
            Err(PublishError::Unavailable { reach: Reach::Partition, .. }) => {
                self.backoffs.entry(topic.clone()).or_default().fails(row, partition, now);
            }
            Err(PublishError::Unavailable { reach: Reach::Topic, .. }) => {
                self.backoffs.entry(topic.clone()).or_default().fails(row, None, now);
            }
            Err(PublishError::Limit(limit)) => {
                why = limit.into_owned();
                let backoff = self.backoffs.entry(topic.clone()).or_default();
                // Its leader has answered.
                backoff.record_success(partition, None, now);
                backoff.refuses(row, now);
            }
            Err(
                PublishError::Unavailable { reach: Reach::Record | Reach::Cluster, .. }
                | PublishError::QueueFull,
            ) => {}
            Err(refused @ PublishError::Refused(_)) => self.park(&row, &refused).await,
        }
        let refused = self.backoffs.get(&topic).map_or(0, TopicBackoff::refused);
        if refused != refused_before {
            self.outages.set_rows(&topic, refused, &why);
        }
    }

    /// A row has no body that could be dead-lettered: it stays, is counted, and waits for a person.
    async fn park(&mut self, row: &Row, refused: &PublishError) {
        tracing::error!(row = row.id, topic = row.record.topic(), %refused, "parked: Kafka refuses it for good");
        if let Err(error) = self.spool.park(row.id, &refused.to_string()).await {
            tracing::error!(row = row.id, %error, "could not be parked");
        }
    }
}

/// The acknowledgement of a row that was handed over, within a bound.
async fn answer(
    handed_over: Result<BoxFuture<'static, Result<Ack, PublishError>>, PublishError>,
) -> Result<Ack, PublishError> {
    match tokio::time::timeout(PATIENCE, handed_over?).await {
        Ok(result) => result,
        Err(_) => Err(PublishError::unanswered("no acknowledgement of a row of the spool")),
    }
}
