//! The durable queue on SQLite: takes finished records when Kafka cannot, and gives them back in
//! order of arrival.
//!
//! ```text
//! store   -> queue -> writer thread: one transaction, one sync for all that waits -> answers
//! oldest  -> reader thread, a connection of its own: draining does not hold up the writer
//! ```
//!
//! The directory holds `spool.db` with SQLite's `-wal` and `-shm`, `spool.mark` (what was acknowledged: [`mark`]), `lock`,
//! `reserve`, and what was set aside as damaged ([`report`]). Nothing else in the process may open `spool.db`: closing a second
//! descriptor would drop SQLite's locks on it.
#![allow(
    clippy::disallowed_methods,
    reason = "these are the spool's own files, and whoever hangs in them is its own thread"
)]

mod mutation;
mod disk;
mod error;
mod files;
mod format;
mod probe;
mod mark;
mod open;
mod own;
mod read;
mod report;
mod salvage;
mod shared;
mod stats;
mod inspect;
mod wal;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::names;
use crate::record::Record;
pub use error::{Bound, OpenError, SpoolError, StoreError};
use format::InsertRow;
pub use format::{RowEntry, RowState, VERSION};
pub use inspect::{Filter, RowSummary, SpoolReader, Totals};
pub use open::Opened;
pub use probe::{SpoolProbe, probe};
pub use report::{Lost, Salvage, reports};
pub use shared::TopicUsage;
use shared::{Command, SpoolState, SpoolUsage, StoreRequest};
pub use stats::Stats;

/// What the spool may take. Parked rows count as well: they take the same disk.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all rows: topics, keys, headers, values.
    pub max_bytes: u64,
    /// Rows.
    pub max_rows: u64,
    /// Bytes of one source's rows, dead letters included.
    pub source_bytes: u64,
    /// Rows of one source, likewise.
    pub source_rows: u64,
    /// Bytes of SQLite's log. It passes 8 MiB only while someone else reads for long.
    pub max_wal: u64,
    /// Bytes that must be free on the disk, as an ordinary user may use them.
    pub min_free: u64,
    /// Bytes held back for the moment when the disk is full: see [`RESERVE`]. 0 for none.
    pub reserve: u64,
}

/// A reserve that is always enough: the log as it stands between two checkpoints (4 MiB), one
/// batch (4 MiB), and the pages that deletes write.
pub const RESERVE: u64 = 16 * 1024 * 1024;

/// A row that was given out to be delivered. While it lives the row is not given out again; when
/// it is dropped without [`Spool::remove`] or [`Spool::park`], the row is there again.
#[derive(Debug)]
pub struct Row {
    /// Order of arrival.
    pub id: i64,
    /// As it was stored.
    pub record: Record,
    _lease: shared::Lease,
}

impl Row {
    /// Lets go of what the row holds, and keeps it from being given out.
    pub fn hold(self) -> Held {
        Held { _lease: self._lease }
    }
}

/// A row that is not given out, without what it holds. Dropped, it is there again.
#[derive(Debug)]
pub struct Held {
    _lease: shared::Lease,
}

/// The spool of one directory; shared by `Arc`.
pub struct Spool {
    shared: Arc<SpoolState>,
    reads: mpsc::Sender<read::ReadRequest>,
    threads: std::sync::Mutex<Option<Threads>>,
}

struct Threads {
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
    _lock: disk::Lock,
}

impl Spool {
    /// Opens or creates the spool of `dir`. Blocks: up to some seconds for the check of a large
    /// file, longer to salvage a damaged one.
    ///
    /// # Errors
    /// [`OpenError`], among them that another process has it open.
    pub fn open(dir: &Path, limits: Limits) -> Result<(Self, Opened), OpenError> {
        let parts = open::open(dir, limits)?;
        let opened = parts.opened.clone();
        let shared = Arc::new(SpoolState::new(parts.book, parts.limits));
        let kept = writer::WriterFiles { reserve: parts.reserve, mark: parts.mark, files: parts.files };
        let writer = writer::Writer::new(dir, parts.db, kept, shared.clone());
        let (reads, asked) = mpsc::channel();
        let reader = read::ReaderThread::new(dir, shared.clone())?;
        let failed = |cause| OpenError::io("cannot start a thread for", dir, cause);
        let writer = std::thread::Builder::new()
            .name(String::from("spool-writer"))
            .spawn({
                let shared = shared.clone();
                move || supervise(shared::WRITER, &shared, || writer.run())
            })
            .map_err(failed)?;
        let reader = std::thread::Builder::new()
            .name(String::from("spool-reader"))
            .spawn({
                let shared = shared.clone();
                move || supervise(shared::READER, &shared, || reader.run(&asked))
            })
            .inspect_err(|_| shared.close())
            .map_err(failed)?;
        let threads = std::sync::Mutex::new(Some(Threads { writer, reader, _lock: parts.lock }));
        Ok((Self { shared, reads, threads }, opened))
    }

    /// Resolves when all of these records, of one source, are on disk, in one transaction, synced: all or none.
    ///
    /// # Errors
    /// [`Refused`]; then none of them was stored.
    ///
    /// # Cancellation
    /// Dropping the future does not take the records back: they may be stored, and delivered as
    /// duplicates.
    pub async fn store(&self, records: Vec<Record>) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let source = records.first().map_or("", |record| names::source_of(record.topic()));
        self.shared.judge(source, SpoolUsage::default(), SpoolUsage::default())?;
        let lines: Vec<InsertRow> = records.into_iter().map(InsertRow::of).collect();
        let bytes = lines.iter().map(|line| line.bytes).sum();
        let (reply, answer) = oneshot::channel();
        self.shared.push_store(StoreRequest { lines, bytes, reply })?;
        answer.await.unwrap_or_else(|_| Err(StoreError::Error(self.shared.unanswered(shared::WRITER))))
    }

    /// The oldest live rows of `topic` that are not given out, in order of arrival: at most
    /// `max_rows`, and no more than the first past `max_bytes`. Rows that no longer hold what was
    /// written are parked on the way.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn lease_oldest(
        &self,
        topic: &Arc<str>,
        max_rows: usize,
        max_bytes: u64,
    ) -> Result<Vec<Row>, SpoolError> {
        let (reply, answer) = oneshot::channel();
        let ask = read::ReadRequest::Oldest { topic: topic.clone(), max_rows, max_bytes, reply };
        self.reads.send(ask).map_err(|_| self.shared.unanswered(shared::READER))?;
        answer.await.unwrap_or_else(|_| Err(self.shared.unanswered(shared::READER)))
    }

    /// Takes rows out for good. Returns at once: from now on they are not given out again in this
    /// process, and the delete is tried until it is committed. A crash before that gives them out
    /// once more.
    pub fn remove(&self, ids: &[i64]) {
        self.shared.remove(ids);
    }

    /// Sets a live row aside for a person to look at, with the reason. `false` when there is no
    /// such row.
    ///
    /// # Errors
    /// When it cannot be written; the row is live as before.
    pub async fn park(&self, id: i64, why: &str) -> Result<bool, SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.shared.push_change(Command::Park { id, why: why.to_owned(), reply: Some(reply) })?;
        Ok(self.changed(answer).await? > 0)
    }

    /// Makes parked rows live again: these, or all of them. How many they were.
    ///
    /// # Errors
    /// When it cannot be written; some may be live by then.
    pub async fn requeue(&self, ids: Option<&[i64]>) -> Result<u64, SpoolError> {
        /// In one transaction, so that deliveries need not wait for a million of them.
        const AT_ONCE: usize = 500;
        let mut done = 0;
        let Some(ids) = ids else {
            loop {
                let some = self.requeue_some(shared::Parked::First(AT_ONCE)).await?;
                done += some;
                if some < AT_ONCE as u64 {
                    return Ok(done);
                }
            }
        };
        for some in ids.chunks(AT_ONCE) {
            done += self.requeue_some(shared::Parked::These(some.to_vec())).await?;
        }
        Ok(done)
    }

    async fn requeue_some(&self, which: shared::Parked) -> Result<u64, SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.shared.push_change(Command::Requeue { which, reply })?;
        self.changed(answer).await
    }

    /// Resolves when all that was handed over before, removals included, is committed.
    ///
    /// # Errors
    /// When the removals could not be committed; they are tried again later.
    pub async fn flush(&self) -> Result<(), SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.shared.push_change(Command::Flush { reply })?;
        self.changed(answer).await.map(drop)
    }

    /// The writer's answer to a change.
    async fn changed(&self, answer: oneshot::Receiver<Result<u64, SpoolError>>) -> Result<u64, SpoolError> {
        answer.await.unwrap_or_else(|_| Err(self.shared.unanswered(shared::WRITER)))
    }

    /// The state of things; asks no disk.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// What each topic has, by name. Asks no disk.
    pub fn topics(&self) -> Vec<TopicUsage> {
        self.shared.topics()
    }

    /// Commits what waits, folds the log into the file and lets go of the directory. Later calls
    /// on the spool fail.
    ///
    /// # Errors
    /// When `within` ends first; the process may then end as well: what was answered is on disk.
    pub async fn close(&self, within: Duration) -> Result<(), SpoolError> {
        self.stop();
        let threads = self.take_threads();
        let joined = tokio::task::spawn_blocking(move || {
            if let Some(threads) = threads {
                threads.join();
            }
        });
        match tokio::time::timeout(within, joined).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(SpoolError::new("the spool did not close in time; what was answered is on disk")),
        }
    }

    fn stop(&self) {
        self.shared.close();
        let _ = self.reads.send(read::ReadRequest::Stop);
    }

    fn take_threads(&self) -> Option<Threads> {
        self.threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

/// Runs a thread's work and reports its end, if nobody has asked for it.
fn supervise(name: &'static str, shared: &SpoolState, work: impl FnOnce()) {
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    if let Err(panic) = ended {
        // Other panic messages are formatted and may quote a payload.
        let why = panic.downcast_ref::<&'static str>().unwrap_or(&"");
        tracing::error!(thread = name, why, "a thread of the spool panicked; restart hookstream");
    }
    shared.thread_ended(name);
}

impl Threads {
    fn join(self) {
        let _ = self.writer.join();
        let _ = self.reader.join();
    }
}

impl Drop for Spool {
    /// As [`Spool::close`], but waits as long as the writer's last transaction takes.
    fn drop(&mut self) {
        self.stop();
        if let Some(threads) = self.take_threads() {
            threads.join();
        }
    }
}
