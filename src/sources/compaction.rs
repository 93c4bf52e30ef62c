//! Whether a topic whose key names more than one event may receive records: compaction would keep only one event of
//! each key, although the others were answered 200.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::outcome::{Fault, Reason};

/// The cleanup policy that Kafka reported for such a topic. Shared by all configurations of one run: it remains valid
/// across a reload.
#[derive(Debug, Default)]
pub struct CompactionState {
    state: AtomicU8,
    /// For rows of the spool only, never used for a delivery.
    checks: Mutex<Checks>,
}

/// The times of the checks.
#[derive(Debug, Default)]
struct Checks {
    /// The last answer.
    answered: Option<Instant>,
    /// When rows began to wait for an answer, and when Kafka was last asked for them.
    waiting: Option<Instant>,
    asked: Option<Instant>,
    /// When the spool was last seen to have rows.
    rows: Option<Instant>,
}

/// How long an answer is valid for spool rows. While rows wait or are published, Kafka is asked again much earlier.
const FRESH: Duration = Duration::from_secs(30);

/// The interval between two checks on behalf of rows.
const AGAIN: Duration = Duration::from_secs(5);

/// How long rows wait for an answer before deliveries are refused as well: otherwise the spool could grow without
/// limit.
const UNREADABLE: Duration = Duration::from_secs(60);

const UNKNOWN: u8 = 0;
const NOT_COMPACTED: u8 = 1;
const COMPACTED: u8 = 2;

impl CompactionState {
    /// Records whether the topic compacts; `None` if that is unknown, and then nothing relies on it. Returns whether
    /// the state has changed.
    pub fn record(&self, compacts: Option<bool>) -> bool {
        let state = match compacts {
            None => UNKNOWN,
            Some(false) => NOT_COMPACTED,
            Some(true) => COMPACTED,
        };
        let mut checks = self.checks();
        *checks = Checks { answered: Some(Instant::now()), rows: checks.rows, ..Checks::default() };
        self.state.swap(state, Ordering::Relaxed) != state
    }

    /// Records that Kafka answers but does not report the policy. Deliveries use the last known state, unless rows have
    /// waited for an answer too long.
    pub fn record_unreadable(&self) {
        if self.checks().waiting.is_some_and(|since| since.elapsed() > UNREADABLE) {
            self.state.store(UNKNOWN, Ordering::Relaxed);
        }
    }

    /// Invalidates the state while no broker is reachable, since the topic may be changed meanwhile. Deliveries are
    /// still stored; their rows wait until Kafka has answered again.
    pub fn doubt(&self) {
        let mut checks = self.checks();
        *checks = Checks { rows: checks.rows, ..Checks::default() };
    }

    /// Why spool rows have to wait, if they do; and whether Kafka should be asked again for them.
    pub fn holds_rows(&self) -> (Option<&'static str>, bool) {
        let now = Instant::now();
        let older = |than: Duration, at: Option<Instant>| at.is_none_or(|at| now.duration_since(at) > than);
        let mut checks = self.checks();
        checks.rows = Some(now);
        let asks = older(AGAIN, checks.answered) && older(AGAIN, checks.asked);
        if asks {
            checks.asked = Some(now);
        }
        let stale = older(FRESH, checks.answered);
        if stale {
            checks.waiting.get_or_insert(now);
        }
        let why = match self.state.load(Ordering::Relaxed) {
            NOT_COMPACTED if !stale => None,
            COMPACTED => Some("the topic compacts, and its key names more than one event"),
            _ => Some(
                "Kafka has not reported whether the topic compacts, and its key names more than one event",
            ),
        };
        (why, asks)
    }

    /// Whether the spool has had rows of the topic in the last seconds.
    pub fn has_rows(&self) -> bool {
        self.checks().rows.is_some_and(|at| at.elapsed() < AGAIN)
    }

    fn checks(&self) -> MutexGuard<'_, Checks> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `Ok` if Kafka has reported that the topic does not compact.
    ///
    /// # Errors
    /// `kafka_unavailable`: the sender should retry, until an operator has changed the topic.
    pub(super) fn allows(&self) -> Result<(), Fault> {
        let why = match self.state.load(Ordering::Relaxed) {
            NOT_COMPACTED => return Ok(()),
            COMPACTED => "its topic compacts, and its key names more than one event",
            _ => "Kafka has not reported whether its topic compacts",
        };
        Err(Fault::new(Reason::KafkaUnavailable, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moves all times into the past by this duration.
    fn age(policy: &CompactionState, by: Duration) {
        let mut checks = policy.checks();
        let Checks { answered, waiting, asked, rows } = &mut *checks;
        for at in [answered, waiting, asked, rows] {
            *at = at.map(|at| at.checked_sub(by).unwrap());
        }
    }

    fn holds(policy: &CompactionState) -> bool {
        policy.holds_rows().0.is_some()
    }

    #[test]
    fn rows_wait_until_kafka_has_reported_recently_that_their_topic_does_not_compact() {
        let policy = CompactionState::default();
        assert!(holds(&policy), "never reported");
        policy.record(Some(false));
        assert!(!holds(&policy));
        age(&policy, FRESH + AGAIN);
        assert!(holds(&policy), "reported long ago");
        policy.record(Some(false));
        policy.doubt();
        assert!(holds(&policy), "an outage since");
        assert!(policy.allows().is_ok(), "deliveries are still stored");
        for compacts in [Some(true), None] {
            policy.record(compacts);
            assert!(holds(&policy) && policy.allows().is_err(), "{compacts:?}");
        }
        policy.record(Some(false));
        assert!(!holds(&policy) && policy.allows().is_ok());
    }

    #[test]
    fn kafka_is_asked_again_while_rows_wait_but_not_for_each_row() {
        let policy = CompactionState::default();
        for compacts in [None, Some(Some(true)), Some(Some(false))] {
            compacts.into_iter().for_each(|compacts| {
                policy.record(compacts);
                assert!(!policy.holds_rows().1);
                age(&policy, 2 * AGAIN);
            });
            assert!(policy.holds_rows().1 && !policy.holds_rows().1, "{compacts:?}");
        }
        policy.doubt();
        assert!(policy.holds_rows().1, "immediately after an outage");
    }

    #[test]
    fn a_topic_has_rows_until_some_seconds_after_the_last_were_seen() {
        let policy = CompactionState::default();
        assert!(!policy.has_rows());
        policy.holds_rows();
        policy.record(Some(true));
        policy.doubt();
        assert!(policy.has_rows());
        age(&policy, AGAIN);
        assert!(!policy.has_rows());
    }

    #[test]
    fn deliveries_are_refused_when_rows_have_waited_too_long_for_an_answer() {
        let policy = CompactionState::default();
        policy.record(Some(false));
        age(&policy, 2 * UNREADABLE);
        policy.record_unreadable();
        assert!(policy.allows().is_ok(), "no rows wait");
        assert!(holds(&policy));
        policy.record_unreadable();
        assert!(policy.allows().is_ok(), "not for long");
        age(&policy, 2 * UNREADABLE);
        policy.record_unreadable();
        assert!(policy.allows().is_err());
        policy.record(Some(false));
        assert!(policy.allows().is_ok() && !holds(&policy));
    }
}
