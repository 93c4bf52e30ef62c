//! Reports Kafka's health as one producer sees it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::observe::health::{Health, PartState};

/// Reports Kafka's health on behalf of one producer. Reports count only from the producer in use, and only
/// until it fails fatally: an old one still receives callbacks while it is dropped.
#[derive(Clone)]
pub(super) struct HealthReporter {
    shared: Arc<RenewalState>,
    generation: u64,
}

struct RenewalState {
    health: Arc<Health>,
    active: Mutex<ReporterState>,
    suspected: Notify,
}

struct ReporterState {
    generation: u64,
    failed: bool,
}

impl HealthReporter {
    pub(super) fn new(health: Arc<Health>) -> Self {
        let active = Mutex::new(ReporterState { generation: 0, failed: false });
        Self { shared: Arc::new(RenewalState { health, active, suspected: Notify::new() }), generation: 0 }
    }

    /// Reports that a broker answered.
    pub(super) fn broker_answered(&self) {
        self.report(|health| health.kafka.set(PartState::Ok, ""));
    }

    /// Updates health under the lock, so that no report can follow the appointment of a successor. Never on
    /// the hot path.
    pub(super) fn report(&self, update: impl FnOnce(&Health)) {
        if let Some(_heard) = self.active() {
            update(&self.shared.health);
        }
    }

    /// Reports an error that may be fatal. librdkafka reports a fatal error with the code of its cause, so only
    /// the producer itself knows; [`Producer::supervise`](super::Producer::supervise) asks it.
    pub(super) fn suspect(&self) {
        self.shared.suspected.notify_one();
    }

    /// Waits for [`Self::suspect`], by this reporter or a successor.
    pub(super) async fn suspected(&self) {
        self.shared.suspected.notified().await;
    }

    /// Reports the fatal error, once for each producer.
    pub(super) fn failed(&self, why: &str) {
        if let Some(mut active) = self.active() {
            active.failed = true;
            self.shared.health.kafka.set(PartState::Down, format!("the producer has failed fatally: {why}"));
        }
    }

    /// The reporter of the next producer; this one's reports no longer count.
    pub(super) fn successor(&self) -> Self {
        let mut active = self.lock();
        active.generation += 1;
        active.failed = false;
        Self { shared: self.shared.clone(), generation: active.generation }
    }

    fn active(&self) -> Option<MutexGuard<'_, ReporterState>> {
        let active = self.lock();
        (active.generation == self.generation && !active.failed).then_some(active)
    }

    fn lock(&self) -> MutexGuard<'_, ReporterState> {
        self.shared.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_a_replaced_or_failed_producer_do_not_count() {
        let health = Health::new();
        let first = HealthReporter::new(health.clone());
        first.broker_answered();
        assert_eq!(health.kafka.state(), PartState::Ok);
        first.failed("out of order");
        first.broker_answered();
        assert_eq!(health.kafka.state(), PartState::Down, "its brokers may still answer");
        let second = first.successor();
        first.broker_answered();
        assert_eq!(health.kafka.state(), PartState::Down, "the old one reports for the new");
        second.broker_answered();
        first.report(|health| health.kafka.set(PartState::Down, "no broker answers"));
        first.failed("out of order");
        assert_eq!(health.kafka.state(), PartState::Ok, "the old one reports for the new");
    }
}
