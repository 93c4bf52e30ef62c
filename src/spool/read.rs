//! The reader thread: finds the rows to deliver next.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use rusqlite::Connection;

use super::Row;
use super::error::{OpenError, SpoolError};
use super::format::{self, COLUMNS, RowEntry};
use super::shared::{Reply, SpoolState, WriterCommand};

pub(super) enum ReadRequest {
    Oldest {
        topic: Arc<str>,
        max_rows: usize,
        max_bytes: u64,
        reply: Reply<Vec<Row>, SpoolError>,
    },
    Stop,
    #[cfg(test)]
    Panic,
}

pub(super) struct ReaderThread {
    dir: PathBuf,
    db: Connection,
    shared: Arc<SpoolState>,
}

impl ReaderThread {
    pub(super) fn new(dir: &Path, shared: Arc<SpoolState>) -> Result<Self, OpenError> {
        Ok(Self { dir: dir.to_owned(), db: format::open_reader(&format::file(dir))?, shared })
    }

    pub(super) fn run(self, requests: &mpsc::Receiver<ReadRequest>) {
        while let Ok(request) = requests.recv() {
            let (topic, max_rows, max_bytes, reply) = match request {
                ReadRequest::Oldest { topic, max_rows, max_bytes, reply } => {
                    (topic, max_rows, max_bytes, reply)
                }
                ReadRequest::Stop => return,
                #[cfg(test)]
                ReadRequest::Panic => panic!("on purpose"),
            };
            let rows = self.oldest(&topic, max_rows, max_bytes).map_err(|error| {
                if format::is_damage(&error) {
                    super::open::mark_damaged(&self.dir, &self.shared, &error);
                }
                SpoolError::sql("read", &error)
            });
            let why = rows.as_ref().err().map(|error| error.to_string().into());
            self.shared.ledger().stats_mut().unreadable = why;
            // If the caller is gone, dropping the rows ends their leases.
            let _ = reply.send(rows);
        }
    }

    fn oldest(&self, topic: &Arc<str>, max_rows: usize, max_bytes: u64) -> rusqlite::Result<Vec<Row>> {
        let taken = self.shared.taken();
        let mut rows = Vec::new();
        for id in self.ids(topic, &taken, max_rows, max_bytes)? {
            let sql = format!("SELECT {COLUMNS} FROM records WHERE id = ?1 AND state = 0");
            let mut select = self.db.prepare_cached(&sql)?;
            let mut found = select.query([id])?;
            let Some(row) = found.next()? else { continue };
            match format::entry(row)? {
                RowEntry { record: Some(record), .. } if record.topic() == &**topic => {
                    rows.push(Row { id, record, _lease: self.shared.lease(id) });
                }
                _ => self.park_damaged(id, topic),
            }
        }
        Ok(rows)
    }

    /// Reads only the index: the values of leased rows are not read again.
    fn ids(
        &self,
        topic: &str,
        taken: &HashSet<i64>,
        max_rows: usize,
        max_bytes: u64,
    ) -> rusqlite::Result<Vec<i64>> {
        let mut select = self.db.prepare_cached(
            "SELECT id, bytes FROM records INDEXED BY by_topic WHERE state = 0 AND topic = ?1 ORDER BY id",
        )?;
        let mut found = select.query([topic])?;
        let (mut ids, mut bytes) = (Vec::new(), 0_u64);
        while ids.len() < max_rows
            && bytes < max_bytes
            && let Some(row) = found.next()?
        {
            let id = row.get(0)?;
            if !taken.contains(&id) {
                ids.push(id);
                bytes = bytes.saturating_add(row.get(1)?);
            }
        }
        Ok(ids)
    }

    fn park_damaged(&self, id: i64, topic: &str) {
        tracing::error!(id, topic, "a row of the spool is damaged; it is parked");
        let why = String::from("the row is damaged");
        let _ = self.shared.push_change(WriterCommand::Park { id, why, reply: None });
    }
}
