//! A producer that can do no more is replaced.
//!
//! librdkafka's idempotent producer may conclude that it cannot keep its word any longer (it has
//! lost count of a partition's records, or may not produce at all). This fatal state is for good:
//! every later send fails. A new producer has a new id and a clean count; what the old one still
//! had is of unknown outcome, as after any outage.
//!
//! ```text
//! fatal      health.kafka down: with a spool deliveries turn to it at once, without one 503
//! pause      0.5 s, doubled each time up to 30 s; from the start again after a minute without
//! swap       a new producer; the next publish takes it
//! retire     the old one is dropped on a thread that may block, once no publish holds it
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::producer::Producer as _;
use tokio::sync::Notify;

use super::producer::{ActiveProducer, Producer};
use crate::observe::health::{Health, PartState};

/// Before the first new producer, and the most that the pause grows to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A producer that lived so long was well: the pause begins anew.
const WELL: Duration = Duration::from_secs(60);

/// How long a new producer may look for a broker before its first record does.
const PROBE: Duration = Duration::from_secs(1);

/// Between two looks whether a publish still holds the old producer.
const LOOK: Duration = Duration::from_millis(10);

/// What one producer has to say about Kafka's health. Only that of the producer in use is heard,
/// and only until it is lost: callbacks of an old one still come while it is dropped.
#[derive(Clone)]
pub(super) struct HealthReporter {
    shared: Arc<RenewalState>,
    generation: u64,
}

struct RenewalState {
    health: Arc<Health>,
    heard: Mutex<ReporterState>,
    suspected: Notify,
}

struct ReporterState {
    generation: u64,
    lost: bool,
}

impl HealthReporter {
    pub(super) fn new(health: Arc<Health>) -> Self {
        let heard = Mutex::new(ReporterState { generation: 0, lost: false });
        Self { shared: Arc::new(RenewalState { health, heard, suspected: Notify::new() }), generation: 0 }
    }

    /// A broker answers.
    pub(super) fn answers(&self) {
        self.say(|health| health.kafka.set(PartState::Ok, ""));
    }

    /// Says it under the lock, so that nothing is said after a successor was appointed. Never on
    /// the hot path.
    pub(super) fn say(&self, what: impl FnOnce(&Health)) {
        if let Some(_heard) = self.heard() {
            what(&self.shared.health);
        }
    }

    /// An error came that may be fatal. librdkafka reports a fatal one by the code of its cause, so
    /// only the producer itself knows; it is asked by [`Producer::renew`].
    pub(super) fn suspect(&self) {
        self.shared.suspected.notify_one();
    }

    /// The producer can do no more. Said once, however often it is found.
    fn lost(&self, why: &str) {
        if let Some(mut heard) = self.heard() {
            heard.lost = true;
            self.shared.health.kafka.set(PartState::Down, format!("the producer can do no more: {why}"));
        }
    }

    /// The voice of the next producer; this one is not heard any more.
    fn successor(&self) -> Self {
        let mut heard = self.lock();
        heard.generation += 1;
        heard.lost = false;
        Self { shared: self.shared.clone(), generation: heard.generation }
    }

    fn heard(&self) -> Option<MutexGuard<'_, ReporterState>> {
        let heard = self.lock();
        (heard.generation == self.generation && !heard.lost).then_some(heard)
    }

    fn lock(&self) -> MutexGuard<'_, ReporterState> {
        self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ActiveProducer {
    /// Whether it can do no more. `health` hears of it at once, the task that makes a new one, too.
    pub(super) fn is_lost(&self) -> bool {
        let Some((code, why)) = self.inner.client().fatal_error() else { return false };
        self.voice.lost(&format!("{code:?}: {why}"));
        self.voice.suspect();
        true
    }
}

impl Producer {
    /// Replaces the producer whenever it can do no more. Runs until dropped.
    pub async fn supervise(self: Arc<Self>) {
        let shared = self.live().voice.shared.clone();
        let (mut pause, mut since) = (None, Instant::now());
        loop {
            shared.suspected.notified().await;
            if !self.live().is_lost() {
                continue;
            }
            let next = pause_after(pause, since.elapsed());
            tokio::time::sleep(next).await;
            let producer = self.clone();
            // Starts threads, and waits for a broker.
            match tokio::task::spawn_blocking(move || producer.replace()).await {
                Ok(Ok(old)) => {
                    tracing::warn!(after = ?next, "a new producer replaces the one that could do no more");
                    drop(tokio::task::spawn_blocking(move || retire(old)));
                }
                Ok(Err(error)) => {
                    tracing::error!(error = format!("{error:#}"), "no new producer can be made");
                    shared.suspected.notify_one();
                }
                // The runtime ends.
                Err(_) => return,
            }
            (pause, since) = (Some(next), Instant::now());
        }
    }

    /// The producer that was in use. Blocks.
    fn replace(&self) -> anyhow::Result<Arc<ActiveProducer>> {
        let fresh =
            ActiveProducer::new(&self.config, self.live().voice.successor(), self.partitions.clone())?;
        let old = self.current.swap(Arc::new(fresh));
        // Else nobody would know for a second that it is well.
        self.probe(PROBE);
        Ok(old)
    }
}

/// Drops the old producer here: that joins its threads and flushes up to half a second. Nobody can
/// get hold of it any more, so whoever still does lets go soon.
fn retire(old: Arc<ActiveProducer>) {
    while Arc::strong_count(&old) > 1 {
        std::thread::sleep(LOOK);
    }
    drop(old);
}

/// The pause before the next producer, when the last one lived so long.
fn pause_after(last: Option<Duration>, lived: Duration) -> Duration {
    match last {
        Some(last) if lived < WELL => (last * 2).min(PAUSE.1),
        _ => PAUSE.0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use super::*;
    use crate::config::Properties;
    use crate::kafka::{ClusterConfig, Tuning};

    #[test]
    fn the_old_one_is_dropped_by_who_may_block_and_not_by_a_publish_that_holds_it() {
        let connection = ClusterConfig::new("127.0.0.1:1", Properties::default());
        let tuning =
            Tuning { kafka_budget: Duration::from_secs(4), max_record: 1_000_000, queue_kib: 1 << 10 };
        let producer = Producer::new(&connection, tuning, Health::new()).unwrap();
        let held = producer.live();
        let old = producer.replace().unwrap();
        assert!(Arc::ptr_eq(&held, &old) && !Arc::ptr_eq(&producer.live(), &old));
        let (gone, seen) = (Arc::downgrade(&old), channel());
        std::thread::spawn(move || {
            retire(old);
            seen.0.send(()).unwrap();
        });
        let early = seen.1.recv_timeout(10 * LOOK);
        assert_eq!(early, Err(RecvTimeoutError::Timeout), "the publish would have dropped it");
        drop(held);
        seen.1.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(gone.upgrade().is_none());
    }

    #[test]
    fn the_pause_grows_to_its_bound_and_begins_anew_after_a_good_minute() {
        let mut pause = pause_after(None, Duration::ZERO);
        let mut pauses = vec![pause.as_millis()];
        for _ in 0..7 {
            pause = pause_after(Some(pause), Duration::from_secs(5));
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(pause_after(Some(pause), WELL), PAUSE.0);
    }

    #[test]
    fn a_producer_that_was_replaced_or_is_lost_is_not_heard() {
        let health = Health::new();
        let first = HealthReporter::new(health.clone());
        first.answers();
        assert_eq!(health.kafka.state(), PartState::Ok);
        first.lost("out of order");
        first.answers();
        assert_eq!(health.kafka.state(), PartState::Down, "its brokers may be as well as ever");
        let second = first.successor();
        first.answers();
        assert_eq!(health.kafka.state(), PartState::Down, "the old one speaks for the new");
        second.answers();
        first.say(|health| health.kafka.set(PartState::Down, "no broker answers"));
        first.lost("out of order");
        assert_eq!(health.kafka.state(), PartState::Ok, "the old one speaks for the new");
    }
}
