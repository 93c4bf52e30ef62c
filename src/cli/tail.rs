//! `hookstream tail`

pub(super) mod selection;
pub(super) mod offset;
mod show;

use std::collections::BTreeSet;
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
use crate::kafka::{ClusterConfig, Consumer, ConsumerEvent, Fetched, Span, Start};
use crate::names;
use crate::observe::log;
use crate::schema::Registry;
use crate::schema::decode::{Decoded, Decoder};

/// Records that may wait for the printer.
const WAITING: usize = 256;

const EXAMPLES: &str = "\
Examples:
  hookstream tail                                    new records of all sources
  hookstream tail 'datagrid.*' -o -5 -e              the last five records of each partition
  hookstream tail 'dead_letter.*' -o @-1h            dead letters since an hour ago, and new ones
  hookstream tail --key evt_7f3d8a2c -o start -e     find an event
  hookstream tail -o start -e | jq -r .value.id      JSON lines in a pipe

The command commits nothing and joins no consumer group. It does not read topics
and partitions that are created after its start.

Exit codes: 0 success; 1 no record with that --key up to the end; 2 error.";

/// Read topics and decode their records
///
/// On a terminal, prints a line for each record without fields that are null; in a pipe, complete records as JSON
/// lines. Decodes values with the schemas of the registry; the value of a dead letter is the original body. Records of
/// a partition are in order, records of different partitions are not.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Names of topics; `*` matches any text [default: all of the configured sources, including dead letters]
    topic: Vec<String>,
    /// Where to start: start, end, -N (the last N records of each partition), or @TIME, such as @-10m,
    /// @2026-11-22T02:00:00Z or @1795312800
    #[arg(
        short, long = "offset", value_name = "WHERE", default_value = "end",
        allow_hyphen_values = true, value_parser = |text: &str| offset::parse(text, Timestamp::now())
    )]
    offset: Start,
    /// Same as `-o start`
    #[arg(long, conflicts_with = "offset")]
    from_beginning: bool,
    /// Stop after NUM records
    #[arg(short, long = "count", value_name = "NUM", value_parser = clap::value_parser!(u64).range(1..))]
    number: Option<u64>,
    /// Stop at the end that the topics had at the start of the command; needs -o
    #[arg(short, long = "exit")]
    exit: bool,
    /// Only records with this event id or key; reads only the partitions that can contain it
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    key: Option<String>,
    /// Show all headers on a terminal
    #[arg(short = 'H', long)]
    headers: bool,
    /// Print JSON lines even on a terminal
    #[arg(long)]
    json: bool,
}

/// Runs until Ctrl-C, or until the limit of `-n` or `-e`.
///
/// # Errors
/// Problems of the configuration; no broker; a topic that does not exist.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    let start = if args.from_beginning { Start::Beginning } else { args.offset };
    anyhow::ensure!(
        !args.exit || start != Start::End,
        "-e without a start shows nothing: add one, such as -o start, -o -10 or -o @-1h"
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
        reported: false,
    };
    let (sender, mut events) = mpsc::channel(WAITING);
    let reading = async {
        let result = consumer.read(&spans, args.exit, &sender).await;
        // Closes the channel: the printer ends after the last record.
        drop(sender);
        anyhow::Ok(result?)
    };
    let printing = async {
        let mut shown = 0_u64;
        while let Some(event) = events.recv().await {
            match event {
                ConsumerEvent::Trouble(text) => output::note(&text)?,
                ConsumerEvent::Record(record) => {
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

/// Runs both until the printer ends: after the last record of a bounded read, or earlier.
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

/// The partitions and offsets to read. Prints a summary for people.
async fn spans(
    consumer: &Consumer,
    loaded: &LoadedConfig,
    args: &Args,
    key: Option<&KeyFilter>,
    start: Start,
) -> anyhow::Result<Vec<Span>> {
    let existing = consumer.topics().await.context("cannot read topics")?;
    let topics = if args.topic.is_empty() {
        let topics = selection::of_sources(&loaded.config);
        let (topics, missing): (Vec<_>, Vec<_>) =
            topics.into_iter().partition(|topic| existing.contains_key(topic));
        let hidden = consumer.hidden(&missing).await?;
        anyhow::ensure!(
            !topics.is_empty() || !hidden.is_empty(),
            "none of the topics of the configured sources exists at {}: `hookstream serve` creates them",
            loaded.config.kafka.bootstrap_servers
        );
        anyhow::ensure!(!topics.is_empty(), not_visible(&hidden));
        if !hidden.is_empty() {
            output::note(&not_visible(&hidden))?;
        }
        topics
    } else {
        let is_missing = |name: &&String| !name.contains('*') && !existing.contains_key(*name);
        let missing: Vec<String> = args.topic.iter().filter(is_missing).cloned().collect();
        visible(consumer, &missing).await?;
        selection::named(&args.topic, &existing).map_err(anyhow::Error::msg)?
    };
    let partitions = selection::partitions(&topics, &existing, key);
    let spans = consumer.spans(&partitions, start).await?;
    if !args.exit && std::io::stderr().is_terminal() {
        let scope = format!("{} ({})", count(topics.len(), "topic"), count(spans.len(), "partition"));
        output::note(&match start {
            Start::End => {
                format!("following {scope} from now on; -o start shows existing records; Ctrl-C stops")
            }
            _ => format!("reading {scope}, then following; Ctrl-C stops"),
        })?;
    }
    Ok(spans)
}

/// Checks topics that seem to be missing.
///
/// # Errors
/// If hookstream's user may not see one of them.
pub(super) async fn visible(consumer: &Consumer, missing: &[String]) -> anyhow::Result<()> {
    let hidden = consumer.hidden(missing).await?;
    anyhow::ensure!(hidden.is_empty(), not_visible(&hidden));
    Ok(())
}

/// The message about topics that Kafka does not show.
pub(super) fn not_visible(hidden: &BTreeSet<String>) -> String {
    let names: Vec<&str> = hidden.iter().map(String::as_str).collect();
    format!("hookstream's user may not see {}: grant Describe (and Read) on it", names.join(", "))
}

/// The exit status: a failure if no record has the given key.
fn verdict(shown: u64, args: &Args, spans: &[Span]) -> anyhow::Result<ExitStatus> {
    if shown > 0 || !args.exit {
        return Ok(ExitStatus::Success);
    }
    let partitions = count(spans.len(), "partition");
    match &args.key {
        Some(key) => {
            output::note(&format!(
                "no record with the key {} in {partitions}",
                output::escape_controls(key)
            ))?;
            Ok(ExitStatus::Failure)
        }
        None => {
            output::note(&format!("no records in {partitions}"))?;
            Ok(ExitStatus::Success)
        }
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Decodes and prints records.
struct Printer<'a> {
    json: bool,
    headers: bool,
    decoder: Decoder,
    registry_url: &'a str,
    reported: bool,
}

impl Printer<'_> {
    async fn print(&mut self, record: &Fetched) -> anyhow::Result<()> {
        let value = self.value(record).await;
        if let Decoded::Unreadable { schema_id, why } = &value
            && !std::mem::replace(&mut self.reported, true)
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

    /// Decodes a record's value. That of a dead letter is the original body, even if it looks like Avro.
    async fn value(&mut self, record: &Fetched) -> Decoded {
        match &record.value {
            Some(value) if !record.topic.starts_with(&names::dead_letter_topic("")) => {
                self.decoder.decode(value).await
            }
            _ => Decoded::Raw,
        }
    }
}

/// Resolves when the reader of a pipe has exited (`hookstream tail | head -1`). Otherwise the command would notice only
/// at the next record, and the shell would wait for it.
#[cfg(target_os = "linux")]
async fn reader_gone() {
    use std::os::fd::AsFd as _;
    use tokio::io::Interest;
    use tokio::net::unix::pipe;

    // Only watched, never written through, so that standard output stays blocking. Something that cannot be watched,
    // such as a file, has no reader that can exit.
    let stdout = std::io::stdout().as_fd().try_clone_to_owned();
    if let Ok(stdout) = stdout.and_then(pipe::Sender::from_owned_fd_unchecked)
        && stdout.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// On other systems tokio cannot watch for errors alone.
#[cfg(not(target_os = "linux"))]
async fn reader_gone() {
    std::future::pending().await
}
