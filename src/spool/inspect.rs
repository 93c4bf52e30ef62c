//! Read access for `hookstream spool`: read-only, without a lock, also while a service writes.

use std::path::Path;

use rusqlite::Connection;

use super::error::{OpenError, SpoolError};
use super::format::{self, COLUMNS, RowEntry, RowState};

/// The rows to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only rows of this topic.
    pub topic: Option<String>,
    /// Only rows in this state.
    pub state: Option<RowState>,
}

/// One row without the record's value and headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSummary {
    /// The row's id; ids rise in order of arrival.
    pub id: i64,
    /// Live or parked.
    pub state: RowState,
    /// The record's topic.
    pub topic: String,
    /// The record's key.
    pub key: String,
    /// Bytes of topic, key, headers and value.
    pub bytes: u64,
    /// When the delivery was received, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Why it is parked.
    pub why: Option<String>,
}

/// The totals of all rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows on their way to Kafka.
    pub live: u64,
    /// Rows that wait for a person's decision.
    pub parked: u64,
    /// Bytes of both: topics, keys, headers, values.
    pub bytes: u64,
    /// When the oldest row, live or parked, was received, in milliseconds since 1970.
    pub oldest_ms: Option<i64>,
}

/// Reads a spool. Each call is a short transaction of its own: a long one would keep the service from emptying SQLite's
/// log.
pub struct SpoolReader {
    db: Connection,
}

impl SpoolReader {
    /// Opens the spool in `dir`.
    ///
    /// # Errors
    /// If there is none, or a newer hookstream wrote it. If no service runs, SQLite has to write its `-shm` file, so
    /// the directory must be writable.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Ok(Self { db: format::open_reader(&format::file(dir))? })
    }

    /// Keeps a read transaction open, which no command does.
    #[cfg(test)]
    pub(super) fn hold(&self) -> rusqlite::Result<()> {
        self.db.execute_batch("BEGIN; SELECT count(*) FROM records")
    }

    /// At most `limit` rows with an id above `after`, in order of arrival.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn list(&self, filter: &Filter, after: i64, limit: usize) -> Result<Vec<RowSummary>, SpoolError> {
        let state = filter.state.map(RowState::number);
        let work = || {
            let mut select = self.db.prepare_cached(
                "SELECT id, state, topic, key, bytes, timestamp, why FROM records
                 WHERE id > ?1 AND (?2 IS NULL OR topic = ?2) AND (?3 IS NULL OR state = ?3)
                 ORDER BY id LIMIT ?4",
            )?;
            let rows = select.query_map((after, &filter.topic, state, limit as u64), |row| {
                Ok(RowSummary {
                    id: row.get(0)?,
                    state: row.get(1).map_or(RowState::Live, RowState::from_number),
                    topic: format::text(row, 2),
                    key: format::text(row, 3),
                    bytes: row.get(4).unwrap_or_default(),
                    timestamp_ms: row.get(5).unwrap_or_default(),
                    why: row.get(6).unwrap_or_default(),
                })
            })?;
            rows.collect::<rusqlite::Result<_>>()
        };
        work().map_err(|error| SpoolError::sql("read", &error))
    }

    /// The totals. Reads only the index: about a second for ten million rows.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn totals(&self) -> Result<Totals, SpoolError> {
        let work = || {
            let mut totals = Totals::default();
            let mut select = self.db.prepare_cached(
                "SELECT state, count(*), sum(bytes) FROM records INDEXED BY by_topic GROUP BY state",
            )?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let count = match RowState::from_number(row.get(0)?) {
                    RowState::Live => &mut totals.live,
                    RowState::Parked => &mut totals.parked,
                };
                *count += row.get::<_, u64>(1)?;
                totals.bytes += row.get::<_, u64>(2)?;
            }
            let mut first = self.db.prepare_cached("SELECT timestamp FROM records ORDER BY id LIMIT 1")?;
            let mut rows = first.query([])?;
            totals.oldest_ms = rows.next()?.map(|row| row.get(0)).transpose()?;
            Ok(totals)
        };
        work().map_err(|error| SpoolError::sql("read", &error))
    }

    /// One row with its record.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn show(&self, id: i64) -> Result<Option<RowEntry>, SpoolError> {
        let work = || {
            let sql = format!("SELECT {COLUMNS} FROM records WHERE id = ?1");
            let mut select = self.db.prepare_cached(&sql)?;
            let mut rows = select.query([id])?;
            rows.next()?.map(format::entry).transpose()
        };
        work().map_err(|error| SpoolError::sql("read", &error))
    }
}
