//! The durable queue on SQLite: it stores finished records when Kafka cannot, and returns them in order of arrival.
//!
//! ```text
//! store         -> queue -> writer thread: one transaction and one sync for everything queued -> answers
//! lease_oldest  -> reader thread with a connection of its own, so that draining does not block the writer
//! ```
//!
//! A thread that panics is not restarted: see [`error::thread_ended`].
//!
//! The directory holds `spool.db` with SQLite's `-wal` and `-shm`, `spool.mark` (counts of acknowledged rows:
//! [`mark`]), `lock`, `reserve`, and files set aside as damaged ([`report`]). Nothing else in the process may open
//! `spool.db`: closing a second descriptor would drop SQLite's locks on it.
#![allow(
    clippy::disallowed_methods,
    reason = "these are the spool's own files, and only its own threads block on them"
)]

mod disk;
mod error;
mod files;
mod format;
mod inspect;
mod mark;
mod mutation;
mod open;
mod own;
mod probe;
mod read;
mod report;
mod salvage;
mod shared;
mod stats;
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
pub use format::{RowEntry, RowState};
pub use inspect::{Filter, RowSummary, SpoolReader, Totals};
pub use open::Opened;
pub use probe::{SpoolProbe, check_dir, probe};
pub use report::{Lost, Salvage, reports};
pub use shared::TopicUsage;
use shared::{SpoolState, SpoolUsage, StoreRequest, WriterCommand};
pub use stats::Stats;

/// The format version of the database and of the mark that this program writes.
const VERSION: i64 = 1;

/// The spool's bounds. Parked rows count as well, since they use the same disk.
#[derive(Clone, Copy, Debug)]
pub struct SpoolLimits {
    /// Maximum bytes of all rows: topics, keys, headers, values.
    pub max_bytes: u64,
    /// Maximum number of rows.
    pub max_rows: u64,
    /// Maximum bytes of one source's rows, including dead letters.
    pub source_bytes: u64,
    /// Maximum number of one source's rows, including dead letters.
    pub source_rows: u64,
    /// Maximum bytes of SQLite's log. It exceeds 8 MiB only during another program's long read.
    pub max_wal: u64,
    /// Bytes that must remain free on the disk, counting only the space that an ordinary user may use.
    pub min_free: u64,
    /// Bytes reserved for a full disk, see [`RESERVE`]; 0 for none.
    pub reserve: u64,
}

impl SpoolLimits {
    /// No bound but that of SQLite's log, and no reserve.
    pub const UNBOUNDED: Self = Self {
        max_bytes: u64::MAX,
        max_rows: u64::MAX,
        source_bytes: u64::MAX,
        source_rows: u64::MAX,
        max_wal: MAX_WAL,
        min_free: 0,
        reserve: 0,
    };
}

/// The usual maximum size of SQLite's log in bytes. It grows while another program keeps a read transaction open.
pub const MAX_WAL: u64 = 64 * 1024 * 1024;

/// A reserve that is always large enough: the log between two checkpoints (4 MiB), one batch (4 MiB), and the pages
/// that deletes write.
pub const RESERVE: u64 = 16 * 1024 * 1024;

/// A row leased for delivery. No other lease returns the row until this value is dropped. If it is dropped without
/// [`Spool::remove`] or [`Spool::park`], the row can be leased again.
#[derive(Debug)]
pub struct Row {
    /// The row's id; ids rise in order of arrival.
    pub id: i64,
    /// The record as it was stored.
    pub record: Record,
    _lease: shared::Lease,
}

impl Row {
    /// Frees the record's memory and keeps the lease.
    pub fn hold(self) -> Held {
        Held { _lease: self._lease }
    }
}

/// The lease of a row without its record. Dropping it ends the lease.
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
    /// Opens or creates the spool in `dir`. Blocks: up to some seconds to check a large file, longer to salvage a
    /// damaged one.
    ///
    /// # Errors
    /// [`OpenError`], for example if another process has the spool open.
    pub fn open(dir: &Path, limits: SpoolLimits) -> Result<(Self, Opened), OpenError> {
        let parts = open::open(dir, limits)?;
        let opened = parts.opened.clone();
        let shared = Arc::new(SpoolState::new(parts.book, parts.limits));
        let files = writer::WriterFiles { reserve: parts.reserve, mark: parts.mark, files: parts.files };
        let writer = writer::Writer::new(dir, parts.db, files, shared.clone());
        let (reads, requests) = mpsc::channel();
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
                move || supervise(shared::READER, &shared, || reader.run(&requests))
            })
            .inspect_err(|_| shared.close())
            .map_err(failed)?;
        let threads = std::sync::Mutex::new(Some(Threads { writer, reader, _lock: parts.lock }));
        Ok((Self { shared, reads, threads }, opened))
    }

    /// Resolves when all of these records, which belong to one source, are synced to disk. They are stored in one
    /// transaction: all or none.
    ///
    /// # Errors
    /// [`StoreError`]: none of them was stored, unless the writer's thread panicked after the commit; then the sender's
    /// retry is a duplicate.
    ///
    /// # Cancellation
    /// Dropping the future does not recall the records: they may be stored, and delivered as duplicates.
    pub async fn store(&self, records: Vec<Record>) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let source = records.first().map_or("", |record| names::source_of(record.topic()));
        self.shared.judge(source, SpoolUsage::default(), SpoolUsage::default())?;
        let lines: Vec<InsertRow> = records.into_iter().map(InsertRow::from_record).collect();
        let bytes = lines.iter().map(|line| line.bytes).sum();
        let (reply, answer) = oneshot::channel();
        self.shared.push_store(StoreRequest { lines, bytes, reply })?;
        answer.await.unwrap_or_else(|_| Err(StoreError::Error(self.shared.unanswered(shared::WRITER))))
    }

    /// Leases the oldest live rows of `topic`, in order of arrival: at most `max_rows`, and up to the first row that
    /// exceeds `max_bytes`. Damaged rows on the way are parked.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn lease_oldest(
        &self,
        topic: &Arc<str>,
        max_rows: usize,
        max_bytes: u64,
    ) -> Result<Vec<Row>, SpoolError> {
        let (reply, answer) = oneshot::channel();
        let request = read::ReadRequest::Oldest { topic: topic.clone(), max_rows, max_bytes, reply };
        self.reads.send(request).map_err(|_| self.shared.unanswered(shared::READER))?;
        answer.await.unwrap_or_else(|_| Err(self.shared.unanswered(shared::READER)))
    }

    /// Deletes rows. Returns at once: this process never leases them again, and the delete is retried until it is
    /// committed. After a crash before the commit they are delivered again.
    pub fn remove(&self, ids: &[i64]) {
        self.shared.remove(ids);
    }

    /// Parks a live row, with the reason: it waits for a person's decision. `false` if there is no such live row.
    ///
    /// # Errors
    /// If it cannot be written; the row stays live.
    pub async fn park(&self, id: i64, why: &str) -> Result<bool, SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.shared.push_change(WriterCommand::Park { id, why: why.to_owned(), reply: Some(reply) })?;
        Ok(self.changed(answer).await? > 0)
    }

    /// Makes parked rows live again, those with `ids` or all of them, and returns their number.
    ///
    /// # Errors
    /// If it cannot be written; some may already be live.
    pub async fn requeue(&self, ids: Option<&[i64]>) -> Result<u64, SpoolError> {
        /// Rows per transaction, so that deliveries do not wait for a million rows.
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
        self.shared.push_change(WriterCommand::Requeue { which, reply })?;
        self.changed(answer).await
    }

    /// Resolves when all earlier requests, including removals, are committed.
    ///
    /// # Errors
    /// If the removals could not be committed; they are retried later.
    pub async fn flush(&self) -> Result<(), SpoolError> {
        let (reply, answer) = oneshot::channel();
        self.shared.push_change(WriterCommand::Flush { reply })?;
        self.changed(answer).await.map(drop)
    }

    /// The writer's answer to a change.
    async fn changed(&self, answer: oneshot::Receiver<Result<u64, SpoolError>>) -> Result<u64, SpoolError> {
        answer.await.unwrap_or_else(|_| Err(self.shared.unanswered(shared::WRITER)))
    }

    /// The spool's state, without disk access.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// The rows of each topic, by name, without disk access.
    pub fn topics(&self) -> Vec<TopicUsage> {
        self.shared.topics()
    }

    /// Commits what is queued, moves SQLite's log into the file and releases the directory. Later calls on the spool
    /// fail.
    ///
    /// # Errors
    /// If it takes longer than `within`. The process may end all the same: everything that was answered is on disk.
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
            _ => Err(SpoolError::new(
                "the spool did not close in time; everything that was answered is on disk",
            )),
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

/// Runs a thread's work, and reports its end if the spool is not closing.
fn supervise(name: &'static str, shared: &SpoolState, work: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
        tracing::error!(thread = name, "a thread of the spool panicked; restart hookstream");
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
    /// Like [`Spool::close`], but waits for the writer's last transaction without a bound.
    fn drop(&mut self) {
        self.stop();
        if let Some(threads) = self.take_threads() {
            threads.join();
        }
    }
}
