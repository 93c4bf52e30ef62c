//! Empties the spool into Kafka: in order of arrival within each partition, with a bounded number of rows in flight,
//! and giving way to live traffic. Failing topics and partitions get a growing pause: [`super::backoff`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::backoff::{ProbeTarget, TopicBackoff, Turn};
use super::batch_size::{BatchSizer, MAX_OWED, MAX_ROWS};
use super::holds::Holds;
use super::outages::Outages;
use crate::failpoints::{self, Failpoint};
use crate::kafka::{Ack, Producer, PublishError, Reach};
use crate::observe::health::{Health, PartState};
use crate::observe::metrics::{self, Via};
use crate::spool::{Row, Spool, TopicUsage};

/// The limit of a topic's bytes in a round, and that of all topics, which is a small part of librdkafka's queue. One row
/// more may exceed each.
const BATCH_BYTES: u64 = 4 * 1024 * 1024;
const ROUND_BYTES: u64 = 16 * 1024 * 1024;

/// The pause while the spool is empty or Kafka is unavailable.
const IDLE: Duration = Duration::from_millis(250);

/// How long after a live delivery the drain gives way.
const GIVE_WAY_FOR: Duration = Duration::from_secs(1);

/// While there are live deliveries, the drain pauses for this multiple of the time that its batch took. The price: a
/// backlog takes that much longer. Measured on three brokers that share two cores: with 1, the p99 of live deliveries
/// was more than twice that without a backlog.
const GIVE_WAY: u32 = 4;

/// The time limit of a batch. Rows that are not acknowledged by then block only their partition.
const BATCH: Duration = Duration::from_secs(1);

/// The time limit of one row's acknowledgement.
const PATIENCE: Duration = Duration::from_secs(10);

/// The task that empties the spool.
pub struct Drain {
    producer: Arc<Producer>,
    spool: Arc<Spool>,
    outages: Arc<Outages>,
    health: Arc<Health>,
    pub(super) backoffs: HashMap<String, TopicBackoff>,
    /// Rows in flight that no batch waits for.
    lingering: FuturesUnordered<BoxFuture<'static, PublishedRow>>,
    sizer: BatchSizer,
    /// The counter of live deliveries, its value at the last batch, and the end of the time for which the drain gives
    /// way.
    live: Arc<AtomicU64>,
    live_before: u64,
    give_way_until: Instant,
    /// Live deliveries that no row has followed yet.
    owed: usize,
    /// The index of the next topic, if there are more topics than rows.
    turn: usize,
    /// Decides which topics' rows have to wait; and the topics that had to at the last query.
    holds: Arc<dyn Holds>,
    held: BTreeMap<Arc<str>, (u64, &'static str)>,
    /// Whether any of the rows leased last were held or probed.
    held_or_probed: bool,
    /// Whether the producer's queue had no room for a row of this round.
    queue_full: bool,
}

/// A row that was handed to the producer, and its result.
struct PublishedRow {
    row: Row,
    partition: Option<i32>,
    /// The purpose of a probe, or of a row that the batch did not wait for.
    tried: Option<ProbeTarget>,
    /// Whether no other record can have been in its batch.
    alone: bool,
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
            sizer: BatchSizer::new(),
            live,
            live_before: 0,
            give_way_until: Instant::now(),
            owed: 0,
            turn: 0,
            holds,
            held: BTreeMap::new(),
            held_or_probed: false,
            queue_full: false,
        }
    }

    /// Runs until dropped.
    pub async fn run(mut self) {
        self.outages.forget_rows();
        loop {
            if !self.step().await {
                self.idle().await;
            }
        }
    }

    /// Runs one round over the topics. Returns false if there was nothing to do or the producer's queue is full.
    pub(super) async fn step(&mut self) -> bool {
        self.queue_full = false;
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
        let count = if gives_way { self.sizer.rows(self.owed) } else { MAX_ROWS };
        let rows = self.rows(count).await;
        self.owed = self.owed.saturating_sub(rows.len());
        if rows.is_empty() {
            // There may be more rows after those that were held.
            return std::mem::take(&mut self.held_or_probed) && !self.queue_full;
        }
        let start = Instant::now();
        let healthy = self.publish(rows).await;
        let took = start.elapsed();
        if gives_way {
            if healthy {
                self.sizer.record(took);
            }
            tokio::time::sleep((took * GIVE_WAY).min(IDLE)).await;
        }
        // A full queue is due to live traffic, which goes first.
        !self.queue_full
    }

    /// Waits for a short time, or until a row outside a batch is answered.
    pub(super) async fn idle(&mut self) {
        if self.queue_full {
            // The rows that found it full are answered already.
            return tokio::time::sleep(IDLE).await;
        }
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

    /// Whether there are live deliveries, for which the drain leaves most of Kafka's capacity.
    fn gives_way(&mut self) -> bool {
        let (live, now) = (self.live.load(Ordering::Relaxed), Instant::now());
        let new = live.wrapping_sub(std::mem::replace(&mut self.live_before, live));
        if new > 0 {
            self.give_way_until = now + GIVE_WAY_FOR;
        }
        // At most one batch: the drain does not catch up at once on deliveries that came while it could not publish.
        self.owed = self.owed.saturating_add(new as usize).min(MAX_OWED);
        now < self.give_way_until
    }

    /// Leases the oldest rows, `count` in all, of topics without a back-off; if there are more topics than that, they
    /// take turns. Topics and partitions whose pause is over are probed with one row each.
    pub(super) async fn rows(&mut self, count: usize) -> Vec<Row> {
        let mut topics: Vec<TopicUsage> =
            self.spool.topics().into_iter().filter(|topic| topic.live > 0).collect();
        self.hold(&mut topics);
        let outages = &self.outages;
        self.backoffs.retain(|topic, backoff| {
            // A live delivery may have shown that it is healthy.
            backoff.forget_unless(|partition| outages.is_unavailable(topic, || partition));
            !backoff.is_over()
        });
        self.held_or_probed = false;
        let room: Vec<usize> = topics.iter().map(|topic| self.room(&topic.name)).collect();
        let mut topics: Vec<(TopicUsage, usize)> = topics.into_iter().zip(room).collect();
        topics.retain(|(_, room)| *room > 0);
        let (first, used) = (self.turn % topics.len().max(1), topics.len().min(count));
        self.turn = first;
        let (share, share_bytes) = (count / used.max(1), ROUND_BYTES / used.max(1) as u64);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for (topic, room) in topics.iter().cycle().skip(first).take(used) {
            if bytes >= ROUND_BYTES {
                break;
            }
            self.turn += 1;
            let found =
                self.spool.lease_oldest(&topic.name, share.min(*room), share_bytes.min(BATCH_BYTES)).await;
            match found {
                Ok(found) => {
                    bytes += found.iter().map(|row| row.record.value().len() as u64).sum::<u64>();
                    rows.extend(found.into_iter().filter_map(|row| self.sort(row)));
                }
                Err(error) => tracing::error!(%error, "the spool cannot be read"),
            }
        }
        rows
    }

    /// Removes the topics whose rows have to wait, and reports changes.
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

    /// The number of the topic's rows that may be leased.
    fn room(&mut self, topic: &str) -> usize {
        if !self.backoffs.contains_key(topic) && self.outages.is_topic_unavailable(topic) {
            return 1;
        }
        self.backoffs.get_mut(topic).map_or(usize::MAX, |backoff| backoff.room(Instant::now()))
    }

    /// Returns the row if it goes with the others; else it is held or probed.
    fn sort(&mut self, row: Row) -> Option<Row> {
        let (topic, now) = (row.record.topic(), Instant::now());
        let partition = self.producer.partition_of(&row.record);
        let is_failing = self.outages.is_unavailable(topic, || partition);
        if !is_failing && !self.backoffs.contains_key(topic) {
            return Some(row);
        }
        let partition = if self.outages.is_topic_unavailable(topic) { None } else { partition };
        self.held_or_probed = true;
        match self.backoffs.entry(topic.to_owned()).or_default().turn(row, partition, is_failing, now) {
            Turn::Go(row) => return Some(row),
            Turn::Wait => {}
            Turn::Try { row, target, alone } => {
                let ack = self.hand_over(&row);
                self.lingering.push(Box::pin(async move {
                    let result = answer(ack).await;
                    PublishedRow { row, partition, tried: Some(target), alone, result }
                }));
            }
        }
        None
    }

    /// Hands the row to the producer. After the first row that finds the queue full, none is handed over in this round,
    /// since a smaller one might still fit and overtake it.
    fn hand_over(
        &mut self,
        row: &Row,
    ) -> Result<BoxFuture<'static, Result<Ack, PublishError>>, PublishError> {
        if self.queue_full {
            return Err(PublishError::QueueFull);
        }
        let ack = self.producer.publish(&row.record);
        self.queue_full = matches!(ack, Err(PublishError::QueueFull));
        Ok(Box::pin(ack?))
    }

    /// Publishes rows and waits for most of them. Returns whether all were acknowledged.
    async fn publish(&mut self, rows: Vec<Row>) -> bool {
        if failpoints::is_active(Failpoint::RowDroppedBeforeAck) {
            self.spool.remove(&rows.iter().map(|row| row.id).collect::<Vec<_>>());
        }
        // Handed over in order; librdkafka keeps the order within each partition.
        let mut healthy = true;
        let mut batch: FuturesUnordered<BoxFuture<'static, PublishedRow>> = FuturesUnordered::new();
        let mut waiting = HashMap::new();
        for row in rows {
            let partition = self.producer.partition_of(&row.record);
            let ack = self.hand_over(&row);
            waiting.insert(row.id, (row.record.topic().to_owned(), partition));
            batch.push(Box::pin(async move {
                let result = answer(ack).await;
                PublishedRow { row, partition, tried: None, alone: false, result }
            }));
        }
        let until = tokio::time::Instant::now() + BATCH;
        while let Ok(Some(sent)) = tokio::time::timeout_at(until, batch.next()).await {
            waiting.remove(&sent.row.id);
            healthy &= sent.result.is_ok();
            self.acknowledge(sent).await;
        }
        let now = Instant::now();
        for (topic, partition) in waiting.into_values() {
            healthy = false;
            self.backoffs.entry(topic).or_default().lingers(partition, now);
        }
        self.lingering.extend(batch.into_iter().map(|sent| -> BoxFuture<'static, PublishedRow> {
            Box::pin(async move {
                let sent = sent.await;
                PublishedRow { tried: Some(ProbeTarget::Place(sent.partition)), ..sent }
            })
        }));
        healthy
    }

    async fn acknowledge(&mut self, sent: PublishedRow) {
        let PublishedRow { row, partition, tried, alone, result } = sent;
        let result = result.map_err(|error| if alone { error.of_a_single_record() } else { error });
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
                // Removed before the row is dropped, so that it is not leased again.
                self.spool.remove(&[row.id]);
            }
            Err(PublishError::Ambiguous) => {
                self.backoffs.entry(topic.clone()).or_default().fails(row, partition, true, now);
            }
            Err(PublishError::Unavailable { reach: Reach::Partition, .. }) => {
                self.backoffs.entry(topic.clone()).or_default().fails(row, partition, false, now);
            }
            Err(PublishError::Unavailable { reach: Reach::Topic, .. }) => {
                self.backoffs.entry(topic.clone()).or_default().fails(row, None, false, now);
            }
            Err(PublishError::Limit(limit)) => {
                why = limit.into_owned();
                let backoff = self.backoffs.entry(topic.clone()).or_default();
                // The leader has answered.
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

    /// Parks a row, which has no body that could be dead-lettered: it is kept and counted until a person acts.
    async fn park(&mut self, row: &Row, refused: &PublishError) {
        tracing::error!(row = row.id, topic = row.record.topic(), %refused, "row parked: Kafka permanently rejects it");
        if let Err(error) = self.spool.park(row.id, &refused.to_string()).await {
            tracing::error!(row = row.id, %error, "the row cannot be parked");
        }
    }
}

/// The acknowledgement of a row, within a time limit.
async fn answer(
    handed_over: Result<BoxFuture<'static, Result<Ack, PublishError>>, PublishError>,
) -> Result<Ack, PublishError> {
    match tokio::time::timeout(PATIENCE, handed_over?).await {
        Ok(result) => result,
        Err(_) => Err(PublishError::unanswered("no acknowledgement of a spool row")),
    }
}
