//! `hookstream send`

mod body;
mod generator;
mod target;
mod render;
mod many;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header;
use reqwest::Url;

use self::body::{id_rule, place};
use self::generator::DeliveryGenerator;
use self::render::{hint, json, text, unanswered};
use self::target::SendTarget;
use super::output;
use super::{ConfigArgs, ExitStatus, input, is_loopback, sample};
use crate::client;
use crate::config::{EnvelopeConfig, Environment, EventIdRule, TextPart};
use crate::load::{self, Answer, LoadPlan, NoAnswer};
use crate::observe::log;

const EXAMPLES: &str = "\
Examples:
  hookstream send datagrid                                  the first of its event types
  hookstream send datagrid knowledge.processing.completed
  hookstream send grapevine --body delivery.json            your own body, sent unchanged
  hookstream send grapevine --url http://127.0.0.1:9000     to /hooks/grapevine at another address
  hookstream send github push --body push.json              the type is in a header: name it
  hookstream send github push --body push.form              a form, if the source accepts forms
  hookstream send datagrid --count 10000 --concurrency 64   a load test
  hookstream send datagrid --count 600 --rate 10 --ids sent.tsv

Exit codes: 0 all answers are 2xx; 1 some are not; 2 error.";

/// The largest body that a service can be configured to accept.
const MAX_BODY: u64 = 256 * 1024 * 1024;

/// Sign a sample delivery as its provider would, and post it
///
/// Prints the answer. Each sample gets a new id and the current time, so it is a new event. Address and secret come
/// from the service's configuration. For a source without a secret, `send` uses the public secret of `hookstream dev`,
/// but only to an address of this machine.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The source, by its name in the configuration
    source: String,
    /// The event type of the sample [default: the source's first]; with --body, the type to put in the header, if the
    /// source reads it from a header
    #[arg(value_name = "TYPE")]
    event_type: Option<String>,
    /// Send this file (`-` for standard input) unchanged; with --count, each delivery gets new ids and times
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The address to post to [default: [http] listen]; /hooks/SOURCE is added unless it has a path
    #[arg(long)]
    url: Option<String>,
    /// Time to wait for each answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    timeout: Duration,
    /// Print JSON lines even on a terminal
    #[arg(long)]
    json: bool,
    /// Send N deliveries, and print a table of the answers and their latency
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000), help_heading = "Load")]
    count: Option<u64>,
    /// Deliveries in progress at the same time
    #[arg(long, value_name = "C", default_value = "16", requires = "count", help_heading = "Load",
        value_parser = clap::value_parser!(u32).range(1..=20_000))]
    concurrency: u32,
    /// Deliveries per second; latency then counts from the time at which each was due
    #[arg(long, value_name = "R", requires = "count", value_parser = rate, help_heading = "Load")]
    rate: Option<f64>,
    /// Write a line for each delivery: id, status (- without an answer), outcome or reason, separated by tabs
    #[arg(long, value_name = "FILE", help_heading = "Load")]
    ids: Option<PathBuf>,
}

/// Sends one or many deliveries.
///
/// # Errors
/// Problems of the configuration, an unknown source or type, a body that cannot be read or signed; for a single
/// delivery, no answer.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    let environment = Environment::from_process();
    let target = SendTarget::find(&config.overrides(), &environment, &args.source, args.url.as_deref())?;
    for warning in &target.loaded.warnings {
        writeln!(output::stderr(), "warning: {}", output::escape_controls(warning))?;
    }
    let count = args.count.unwrap_or(1);
    let (body, event_type) = match &args.body {
        Some(path) => (read(path)?, args.event_type.as_deref()),
        None => {
            let (event_type, text) = sample_of(&target, args.event_type.as_deref())?;
            let rules = &target.rules.envelope;
            let text = fitting(text, event_type, rules);
            // Otherwise the sample contains the type.
            let place = place(&rules.event_type, &text);
            let header_type = place.is_some_and(|place| place.pointer().is_none()).then_some(event_type);
            let body = match &rules.split {
                Some(split) => sample::alone(&text, split),
                None => text,
            };
            (body.into(), header_type)
        }
    };
    let maker = DeliveryGenerator::new(&target, body, event_type, args.body.is_none() || count > 1)?;
    // Reports a body that cannot be signed before anything is sent.
    let first = maker.make()?;
    if args.body.is_none() {
        let fits = maker.check(&first);
        fits.map_err(|fault| {
            anyhow::anyhow!(
                "the sample would be a dead letter by the source's own rules ({fault}): send a delivery of your own with \
                 --body FILE"
            )
        })?;
    }
    let concurrency = (args.concurrency as usize).min(count.try_into().unwrap_or(usize::MAX));
    let client = client(&target.url, args.timeout, concurrency)?;
    let with_ids = count == 1 || args.ids.is_some();
    let sender = Sender { maker, client, url: target.url.clone(), with_ids };
    let mut ids: Box<dyn io::Write> = match &args.ids {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(io::sink()),
    };
    let json = args.json || !io::stdout().is_terminal();
    let success = match count {
        1 => one(&target, &sender, &mut ids, json).await,
        _ => {
            // Each delivery in progress has its own connection.
            let _ = rlimit::increase_nofile_limit(u64::MAX);
            let plan = LoadPlan { count, concurrency, rate: args.rate };
            let summary = many::run(sender, plan, &mut ids).await;
            summary.and_then(|summary| summary.print(json).map(|()| summary.tally.failed() == 0))
        }
    };
    ids.flush().context("cannot write the file of --ids")?;
    Ok(if success? { ExitStatus::Success } else { ExitStatus::Failure })
}

/// A client that keeps up to `connections` open.
fn client(url: &Url, timeout: Duration, connections: usize) -> anyhow::Result<reqwest::Client> {
    let mut builder = client::builder()
        .user_agent(concat!("hookstream-send/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .pool_max_idle_per_host(connections)
        // Shorter than the total, so that a failed connection is reported as one.
        .connect_timeout(timeout * 9 / 10)
        .timeout(timeout);
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    let builder = client::without_certificates_for_http(builder, url.as_str());
    builder.build().context("cannot make an HTTP client")
}

/// Signs deliveries and posts them to one URL.
struct Sender {
    maker: DeliveryGenerator,
    client: reqwest::Client,
    url: Url,
    with_ids: bool,
}

impl Sender {
    /// Makes one delivery and posts it. Its id is set if ids are shown.
    ///
    /// # Errors
    /// The body cannot be signed. A missing answer is a result, not an error.
    async fn one(&self, due: Instant) -> anyhow::Result<(Option<String>, Result<Answer, NoAnswer>)> {
        let delivery = self.maker.make()?;
        let id = if self.with_ids { self.maker.id(&delivery) } else { None };
        let request = self.client.post(self.url.clone()).header(header::CONTENT_TYPE, "application/json");
        Ok((id, load::post(request.headers(delivery.headers).body(delivery.body), due).await))
    }
}

async fn one(
    target: &SendTarget,
    sender: &Sender,
    ids: &mut dyn io::Write,
    as_json: bool,
) -> anyhow::Result<bool> {
    let (id, result) = sender.one(Instant::now()).await?;
    many::add_id(ids, id.as_deref(), &result)?;
    let answer = match result {
        Ok(answer) => answer,
        Err(none) => bail!("{}", unanswered(target, id.as_deref(), &none)),
    };
    match as_json {
        true => output::print_exact(&output::escape_json(&json(&answer)))?,
        false => output::print_line(&text(&answer, id.as_deref()))?,
    }
    if let Some(hint) = hint(target, &answer) {
        writeln!(output::stderr(), "hint: {}", output::escape_controls(&hint))?;
    }
    Ok(answer.is_success())
}

/// The type and body of a sample: of the named type, else of the first of the source's types that has a sample.
fn sample_of<'a>(
    target: &SendTarget,
    event_type: Option<&'a str>,
) -> anyhow::Result<(&'a str, &'static str)> {
    let preset = target.rules.preset.as_deref().unwrap_or_default();
    let known = sample::types(preset);
    let routed = known.iter().find(|known| target.rules.types.iter().any(|routed| routed == *known));
    let event_type = event_type.or(routed.or(known.first()).copied()).unwrap_or_default();
    let text = sample::text(preset, event_type).with_context(|| match known.as_slice() {
        [] => format!("no samples for the source {}: send a body with --body FILE", target.name),
        _ => format!("no sample of the type `{event_type}`; there are: {}", known.join(", ")),
    })?;
    Ok((event_type, text))
}

/// The sample with a value at each place that the source's rules read: they may be others than the preset's.
fn fitting(sample: &str, event_type: &str, rules: &EnvelopeConfig) -> String {
    let mut text = sample.to_owned();
    let mut fill = |part: Option<&TextPart>, json: &str| {
        if let Some(pointer) = part.and_then(TextPart::pointer).filter(|pointer| !sample::has(&text, pointer))
        {
            text = sample::put(&text, pointer, json);
        }
    };
    match id_rule(&rules.id, sample) {
        Some(EventIdRule::Part(part)) => fill(Some(part), "\"evt_1\""),
        Some(EventIdRule::Join { parts, .. }) => {
            parts.iter().for_each(|part| fill(place(part, sample), "\"evt_1\""));
        }
        Some(EventIdRule::Digest) | None => {}
    }
    fill(rules.time.as_ref().and_then(|time| place(time, sample)), "0");
    fill(rules.keys.get(event_type).and_then(|key| place(key, sample)), "\"key_1\"");
    // Last: an id may be joined from the same place.
    if rules.default_type.as_deref() != Some(event_type) {
        fill(place(&rules.event_type, sample), &format!("{event_type:?}"));
    }
    text
}

fn read(path: &Path) -> anyhow::Result<Bytes> {
    let body = input(path, MAX_BODY);
    Ok(body.with_context(|| format!("cannot read the body from {}", path.display()))?.into())
}

/// Parses a timeout of at most an hour.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time > Duration::ZERO && time <= Duration::from_secs(3600) => Ok(time),
        _ => Err("expected a duration such as 500ms or 10s, at most 1h".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && (0.001..=1e6).contains(&rate) => Ok(rate),
        _ => Err("expected a number per second, such as 0.5 or 200".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::target::tests::target;
    use super::*;

    fn found(name: &str) -> SendTarget {
        target(name, &[], &[], None).unwrap()
    }

    /// A source that has nothing but its preset, and the URL that no preset can know.
    fn of_preset(preset: &str) -> SendTarget {
        let mut sets = vec![format!("source.{preset}.preset={preset}")];
        let rules = crate::config::provider_rules(preset).unwrap();
        if rules
            .signature
            .iter()
            .any(|rules| rules.signed.as_ref().is_some_and(|text| text.contains("{url}")))
        {
            sets.push(format!("source.{preset}.signature.url=https://example.com/hooks/{preset}"));
        }
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        target(preset, &[], &sets, None).unwrap()
    }

    #[test]
    fn the_service_accepts_every_sample_and_extracts_the_generated_id() {
        for (preset, _) in crate::config::presets() {
            let target = of_preset(preset);
            for event_type in sample::types(preset) {
                let (_, body) = sample_of(&target, Some(event_type)).unwrap();
                let place = place(&target.rules.envelope.event_type, body).unwrap();
                let of_header = place.pointer().is_none().then_some(event_type);
                let split = target.rules.envelope.split.as_ref();
                let body = split.map_or_else(|| body.to_owned(), |split| sample::alone(body, split));
                let maker = DeliveryGenerator::new(&target, body.into(), of_header, true).unwrap();
                let [one, other] = [maker.make().unwrap(), maker.make().unwrap()];
                let [id, other] = [maker.id(&one).unwrap(), maker.id(&other).unwrap()];
                // Two digests of one millisecond may be equal; the ids of two providers end in a number or a second.
                let is_made = !id.starts_with("sha256:") && !["linkedin", "postmark"].contains(&preset);
                assert!(id != other || !is_made, "{preset}: {id}");
                maker.check(&one).unwrap_or_else(|fault| panic!("{preset} {event_type}: {fault}"));
                if preset == "datagrid" {
                    assert!(one.body.windows(id.len()).any(|part| part == id.as_bytes()));
                }
                if preset == "shopify" {
                    assert!(id.starts_with("orders/create:"), "{id}");
                    assert_eq!(one.headers["x-shopify-topic"], "orders/create");
                }
            }
        }
    }

    #[test]
    fn w14d_the_sample_fits_rules_that_read_other_places_than_the_preset() {
        for place in ["type=/kind", "type=/meta/kind", "id=/event/key", "time=/at", "id=/data/status/id"] {
            let target =
                target("datagrid", &[], &[&format!("source.datagrid.envelope.{place}")], None).unwrap();
            let (event_type, text) = sample_of(&target, None).unwrap();
            let text = fitting(text, event_type, &target.rules.envelope);
            let maker = DeliveryGenerator::new(&target, text.into(), None, true).unwrap();
            let fits = maker.check(&maker.make().unwrap());
            match place {
                // `/data/status` is a text.
                "id=/data/status/id" => assert!(fits.unwrap_err().to_string().contains("id_missing")),
                _ => assert_eq!(fits.map_err(|fault| fault.to_string()), Ok(()), "{place}"),
            }
        }
    }

    #[test]
    fn a_type_is_required_exactly_if_a_header_carries_it() {
        let body = || Bytes::from_static(b"{}");
        let github = target("github", &[], &["source.github.preset=github"], None).unwrap();
        let fault = DeliveryGenerator::new(&github, body(), None, false).err().unwrap().to_string();
        assert_eq!(fault, "the source reads the event type from the header x-github-event: name the TYPE");
        let made = DeliveryGenerator::new(&github, body(), Some("star"), false).unwrap().make().unwrap();
        assert_eq!(made.headers["x-github-event"], "star");
        let fault = DeliveryGenerator::new(&found("datagrid"), body(), Some("star"), false)
            .err()
            .unwrap()
            .to_string();
        assert_eq!(fault, "the event type is in the body: omit TYPE");
    }

    #[test]
    fn forms_stay_forms_and_split_events_get_new_ids() {
        let sets =
            ["source.datagrid.envelope.split=/events", "source.datagrid.envelope.payload=form:payload"];
        let target = target("datagrid", &[], &sets, None).unwrap();
        let event = r#"{"id":"evt_1","event_type":"batch_prediction.completed","timestamp":17,"data":{}}"#;
        let json = format!(r#"{{"events":[{event}, {event}]}}"#);
        let form = form_urlencoded::Serializer::new(String::new()).append_pair("payload", &json).finish();
        for (body, kind) in [(json, None), (form, Some(body::FORM))] {
            let kind = kind.map(HeaderValue::from_static);
            let as_it_is = DeliveryGenerator::new(&target, body.clone().into(), None, false).unwrap();
            let signed = as_it_is.make().unwrap();
            assert_eq!(
                (signed.headers.get("content-type"), as_it_is.id(&signed)),
                (kind.as_ref(), Some("evt_1".into()))
            );
            assert_eq!(signed.body, body);
            let fresh = DeliveryGenerator::new(&target, body.into(), None, true).unwrap();
            let [one, other] = [fresh.make().unwrap(), fresh.make().unwrap()];
            let [id, next] = [fresh.id(&one).unwrap(), fresh.id(&other).unwrap()];
            assert!(id.starts_with("evt_") && id.len() == 36 && id != next, "{id} {next}");
            assert_eq!(one.headers.get("content-type"), kind.as_ref());
        }
    }

    #[test]
    fn the_default_type_is_the_first_of_the_source() {
        let of = |sets: &[&str]| {
            let target = target("datagrid", &[], sets, None).unwrap();
            Some(sample_of(&target, None).unwrap().1)
        };
        assert_eq!(of(&[]), sample::text("datagrid", "batch_prediction.completed"));
        let only = "source.datagrid.types=knowledge.processing.completed";
        assert_eq!(of(&[only]), sample::text("datagrid", "knowledge.processing.completed"));
    }

    #[test]
    fn the_error_about_an_unknown_type_lists_the_known_ones() {
        let error = sample_of(&found("grapevine"), Some("nope")).unwrap_err().to_string();
        assert_eq!(error, "no sample of the type `nope`; there are: document.changed");
    }

    #[test]
    fn a_body_that_the_provider_could_not_sign_is_an_error() {
        let maker =
            DeliveryGenerator::new(&found("grapevine"), Bytes::from_static(b"1 2"), None, false).unwrap();
        let error = maker.make().err().unwrap().to_string();
        assert!(error.contains("json_invalid"), "{error}");
        let maker =
            DeliveryGenerator::new(&found("datagrid"), Bytes::from_static(b"1 2"), None, false).unwrap();
        assert_eq!(maker.make().unwrap().body, "1 2");
    }

    #[test]
    fn invalid_timeouts_and_rates_are_refused() {
        assert_eq!(timeout("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(rate("0.5"), Ok(0.5));
        for bad in ["0s", "2h", "10", "x"] {
            assert!(timeout(bad).is_err(), "{bad}");
        }
        for bad in ["0", "-1", "nan", "inf", "1e9", "x"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
