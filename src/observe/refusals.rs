//! The refusals of a source: their count by reason, since when they occur, and their likely cause.
//!
//! Anybody can cause refusals, so the state is small and fixed: one entry for each reason. The hot path takes a
//! lock only for a refusal, for some comparisons and never across an await.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::outcome::Reason;

/// The minimum interval between two diagnoses of a source.
pub const PAUSE: Duration = Duration::from_secs(1);

/// After this time without a refusal for a reason, its count starts again.
const QUIET: SignedDuration = SignedDuration::from_mins(10);

/// Refusals for one reason, as shown in `/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalSummary {
    /// The reason label, as in log and metric.
    pub reason: Cow<'static, str>,
    /// The number of refusals since `since`.
    pub count: u64,
    /// The time of the first, in RFC 3339; the count starts again after ten minutes without one.
    pub since: Timestamp,
    /// The time of the last.
    pub last: Timestamp,
    /// The likely cause, if one of them was diagnosed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The refusals of one source; a reload carries them over by the source's name.
#[derive(Debug, Default)]
pub struct RefusalTable(Mutex<RefusalState>);

#[derive(Debug, Default)]
struct RefusalState {
    series: Vec<RefusalSeries>,
    /// When a diagnosis was last due, and for which reason.
    last_diagnosis: Option<(Timestamp, Reason)>,
}

#[derive(Debug)]
struct RefusalSeries {
    reason: Reason,
    count: u64,
    since: Timestamp,
    last: Timestamp,
    /// The count at the last hint.
    diagnosed: u64,
    /// When the last hint was stored for a cause that needs no diagnosis.
    hint_at: Option<Timestamp>,
    hint: Option<(String, bool)>,
}

impl RefusalTable {
    /// Counts a refusal. True if it should be diagnosed: at most once per [`PAUSE`]. If several reasons occur,
    /// they take turns, so that a flood of one hides no other.
    pub fn count(&self, reason: Reason, now: Timestamp) -> bool {
        let mut state = self.lock();
        state.add(reason, now);
        let due = state.last_diagnosis.is_none_or(|(at, before)| {
            let pause = if before == reason { 2 * PAUSE } else { PAUSE };
            // If the clock was set back, diagnoses must not stop.
            now.duration_since(at).unsigned_abs() >= pause
        });
        if due {
            state.last_diagnosis = Some((now, reason));
        }
        due
    }

    /// Counts a refusal whose cause is known without diagnosis. At most once per [`PAUSE`] it stores the hint and
    /// returns the count since the last time. It does not delay diagnoses.
    pub fn count_known(&self, reason: Reason, now: Timestamp, hint: impl FnOnce() -> String) -> Option<u64> {
        let mut state = self.lock();
        let series = state.add(reason, now)?;
        if series.hint_at.is_some_and(|at| now.duration_since(at).unsigned_abs() < PAUSE) {
            return None;
        }
        series.hint_at = Some(now);
        series.hint = Some((hint(), true));
        Some(series.count - std::mem::replace(&mut series.diagnosed, series.count))
    }

    /// Stores the result of a diagnosis, and returns the count since the last one. A guess does not replace a
    /// cause that is proven by a matching digest, because anybody can provoke a guess.
    pub fn explain(&self, reason: Reason, hint: &str, proven: bool) -> u64 {
        let mut state = self.lock();
        let Some(series) = state.series.iter_mut().find(|series| series.reason == reason) else { return 0 };
        if proven || !matches!(series.hint, Some((_, true))) {
            series.hint = Some((hint.to_owned(), proven));
        }
        series.count - std::mem::replace(&mut series.diagnosed, series.count)
    }

    /// The refusals for `/status`, the most recent first.
    pub fn shown(&self) -> Vec<RefusalSummary> {
        let mut series: Vec<_> =
            self.lock().series.iter().map(|one| (one.last, RefusalSummary::from(one))).collect();
        series.sort_by_key(|(last, _)| std::cmp::Reverse(*last));
        series.into_iter().map(|(_, refusal)| refusal).collect()
    }

    /// A thread that panicked while holding the lock leaves counts at most one short.
    fn lock(&self) -> MutexGuard<'_, RefusalState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RefusalState {
    /// Counts the refusal in its entry and returns that entry.
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
        Self { reason, count: 1, since: now, last: now, diagnosed: 0, hint_at: None, hint: None }
    }
}

impl From<&RefusalSeries> for RefusalSummary {
    fn from(series: &RefusalSeries) -> Self {
        Self {
            reason: series.reason.info().label.into(),
            count: series.count,
            since: series.since,
            last: series.last,
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
    fn a_flood_is_diagnosed_at_intervals_and_hides_no_other_reason() {
        let refusals = RefusalTable::default();
        let flood = (0..5000).filter(|ms| refusals.count(Reason::SignatureMissing, at(*ms))).count();
        assert_eq!(flood, 3, "at 0, 2 and 4 s");
        // One second after the last diagnosis, in the middle of the flood.
        assert!(!refusals.count(Reason::SignatureMismatch, at(4999)));
        assert!(!refusals.count(Reason::SignatureMissing, at(5000)));
        assert!(refusals.count(Reason::SignatureMismatch, at(5001)));
        assert!(!refusals.count(Reason::SignatureMissing, at(5002)), "once a second per source");
        assert!(refusals.count(Reason::SignatureMissing, at(6001)));
        assert!(refusals.count(Reason::SignatureMissing, at(-100_000)), "the clock was set back");
    }

    #[test]
    fn a_guess_does_not_replace_a_proven_cause() {
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
    fn a_known_cause_is_reported_at_once_and_then_once_a_second() {
        let refusals = RefusalTable::default();
        let reason = Reason::AddressNotAllowed;
        assert!(refusals.count(Reason::SignatureMissing, at(0)));
        let counted = |ms: i64| refusals.count_known(reason, at(ms), || format!("at {ms}"));
        let counts: Vec<_> = [0, 1, 999, 1000, 1001, 2500].map(counted).into();
        assert_eq!(counts, [Some(1), None, None, Some(3), None, Some(2)]);
        let shown = refusals.shown();
        assert_eq!((shown[0].count, shown[0].hint.as_deref()), (6, Some("at 2500")));
        assert!(refusals.count(Reason::SignatureMissing, at(2000)), "it delays no other diagnosis");
    }

    #[test]
    fn each_reason_is_shown_with_its_times_and_its_count_restarts_after_a_quiet_period() {
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
        let summary =
            |refusal: &RefusalSummary| (refusal.reason.to_string(), refusal.count, refusal.since.to_string());
        assert_eq!(
            summary(&shown[0]),
            ("signature_mismatch".to_owned(), 2, "2026-04-10T19:00:00Z".to_owned())
        );
        assert_eq!(shown[0].last.to_string(), "2026-04-10T19:09:59Z");
        assert_eq!(
            summary(&shown[1]),
            ("signature_missing".to_owned(), 1, "2026-04-10T19:00:01Z".to_owned())
        );
        refusals.count(Reason::SignatureMismatch, at(599_000 + 600_001));
        assert_eq!(refusals.shown()[0].count, 1);
    }
}
