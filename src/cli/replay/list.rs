//! Lists the dead letters of a source, if nothing is selected.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::history::{History, LastOutcome};
use super::letters::{Letters, reason_of};
use crate::cli::ExitStatus;
use crate::cli::output::{self, TextTable};
use crate::kafka::Fetched;

/// Shown for a label that is not a reason.
const UNKNOWN: &str = "-";

/// The letters of one reason.
#[derive(Debug, Default, Serialize)]
struct ReasonRow {
    reason: &'static str,
    count: u64,
    replayed: u64,
    /// The number of letters that failed again, by the reason of the last try.
    failed_again: BTreeMap<&'static str, u64>,
    #[serde(serialize_with = "as_time")]
    first: Option<i64>,
    #[serde(serialize_with = "as_time")]
    last: Option<i64>,
}

impl ReasonRow {
    fn add(&mut self, record: &Fetched, past: Option<LastOutcome>) {
        self.count += 1;
        match past {
            None => {}
            Some(LastOutcome::Done) => self.replayed += 1,
            Some(LastOutcome::Failed(reason)) => {
                let reason = reason.map_or(UNKNOWN, |reason| reason.info().label);
                *self.failed_again.entry(reason).or_default() += 1;
            }
        }
        if let Some(time) = record.timestamp_ms {
            self.first = Some(self.first.map_or(time, |first| first.min(time)));
            self.last = Some(self.last.map_or(time, |last| last.max(time)));
        }
    }
}

pub(super) async fn run(letters: &Letters, past: &History, json: bool) -> anyhow::Result<ExitStatus> {
    let mut rows: BTreeMap<&'static str, ReasonRow> = BTreeMap::new();
    letters
        .each(|record| {
            let reason = reason_of(&record).map_or(UNKNOWN, |reason| reason.info().label);
            let row = rows.entry(reason).or_insert_with(|| ReasonRow { reason, ..ReasonRow::default() });
            row.add(&record, past.of(&record));
            Ok(())
        })
        .await?;
    if json {
        rows.values().try_for_each(output::print_json)?;
    } else if rows.is_empty() {
        output::print_line("no dead letters")?;
    } else {
        output::print_line(&table(rows.values()).to_string())?;
    }
    Ok(ExitStatus::Success)
}

fn table<'r>(rows: impl Iterator<Item = &'r ReasonRow>) -> TextTable {
    let mut table = TextTable::new(["reason", "count", "replayed", "failed again", "first", "last"]);
    for row in rows {
        let again: Vec<String> = row.failed_again.iter().map(|(why, n)| format!("{n} {why}")).collect();
        let (first, last) = (time(row.first).unwrap_or_default(), time(row.last).unwrap_or_default());
        let (count, replayed) = (row.count.to_string(), row.replayed.to_string());
        table.row([row.reason, &count, &replayed, &again.join(", "), &first, &last]);
    }
    table
}

/// To the second.
fn time(ms: Option<i64>) -> Option<String> {
    let time = Timestamp::from_millisecond(ms?).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn as_time<S: serde::Serializer>(ms: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    time(*ms).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::super::selection::tests::record;
    use super::*;
    use crate::outcome::Reason;

    #[test]
    fn a_row_counts_what_became_of_its_letters() {
        let mut row = ReasonRow { reason: "type_unknown", ..ReasonRow::default() };
        let failed = |reason| Some(LastOutcome::Failed(reason));
        let pasts = [None, Some(LastOutcome::Done), failed(Some(Reason::IdMissing)), failed(None)];
        for (past, second) in pasts.into_iter().zip([3, 1, 4, 2]) {
            row.add(&record("type_unknown", "evt", second * 1_000), past);
        }
        let text = anstream::adapter::strip_str(&table([&row].into_iter()).to_string()).to_string();
        let expected = [
            "reason        count  replayed  failed again        first                 last",
            "type_unknown      4         1  1 -, 1 id_missing  1970-01-01T00:00:01Z  1970-01-01T00:00:04Z",
        ];
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(text.lines().map(squeezed).collect::<Vec<_>>(), expected.map(squeezed));
        let json = serde_json::to_string(&row).unwrap();
        assert!(json.contains(r#""first":"1970-01-01T00:00:01Z""#), "{json}");
    }
}
