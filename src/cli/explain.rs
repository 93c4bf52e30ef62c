//! `hookstream explain`

mod answer;
mod show;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde::Serialize;

use answer::ServiceAnswer;

use super::capture::{self, Capture};
use super::output::print_json;
use super::{ConfigArgs, ExitStatus};
use crate::app;
use crate::config::LoadedConfig;
use crate::decide::{Decided, Decision, EncodedRecords, decide};
use crate::delivery::{Delivery, DeliveryId};
use crate::observe::log;
use crate::outcome::{Fault, Outcome};
use crate::record::Record;
use crate::schema::IdState;
use crate::sources::{Source, Sources};
use crate::verify::explain::Diagnosis;

const EXAMPLES: &str = "\
Examples:
  hookstream explain datagrid request.txt            a raw HTTP request: request line, headers, body
  hookstream explain datagrid - < request.txt        the same from standard input
  hookstream explain github hooks.har --entry 3      the third entry of a HAR file
  hookstream explain grapevine --header 'X-Grapevine-Signature: sha256=...' --body body.json
  hookstream explain stripe request.txt --at 2026-11-24T02:41:03Z --json

The output has names, counts, lengths and times; never a secret, a signature or
a body. Nothing is sent anywhere, neither to Kafka nor to the registry.

Exit codes: 0 the service accepts the request; 1 it does not; 2 error.";

/// Explain why a captured delivery is refused, or what it becomes
///
/// Checks a captured request as `serve` does: its path, method and size, then its signature by the source's rules and
/// secrets. Shows each step, and the cause of a refusal where one is found. A secret that was removed from the
/// configuration is known only to the service that had it: see its log or /status.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The source, by its name in the configuration
    source: String,
    /// The captured request: a raw HTTP dump or a HAR file; - for standard input
    #[arg(required_unless_present = "body", conflicts_with_all = ["header", "body"])]
    file: Option<PathBuf>,
    /// The entry of the HAR file, counted from 1
    #[arg(long, value_name = "N", requires = "file")]
    entry: Option<usize>,
    /// A header of the request; may be repeated
    #[arg(long, value_name = "NAME: VALUE", requires = "body")]
    header: Vec<String>,
    /// The request's body, byte for byte; - for standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// When it was received, such as 2026-11-24T02:41:03Z [default: the HAR entry's time, else now]
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct ExplainReport {
    source: String,
    request: RequestJson,
    /// How the capture was read, and what it does not show.
    notes: Vec<String>,
    /// What the service answers.
    answer: ServiceAnswer,
    /// The examination of the signature.
    #[serde(flatten)]
    diagnosis: Diagnosis,
    /// What an accepted delivery becomes.
    #[serde(skip_serializing_if = "Option::is_none")]
    becomes: Option<DecisionJson>,
    /// What it would become, if the service refuses the request for something else than its signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    otherwise: Option<DecisionJson>,
}

#[derive(Serialize)]
struct RequestJson {
    method: String,
    path: String,
    headers: usize,
    body_bytes: usize,
    received_at: String,
    /// `--at`, `har` or `now`.
    received_at_from: &'static str,
}

/// What the delivery becomes if Kafka and the registry are available.
#[derive(Serialize, Default)]
struct DecisionJson {
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The number of records, if the delivery was split into several.
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<usize>,
    /// Fields that the signature does not cover.
    unsigned: Vec<String>,
}

/// Explains one captured request.
///
/// # Errors
/// Problems of the configuration, an unknown source, a capture that cannot be read.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    let loaded = config.load()?;
    let sources = compile(&loaded)?;
    // Only Kafka knows whether a topic compacts.
    sources.uncompacted().values().for_each(|state| _ = state.record(Some(false)));
    let source = sources.get(&args.source).with_context(|| missing(&args.source, &loaded))?;
    let capture = match (&args.file, &args.body) {
        (Some(file), _) => Capture::parse(&capture::read(file)?, args.entry)?,
        (None, Some(body)) => Capture::of_parts(&args.source, &args.header, capture::read(body)?)?,
        (None, None) => {
            bail!("give the captured request: a file, - for standard input, or --header and --body")
        }
    };
    let (received_at, received_at_from) = match (args.at, capture.at) {
        (Some(at), _) => (at, "--at"),
        (None, Some(at)) => (at, "har"),
        (None, None) => (Timestamp::now(), "now"),
    };
    let Capture { method, uri, headers, body, mut notes, .. } = capture;
    notes.extend((!source.admits(None)).then(|| {
        "the source allows some addresses only, and a capture does not show its client's: `allow` is not checked".to_owned()
    }));
    let request = RequestJson {
        method,
        path: uri.path().to_owned(),
        headers: headers.len(),
        body_bytes: body.len(),
        received_at: received_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        received_at_from,
    };
    let mut delivery = Delivery { id: DeliveryId::new(), uri, headers, body, received_at };
    if source.verifies_decoded(&delivery) {
        match delivery.clone().into_decoded(source.max_body()) {
            Ok(decoded) => delivery = decoded,
            Err(fault) => notes.push(refused_before(&fault)),
        }
    }
    let diagnosis = source.explain(&delivery, &sources, &loaded.secrets);
    let method = request.method.parse().context("the method of the request is invalid")?;
    let (answer, is_of_source) = answer::of(&sources, source, &loaded.config.http, &method, &delivery);
    let becomes = becomes(source, &delivery);
    let (becomes, otherwise) = if is_of_source { (becomes, None) } else { (None, becomes) };
    let report =
        ExplainReport { source: args.source.clone(), request, notes, answer, diagnosis, becomes, otherwise };
    if args.json {
        print_json(&report)?;
    } else {
        show::report(&report)?;
    }
    Ok(if report.answer.accepts() { ExitStatus::Success } else { ExitStatus::Failure })
}

/// The sources as if the registry had given each schema an id. The value of the id does not matter here.
pub(super) fn compile(loaded: &LoadedConfig) -> anyhow::Result<Sources> {
    let (_, mut schemas) = app::compile(loaded)?;
    let subjects: Vec<String> = schemas.iter().map(|schema| schema.subject.clone()).collect();
    subjects.iter().for_each(|subject| schemas.set(subject, IdState::Confirmed(0)));
    Ok(Sources::compile(loaded, &schemas, None)?)
}

pub(super) fn missing(name: &str, loaded: &LoadedConfig) -> String {
    if let Some(why) = loaded.off.get(name) {
        return format!("the source {name} is off: {why}; set its secret here, too");
    }
    let known: Vec<_> = loaded.config.source.keys().chain(loaded.off.keys()).map(String::as_str).collect();
    format!("there is no source `{name}`; there are: {}", known.join(", "))
}

fn refused_before(fault: &Fault) -> String {
    let status = fault.reason.info().status.as_u16();
    let detail = fault.detail.as_deref().unwrap_or(fault.reason.info().text);
    format!("the body's Content-Encoding: {detail}: answered {status} before any signature")
}

/// The decision of [`decide`]. `None` if the delivery is refused.
fn becomes(source: &Source, delivery: &Delivery) -> Option<DecisionJson> {
    let (verified, stale) = source.authenticate(delivery).ok()?;
    let Decided { event, decision, .. } = decide(source, &verified, stale, || Ok(()));
    let event_type = event.map(|event| event.event_type);
    Some(match decision {
        Decision::Handled { why, .. } => DecisionJson::from(&why),
        Decision::Publish(EncodedRecords { topic, records, .. }) => {
            let first = records.first();
            let unsigned = first.and_then(Record::unsigned).unwrap_or_default();
            DecisionJson {
                outcome: Outcome::Published.label(),
                event_type,
                topic: Some(topic.to_string()),
                key: first.map(|record| record.key().to_owned()),
                records: (records.len() > 1).then_some(records.len()),
                unsigned: unsigned.split_terminator(',').map(|field| field.trim().to_owned()).collect(),
                ..DecisionJson::default()
            }
        }
        Decision::DeadLetter { why, .. } => DecisionJson {
            event_type,
            topic: Some(source.dead_letter_topic.to_string()),
            key: Some(source.envelope.key(&verified)),
            ..DecisionJson::from(&why)
        },
        Decision::Unavailable(why) => DecisionJson { event_type, ..DecisionJson::from(&why) },
    })
}

impl From<&Fault> for DecisionJson {
    fn from(why: &Fault) -> Self {
        let row = why.reason.info();
        Self {
            outcome: row.outcome.label(),
            reason: Some(row.label),
            detail: why.detail.as_deref().map(str::to_owned),
            ..Self::default()
        }
    }
}
