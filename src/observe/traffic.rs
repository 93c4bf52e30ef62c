//! Recent outcomes of a source's deliveries, for `/status`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::metrics;
use super::window::SlidingWindow;
use crate::outcome::{Outcome, Reason};

const NEVER: i64 = i64::MIN;

/// The seconds of one slot, and of the intervals shown.
const SLOT: u32 = 10;
const SHORT: u32 = 5 * 60;
const LONG: u32 = 60 * 60;

/// The traffic of one source; a reload carries it over by the source's name. Counting takes no lock.
pub struct Traffic {
    /// Milliseconds since 1970.
    last_request: AtomicI64,
    last_accepted: AtomicI64,
    gauge: ::metrics::Gauge,
    meter: metrics::DeliveryMeter,
    outcomes: [(Outcome, SlidingWindow); Outcome::ALL.len()],
}

impl std::fmt::Debug for Traffic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Traffic")
    }
}

/// Counts by outcome.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Acknowledged by Kafka.
    pub published: u64,
    /// Stored in the spool at the time of the answer.
    pub spooled: u64,
    /// Published as dead letters.
    pub dead_lettered: u64,
    /// Handshakes answered by the source.
    pub handled: u64,
    /// Answered 4xx.
    pub refused: u64,
    /// Answered 503.
    pub unavailable: u64,
}

/// The traffic as `/status` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub struct TrafficSnapshot {
    /// The end of the last request, in RFC 3339; null if there was none since the start.
    pub last_request: Option<Timestamp>,
    /// The end of the last request that was published, spooled or dead-lettered.
    pub last_accepted: Option<Timestamp>,
    /// Outcomes of the last five minutes; the interval is short by up to ten seconds.
    pub last_5_minutes: Outcomes,
    /// Outcomes of the last hour, likewise.
    pub last_hour: Outcomes,
}

impl Traffic {
    /// Creates the traffic of the named source. Before [`metrics::init`], its gauge is not exported.
    pub fn new(source: &str) -> Self {
        Self {
            last_request: AtomicI64::new(NEVER),
            last_accepted: AtomicI64::new(NEVER),
            gauge: metrics::last_accepted(source),
            meter: metrics::DeliveryMeter::new(source),
            outcomes: Outcome::ALL.map(|outcome| (outcome, SlidingWindow::new(SLOT, (LONG / SLOT) as usize))),
        }
    }

    /// Counts a completed delivery, here and in the metrics.
    pub fn count(&self, outcome: Outcome, reason: Option<Reason>, took: Duration, now: Timestamp) {
        self.meter.count(outcome, reason, took);
        self.last_request.fetch_max(now.as_millisecond(), Ordering::Relaxed);
        if matches!(outcome, Outcome::Published | Outcome::Spooled | Outcome::DeadLettered) {
            self.last_accepted.fetch_max(now.as_millisecond(), Ordering::Relaxed);
            self.gauge.set(metrics::seconds(now));
        }
        if let Some((_, window)) = self.outcomes.iter().find(|(one, _)| *one == outcome) {
            window.add(now);
        }
    }

    /// A snapshot for `/status`.
    pub fn shown(&self, now: Timestamp) -> TrafficSnapshot {
        let time = |last: &AtomicI64| Timestamp::from_millisecond(last.load(Ordering::Relaxed)).ok();
        TrafficSnapshot {
            last_request: time(&self.last_request),
            last_accepted: time(&self.last_accepted),
            last_5_minutes: self.sums(now, SHORT),
            last_hour: self.sums(now, LONG),
        }
    }

    fn sums(&self, now: Timestamp, seconds: u32) -> Outcomes {
        let mut sums = Outcomes::default();
        for (outcome, window) in &self.outcomes {
            let count = window.sum(now, seconds);
            match outcome {
                Outcome::Published => sums.published = count,
                Outcome::Spooled => sums.spooled = count,
                Outcome::DeadLettered => sums.dead_lettered = count,
                Outcome::Handled => sums.handled = count,
                Outcome::Refused => sums.refused = count,
                Outcome::Unavailable => sums.unavailable = count,
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_do_not_count_as_accepted_deliveries() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let traffic = Traffic::new("s");
        let none = traffic.shown(at(0));
        assert_eq!((none.last_request, none.last_accepted), (None, None));
        for (outcome, second) in [
            (Outcome::Published, 0),
            (Outcome::DeadLettered, 3_000),
            (Outcome::Refused, 3_100),
            (Outcome::Unavailable, 3_050),
        ] {
            traffic.count(outcome, None, Duration::ZERO, at(second));
        }
        let shown = traffic.shown(at(3_200));
        assert_eq!((shown.last_request, shown.last_accepted), (Some(at(3_100)), Some(at(3_000))));
        let few = Outcomes { dead_lettered: 1, refused: 1, unavailable: 1, ..Outcomes::default() };
        assert_eq!(shown.last_5_minutes, few);
        assert_eq!(shown.last_hour, Outcomes { published: 1, ..few });
    }
}
