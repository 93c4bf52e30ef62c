//! `hookstream check`

mod online;

use std::collections::BTreeMap;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::output::{self, escape_controls, print_json};
use super::{ConfigArgs, Verdict};
use crate::app;
use crate::config::{Loaded, Problems};
use crate::observe::log;
use crate::sources::Sources;

const EXAMPLES: &str = "\
Examples:
  hookstream check                     configuration, presets, schemas and secrets
  hookstream check -c new.toml --json | jq .problems
  hookstream check --online            brokers, topics, registry and the spool's directory, too

With --online each part is waited for a few seconds, and nothing is created or changed.

Exit codes: 0 all is well; 1 something is not; 2 it could not be checked.";

/// Tell all that is wrong with the configuration, and what it leads to
///
/// Reads the configuration with its presets, schemas and secrets as `serve` does; asks nobody without
/// --online.
/// Shown are the sources with their URL paths, event types and topics.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Also look at brokers, topics, registry and the spool's directory
    #[arg(long)]
    online: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Everything that is told.
#[derive(Serialize, Default)]
struct Report {
    ok: bool,
    /// The file that was read.
    file: Option<String>,
    problems: Vec<String>,
    sources: Vec<Source>,
    /// Sources that are off, with the reason.
    off: BTreeMap<String, String>,
    warnings: Vec<String>,
    notes: Vec<String>,
    /// What --online found.
    parts: Vec<Part>,
}

/// Something outside that `serve` relies on.
#[derive(Serialize)]
struct Part {
    part: &'static str,
    state: State,
    text: String,
    /// A line for each thing in it.
    details: Vec<String>,
    /// What to do.
    next: Vec<String>,
}

#[derive(Serialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    No,
    /// `serve` runs, but one lost disk may lose a record.
    Degraded,
    Off,
}

impl Part {
    fn new(part: &'static str, state: State, text: impl Into<String>) -> Self {
        Self { part, state, text: text.into(), details: Vec::new(), next: Vec::new() }
    }

    fn next(mut self, next: impl Into<String>) -> Self {
        self.next.push(next.into());
        self
    }
}

#[derive(Serialize)]
struct Source {
    name: String,
    /// Of the URL that the provider is to call.
    path: String,
    types: Vec<Type>,
    /// The topic of all other event types.
    others: String,
    dead_letters: String,
    /// Their names, in the order in which they are tried.
    secrets: Vec<String>,
}

#[derive(Serialize)]
struct Type {
    #[serde(rename = "type")]
    name: String,
    topic: String,
    /// Where the record's key stands, if it is not the event id.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

/// Checks what was asked for.
///
/// # Errors
/// When the file that is named by `-c` cannot be read.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<Verdict> {
    log::init(log::QUIET);
    let overrides = config.overrides();
    let loaded = match crate::config::load(&overrides, &crate::config::Environment::of_process()) {
        Ok(loaded) => loaded,
        // Nothing was checked.
        Err(problems) if overrides.file.is_some_and(|file| std::fs::File::open(file).is_err()) => {
            return Err(problems.into());
        }
        Err(problems) => return refused(args, &problems),
    };
    let (sources, schemas) = match app::compile(&loaded) {
        Ok(compiled) => compiled,
        Err(problems) => return refused(args, &problems),
    };
    let mut report = Report { ok: true, ..describe(&loaded, &sources) };
    if args.online {
        report.parts = online::look(&loaded, &sources, &schemas).await;
        report.ok = report.parts.iter().all(|part| matches!(part.state, State::Ok | State::Off));
    }
    if args.json {
        print_json(&report)?
    } else {
        show(&report)?
    }
    Ok(if report.ok { Verdict::Yes } else { Verdict::No })
}

/// The problems in the words of `serve`, as the result that they are here.
fn refused(args: &Args, problems: &Problems) -> anyhow::Result<Verdict> {
    if args.json {
        print_json(&Report { problems: problems.lines(), ..Report::default() })?;
    } else {
        for line in problems.to_string().lines() {
            output::print_line(&escape_controls(line))?;
        }
    }
    Ok(Verdict::No)
}

fn describe(loaded: &Loaded, sources: &Sources) -> Report {
    let mut notes = Vec::new();
    if loaded.file.is_none() {
        notes.push(
            "there is no configuration file: built-in defaults, the environment and -X alone".to_owned(),
        );
    }
    if loaded.config.spool.dir.is_none() {
        notes.push(
            "no spool ([spool] dir is not set): while Kafka is out, deliveries are answered 503".to_owned(),
        );
    }
    if !loaded.config.provision.on_start {
        notes.push(
            "[provision] on_start is false: `serve` creates no topics and registers no schemas".to_owned(),
        );
    }
    Report {
        file: loaded.file.as_ref().map(|file| file.display().to_string()),
        sources: loaded.config.source.keys().filter_map(|name| source(name, loaded, sources)).collect(),
        off: loaded.off.clone(),
        warnings: loaded.warnings.clone(),
        notes,
        ..Report::default()
    }
}

fn source(name: &str, loaded: &Loaded, sources: &Sources) -> Option<Source> {
    let source = sources.get(name)?;
    let types = source.types();
    let keys = &loaded.config.source.get(name)?.envelope.keys;
    let types = types.map(|(name, route)| Type {
        name: name.to_owned(),
        topic: route.topic.to_string(),
        key: keys.get(name).map(ToString::to_string),
    });
    let mut types: Vec<Type> = types.collect();
    types.sort_by(|a, b| a.topic.cmp(&b.topic));
    let secrets = loaded.secrets.get(name).into_iter().flatten();
    Some(Source {
        name: name.to_owned(),
        path: format!("/hooks/{name}"),
        types,
        others: source.topic_of_others().to_owned(),
        dead_letters: source.dead_letter_topic.to_string(),
        secrets: secrets.map(|secret| secret.name.to_string()).collect(),
    })
}

const OK: Style = AnsiColor::Green.on_default();
const NO: Style = AnsiColor::Red.on_default();
const MIND: Style = AnsiColor::Yellow.on_default();

fn show(report: &Report) -> anyhow::Result<()> {
    let words =
        report.sources.iter().map(|source| source.name.len()).chain(report.off.keys().map(String::len));
    let width = words.max().unwrap_or_default();
    for source in &report.sources {
        let Source { name, path, types, others, secrets, .. } = source;
        let (count, secrets) = (types.len(), secrets.join(", "));
        let plural = if count == 1 { "" } else { "s" };
        let text = format!("{name:<width$}  {path}, {count} type{plural}, secrets: {secrets}");
        line(OK, "ok", &text)?;
        let column = types.iter().map(|event| event.name.len()).max().unwrap_or_default();
        let other = ("all others", others.clone());
        let shown = |event: &Type| match &event.key {
            Some(key) => format!("{}, keyed by {key}", event.topic),
            None => event.topic.clone(),
        };
        for (event, topic) in types.iter().map(|event| (&*event.name, shown(event))).chain([other]) {
            line(Style::new(), "", &format!("{:width$}  {event:<column$}  -> {topic}", ""))?;
        }
    }
    for (name, why) in &report.off {
        line(MIND, "off", &format!("{name:<width$}  {why}"))?;
    }
    report.warnings.iter().try_for_each(|text| line(MIND, "warn", text))?;
    report.notes.iter().try_for_each(|text| line(Style::new(), "note", text))?;
    report.parts.iter().try_for_each(show_part)
}

fn show_part(part: &Part) -> anyhow::Result<()> {
    let (style, word) = match part.state {
        State::Ok => (OK, "ok"),
        State::No => (NO, "NO"),
        State::Degraded => (MIND, "weak"),
        State::Off => (MIND, "off"),
    };
    let text = escape_controls(&part.text);
    output::print_line(&format!("{:<11} {style}{word:<4}{style:#} {text}", part.part))?;
    let next = part.next.iter().map(|next| format!("next: {next}"));
    next.chain(part.details.iter().cloned())
        .try_for_each(|text| Ok(output::print_line(&format!("{:<16} {}", "", escape_controls(&text)))?))
}

/// A line with its word before it.
fn line(style: Style, word: &str, text: &str) -> anyhow::Result<()> {
    let text = format!("{style}{word:<5}{style:#} {}", escape_controls(text));
    Ok(output::print_line(text.trim_end())?)
}
