//! The back-off of the drain: topics, partitions, and rows that their topic rejects by its configuration. Each is
//! probed with one row at a time. The rows after it are held, so that they neither lose their order nor block other
//! rows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::spool::{Held, Row};

/// The pause after the first failure; doubled with each failure, up to the second value.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(3));

/// The limit of held rows of a topic. Beyond it, the topic's next rows wait until one of its partitions accepts rows
/// again. A higher limit would cost a larger index, which each query of the spool walks.
const MAX_HELD: usize = 4_096;

/// The back-off of a topic, a partition or the rejected rows.
pub(super) struct Backoff {
    until: Instant,
    pause: Option<Duration>,
    /// Rows in flight to Kafka.
    in_flight: usize,
    /// Whether the last failure was [`PublishError::Ambiguous`]. Kafka has answered then, and nothing but a probe was
    /// handed over since: the next probe has its batch to itself.
    ///
    /// [`PublishError::Ambiguous`]: crate::kafka::PublishError::Ambiguous
    ambiguous: bool,
    held: BTreeMap<i64, Held>,
}

impl Backoff {
    /// Creates a back-off that is due at once.
    fn new(now: Instant) -> Self {
        Self { until: now, pause: None, in_flight: 0, ambiguous: false, held: BTreeMap::new() }
    }

    /// Whether the next row may be tried.
    fn is_due(&self, now: Instant) -> bool {
        self.in_flight == 0 && self.until <= now
    }

    /// Records a failure. Of several rows that were in flight together, only the first failure counts.
    fn fails(&mut self, now: Instant) {
        if self.until <= now {
            let pause = self.pause.map_or(PAUSE.0, |pause| (pause * 2).min(PAUSE.1));
            (self.until, self.pause) = (now + pause, Some(pause));
        }
    }

    fn hold(&mut self, row: Row) {
        self.held.insert(row.id, row.hold());
    }
}

/// The back-offs of one topic.
#[derive(Default)]
pub(super) struct TopicBackoff {
    topic: Option<Backoff>,
    partitions: HashMap<i32, Backoff>,
    refused: Option<RejectedRows>,
}

/// Rows that the topic rejects by its configuration, tried one after the other.
struct RejectedRows {
    backoff: Backoff,
    /// Rows that were released for their next try.
    released: HashSet<i64>,
    last: i64,
}

/// What to do with a row of the spool.
pub(super) enum Turn {
    /// Publish the row with the others.
    Go(Row),
    /// Publish the row as a probe, which shows whether the topic or partition is healthy again; `alone` if no other
    /// record can be in its batch.
    Try { row: Row, target: ProbeTarget, alone: bool },
    /// Hold the row.
    Wait,
}

/// The purpose of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeTarget {
    /// Probes the topic or partition.
    Place(Option<i32>),
    /// Retries a row that the topic rejected before.
    Refused(Option<i32>),
}

impl TopicBackoff {
    fn held(&self) -> usize {
        let refused = self.refused.as_ref().map(|refused| &refused.backoff);
        self.partitions.values().chain(refused).map(|backoff| backoff.held.len()).sum()
    }

    /// The number of rows that may be leased. Releases held rows that are due: the spool leases them again, in order.
    pub(super) fn room(&mut self, now: Instant) -> usize {
        if let Some(topic) = &self.topic {
            return usize::from(topic.is_due(now));
        }
        for backoff in self.partitions.values_mut().filter(|backoff| backoff.is_due(now)) {
            backoff.held.pop_first();
        }
        if let Some(RejectedRows { backoff, released, last }) = &mut self.refused
            && backoff.is_due(now)
        {
            let next =
                backoff.held.range(*last + 1..).next().or(backoff.held.iter().next()).map(|(id, _)| *id);
            if let Some(id) = next {
                backoff.held.remove(&id);
                released.insert(id);
                *last = id;
            }
        }
        MAX_HELD.saturating_sub(self.held())
    }

    /// Decides what to do with a leased row. `is_failing` is whether its topic or partition is known to be failing.
    pub(super) fn turn(&mut self, row: Row, partition: Option<i32>, is_failing: bool, now: Instant) -> Turn {
        if let Some(RejectedRows { backoff, released, .. }) = &mut self.refused
            && released.remove(&row.id)
        {
            if backoff.is_due(now) {
                backoff.in_flight += 1;
                // The topic's other rows pass it.
                return Turn::Try { row, target: ProbeTarget::Refused(partition), alone: false };
            }
            backoff.hold(row);
            return Turn::Wait;
        }
        let Some(backoff) = self.place(partition, is_failing, now) else { return Turn::Go(row) };
        if backoff.is_due(now) {
            backoff.in_flight += 1;
            return Turn::Try { row, target: ProbeTarget::Place(partition), alone: backoff.ambiguous };
        }
        backoff.hold(row);
        Turn::Wait
    }

    /// The back-off of the row's topic or partition; created if it is known to be failing.
    fn place(&mut self, partition: Option<i32>, is_failing: bool, now: Instant) -> Option<&mut Backoff> {
        match partition {
            Some(partition) if self.topic.is_none() => {
                if is_failing {
                    self.partitions.entry(partition).or_insert_with(|| Backoff::new(now));
                }
                self.partitions.get_mut(&partition)
            }
            _ => {
                if is_failing {
                    self.topic.get_or_insert_with(|| Backoff::new(now));
                }
                self.topic.as_mut()
            }
        }
    }

    /// Removes back-offs of topics and partitions that are not failing any more.
    pub(super) fn forget_unless(&mut self, is_failing: impl Fn(Option<i32>) -> bool) {
        if self.topic.take_if(|topic| topic.in_flight == 0 && !is_failing(None)).is_some() {
            self.partitions.clear();
        }
        self.partitions.retain(|partition, backoff| backoff.in_flight > 0 || is_failing(Some(*partition)));
    }

    /// Records a row without an answer so far: the other rows of its topic or partition wait for it.
    pub(super) fn lingers(&mut self, partition: Option<i32>, now: Instant) {
        if let Some(backoff) = self.place(partition, true, now) {
            backoff.in_flight += 1;
        }
    }

    /// Records that a probe was answered, with whatever result.
    pub(super) fn answered(&mut self, tried: ProbeTarget) {
        let backoff = match tried {
            ProbeTarget::Refused(_) => self.refused.as_mut().map(|refused| &mut refused.backoff),
            ProbeTarget::Place(Some(partition)) if self.topic.is_none() => {
                self.partitions.get_mut(&partition)
            }
            ProbeTarget::Place(_) => self.topic.as_mut(),
        };
        if let Some(backoff) = backoff {
            backoff.in_flight = backoff.in_flight.saturating_sub(1);
        }
    }

    /// Records an acknowledgement: held rows are released. A topic that recovers releases all of its partitions: while it
    /// failed, answers to rows of a partition counted for the topic, so that the partition's own count may be too high.
    /// The price: a partition that is still failing is found out once more.
    pub(super) fn record_success(
        &mut self,
        partition: Option<i32>,
        tried: Option<ProbeTarget>,
        now: Instant,
    ) {
        if self.topic.take().is_some() {
            self.partitions.clear();
        }
        if let Some(partition) = partition {
            self.partitions.remove(&partition);
        }
        if let (Some(ProbeTarget::Refused(_)), Some(refused)) = (tried, &mut self.refused) {
            // The other rejected rows may pass now, or not: they are tried one by one, without a pause.
            (refused.backoff.until, refused.backoff.pause) = (now, None);
            if refused.backoff.held.is_empty() {
                self.refused = None;
            }
        }
    }

    /// Records a failure of the topic or partition; `ambiguous` if the record itself may be the cause. This row is tried
    /// again first.
    pub(super) fn fails(&mut self, row: Row, partition: Option<i32>, ambiguous: bool, now: Instant) {
        let backoff = match partition {
            Some(partition) if self.topic.is_none() => {
                let backoff = self.partitions.entry(partition).or_insert_with(|| Backoff::new(now));
                backoff.hold(row);
                backoff
            }
            // Of a failing topic, only one row is leased.
            _ => self.topic.get_or_insert_with(|| Backoff::new(now)),
        };
        backoff.fails(now);
        backoff.ambiguous = ambiguous;
    }

    /// Records that the topic rejects this row by its configuration.
    pub(super) fn refuses(&mut self, row: Row, now: Instant) {
        let refused = self.refused.get_or_insert_with(|| RejectedRows {
            backoff: Backoff::new(now),
            released: HashSet::new(),
            last: 0,
        });
        refused.backoff.fails(now);
        refused.backoff.hold(row);
    }

    /// The number of rows that the topic rejects by its configuration.
    pub(super) fn refused(&self) -> usize {
        let rows = |refused: &RejectedRows| {
            refused.backoff.held.len() + refused.released.len() + refused.backoff.in_flight
        };
        self.refused.as_ref().map_or(0, rows)
    }

    /// Whether there is no back-off left.
    pub(super) fn is_over(&self) -> bool {
        self.topic.is_none() && self.partitions.is_empty() && self.refused() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{TOPIC, record, spool};
    use super::*;
    use crate::spool::Spool;

    /// A spool with this number of rows, and its directory.
    async fn filled(rows: usize) -> (tempfile::TempDir, Arc<Spool>) {
        let (dir, spool) = spool(100);
        let records = (0..rows).map(|n| record(&format!("evt_{n}")));
        spool.store(records.collect()).await.unwrap();
        (dir, spool)
    }

    async fn oldest(spool: &Spool, count: usize) -> Vec<Row> {
        spool.lease_oldest(&TOPIC.into(), count, 1 << 20).await.unwrap()
    }

    fn key(row: &Row) -> String {
        row.record.key().to_owned()
    }

    fn tried(turn: Turn) -> Row {
        match turn {
            Turn::Try { row, .. } => row,
            Turn::Go(_) | Turn::Wait => panic!("not tried"),
        }
    }

    #[tokio::test]
    async fn k15_rows_of_a_partition_that_is_out_wait_in_their_order_and_the_others_go() {
        let (_dir, spool) = filled(4).await;
        let (mut backoff, now) = (TopicBackoff::default(), Instant::now());
        let mut rows = oldest(&spool, 4).await.into_iter();
        let first = tried(backoff.turn(rows.next().unwrap(), Some(0), true, now));
        assert!(matches!(backoff.turn(rows.next().unwrap(), Some(0), true, now), Turn::Wait));
        assert!(matches!(backoff.turn(rows.next().unwrap(), Some(1), false, now), Turn::Go(_)));
        assert!(matches!(backoff.turn(rows.next().unwrap(), Some(0), true, now), Turn::Wait));
        backoff.answered(ProbeTarget::Place(Some(0)));
        backoff.fails(first, Some(0), false, now);

        // Row 2 was published, and is leased again since it was not removed; held rows are not.
        assert_eq!(oldest(&spool, 4).await.iter().map(key).collect::<Vec<_>>(), ["evt_2"]);
        assert!(backoff.room(now) > 0);
        assert_eq!(oldest(&spool, 4).await.len(), 1, "the pause is not over");
        let later = now + PAUSE.0;
        assert!(backoff.room(later) > 0);
        let mut rows = oldest(&spool, 4).await.into_iter();
        let first = tried(backoff.turn(rows.next().unwrap(), Some(0), true, later));
        assert_eq!(key(&first), "evt_0", "the oldest is tried again");
        backoff.answered(ProbeTarget::Place(Some(0)));
        backoff.record_success(Some(0), Some(ProbeTarget::Place(Some(0))), later);
        drop((rows, first));
        assert!(backoff.is_over());
        let all: Vec<String> = oldest(&spool, 4).await.iter().map(key).collect();
        assert_eq!(all, ["evt_0", "evt_1", "evt_2", "evt_3"]);
    }

    #[tokio::test]
    async fn k2c_rows_that_a_topic_does_not_take_are_tried_in_turn_and_hold_up_no_other() {
        let (_dir, spool) = filled(3).await;
        let (mut backoff, mut now) = (TopicBackoff::default(), Instant::now());
        let mut rows = oldest(&spool, 2).await;
        backoff.refuses(rows.remove(0), now);
        backoff.refuses(rows.remove(0), now);
        let mut seen = Vec::new();
        for _ in 0..3 {
            now += PAUSE.1;
            assert!(backoff.room(now) > 0);
            let mut rows = oldest(&spool, 4).await.into_iter();
            let row = tried(backoff.turn(rows.next().unwrap(), Some(0), false, now));
            assert!(matches!(backoff.turn(rows.next().unwrap(), Some(0), false, now), Turn::Go(_)));
            assert!(rows.next().is_none());
            seen.push(key(&row));
            backoff.answered(ProbeTarget::Refused(Some(0)));
            backoff.refuses(row, now);
            assert_eq!(backoff.refused(), 2);
        }
        assert_eq!(seen, ["evt_0", "evt_1", "evt_0"]);

        // The limit is raised: the first row that passes makes the others due at once.
        for remaining in [1, 0] {
            now += if remaining == 1 { PAUSE.1 } else { Duration::ZERO };
            assert!(backoff.room(now) > 0);
            let row = tried(backoff.turn(oldest(&spool, 1).await.remove(0), Some(0), false, now));
            backoff.answered(ProbeTarget::Refused(Some(0)));
            backoff.record_success(Some(0), Some(ProbeTarget::Refused(Some(0))), now);
            spool.remove(&[row.id]);
            assert_eq!(backoff.refused(), remaining);
        }
        assert!(backoff.is_over());
    }

    #[tokio::test]
    async fn a_topic_that_is_out_is_tried_with_one_row_and_its_pause_grows_to_a_bound() {
        let (_dir, spool) = filled(1).await;
        let (mut backoff, mut now) = (TopicBackoff::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let row = tried(backoff.turn(oldest(&spool, 1).await.remove(0), None, true, now));
            assert_eq!(backoff.room(now), 0, "one is in flight");
            backoff.answered(ProbeTarget::Place(None));
            backoff.fails(row, None, false, now);
            let start = now;
            while backoff.room(now) == 0 {
                now += Duration::from_millis(50);
            }
            assert_eq!(backoff.room(now), 1);
            pauses.push((now - start).as_millis());
        }
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 3_000, 3_000]);
    }

    #[tokio::test]
    async fn a_back_off_ends_when_a_live_delivery_succeeds() {
        let (_dir, spool) = filled(2).await;
        let (mut backoff, now) = (TopicBackoff::default(), Instant::now());
        for row in oldest(&spool, 2).await {
            backoff.fails(row, Some(0), false, now);
        }
        assert!(oldest(&spool, 2).await.is_empty());
        backoff.forget_unless(|partition| partition == Some(1));
        assert!(backoff.is_over());
        assert_eq!(oldest(&spool, 2).await.len(), 2);
    }

    #[tokio::test]
    async fn a_partition_is_released_with_its_topic_whatever_was_in_flight_when_the_topic_failed() {
        let (_dir, spool) = filled(2).await;
        let (mut backoff, now) = (TopicBackoff::default(), Instant::now());
        let mut rows = oldest(&spool, 2).await;
        // Two rows of a batch linger, and both fail with an error of the complete topic.
        for _ in 0..2 {
            backoff.lingers(Some(0), now);
        }
        for _ in 0..2 {
            backoff.answered(ProbeTarget::Place(Some(0)));
            backoff.fails(rows.remove(0), None, false, now);
        }
        // The topic's probe is acknowledged. It names no partition.
        backoff.record_success(None, Some(ProbeTarget::Place(None)), now);
        backoff.forget_unless(|_| false);
        assert!(backoff.is_over());
        let row = oldest(&spool, 1).await.remove(0);
        assert!(matches!(backoff.turn(row, Some(0), false, now), Turn::Go(_)));
    }

    #[tokio::test]
    async fn a_live_delivery_that_succeeds_releases_the_partitions_of_a_failing_topic_as_well() {
        let (_dir, spool) = filled(1).await;
        let (mut backoff, now) = (TopicBackoff::default(), Instant::now());
        backoff.lingers(Some(0), now);
        backoff.fails(oldest(&spool, 1).await.remove(0), None, false, now);
        backoff.answered(ProbeTarget::Place(Some(0)));
        backoff.forget_unless(|_| false);
        assert!(backoff.is_over());
    }
}
