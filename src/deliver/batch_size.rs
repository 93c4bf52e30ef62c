//! How many rows the drain hands over at a time: as many as Kafka takes without answering later for
//! it, since what makes it slow for the drain makes it slow for live deliveries, too.

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

    /// Rows of the next batch.
    pub(super) fn rows(&self) -> usize {
        self.rows
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
            pace.record(Duration::from_micros(micros(pace.rows() as u64)));
            sum += if n < 200 { 0 } else { pace.rows() };
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
}
