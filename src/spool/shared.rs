//! The state that callers and the two threads share: the queue to the writer, and the ledger of the rows in the file.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::SpoolLimits;
use super::error::{Bound, SpoolError, StoreError};
use super::format::{InsertRow, RowState};
use super::stats::Stats;
use crate::names;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// The bounds of the writer's queue: they limit memory while the disk hangs.
const QUEUE_ROWS: usize = 8_192;
const QUEUE_BYTES: u64 = 64 * 1024 * 1024;

/// The names of the two threads in errors and reports.
pub(super) const WRITER: &str = "writer";
pub(super) const READER: &str = "reader";

/// The bounds of one transaction: large enough to share the price of the sync, small enough that the first store does
/// not wait long for the last.
const BATCH_ROWS: usize = 256;
const BATCH_BYTES: u64 = 4 * 1024 * 1024;
const BATCH_REMOVALS: usize = 1_024;

pub(super) type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// Records that are stored together or not at all.
pub(super) struct StoreRequest {
    pub(super) lines: Vec<InsertRow>,
    pub(super) bytes: u64,
    pub(super) reply: Reply<(), StoreError>,
}

/// A change of stored rows.
pub(super) enum WriterCommand {
    Park {
        id: i64,
        why: String,
        reply: Option<Reply<u64, SpoolError>>,
    },
    Requeue {
        which: Parked,
        reply: Reply<u64, SpoolError>,
    },
    Flush {
        reply: Reply<u64, SpoolError>,
    },
    #[cfg(test)]
    Run {
        run: super::tests::Run,
    },
}

pub(super) enum Parked {
    These(Vec<i64>),
    First(usize),
}

/// The writer's next transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) stores: Vec<StoreRequest>,
    pub(super) changes: Vec<WriterCommand>,
    pub(super) removals: Vec<i64>,
    pub(super) closing: bool,
}

#[derive(Default)]
struct WriterQueue {
    stores: VecDeque<StoreRequest>,
    rows: usize,
    bytes: u64,
    changes: VecDeque<WriterCommand>,
    removals: VecDeque<i64>,
    closing: bool,
    /// The writer's thread has panicked: nobody empties the queue any more.
    abandoned: bool,
}

/// The rows of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicUsage {
    /// The topic's name.
    pub name: Arc<str>,
    /// Rows on their way to Kafka.
    pub live: u64,
    /// Rows that wait for a person's decision.
    pub parked: u64,
    /// Bytes of both.
    pub bytes: u64,
}

/// A number of rows and their bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct SpoolUsage {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

impl SpoolUsage {
    pub(super) fn and(self, more: Self) -> Self {
        Self { rows: self.rows + more.rows, bytes: self.bytes + more.bytes }
    }
}

/// Rows and bytes by topic and state, and the spool's other state.
#[derive(Default)]
pub(super) struct Ledger {
    topics: BTreeMap<Arc<str>, TopicUsage>,
    /// Live and parked rows, by source.
    sources: BTreeMap<String, SpoolUsage>,
    /// Leased rows.
    leased: HashSet<i64>,
    /// Delivered rows whose delete is not committed.
    removing: HashSet<i64>,
    stats: Stats,
}

impl Ledger {
    /// Adds rows and bytes, or subtracts them if negative.
    pub(super) fn adjust(&mut self, name: &str, state: RowState, rows: i64, bytes: i64) {
        let empty = |name: &Arc<str>| TopicUsage { name: name.clone(), live: 0, parked: 0, bytes: 0 };
        let topic = self.topics.entry(name.into()).or_insert_with_key(empty);
        let (of_topic, total) = match state {
            RowState::Live => (&mut topic.live, &mut self.stats.live),
            RowState::Parked => (&mut topic.parked, &mut self.stats.parked),
        };
        *of_topic = of_topic.saturating_add_signed(rows);
        *total = total.saturating_add_signed(rows);
        topic.bytes = topic.bytes.saturating_add_signed(bytes);
        self.stats.bytes = self.stats.bytes.saturating_add_signed(bytes);
        if topic.live == 0 && topic.parked == 0 {
            self.topics.remove(name);
        }
        let source = names::source_of(name);
        if !self.sources.contains_key(source) {
            self.sources.insert(source.to_owned(), SpoolUsage::default());
        }
        if let Some(usage) = self.sources.get_mut(source) {
            usage.rows = usage.rows.saturating_add_signed(rows);
            usage.bytes = usage.bytes.saturating_add_signed(bytes);
            if usage.rows == 0 {
                self.sources.remove(source);
            }
        }
    }

    fn removed(&mut self, ids: &[i64]) {
        for id in ids {
            self.removing.remove(id);
        }
        self.stats.removing = self.removing.len() as u64;
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(super) fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    pub(super) fn live_topics(&self) -> Vec<Arc<str>> {
        self.topics.values().filter(|topic| topic.live > 0).map(|topic| topic.name.clone()).collect()
    }
}

pub(super) struct SpoolState {
    queue: Mutex<WriterQueue>,
    wake: Condvar,
    book: Mutex<Ledger>,
    pub(super) limits: SpoolLimits,
}

/// A transaction's change of an existing row: topic, state before, state after, bytes.
pub(super) type RowMove = (String, Option<RowState>, Option<RowState>, i64);

/// Ignores poisoning: each lock guards plain data, so a panic elsewhere must not stop the spool.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SpoolState {
    pub(super) fn new(book: Ledger, limits: SpoolLimits) -> Self {
        Self { queue: Mutex::default(), wake: Condvar::new(), book: Mutex::new(book), limits }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.book)
    }

    /// Records a commit under one lock: nobody sees half a transaction.
    pub(super) fn committed(&self, stores: &[StoreRequest], moves: &[RowMove], removals: &[i64]) {
        let mut ledger = self.ledger();
        for line in stores.iter().flat_map(|store| &store.lines) {
            ledger.adjust(line.record.topic(), RowState::Live, 1, line.bytes.cast_signed());
        }
        for (topic, before, after, bytes) in moves {
            if let Some(state) = before {
                ledger.adjust(topic, *state, -1, -bytes);
            }
            if let Some(state) = after {
                ledger.adjust(topic, *state, 1, *bytes);
            }
        }
        ledger.removed(removals);
        ledger.stats.commits += 1;
    }

    /// Checks the bounds for a store of `source`. `all` is the uncommitted usage after it, and `own` the source's part.
    pub(super) fn judge(&self, source: &str, all: SpoolUsage, own: SpoolUsage) -> Result<(), StoreError> {
        let book = self.ledger();
        let stats = &book.stats;
        if let Some(why) = stats.stopped() {
            return Err(StoreError::Error(SpoolError::new(why)));
        }
        if let Some(bound @ (Bound::Disk | Bound::Wal)) = stats.full {
            return Err(StoreError::Full(bound));
        }
        if stats.live + stats.parked + all.rows.max(1) > self.limits.max_rows {
            return Err(StoreError::Full(Bound::Rows));
        }
        if stats.bytes + all.bytes.max(1) > self.limits.max_bytes {
            return Err(StoreError::Full(Bound::Bytes));
        }
        let own = book.sources.get(source).copied().unwrap_or_default().and(own);
        if own.rows + u64::from(all.rows == 0) > self.limits.source_rows
            || own.bytes + u64::from(all.bytes == 0) > self.limits.source_bytes
        {
            return Err(StoreError::Full(Bound::Share));
        }
        Ok(())
    }

    pub(super) fn push_store(&self, store: StoreRequest) -> Result<(), StoreError> {
        let mut queue = lock(&self.queue);
        if queue.closing {
            return Err(StoreError::closed());
        }
        if queue.abandoned {
            return Err(StoreError::Error(SpoolError::thread_ended(WRITER)));
        }
        let (rows, bytes) = (queue.rows + store.lines.len(), queue.bytes + store.bytes);
        // A store larger than the bounds is still accepted by an empty queue.
        if queue.rows > 0 && (rows > QUEUE_ROWS || bytes > QUEUE_BYTES) {
            return Err(StoreError::Busy);
        }
        (queue.rows, queue.bytes) = (rows, bytes);
        queue.stores.push_back(store);
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn push_change(&self, change: WriterCommand) -> Result<(), SpoolError> {
        let mut queue = lock(&self.queue);
        if queue.closing {
            return Err(SpoolError::closed());
        }
        if queue.abandoned {
            return Err(SpoolError::thread_ended(WRITER));
        }
        queue.changes.push_back(change);
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn remove(&self, ids: &[i64]) {
        let mut book = self.ledger();
        book.removing.extend(ids);
        book.stats.removing = book.removing.len() as u64;
        drop(book);
        let mut queue = lock(&self.queue);
        // Without a writer they would pile up. `removing` prevents another delivery of the rows in this process.
        if !queue.abandoned {
            queue.removals.extend(ids);
        }
        drop(queue);
        self.wake.notify_one();
    }

    pub(super) fn close(&self) {
        lock(&self.queue).closing = true;
        self.wake.notify_all();
    }

    /// Records the end of a thread. If the spool is not closing, nothing is stored from now on. If it was the writer,
    /// all queued requests fail at once.
    pub(super) fn thread_ended(&self, thread: &'static str) {
        let mut queue = lock(&self.queue);
        if queue.closing {
            return;
        }
        // Before the queued requests fail, so that the state explains their errors.
        self.ledger().stats.ended.get_or_insert(thread);
        let mut abandoned = WriterQueue::default();
        if thread == WRITER {
            abandoned =
                std::mem::replace(&mut *queue, WriterQueue { abandoned: true, ..WriterQueue::default() });
        }
        drop(queue);
        // Dropped replies are errors, see [`Self::unanswered`].
        drop(abandoned);
    }

    /// Why the reply to a request was dropped: the spool was closed, or the thread panicked on the way.
    pub(super) fn unanswered(&self, thread: &str) -> SpoolError {
        if lock(&self.queue).closing { SpoolError::closed() } else { SpoolError::thread_ended(thread) }
    }

    /// The queued requests, up to the bounds of one transaction. Waits until `until` for the first.
    pub(super) fn next(&self, until: Instant) -> Batch {
        let mut queue = lock(&self.queue);
        while queue.stores.is_empty()
            && queue.changes.is_empty()
            && queue.removals.is_empty()
            && !queue.closing
        {
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                break;
            }
            (queue, _) = self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner);
        }
        let mut batch = Batch::default();
        let (mut rows, mut bytes) = (0, 0);
        while let Some(store) = queue.stores.pop_front() {
            (rows, bytes) = (rows + store.lines.len(), bytes + store.bytes);
            if !batch.stores.is_empty() && (rows > BATCH_ROWS || bytes > BATCH_BYTES) {
                queue.stores.push_front(store);
                break;
            }
            queue.rows -= store.lines.len();
            queue.bytes -= store.bytes;
            batch.stores.push(store);
        }
        let removals = queue.removals.len().min(BATCH_REMOVALS);
        batch.removals.extend(queue.removals.drain(..removals));
        if queue.removals.is_empty() {
            // A flush covers all removals before it.
            batch.changes.extend(queue.changes.drain(..));
        }
        let empty = queue.stores.is_empty() && queue.changes.is_empty() && queue.removals.is_empty();
        batch.closing = queue.closing && empty;
        batch
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        lock(&self.queue).rows
    }

    /// The rows that must not be leased. Copied before the file is read, so that it includes a row that is deleted
    /// during the read.
    pub(super) fn taken(&self) -> HashSet<i64> {
        let book = self.ledger();
        book.leased.union(&book.removing).copied().collect()
    }

    pub(super) fn lease(self: &Arc<Self>, id: i64) -> Lease {
        self.ledger().leased.insert(id);
        Lease { id, shared: self.clone() }
    }

    pub(super) fn stats(&self) -> Stats {
        self.ledger().stats.clone()
    }

    pub(super) fn topics(&self) -> Vec<TopicUsage> {
        self.ledger().topics.values().cloned().collect()
    }
}

/// The lease of one row; dropping it ends the lease.
pub(super) struct Lease {
    id: i64,
    shared: Arc<SpoolState>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lease")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.ledger().leased.remove(&self.id);
    }
}
