//! `hookstream provision`

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::output::{self, escape_controls, print_json};
use super::{ConfigArgs, ExitStatus};
use crate::app;
use crate::kafka::{Admin, ClusterConfig};
use crate::observe::log;
use crate::provision::{
    Allowed, Done, Item, ItemKind, PlanAction, Planner, ProvisionPlan, SettingChange, Unchanged,
};
use crate::schema::Registry;
use crate::schema::changes::FieldChange;

const EXAMPLES: &str = "\
Examples:
  hookstream provision                            the plan: create (+), change (~), keep (=)
  hookstream provision --apply
  hookstream provision --apply --keep-versions    for `check` to use without a registry
  hookstream provision --json | jq '.items[] | select(.action != \"keep\")'

Never deletes anything, never reduces the replicas of a topic, and leaves
settings that it does not manage as they are.

Exit codes: 0 nothing to do, or everything done; 1 changes are pending or impossible;
2 error, or a step of --apply failed.";

/// Compare topics and subjects with the configuration; create and update them
///
/// Compares the configuration with Kafka and the schema registry: partitions, replicas and settings of each topic,
/// schema and compatibility level of each subject. Shows the plan and changes nothing without --apply.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Carry out the plan
    #[arg(long)]
    apply: bool,
    /// Also add partitions: new records of a key may then go to another partition than its old ones
    #[arg(long)]
    allow_repartition: bool,
    /// Also shorten retention and enable compaction or deletion: Kafka then removes records
    #[arg(long)]
    allow_removal: bool,
    /// Also write the registered versions of each schema file to `versions/NAME/` next to it, for `check` to compare
    /// with
    #[arg(long, requires = "apply")]
    keep_versions: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct ProvisionReport<'a> {
    /// The number of changes before --apply.
    pending: usize,
    blocked: usize,
    #[serde(flatten)]
    plan: &'a ProvisionPlan,
    /// The steps of --apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<Done>>,
    /// The files that --keep-versions wrote.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kept: Vec<PathBuf>,
}

/// Shows the plan, and carries it out with --apply.
///
/// # Errors
/// Problems of the configuration; no answer from Kafka or the registry; a topic that cannot be read; steps that
/// failed.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    let loaded = config.load()?;
    let (sources, schemas) = app::compile(&loaded)?;
    let connection =
        ClusterConfig::new(loaded.config.kafka.bootstrap_servers.clone(), loaded.properties.clone());
    let admin = Admin::new(&connection)?;
    let registry = Registry::new(&loaded)?;
    let planner =
        Planner { loaded: &loaded, sources: &sources, schemas: &schemas, admin: &admin, registry: &registry };
    let allowed = Allowed { repartition: args.allow_repartition, removal: args.allow_removal };
    let plan = planner.plan(allowed).await?;
    if !args.json {
        show(&plan, args.apply)?;
    }
    let (mut steps, mut failed) = (None, 0);
    if args.apply {
        let mut done = Vec::new();
        let report_step = |step: Done| {
            if !args.json {
                show_step(&step)?;
            }
            done.push(step);
            anyhow::Ok(())
        };
        failed = planner.apply(&plan, report_step).await?;
        steps = Some(done);
    }
    let (kept, not_kept) =
        if args.keep_versions { planner.keep_versions().await? } else { Default::default() };
    let (pending, blocked) = (plan.pending(), plan.blocked());
    if args.json {
        print_json(&ProvisionReport { pending, blocked, plan: &plan, steps, kept })?;
    } else {
        if args.keep_versions && schemas.iter().all(|schema| schema.file.is_none()) {
            line(0, PLAIN, ' ', "stored  nothing: no schema is a file below schemas/")?;
        }
        kept.iter().try_for_each(|path| line(0, ADD, ' ', &format!("stored  {}", path.display())))?;
    }
    not_kept.iter().try_for_each(|why| output::note(&format!("versions were not stored: {why}")))?;
    let unknown = plan.items.iter().filter(|item| item.unknown).count();
    anyhow::ensure!(unknown == 0, "{unknown} topics or subjects cannot be read: see the plan");
    anyhow::ensure!(not_kept.is_empty(), "the versions of {} subjects were not stored", not_kept.len());
    anyhow::ensure!(failed == 0, "{failed} steps failed: fix what they report, and apply again");
    if args.apply {
        anyhow::ensure!(
            blocked == 0,
            "{blocked} topics or subjects cannot be changed as configured: see the plan"
        );
        return Ok(ExitStatus::Success);
    }
    Ok(if pending + blocked == 0 { ExitStatus::Success } else { ExitStatus::Failure })
}

const ADD: Style = AnsiColor::Green.on_default();
const ALTER: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const PLAIN: Style = Style::new();

fn show(plan: &ProvisionPlan, apply: bool) -> anyhow::Result<()> {
    let quiet = |item: &&Item| {
        item.action == PlanAction::Keep
            && item.left.is_empty()
            && item.foreign.is_empty()
            && item.faults.is_empty()
    };
    plan.items.iter().filter(|item| !quiet(item)).try_for_each(show_item)?;
    plan.grants.iter().try_for_each(|grant| line(0, PLAIN, ' ', &format!("grant with: {grant}")))?;
    let count = |action: PlanAction| plan.items.iter().filter(|item| item.action == action).count();
    let (create, change, keep) =
        (count(PlanAction::Create), count(PlanAction::Change), count(PlanAction::Keep));
    let mut text = format!("plan: {create} to create, {change} to change, {keep} to keep");
    if plan.blocked() > 0 {
        text.push_str(&format!("; {} cannot be changed as configured (!)", plan.blocked()));
    }
    if create + change > 0 && !apply {
        text.push_str("; --apply does it");
    }
    Ok(output::print_line(&text)?)
}

fn show_item(item: &Item) -> anyhow::Result<()> {
    let kind = match item.kind {
        ItemKind::Topic => "topic",
        ItemKind::Subject => "subject",
    };
    let (style, sign) = match item.action {
        _ if !item.faults.is_empty() => (BAD, '!'),
        PlanAction::Create => (ADD, '+'),
        PlanAction::Change => (ALTER, '~'),
        PlanAction::Keep => (PLAIN, '='),
    };
    line(0, style, sign, &format!("{kind} {}", item.name))?;
    let names = item.changes.iter().map(|change| &change.setting);
    let names = names.chain(item.left.iter().map(|left| &left.setting)).chain(item.foreign.keys());
    let width = names.map(String::len).max().unwrap_or_default();
    for SettingChange { setting, from, to, note } in &item.changes {
        let note = note.as_ref().map(|note| format!("   {note}")).unwrap_or_default();
        let to = readable(setting, to);
        match from {
            None => line(4, ADD, '+', &format!("{setting:<width$}  {to}{note}"))?,
            Some(from) => {
                let from = readable(setting, from);
                line(4, ALTER, '~', &format!("{setting:<width$}  {from} -> {to}{note}"))?;
            }
        }
    }
    for FieldChange { field, from, to } in &item.fields {
        match (from, to) {
            (None, Some(to)) => line(6, ADD, '+', &format!("{field} {to}"))?,
            (Some(from), Some(to)) => line(6, ALTER, '~', &format!("{field} {from} -> {to}"))?,
            (from, None) => line(6, BAD, '-', &format!("{field} {}", from.as_deref().unwrap_or_default()))?,
        }
    }
    item.notes.iter().try_for_each(|note| {
        let text = format!("{:4}note  {}", "", escape_controls(note));
        anyhow::Ok(output::print_line(&text)?)
    })?;
    for Unchanged { setting, actual, wished: desired, why } in &item.left {
        let (actual, desired) = (readable(setting, actual), readable(setting, desired));
        line(4, PLAIN, '=', &format!("{setting:<width$}  {actual}   not {desired}: {why}"))?;
    }
    for (setting, value) in &item.foreign {
        let value = readable(setting, value);
        line(4, PLAIN, '=', &format!("{setting:<width$}  {value}   not managed by hookstream"))?;
    }
    item.faults.iter().try_for_each(|fault| line(4, BAD, '!', fault))
}

fn show_step(Done { step, error }: &Done) -> anyhow::Result<()> {
    match error {
        None => line(0, ADD, ' ', &format!("done    {step}")),
        Some(error) => line(0, BAD, ' ', &format!("FAILED  {step}: {error}")),
    }
}

/// The value; milliseconds also as a readable duration.
fn readable<'a>(setting: &str, value: &'a str) -> Cow<'a, str> {
    match value.parse::<i64>() {
        Ok(-1) if setting.ends_with(".ms") => Cow::Owned(format!("{value} (forever)")),
        Ok(ms) if setting.ends_with(".ms") && ms >= 1000 => {
            let time = humantime::format_duration(Duration::from_millis(ms.unsigned_abs()));
            Cow::Owned(format!("{value} ({time})"))
        }
        _ => Cow::Borrowed(value),
    }
}

fn line(indent: usize, style: Style, sign: char, text: &str) -> anyhow::Result<()> {
    let text = escape_controls(text);
    let text = format!("{:indent$}{style}{sign}{style:#} {text}", "");
    Ok(output::print_line(text.trim_end())?)
}
