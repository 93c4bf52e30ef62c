//! The writer thread, the only one that writes. Everything that is queued goes into one transaction with one sync.

mod upkeep;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::disk::Reserve;
use super::error::{Bound, SpoolError, StoreError};
use super::files::Files;
use super::format;
use super::mark::AckMark;
use super::mutation::{Mutation, answer, apply, remove};
use super::shared::{Batch, SpoolState, SpoolUsage, StoreRequest, WriterCommand};
use crate::failpoints::{self, Failpoint};
use crate::names;

/// How often free space, log and reserve are checked, and failed deletes retried.
const TICK: Duration = Duration::from_secs(1);

/// They are checked earlier once this number of bytes was written.
const TICK_BYTES: u64 = 16 * 1024 * 1024;

/// If an empty spool's file is larger than this, its space is released.
const SHRINK_BYTES: u64 = 64 * 1024 * 1024;

const PAGE: u64 = format::PAGE as u64;

/// How long to wait for another program to release SQLite's write lock. Each delivery's own deadline is shorter.
const LOCKED_WITHIN: Duration = Duration::from_secs(30);

/// The writer's files other than SQLite's.
pub(super) struct WriterFiles {
    pub(super) reserve: Reserve,
    pub(super) mark: AckMark,
    pub(super) files: Files,
}

pub(super) struct Writer {
    dir: PathBuf,
    db: Connection,
    reserve: Reserve,
    mark: AckMark,
    files: Files,
    shared: Arc<SpoolState>,
    /// Delivered rows whose delete failed.
    unremoved: Vec<i64>,
    written: u64,
    /// The mark could not be written, and that was logged.
    unmarked: bool,
    #[cfg(test)]
    fault: super::tests::Fault,
}

impl Writer {
    pub(super) fn new(dir: &Path, db: Connection, files: WriterFiles, shared: Arc<SpoolState>) -> Self {
        let WriterFiles { reserve, mark, files } = files;
        Self {
            dir: dir.to_owned(),
            db,
            reserve,
            mark,
            files,
            shared,
            unremoved: Vec::new(),
            written: 0,
            unmarked: false,
            #[cfg(test)]
            fault: super::tests::Fault::default(),
        }
    }

    /// Runs until the spool is closed and everything queued is written.
    pub(super) fn run(mut self) {
        let mut due = Instant::now();
        loop {
            if due <= Instant::now() || self.written > TICK_BYTES {
                self.upkeep();
                due = Instant::now() + TICK;
            }
            let batch = self.shared.next(due);
            let closing = batch.closing;
            self.write(batch);
            if closing {
                break;
            }
        }
        self.retry();
        if let Err(error) = self.checkpoint("TRUNCATE") {
            tracing::warn!(%error, "the spool's log could not be moved into its file; the next start does it");
        }
        let synced = self.mark.sync();
        self.marked(synced);
        let left = self.shared.stats();
        if left.astray.is_some() && left.live + left.parked > 0 {
            let (live, parked) = (left.live, left.parked);
            tracing::error!(
                live,
                parked,
                "these rows are lost with the spool's files, which were removed or replaced"
            );
        }
    }

    fn write(&mut self, batch: Batch) {
        let Batch { stores, changes, removals, .. } = batch;
        if !stores.is_empty() {
            failpoints::panic_if_active(Failpoint::SpoolWriterPanics);
        }
        #[cfg(test)]
        let changes = self.run_for_tests(changes);
        let stores = self.admit(stores);
        if stores.is_empty() {
            return self.change(removals, changes);
        }
        let (stores, result) = self.commit_in_time(stores, &removals, &changes);
        match result {
            Ok(effects) => self.settle(stores, &removals, changes, &effects),
            Err(error) => {
                let refused = self.trouble(&error);
                for store in stores {
                    let _ = store.reply.send(Err(refused.clone()));
                }
                // Removals must continue on a full disk.
                self.change(removals, changes);
            }
        }
    }

    /// While another program holds the write lock, retries as long as one of the callers waits. The others were
    /// answered meanwhile, and their records are dropped.
    fn commit_in_time(
        &mut self,
        mut stores: Vec<StoreRequest>,
        removals: &[i64],
        changes: &[WriterCommand],
    ) -> (Vec<StoreRequest>, rusqlite::Result<Mutation>) {
        let end = Instant::now() + LOCKED_WITHIN;
        loop {
            let result = self.commit(&stores, removals, changes);
            match &result {
                Err(error) if format::is_busy(error) && Instant::now() < end => {
                    self.trouble(error);
                    stores.retain(|store| !store.reply.is_closed());
                    if stores.is_empty() {
                        return (stores, result);
                    }
                }
                _ => return (stores, result),
            }
        }
    }

    #[cfg(test)]
    fn run_for_tests(&mut self, changes: Vec<WriterCommand>) -> Vec<WriterCommand> {
        let mut others = Vec::new();
        for change in changes {
            match change {
                WriterCommand::Run { run } => run(&self.db, &mut self.fault),
                other => others.push(other),
            }
        }
        others
    }

    /// The stores within the bounds, each counted with those before it. The others are answered.
    fn admit(&self, stores: Vec<StoreRequest>) -> Vec<StoreRequest> {
        let mut all = SpoolUsage::default();
        let mut sources: HashMap<String, SpoolUsage> = HashMap::new();
        let mut admitted = Vec::with_capacity(stores.len());
        for store in stores {
            let source = store.lines.first().map_or("", |line| names::source_of(line.record.topic()));
            let more = SpoolUsage { rows: store.lines.len() as u64, bytes: store.bytes };
            let own = sources.get(source).copied().unwrap_or_default().and(more);
            match self.shared.judge(source, all.and(more), own) {
                Ok(()) => {
                    all = all.and(more);
                    sources.insert(source.to_owned(), own);
                    admitted.push(store);
                }
                Err(refused) => drop(store.reply.send(Err(refused))),
            }
        }
        admitted
    }

    /// Commits removals and changes without stores; on a full disk with the help of the reserve.
    fn change(&mut self, removals: Vec<i64>, changes: Vec<WriterCommand>) {
        if removals.is_empty() && changes.is_empty() {
            return;
        }
        let mut result = self.commit(&[], &removals, &changes);
        while let Err(error) = &result
            && format::is_full(error, &self.dir)
        {
            let complete = self.reserve.whole();
            if !self.reserve.release_chunk() {
                break;
            }
            if complete {
                let bytes = self.reserve.bytes();
                tracing::warn!(
                    bytes,
                    "the disk is full: the spool releases its reserve to continue deleting"
                );
            }
            // The log can be reused only after a checkpoint; if that fails, the delete below fails as well. RESTART
            // keeps the log's blocks: on a disk that others fill they would be lost, and deleting with them.
            let _ = self.checkpoint("RESTART");
            result = self.commit(&[], &removals, &changes);
        }
        match result {
            Ok(effects) => self.settle(Vec::new(), &removals, changes, &effects),
            Err(error) => {
                self.trouble(&error);
                self.unremoved.extend(removals);
                for change in changes {
                    answer(change, Err(SpoolError::sql("write", &error)));
                }
            }
        }
    }

    fn commit(
        &mut self,
        stores: &[StoreRequest],
        removals: &[i64],
        changes: &[WriterCommand],
    ) -> rusqlite::Result<Mutation> {
        let mut effects = Mutation::default();
        #[cfg(test)]
        self.fault.check(!stores.is_empty(), self.reserve.left())?;
        let work = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for line in stores.iter().flat_map(|store| &store.lines) {
            line.insert(&work)?;
        }
        if !stores.is_empty() {
            effects.given = Some(work.last_insert_rowid().cast_unsigned());
        }
        remove(&work, removals, &mut effects)?;
        for change in changes {
            let count = apply(&work, change, &mut effects)?;
            effects.counts.push(count);
        }
        work.commit()?;
        Ok(effects)
    }

    /// Records the commit in mark and ledger, checks that a restart would find it, and then answers.
    fn settle(
        &mut self,
        stores: Vec<StoreRequest>,
        removals: &[i64],
        changes: Vec<WriterCommand>,
        effects: &Mutation,
    ) {
        let mut counts = self.mark.counts();
        counts.given = effects.given.unwrap_or(counts.given);
        counts.removed += effects.removed();
        let written = self.mark.write(counts);
        self.marked(written);
        self.clear_failure();
        let in_place = self.in_place();
        self.shared.committed(&stores, &effects.moves, removals);
        self.written += stores.iter().map(|store| store.bytes).sum::<u64>();
        for store in stores {
            let _ = store.reply.send(in_place.clone());
        }
        let mut counts = effects.counts.iter();
        for change in changes {
            let count = counts.next().copied().unwrap_or(0);
            let failed = matches!(change, WriterCommand::Flush { .. }) && !self.unremoved.is_empty();
            let failed =
                failed.then(|| SpoolError::new("deletes of delivered rows wait for free space on the disk"));
            answer(change, failed.map_or(Ok(count), Err));
        }
    }

    /// Whether the files in use are those in the directory.
    fn in_place(&self) -> Result<(), StoreError> {
        let astray = self.files.check().err();
        let mut book = self.shared.ledger();
        let before = &mut book.stats_mut().astray;
        match (&astray, &*before) {
            (Some(why), None) => tracing::error!(why, "the spool's files were removed or replaced"),
            (None, Some(_)) => tracing::info!("the spool's files are back"),
            _ => {}
        }
        *before = astray.as_deref().map(Into::into);
        astray.map_or(Ok(()), |why| Err(StoreError::Error(SpoolError::new(why))))
    }

    /// A failure to write the mark loses no row, but after damage the number of lost rows would be wrong.
    fn marked(&mut self, written: std::io::Result<()>) {
        match written {
            Ok(()) => self.unmarked = false,
            Err(error) if !std::mem::replace(&mut self.unmarked, true) => {
                tracing::warn!(%error, "spool.mark cannot be written: after damage the number of lost rows would be wrong");
            }
            Err(_) => {}
        }
    }

    /// The last transaction succeeded.
    fn clear_failure(&self) {
        if self.shared.ledger().stats_mut().failing.take().is_some() {
            tracing::info!("the spool can be written again");
        }
    }

    /// Records an error, and returns the answer to stores.
    fn trouble(&mut self, error: &rusqlite::Error) -> StoreError {
        if format::is_damage(error) {
            super::open::mark_damaged(&self.dir, &self.shared, error);
        } else if format::is_full(error, &self.dir) {
            self.set_full(Some(Bound::Disk));
            return StoreError::Full(Bound::Disk);
        } else {
            let why = if format::is_busy(error) {
                String::from(
                    "another program holds SQLite's write lock on spool.db; end it, or its transaction",
                )
            } else {
                format!("it cannot be written: {error}; check its disk")
            };
            let why = Some(why.into());
            let before = std::mem::replace(&mut self.shared.ledger().stats_mut().failing, why);
            if before.is_none() {
                tracing::error!(%error, "the spool cannot be written");
            }
        }
        StoreError::Error(SpoolError::sql("write", error))
    }
}
