//! `hookstream replay`

mod selection;
mod letters;
mod list;
mod history;
mod publish;
mod prerequisites;
mod summary;

use anyhow::Context as _;
use clap::ArgGroup;
use jiff::Timestamp;

use self::history::History;
use self::letters::Letters;
use self::selection::Selection;
use self::summary::ReplaySummary;
use super::output::note;
use super::tail::{offset, visible};
use super::{ConfigArgs, ExitStatus, explain, output};
use crate::config::LoadedConfig;
use crate::kafka::{ClusterConfig, Consumer};
use crate::names;
use crate::observe::log;
use crate::outcome::{Outcome, Reason};

const EXAMPLES: &str = "\
Examples:
  hookstream replay datagrid                                     the dead letters by reason
  hookstream replay datagrid --reason type_unknown               the plan: what each becomes today
  hookstream replay datagrid --reason type_unknown --apply       publish those that are events now
  hookstream replay datagrid --since -2h --apply --rate 500
  hookstream replay datagrid --id evt_7f3d8a2c --apply
  hookstream replay datagrid --all --json

The outcome of each letter is written to the topic dead_letter.SOURCE.replayed.
So an interrupted replay continues where it stopped, and no letter is published
twice without --again (a kill may repeat the letters in flight, with the same
key). The letters themselves are kept.

A letter is sealed with the secret that signed its delivery. If that secret has
been removed since, restore it with a not_after in the past: it then unseals
letters and verifies no new delivery.

Exit codes: 0 all done, or nothing to do; 1 a plan not applied, or letters that fail again; 2 error.";

/// Publish dead letters after their cause is fixed
///
/// Without a selection, lists a source's dead letters by reason. With one, shows what each letter would become with
/// today's configuration and schemas; publishes only with --apply.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("selection").multiple(true).args(["reason", "since", "until", "id", "partition", "all"]))]
pub struct Args {
    /// The source, by its name in the configuration
    source: String,
    /// Only letters with this reason; may be repeated
    #[arg(long, value_parser = reason)]
    reason: Vec<Reason>,
    /// Only letters received at this time or later: 2026-11-22T02:00:00Z, -2h, 1795312800
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time)]
    since: Option<Timestamp>,
    /// Only letters received before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time)]
    until: Option<Timestamp>,
    /// Only letters with this event id or key, or of this delivery
    #[arg(long)]
    id: Option<String>,
    /// Only letters in this partition
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Only the letter at this offset
    #[arg(long, value_name = "N", requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    offset: Option<i64>,
    /// All letters
    #[arg(long, conflicts_with_all = ["reason", "since", "until", "id", "partition"])]
    all: bool,
    /// Include letters that were replayed before
    #[arg(long, requires = "selection")]
    again: bool,
    /// Publish the letters
    #[arg(long, requires = "selection")]
    apply: bool,
    /// Maximum number of letters per second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Print JSON: a line for each reason of a list, otherwise one object
    #[arg(long)]
    json: bool,
}

impl Args {
    fn selects(&self) -> bool {
        self.all || Selection::new(self) != Selection::default()
    }
}

/// Parses a reason that a dead letter can have.
fn reason(text: &str) -> Result<Reason, String> {
    let of_dead_letter = |reason: &Reason| reason.info().outcome == Outcome::DeadLettered;
    Reason::from_label(text).filter(of_dead_letter).ok_or_else(|| {
        let known = Reason::ALL.iter().filter(|reason| of_dead_letter(reason));
        let known: Vec<&str> = known.map(|reason| reason.info().label).collect();
        format!("a dead letter has one of: {}", known.join(", "))
    })
}

fn time(text: &str) -> Result<Timestamp, String> {
    offset::time(text.strip_prefix('@').unwrap_or(text), Timestamp::now())
}

/// Lists letters, plans a replay or replays.
///
/// # Errors
/// Problems of the configuration, an unknown source, no broker; with `--apply` also a registry without ids for the schemas,
/// missing topics that cannot be created, and a Kafka that does not acknowledge.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    let loaded = if args.selects() { config.load()? } else { config.load_unread()? };
    anyhow::ensure!(
        loaded.config.source.contains_key(&args.source),
        "{}",
        explain::missing(&args.source, &loaded)
    );
    let kafka = ClusterConfig::new(&loaded.config.kafka.bootstrap_servers, loaded.properties.clone());
    let consumer = Consumer::new(&kafka)?;
    let there = consumer.topics().await.context("cannot read topics")?;
    let choice = Selection::new(args);
    let Some(letters) = Letters::find(&kafka, &there, &args.source, &choice).await? else {
        let topic = names::dead_letter_topic(&args.source);
        visible(&consumer, std::slice::from_ref(&topic)).await?;
        note(&format!("nothing to do: the topic {topic} does not exist"))?;
        return Ok(ExitStatus::Success);
    };
    let past = History::read(&kafka, &there, &args.source).await?;
    if !args.selects() {
        return list::run(&letters, &past, args.json).await;
    }
    let past = if args.again { History::default() } else { past };
    let tally = match args.apply {
        true => apply(&loaded, &kafka, args, &choice, letters, &past).await?,
        false => plan(&loaded, &kafka, args, &choice, letters, &past).await?,
    };
    if args.json {
        output::print_json(&tally.json(&args.source, args.apply))?;
    } else {
        tally.print(&args.source, args.apply)?;
    }
    Ok(tally.verdict(args.apply))
}

/// Decides about each letter without publishing.
async fn plan(
    loaded: &LoadedConfig,
    kafka: &ClusterConfig,
    args: &Args,
    choice: &Selection,
    letters: Letters,
    past: &History,
) -> anyhow::Result<ReplaySummary> {
    let sources = explain::compile(loaded)?;
    let source = sources.get(&args.source).with_context(|| explain::missing(&args.source, loaded))?;
    prerequisites::policies(loaded, kafka, &sources).await?;
    let mut tally = ReplaySummary::default();
    letters
        .each(|record| {
            if !tally.takes(&record, choice, past) {
                return Ok(());
            }
            let reason = letters::reason_of(&record);
            let becomes = match letters::open(record) {
                Ok(mut letter) => letters::becomes(source, &mut letter),
                Err(why) => why,
            };
            tally.add(reason, &becomes);
            Ok(())
        })
        .await?;
    Ok(tally)
}

async fn apply(
    loaded: &LoadedConfig,
    kafka: &ClusterConfig,
    args: &Args,
    choice: &Selection,
    letters: Letters,
    past: &History,
) -> anyhow::Result<ReplaySummary> {
    if letters.at_most() == 0 {
        // Nothing to publish, so no topics are created.
        return Ok(ReplaySummary::default());
    }
    let sources = prerequisites::sources(loaded, kafka, &args.source).await?;
    let source = sources.get(&args.source).with_context(|| explain::missing(&args.source, loaded))?;
    let publisher = publish::Publisher::new(loaded, kafka, source.clone())?;
    publisher.run(letters, choice, past, args.rate).await
}
