//! `hookstream lag`

mod show;

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;

use super::output;
use super::serve::Signals;
use super::tail::selection;
use super::{ConfigArgs, ExitStatus};
use crate::kafka::ClusterConfig;
use crate::kafka::lag::{Lag, Meter};
use crate::observe::log;

/// Between two measurements of `--watch`.
const PAUSE: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  hookstream lag                                 every group that reads our topics
  hookstream lag --group billing --watch
  hookstream lag --group 'flink-*' --json | jq '.groups[].topics[] | {topic, records, seconds}'
  hookstream lag --group billing --max 10000 --max-seconds 300     a probe

Records are counted as offsets, log end minus committed offset, as kafka-consumer-groups does: on a
compacted topic there may be fewer. Seconds are those since the first record that the group has not
yet read was written. What is not known is `unknown` with a word why, never 0. No group is joined.

Exit codes: 0 measured, and within the limits; 1 over a limit; 2 error, or a limit on what is unknown.";

/// Show how far consumer groups are behind
///
/// For each group that has committed offsets on the topics of the configured sources, dead letters too: its
/// state, and for each partition the committed offset, the log end and the lag.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Groups; `*` stands for anything [default: all that have offsets on our topics]
    #[arg(short, long, value_name = "NAME", num_args = 1.., value_parser = NonEmptyStringValueParser::new())]
    group: Vec<String>,
    /// Measure again every 2 seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Print one JSON object for each measurement
    #[arg(long)]
    json: bool,
    /// Exit 1 where a group is further behind on a topic, all its partitions together
    #[arg(long, value_name = "RECORDS", conflicts_with = "watch")]
    max: Option<u64>,
    /// Exit 1 where a record that a group has not yet read is older
    #[arg(long, value_name = "S", conflicts_with = "watch", value_parser = seconds)]
    max_seconds: Option<f64>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    seconds.ok_or_else(|| String::from("expected a number of seconds, 0 or more"))
}

/// Measures, shows, and judges by the limits.
///
/// # Errors
/// Problems of the configuration; no broker; a limit on what is unknown.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    let loaded = config.load_unread()?;
    let topics = selection::of_sources(&loaded.config);
    let kafka = ClusterConfig::new(&loaded.config.kafka.bootstrap_servers, loaded.properties.clone());
    let meter = Meter::new(&kafka)?;
    let mut signals = Signals::new()?;
    let measuring = async {
        if args.watch {
            return watch(&meter, &topics, args).await;
        }
        let lag = meter.measure(&topics, &args.group).await?;
        print(&lag, args)?;
        verdict(&lag, args)
    };
    tokio::select! {
        verdict = measuring => verdict,
        () = signals.next() => Ok(ExitStatus::Success),
    }
}

/// Does not end by itself, unless the first measurement fails or nobody reads any more.
async fn watch(meter: &Meter, topics: &[String], args: &Args) -> anyhow::Result<ExitStatus> {
    let mut shown = false;
    loop {
        match meter.measure(topics, &args.group).await {
            Ok(lag) => {
                print(&lag, args)?;
                shown = true;
            }
            Err(error) if shown => output::note(&format!("{error:#}; trying on"))?,
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn print(lag: &Lag, args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        lag.topics > 0,
        "none of the topics of the configured sources exists: `hookstream serve` creates them"
    );
    if args.json {
        return output::print_json(&show::json(lag));
    }
    let text = show::text(lag, &args.group, args.watch);
    if args.watch && std::io::stdout().is_terminal() {
        // In place: the screen is cleared, and written from its top.
        output::clear_screen()?;
    }
    output::print_line(&text)?;
    Ok(())
}

/// Over a limit counts more than unknown: it will not get less by what is found out.
fn verdict(lag: &Lag, args: &Args) -> anyhow::Result<ExitStatus> {
    if args.max.is_none() && args.max_seconds.is_none() {
        return Ok(ExitStatus::Success);
    }
    anyhow::ensure!(!lag.groups.is_empty(), "no lag is known: {}", show::nobody(&args.group));
    let (mut over, mut unknown) = (Vec::new(), Vec::new());
    for group in &lag.groups {
        let name = &group.name;
        if let Err(why) = &group.partitions {
            unknown.push(format!("group {name}: {why}"));
        }
        for sum in show::sums(group) {
            let topic = sum.topic;
            if let Some(max) = args.max {
                if sum.records > max {
                    over.push(format!("group {name} on {topic}: {} records, more than {max}", sum.records));
                }
                unknown.extend(sum.records_unknown.map(|why| format!("group {name} on {topic}: {why}")));
            }
            if let Some(max) = args.max_seconds {
                if sum.seconds > max {
                    over.push(format!("group {name} on {topic}: {:.1} s, more than {max}", sum.seconds));
                }
                unknown.extend(sum.seconds_unknown.map(|why| format!("group {name} on {topic}: {why}")));
            }
        }
    }
    if let Some(first) = over.first() {
        let text = output::escape_controls(first).into_owned() + &more(over.len());
        output::note(&format!("over the limit: {text}"))?;
        return Ok(ExitStatus::Failure);
    }
    match unknown.first() {
        Some(first) => {
            anyhow::bail!("lag is unknown: {}{}", output::escape_controls(first), more(unknown.len()))
        }
        None => Ok(ExitStatus::Success),
    }
}

fn more(count: usize) -> String {
    if count > 1 { format!("; and {} more", count - 1) } else { String::new() }
}
