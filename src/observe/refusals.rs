//! The refusals of a source: how many for which reason, since when, and why most likely.
//!
//! Everybody can cause refusals, so what is kept is small and fixed: one entry for each reason. The
//! hot path takes a lock only for a refusal, for some comparisons and never across a wait.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::outcome::Reason;

/// Between two diagnoses of a source, at the least.
pub const PAUSE: Duration = Duration::from_secs(1);

/// After so long without a refusal for a reason, the next one is counted anew.
const QUIET: SignedDuration = SignedDuration::from_mins(10);

/// Refusals for one reason, as they are shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusalSummary {
    /// As in log and metric.
    pub reason: &'static str,
    /// How many since then.
    pub count: u64,
    /// The first, in RFC 3339: after ten minutes without one it is counted anew.
    pub since: String,
    /// The last.
    pub last: String,
    /// The likely cause, once one of them was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A source's; moves over by name when the configuration is read again.
#[derive(Debug, Default)]
pub struct RefusalTable(Mutex<RefusalState>);

#[derive(Debug, Default)]
struct RefusalState {
    series: Vec<RefusalSeries>,
    /// When a diagnosis was last wanted, and for which reason.
    wanted: Option<(Timestamp, Reason)>,
}

#[derive(Debug)]
struct RefusalSeries {
    reason: Reason,
    count: u64,
    since: Timestamp,
    last: Timestamp,
    /// How many were counted when the last hint was told.
    told: u64,
    /// When that was, where the cause shows at once.
    told_at: Option<Timestamp>,
    hint: Option<(String, bool)>,
}

impl RefusalTable {
    /// Counts one. True if it should be diagnosed: once in [`PAUSE`] at the most, and where several
    /// reasons come, each in its turn, so that one that floods hides no other.
    pub fn count(&self, reason: Reason, now: Timestamp) -> bool {
        let mut state = self.lock();
        state.add(reason, now);
        let due = state.wanted.is_none_or(|(at, before)| {
            let pause = if before == reason { 2 * PAUSE } else { PAUSE };
            // A clock that was set back must not end the diagnoses.
            now.duration_since(at).unsigned_abs() >= pause
        });
        if due {
            state.wanted = Some((now, reason));
        }
        due
    }

    /// Counts one whose cause shows at once. Once in [`PAUSE`] at the most it is kept, and how many there were since
    /// the last time is returned. It takes no diagnosis' turn.
    pub fn count_known(&self, reason: Reason, now: Timestamp, hint: impl FnOnce() -> String) -> Option<u64> {
        let mut state = self.lock();
        let series = state.add(reason, now)?;
        if series.told_at.is_some_and(|at| now.duration_since(at).unsigned_abs() < PAUSE) {
            return None;
        }
        series.told_at = Some(now);
        series.hint = Some((hint(), true));
        Some(series.count - std::mem::replace(&mut series.told, series.count))
    }

    /// Keeps what a diagnosis found, and returns how many there were since the last one. What is shown
    /// by a digest that fits is not replaced by a guess: anybody can cause one.
    pub fn explain(&self, reason: Reason, hint: &str, proven: bool) -> u64 {
        let mut state = self.lock();
        let Some(series) = state.series.iter_mut().find(|series| series.reason == reason) else { return 0 };
        if proven || !matches!(series.hint, Some((_, true))) {
            series.hint = Some((hint.to_owned(), proven));
        }
        series.count - std::mem::replace(&mut series.told, series.count)
    }

    /// What is to be shown, the last one first.
    pub fn shown(&self) -> Vec<RefusalSummary> {
        let mut series: Vec<_> =
            self.lock().series.iter().map(|one| (one.last, RefusalSummary::from(one))).collect();
        series.sort_by_key(|(last, _)| std::cmp::Reverse(*last));
        series.into_iter().map(|(_, refusal)| refusal).collect()
    }

    /// A thread that panicked within left counts at most one short.
    fn lock(&self) -> MutexGuard<'_, RefusalState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RefusalState {
    /// Its entry is there by then.
    fn add(&mut self, reason: Reason, now: Timestamp) -> Option<&mut RefusalSeries> {
        match self.series.iter_mut().find(|series| series.reason == reason) {
            Some(series) if now.duration_since(series.last) <= QUIET => {
                series.count += 1;
                series.last = now;
            }
            Some(series) => *series = RefusalSeries::new(reason, now),
            None => self.series.push(RefusalSeries::new(reason, now)),
        }
        self.series.iter_mut().find(|series| series.reason == reason)
    }
}

impl RefusalSeries {
    fn new(reason: Reason, now: Timestamp) -> Self {
        Self { reason, count: 1, since: now, last: now, told: 0, told_at: None, hint: None }
    }
}

impl From<&RefusalSeries> for RefusalSummary {
    fn from(series: &RefusalSeries) -> Self {
        Self {
            reason: series.reason.info().label,
            count: series.count,
            since: series.since.to_string(),
            last: series.last.to_string(),
            hint: series.hint.as_ref().map(|(hint, _)| hint.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_775_847_600_000 + milliseconds).unwrap()
    }

    #[test]
    fn a_flood_is_looked_at_once_in_a_while_and_hides_no_other_reason() {
        let refusals = RefusalTable::default();
        let flood = (0..5000).filter(|ms| refusals.count(Reason::SignatureMissing, at(*ms))).count();
        assert_eq!(flood, 3, "at 0, 2 and 4 s");
        // A second after the last one, in the middle of the flood.
        assert!(!refusals.count(Reason::SignatureMismatch, at(4999)));
        assert!(!refusals.count(Reason::SignatureMissing, at(5000)));
        assert!(refusals.count(Reason::SignatureMismatch, at(5001)));
        assert!(!refusals.count(Reason::SignatureMissing, at(5002)), "once a second and source");
        assert!(refusals.count(Reason::SignatureMissing, at(6001)));
        assert!(refusals.count(Reason::SignatureMissing, at(-100_000)), "the clock was set back");
    }

    #[test]
    fn a_guess_does_not_replace_what_was_shown() {
        let refusals = RefusalTable::default();
        let reason = Reason::SignatureMismatch;
        for ms in 0..7 {
            refusals.count(reason, at(ms));
        }
        assert_eq!(refusals.explain(reason, "a guess", false), 7);
        assert_eq!(refusals.explain(reason, "shown", true), 0);
        refusals.count(reason, at(7));
        assert_eq!(refusals.explain(reason, "another guess", false), 1);
        let hint = |refusals: &RefusalTable| refusals.shown()[0].hint.clone();
        assert_eq!(hint(&refusals).as_deref(), Some("shown"));
        refusals.explain(reason, "shown, too", true);
        assert_eq!(hint(&refusals).as_deref(), Some("shown, too"));
    }

    #[test]
    fn what_shows_at_once_is_told_at_once_and_then_once_a_second() {
        let refusals = RefusalTable::default();
        let reason = Reason::AddressNotAllowed;
        assert!(refusals.count(Reason::SignatureMissing, at(0)));
        let told = |ms: i64| refusals.count_known(reason, at(ms), || format!("at {ms}"));
        let counts: Vec<_> = [0, 1, 999, 1000, 1001, 2500].map(told).into();
        assert_eq!(counts, [Some(1), None, None, Some(3), None, Some(2)]);
        let shown = refusals.shown();
        assert_eq!((shown[0].count, shown[0].hint.as_deref()), (6, Some("at 2500")));
        assert!(refusals.count(Reason::SignatureMissing, at(2000)), "nobody else waits for it");
    }

    #[test]
    fn each_reason_is_shown_with_its_times_and_counted_anew_after_a_quiet_while() {
        let refusals = RefusalTable::default();
        assert!(refusals.shown().is_empty());
        for (reason, ms) in [
            (Reason::SignatureMismatch, 0),
            (Reason::SignatureMissing, 1000),
            (Reason::SignatureMismatch, 599_000),
        ] {
            refusals.count(reason, at(ms));
        }
        let shown = refusals.shown();
        let of = |refusal: &RefusalSummary| (refusal.reason, refusal.count, refusal.since.clone());
        assert_eq!(of(&shown[0]), ("signature_mismatch", 2, "2026-04-10T19:00:00Z".to_owned()));
        assert_eq!(shown[0].last, "2026-04-10T19:09:59Z");
        assert_eq!(of(&shown[1]), ("signature_missing", 1, "2026-04-10T19:00:01Z".to_owned()));
        refusals.count(Reason::SignatureMismatch, at(599_000 + 600_001));
        assert_eq!(refusals.shown()[0].count, 1);
    }
}
