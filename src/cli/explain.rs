//! `hookstream explain`

mod show;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use http::Uri;
use jiff::Timestamp;
use serde::Serialize;

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

Exit codes: 0 the signature is valid; 1 it is not; 2 error.";

/// Explain why a captured delivery is refused, or what it becomes
///
/// Verifies a captured request with the source's rules and secrets as `serve` does, and shows each step and the likely
/// cause of a refusal. A secret that was removed from the configuration is known only to the service that had it: see
/// its log or /status.
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
    /// How the capture was read, and why the service would refuse the request before it verifies.
    notes: Vec<String>,
    #[serde(flatten)]
    diagnosis: Diagnosis,
    /// The decision about a valid delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    becomes: Option<DecisionJson>,
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
    let notes = notes(&capture, &args.source, &loaded);
    let Capture { method, path, headers, body, .. } = capture;
    let request = RequestJson {
        method,
        path,
        headers: headers.len(),
        body_bytes: body.len(),
        received_at: received_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        received_at_from,
    };
    let uri = Uri::from_static("/");
    let delivery = Delivery { id: DeliveryId::new(), uri, headers, body, received_at };
    let diagnosis = source.explain(&delivery, &sources, &loaded.secrets);
    let becomes = becomes(source, &delivery);
    let report = ExplainReport { source: args.source.clone(), request, notes, diagnosis, becomes };
    if args.json {
        print_json(&report)?;
    } else {
        show::report(&report)?;
    }
    Ok(if report.diagnosis.valid { ExitStatus::Success } else { ExitStatus::Failure })
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

/// What the service would refuse before it verifies the signature.
fn notes(capture: &Capture, source: &str, loaded: &LoadedConfig) -> Vec<String> {
    let mut notes = capture.notes.clone();
    let (max, bytes) = (loaded.config.http.max_body, capture.body.len());
    if bytes > max {
        notes.push(format!(
            "the body has {bytes} bytes, http.max_body is {max}: answered 413 before any signature"
        ));
    }
    if capture.method != "POST" {
        notes.push(format!("the method is {}: answered 405; deliveries are sent by POST", capture.method));
    }
    if capture.path != format!("/hooks/{source}") {
        notes.push(format!("the path is {}; the source listens on /hooks/{source}", capture.path));
    }
    if capture.headers.contains_key(http::header::CONTENT_ENCODING) {
        notes.push("the body is compressed: the signature covers the compressed bytes".to_owned());
    }
    notes
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
