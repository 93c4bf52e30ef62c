//! Alternating rounds without and with the crowd on one running service.

use std::fmt;
use std::time::Duration;

use crate::crowd::{Crowd, Plan};
use crate::honest::{Honest, Times, percentile};
use crate::service::Service;
use crate::support::until;

/// One round: 350 deliveries, on kept-alive and new connections together.
const ROUND: Duration = Duration::from_millis(3_500);

/// A smaller difference is ignored even if it doubles the p99: one time slice of another process on the same core.
const FLOOR: Duration = Duration::from_millis(5);

/// The same on a busy machine, where deliveries wait for a processor, and a service with more work waits longer. A fault of
/// the service costs more: a client that finds the listen queue full reconnects after a second.
const FLOOR_WHEN_BUSY: Duration = Duration::from_millis(900);

/// Additional pairs of rounds if the first ones fail. A fault of the service shows in all of them, a busy moment of the
/// machine in one or two.
const MORE: usize = 4;

/// The interval between two counts of the service's open files, which also slow the service.
const COUNT_INTERVAL: Duration = Duration::from_millis(100);

/// The measurements of a round.
struct Round {
    times: Times,
    /// Resident memory at its end, in KiB.
    memory: usize,
    /// How long the service's threads ran, and how long they waited for a processor.
    ran: Duration,
    waited: Duration,
}

impl Round {
    async fn measure(service: &Service, honest: &mut Honest, name: &str) -> Self {
        let before = service.scheduled();
        let times = honest.round(name, ROUND).await;
        let after = service.scheduled();
        let (ran, waited) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
        Self { times, memory: service.memory(), ran, waited }
    }

    fn p99(&self) -> Duration {
        percentile(&self.times.all(), 99)
    }
}

/// The rounds of both kinds.
pub struct Compared {
    without: Vec<Round>,
    with: Vec<Round>,
}

/// Measures this many pairs of rounds, or some more. Fails if an honest delivery is not published, if the crowd does
/// not last, or if its connections remain after its end.
pub async fn compare(service: &Service, plan: &Plan, honest: &mut Honest, pairs: usize) -> Compared {
    // The first deliveries are slow, since topics and pools are new.
    honest.round("warm", ROUND / 4).await;
    let files = service.files();
    let mut compared = Compared { without: Vec::new(), with: Vec::new() };
    let mut pair = 0;
    while pair < pairs || (pair < pairs + MORE && !compared.is_unaffected()) {
        let name = format!("without_{pair}");
        compared.without.push(Round::measure(service, honest, &name).await);
        let crowd = Crowd::start(plan);
        let min_open = plan.lasting() * 95 / 100;
        until("the whole crowd to be accepted", async || {
            tokio::time::sleep(COUNT_INTERVAL).await; // `until` polls faster, and each poll costs measured time
            let report = crowd.report();
            // If all kinds reconnect, one client has received an answer.
            let begun = min_open > 0 || !report.answers.is_empty();
            begun && report.open() >= min_open && (min_open == 0 || service.files() >= files + min_open)
        })
        .await;
        compared.with.push(Round::measure(service, honest, &format!("with_{pair}")).await);
        let held = service.files().saturating_sub(files);
        println!("pair {pair}: {compared}{held} connections held: {:?}", crowd.report());
        assert!(held >= min_open, "the crowd did not last for the round");
        drop(crowd);
        until("the end of the crowd's connections", async || {
            tokio::time::sleep(COUNT_INTERVAL).await; // `until` polls faster, and each poll costs measured time
            service.files() <= files + 20
        })
        .await;
        pair += 1;
    }
    compared
}

impl Compared {
    /// Whether other processes used so much processor time that the service, in the rounds without a crowd, waited longer
    /// than it ran. Without other load, it waits half as long as it runs.
    fn is_busy(&self) -> bool {
        median(&self.without, |round| round.waited) > median(&self.without, |round| round.ran)
    }

    /// The limit for the p99 with the crowd.
    fn bound(&self) -> Duration {
        let without = median(&self.without, Round::p99);
        let floor = if self.is_busy() { FLOOR_WHEN_BUSY } else { FLOOR };
        (2 * without).max(without + floor)
    }

    fn is_unaffected(&self) -> bool {
        median(&self.with, Round::p99) < self.bound()
    }

    pub fn assert_unaffected(&self) {
        assert!(self.is_unaffected(), "the crowd affects honest clients:\n{self}");
    }

    /// The memory that the crowd uses, in KiB.
    pub fn memory(&self) -> usize {
        let most = |rounds: &[Round]| rounds.iter().map(|round| round.memory).max().unwrap();
        most(&self.with) - self.without[0].memory
    }
}

fn median<T: Ord + Copy>(rounds: &[Round], value: impl Fn(&Round) -> T) -> T {
    let mut all: Vec<T> = rounds.iter().map(value).collect();
    all.sort_unstable();
    all[(all.len() - 1) / 2]
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rounds, bound) = (self.with.len(), self.bound());
        let busy = if self.is_busy() { ", on a busy machine" } else { "" };
        writeln!(f, "{rounds} rounds each; p99 with the crowd must stay below {bound:.0?}{busy}. Medians:")?;
        writeln!(
            f,
            "        p50 kept   new    p99 kept   new  both ms    service ran waited ms    resident MiB"
        )?;
        for (name, rounds) in [("without", &self.without), ("with", &self.with)] {
            let ms = |value: &dyn Fn(&Round) -> Duration| median(rounds, value).as_secs_f64() * 1e3;
            writeln!(
                f,
                "{name:7} {:8.1} {:5.1} {:11.1} {:5.1} {:5.1} {:15.0} {:6.0} {:15}",
                ms(&|round| percentile(&round.times.kept, 50)),
                ms(&|round| percentile(&round.times.fresh, 50)),
                ms(&|round| percentile(&round.times.kept, 99)),
                ms(&|round| percentile(&round.times.fresh, 99)),
                ms(&Round::p99),
                ms(&|round| round.ran),
                ms(&|round| round.waited),
                median(rounds, |round| round.memory) / 1024,
            )?;
        }
        Ok(())
    }
}
