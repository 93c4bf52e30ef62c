//! What the drain leaves alone for a growing while: a topic, a partition, or rows that their topic does not
//! take as it is configured. Each is tried again with one row at a time, and the rows behind it are held
//! back, so that they neither go out of order nor stand in the way of the others.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::spool::{Held, Row};

/// How long something is left alone after its first failure; doubled with each, up to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(3));

/// Rows of one topic that are held back. With more, the topic's next rows wait until one of its partitions
/// takes rows again; the price of holding more is an index of them that each look at the spool walks.
const MOST_HELD: usize = 4_096;

/// One thing that is left alone.
pub(super) struct Backoff {
    until: Instant,
    pause: Option<Duration>,
    /// Rows of it that are on their way to Kafka.
    on_the_way: usize,
    held: BTreeMap<i64, Held>,
}

impl Backoff {
    /// Due at once.
    fn new(now: Instant) -> Self {
        Self { until: now, pause: None, on_the_way: 0, held: BTreeMap::new() }
    }

    /// Whether its next row may be tried.
    fn is_due(&self, now: Instant) -> bool {
        self.on_the_way == 0 && self.until <= now
    }

    /// Of several rows that were on the way together, only the first failure counts.
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

/// What of one topic is left alone.
#[derive(Default)]
pub(super) struct TopicBackoff {
    whole: Option<Backoff>,
    partitions: HashMap<i32, Backoff>,
    refused: Option<RejectedRows>,
}

/// Rows that the topic does not take as it is configured, tried one after the other, each in its turn.
struct RejectedRows {
    backoff: Backoff,
    /// Those that were let go for their turn.
    let_go: HashSet<i64>,
    last: i64,
}

/// What to do with a row of the spool.
pub(super) enum Turn {
    /// It goes with the others.
    Go(Row),
    /// It is the one that tells whether its place is well again.
    Try(Row, ProbeTarget),
    /// It is held back.
    Wait,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeTarget {
    /// A row of its topic or partition.
    Place(Option<i32>),
    /// A row that the topic did not take before.
    Refused(Option<i32>),
}

impl TopicBackoff {
    fn held(&self) -> usize {
        let refused = self.refused.as_ref().map(|refused| &refused.backoff);
        self.partitions.values().chain(refused).map(|backoff| backoff.held.len()).sum()
    }

    /// How many rows may be asked for. Lets those go whose turn it is: the spool gives them out again,
    /// in their order.
    pub(super) fn room(&mut self, now: Instant) -> usize {
        if let Some(whole) = &self.whole {
            return usize::from(whole.is_due(now));
        }
        for backoff in self.partitions.values_mut().filter(|backoff| backoff.is_due(now)) {
            backoff.held.pop_first();
        }
        if let Some(RejectedRows { backoff, let_go, last }) = &mut self.refused
            && backoff.is_due(now)
        {
            let next =
                backoff.held.range(*last + 1..).next().or(backoff.held.iter().next()).map(|(id, _)| *id);
            if let Some(id) = next {
                backoff.held.remove(&id);
                let_go.insert(id);
                *last = id;
            }
        }
        MOST_HELD.saturating_sub(self.held())
    }

    /// What to do with a row that the spool gave out. `is_out` says whether its place is known to be out.
    pub(super) fn turn(&mut self, row: Row, partition: Option<i32>, is_out: bool, now: Instant) -> Turn {
        if let Some(RejectedRows { backoff, let_go, .. }) = &mut self.refused
            && let_go.remove(&row.id)
        {
            if backoff.is_due(now) {
                backoff.on_the_way += 1;
                return Turn::Try(row, ProbeTarget::Refused(partition));
            }
            backoff.hold(row);
            return Turn::Wait;
        }
        let Some(backoff) = self.place(partition, is_out, now) else { return Turn::Go(row) };
        if backoff.is_due(now) {
            backoff.on_the_way += 1;
            return Turn::Try(row, ProbeTarget::Place(partition));
        }
        backoff.hold(row);
        Turn::Wait
    }

    /// That of the row's place; a new one where the place is known to be out.
    fn place(&mut self, partition: Option<i32>, is_out: bool, now: Instant) -> Option<&mut Backoff> {
        match partition {
            Some(partition) if self.whole.is_none() => {
                if is_out {
                    self.partitions.entry(partition).or_insert_with(|| Backoff::new(now));
                }
                self.partitions.get_mut(&partition)
            }
            _ => {
                if is_out {
                    self.whole.get_or_insert_with(|| Backoff::new(now));
                }
                self.whole.as_mut()
            }
        }
    }

    /// Lets go of what is not out any more.
    pub(super) fn forget_unless(&mut self, is_out: impl Fn(Option<i32>) -> bool) {
        self.whole.take_if(|whole| whole.on_the_way == 0 && !is_out(None));
        self.partitions.retain(|partition, backoff| backoff.on_the_way > 0 || is_out(Some(*partition)));
    }

    /// The row is not answered yet, and the others of its place wait for it.
    pub(super) fn lingers(&mut self, partition: Option<i32>, now: Instant) {
        if let Some(backoff) = self.place(partition, true, now) {
            backoff.on_the_way += 1;
        }
    }

    /// The row that was tried is answered, however.
    pub(super) fn answered(&mut self, tried: ProbeTarget) {
        let backoff = match tried {
            ProbeTarget::Refused(_) => self.refused.as_mut().map(|refused| &mut refused.backoff),
            ProbeTarget::Place(Some(partition)) if self.whole.is_none() => {
                self.partitions.get_mut(&partition)
            }
            ProbeTarget::Place(_) => self.whole.as_mut(),
        };
        if let Some(backoff) = backoff {
            backoff.on_the_way = backoff.on_the_way.saturating_sub(1);
        }
    }

    /// The place acknowledges: what was held back goes on.
    pub(super) fn record_success(
        &mut self,
        partition: Option<i32>,
        tried: Option<ProbeTarget>,
        now: Instant,
    ) {
        self.whole = None;
        if let Some(partition) = partition {
            self.partitions.remove(&partition);
        }
        if let (Some(ProbeTarget::Refused(_)), Some(refused)) = (tried, &mut self.refused) {
            // The others may pass as well, or may not: one by one, at once.
            (refused.backoff.until, refused.backoff.pause) = (now, None);
            if refused.backoff.held.is_empty() {
                self.refused = None;
            }
        }
    }

    /// The place is out. The row is tried again first.
    pub(super) fn fails(&mut self, row: Row, partition: Option<i32>, now: Instant) {
        match partition {
            Some(partition) if self.whole.is_none() => {
                let backoff = self.partitions.entry(partition).or_insert_with(|| Backoff::new(now));
                backoff.fails(now);
                backoff.hold(row);
            }
            // Of a topic that is out nothing is asked for but one row.
            _ => self.whole.get_or_insert_with(|| Backoff::new(now)).fails(now),
        }
    }

    /// The topic does not take this row as it is configured.
    pub(super) fn refuses(&mut self, row: Row, now: Instant) {
        let refused = self.refused.get_or_insert_with(|| RejectedRows {
            backoff: Backoff::new(now),
            let_go: HashSet::new(),
            last: 0,
        });
        refused.backoff.fails(now);
        refused.backoff.hold(row);
    }

    /// Rows that the topic does not take as it is configured.
    pub(super) fn refused(&self) -> usize {
        let rows = |refused: &RejectedRows| {
            refused.backoff.held.len() + refused.let_go.len() + refused.backoff.on_the_way
        };
        self.refused.as_ref().map_or(0, rows)
    }

    /// Nothing of it is left alone.
    pub(super) fn is_over(&self) -> bool {
        self.whole.is_none() && self.partitions.is_empty() && self.refused() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{TOPIC, record, spool};
    use super::*;
    use crate::spool::Spool;

    /// A spool with so many rows, and its directory.
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
            Turn::Try(row, _) => row,
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
        backoff.fails(first, Some(0), now);

        // Row 2 went, and is given out again since nobody removed it; those that wait are not.
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

        // The limit is raised: the first that passes makes the others due at once.
        for left in [1, 0] {
            now += if left == 1 { PAUSE.1 } else { Duration::ZERO };
            assert!(backoff.room(now) > 0);
            let row = tried(backoff.turn(oldest(&spool, 1).await.remove(0), Some(0), false, now));
            backoff.answered(ProbeTarget::Refused(Some(0)));
            backoff.record_success(Some(0), Some(ProbeTarget::Refused(Some(0))), now);
            spool.remove(&[row.id]);
            assert_eq!(backoff.refused(), left);
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
            assert_eq!(backoff.room(now), 0, "one is on its way");
            backoff.answered(ProbeTarget::Place(None));
            backoff.fails(row, None, now);
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
    async fn what_a_live_delivery_found_well_is_forgotten() {
        let (_dir, spool) = filled(2).await;
        let (mut backoff, now) = (TopicBackoff::default(), Instant::now());
        for row in oldest(&spool, 2).await {
            backoff.fails(row, Some(0), now);
        }
        assert!(oldest(&spool, 2).await.is_empty());
        backoff.forget_unless(|partition| partition == Some(1));
        assert!(backoff.is_over());
        assert_eq!(oldest(&spool, 2).await.len(), 2);
    }
}
