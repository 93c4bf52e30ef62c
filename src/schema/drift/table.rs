//! The contents of `additional_fields` in one event type's records, by pointer.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::shape::{NameBudget, ObservedShape};

/// Limit on distinct pointers. The body chooses them; beyond the limit they are only counted.
const MAX_POINTERS: usize = 1_000;

/// Why a value was kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FieldState {
    /// No field of the schema reads it.
    New {
        /// The full name of the record to which a field would be added; `None` if several are possible.
        home: Option<String>,
        /// The member's key in that record, and the keys of the objects below, if any.
        names: Vec<String>,
    },
    /// Its field is null instead.
    Misfit {
        /// The field's type.
        is: String,
    },
    /// Its field contains a less exact value.
    Rounded {
        /// The field's type.
        is: String,
    },
    /// The record was written before the current schema had a field for it.
    Former,
}

/// The statistics of one pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointerStats {
    /// The pointer from the body's root, with `*` for array indexes and map keys.
    pub pointer: String,
    /// Why the value was kept.
    pub standing: FieldState,
    pub records: u64,
    /// The earliest timestamp of these records, in milliseconds since 1970.
    pub first: Option<i64>,
    /// Their latest timestamp.
    pub last: Option<i64>,
    pub shape: ObservedShape,
    record: u64,
}

/// The drift table of an event type.
#[derive(Debug, Default)]
pub struct DriftTable {
    rows: BTreeMap<(FieldState, String), PointerStats>,
    budget: NameBudget,
    past: u64,
    records: u64,
}

impl DriftTable {
    /// Begins the next record.
    pub fn next_record(&mut self) {
        self.records += 1;
    }

    /// Adds a kept value of the current record, which has this timestamp.
    pub fn add(&mut self, pointer: String, standing: FieldState, time: Option<i64>, raw: &RawValue) {
        let key = (standing, pointer);
        let full = self.rows.len() >= MAX_POINTERS;
        if !self.rows.contains_key(&key) && (full || !self.budget.take(&key.1)) {
            self.past += 1;
            return;
        }
        let row = self.rows.entry(key).or_insert_with_key(|(standing, pointer)| PointerStats {
            pointer: pointer.clone(),
            standing: standing.clone(),
            records: 0,
            first: None,
            last: None,
            shape: ObservedShape::default(),
            record: 0,
        });
        row.records += u64::from(row.record != self.records);
        row.record = self.records;
        if let Some(time) = time {
            row.first = Some(row.first.map_or(time, |first| first.min(time)));
            row.last = Some(row.last.map_or(time, |last| last.max(time)));
        }
        row.shape.see(raw, &mut self.budget);
    }

    /// The rows, ordered by state and pointer.
    pub fn rows(&self) -> impl Iterator<Item = &PointerStats> {
        self.rows.values()
    }

    /// The number of values at pointers beyond the limit.
    pub const fn past(&self) -> u64 {
        self.past
    }

    /// The number of records read.
    pub const fn records(&self) -> u64 {
        self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn a_row_counts_records_and_has_the_earliest_and_latest_timestamp() {
        let mut table = DriftTable::default();
        let raw = json::check(b"\"x\"").unwrap();
        let add = |table: &mut DriftTable, time| {
            table.add("/data/items/*/a".into(), FieldState::Former, Some(time), raw);
        };
        for (time, values) in [(5, 50), (3, 1), (9, 0), (7, 2)] {
            table.next_record();
            (0..values).for_each(|_| add(&mut table, time));
        }
        let rows: Vec<&PointerStats> = table.rows().collect();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].records, rows[0].first, rows[0].last), (3, Some(3), Some(7)));
        assert_eq!((table.records(), table.past()), (4, 0));
    }

    #[test]
    fn pointers_beyond_the_limit_are_only_counted() {
        let mut table = DriftTable::default();
        let raw = json::check(b"1").unwrap();
        for n in 0..MAX_POINTERS + 5 {
            table.next_record();
            table.add(format!("/data/{n}"), FieldState::Former, None, raw);
            table.add("/data/0".into(), FieldState::Former, None, raw);
        }
        assert_eq!((table.rows().count(), table.past()), (MAX_POINTERS, 5));
        let first = table.rows().find(|row| row.pointer == "/data/0").unwrap();
        assert_eq!(first.records, 1_005, "known pointers are still counted");
    }
}
