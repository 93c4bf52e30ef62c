//! The test of the oracle: a bug is planted, and it must find it. Needs the feature `planted`.

use std::time::Duration;

use hookstream::planted::Bug;

use crate::faults::Fault;
use crate::oracle::{self, Broken, Plan};
use crate::order;

/// Fails when a bug is not found.
pub async fn run(seed: u64) -> anyhow::Result<()> {
    anyhow::ensure!(cfg!(feature = "planted"), "no bug can be planted: add --features planted");
    // Of rows that the drain has handed over, a kill loses those that have not reached a broker yet. Where all
    // have, and only their acknowledgements are under way, it loses none: about one kill in ten.
    for (bug, fault, times) in [
        (Bug::AnswerBeforeAck, Fault::AllBrokersKilled, 1),
        (Bug::RowDroppedBeforeAck, Fault::KilledWhileDraining, 3),
    ] {
        println!("\nplanted: {}", bug.name());
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
    println!("\nplanted: {}", Bug::NoSync.name());
    let verdict = order::check(Some(Bug::NoSync)).await?;
    anyhow::ensure!(verdict.violations.len() >= verdict.answered, "{} was not found", Bug::NoSync.name());
    println!("found: {} violations of {} answers", verdict.violations.len(), verdict.answered);
    Ok(())
}
