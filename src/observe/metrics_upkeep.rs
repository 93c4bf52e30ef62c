//! Periodic upkeep of the metrics, independent of scrapes.

use std::time::Duration;

use super::metrics;

/// The interval between two upkeep runs.
pub const EVERY: Duration = Duration::from_secs(5);

/// Does not return.
pub async fn run(every: Duration) {
    let mut turns = tokio::time::interval(every);
    loop {
        turns.tick().await;
        metrics::upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::DeliveryMeter;
    use crate::outcome::Outcome;

    /// The resident memory in KiB.
    fn resident() -> i64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Without upkeep they would take 130 MiB, far more than concurrent tests allocate.
    #[tokio::test]
    async fn durations_do_not_accumulate_if_nobody_scrapes() {
        metrics::init();
        let every = Duration::from_millis(1);
        let upkeep = tokio::spawn(run(every));
        let meter = DeliveryMeter::new("nobody-scrapes");
        let before = resident();
        for _ in 0..64 {
            (0..1 << 17).for_each(|_| meter.count(Outcome::Published, None, Duration::from_millis(1)));
            tokio::time::sleep(2 * every).await;
        }
        let grown = resident() - before;
        assert!(grown < 64 << 10, "{grown} KiB");
        upkeep.abort();
    }
}
