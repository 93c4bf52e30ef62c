//! `hookstream spool list`

use std::path::Path;

use bytesize::ByteSize;
use serde::Serialize;

use super::{count, each, note, print_json, time};
use crate::cli::ExitStatus;
use crate::cli::output::{self, TextTable, escape_controls};
use crate::spool::{Filter, RowState, RowSummary, SpoolReader, Totals, reports};

/// The default number of rows in text output.
const ROWS: usize = 50;

/// List rows, oldest first (the default subcommand)
#[derive(Debug, Default, PartialEq, Eq, clap::Args)]
// Also flattened into the parent command, whose argument group has the same name.
#[group(skip)]
pub(super) struct Args {
    /// Only parked rows, which Kafka refused permanently
    #[arg(long)]
    parked: bool,
    /// Only rows for this topic
    #[arg(long)]
    topic: Option<String>,
    /// Show at most N rows [default: 50, with --json all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Serialize)]
struct RowLine<'a> {
    id: i64,
    state: &'static str,
    received: String,
    topic: &'a str,
    key: &'a str,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

pub(super) fn run(reader: &SpoolReader, dir: &Path, args: &Args, json: bool) -> anyhow::Result<ExitStatus> {
    let damage = reports(dir)?;
    let filter = Filter { topic: args.topic.clone(), state: args.parked.then_some(RowState::Parked) };
    if json {
        each(reader, &filter, args.limit.unwrap_or(usize::MAX), |row| print_json(&line(&row)))?;
        // Standard output contains only the rows.
        damage.iter().try_for_each(|damage| note(&damage.to_string()))?;
        return Ok(ExitStatus::Success);
    }
    let limit = args.limit.unwrap_or(ROWS);
    let mut rows = Vec::new();
    // One row more than the limit shows whether there are further rows.
    each(reader, &filter, limit.saturating_add(1), |row| {
        rows.push(row);
        Ok(())
    })?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    if !rows.is_empty() {
        output::print_line(&table(&rows).to_string())?;
    }
    if more {
        output::print_line("... and more: use --limit N")?;
    }
    output::print_line(&summary(&reader.totals()?))?;
    damage.iter().try_for_each(|damage| output::print_line(&escape_controls(&damage.to_string())))?;
    Ok(ExitStatus::Success)
}

fn line(row: &RowSummary) -> RowLine<'_> {
    RowLine {
        id: row.id,
        state: row.state.label(),
        received: time(row.timestamp_ms),
        topic: &row.topic,
        key: &row.key,
        bytes: row.bytes,
        why: row.why.as_deref(),
    }
}

pub(super) fn table(rows: &[RowSummary]) -> TextTable {
    let mut table = TextTable::new(["id", "state", "received", "topic", "key", "bytes", "why"]);
    for row in rows {
        let (id, bytes) = (row.id.to_string(), row.bytes.to_string());
        let (received, why) = (time(row.timestamp_ms), row.why.as_deref().unwrap_or_default());
        table.row([&id, row.state.label(), &received, &row.topic, &row.key, &bytes, why]);
    }
    table
}

/// The summary of all rows, regardless of the filter.
fn summary(totals: &Totals) -> String {
    let Some(oldest) = totals.oldest_ms else { return String::from("the spool is empty") };
    format!(
        "{} in total: {} live, {} parked, {}, the oldest from {}",
        count(totals.live + totals.parked, "row"),
        totals.live,
        totals.parked,
        ByteSize(totals.bytes),
        time(oldest)
    )
}
