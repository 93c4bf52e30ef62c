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
use super::tail::offset;
use super::{ConfigArgs, ExitStatus, explain, output};
use crate::config::LoadedConfig;
use crate::kafka::{ClusterConfig, Consumer};
use crate::names;
use crate::observe::log;
use crate::outcome::{Outcome, Reason};

const EXAMPLES: &str = "\
Examples:
  hookstream replay datagrid                                     which dead letters there are, by reason
  hookstream replay datagrid --reason type_unknown               the plan: what each would become today
  hookstream replay datagrid --reason type_unknown --apply       publish those that became events
  hookstream replay datagrid --since -2h --apply --rate 500
  hookstream replay datagrid --id evt_7f3d8a2c --apply
  hookstream replay datagrid --all --json

What became of a letter stands in the topic dead_letter.SOURCE.replayed, so that a replay that was stopped goes
on where it was, and none is published twice unless --again says so (a kill may repeat those of its last
moment, with the same key). The letters themselves stay.

A letter is sealed with the secret that signed its delivery. Where that secret was removed since, put it back with
a not_after in the past: it then unseals, and signs no new delivery.

Exit codes: 0 all done, or nothing to do; 1 a plan not applied, or letters that fail again; 2 error.";

/// Publish dead letters, once what kept them from their topics is mended
///
/// Without a selection lists a source's dead letters by reason. With one, shows what each would become with
/// the configuration and schemas of today; acts only with --apply.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("selection").multiple(true).args(["reason", "since", "until", "id", "partition", "all"]))]
pub struct Args {
    /// The source, by its name in the configuration
    source: String,
    /// Only letters of this reason; may be given several times
    #[arg(long, value_parser = reason)]
    reason: Vec<Reason>,
    /// Only letters received at this time or later: 2026-11-22T02:00:00Z, -2h, 1795312800
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time)]
    since: Option<Timestamp>,
    /// Only letters received before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time)]
    until: Option<Timestamp>,
    /// Only letters of this event id (their key), or of this delivery
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
    /// Also those that were replayed already
    #[arg(long, requires = "selection")]
    again: bool,
    /// Do it
    #[arg(long, requires = "selection")]
    apply: bool,
    /// At most so many letters per second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Print JSON: of a list a line for each reason, else one object
    #[arg(long)]
    json: bool,
}

impl Args {
    fn selects(&self) -> bool {
        self.all || Selection::new(self) != Selection::default()
    }
}

/// One of those that a dead letter can have.
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

/// Lists, plans or replays.
///
/// # Errors
/// Problems of the configuration, an unknown source, no broker; with `--apply` also a registry that gives no
/// ids, topics that are missing and cannot be created, and a Kafka that does not acknowledge.
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

/// What would become of each letter, were it replayed now.
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
        // No reason to create anything.
        return Ok(ReplaySummary::default());
    }
    let sources = prerequisites::sources(loaded, kafka, &args.source).await?;
    let source = sources.get(&args.source).with_context(|| explain::missing(&args.source, loaded))?;
    let publisher = publish::Publisher::new(loaded, kafka, source.clone())?;
    publisher.run(letters, choice, past, args.rate).await
}
