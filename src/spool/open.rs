//! Opening: the directory, the lock, the check, and salvage where it is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::disk::{self, Lock, Reserve};
use super::error::OpenError;
use super::format::{self, State};
use super::shared::{Book, Shared};
use super::{Limits, salvage};

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
    /// The file was damaged.
    pub salvage: Option<Salvage>,
}

/// What became of a damaged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvage {
    /// Rows that are in the new file.
    pub kept: u64,
    /// Rows that are not. Where the index is damaged as well, some may have been delivered before,
    /// and some may be missing from the count.
    pub lost: u64,
    /// The damaged file, with its log beside it.
    pub aside: PathBuf,
}

pub(super) struct Parts {
    pub(super) db: Connection,
    pub(super) book: Book,
    pub(super) reserve: Reserve,
    pub(super) limits: Limits,
    pub(super) lock: Lock,
    pub(super) opened: Opened,
}

pub(super) fn open(dir: &Path, limits: Limits) -> Result<Parts, OpenError> {
    disk::make_dir(dir)?;
    let lock = Lock::take(dir)?;
    salvage::finish(dir)?;
    let mut found = None;
    let (db, book) = match sound(dir) {
        Ok(parts) => parts,
        Err(OpenError::Sql { cause, .. }) if format::is_damage(&cause) => {
            tracing::error!(error = %cause, "the spool file is damaged: salvaging what can be read");
            let salvaged = salvage::salvage(dir)?;
            tracing::error!(
                kept = salvaged.kept,
                lost = salvaged.lost,
                aside = %salvaged.aside.display(),
                "the damaged spool file is set aside"
            );
            found = Some(salvaged);
            sound(dir)?
        }
        Err(error) => return Err(error),
    };
    let reserve = Reserve::new(dir, limits.reserve);
    disk::sync_dir(dir).map_err(|cause| OpenError::io("cannot sync", dir, cause))?;
    let stats = book.stats();
    let opened = Opened { live: stats.live, parked: stats.parked, bytes: stats.bytes, salvage: found };
    Ok(Parts { db, book, reserve, limits, lock, opened })
}

/// Opens, checks and counts.
fn sound(dir: &Path) -> Result<(Connection, Book), OpenError> {
    let mut db = format::open_writer(dir)?;
    let path = format::file(dir);
    let within = (!marker(dir).exists()).then_some(CHECK_WITHIN);
    let sql = |cause| OpenError::sql("cannot read", &path, cause);
    check(&mut db, within).map_err(sql)?;
    let book = count(&db).map_err(sql)?;
    // A false alarm, or damage that was salvaged.
    let _ = fs::remove_file(marker(dir));
    Ok((db, book))
}

fn check(db: &mut Connection, within: Option<Duration>) -> rusqlite::Result<()> {
    if let Some(within) = within {
        let end = Instant::now() + within;
        db.progress_handler(1_000, Some(move || Instant::now() > end))?;
    }
    let verdict = db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
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

fn count(db: &Connection) -> rusqlite::Result<Book> {
    let mut book = Book::default();
    let mut select = db.prepare(
        "SELECT state, topic, count(*), sum(bytes) FROM records INDEXED BY by_topic GROUP BY state, topic",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (state, topic): (i64, String) = (row.get(0)?, row.get(1)?);
        book.tally(&topic, State::of(state), row.get(2)?, row.get(3)?);
    }
    Ok(book)
}

fn marker(dir: &Path) -> PathBuf {
    dir.join("damaged")
}

/// Damage met while running: nothing is stored any more, and the next start looks at all of it.
pub(super) fn mark_damaged(dir: &Path, shared: &Shared, error: &rusqlite::Error) {
    if std::mem::replace(&mut shared.book().stats_mut().damaged, true) {
        return;
    }
    tracing::error!(%error, "the spool file is damaged; restart the service to salvage it");
    let _ = fs::write(marker(dir), "").and_then(|()| disk::sync_dir(dir));
}
