//! Drift: members that a provider sends and the schema does not know. They are in
//! `additional_fields`; here they are counted and told.
//!
//! The pointers are the provider's words, so their number and length are bounded; values are never
//! kept. The hot path takes the lock only for an event with such a member, and never across a wait.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::metrics;

/// Pointers of one event type that are told apart.
const MAX_POINTERS: usize = 50;

/// Bytes of a pointer that is told apart.
const MAX_LENGTH: usize = 200;

/// Stands for all others: no JSON pointer but the root's is without a slash.
const OTHER: &str = "other";

/// Between two lines in the log about one pointer.
const PAUSE: SignedDuration = SignedDuration::from_hours(1);

/// A source's; moves over by name when the configuration is read again.
#[derive(Default)]
pub struct Drift(Mutex<HashMap<String, Pointers>>);

/// Those of one event type.
type Pointers = HashMap<Box<str>, DriftSeries>;

struct DriftSeries {
    counter: ::metrics::Counter,
    seen: u64,
    told: Option<Timestamp>,
}

impl std::fmt::Debug for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Drift")
    }
}

impl Drift {
    /// Counts the members of one event that was published; a line goes to the log for each pointer that
    /// had none within the hour. `pointers` have `*` for what differs from event to event.
    pub fn count(&self, source: &str, event_type: &str, pointers: &[String], now: Timestamp) {
        for (pointer, seen) in self.add(source, event_type, pointers, now) {
            tracing::info!(
                source,
                r#type = event_type,
                pointer,
                seen,
                "no field of the schema reads this: kept in additional_fields; see `hookstream schema drift`"
            );
        }
    }

    /// Counts; gives the pointers that are due to be told, and how often each was seen by now.
    fn add(&self, source: &str, event_type: &str, pointers: &[String], now: Timestamp) -> Vec<(String, u64)> {
        // A thread that panicked within left counts at most one short.
        let mut types = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !types.contains_key(event_type) {
            types.insert(event_type.to_owned(), Pointers::default());
        }
        let Some(known) = types.get_mut(event_type) else { return Vec::new() };
        let mut due = Vec::new();
        for pointer in pointers {
            let room = known.len() < MAX_POINTERS && pointer.len() <= MAX_LENGTH;
            let pointer = if room || known.contains_key(pointer.as_str()) { pointer } else { OTHER };
            if !known.contains_key(pointer) {
                known.insert(pointer.into(), DriftSeries::new(source, event_type, pointer));
            }
            let Some(series) = known.get_mut(pointer) else { continue };
            series.counter.increment(1);
            series.seen += 1;
            // A clock that was set back must not end the telling.
            let quiet = series.told.is_some_and(|told| now.duration_since(told).abs() < PAUSE);
            if !quiet {
                series.told = Some(now);
                due.push((pointer.to_owned(), series.seen));
            }
        }
        due
    }
}

impl DriftSeries {
    fn new(source: &str, event_type: &str, pointer: &str) -> Self {
        Self { counter: metrics::drift(source, event_type, pointer), seen: 0, told: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn each_pointer_is_told_once_an_hour_with_its_count() {
        let drift = Drift::default();
        let add = |pointers: &[&str], second| {
            let pointers: Vec<String> = pointers.iter().map(|&pointer| pointer.to_owned()).collect();
            drift.add("s", "t", &pointers, at(second))
        };
        let told = |pointer: &str, seen| (pointer.to_owned(), seen);
        assert_eq!(add(&["/a", "/a"], 0), [told("/a", 1)]);
        assert_eq!(add(&["/a", "/b"], 3_599), [told("/b", 1)]);
        assert_eq!(add(&["/a", "/b"], 3_600), [told("/a", 4)]);
        assert_eq!(add(&["/a"], -3_600), [told("/a", 5)], "the clock was set back");
        assert_eq!(drift.add("s", "u", &["/a".to_owned()], at(0)), [told("/a", 1)]);
    }

    #[test]
    fn names_of_the_bodys_choice_fill_no_memory() {
        let drift = Drift::default();
        let pointers: Vec<String> = (0..10_000).map(|n| format!("/{n}")).collect();
        let told = drift.add("s", "t", &pointers, at(0));
        assert_eq!(told.len(), MAX_POINTERS + 1);
        assert_eq!(told.last(), Some(&(OTHER.to_owned(), 1)));
        assert_eq!(drift.add("s", "t", &["/0".to_owned()], at(3_600)), [("/0".to_owned(), 2)]);
        assert_eq!(drift.add("s", "u", &["/x".repeat(101)], at(0)), [(OTHER.to_owned(), 1)]);
        let types = drift.0.lock().unwrap();
        assert_eq!(types["t"].len(), MAX_POINTERS + 1);
        assert_eq!(types["t"][OTHER].seen, 10_000 - MAX_POINTERS as u64);
    }
}
