//! One run: load, faults, recovery, and the verdict.

use std::time::{Duration, Instant};

use crate::deliveries;
use crate::faults::{Fault, Schedule, kill_repeatedly};
use crate::senders::Ledger;
use crate::verdict::{self, Judge, Verdict};
use crate::world::{World, drained, parked, ready};

/// The parameters of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long faults are injected; each kind is injected at least once, however short this is.
    pub time: Duration,
    /// The seed of deliveries and faults.
    pub seed: u64,
    /// New deliveries per second.
    pub rate: u32,
    /// The kinds of faults, in addition to kills of the service.
    pub faults: Vec<Fault>,
    /// The deliberate bug to find.
    pub bug: Option<&'static str>,
}

/// Runs it, prints the table, and fails if the delivery guarantee was violated.
pub async fn run(plan: Plan) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("hookstream-chaos-").tempdir()?;
    println!("the oracle: seed {}, {} s of faults, {}/s", plan.seed, plan.time.as_secs(), plan.rate);
    let result = within(&plan, dir.path()).await;
    if plan.bug.is_none() && result.is_err() {
        println!("logs: {}", dir.keep().display());
    }
    result
}

async fn within(plan: &Plan, dir: &std::path::Path) -> anyhow::Result<()> {
    let mut world = World::start(dir, plan.seed, plan.bug).await?;
    let load = tokio::spawn(world.senders.clone().run(plan.rate));
    let kills = tokio::spawn(kill_repeatedly(plan.seed, world.program.clone()));
    let broken = faults(plan, &mut world).await;
    kills.abort();
    broken?;
    world.senders.stop();
    load.await??;
    // A restart after the last fault, since only what is on disk counts.
    let _ = kills.await;
    world.program.kill().await?;
    let admin = world.program.service.lock().await.admin;
    ready(admin).await?;
    drained(admin).await?;
    let parked = parked(&dir.join("hookstream.toml"))?;
    let mut found = std::mem::take(&mut world.archive);
    for topic in
        deliveries::topics().into_iter().chain(deliveries::SOURCES.map(|s| format!("dead_letter.{s}")))
    {
        found.extend(verdict::read(&world.cluster.direct(), &topic).await?);
    }
    let judging =
        Judge { seed: plan.seed, sent: world.senders.started(), deleted: &world.deleted, parked: &parked };
    let ledger = world.senders.ledger().clone();
    let verdict = judging.count(&ledger, &found, &world.registry).await?;
    print(plan, &world, &ledger, &verdict);
    judge(&verdict, &ledger)
}

/// Injects faults with pauses between them, until the time is over and each kind was injected.
async fn faults(plan: &Plan, world: &mut World) -> anyhow::Result<()> {
    let mut schedule = Schedule::new(plan.seed, plan.faults.clone());
    let start = Instant::now();
    loop {
        tokio::time::sleep(schedule.quiet()).await; // load without a fault
        if start.elapsed() > plan.time && schedule.is_round() {
            return Ok(());
        }
        let fault = schedule.next();
        println!("{:>6.1} s  {fault:?}", start.elapsed().as_secs_f64());
        schedule.inject(fault, world).await?;
    }
}

fn print(plan: &Plan, world: &World, ledger: &Ledger, verdict: &Verdict) {
    let accepted = |status: u16| ledger.accepted.values().filter(|one| one.status == status).count();
    let kills = world.program.kills.load(std::sync::atomic::Ordering::Relaxed);
    let slow = 100.0 * ledger.slow as f64 / ledger.tally.sent().max(1) as f64;
    println!();
    let row = |name: &str, value: String| println!("  {name:<34} {value}");
    row("sent", format!("{} deliveries, {} requests", ledger.sent, ledger.tally.sent()));
    row("answered 200 first", accepted(200).to_string());
    row("answered 202 first (spooled)", accepted(202).to_string());
    for (kind, count) in ledger.tally.kinds.iter().filter(|(kind, _)| kind.status.is_some()) {
        row(&format!("  {kind}"), count.to_string());
    }
    let unanswered = ledger.tally.count(|kind| kind.status.is_none());
    row("connections broken", (unanswered - ledger.late).to_string());
    row("abandoned by their sender", ledger.abandoned.to_string());
    row("records read", verdict.records.to_string());
    row("duplicates", verdict.duplicates.to_string());
    row("parked", verdict.parked.to_string());
    row("deleted with their topic", verdict.gone_with_topic.to_string());
    row("lost", verdict.lost.len().to_string());
    row("forged", verdict.forged.len().to_string());
    row("wrong", (verdict.wrong.len() + ledger.wrong.len()).to_string());
    row("late (past the provider's 5 s)", ledger.late.to_string());
    row("later than the deadline + 250 ms", format!("{} ({slow:.3} %)", ledger.slow));
    let at = |quantile| ledger.tally.latency(quantile).unwrap_or_default();
    row("answered after, ms", format!("p50 {:.0}, p99 {:.0}, max {:.0}", at(0.5), at(0.99), at(1.0)));
    row("faults: service killed", kills.to_string());
    for (fault, count) in &world.injected {
        row(&format!("  {fault:?}"), count.to_string());
    }
    row("seed", plan.seed.to_string());
    for line in verdict.lost.iter().chain(&verdict.forged).chain(&verdict.wrong).chain(&ledger.wrong).take(20)
    {
        println!("  ! {line}");
    }
}

/// A violation of the delivery guarantee.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the delivery guarantee is violated: {lost} lost, {forged} forged, {wrong} wrong, {late} late, {slow} slow"
)]
pub struct Broken {
    /// Answered 2xx but stored nowhere.
    pub lost: u64,
    forged: u64,
    wrong: u64,
    late: u64,
    /// Answers later than the deadline and its slack; 0 if at most one in a thousand.
    slow: u64,
}

fn judge(verdict: &Verdict, ledger: &Ledger) -> anyhow::Result<()> {
    // A run without deliveries would prove nothing.
    anyhow::ensure!(!ledger.accepted.is_empty() && verdict.records > 0, "no delivery was accepted");
    let broken = Broken {
        lost: verdict.lost.len() as u64,
        forged: verdict.forged.len() as u64,
        wrong: (verdict.wrong.len() + ledger.wrong.len()) as u64,
        late: ledger.late,
        slow: if ledger.slow * 1000 > ledger.tally.sent() { ledger.slow } else { 0 },
    };
    if broken == (Broken { lost: 0, forged: 0, wrong: 0, late: 0, slow: 0 }) {
        Ok(())
    } else {
        Err(broken.into())
    }
}
