//! What was kept of one event type's records, by pointer.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::shape::{NameBudget, ObservedShape};

/// Pointers that are told apart. A body chooses them: past this they are only counted.
const MAX_POINTERS: usize = 1_000;

/// Why a value was kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FieldState {
    /// No field of the schema reads it.
    New {
        /// The full name of the record that would have its field; `None` where several could.
        home: Option<String>,
        /// The member's key in it, and those of the objects below, if more was read there.
        names: Vec<String>,
    },
    /// Its field is null instead.
    Misfit {
        /// The field's type.
        is: String,
    },
    /// Its field holds it, less exactly.
    Rounded {
        /// The field's type.
        is: String,
    },
    /// The record was written before the schema of today had a field for it.
    Former,
}

/// What was seen of one pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointerStats {
    /// From the body's root; `*` for an array's index and a map's key.
    pub pointer: String,
    /// Why it was kept.
    pub standing: FieldState,
    /// How many records had it.
    pub records: u64,
    /// The first record's timestamp, in milliseconds since 1970.
    pub first: Option<i64>,
    /// The last one's.
    pub last: Option<i64>,
    /// What stood there.
    pub shape: ObservedShape,
    record: u64,
}

/// The rows of an event type.
#[derive(Debug, Default)]
pub struct DriftTable {
    rows: BTreeMap<(FieldState, String), PointerStats>,
    budget: NameBudget,
    past: u64,
    records: u64,
}

impl DriftTable {
    /// What is added from now on belongs to one more record.
    pub fn next_record(&mut self) {
        self.records += 1;
    }

    /// Adds a kept value of the present record, which has this timestamp.
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

    /// The rows, by standing and pointer.
    pub fn rows(&self) -> impl Iterator<Item = &PointerStats> {
        self.rows.values()
    }

    /// How many values stood at pointers past the bound.
    pub const fn past(&self) -> u64 {
        self.past
    }

    /// How many records were looked at.
    pub const fn records(&self) -> u64 {
        self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn a_row_counts_records_and_knows_its_first_and_last() {
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
    fn pointers_past_the_bound_are_counted_only() {
        let mut table = DriftTable::default();
        let raw = json::check(b"1").unwrap();
        for n in 0..MAX_POINTERS + 5 {
            table.next_record();
            table.add(format!("/data/{n}"), FieldState::Former, None, raw);
            table.add("/data/0".into(), FieldState::Former, None, raw);
        }
        assert_eq!((table.rows().count(), table.past()), (MAX_POINTERS, 5));
        let first = table.rows().find(|row| row.pointer == "/data/0").unwrap();
        assert_eq!(first.records, 1_005, "known ones go on being counted");
    }
}
