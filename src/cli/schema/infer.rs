//! `hookstream schema infer`

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::scan::{self, count, note};
use super::schema_files::{self, ServedSource};
use crate::cli::{ConfigArgs, ExitStatus, input, output};
use crate::config::LoadedConfig;
use crate::json::{self, Object};
use crate::names;
use crate::observe::log;
use crate::schema::drift::{self, LeftOut, NameBudget, ObservedShape};

const EXAMPLES: &str = "\
Examples:
  hookstream schema infer github push                          from records in Kafka
  hookstream schema infer github push push-1.json push-2.json  from bodies in files
  jq -c .body captured.json | hookstream schema infer github push -
  hookstream schema infer github push --write                  to schemas/github/push.avsc

The records are those of the type's topic (github.push), or of github.unmapped.
A file contains one or more bodies in sequence. If the source has `split`, each
body is one event. Text becomes `string`, times too: change a field to a timestamp
before you register the schema, since its type cannot be changed afterwards.

Exit codes: 0 success; 2 error.";

/// Make a first schema from samples
///
/// Reads bodies from files, or the events in the type's generic records, and prints a schema in which each of the
/// provider's fields is nullable. The docs of the fields are for you to write. Members whose type is unclear or differs
/// between samples get no field: they stay in additional_fields.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The source, by its name in the configuration
    source: String,
    /// The event type
    #[arg(value_name = "TYPE")]
    event_type: String,
    /// Files with JSON bodies, or `-` for standard input [default: the type's generic records]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only records since this time or since this long ago: 7days, 2026-11-22T02:00:00Z, 1795312800
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::since, conflicts_with = "files")]
    since: Option<Timestamp>,
    /// Write the schema to schemas/SOURCE/TYPE.avsc
    #[arg(long)]
    write: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The merged shape of the sample bodies.
#[derive(Default)]
struct InferSamples {
    shape: ObservedShape,
    budget: NameBudget,
    count: u64,
}

impl InferSamples {
    fn see(&mut self, body: &RawValue) {
        self.shape.see(body, &mut self.budget);
        self.count += 1;
    }
}

#[derive(Serialize)]
struct InferReport<'a> {
    samples: u64,
    file: String,
    written: bool,
    schema: &'a str,
    left_out: Vec<LeftOut>,
    times: Vec<String>,
}

pub(super) async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    let loaded = config.load_unread()?;
    let source = ServedSource::find(&loaded, &args.source)?;
    // A second schema for the topic would have another record name, which a registry refuses.
    if let Some(file) = source.files.iter().find(|file| file.types.contains(&args.event_type)) {
        anyhow::bail!(
            "{event_type} already has the schema {}: `hookstream schema drift {} {event_type}` adds fields to it",
            file.origin,
            source.name,
            event_type = args.event_type
        );
    }
    let mut samples = InferSamples::default();
    if args.files.is_empty() {
        records(&loaded, &source, args, &mut samples).await?;
    } else {
        args.files.iter().try_for_each(|file| bodies(file, &mut samples))?;
    }
    let event_type = &args.event_type;
    let inferred = drift::infer(samples.shape, &source.name, event_type, &source.places);
    let (text, left_out, times) = inferred.map_err(|why| {
        anyhow::anyhow!("cannot make a schema from {}: {why}", count(samples.count, "sample"))
    })?;
    let file = names::schema_files(event_type).next().context("the event type is empty")?;
    let path = source.path(&file);
    if args.write {
        let exists = format!("{} exists: `hookstream schema drift` adds fields to it", path.display());
        anyhow::ensure!(!path.exists(), exists);
        schema_files::write(&path, &text)?;
    }
    let file = path.display().to_string();
    if args.json {
        let report =
            InferReport { samples: samples.count, file, written: args.write, schema: &text, left_out, times };
        output::print_json(&report)?;
        return Ok(ExitStatus::Success);
    }
    if !args.write {
        output::print_line(&output::escape_lines(text.trim_end()))?;
    }
    note(&format!("made from {}", count(samples.count, "sample")))?;
    for left in left_out {
        note(&format!("no field for {}: {}", left.pointer, left.why))?;
    }
    for pointer in times {
        note(&format!(
            "{pointer} is an RFC 3339 time in each sample: change it to a timestamp-millis now, or leave it as text"
        ))?;
    }
    if source.generic.contains(event_type) {
        let subject = names::subject(&source.topic(event_type));
        note(&format!(
            "{subject} may already have the generic schema, which is not compatible with this one: the registry then \
             accepts it only after you delete that subject, and consumers must read both schemas"
        ))?;
    }
    note(&match args.write {
        true => format!("{file} is written: describe its fields, then run `hookstream check`"),
        false => format!("--write writes it to {file}"),
    })?;
    Ok(ExitStatus::Success)
}

/// The maximum size of a file of samples, which is read into memory.
const MAX_SAMPLES: u64 = 256 << 20;

/// Reads a sequence of bodies from a file.
fn bodies(file: &Path, samples: &mut InferSamples) -> anyhow::Result<()> {
    let shown = file.display();
    let bytes = input(file, MAX_SAMPLES).with_context(|| format!("cannot read {shown}"))?;
    let mut any = false;
    for body in serde_json::Deserializer::from_slice(&bytes).into_iter::<Box<RawValue>>() {
        // The message of serde_json may quote the body.
        let body = body.map_err(|error| anyhow::anyhow!("{shown}: invalid JSON at line {}", error.line()))?;
        let body = json::check(body.get().as_bytes()).map_err(|fault| anyhow::anyhow!("{shown}: {fault}"))?;
        samples.see(body);
        any = true;
    }
    anyhow::ensure!(any, "{shown} is empty");
    Ok(())
}

/// Reads the events in the type's generic records.
async fn records(
    loaded: &LoadedConfig,
    source: &ServedSource,
    args: &Args,
    samples: &mut InferSamples,
) -> anyhow::Result<()> {
    let event_type = &args.event_type;
    let own = source.generic.contains(event_type);
    if !own && !source.unmapped {
        source.file(event_type)?;
    }
    let topic = source.topic(if own { event_type } else { names::UNMAPPED });
    let tally = scan::topics(loaded, std::slice::from_ref(&topic), args.since, |seen| {
        let raw: Option<&RawValue> = serde_json::from_str(seen.json).ok();
        let Some(Ok(Some(record))) = raw.map(Object::open) else { return Ok(()) };
        let text = |name: &str| record.get(name).and_then(json::string);
        // In records of a typed schema, `data` is not text.
        if let (Some(found), Some(data)) = (text("type"), text("data"))
            && (own || found == event_type.as_str())
            && let Ok(body) = json::check(data.as_bytes())
        {
            samples.see(body);
        }
        Ok(())
    })
    .await?;
    let servers = &loaded.config.kafka.bootstrap_servers;
    anyhow::ensure!(tally.is_some(), "no topic {topic} at {servers}: give samples as files");
    anyhow::ensure!(samples.count > 0, "no record of {event_type} in {topic}: give samples as files");
    Ok(())
}
