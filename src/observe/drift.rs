//! Drift: members that a provider sends without a field in the schema. They are in `additional_fields`; this
//! module counts and logs them.
//!
//! The provider chooses the pointers, so their number and length are bounded. Values are never stored. The hot
//! path takes the lock only for an event with such a member, and never across an await.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::metrics;

/// The number of pointers of one event type that are counted separately.
const MAX_POINTERS: usize = 50;

/// The longest pointer that is counted separately, in bytes.
const MAX_LENGTH: usize = 200;

/// The label for all other pointers. It cannot clash: every JSON pointer except the root's contains a slash.
const OTHER: &str = "other";

/// The minimum interval between two log lines about one pointer.
const PAUSE: SignedDuration = SignedDuration::from_hours(1);

/// The drift of one source; a reload carries it over by the source's name.
#[derive(Default)]
pub struct Drift(Mutex<HashMap<String, Pointers>>);

/// The pointers of one event type.
type Pointers = HashMap<Box<str>, DriftSeries>;

struct DriftSeries {
    counter: ::metrics::Counter,
    seen: u64,
    last_logged: Option<Timestamp>,
}

impl std::fmt::Debug for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Drift")
    }
}

impl Drift {
    /// Counts the members of one published event, and logs each pointer that was not logged within the last
    /// hour. `pointers` contain `*` for the parts that vary between events.
    pub fn count(&self, source: &str, event_type: &str, pointers: &[String], now: Timestamp) {
        for (pointer, seen) in self.add(source, event_type, pointers, now) {
            tracing::info!(
                source,
                r#type = event_type,
                pointer,
                seen,
                "the schema has no field for this member; it is in additional_fields, see `hookstream schema drift`"
            );
        }
    }

    /// Counts, and returns the pointers to log with their counts so far.
    fn add(&self, source: &str, event_type: &str, pointers: &[String], now: Timestamp) -> Vec<(String, u64)> {
        // A thread that panicked while holding the lock leaves counts at most one short.
        let mut types = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !types.contains_key(event_type) {
            types.insert(event_type.to_owned(), Pointers::default());
        }
        let Some(series_by_pointer) = types.get_mut(event_type) else { return Vec::new() };
        let mut due = Vec::new();
        for pointer in pointers {
            let room = series_by_pointer.len() < MAX_POINTERS && pointer.len() <= MAX_LENGTH;
            let pointer =
                if room || series_by_pointer.contains_key(pointer.as_str()) { pointer } else { OTHER };
            if !series_by_pointer.contains_key(pointer) {
                series_by_pointer.insert(pointer.into(), DriftSeries::new(source, event_type, pointer));
            }
            let Some(series) = series_by_pointer.get_mut(pointer) else { continue };
            series.counter.increment(1);
            series.seen += 1;
            // If the clock was set back, logging must not stop.
            let quiet =
                series.last_logged.is_some_and(|last_logged| now.duration_since(last_logged).abs() < PAUSE);
            if !quiet {
                series.last_logged = Some(now);
                due.push((pointer.to_owned(), series.seen));
            }
        }
        due
    }
}

impl DriftSeries {
    fn new(source: &str, event_type: &str, pointer: &str) -> Self {
        Self { counter: metrics::drift(source, event_type, pointer), seen: 0, last_logged: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn each_pointer_is_logged_once_an_hour_with_its_count() {
        let drift = Drift::default();
        let add = |pointers: &[&str], second| {
            let pointers: Vec<String> = pointers.iter().map(|&pointer| pointer.to_owned()).collect();
            drift.add("s", "t", &pointers, at(second))
        };
        let due = |pointer: &str, seen| (pointer.to_owned(), seen);
        assert_eq!(add(&["/a", "/a"], 0), [due("/a", 1)]);
        assert_eq!(add(&["/a", "/b"], 3_599), [due("/b", 1)]);
        assert_eq!(add(&["/a", "/b"], 3_600), [due("/a", 4)]);
        assert_eq!(add(&["/a"], -3_600), [due("/a", 5)], "the clock was set back");
        assert_eq!(drift.add("s", "u", &["/a".to_owned()], at(0)), [due("/a", 1)]);
    }

    #[test]
    fn pointers_chosen_by_the_body_have_bounded_memory() {
        let drift = Drift::default();
        let pointers: Vec<String> = (0..10_000).map(|n| format!("/{n}")).collect();
        let due = drift.add("s", "t", &pointers, at(0));
        assert_eq!(due.len(), MAX_POINTERS + 1);
        assert_eq!(due.last(), Some(&(OTHER.to_owned(), 1)));
        assert_eq!(drift.add("s", "t", &["/0".to_owned()], at(3_600)), [("/0".to_owned(), 2)]);
        assert_eq!(drift.add("s", "u", &["/x".repeat(101)], at(0)), [(OTHER.to_owned(), 1)]);
        let types = drift.0.lock().unwrap();
        assert_eq!(types["t"].len(), MAX_POINTERS + 1);
        assert_eq!(types["t"][OTHER].seen, 10_000 - MAX_POINTERS as u64);
    }
}
