//! `hookstream lag`

mod show;

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;

use super::output;
use super::serve::Signals;
use super::tail::{not_visible, selection};
use super::{ConfigArgs, ExitStatus};
use crate::kafka::ClusterConfig;
use crate::kafka::lag::{Lag, Meter};
use crate::observe::error_chain::ErrorChain;
use crate::observe::log;

/// The time between two measurements of `--watch`.
const PAUSE: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  hookstream lag                                 all groups that read the topics of the sources
  hookstream lag --group billing --watch
  hookstream lag --group 'flink-*' --json | jq '.groups[].topics[] | {topic, records, seconds}'
  hookstream lag --group billing --max 10000 --max-seconds 300     as a probe

The lag is the log end minus the committed offset, as in kafka-consumer-groups; a
compacted topic may have fewer records. The seconds are the age of the first record
that the group has not yet read. An unknown value is shown as `unknown` with the
reason, never as 0. The command joins no group.

Exit codes: 0 within the limits; 1 over a limit; 2 error, or the lag is unknown with a limit set.";

/// Show the lag of consumer groups
///
/// Shows each group that has committed offsets on the topics of the configured sources, including dead letters: its
/// state and, for each partition, the committed offset, the log end and the lag.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Names of groups; `*` matches any text [default: all with offsets on the topics of the sources]
    #[arg(short, long, value_name = "NAME", num_args = 1.., value_parser = NonEmptyStringValueParser::new())]
    group: Vec<String>,
    /// Measure again every 2 seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Print one JSON object for each measurement
    #[arg(long)]
    json: bool,
    /// Exit with 1 if the lag of a group on a topic, summed over its partitions, is larger
    #[arg(long, value_name = "RECORDS", conflicts_with = "watch")]
    max: Option<u64>,
    /// Exit with 1 if a record that a group has not yet read is older
    #[arg(long, value_name = "S", conflicts_with = "watch", value_parser = seconds)]
    max_seconds: Option<f64>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    seconds.ok_or_else(|| String::from("expected a number of seconds, 0 or more"))
}

/// Measures the lag, prints it and compares it with the limits.
///
/// # Errors
/// Problems of the configuration; no broker; a limit on a lag that is unknown.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    let loaded = config.load_unread()?;
    let topics = selection::of_sources(&loaded.config);
    let kafka = ClusterConfig::new(&loaded.config.kafka.bootstrap_servers, loaded.properties.clone());
    let meter = Meter::new(&kafka)?;
    let mut signals = Signals::new()?;
    let measuring = async {
        let hidden = meter.hidden(&topics).await?;
        if hidden.len() == topics.len() {
            anyhow::bail!(not_visible(&hidden));
        }
        if !hidden.is_empty() {
            output::note(&format!("{}; the lag there is not measured", not_visible(&hidden)))?;
        }
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

/// Runs until the first measurement fails or standard output is closed.
async fn watch(meter: &Meter, topics: &[String], args: &Args) -> anyhow::Result<ExitStatus> {
    let mut shown = false;
    loop {
        match meter.measure(topics, &args.group).await {
            Ok(lag) => {
                print(&lag, args)?;
                shown = true;
            }
            Err(error) if shown => output::note(&format!("{}; retrying", ErrorChain(&error)))?,
            Err(error) => return Err(error.into()),
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
        // Each measurement replaces the previous one on the screen.
        output::clear_screen()?;
    }
    output::print_line(&text)?;
    Ok(())
}

/// A lag over the limit takes precedence over an unknown one: knowing more cannot make it smaller.
fn verdict(lag: &Lag, args: &Args) -> anyhow::Result<ExitStatus> {
    if args.max.is_none() && args.max_seconds.is_none() {
        return Ok(ExitStatus::Success);
    }
    anyhow::ensure!(!lag.groups.is_empty(), "no lag is known: {}", show::no_groups(&args.group));
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
