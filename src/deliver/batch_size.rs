//! The batch size of the drain: as many rows as Kafka acknowledges without getting slower, since what slows it for the
//! drain slows it for live deliveries, too; and at least as many as there are live deliveries.

use std::time::Duration;

/// The maximum that the sizer chooses.
pub(super) const MAX_ROWS: usize = 64;

/// The maximum number of rows that follow live deliveries in one batch. If Kafka takes a second for each batch, this
/// keeps up with 200 live deliveries a second: every second batch is a measurement, and each is followed by a pause.
pub(super) const MAX_OWED: usize = 512;

/// The minimum and the initial size: the duration of such a batch is Kafka's base latency.
const MIN_ROWS: usize = 4;

/// A batch is late above this multiple of the base latency: live deliveries wait behind it.
const LATE: f64 = 1.5;

/// The base latency may grow by at most this factor per measurement, so that one slow batch does not make all others
/// look fast. The price: it takes about a dozen rounds to adapt to a Kafka that has become slower.
const SLOWER: f64 = 1.05;

/// The size grows by a step with each batch, and starts again from the minimum if Kafka answers late or the maximum is
/// reached. The limit for "late" is measured, not configured: an acknowledgement across regions takes longer than one
/// within a rack. It is measured again in each round: the first batches after an outage are slow whatever their size,
/// and would make all others look fast.
#[derive(Debug)]
pub(super) struct BatchSizer {
    rows: usize,
    base_latency: Duration,
}

impl BatchSizer {
    pub(super) fn new() -> Self {
        Self { rows: MIN_ROWS, base_latency: Duration::from_secs(1) }
    }

    /// The number of rows of the next batch. `owed` is the number of live deliveries that no row of the backlog has
    /// followed yet: the backlog shrinks at least at the rate of live deliveries, so that it lasts no longer than the
    /// outage did, however slowly and unsteadily Kafka answers. Batches of the minimum size are measurements and stay
    /// small.
    pub(super) fn rows(&self, owed: usize) -> usize {
        if self.rows == MIN_ROWS { MIN_ROWS } else { self.rows.max(owed.min(MAX_OWED)) }
    }

    /// Records the time until the last batch was completely acknowledged.
    pub(super) fn record(&mut self, took: Duration) {
        if self.rows == MIN_ROWS {
            self.base_latency = took.min(self.base_latency.mul_f64(SLOWER));
        }
        let late = took > self.base_latency.mul_f64(LATE);
        self.rows = if late || self.rows == MAX_ROWS { MIN_ROWS } else { self.rows + MIN_ROWS };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The average number of rows in the steady state of a cluster that takes `micros(n)` for a batch of n rows.
    fn steady(micros: impl Fn(u64) -> u64) -> usize {
        let mut sizer = BatchSizer::new();
        sizer.record(Duration::from_millis(800)); // the first one after an outage
        let mut sum = 0;
        for n in 0..400 {
            sizer.record(Duration::from_micros(micros(sizer.rows(0) as u64)));
            sum += if n < 200 { 0 } else { sizer.rows(0) };
        }
        sum / 200
    }

    #[test]
    fn a_distant_but_idle_cluster_gets_large_batches() {
        assert!(steady(|_| 40_000) >= MAX_ROWS / 2);
        assert!(steady(|rows| 2_000 + 10 * rows) >= MAX_ROWS / 2);
    }

    #[test]
    fn a_cluster_that_is_slower_with_more_rows_gets_small_batches() {
        let rows = steady(|rows| 2_000 + 500 * rows);
        assert!((MIN_ROWS..20).contains(&rows), "{rows}");
    }

    #[test]
    fn a_backlog_shrinks_at_the_rate_of_live_deliveries_however_unsteadily_kafka_answers() {
        let (mut sizer, mut random) = (BatchSizer::new(), fastrand::Rng::with_seed(7));
        let (mut owed, mut live, mut drained) = (0, 0, 0);
        for _ in 0..1000 {
            let new = random.usize(0..40);
            live += new;
            owed += new;
            let rows = sizer.rows(owed);
            drained += rows;
            owed = owed.saturating_sub(rows);
            // Each second batch takes up to four times as long, which the drain does not cause.
            sizer.record(Duration::from_micros(random.u64(10_000..40_000)));
        }
        assert!(drained + 2 * MAX_ROWS >= live, "{drained} rows beside {live} live deliveries");
        assert!(sizer.rows(usize::MAX) <= MAX_OWED, "never more than the maximum");
    }

    #[test]
    fn a_backlog_shrinks_at_the_rate_of_live_deliveries_also_if_each_batch_takes_a_second() {
        let mut sizer = BatchSizer::new();
        let (mut owed, mut drained) = (0, 0);
        for second in 0..100 {
            owed += 100;
            let rows = sizer.rows(owed);
            drained += rows;
            owed = owed.saturating_sub(rows);
            sizer.record(Duration::from_millis(if second % 3 == 0 { 300 } else { 1_000 }));
        }
        assert!(drained + 3 * 100 >= 100 * 100, "{drained} rows beside 10000 live deliveries");
    }
}
