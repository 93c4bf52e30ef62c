//! The writer's work once a second, between transactions.

use std::sync::Arc;

use super::{PAGE, SHRINK_BYTES, Writer};
use crate::spool::error::Bound;
use crate::spool::{disk, format, report};

impl Writer {
    pub(super) fn upkeep(&mut self) {
        self.written = 0;
        self.retry();
        let synced = self.mark.sync();
        self.marked(synced);
        let _ = self.in_place();
        self.retry_write();
        let free = disk::free(&self.dir).ok();
        let mut wal = self.wal_bytes();
        if wal > self.shared.limits.max_wal {
            let _ = self.checkpoint("TRUNCATE");
            wal = self.wal_bytes();
        }
        self.shrink();
        self.remake_reserve(free);
        // Free pages within the file can be used without more disk space.
        let unused = self.pragma("freelist_count").saturating_mul(PAGE);
        let room = free.map(|free| free.saturating_add(unused));
        let oldest_ms = self.oldest();
        let salvaged = report::reports(&self.dir);
        let mut book = self.shared.ledger();
        let stats = book.stats_mut();
        if let Ok(salvaged) = salvaged
            && *salvaged != *stats.salvaged
        {
            stats.salvaged = salvaged.into();
        }
        (stats.free, stats.wal, stats.oldest_ms) = (free, wal, oldest_ms);
        stats.reserve = self.reserve.whole();
        let limits = &self.shared.limits;
        // Without the reserve, or while deletes fail, nothing may be stored: it could not be deleted again.
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

    /// Checks after a failure whether writing works again, without waiting for a delivery.
    pub(super) fn retry_write(&mut self) {
        if self.shared.ledger().stats().failing.is_none() {
            return;
        }
        #[cfg(test)]
        let tried = self.fault.check(true, self.reserve.left()).and_then(|()| format::try_write(&self.db));
        #[cfg(not(test))]
        let tried = format::try_write(&self.db);
        match tried {
            Ok(()) => self.clear_failure(),
            Err(error) => drop(self.trouble(&error)),
        }
    }

    pub(super) fn set_full(&self, full: Option<Bound>) {
        let before = std::mem::replace(&mut self.shared.ledger().stats_mut().full, full);
        match full {
            Some(bound) if before != full => {
                tracing::warn!(bound = bound.label(), "the spool is full");
            }
            None if before.is_some() => tracing::info!("the spool has room again"),
            _ => {}
        }
    }

    /// Retries failed deletes, some at a time, until one fails.
    pub(super) fn retry(&mut self) {
        /// Few, so that the log needs little space.
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
        /// So that the reserve is not created and released in turn at the limit.
        const MARGIN: u64 = 1024 * 1024;
        let wanted = self.shared.limits.min_free.saturating_add(self.reserve.missing() + MARGIN);
        if self.reserve.whole() || free.is_none_or(|free| free < wanted) {
            return;
        }
        match self.reserve.make() {
            Ok(()) => tracing::info!(bytes = self.reserve.bytes(), "the spool's reserve is complete"),
            Err(error) => tracing::warn!(%error, "the spool's reserve cannot be created"),
        }
    }

    /// Moves the log into the file, so that it starts over: `TRUNCATE` releases its blocks, `RESTART` keeps them.
    pub(super) fn checkpoint(&self, how: &str) -> rusqlite::Result<()> {
        self.db.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()))
    }

    fn wal_bytes(&self) -> u64 {
        std::fs::metadata(self.dir.join("spool.db-wal")).map_or(0, |meta| meta.len())
    }

    /// The file keeps the size of the longest outage. Once it is empty, releasing its space is cheap.
    fn shrink(&self) {
        {
            let book = self.shared.ledger();
            if book.stats().live + book.stats().parked > 0 {
                return;
            }
        }
        let bytes = self.pragma("page_count").saturating_mul(PAGE);
        if bytes > SHRINK_BYTES || (!self.reserve.whole() && bytes > self.reserve.bytes()) {
            // Without free space for it the file stays as it is.
            let _ = self.db.execute_batch("VACUUM").and_then(|()| self.checkpoint("TRUNCATE"));
        }
    }

    fn pragma(&self, name: &str) -> u64 {
        self.db.pragma_query_value(None, name, |row| row.get(0)).unwrap_or(0)
    }

    fn oldest(&self) -> Option<i64> {
        let topics = self.shared.ledger().live_topics();
        let first = |topic: &Arc<str>| {
            let sql = "SELECT min(id) FROM records WHERE state = 0 AND topic = ?1";
            self.db.prepare_cached(sql)?.query_row([topic.as_ref()], |row| row.get::<_, Option<i64>>(0))
        };
        let id = topics.iter().filter_map(|topic| first(topic).ok().flatten()).min()?;
        self.db.query_row("SELECT timestamp FROM records WHERE id = ?1", [id], |row| row.get(0)).ok()
    }
}
