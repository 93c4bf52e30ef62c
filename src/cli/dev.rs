//! `hookstream dev`

use std::collections::{BTreeSet, HashSet};
use std::io::{IsTerminal, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use bytes::Bytes;
use http::HeaderMap;
use jiff::{Timestamp, Zoned};
use serde::Serialize;
use tokio::sync::mpsc;

use super::output::{self, escape_controls};
use super::serve::Signals;
use super::{ConfigArgs, ExitStatus};
use crate::app::{self, App, Listeners};
use crate::config::Networks;
use crate::dev::{self, DevParts};
use crate::http::{ConnectionLimits, DeliveryReport};
use crate::names;
use crate::observe::log;
use crate::outcome::Outcome;
use crate::sources::Sources;

/// The time within which all parts must be ready, with hundreds of sources too.
const START: Duration = Duration::from_secs(60);

/// Lines that may wait for the terminal; further ones are counted and not shown.
const LINES: usize = 4096;

/// Keys that are remembered to mark repeated deliveries.
const KEYS: usize = 100_000;

const EXAMPLES: &str = "\
Examples:
  hookstream dev
  hookstream send datagrid                  in a second terminal: post a sample delivery
  hookstream tail -o start                  and read it from its topic
  hookstream dev --json | jq .outcome";

/// Run the service with an in-memory Kafka and schema registry, to try it out
///
/// Needs nothing else and prints a line for each delivery. Ctrl-C stops it; the records are gone then. Ignores [kafka]
/// and [registry] of the configuration. A source without a secret gets a public one, which `send` uses as well.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Print JSON lines even on a terminal
    #[arg(long)]
    json: bool,
}

/// Runs until Ctrl-C.
///
/// # Errors
/// Problems of the configuration; no free port.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    let mut signals = Signals::new()?;
    let mut loaded = config.load_dev()?;
    loaded.config.http.drain_delay = Duration::ZERO;
    let http = &loaded.config.http;
    let parts = DevParts::start(ConnectionLimits {
        max_connections: 256,
        max_per_address: None,
        trusted_proxies: Networks::default(),
        head_timeout: http.head_timeout,
        max_head: http.max_head,
    })
    .await?;
    let mut moved = parts.moved.clone();
    let listeners = Listeners {
        hooks: dev::bind_or_fallback(
            "hooks",
            address("http.listen", &loaded.config.http.listen)?,
            &mut moved,
        )
        .await?,
        admin: dev::bind_or_fallback(
            "admin",
            address("admin.listen", &loaded.config.admin.listen)?,
            &mut moved,
        )
        .await?,
    };
    loaded.config.kafka.bootstrap_servers = parts.bootstrap_servers();
    loaded.config.registry.url = format!("http://{}", parts.registry);
    // `dev` serves one person on one machine, and the printed commands must work when pasted.
    (loaded.config.http.tls, loaded.config.admin.tls, loaded.config.admin.bearer) = (None, None, None);

    let (sources, _) = app::compile(&loaded)?;
    for source in sources.iter() {
        // The replayed topic records the results of `replay`. Only `dev` can create it on the in-memory Kafka.
        let replayed = names::replayed_topic(&source.name);
        let topics = source.routes().map(|route| &*route.topic);
        for topic in topics.chain([&*source.dead_letter_topic, &replayed]) {
            parts.create_topic(topic, loaded.config.kafka.topics.partitions)?;
        }
    }
    let (lines, mut shown) = mpsc::channel(LINES);
    let unseen = Arc::new(AtomicUsize::new(0));
    let watch = {
        let unseen = unseen.clone();
        move |line: &DeliveryReport<'_>| {
            if lines.try_send(DeliveryRow::from(line)).is_err() {
                unseen.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let banner = Banner { ignored: loaded.ignored.clone(), moved, sources: &sources, parts: &parts };
    let json = args.json || !std::io::stdout().is_terminal();
    let app = App::start(loaded, listeners, Arc::new(watch)).await?;
    let health = app.health.clone();
    tokio::time::timeout(START, health.ready())
        .await
        .map_err(|_| anyhow::anyhow!("not ready within {START:?}: {:?}", health.readiness()))?;
    banner.print(&app, json)?;

    let mut tally = DevTally::default();
    loop {
        tokio::select! {
            () = signals.next() => break,
            Some(row) = shown.recv() => tally.show(&row, json)?,
        }
    }
    app.stop().await?;
    while let Ok(row) = shown.try_recv() {
        tally.show(&row, json)?;
    }
    writeln!(output::stderr(), "{}", tally.end(unseen.load(Ordering::Relaxed)))?;
    Ok(ExitStatus::Success)
}

fn address(key: &str, text: &str) -> anyhow::Result<SocketAddr> {
    text.parse()
        .with_context(|| format!("{key} must be an address and a port for dev, such as 127.0.0.1:8080"))
}

/// The text at the start: addresses and the next commands.
struct Banner<'a> {
    ignored: Vec<String>,
    moved: Vec<String>,
    sources: &'a Sources,
    parts: &'a DevParts,
}

impl Banner<'_> {
    /// Prints the text to standard error; with JSON lines, also the addresses as the first line of standard output.
    fn print(&self, app: &App, json: bool) -> anyhow::Result<()> {
        if json {
            let addresses = DevAddresses {
                hooks: format!("http://{}/hooks/", app.hooks),
                kafka: self.parts.kafka.to_string(),
                registry: format!("http://{}", self.parts.registry),
                admin: format!("http://{}", app.admin),
            };
            output::print_json(&addresses)?;
        }
        let bold = Style::new().bold();
        let mut names: Vec<&str> = self.sources.iter().map(|source| source.name.as_str()).collect();
        names.sort_unstable();
        let mut err = output::stderr();
        writeln!(
            err,
            "{bold}hookstream {} dev{bold:#}: the real service, with Kafka and registry in memory; Ctrl-C stops it",
            env!("CARGO_PKG_VERSION")
        )?;
        writeln!(err, "  hooks     http://{}/hooks/{{{}}}", app.hooks, names.join(","))?;
        writeln!(
            err,
            "  kafka     {}      registry  http://{}      admin  http://{}",
            self.parts.kafka, self.parts.registry, app.admin
        )?;
        for note in &self.moved {
            writeln!(err, "  note      {note}")?;
        }
        if !self.ignored.is_empty() {
            writeln!(err, "  ignored   {}: dev uses its own", escape_controls(&self.ignored.join(", ")))?;
        }
        if let Some(first) = names.first() {
            writeln!(err, "  next, in a second terminal:   {bold}{}{bold:#}", send(app, first))?;
            writeln!(err, "  and see it in its topic:      {bold}{}{bold:#}", self.tail())?;
        }
        if let Some(curl) = self.curl(app) {
            writeln!(err, "  or: {curl}")?;
        }
        writeln!(err, "waiting for the first event ...")?;
        Ok(())
    }

    /// The `tail` command, with the addresses that are not the defaults.
    fn tail(&self) -> String {
        let mut line = format!("{} tail -o start", executable());
        if self.parts.kafka != dev::KAFKA {
            line.push_str(&format!(" -X kafka.bootstrap_servers={}", self.parts.kafka));
        }
        if self.parts.registry != dev::REGISTRY {
            line.push_str(&format!(" -X registry.url=http://{}", self.parts.registry));
        }
        line
    }

    /// A `curl` command. Its source signs no time, so the command works on later days too.
    fn curl(&self, app: &App) -> Option<String> {
        let source = self.sources.get("grapevine")?;
        let body = Bytes::from_static(
            br#"{"event":"document.changed","timestamp":"2026-01-02T03:04:05.678901Z","tenant_id":"acme","data":{"document_id":"README.md","source":"github"}}"#,
        );
        let mut headers = HeaderMap::new();
        source.verifier.sign(&body, Timestamp::now(), &mut headers).ok()?;
        let mut command =
            format!("curl -i {}/hooks/grapevine -H 'content-type: application/json'", app.hooks);
        for (name, value) in &headers {
            command.push_str(&format!(" -H '{name}: {}'", value.to_str().ok()?));
        }
        Some(format!("{command} \\\n        -d '{}'", String::from_utf8_lossy(&body)))
    }
}

/// The `send` command, with the address if it is not the default.
fn send(app: &App, source: &str) -> String {
    let usual = SocketAddr::from(([127, 0, 0, 1], 8080));
    let url = if app.hooks == usual { String::new() } else { format!(" --url http://{}", app.hooks) };
    format!("{} send {source}{url}", executable())
}

/// The path of this executable, relative to the working directory if possible.
fn executable() -> String {
    let exe = std::env::current_exe().unwrap_or_else(|_| "hookstream".into());
    let here = std::env::current_dir().unwrap_or_default();
    exe.strip_prefix(&here).unwrap_or(&exe).display().to_string()
}

#[derive(Serialize)]
struct DevAddresses {
    hooks: String,
    kafka: String,
    registry: String,
    admin: String,
}

/// The owned data of one delivery's line.
#[derive(Serialize)]
struct DeliveryRow {
    time: String,
    #[serde(skip)]
    clock: String,
    delivery: String,
    status: u16,
    ms: u64,
    source: String,
    outcome: &'static str,
    #[serde(skip)]
    kind: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// The name of the secret: ids are unique per secret.
    #[serde(skip)]
    secret: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
}

impl From<&DeliveryReport<'_>> for DeliveryRow {
    fn from(line: &DeliveryReport<'_>) -> Self {
        let (ended, now) = (line.ended, Zoned::now());
        let fault = ended.result.as_ref().err();
        Self {
            time: now.timestamp().to_string(),
            clock: now.strftime("%H:%M:%S").to_string(),
            delivery: line.delivery.to_string(),
            status: line.status,
            ms: line.took.as_millis() as u64,
            source: line.source.to_owned(),
            outcome: ended.outcome().label(),
            kind: ended.outcome(),
            reason: fault.map(|fault| fault.reason.info().label),
            detail: fault.and_then(|fault| fault.detail.as_deref().map(str::to_owned)),
            event_type: ended.event.as_ref().map(|name| name.event_type.clone()),
            id: ended.event.as_ref().map(|name| name.id.clone()),
            secret: ended.secret().cloned(),
            topic: ended.stored.as_ref().map(|stored| stored.topic.to_string()),
            partition: ended.ack().map(|ack| ack.partition),
            offset: ended.ack().map(|ack| ack.offset),
        }
    }
}

/// Counts of the deliveries so far.
#[derive(Default)]
struct DevTally {
    events: usize,
    topics: BTreeSet<String>,
    dead_lettered: usize,
    handled: usize,
    refused: usize,
    unavailable: usize,
    keys: HashSet<(String, Option<Arc<str>>, String)>,
}

impl DevTally {
    fn show(&mut self, row: &DeliveryRow, json: bool) -> anyhow::Result<()> {
        let repeat = self.count(row);
        if json {
            output::print_json(row)?;
        } else {
            output::print_line(&text(row, repeat))?;
        }
        Ok(())
    }

    /// Counts a delivery. Returns true if its key has been seen before.
    fn count(&mut self, row: &DeliveryRow) -> bool {
        match row.kind {
            // `dev` has no spool, so nothing is ever `Spooled`.
            Outcome::Published | Outcome::Spooled => self.events += 1,
            Outcome::DeadLettered => self.dead_lettered += 1,
            Outcome::Handled => self.handled += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::Unavailable => self.unavailable += 1,
        }
        let (Outcome::Published, Some(topic), Some(id)) = (row.kind, &row.topic, &row.id) else {
            return false;
        };
        self.topics.insert(topic.clone());
        let key = (topic.clone(), row.secret.clone(), id.clone());
        if self.keys.contains(&key) {
            return true;
        }
        if self.keys.len() < KEYS {
            self.keys.insert(key);
        }
        false
    }

    fn end(&self, unseen: usize) -> String {
        let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        let mut parts =
            vec![format!("{} in {}", plural(self.events, "event"), plural(self.topics.len(), "topic"))];
        let others = [
            (self.dead_lettered, "dead-lettered"),
            (self.handled, "handled"),
            (self.refused, "refused"),
            (self.unavailable, "unavailable"),
            (unseen, "not shown, too fast for the terminal"),
        ];
        parts.extend(others.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")));
        format!("\n{}. No file left behind.", parts.join(", "))
    }
}

/// The line of a delivery for people.
fn text(row: &DeliveryRow, repeat: bool) -> String {
    let colour = match row.kind {
        Outcome::Published | Outcome::Spooled | Outcome::Handled => AnsiColor::Green,
        Outcome::DeadLettered => AnsiColor::Yellow,
        Outcome::Refused | Outcome::Unavailable => AnsiColor::Red,
    };
    let style = colour.on_default();
    let head = format!(
        "{}  {style}{}{style:#}  {:>3} ms  {:<10}",
        row.clock,
        row.status,
        row.ms,
        escape_controls(&row.source)
    );
    let why = match (row.reason, &row.detail) {
        (Some(reason), Some(detail)) => format!("  {reason}: {}", escape_controls(detail)),
        (Some(reason), None) => format!("  {reason}"),
        (None, _) => String::new(),
    };
    let event = match (&row.event_type, &row.id) {
        (Some(event_type), Some(id)) => {
            format!("  {:<30} {:<17}", escape_controls(event_type), short(&escape_controls(id)))
        }
        _ => String::new(),
    };
    let place = match (&row.topic, row.partition, row.offset) {
        (Some(topic), Some(partition), Some(offset)) => format!("  -> {topic} [{partition}] @{offset}"),
        _ => String::new(),
    };
    let repeat = if repeat { "  (same key: compaction keeps one)" } else { "" };
    format!("{head}{event}{place}{repeat}{why}")
}

/// Shortens an id: the first digits of a digest suffice to recognize it.
fn short(id: &str) -> String {
    match id.strip_prefix("sha256:").and_then(|digest| digest.get(..8)) {
        Some(digest) => format!("sha256:{digest}"),
        None if id.chars().count() > 40 => format!("{}…", id.chars().take(39).collect::<String>()),
        None => id.to_owned(),
    }
}
