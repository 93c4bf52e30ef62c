//! What the metrics ask for, whether or not somebody scrapes them.

use std::time::Duration;

use super::metrics;

/// Between two turns.
pub const EVERY: Duration = Duration::from_secs(5);

/// Never ends.
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

    /// In KiB.
    fn resident() -> i64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Kept all, they would be 130 MiB: far past what the tests beside this one take.
    #[tokio::test]
    async fn durations_do_not_pile_up_where_nobody_scrapes() {
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
