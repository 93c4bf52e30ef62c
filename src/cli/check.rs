//! `hookstream check`

mod online;
mod sample_delivery;
mod versions;

use std::collections::BTreeMap;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use serde::Serialize;

use super::output::{self, escape_controls, print_json};
use super::{ConfigArgs, ExitStatus};
use crate::app;
use crate::config::{self, ConfigErrors, LoadedConfig, Secret, Unmapped, ValidityWindow};
use crate::observe::log;
use crate::schema::Schemas;
use crate::sources::{Route, Sources};

const EXAMPLES: &str = "\
Examples:
  hookstream check                              configuration, presets, schemas and secrets
  hookstream check -c new.toml --json | jq .problems
  hookstream check --online                     also brokers, topics, schema registry and spool

--online waits a few seconds for each of them. Nothing is created or changed.

Exit codes: 0 no problems; 1 problems found; 2 the configuration could not be read.";

/// Validate the configuration and show the resulting sources and topics
///
/// Reads the configuration with its presets, schemas and secrets as `serve` does, and reports all problems at once. Signs
/// a sample by each source's rules, and verifies it. Shows the URL path, event types, topics and secret names of each
/// source. Connects to nothing without --online.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Also check the brokers, topics, schema registry and spool directory
    #[arg(long)]
    online: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The complete report, as --json prints it.
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
    /// The results of --online.
    parts: Vec<CheckedPart>,
}

/// A dependency of `serve`, such as the brokers or the registry.
#[derive(Serialize)]
struct CheckedPart {
    part: &'static str,
    state: CheckState,
    text: String,
    /// One line for each item, such as a topic or a subject.
    details: Vec<String>,
    /// What the operator can do about it.
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
    /// The path of the URL that the provider posts to.
    path: String,
    types: Vec<CheckedType>,
    /// The topic of all other event types.
    others: String,
    /// Whether other event types are published as generic records; else they are dead letters.
    others_generic: bool,
    dead_letters: String,
    /// The names of the secrets, in the order in which they are tried.
    secrets: Vec<String>,
    /// The same for the text output, each with its limits.
    #[serde(skip)]
    shown: Vec<String>,
    /// Whether any delivery can be accepted: at least one secret is valid now.
    takes: bool,
    /// The request headers that the rules read although the signature does not cover them.
    unsigned_headers: Vec<String>,
}

#[derive(Serialize)]
struct CheckedType {
    #[serde(rename = "type")]
    name: String,
    topic: String,
    /// Whether it is published as a generic record because it has no schema of its own.
    generic: bool,
    /// The pointer to the record's key, if the key is not the event id.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

/// Validates the configuration, with --online also its dependencies, and prints the report.
///
/// # Errors
/// The configuration file cannot be read.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    let overrides = config.overrides();
    let mut loaded = match crate::config::load(&overrides, &crate::config::Environment::from_process()) {
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
    report.problems.extend(sample_delivery::problems(&loaded, &sources));
    versions::compare(&schemas, &mut report);
    if args.online {
        report.parts = online::check(&loaded, &sources, &schemas).await;
    }
    let healthy = |part: &CheckedPart| matches!(part.state, CheckState::Ok | CheckState::Off);
    report.ok = report.problems.is_empty() && report.parts.iter().all(healthy);
    if args.json {
        print_json(&report)?
    } else {
        show(&report)?
    }
    Ok(if report.ok { ExitStatus::Success } else { ExitStatus::Failure })
}

/// Prints the problems as `serve` reports them. Here they are a result, not an error.
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
            "no configuration file: only built-in defaults, environment variables and -X apply".to_owned(),
        );
    }
    if loaded.config.spool.dir.is_none() {
        notes.push(
            "no spool ([spool] dir is not set): while Kafka is unavailable, deliveries are answered 503"
                .to_owned(),
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

/// Bytes that one core hashes per millisecond with SHA-256, on a slow processor that has instructions for it.
const HASHED: u64 = 700_000;

/// A forged body that costs at least this many milliseconds is worth a warning.
const COSTLY: u64 = 100;

/// Warnings about sources for which a forged body of the maximum size costs a lot of CPU time.
fn costly(loaded: &LoadedConfig, sources: &Sources) -> Vec<String> {
    let max_body = loaded.config.http.max_body;
    let warning = |name: &String| {
        let secrets = loaded.secrets.get(name)?.len();
        let ms = sources.get(name)?.verifier.cost(max_body).all / HASHED;
        // Rounded: the estimate is not more exact than this.
        let (ms, kib) = (ms / 10 * 10, max_body / 1024);
        (ms >= COSTLY).then(|| {
            format!(
                "source {name}: a forged body of {kib} KiB costs about {ms} ms of one core with its {secrets} secrets; \
                 remove unused secrets, configure a source per tenant, or lower http.max_body"
            )
        })
    };
    loaded.config.source.keys().filter_map(warning).collect()
}

/// A note on the parts of a captured delivery that an attacker can change without the secret.
fn uncovered(source: &CheckedSource, loaded: &LoadedConfig) -> Option<String> {
    let name = &source.name;
    let secrets = loaded.secrets.get(name).map(Vec::as_slice).unwrap_or_default();
    let has_token = |(index, scheme): (usize, &config::Signature)| {
        scheme.kind.is_token() && secrets.iter().any(|secret| secret.key(index).is_some())
    };
    if loaded.config.source.get(name)?.signature.iter().enumerate().any(has_token) {
        return Some(format!(
            "source {name}: a token signs nothing: anyone who has it can send anything (docs/security.md)"
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

/// A secret's name, followed by its limits in brackets.
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
const BAD: Style = AnsiColor::Red.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();

fn show(report: &CheckReport) -> anyhow::Result<()> {
    let words =
        report.sources.iter().map(|source| source.name.len()).chain(report.off.keys().map(String::len));
    let width = words.max().unwrap_or_default();
    for source in &report.sources {
        show_source(source, width)?;
    }
    for (name, why) in &report.off {
        line(WARN, "off", &format!("{name:<width$}  {why}"))?;
    }
    report.problems.iter().try_for_each(|text| line(BAD, "NO", text))?;
    report.warnings.iter().try_for_each(|text| line(WARN, "warn", text))?;
    report.notes.iter().try_for_each(|text| line(Style::new(), "note", text))?;
    report.parts.iter().try_for_each(show_part)
}

fn show_source(source: &CheckedSource, width: usize) -> anyhow::Result<()> {
    let CheckedSource { name, path, types, others, others_generic, shown, takes, .. } = source;
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let generic = types.iter().filter(|event| event.generic).count();
    let kind = match generic {
        0 => "",
        all if all == types.len() => " on the generic record",
        _ => ", some on the generic record",
    };
    let types_text = match types.len() {
        0 => String::from("no configured types"),
        count => format!("{count} type{}{kind}", plural(count)),
    };
    let text = format!("{name:<width$}  {path}, {types_text}, secrets: {}", shown.join(", "));
    let (style, word) = if *takes { (OK, "ok") } else { (BAD, "NO") };
    line(style, word, &text)?;

    let all = if types.is_empty() { "all types" } else { "all others" };
    let rows = types.iter().map(|event| (&*event.name, &*event.topic, event.generic, event.key.as_deref()));
    let rows = rows.chain([(all, others.as_str(), *others_generic, None)]);
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or_default();
    let column = longest(&mut rows.clone().map(|(event, ..)| event.len()));
    let topics = longest(&mut rows.clone().map(|(_, topic, ..)| topic.len()));
    for (event, topic, generic, key) in rows {
        let record = generic.then(|| String::from("generic record"));
        let remarks = record.into_iter().chain(key.map(|key| format!("keyed by {key}")));
        let remarks = remarks.collect::<Vec<_>>().join(", ");
        let text = format!("{:width$}  {event:<column$}  -> {topic:<topics$}  {remarks}", "");
        line(Style::new(), "", text.trim_end())?;
    }
    Ok(())
}

fn show_part(part: &CheckedPart) -> anyhow::Result<()> {
    let (style, word) = match part.state {
        CheckState::Ok => (OK, "ok"),
        CheckState::No => (BAD, "NO"),
        CheckState::Degraded => (WARN, "weak"),
        CheckState::Off => (WARN, "off"),
    };
    let text = escape_controls(&part.text);
    output::print_line(&format!("{:<11} {style}{word:<4}{style:#} {text}", part.part))?;
    let next = part.next.iter().map(|next| format!("next: {next}"));
    next.chain(part.details.iter().cloned())
        .try_for_each(|text| Ok(output::print_line(&format!("{:<16} {}", "", escape_controls(&text)))?))
}

/// Prints a line after its label.
fn line(style: Style, word: &str, text: &str) -> anyhow::Result<()> {
    let text = format!("{style}{word:<5}{style:#} {}", escape_controls(text));
    Ok(output::print_line(text.trim_end())?)
}
