//! The writer thread: alone it writes. All that waits goes into one transaction with one sync.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::change::{Effects, answer, apply, remove};
use super::disk::{self, Reserve};
use super::error::{Bound, Refused, SpoolError};
use super::format::{self, State};
use super::shared::{Amount, Batch, Change, Shared, Store};
use crate::names;

/// How often room, log and reserve are looked at, and deletes that failed are tried again.
const TICK: Duration = Duration::from_secs(1);

/// They are looked at sooner when this much was written.
const TICK_BYTES: u64 = 16 * 1024 * 1024;

/// An empty file larger than this gives its space back.
const SHRINK_BYTES: u64 = 64 * 1024 * 1024;

/// SQLite's page.
const PAGE: u64 = 4096;

pub(super) struct Writer {
    dir: PathBuf,
    db: Connection,
    reserve: Reserve,
    shared: Arc<Shared>,
    /// Delivered rows whose delete failed.
    unremoved: Vec<i64>,
    written: u64,
    /// The last transaction failed, and that was said.
    failing: bool,
    #[cfg(test)]
    fault: super::tests::Fault,
}

impl Writer {
    pub(super) fn new(dir: &Path, db: Connection, reserve: Reserve, shared: Arc<Shared>) -> Self {
        Self {
            dir: dir.to_owned(),
            db,
            reserve,
            shared,
            unremoved: Vec::new(),
            written: 0,
            failing: false,
            #[cfg(test)]
            fault: super::tests::Fault::default(),
        }
    }

    /// Until the spool is closed and all that waited is written.
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
            tracing::warn!(%error, "the spool's log was not folded into its file; the next start does it");
        }
    }

    fn write(&mut self, batch: Batch) {
        let Batch { stores, changes, removals, .. } = batch;
        #[cfg(test)]
        let changes = self.run_for_tests(changes);
        let stores = self.admit(stores);
        if stores.is_empty() {
            return self.change(removals, changes);
        }
        match self.commit(&stores, &removals, &changes) {
            Ok(effects) => self.settle(stores, &removals, changes, &effects),
            Err(error) => {
                let refused = self.trouble(&error);
                for store in stores {
                    let _ = store.reply.send(Err(refused.clone()));
                }
                // What takes rows out must go on where nothing more fits in.
                self.change(removals, changes);
            }
        }
    }

    #[cfg(test)]
    fn run_for_tests(&mut self, changes: Vec<Change>) -> Vec<Change> {
        let mut others = Vec::new();
        for change in changes {
            match change {
                Change::Run { run } => run(&self.db, &mut self.fault),
                other => others.push(other),
            }
        }
        others
    }

    /// Those that the bounds let in, counting those before them; the others are answered.
    fn admit(&self, stores: Vec<Store>) -> Vec<Store> {
        let mut all = Amount::default();
        let mut sources: HashMap<String, Amount> = HashMap::new();
        let mut admitted = Vec::with_capacity(stores.len());
        for store in stores {
            let source = store.lines.first().map_or("", |line| names::source_of(line.record.topic()));
            let more = Amount { rows: store.lines.len() as u64, bytes: store.bytes };
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

    /// Removals and changes alone; on a full disk with the help of the reserve.
    fn change(&mut self, removals: Vec<i64>, changes: Vec<Change>) {
        if removals.is_empty() && changes.is_empty() {
            return;
        }
        let mut result = self.commit(&[], &removals, &changes);
        while let Err(error) = &result
            && format::is_full(error, &self.dir)
        {
            let whole = self.reserve.whole();
            if !self.reserve.give_up_a_piece() {
                break;
            }
            if whole {
                let bytes = self.reserve.bytes();
                tracing::warn!(bytes, "the disk is full: the spool gives up its reserve to go on deleting");
            }
            // The log can be reused only once it is in the file; the delete below tells if not. Its
            // blocks are kept: on a disk that others fill they would be gone, and the deletes with them.
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
        stores: &[Store],
        removals: &[i64],
        changes: &[Change],
    ) -> rusqlite::Result<Effects> {
        let mut effects = Effects::default();
        #[cfg(test)]
        self.fault.check(!stores.is_empty(), self.reserve.left())?;
        let work = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for line in stores.iter().flat_map(|store| &store.lines) {
            line.insert(&work)?;
        }
        remove(&work, removals, &mut effects)?;
        for change in changes {
            let count = apply(&work, change, &mut effects)?;
            effects.counts.push(count);
        }
        work.commit()?;
        Ok(effects)
    }

    /// Writes the commit into the book, then answers.
    fn settle(&mut self, stores: Vec<Store>, removals: &[i64], changes: Vec<Change>, effects: &Effects) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("the spool can be written again");
        }
        let mut book = self.shared.book();
        for line in stores.iter().flat_map(|store| &store.lines) {
            book.tally(line.record.topic(), State::Live, 1, line.bytes.cast_signed());
        }
        for (topic, before, after, bytes) in &effects.moves {
            if let Some(state) = before {
                book.tally(topic, *state, -1, -bytes);
            }
            if let Some(state) = after {
                book.tally(topic, *state, 1, *bytes);
            }
        }
        book.removed(removals);
        book.stats_mut().commits += 1;
        drop(book);
        self.written += stores.iter().map(|store| store.bytes).sum::<u64>();
        for store in stores {
            let _ = store.reply.send(Ok(()));
        }
        let mut counts = effects.counts.iter();
        for change in changes {
            let count = counts.next().copied().unwrap_or(0);
            let failed = matches!(change, Change::Flush { .. }) && !self.unremoved.is_empty();
            let failed =
                failed.then(|| SpoolError::new("deletes of delivered rows wait for room on the disk"));
            answer(change, failed.map_or(Ok(count), Err));
        }
    }

    /// Takes note of an error; what to answer.
    fn trouble(&mut self, error: &rusqlite::Error) -> Refused {
        if format::is_damage(error) {
            super::open::mark_damaged(&self.dir, &self.shared, error);
        } else if format::is_full(error, &self.dir) {
            self.set_full(Some(Bound::Disk));
            return Refused::Full(Bound::Disk);
        } else if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, "the spool cannot be written");
        }
        Refused::Error(SpoolError::sql("write", error))
    }

    fn upkeep(&mut self) {
        self.written = 0;
        self.retry();
        let free = disk::free(&self.dir).ok();
        let mut wal = self.wal_bytes();
        if wal > self.shared.limits.max_wal {
            let _ = self.checkpoint("TRUNCATE");
            wal = self.wal_bytes();
        }
        self.shrink();
        self.remake_reserve(free);
        // Pages that deletes left in the file can be filled without taking more of the disk.
        let unused = self.pragma("freelist_count").saturating_mul(PAGE);
        let room = free.map(|free| free.saturating_add(unused));
        let oldest_ms = self.oldest();
        let mut book = self.shared.book();
        let stats = book.stats_mut();
        (stats.free, stats.wal, stats.oldest_ms) = (free, wal, oldest_ms);
        stats.reserve = self.reserve.whole();
        let limits = &self.shared.limits;
        // Without the reserve, or while deletes fail, nothing may come in: it could not get out again.
        let stuck = !stats.reserve || !self.unremoved.is_empty();
        let full = if stuck || room.is_some_and(|room| room < limits.min_free) {
            Some(Bound::Disk)
        } else if wal > limits.max_wal {
            Some(Bound::Wal)
        } else if stats.live + stats.parked >= limits.max_rows {
            Some(Bound::Rows)
        } else if stats.bytes >= limits.max_bytes {
            Some(Bound::Bytes)
        } else {
            None
        };
        drop(book);
        self.set_full(full);
    }

    fn set_full(&self, full: Option<Bound>) {
        let before = std::mem::replace(&mut self.shared.book().stats_mut().full, full);
        match full {
            Some(bound) if before != full => {
                tracing::warn!(bound = bound.label(), "the spool is full");
            }
            None if before.is_some() => tracing::info!("the spool has room again"),
            _ => {}
        }
    }

    /// Deletes what could not be deleted before, some at a time, until one fails.
    fn retry(&mut self) {
        /// Few, so that the log needs little room.
        const AT_ONCE: usize = 128;
        while !self.unremoved.is_empty() {
            let rest = self.unremoved.split_off(self.unremoved.len().min(AT_ONCE));
            let some = std::mem::replace(&mut self.unremoved, rest);
            let left = self.unremoved.len();
            self.change(some, Vec::new());
            if self.unremoved.len() > left {
                return;
            }
        }
    }

    fn remake_reserve(&mut self, free: Option<u64>) {
        /// So that it is not made and dropped in turn at the edge.
        const MARGIN: u64 = 1024 * 1024;
        let wanted = self.shared.limits.min_free.saturating_add(self.reserve.missing() + MARGIN);
        if self.reserve.whole() || free.is_none_or(|free| free < wanted) {
            return;
        }
        match self.reserve.make() {
            Ok(()) => tracing::info!(bytes = self.reserve.bytes(), "the spool's reserve is in place"),
            Err(error) => tracing::warn!(%error, "the spool's reserve cannot be made"),
        }
    }

    /// Folds the log into the file, so that it starts over: `TRUNCATE` gives its blocks back to the
    /// disk, `RESTART` keeps them.
    fn checkpoint(&self, how: &str) -> rusqlite::Result<()> {
        self.db.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()))
    }

    fn wal_bytes(&self) -> u64 {
        std::fs::metadata(self.dir.join("spool.db-wal")).map_or(0, |meta| meta.len())
    }

    /// The file keeps the size of the longest outage; once nothing is in it, giving that back
    /// costs nothing.
    fn shrink(&self) {
        {
            let book = self.shared.book();
            if book.stats().live + book.stats().parked > 0 {
                return;
            }
        }
        let bytes = self.pragma("page_count").saturating_mul(PAGE);
        if bytes > SHRINK_BYTES || (!self.reserve.whole() && bytes > self.reserve.bytes()) {
            // Without room for it the file stays as it is.
            let _ = self.db.execute_batch("VACUUM").and_then(|()| self.checkpoint("TRUNCATE"));
        }
    }

    fn pragma(&self, name: &str) -> u64 {
        self.db.pragma_query_value(None, name, |row| row.get(0)).unwrap_or(0)
    }

    fn oldest(&self) -> Option<i64> {
        let topics = self.shared.book().live_topics();
        let first = |topic: &Arc<str>| {
            let sql = "SELECT min(id) FROM records WHERE state = 0 AND topic = ?1";
            self.db.prepare_cached(sql)?.query_row([topic.as_ref()], |row| row.get::<_, Option<i64>>(0))
        };
        let id = topics.iter().filter_map(|topic| first(topic).ok().flatten()).min()?;
        self.db.query_row("SELECT timestamp FROM records WHERE id = ?1", [id], |row| row.get(0)).ok()
    }
}
