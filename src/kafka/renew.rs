//! Replaces a producer that has failed fatally.
//!
//! librdkafka's idempotent producer may find that it can no longer guarantee order and uniqueness (its
//! sequence numbers are out of order, or it may not produce at all). This fatal state is permanent: every
//! later send fails. A new producer has a new id and new sequence numbers. The records in flight in the old
//! one have an unknown outcome, as after any outage.
//!
//! ```text
//! fatal      health.kafka down: with a spool, deliveries go to it at once, without a single 503
//! pause      0.5 s, doubled each time up to 30 s; reset after a minute without a fatal error
//! swap       a new producer; the next publish uses it
//! retire     a thread that may block drops the old one once no publish holds it
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ClusterError;
use super::producer::{ActiveProducer, Producer};
use crate::observe::error_chain::ErrorChain;

/// The first pause before a new producer is created, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A producer that lived this long resets the pause.
const STABLE: Duration = Duration::from_secs(60);

/// The time limit of a new producer's probe for a broker.
const PROBE: Duration = Duration::from_secs(1);

/// The interval between two checks whether a publish still holds the old producer.
const POLL: Duration = Duration::from_millis(10);

impl Producer {
    /// Replaces the producer whenever it has failed fatally. Runs until dropped.
    pub async fn supervise(self: Arc<Self>) {
        let reporter = self.live().reporter.clone();
        let (mut pause, mut since) = (None, Instant::now());
        // An earlier run may have panicked with a notification in hand.
        reporter.suspect();
        loop {
            reporter.suspected().await;
            if !self.live().check_fatal() {
                continue;
            }
            let next = pause_after(pause, since.elapsed());
            tokio::time::sleep(next).await;
            let producer = self.clone();
            // Creating a producer starts threads and waits for a broker.
            match tokio::task::spawn_blocking(move || producer.replace()).await {
                Ok(Ok(old)) => {
                    tracing::warn!(after = ?next, "replaced the producer that had failed fatally");
                    drop(tokio::task::spawn_blocking(move || retire(old)));
                }
                Ok(Err(error)) => {
                    tracing::error!(error = ErrorChain(&error).to_string(), "cannot create a new producer");
                    reporter.suspect();
                }
                // The runtime is shutting down.
                Err(_) => return,
            }
            (pause, since) = (Some(next), Instant::now());
        }
    }

    /// Swaps in a new producer and returns the old one. Blocks.
    fn replace(&self) -> Result<Arc<ActiveProducer>, ClusterError> {
        let (reporter, partitions) = (self.live().reporter.successor(), self.partitions.clone());
        let fresh = ActiveProducer::new(&self.connection, self.tuning, reporter, partitions)?;
        let old = self.current.swap(Arc::new(fresh));
        // Without this, a second would pass before the new producer is known to be healthy.
        self.probe(PROBE);
        Ok(old)
    }
}

/// Drops the old producer on this thread, which joins its threads and flushes for up to half a second. New
/// publishes cannot obtain it, so those that still hold it release it soon.
fn retire(old: Arc<ActiveProducer>) {
    while Arc::strong_count(&old) > 1 {
        std::thread::sleep(POLL);
    }
    drop(old);
}

/// The pause before the next producer, given the lifetime of the last one.
fn pause_after(last: Option<Duration>, lifetime: Duration) -> Duration {
    match last {
        Some(last) if lifetime < STABLE => (last * 2).min(PAUSE.1),
        _ => PAUSE.0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use super::*;
    use crate::config::Properties;
    use crate::kafka::{ClusterConfig, Tuning};
    use crate::observe::health::Health;

    #[test]
    fn the_old_one_is_dropped_by_a_thread_that_may_block_and_not_by_a_publish_that_holds_it() {
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
        let early = seen.1.recv_timeout(10 * POLL);
        assert_eq!(early, Err(RecvTimeoutError::Timeout), "the publish would have dropped it");
        drop(held);
        seen.1.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(gone.upgrade().is_none());
    }

    #[test]
    fn the_pause_grows_to_its_limit_and_is_reset_after_a_minute_without_failure() {
        let mut pause = pause_after(None, Duration::ZERO);
        let mut pauses = vec![pause.as_millis()];
        for _ in 0..7 {
            pause = pause_after(Some(pause), Duration::from_secs(5));
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(pause_after(Some(pause), STABLE), PAUSE.0);
    }
}
