//! `hookstream check`

mod online;
mod versions;

use std::collections::BTreeMap;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use serde::Serialize;

use super::output::{self, escape_controls, print_json};
use super::{ConfigArgs, ExitStatus};
use crate::app;
use crate::config::{ConfigErrors, LoadedConfig, Secret, SignatureKind, Unmapped, ValidityWindow};
use crate::observe::log;
use crate::schema::Schemas;
use crate::sources::{Route, Sources};

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
struct CheckReport {
    ok: bool,
    /// The file that was read.
    file: Option<String>,
    problems: Vec<String>,
    sources: Vec<CheckedSource>,
    /// Sources that are off, with the reason.
    off: BTreeMap<String, String>,
    warnings: Vec<String>,
    notes: Vec<String>,
    /// What --online found.
    parts: Vec<CheckedPart>,
}

/// Something outside that `serve` relies on.
#[derive(Serialize)]
struct CheckedPart {
    part: &'static str,
    state: CheckState,
    text: String,
    /// A line for each thing in it.
    details: Vec<String>,
    /// What to do.
    next: Vec<String>,
}

#[derive(Serialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum CheckState {
    Ok,
    No,
    /// `serve` runs, but one lost disk may lose a record.
    Degraded,
    Off,
}

impl CheckedPart {
    fn new(part: &'static str, state: CheckState, text: impl Into<String>) -> Self {
        Self { part, state, text: text.into(), details: Vec::new(), next: Vec::new() }
    }

    fn next(mut self, next: impl Into<String>) -> Self {
        self.next.push(next.into());
        self
    }
}

#[derive(Serialize)]
struct CheckedSource {
    name: String,
    /// Of the URL that the provider is to call.
    path: String,
    types: Vec<CheckedType>,
    /// The topic of all other event types.
    others: String,
    /// Whether those are generic records; else they are dead letters.
    others_generic: bool,
    dead_letters: String,
    /// Their names, in the order in which they are tried.
    secrets: Vec<String>,
    /// The same for people, each with what limits it.
    #[serde(skip)]
    shown: Vec<String>,
    /// Whether any delivery can be taken: some secret counts now.
    takes: bool,
    /// The request headers that the rules read although the signature does not cover them.
    unsigned_headers: Vec<String>,
}

#[derive(Serialize)]
struct CheckedType {
    #[serde(rename = "type")]
    name: String,
    topic: String,
    /// Whether it has no schema of its own.
    generic: bool,
    /// Where the record's key stands, if it is not the event id.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

/// Checks what was asked for.
///
/// # Errors
/// When the file that is named by `-c` cannot be read.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    let overrides = config.overrides();
    let mut loaded = match crate::config::load(&overrides, &crate::config::Environment::of_process()) {
        Ok(loaded) => loaded,
        // Nothing was checked.
        Err(problems) if problems.unread() => return Err(problems.into()),
        Err(problems) => return refused(args, &problems),
    };
    let app::Compiled { sources, schemas, ports, .. } = match app::compile_service(&loaded) {
        Ok(compiled) => compiled,
        Err(problems) => return refused(args, &problems),
    };
    loaded.warnings.extend(ports.warnings(Timestamp::now()));
    loaded.warnings.extend(costly(&loaded, &sources));
    let mut report = describe(&loaded, &sources, &schemas);
    versions::compare(&schemas, &mut report);
    if args.online {
        report.parts = online::look(&loaded, &sources, &schemas).await;
    }
    let well = |part: &CheckedPart| matches!(part.state, CheckState::Ok | CheckState::Off);
    report.ok = report.problems.is_empty() && report.parts.iter().all(well);
    if args.json {
        print_json(&report)?
    } else {
        show(&report)?
    }
    Ok(if report.ok { ExitStatus::Success } else { ExitStatus::Failure })
}

/// The problems in the words of `serve`, as the result that they are here.
fn refused(args: &Args, problems: &ConfigErrors) -> anyhow::Result<ExitStatus> {
    if args.json {
        print_json(&CheckReport { problems: problems.lines(), ..CheckReport::default() })?;
    } else {
        for line in problems.to_string().lines() {
            output::print_line(&escape_controls(line))?;
        }
    }
    Ok(ExitStatus::Failure)
}

fn describe(loaded: &LoadedConfig, sources: &Sources, schemas: &Schemas) -> CheckReport {
    let described: Vec<_> =
        loaded.config.source.keys().filter_map(|name| source(name, loaded, sources, schemas)).collect();
    let mut notes: Vec<_> = described.iter().filter_map(|source| uncovered(source, loaded)).collect();
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
    CheckReport {
        file: loaded.file.as_ref().map(|file| file.display().to_string()),
        problems: loaded.refusing.values().cloned().collect(),
        sources: described,
        off: loaded.off.clone(),
        warnings: loaded.warnings.clone(),
        notes,
        ..CheckReport::default()
    }
}

/// Bytes that one core hashes in a millisecond: SHA-256 by a processor that has instructions for it, but is not fast.
const HASHED: u64 = 700_000;

/// From so many milliseconds on a forged body is worth a word.
const COSTLY: u64 = 100;

/// What the worst body of somebody without a secret costs, where that is a lot.
fn costly(loaded: &LoadedConfig, sources: &Sources) -> Vec<String> {
    let max_body = loaded.config.http.max_body;
    let warning = |name: &String| {
        let secrets = loaded.secrets.get(name)?.len();
        let ms = sources.get(name)?.verifier.cost(max_body).all / HASHED;
        // No more digits than are known.
        let (ms, kib) = (ms / 10 * 10, max_body / 1024);
        (ms >= COSTLY).then(|| {
            format!(
                "source {name}: a forged body of {kib} KiB costs about {ms} ms of one core with its {secrets} secrets; \
                 take away those that nobody uses, give tenants sources of their own, or lower http.max_body"
            )
        })
    };
    loaded.config.source.keys().filter_map(warning).collect()
}

/// What somebody with a captured delivery can change, where that is not nothing.
fn uncovered(source: &CheckedSource, loaded: &LoadedConfig) -> Option<String> {
    let name = &source.name;
    if loaded.config.source.get(name)?.signature.kind == SignatureKind::Token {
        return Some(format!(
            "source {name}: a token signs nothing: who has it can send anything (docs/security.md)"
        ));
    }
    let (last, others) = source.unsigned_headers.split_last()?;
    let (headers, are) = match others {
        [] => (last.clone(), "is"),
        others => (format!("{} and {last}", others.join(", ")), "are"),
    };
    Some(format!("source {name}: {headers} {are} not covered by the signature (docs/security.md)"))
}

fn source(name: &str, loaded: &LoadedConfig, sources: &Sources, schemas: &Schemas) -> Option<CheckedSource> {
    let source = sources.get(name)?;
    let keys = &loaded.config.source.get(name)?.envelope.keys;
    let event_type = |(event, route): (&str, &Route)| CheckedType {
        name: event.to_owned(),
        topic: route.topic.to_string(),
        generic: schemas.is_generic(name, event),
        key: keys.get(event).map(ToString::to_string),
    };
    let mut types: Vec<CheckedType> = source.types().map(event_type).collect();
    types.sort_by(|a, b| a.topic.cmp(&b.topic));
    let secrets = loaded.secrets.get(name).into_iter().flatten();
    Some(CheckedSource {
        name: name.to_owned(),
        path: format!("/hooks/{name}"),
        types,
        others: source.topic_of_others().to_owned(),
        others_generic: loaded.config.source.get(name)?.unmapped == Unmapped::Generic,
        dead_letters: source.dead_letter_topic.to_string(),
        secrets: secrets.clone().map(|secret| secret.name.to_string()).collect(),
        shown: secrets.map(shown).collect(),
        takes: !loaded.refusing.contains_key(name),
        unsigned_headers: source.envelope.unsigned_headers().to_vec(),
    })
}

/// A secret's name, and in brackets what keeps it from signing everything.
fn shown(secret: &Secret) -> String {
    let now = Timestamp::now();
    let time = match secret.window {
        window if window.contains(now) => None,
        ValidityWindow { not_before: Some(from), .. } if now < from => Some("not yet".to_owned()),
        ValidityWindow { .. } => Some("expired".to_owned()),
    };
    let binds = secret.binds.as_deref().map(|binds| format!("{} = \"{}\"", binds.pointer, binds.equals));
    let limits: Vec<_> = time.into_iter().chain(binds).collect();
    if limits.is_empty() {
        secret.name.to_string()
    } else {
        format!("{} ({})", secret.name, limits.join(", "))
    }
}

const OK: Style = AnsiColor::Green.on_default();
const NO: Style = AnsiColor::Red.on_default();
const MIND: Style = AnsiColor::Yellow.on_default();

fn show(report: &CheckReport) -> anyhow::Result<()> {
    let words =
        report.sources.iter().map(|source| source.name.len()).chain(report.off.keys().map(String::len));
    let width = words.max().unwrap_or_default();
    for source in &report.sources {
        show_source(source, width)?;
    }
    for (name, why) in &report.off {
        line(MIND, "off", &format!("{name:<width$}  {why}"))?;
    }
    report.problems.iter().try_for_each(|text| line(NO, "NO", text))?;
    report.warnings.iter().try_for_each(|text| line(MIND, "warn", text))?;
    report.notes.iter().try_for_each(|text| line(Style::new(), "note", text))?;
    report.parts.iter().try_for_each(show_part)
}

fn show_source(source: &CheckedSource, width: usize) -> anyhow::Result<()> {
    let CheckedSource { name, path, types, others, others_generic, shown, takes, .. } = source;
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let generic = types.iter().filter(|event| event.generic).count();
    let how = match generic {
        0 => "",
        all if all == types.len() => " on the generic record",
        _ => ", some on the generic record",
    };
    let types_text = match types.len() {
        0 => String::from("no types of its own"),
        count => format!("{count} type{}{how}", plural(count)),
    };
    let text = format!("{name:<width$}  {path}, {types_text}, secrets: {}", shown.join(", "));
    let (style, word) = if *takes { (OK, "ok") } else { (NO, "NO") };
    line(style, word, &text)?;

    let all = if types.is_empty() { "all types" } else { "all others" };
    let rows = types.iter().map(|event| (&*event.name, &*event.topic, event.generic, event.key.as_deref()));
    let rows = rows.chain([(all, others.as_str(), *others_generic, None)]);
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or_default();
    let column = longest(&mut rows.clone().map(|(event, ..)| event.len()));
    let topics = longest(&mut rows.clone().map(|(_, topic, ..)| topic.len()));
    for (event, topic, generic, key) in rows {
        let record = generic.then(|| String::from("generic record"));
        let said = record.into_iter().chain(key.map(|key| format!("keyed by {key}")));
        let said = said.collect::<Vec<_>>().join(", ");
        let text = format!("{:width$}  {event:<column$}  -> {topic:<topics$}  {said}", "");
        line(Style::new(), "", text.trim_end())?;
    }
    Ok(())
}

fn show_part(part: &CheckedPart) -> anyhow::Result<()> {
    let (style, word) = match part.state {
        CheckState::Ok => (OK, "ok"),
        CheckState::No => (NO, "NO"),
        CheckState::Degraded => (MIND, "weak"),
        CheckState::Off => (MIND, "off"),
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
