//! The file's format: one table that the sqlite3 shell can read, a count of deleted rows, and a version.
//!
//! A version reads its own format and the previous one, and refuses a newer one. `tally` was added without a new
//! version: a hookstream that does not know it updates it through its trigger, and a file without it gets it at the
//! next start.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row as SqlRow};
use sha2::{Digest as _, Sha256};

use super::mark::Counts;
use super::{OpenError, VERSION, own};
use crate::failpoints::{self, Failpoint};
use crate::record::{Record, RecordParts};

/// "hkst", SQLite's `application_id` of a spool.
const APPLICATION: i64 = 0x686b_7374;

/// The small columns come before the value, so that reading them skips its pages. AUTOINCREMENT never assigns an id
/// twice, not even after the row was deleted. The index covers the count at the start and the search for a topic's
/// oldest rows.
const SCHEMA: &str = "
    CREATE TABLE records (
        id        INTEGER PRIMARY KEY AUTOINCREMENT, -- order of arrival
        state     INTEGER NOT NULL,                  -- 0 live, 1 parked
        bytes     INTEGER NOT NULL,                  -- of topic, key, headers and value
        timestamp INTEGER NOT NULL,                  -- milliseconds since 1970
        topic     TEXT NOT NULL,
        key       TEXT NOT NULL,
        headers   TEXT NOT NULL,                     -- JSON: [[name, value], ...]
        why       TEXT,                              -- why it is parked
        sum       INTEGER NOT NULL,                  -- digest of the record
        value     BLOB NOT NULL
    ) STRICT;
";

/// The number of deleted rows: together with `sqlite_sequence` it gives the number of rows that must exist. A trigger
/// updates it, so that every program that deletes a row counts it. The price: one more page in the log for a
/// transaction that deletes, and one to three microseconds per row.
const TALLY: &str = "
    CREATE TABLE tally (removed INTEGER NOT NULL) STRICT;
    CREATE TRIGGER count_removed AFTER DELETE ON records BEGIN UPDATE tally SET removed = removed + 1; END;
";

/// Created after the tables, as VACUUM does it: so a new file and a compacted one have the same root pages.
const INDEX: &str = "CREATE INDEX by_topic ON records (state, topic, id, bytes);";

/// The size of SQLite's pages, in bytes.
pub(super) const PAGE: usize = 4096;

/// The columns that [`entry`] reads.
pub(super) const COLUMNS: &str = "id, state, timestamp, topic, key, headers, why, sum, value";

/// SQLite moves the log into the file at this number of pages of 4 KiB.
const CHECKPOINT_PAGES: i64 = 1_000;

pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join("spool.db")
}

/// Opens the file for writing and returns its version: 0 for an empty file, which is not changed.
pub(super) fn open_writer(dir: &Path) -> Result<(Connection, i64), OpenError> {
    let path = file(dir);
    let sql = |cause| OpenError::sql("cannot open", &path, cause);
    private(dir)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let db =
        Connection::open_with_flags(real(&path), flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(sql)?;
    // Otherwise closing a damaged file would move its log into it and change the evidence.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sql)?;
    settings(&db).map_err(sql)?;
    let version = version(&db, &path)?;
    let mode: String =
        db.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(sql)?;
    if mode != "wal" {
        return Err(OpenError::NoWal { path });
    }
    Ok((db, version))
}

/// Creates the file if it does not exist, and sets mode 0600 on SQLite's files. SQLite gives its log the mode of the
/// file.
fn private(dir: &Path) -> Result<(), OpenError> {
    let path = file(dir);
    for end in ["", "-wal", "-shm", "-journal"] {
        let path = with(&path, end);
        own::tighten(&path).map_err(|cause| OpenError::io("cannot use", &path, cause))?;
    }
    match own::create(&path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(OpenError::io("cannot make", &path, cause))
        }
        _ => Ok(()),
    }
}

/// `path` with `end` appended.
pub(super) fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// The same file by a path without linked directories: SQLite's NOFOLLOW applies to the complete path, but a linked
/// directory is the operator's decision.
fn real(path: &Path) -> PathBuf {
    let dir = path.parent().and_then(|dir| dir.canonicalize().ok());
    match (dir, path.file_name()) {
        (Some(dir), Some(name)) => dir.join(name),
        _ => path.to_owned(),
    }
}

/// Opens the file for reading. Takes no lock and blocks nobody.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    reader(path, "")
}

/// Opens a damaged file for reading. Without this setting SQLite would refuse a file that is shorter than its header
/// states.
pub(super) fn open_damaged(path: &Path) -> Result<Connection, OpenError> {
    reader(path, "PRAGMA writable_schema = ON")
}

/// The version in the file itself, without its log; 0 for an empty file. Unlike [`open_reader`] it takes no lock and
/// makes no `-wal` and `-shm`, which would belong to the user who runs the command. Only for a file that this process
/// does not have open: closing it would drop SQLite's locks.
pub(super) fn version_without_log(path: &Path) -> Result<i64, OpenError> {
    let sql = |cause| OpenError::sql("cannot open", path, cause);
    let name = real(path);
    let name = percent_encode(name.as_os_str().as_encoded_bytes(), NON_ALPHANUMERIC);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_URI;
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(format!("file:{name}?immutable=1"), flags).map_err(sql)?;
    settings(&db).map_err(sql)?;
    version(&db, path)
}

fn reader(path: &Path, before: &str) -> Result<Connection, OpenError> {
    let sql = |cause| OpenError::sql("cannot open", path, cause);
    // If the file is empty, SQLite deletes the log next to it, also for a reader.
    if std::fs::metadata(path).is_ok_and(|meta| meta.len() == 0) {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let db = Connection::open_with_flags(real(path), flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(sql)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sql)?;
    db.execute_batch(before).and_then(|()| settings(&db)).map_err(sql)?;
    match version(&db, path)? {
        0 => Err(OpenError::Foreign { path: path.to_owned() }),
        _ => Ok(db),
    }
}

fn settings(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(Duration::from_millis(250))?;
    // FULL syncs the log at each commit, which each 202 depends on. The two fullfsync settings are for systems whose
    // fsync does not reach the disk.
    let synchronous = if failpoints::is_active(Failpoint::NoSync) { "OFF" } else { "FULL" };
    db.execute_batch(&format!(
        "PRAGMA synchronous = {synchronous}; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;
         PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}; PRAGMA cell_size_check = ON;
         PRAGMA cache_size = -8192; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;"
    ))
}

/// The file's version; 0 for an empty file.
fn version(db: &Connection, path: &Path) -> Result<i64, OpenError> {
    let sql = |cause| OpenError::sql("cannot open", path, cause);
    let number = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sql);
    let (version, application) = (number("user_version")?, number("application_id")?);
    let tables: i64 =
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sql)?;
    match (application, version) {
        (APPLICATION, 1..=VERSION) => Ok(version),
        (APPLICATION, found) => Err(OpenError::Newer { path: path.to_owned(), found }),
        (0, 0) if tables == 0 => Ok(0),
        _ => Err(OpenError::Foreign { path: path.to_owned() }),
    }
}

/// Creates the tables of a spool with these counts. One transaction: after a crash there is a complete spool or an
/// empty file.
pub(super) fn create(db: &mut Connection, counts: Counts) -> rusqlite::Result<()> {
    let work = db.transaction()?;
    work.execute_batch(SCHEMA)?;
    work.execute_batch(TALLY)?;
    work.execute_batch(INDEX)?;
    work.execute("INSERT INTO tally (removed) VALUES (0)", [])?;
    set_counts(&work, counts)?;
    work.pragma_update(None, "application_id", APPLICATION)?;
    work.pragma_update(None, "user_version", VERSION)?;
    work.commit()
}

/// The file's own counts of stored and deleted rows; the latter is `None` in a file without the tally.
pub(super) fn counts(db: &Connection) -> rusqlite::Result<(u64, Option<u64>)> {
    let seq = "SELECT seq FROM sqlite_sequence WHERE name = 'records'";
    let given = db.query_row(seq, [], |row| row.get(0)).optional()?.unwrap_or(0);
    if !db.table_exists(Some("main"), "tally")? {
        return Ok((given, None));
    }
    Ok((given, db.query_row("SELECT removed FROM tally", [], |row| row.get(0)).optional()?))
}

/// Sets the counts after a salvage, which copies rows with their ids.
pub(super) fn set_counts(db: &Connection, counts: Counts) -> rusqlite::Result<()> {
    db.execute("DELETE FROM sqlite_sequence WHERE name = 'records'", [])?;
    db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('records', ?1)", [counts.given])?;
    db.execute("UPDATE tally SET removed = ?1", [counts.removed]).map(drop)
}

/// Adds the tally to a file without it.
pub(super) fn add_tally(db: &mut Connection, removed: u64) -> rusqlite::Result<()> {
    let work = db.transaction()?;
    work.execute_batch("DROP TABLE IF EXISTS tally; DROP TRIGGER IF EXISTS count_removed;")?;
    work.execute_batch(TALLY)?;
    work.execute("INSERT INTO tally (removed) VALUES (?1)", [removed])?;
    work.commit()
}

/// Writes and syncs without changing anything, to find out whether writing works. An UPDATE that changes no value would
/// not do, since SQLite then writes no page.
pub(super) fn try_write(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "user_version", VERSION)
}

/// A record in the form of a row, prepared on the caller's thread to save the writer's time.
pub(super) struct InsertRow {
    pub(super) record: Record,
    pub(super) headers: String,
    pub(super) bytes: u64,
    sum: i64,
}

impl InsertRow {
    pub(super) fn from_record(record: Record) -> Self {
        let pairs: Vec<(&str, &str)> =
            record.headers().iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
        // Serializing pairs of strings cannot fail.
        let headers = serde_json::to_string(&pairs).unwrap_or_default();
        let bytes = record.topic().len() + record.key().len() + headers.len() + record.value().len();
        let sum = checksum(record.topic(), record.key(), &headers, record.timestamp_ms(), record.value());
        Self { record, headers, bytes: bytes as u64, sum }
    }

    pub(super) fn insert(&self, db: &Connection) -> rusqlite::Result<()> {
        db.prepare_cached(
            "INSERT INTO records (state, bytes, timestamp, topic, key, headers, sum, value)
             VALUES (0, ?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((
            self.bytes,
            self.record.timestamp_ms(),
            self.record.topic(),
            self.record.key(),
            &self.headers,
            self.sum,
            self.record.value(),
        ))
        .map(drop)
    }
}

/// Inserts a salvaged row with its id. `false` if the id exists: another view had the same row.
pub(super) fn restore(db: &Connection, entry: &RowEntry, line: &InsertRow) -> rusqlite::Result<bool> {
    let restored = db
        .prepare_cached(
            "INSERT OR IGNORE INTO records (id, state, why, bytes, timestamp, topic, key, headers, sum, value)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute((
            entry.id,
            entry.state.number(),
            &entry.why,
            line.bytes,
            line.record.timestamp_ms(),
            line.record.topic(),
            line.record.key(),
            &line.headers,
            line.sum,
            line.record.value(),
        ))?;
    Ok(restored > 0)
}

/// SQLite has no checksums over its pages: a page of another row, or of zeros, would be read as a record's value and
/// published. 64 bits of SHA-256 over everything that is published prevent that, at 0.6 us for 1 KB.
fn checksum(topic: &str, key: &str, headers: &str, timestamp: i64, value: &[u8]) -> i64 {
    let mut hash = Sha256::new();
    for part in [topic.as_bytes(), key.as_bytes(), headers.as_bytes(), &timestamp.to_be_bytes(), value] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    digest.first_chunk::<8>().map_or(0, |first| i64::from_be_bytes(*first))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// On its way to Kafka.
    Live,
    /// Waits for a person's decision; never dropped.
    Parked,
}

impl RowState {
    /// The name in lists and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Parked => "parked",
        }
    }

    pub(super) const fn number(self) -> i64 {
        match self {
            Self::Live => 0,
            Self::Parked => 1,
        }
    }

    pub(super) const fn from_number(number: i64) -> Self {
        if number == 0 { Self::Live } else { Self::Parked }
    }
}

/// One row with its record.
#[derive(Debug)]
pub struct RowEntry {
    /// The row's id: ids rise in order of arrival, and none is assigned twice.
    pub id: i64,
    /// Live or parked.
    pub state: RowState,
    /// Why it is parked.
    pub why: Option<String>,
    /// The record; `None` if the row is damaged.
    pub record: Option<Record>,
}

/// Reads [`COLUMNS`]. A row whose fields have another type, or whose checksum differs, is a [`RowEntry`] without a
/// record.
pub(super) fn entry(row: &SqlRow<'_>) -> rusqlite::Result<RowEntry> {
    let (id, state) = (row.get(0)?, row.get(1).map_or(RowState::Live, RowState::from_number));
    let why = row.get(6).unwrap_or_default();
    Ok(RowEntry { id, state, why, record: record(row).ok().flatten() })
}

fn record(row: &SqlRow<'_>) -> rusqlite::Result<Option<Record>> {
    let (timestamp_ms, topic, key): (i64, Arc<str>, String) = (row.get(2)?, row.get(3)?, row.get(4)?);
    let (headers, value): (String, Vec<u8>) = (row.get(5)?, row.get(8)?);
    if checksum(&topic, &key, &headers, timestamp_ms, &value) != row.get::<_, i64>(7)? {
        return Ok(None);
    }
    let Ok(pairs) = serde_json::from_str::<Vec<(String, String)>>(&headers) else { return Ok(None) };
    let headers = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    Ok(Record::from_spool(RecordParts { topic, key, value, timestamp_ms, headers }))
}

/// A column as text, lossily: damaged rows are shown, too.
pub(super) fn text(row: &SqlRow<'_>, index: usize) -> String {
    let bytes = row.get_ref(index).ok().and_then(|value| value.as_bytes_or_null().ok().flatten());
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

/// Whether SQLite reports damage of the file.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether another program holds the write lock.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether the disk is full. Some calls of SQLite report an I/O error without its cause; then the free space decides.
pub(super) fn is_full(error: &rusqlite::Error, dir: &Path) -> bool {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => true,
        Some(ErrorCode::SystemIoFailure) => super::disk::free(dir).is_ok_and(|free| free < 64 * 1024),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_written_and_a_newer_one_is_refused_with_both() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let (mut db, version) = open_writer(dir.path())?;
            if version == 0 {
                create(&mut db, Counts::default()).unwrap();
            }
            Ok::<_, OpenError>(db)
        };
        let db = open().unwrap();
        let read: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(read, 1);
        drop(db);
        drop(open().expect("its own version opens"));
        open_reader(&file(dir.path())).expect("and reads");
        let db = Connection::open(file(dir.path())).unwrap();
        db.pragma_update(None, "user_version", 2).unwrap();
        drop(db);
        for error in [open().unwrap_err(), open_reader(&file(dir.path())).unwrap_err()] {
            let text = error.to_string();
            assert!(text.contains("version 2") && text.contains("version 1"), "{text}");
        }
    }

    #[test]
    fn a_database_of_another_program_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        Connection::open(file(dir.path())).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        let before = std::fs::read(file(dir.path())).unwrap();
        assert!(matches!(open_writer(dir.path()), Err(OpenError::Foreign { .. })));
        assert_eq!(std::fs::read(file(dir.path())).unwrap(), before);
    }

    #[test]
    fn c5_a_try_reaches_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (mut db, _) = open_writer(dir.path()).unwrap();
        create(&mut db, Counts::default()).unwrap();
        let log = || std::fs::metadata(with(&file(dir.path()), "-wal")).unwrap().len();
        let before = log();
        try_write(&db).unwrap();
        assert!(log() > before);
    }

    #[test]
    fn every_commit_is_synced_in_full() {
        let dir = tempfile::tempdir().unwrap();
        let (db, _) = open_writer(dir.path()).unwrap();
        let text: i64 = db.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        assert_eq!(text, 2);
    }

    #[test]
    fn two_records_that_differ_only_in_where_a_field_ends_have_two_sums() {
        assert_ne!(checksum("ab", "c", "[]", 1, b"v"), checksum("a", "bc", "[]", 1, b"v"));
        assert_ne!(checksum("a", "b", "[]", 1, b"v"), checksum("a", "b", "[]", 2, b"v"));
        assert_ne!(checksum("a", "b", "[]", 1, b"v"), checksum("a", "b", "[]", 1, b"w"));
    }
}
