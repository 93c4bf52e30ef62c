//! `hookstream tail`

pub(super) mod selection;
pub(super) mod offset;
mod show;

use std::io::IsTerminal as _;

use anyhow::Context as _;
use clap::builder::NonEmptyStringValueParser;
use jiff::Timestamp;
use tokio::sync::mpsc;

use self::selection::KeyFilter;
use super::output;
use super::serve::Signals;
use super::{ConfigArgs, ExitStatus};
use crate::config::LoadedConfig;
use crate::kafka::{ClusterConfig, Consumer, Event, Fetched, Span, Start};
use crate::names;
use crate::observe::log;
use crate::schema::Registry;
use crate::schema::decode::{Decoded, Decoder};

/// Records that wait for the printer.
const WAITING: usize = 256;

const EXAMPLES: &str = "\
Examples:
  hookstream tail                                    what arrives from now on, dead letters too
  hookstream tail 'datagrid.*' -o -5 -e              the last five of each partition
  hookstream tail 'dead_letter.*' -o @-1h            dead letters of the last hour, and new ones
  hookstream tail --key evt_7f3d8a2c -o start -e     what became of evt_7f3d8a2c? (exit 1: nothing)
  hookstream tail -o start -e | jq -r .value.id      JSON lines in a pipe

Nothing is committed, no consumer group is joined. Topics and partitions that are made after the
start are not read.";

/// Read topics, decoded
///
/// On a terminal: a line for each record, fields that are null left out. In a pipe: JSON lines with
/// everything. Values are decoded with the registry's schemas; a dead letter's is the body as it
/// came. In each partition records come in their order, across partitions in none.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Topics; `*` stands for anything [default: all of the configured sources, dead letters too]
    topic: Vec<String>,
    /// Where to begin: start, end, -N (the last N of each partition), or @TIME: @-10m,
    /// @2026-11-22T02:00:00Z, @1795312800
    #[arg(
        short, long = "offset", value_name = "WHERE", default_value = "end",
        allow_hyphen_values = true, value_parser = |text: &str| offset::parse(text, Timestamp::now())
    )]
    offset: Start,
    /// The same as `-o start`
    #[arg(long, conflicts_with = "offset")]
    from_beginning: bool,
    /// Stop after so many records
    #[arg(short, long = "count", value_name = "NUM", value_parser = clap::value_parser!(u64).range(1..))]
    number: Option<u64>,
    /// Stop at the end that there was when it started; needs -o
    #[arg(short, long = "exit")]
    exit: bool,
    /// Only records of this event id, or with this key; read from its partitions alone
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    key: Option<String>,
    /// Show all headers on a terminal
    #[arg(short = 'H', long)]
    headers: bool,
    /// Print JSON lines, also on a terminal
    #[arg(long)]
    json: bool,
}

/// Runs until Ctrl-C, or until `-n` or `-e` is reached.
///
/// # Errors
/// Problems of the configuration; no broker; a topic that does not exist.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    let start = if args.from_beginning { Start::Beginning } else { args.offset };
    anyhow::ensure!(
        !args.exit || start != Start::End,
        "-e from the end shows nothing: say where to begin, such as -o start, -o -10 or -o @-1h"
    );
    let loaded = config.load_unread()?;
    let mut signals = Signals::new()?;
    tokio::select! {
        verdict = tail(&loaded, args, start) => verdict,
        () = signals.next() => Ok(ExitStatus::Success),
        () = reader_gone() => Ok(ExitStatus::Success),
    }
}

async fn tail(loaded: &LoadedConfig, args: &Args, start: Start) -> anyhow::Result<ExitStatus> {
    let kafka = ClusterConfig::new(&loaded.config.kafka.bootstrap_servers, loaded.properties.clone());
    let consumer = Consumer::new(&kafka)?;
    let registry = Registry::new(loaded)?;
    let key = args.key.as_deref().map(|key| KeyFilter::new(key, &loaded.config));

    let spans = spans(&consumer, loaded, args, key.as_ref(), start).await?;
    let json = args.json || !std::io::stdout().is_terminal();
    let mut printer = Printer {
        json,
        headers: args.headers,
        decoder: Decoder::new(&registry, json),
        registry_url: registry.url(),
        complained: false,
    };
    let (sender, mut events) = mpsc::channel(WAITING);
    let reading = async {
        let result = consumer.read(&spans, args.exit, &sender).await;
        // The printer ends once it has what was sent.
        drop(sender);
        result
    };
    let printing = async {
        let mut shown = 0_u64;
        while let Some(event) = events.recv().await {
            match event {
                Event::Trouble(text) => output::note(&text)?,
                Event::Record(record) => {
                    if key.as_ref().is_some_and(|key| !key.is(record.key.as_deref())) {
                        continue;
                    }
                    printer.print(&record).await?;
                    shown += 1;
                    if args.number == Some(shown) {
                        break;
                    }
                }
            }
        }
        anyhow::Ok(shown)
    };
    let shown = printed(reading, printing).await?;
    verdict(shown, args, &spans)
}

/// The printer's end is the end: it comes with the last record of a bounded reading, or early.
async fn printed(
    reading: impl Future<Output = anyhow::Result<()>>,
    printing: impl Future<Output = anyhow::Result<u64>>,
) -> anyhow::Result<u64> {
    tokio::pin!(reading, printing);
    tokio::select! {
        read = &mut reading => {
            let shown = printing.await?;
            read.map(|()| shown)
        }
        shown = &mut printing => shown,
    }
}

/// What is to be read; tells people what it is.
async fn spans(
    consumer: &Consumer,
    loaded: &LoadedConfig,
    args: &Args,
    key: Option<&KeyFilter>,
    start: Start,
) -> anyhow::Result<Vec<Span>> {
    let there = consumer.topics().await.context("cannot read topics")?;
    let topics = if args.topic.is_empty() {
        let mut topics = selection::of_sources(&loaded.config);
        topics.retain(|topic| there.contains_key(topic));
        anyhow::ensure!(
            !topics.is_empty(),
            "none of the topics of the configured sources exists at {}: `hookstream serve` creates them",
            loaded.config.kafka.bootstrap_servers
        );
        topics
    } else {
        selection::named(&args.topic, &there).map_err(anyhow::Error::msg)?
    };
    let partitions = selection::partitions(&topics, &there, key);
    let spans = consumer.spans(&partitions, start).await?;
    if !args.exit && std::io::stderr().is_terminal() {
        let what = format!("{} ({})", count(topics.len(), "topic"), count(spans.len(), "partition"));
        output::note(&match start {
            Start::End => format!("following {what} from now on; -o start shows what is there; Ctrl-C ends"),
            _ => format!("reading {what}, then following; Ctrl-C ends"),
        })?;
    }
    Ok(spans)
}

/// Whether what was asked for is there.
fn verdict(shown: u64, args: &Args, spans: &[Span]) -> anyhow::Result<ExitStatus> {
    if shown > 0 || !args.exit {
        return Ok(ExitStatus::Success);
    }
    let places = count(spans.len(), "partition");
    match &args.key {
        Some(key) => {
            output::note(&format!("no record with the key {} in {places}", output::escape_controls(key)))?;
            Ok(ExitStatus::Failure)
        }
        None => {
            output::note(&format!("no records in {places}"))?;
            Ok(ExitStatus::Success)
        }
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Decodes and prints.
struct Printer<'a> {
    json: bool,
    headers: bool,
    decoder: Decoder,
    registry_url: &'a str,
    complained: bool,
}

impl Printer<'_> {
    async fn print(&mut self, record: &Fetched) -> anyhow::Result<()> {
        let value = self.value(record).await;
        if let Decoded::Unreadable { schema_id, why } = &value
            && !std::mem::replace(&mut self.complained, true)
        {
            let url = self.registry_url;
            output::note(&format!(
                "values of schema {schema_id} cannot be decoded: {why} ([registry] url = {url})"
            ))?;
        }
        if self.json {
            output::print_exact(&show::json(record, &value)?)?;
        } else {
            output::print_line(&show::pretty(record, &value, self.headers, Timestamp::now()))?;
        }
        Ok(())
    }

    /// A dead letter's value is the body as it came, whatever it looks like.
    async fn value(&mut self, record: &Fetched) -> Decoded {
        match &record.value {
            Some(value) if !record.topic.starts_with(&names::dead_letter_topic("")) => {
                self.decoder.decode(value).await
            }
            _ => Decoded::Raw,
        }
    }
}

/// Resolves when the reader of a pipe has left (`hookstream tail | head -1`): else that would show
/// with the next record only, and the shell would wait for it.
#[cfg(target_os = "linux")]
async fn reader_gone() {
    use std::os::fd::AsFd as _;
    use tokio::io::Interest;
    use tokio::net::unix::pipe;

    // Only watched, never written through: standard output stays a blocking one. What cannot be
    // watched, such as a file, has no reader that leaves.
    let stdout = std::io::stdout().as_fd().try_clone_to_owned();
    if let Ok(stdout) = stdout.and_then(pipe::Sender::from_owned_fd_unchecked)
        && stdout.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Elsewhere tokio cannot watch for that alone.
#[cfg(not(target_os = "linux"))]
async fn reader_gone() {
    std::future::pending().await
}
