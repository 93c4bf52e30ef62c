//! Whether a topic whose key names more than one event may take records: compaction would leave one
//! event of each key, and the others were answered 200.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::outcome::{Fault, Reason};

/// What Kafka has told of such a topic. Shared by all configurations of one run: what was learned
/// before a reload still holds after it.
#[derive(Debug, Default)]
pub struct CompactionState {
    told: AtomicU8,
    /// For rows of the spool only, never on a delivery's way.
    looks: Mutex<Looks>,
}

/// When Kafka was asked.
#[derive(Debug, Default)]
struct Looks {
    /// When it told last.
    told: Option<Instant>,
    /// When rows began to wait for it to tell, and when it was last to be asked for them.
    waiting: Option<Instant>,
    asked: Option<Instant>,
}

/// What was told counts for rows of the spool so long. While they wait or flow, it is asked for again long before.
const FRESH: Duration = Duration::from_secs(30);

/// Between two questions for the sake of rows.
const AGAIN: Duration = Duration::from_secs(5);

/// Rows wait so long for an answer before deliveries are turned away as well: else the spool might grow for ever.
const UNREADABLE: Duration = Duration::from_secs(60);

const UNKNOWN: u8 = 0;
const KEEPS: u8 = 1;
const COMPACTS: u8 = 2;

impl CompactionState {
    /// Remembers whether the topic compacts; `None` where it cannot be told, and nobody relies on it.
    /// True if that is news.
    pub fn record(&self, compacts: Option<bool>) -> bool {
        let told = match compacts {
            None => UNKNOWN,
            Some(false) => KEEPS,
            Some(true) => COMPACTS,
        };
        *self.looks() = Looks { told: Some(Instant::now()), ..Looks::default() };
        self.told.swap(told, Ordering::Relaxed) != told
    }

    /// Kafka answers, and did not tell. Deliveries go by what it told before, unless rows have waited for it too long.
    pub fn record_unreadable(&self) {
        if self.looks().waiting.is_some_and(|since| since.elapsed() > UNREADABLE) {
            self.told.store(UNKNOWN, Ordering::Relaxed);
        }
    }

    /// Somebody may alter the topic unseen, while no broker answers. Deliveries are stored as ever; their rows wait
    /// until Kafka has told again.
    pub fn doubt(&self) {
        *self.looks() = Looks::default();
    }

    /// Why rows of the spool have to wait, if they have to; and whether Kafka is to be asked again for them.
    pub fn holds_rows(&self) -> (Option<&'static str>, bool) {
        let now = Instant::now();
        let older = |than: Duration, at: Option<Instant>| at.is_none_or(|at| now.duration_since(at) > than);
        let mut looks = self.looks();
        let asks = older(AGAIN, looks.told) && older(AGAIN, looks.asked);
        if asks {
            looks.asked = Some(now);
        }
        let stale = older(FRESH, looks.told);
        if stale {
            looks.waiting.get_or_insert(now);
        }
        let why = match self.told.load(Ordering::Relaxed) {
            KEEPS if !stale => None,
            COMPACTS => Some("topic compacts, and its key names more than one event"),
            _ => Some("Kafka has not told yet whether topic compacts, and its key names more than one event"),
        };
        (why, asks)
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `Ok` once Kafka has said that the topic does not compact.
    ///
    /// # Errors
    /// `kafka_unavailable`: the sender is to come again, until somebody has altered the topic.
    pub(super) fn allows(&self) -> Result<(), Fault> {
        let why = match self.told.load(Ordering::Relaxed) {
            KEEPS => return Ok(()),
            COMPACTS => "its topic compacts, and its key names more than one event",
            _ => "Kafka has not told yet whether its topic compacts",
        };
        Err(Fault::new(Reason::KafkaUnavailable, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As if all of it had been so long ago.
    fn age(policy: &CompactionState, by: Duration) {
        let mut looks = policy.looks();
        let Looks { told, waiting, asked } = &mut *looks;
        for at in [told, waiting, asked] {
            *at = at.map(|at| at.checked_sub(by).unwrap());
        }
    }

    fn holds(policy: &CompactionState) -> bool {
        policy.holds_rows().0.is_some()
    }

    #[test]
    fn rows_wait_until_kafka_has_told_lately_that_their_topic_keeps_all() {
        let policy = CompactionState::default();
        assert!(holds(&policy), "never told");
        policy.record(Some(false));
        assert!(!holds(&policy));
        age(&policy, FRESH + AGAIN);
        assert!(holds(&policy), "told long ago");
        policy.record(Some(false));
        policy.doubt();
        assert!(holds(&policy), "an outage since");
        assert!(policy.allows().is_ok(), "deliveries are stored as ever");
        for compacts in [Some(true), None] {
            policy.record(compacts);
            assert!(holds(&policy) && policy.allows().is_err(), "{compacts:?}");
        }
        policy.record(Some(false));
        assert!(!holds(&policy) && policy.allows().is_ok());
    }

    #[test]
    fn kafka_is_asked_again_while_rows_wait_or_flow_and_not_at_each_question() {
        let policy = CompactionState::default();
        for told in [None, Some(Some(true)), Some(Some(false))] {
            told.into_iter().for_each(|told| {
                policy.record(told);
                assert!(!policy.holds_rows().1);
                age(&policy, 2 * AGAIN);
            });
            assert!(policy.holds_rows().1 && !policy.holds_rows().1, "{told:?}");
        }
        policy.doubt();
        assert!(policy.holds_rows().1, "at once after an outage");
    }

    #[test]
    fn deliveries_are_turned_away_too_where_rows_have_waited_long_for_kafka_to_tell() {
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
