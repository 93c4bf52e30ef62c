//! Runs the oracle with each failpoint active: it must find every deliberate bug. Needs the feature `failpoints`.

use std::time::Duration;

use hookstream::failpoints::Failpoint;

use crate::faults::Fault;
use crate::oracle::{self, Broken, Plan};
use crate::order;

/// Fails if a bug is not found.
pub async fn run(seed: u64) -> anyhow::Result<()> {
    anyhow::ensure!(cfg!(feature = "failpoints"), "this build has no failpoints: add --features failpoints");
    // A kill loses only rows that the drain has handed over and that have not reached a broker yet. In about one kill of
    // ten, all have reached a broker, so the fault is injected three times.
    for (bug, fault, times) in [
        (Failpoint::AnswerBeforeAck, Fault::AllBrokersKilled, 1),
        (Failpoint::RowDroppedBeforeAck, Fault::KilledWhileDraining, 3),
    ] {
        println!("\nfailpoint: {}", bug.name());
        let faults = vec![fault; times];
        let plan = Plan { time: Duration::ZERO, seed, rate: 100, faults, bug: Some(bug.name()) };
        match oracle::run(plan).await {
            Err(error) if error.downcast_ref::<Broken>().is_some_and(|broken| broken.lost > 0) => {
                println!("found: {error}");
            }
            Err(other) => return Err(other),
            Ok(()) => anyhow::bail!("{} was not found", bug.name()),
        }
    }
    println!("\nfailpoint: {}", Failpoint::NoSync.name());
    let verdict = order::check(Some(Failpoint::NoSync)).await?;
    anyhow::ensure!(
        verdict.violations.len() >= verdict.answered,
        "{} was not found",
        Failpoint::NoSync.name()
    );
    println!("found: {} violations of {} answers", verdict.violations.len(), verdict.answered);
    Ok(())
}
