//! `hookstream schema drift`

use std::collections::BTreeMap;

use anyhow::Context as _;
use jiff::Timestamp;

use super::proposal;
use super::scan::{self, count, note};
use super::schema_files::{self, File, ServedSource};
use super::show::{self, DriftReport, SchemaChange};
use crate::cli::{ConfigArgs, ExitStatus, output};
use crate::files;
use crate::observe::log;
use crate::schema::drift::Observer;

const EXAMPLES: &str = "\
Examples:
  hookstream schema drift datagrid                              fields that no schema covers
  hookstream schema drift datagrid --since 7days --json
  hookstream schema drift datagrid batch_prediction.completed   the new version, as a diff
  hookstream schema drift datagrid batch_prediction.completed --write

Reads the source's topics from Kafka and joins no consumer group. Shows names
and types, never values. Members with several or unclear types get no field:
the type of a field cannot be changed once it is registered.

Exit codes: 0 success; 2 error.";

/// Show received fields that no schema covers, and write the schema that covers them
///
/// With a TYPE, shows a compatible new version of the type's schema, made from the records of all types that share the
/// schema. Writes it only with --write.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The source, by its name in the configuration
    source: String,
    /// The event type whose schema gets the fields
    #[arg(value_name = "TYPE")]
    event_type: Option<String>,
    /// Only records since this time or since this long ago: 7days, 2026-11-22T02:00:00Z, 1795312800
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::since)]
    since: Option<Timestamp>,
    /// Write the new version; for a built-in schema, to a new file below schemas/
    #[arg(long, requires = "event_type")]
    write: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    let loaded = config.load_unread()?;
    let source = ServedSource::find(&loaded, &args.source)?;
    let files: Vec<&File> = match &args.event_type {
        Some(event_type) => vec![source.file(event_type)?],
        None => source.files.iter().collect(),
    };
    let mut observers = BTreeMap::new();
    for (file, event_type) in files.iter().flat_map(|file| file.types.iter().map(move |one| (*file, one))) {
        let observer =
            Observer::new(&file.schema, &source.places).context("the schema uses an undefined name")?;
        observers.insert(source.topic(event_type), (event_type.as_str(), observer));
    }
    let topics: Vec<String> = observers.keys().cloned().collect();
    let tally = scan::topics(&loaded, &topics, args.since, |seen| {
        if let Some((_, observer)) = observers.get_mut(seen.topic) {
            observer.observe(seen.schema.id, &seen.schema.parsed, seen.json, seen.time);
        }
        Ok(())
    })
    .await?;
    let tables: Vec<_> =
        observers.iter().map(|(topic, (name, observer))| (*name, topic.as_str(), observer.table())).collect();
    let mut report = DriftReport::new(&source, &tables);
    report.unreadable = tally.as_ref().map(|tally| tally.unreadable.clone()).unwrap_or_default();
    if let (Some(_), Some(file)) = (&args.event_type, files.first()) {
        let rows = tables.iter().flat_map(|(_, _, table)| table.rows());
        let proposed = proposal::make(&source, file, rows)?;
        let changed = proposed.text != file.text;
        if changed && args.write {
            // Reading the topics may have taken minutes.
            unchanged(&source, file)?;
            schema_files::write(&proposed.path, &proposed.text)?;
        }
        report.schema = Some(SchemaChange::new(file, proposed, changed && args.write));
    }
    if args.json {
        output::print_json(&report)?;
        return Ok(ExitStatus::Success);
    }
    match tally.map(|tally| tally.records) {
        None if topics.is_empty() => note(&format!(
            "no event type of {} has its own schema: `hookstream schema infer` makes one from records",
            source.name
        ))?,
        None => note(&format!(
            "none of the topics of {} exists at {}: `hookstream serve` creates them",
            source.name, loaded.config.kafka.bootstrap_servers
        ))?,
        Some(0) => note(&format!("no records in {}", count(show::length(&topics), "topic")))?,
        Some(_) => show::report(&report)?,
    }
    Ok(ExitStatus::Success)
}

fn unchanged(source: &ServedSource, file: &File) -> anyhow::Result<()> {
    let path = file.path(source);
    let now = files::read_text(&path, files::MAX_TEXT).ok();
    let is_unchanged = match &file.origin {
        crate::schema::shipped::SchemaOrigin::File(_) => now.as_deref() == Some(&file.text),
        crate::schema::shipped::SchemaOrigin::BuiltIn { .. } => now.is_none(),
    };
    anyhow::ensure!(
        is_unchanged,
        "{} was changed meanwhile: nothing was written; run the command again",
        path.display()
    );
    Ok(())
}
