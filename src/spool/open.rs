//! Opening: the directory, the lock, the check, and salvage where it is needed.
//!
//! What is looked at, in this order, before anything is written:
//!
//! 1. Is there a file where the mark or the log says that there must be one? Beside an empty file SQLite deletes the log.
//! 2. Without a mark: does the log go on behind what SQLite sees of it?
//! 3. Do all pages hold together, and the index with the table?
//! 4. Are there as many rows as the file itself says, and does it know all that was acknowledged ([`super::mark`])?

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
use super::{Limits, own, salvage, wal};

/// How long the check of the file may hold up the start. It reads every page, so it ends early
/// only in a file of some gigabytes; damage that it did not reach shows when the row is read, and
/// the next start then looks for as long as it takes.
const CHECK_WITHIN: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// Rows on their way.
    pub live: u64,
    /// Rows that wait for a person.
    pub parked: u64,
    /// Bytes of all rows.
    pub bytes: u64,
    /// It was damaged, or nobody can know whether it was.
    pub salvage: Option<Salvage>,
}

pub(super) struct OpenedSpool {
    pub(super) db: Connection,
    pub(super) book: Ledger,
    pub(super) reserve: Reserve,
    pub(super) mark: AckMark,
    pub(super) files: Files,
    pub(super) limits: Limits,
    pub(super) lock: Lock,
    pub(super) opened: Opened,
}

pub(super) fn open(dir: &Path, limits: Limits) -> Result<OpenedSpool, OpenError> {
    let failed = |cause| OpenError::io("cannot use", dir, cause);
    disk::make_dir(dir)?;
    own::look_at(dir).map_err(failed)?;
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
    // Nobody takes the mark of a spool away by mistake of ours: it is made before the tally.
    let gone = found == MarkState::Nothing && sound.tallied && sound.counts.given > 0;
    if salvaged.is_none() && (found == MarkState::Damaged || gone) {
        salvaged = Some(salvage::report_unknown(dir, found, sound.counts.rows())?);
    }
    salvaged.iter().for_each(say);
    let reserve = Reserve::new(dir, limits.reserve);
    let mark = with_room(dir, &reserve, || AckMark::open(dir, sound.counts).map_err(at_mark))?;
    if !sound.tallied {
        let sql = |cause| OpenError::sql("cannot write", &format::file(dir), cause);
        with_room(dir, &reserve, || format::add_tally(&mut sound.db, sound.counts.removed).map_err(sql))?;
    }
    let Sound { db, mut book, .. } = sound;
    disk::sync_dir(dir).map_err(|cause| OpenError::io("cannot sync", dir, cause))?;
    let stats = book.stats_mut();
    stats.salvaged = report::reports(dir).map_err(failed)?.into();
    let opened = Opened { live: stats.live, parked: stats.parked, bytes: stats.bytes, salvage: salvaged };
    Ok(OpenedSpool { db, book, reserve, mark, files: Files::of(dir), limits, lock, opened })
}

/// On a full disk with the help of the reserve: a spool that cannot be opened cannot drain either.
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

/// A spool that is as it should be.
struct Sound {
    db: Connection,
    book: Ledger,
    counts: Counts,
    /// Whether the file has the tally.
    tallied: bool,
}

/// Opens, checks and counts. Nothing is written to a spool that is damaged.
fn examine(dir: &Path, mark: MarkState) -> Result<Sound, OpenError> {
    let path = format::file(dir);
    let io = |cause| OpenError::io("cannot look at", &path, cause);
    let damaged = |cause: String| OpenError::Damaged { path: path.clone(), cause };
    let marked = mark.counts();
    // A schema that SQLite does not understand is a plain error to it; beside a mark of our version it is damage.
    let unread = |cause: &rusqlite::Error| {
        marked.is_some() && cause.sqlite_error_code() == Some(rusqlite::ErrorCode::Unknown)
    };
    let sql = |cause: rusqlite::Error| match format::is_damage(&cause) || unread(&cause) {
        true => damaged(cause.to_string()),
        false => OpenError::sql("cannot read", &path, cause),
    };
    let log = with(&path, "-wal");
    let must = marked.unwrap_or_default().rows();
    if length(&path).map_err(io)? == 0 && (must > 0 || length(&log).map_err(io)? > 0) {
        return Err(damaged(String::from("spool.db is missing or empty")));
    }
    if marked.is_none() && wal::read(&log).map_err(io)?.goes_on() {
        return Err(damaged(String::from("spool.db-wal goes on behind a place that does not fit")));
    }
    let (mut db, version) = match format::open_writer(dir) {
        Err(OpenError::Sql { cause, .. }) => return Err(sql(cause)),
        // Not so beside a mark of our version.
        Err(OpenError::Foreign { .. } | OpenError::Newer { .. } | OpenError::NoWal { .. })
            if marked.is_some() =>
        {
            return Err(damaged(String::from("spool.db does not begin as it was written")));
        }
        other => other?,
    };
    if db.is_readonly("main").map_err(sql)? {
        // SQLite writes no file whose header says that a later SQLite wrote it.
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
        if must > 0 {
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
        return Err(damaged(format!("spool.db holds {rows} rows, and says {} itself", counts.rows())));
    }
    if let Some(marked) = marked
        && marked.is_ahead_of(counts)
    {
        return Err(damaged(format!(
            "transactions that were acknowledged are not there: spool.mark knows {} rows stored and {} removed, spool.db \
             {given} and {}",
            marked.given, marked.removed, counts.removed
        )));
    }
    // A false alarm, or damage that was salvaged.
    let _ = fs::remove_file(marker(dir));
    Ok(Sound { db, book, counts, tallied: removed.is_some() })
}

/// Of what is not there: 0.
fn length(path: &Path) -> std::io::Result<u64> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        meta => meta.map(|meta| meta.len()),
    }
}

fn say(salvage: &Salvage) {
    tracing::error!(
        kept = salvage.kept,
        lost_at_least = salvage.lost.least,
        lost_at_most = salvage.lost.most,
        aside = %salvage.aside.display(),
        "acknowledged rows of the spool: {}; what was damaged is set aside", salvage.lost
    );
}

fn check(db: &mut Connection, within: Option<Duration>) -> rusqlite::Result<()> {
    if let Some(within) = within {
        let end = Instant::now() + within;
        db.progress_handler(1_000, Some(move || Instant::now() > end))?;
    }
    // Not quick_check: where the index lacks a row, that row would never be delivered, and nobody would know. Twice the
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
        book.adjust(&topic, RowState::of(state), row.get(2)?, row.get(3)?);
    }
    Ok(book)
}

fn marker(dir: &Path) -> PathBuf {
    dir.join("damaged")
}

/// Damage met while running: nothing is stored any more, and the next start looks at all of it.
pub(super) fn mark_damaged(dir: &Path, shared: &SpoolState, error: &rusqlite::Error) {
    if std::mem::replace(&mut shared.ledger().stats_mut().damaged, true) {
        return;
    }
    tracing::error!(%error, "the spool file is damaged; restart the service to salvage it");
    let _ = own::open(&marker(dir)).and_then(|_| disk::sync_dir(dir));
}
