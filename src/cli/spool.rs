//! `hookstream spool`

mod export;
mod list;
mod requeue;
mod show;

use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::Serialize;

use super::output::{note, print_json};
use super::{ConfigArgs, ExitStatus};
use crate::observe::log;
use crate::record::Header;
use crate::spool::{Filter, RowEntry, RowSummary, SpoolReader};

const EXAMPLES: &str = "\
Examples:
  hookstream spool                           all rows, oldest first
  hookstream spool --parked                  rows that Kafka refused permanently
  hookstream spool show 17 --value           one row with its value
  hookstream spool export --parked rows.jsonl
  hookstream spool requeue --all             the plan: the rows that would become live again
  hookstream spool requeue 17 18 --apply

All commands work while `serve` runs. Only `requeue --apply` changes anything.

Exit codes: 0 success or nothing to do; 1 no such row, damaged rows, or a plan not applied; 2 error.";

/// List the rows of the spool, and requeue parked rows
///
/// The spool holds accepted deliveries that Kafka has not acknowledged yet. A live row is waiting for Kafka. A parked
/// row was refused by Kafka permanently: it stays until you fix the cause and requeue it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Args {
    #[command(subcommand)]
    action: Option<SpoolCommand>,
    #[command(flatten)]
    list: list::Args,
    /// The spool's directory [default: [spool] dir of the configuration]
    #[arg(long, value_name = "DIR", global = true)]
    dir: Option<PathBuf>,
    /// Print JSON lines
    #[arg(long, global = true)]
    json: bool,
}

/// The variants have no doc comments: clap would show those instead of the doc comments of the `Args`.
#[derive(Debug, clap::Subcommand)]
enum SpoolCommand {
    List(list::Args),
    Show(show::Args),
    Export(export::Args),
    Requeue(requeue::Args),
}

/// Runs the subcommand; without one, lists the rows.
///
/// # Errors
/// Problems of the configuration; a spool that does not exist or cannot be read; for `requeue --apply`, a spool that
/// cannot be changed.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    anyhow::ensure!(
        args.action.is_none() || args.list == list::Args::default(),
        "--parked, --topic and --limit must follow the subcommand: hookstream spool export --parked -"
    );
    let dir = directory(config, args)?;
    let reader = SpoolReader::open(&dir)?;
    match &args.action {
        None => list::run(&reader, &dir, &args.list, args.json),
        Some(SpoolCommand::List(list)) => list::run(&reader, &dir, list, args.json),
        Some(SpoolCommand::Show(show)) => show::run(&reader, show, args.json),
        Some(SpoolCommand::Export(export)) => export::run(&reader, export),
        Some(SpoolCommand::Requeue(requeue)) => {
            requeue::run(&requeue::SpoolLocation { config, dir: &dir }, reader, requeue, args.json).await
        }
    }
}

/// The spool's directory. `--dir` needs no configuration, so a volume can be inspected on any machine.
fn directory(config: &ConfigArgs, args: &Args) -> anyhow::Result<PathBuf> {
    match &args.dir {
        Some(dir) => Ok(dir.clone()),
        None => config
            .load_unread()?
            .config
            .spool
            .dir
            .context("no spool: [spool] dir is not set in the configuration; name a directory with --dir"),
    }
}

/// Calls `each` for at most `limit` rows and returns their number. Reads page by page: one long read transaction would
/// keep the service from truncating SQLite's write-ahead log.
fn each(
    reader: &SpoolReader,
    filter: &Filter,
    limit: usize,
    mut each: impl FnMut(RowSummary) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    const PAGE: usize = 500;
    let (mut after, mut seen) = (0, 0);
    while seen < limit {
        let rows = reader.list(filter, after, PAGE.min(limit - seen))?;
        let Some(last) = rows.last() else { break };
        (after, seen) = (last.id, seen + rows.len());
        for row in rows {
            each(row)?;
        }
    }
    Ok(seen)
}

/// A row with everything that is needed to publish it by hand.
#[derive(Serialize)]
struct RowJson<'a> {
    id: i64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    /// The row no longer contains what was written. The members below are absent then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    damaged: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    record: Option<RowContent<'a>>,
}

#[derive(Serialize)]
struct RowContent<'a> {
    topic: &'a str,
    key: &'a str,
    timestamp_ms: i64,
    received: String,
    headers: &'a [Header],
    value_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl<'a> RowJson<'a> {
    fn new(entry: &'a RowEntry, with_value: bool) -> Self {
        let record = entry.record.as_ref().map(|record| RowContent {
            topic: record.topic(),
            key: record.key(),
            timestamp_ms: record.timestamp_ms(),
            received: time(record.timestamp_ms()),
            headers: record.headers(),
            value_bytes: record.value().len(),
            value_base64: with_value.then(|| BASE64.encode(record.value())),
        });
        let (state, why) = (entry.state.label(), entry.why.as_deref());
        Self { id: entry.id, state, why, damaged: record.is_none(), record }
    }
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| time.to_string())
}

fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
