//! Empties the spool into Kafka: in order of arrival for each topic, bounded in flight, and giving
//! way to live traffic. A topic whose record fails is set aside for a growing while.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::pace::{MOST, Pace};
use super::topics::Topics;
use crate::kafka::{Ack, Producer, Trouble};
use crate::observe::health::{Health, State};
use crate::observe::metrics::{self, Via};
use crate::planted::{self, Bug};
use crate::spool::{Row, Spool, Topic};

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

/// How long one row may wait for its acknowledgement.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a topic is set aside after its first failure; doubled with each, up to the last.
const ASIDE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// The task that empties the spool.
pub struct Drain {
    producer: Arc<Producer>,
    spool: Arc<Spool>,
    topics: Arc<Topics>,
    health: Arc<Health>,
    pub(super) aside: HashMap<String, Aside>,
    pace: Pace,
    /// Counts live deliveries; its value at the last batch; and until when they count as coming.
    live: Arc<AtomicU64>,
    seen: u64,
    lively: Instant,
    /// Whose turn is next, where there are more topics than rows.
    turn: usize,
}

/// A topic that is left alone for a while.
pub(super) struct Aside {
    until: Instant,
    pause: Duration,
}

impl Drain {
    pub(super) fn new(
        producer: Arc<Producer>,
        spool: Arc<Spool>,
        topics: Arc<Topics>,
        health: Arc<Health>,
        live: Arc<AtomicU64>,
    ) -> Self {
        let (aside, pace, lively) = (HashMap::new(), Pace::new(), Instant::now());
        Self { producer, spool, topics, health, aside, pace, live, seen: 0, lively, turn: 0 }
    }

    /// Runs until dropped.
    pub async fn run(mut self) {
        loop {
            if !self.step().await {
                tokio::time::sleep(IDLE).await;
            }
        }
    }

    /// One round over the topics; false when there was nothing to do, or no room for it.
    pub(super) async fn step(&mut self) -> bool {
        if self.spool.stats().live == 0 || self.health.kafka.state() == State::Down {
            return false;
        }
        let gives_way = self.gives_way();
        let rows = self.rows(if gives_way { self.pace.rows() } else { MOST }).await;
        if rows.is_empty() {
            return false;
        }
        let start = Instant::now();
        // Handed over in order; librdkafka keeps the order within each partition. From a full queue
        // on none is, since a smaller one behind it might still fit in.
        let mut full = false;
        let hand_over = |row: &Row| {
            let ack = if full { Err(Trouble::QueueFull) } else { self.producer.publish(&row.record) };
            full = matches!(ack, Err(Trouble::QueueFull));
            ack
        };
        let acks: Vec<_> = rows.iter().map(hand_over).collect();
        if planted::has(Bug::RowDroppedBeforeAck) {
            self.spool.remove(&rows.iter().map(|row| row.id).collect::<Vec<_>>());
        }
        let results = join_all(acks.into_iter().map(async |ack| match ack {
            Ok(ack) => match tokio::time::timeout(PATIENCE, ack).await {
                Ok(result) => result,
                Err(_) => Err(Trouble::Unavailable("no acknowledgement of a row of the spool".into())),
            },
            Err(trouble) => Err(trouble),
        }))
        .await;
        let took = start.elapsed();
        let well = results.iter().all(Result::is_ok);
        self.settle(rows, results).await;
        if gives_way {
            if well {
                self.pace.learn(took);
            }
            tokio::time::sleep((took * GIVE_WAY).min(IDLE)).await;
        }
        // Live traffic has filled it: it goes first.
        !full
    }

    /// Whether live deliveries come, which then have Kafka for themselves most of the time.
    fn gives_way(&mut self) -> bool {
        let (live, now) = (self.live.load(Ordering::Relaxed), Instant::now());
        if std::mem::replace(&mut self.seen, live) != live {
            self.lively = now + LIVELY;
        }
        now < self.lively
    }

    /// The oldest rows, `count` in all, of the topics that are not set aside; where there are more topics
    /// than that, they take turns. A topic that is known to be out is tried with one row: the first
    /// acknowledgement makes it well.
    pub(super) async fn rows(&mut self, count: usize) -> Vec<Row> {
        let now = Instant::now();
        let mut topics: Vec<Topic> = self.spool.topics().into_iter().filter(|topic| topic.live > 0).collect();
        topics.retain(|topic| self.aside.get(&*topic.name).is_none_or(|aside| aside.until <= now));
        let (first, some) = (self.turn % topics.len().max(1), topics.len().min(count));
        self.turn = first + some;
        let share = count / some.max(1);
        let mut rows = Vec::new();
        for topic in topics.iter().cycle().skip(first).take(some) {
            let count = if self.topics.is_out(&topic.name) { 1 } else { share };
            match self.spool.oldest(&topic.name, count, BATCH_BYTES).await {
                Ok(found) => rows.extend(found),
                Err(error) => tracing::error!(%error, "the spool cannot be read"),
            }
        }
        rows
    }

    async fn settle(&mut self, rows: Vec<Row>, results: Vec<Result<Ack, Trouble>>) {
        let mut published = Vec::with_capacity(rows.len());
        for (row, result) in rows.iter().zip(results) {
            self.topics.learn(row.record.topic(), &result);
            match result {
                Ok(_) => {
                    metrics::record(row.record.topic(), Via::Spool);
                    self.aside.remove(row.record.topic());
                    published.push(row.id);
                }
                Err(Trouble::Unavailable(_)) => self.set_aside(row.record.topic()),
                Err(Trouble::QueueFull) => {}
                Err(refused @ Trouble::Refused(_)) => self.park(row, &refused).await,
            }
        }
        // Before the rows are dropped: until then they are not given out again.
        self.spool.remove(&published);
    }

    /// A row has no body that could be dead-lettered: it stays, is counted, and waits for a person.
    async fn park(&self, row: &Row, refused: &Trouble) {
        tracing::error!(row = row.id, topic = row.record.topic(), %refused, "parked: Kafka refuses it for good");
        if let Err(error) = self.spool.park(row.id, &refused.to_string()).await {
            tracing::error!(row = row.id, %error, "could not be parked");
        }
    }

    fn set_aside(&mut self, topic: &str) {
        let now = Instant::now();
        let pause = match self.aside.get(topic) {
            // Of one batch, only the first failure counts.
            Some(aside) if aside.until > now => return,
            Some(aside) => (aside.pause * 2).min(ASIDE.1),
            None => ASIDE.0,
        };
        self.aside.insert(topic.to_owned(), Aside { until: now + pause, pause });
    }
}
