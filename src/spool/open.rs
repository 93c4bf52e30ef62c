//! Opens a spool: the directory, the lock, the check, and a salvage if it is needed.
//!
//! The checks, in this order, before anything is written:
//!
//! 1. Does the file exist, if the mark or the log requires one? If it is empty, SQLite deletes the log next to it.
//! 2. Without a mark: does the log continue behind the part that SQLite reads?
//! 3. Are all pages consistent, and the index with the table?
//! 4. Does the number of rows agree with the file's own counts, and are these not behind the mark ([`super::mark`])?

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::disk::{self, Lock, Reserve};
use super::error::OpenError;
use super::files::Files;
use super::format::{self, RowState, with};
use super::mark::{self, AckMark, Counts, MarkState};
use super::report::{self, Salvage};
use super::shared::{Ledger, SpoolState};
use super::{SpoolLimits, own, salvage, wal};

/// How long the check of the file may delay the start. It reads every page, so only a file of some gigabytes exceeds
/// it. Damage behind that point is found when the row is read, and the next start then checks the complete file.
const CHECK_WITHIN: Duration = Duration::from_secs(5);

/// The contents of an opened spool.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// Whether the directory held no spool.
    pub created: bool,
    /// Rows on their way to Kafka.
    pub live: u64,
    /// Rows that wait for a person's decision.
    pub parked: u64,
    /// Bytes of all rows.
    pub bytes: u64,
    /// The report, if the spool was damaged or may have been.
    pub salvage: Option<Salvage>,
}

pub(super) struct OpenedSpool {
    pub(super) db: Connection,
    pub(super) book: Ledger,
    pub(super) reserve: Reserve,
    pub(super) mark: AckMark,
    pub(super) files: Files,
    pub(super) limits: SpoolLimits,
    pub(super) lock: Lock,
    pub(super) opened: Opened,
}

pub(super) fn open(dir: &Path, limits: SpoolLimits) -> Result<OpenedSpool, OpenError> {
    let failed = |cause| OpenError::io("cannot use", dir, cause);
    disk::make_dir(dir)?;
    own::check_dir(dir).map_err(failed)?;
    let lock = Lock::take(dir)?;
    own::tighten_all(dir)?;
    salvage::finish(dir)?;
    let path = dir.join(mark::FILE);
    let at_mark = |cause| OpenError::io("cannot use", &path, cause);
    let found = match mark::read(dir).map_err(at_mark)? {
        MarkState::Newer(found) => return Err(OpenError::Newer { path, found }),
        found => found,
    };
    let (mut sound, mut salvaged) = match examine(dir, found) {
        Err(OpenError::Damaged { cause, .. }) => {
            tracing::error!(error = cause, "the spool is damaged: salvaging what can be read");
            let (salvage, counts) = salvage::salvage(dir, found, &cause)?;
            AckMark::open(dir, counts).map_err(at_mark)?;
            (examine(dir, MarkState::Counts(counts))?, Some(salvage))
        }
        other => (other?, None),
    };
    // hookstream creates the mark before the tally, so somebody has removed it.
    let mark_removed = found == MarkState::Nothing && sound.tallied && sound.counts.given > 0;
    if salvaged.is_none() && (found == MarkState::Damaged || mark_removed) {
        salvaged = Some(salvage::report_unknown(dir, found, sound.counts.rows())?);
    }
    salvaged.iter().for_each(log_salvage);
    let reserve = Reserve::new(dir, limits.reserve);
    let mark = with_room(dir, &reserve, || AckMark::open(dir, sound.counts).map_err(at_mark))?;
    if !sound.tallied {
        let sql = |cause| OpenError::sql("cannot write", &format::file(dir), cause);
        with_room(dir, &reserve, || format::add_tally(&mut sound.db, sound.counts.removed).map_err(sql))?;
    }
    let created = sound.created && found == MarkState::Nothing;
    let Sound { db, mut book, .. } = sound;
    disk::sync_dir(dir).map_err(|cause| OpenError::io("cannot sync", dir, cause))?;
    let stats = book.stats_mut();
    stats.salvaged = report::reports(dir).map_err(failed)?.into();
    let (live, parked, bytes) = (stats.live, stats.parked, stats.bytes);
    let opened = Opened { created, live, parked, bytes, salvage: salvaged };
    Ok(OpenedSpool { db, book, reserve, mark, files: Files::in_dir(dir), limits, lock, opened })
}

/// Runs `work`, and on a full disk releases the reserve for it: a spool that cannot be opened cannot drain either.
fn with_room<T>(
    dir: &Path,
    reserve: &Reserve,
    mut work: impl FnMut() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    loop {
        let full = match work() {
            Err(OpenError::Io { cause, .. }) if cause.kind() == std::io::ErrorKind::StorageFull => true,
            Err(OpenError::Sql { cause, .. }) if format::is_full(&cause, dir) => true,
            result => return result,
        };
        if full && !reserve.release_chunk() {
            return work();
        }
    }
}

/// An undamaged spool.
struct Sound {
    db: Connection,
    book: Ledger,
    counts: Counts,
    /// Whether its tables were created just now.
    created: bool,
    /// Whether the file has the table `tally`.
    tallied: bool,
}

/// Opens, checks and counts. Writes nothing to a damaged spool.
fn examine(dir: &Path, mark: MarkState) -> Result<Sound, OpenError> {
    let path = format::file(dir);
    let io = |cause| OpenError::io("cannot check", &path, cause);
    let damaged = |cause: String| OpenError::Damaged { path: path.clone(), cause };
    let marked = mark.counts();
    // SQLite reports a schema that it does not understand as a general error. With a mark of our version, it is damage.
    let unread = |cause: &rusqlite::Error| {
        marked.is_some() && cause.sqlite_error_code() == Some(rusqlite::ErrorCode::Unknown)
    };
    let sql = |cause: rusqlite::Error| match format::is_damage(&cause) || unread(&cause) {
        true => damaged(cause.to_string()),
        false => OpenError::sql("cannot read", &path, cause),
    };
    let log = with(&path, "-wal");
    let expected_rows = marked.unwrap_or_default().rows();
    if length(&path).map_err(io)? == 0 && (expected_rows > 0 || length(&log).map_err(io)? > 0) {
        return Err(damaged(String::from("spool.db is missing or empty")));
    }
    if marked.is_none() && wal::read(&log).map_err(io)?.goes_on() {
        return Err(damaged(String::from("spool.db-wal continues behind a frame with a wrong checksum")));
    }
    let (mut db, version) = match format::open_writer(dir) {
        Err(OpenError::Sql { cause, .. }) => return Err(sql(cause)),
        // With a mark of our version, a foreign or newer file is a damaged one.
        Err(OpenError::Foreign { .. } | OpenError::Newer { .. } | OpenError::NoWal { .. })
            if marked.is_some() =>
        {
            return Err(damaged(String::from("spool.db does not begin as it was written")));
        }
        other => other?,
    };
    if db.is_readonly("main").map_err(sql)? {
        // SQLite opens a file read-only if its header names a later write version.
        let header = own::open_existing(&path).and_then(|file| {
            let mut header = [0; 20];
            file.read_exact_at(&mut header, 0).map(|()| header)
        });
        return Err(match header.map_err(io)? {
            [.., write, _] if write > 2 && marked.is_some() => {
                damaged(String::from("spool.db does not begin as it was written"))
            }
            _ => io(std::io::ErrorKind::PermissionDenied.into()),
        });
    }
    if version == 0 {
        if expected_rows > 0 {
            return Err(damaged(String::from("spool.db has no tables")));
        }
        format::create(&mut db, marked.unwrap_or_default()).map_err(sql)?;
        disk::sync_dir(dir).map_err(io)?;
    }
    let within = (!marker(dir).exists()).then_some(CHECK_WITHIN);
    check(&mut db, within).map_err(sql)?;
    let book = count(&db).map_err(sql)?;
    let rows = book.stats().live + book.stats().parked;
    let (given, removed) = format::counts(&db).map_err(sql)?;
    let counts = Counts { given, removed: removed.unwrap_or_else(|| given.saturating_sub(rows)) };
    if rows != counts.rows() {
        return Err(damaged(format!("spool.db holds {rows} rows, but its own count is {}", counts.rows())));
    }
    if let Some(marked) = marked
        && marked.is_ahead_of(counts)
    {
        return Err(damaged(format!(
            "acknowledged transactions are missing: spool.mark counts {} rows stored and {} removed, spool.db {given} \
             and {}",
            marked.given, marked.removed, counts.removed
        )));
    }
    // It was a false alarm, or the damage was salvaged.
    let _ = fs::remove_file(marker(dir));
    Ok(Sound { db, book, counts, created: version == 0, tallied: removed.is_some() })
}

/// The file's length; 0 if it does not exist.
fn length(path: &Path) -> std::io::Result<u64> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        meta => meta.map(|meta| meta.len()),
    }
}

fn log_salvage(salvage: &Salvage) {
    tracing::error!(
        kept = salvage.kept,
        lost_at_least = salvage.lost.least,
        lost_at_most = salvage.lost.most,
        aside = %salvage.aside.display(),
        "acknowledged rows of the spool: {}; the damaged files are set aside", salvage.lost
    );
}

fn check(db: &mut Connection, within: Option<Duration>) -> rusqlite::Result<()> {
    if let Some(within) = within {
        let end = Instant::now() + within;
        db.progress_handler(1_000, Some(move || Instant::now() > end))?;
    }
    // Not quick_check: a row that the index lacks would never be delivered, and nobody would notice. It takes twice the
    // time: 0.2 s for 100,000 rows of 745 bytes in memory.
    let verdict = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    db.progress_handler(0, None::<fn() -> bool>)?;
    match verdict {
        Ok(text) if text == "ok" => Ok(()),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => {
            tracing::info!("the spool file is large: only its first part was checked");
            Ok(())
        }
        Ok(text) => {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            Err(rusqlite::Error::SqliteFailure(code, Some(text)))
        }
        Err(error) => Err(error),
    }
}

fn count(db: &Connection) -> rusqlite::Result<Ledger> {
    let mut book = Ledger::default();
    let mut select = db.prepare(
        "SELECT state, topic, count(*), sum(bytes) FROM records INDEXED BY by_topic GROUP BY state, topic",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (state, topic): (i64, String) = (row.get(0)?, format::text(row, 1));
        book.adjust(&topic, RowState::from_number(state), row.get(2)?, row.get(3)?);
    }
    Ok(book)
}

fn marker(dir: &Path) -> PathBuf {
    dir.join("damaged")
}

/// Records damage found while running: nothing is stored any more, and the next start checks the complete file.
pub(super) fn mark_damaged(dir: &Path, shared: &SpoolState, error: &rusqlite::Error) {
    if std::mem::replace(&mut shared.ledger().stats_mut().damaged, true) {
        return;
    }
    tracing::error!(%error, "the spool file is damaged; restart the service to salvage it");
    let _ = own::open(&marker(dir)).and_then(|_| disk::sync_dir(dir));
}
