//! How many rows the drain hands over at a time: as many as Kafka acknowledges without getting slower, since a Kafka that
//! is slow for the drain is slow for live deliveries, too; and at least as many as live deliveries come.

use std::time::Duration;

/// The most: a backlog never fills librdkafka's queue.
pub(super) const MAX_ROWS: usize = 64;

/// The least, and the first: what such a batch takes is Kafka's own time.
const LEAST: usize = 4;

/// What a batch may take of that time before it counts as late: live deliveries wait behind it.
const LATE: f64 = 1.5;

/// So much more may the next batch of the least size take to be believed: a slow one does not make all
/// others look fast. The price: where Kafka is slower for good, that is learned in some dozen rounds.
const SLOWER: f64 = 1.05;

/// Grows by a step with each batch, and starts over when Kafka answers late, or from the most. What
/// counts as late is measured and not set: an acknowledgement across regions takes longer than one in
/// a rack. It is measured again in each round: the first batches after an outage are slow whatever
/// their size, and would make all others look fast.
#[derive(Debug)]
pub(super) struct BatchSizer {
    rows: usize,
    least_took: Duration,
}

impl BatchSizer {
    pub(super) fn new() -> Self {
        Self { rows: LEAST, least_took: Duration::from_secs(1) }
    }

    /// Rows of the next batch. `owed` is the number of live deliveries that no row of the backlog has followed yet: the
    /// backlog shrinks at least at the rate of live deliveries, so that it lasts no longer than the outage did, however
    /// unsteadily Kafka answers. Batches of the least size are measurements and stay small.
    pub(super) fn rows(&self, owed: usize) -> usize {
        if self.rows == LEAST { LEAST } else { self.rows.max(owed).min(MAX_ROWS) }
    }

    /// How long the last batch took to be acknowledged as a whole.
    pub(super) fn record(&mut self, took: Duration) {
        if self.rows == LEAST {
            self.least_took = took.min(self.least_took.mul_f64(SLOWER));
        }
        let late = took > self.least_took.mul_f64(LATE);
        self.rows = if late || self.rows == MAX_ROWS { LEAST } else { self.rows + LEAST };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows in the steady state of a cluster that takes so long for a batch of n rows.
    fn steady(micros: impl Fn(u64) -> u64) -> usize {
        let mut pace = BatchSizer::new();
        pace.record(Duration::from_millis(800)); // the first one after an outage
        let mut sum = 0;
        for n in 0..400 {
            pace.record(Duration::from_micros(micros(pace.rows(0) as u64)));
            sum += if n < 200 { 0 } else { pace.rows(0) };
        }
        sum / 200
    }

    #[test]
    fn a_cluster_that_is_far_but_not_busy_is_given_large_batches() {
        assert!(steady(|_| 40_000) >= MAX_ROWS / 2);
        assert!(steady(|rows| 2_000 + 10 * rows) >= MAX_ROWS / 2);
    }

    #[test]
    fn a_cluster_that_answers_later_for_more_rows_is_given_few() {
        let rows = steady(|rows| 2_000 + 500 * rows);
        assert!((LEAST..20).contains(&rows), "{rows}");
    }

    #[test]
    fn a_backlog_shrinks_at_the_rate_of_live_deliveries_however_unsteadily_kafka_answers() {
        let (mut pace, mut random) = (BatchSizer::new(), fastrand::Rng::with_seed(7));
        let (mut owed, mut live, mut drained) = (0, 0, 0);
        for _ in 0..1000 {
            let came = random.usize(0..40);
            live += came;
            owed += came;
            let rows = pace.rows(owed);
            drained += rows;
            owed = owed.saturating_sub(rows);
            // Each second batch takes up to four times as long, for no reason of the drain's.
            pace.record(Duration::from_micros(random.u64(10_000..40_000)));
        }
        assert!(drained + 2 * MAX_ROWS >= live, "{drained} rows beside {live} live deliveries");
        assert_eq!(pace.rows(usize::MAX).min(MAX_ROWS), pace.rows(usize::MAX), "never more than the most");
    }
}
