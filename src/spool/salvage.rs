//! Salvages a damaged spool: readable rows go into a new file, and the old files are set aside unchanged.
//!
//! The new file is complete before the old ones are renamed, and a note records the new names, so that a crash at any
//! point leaves either the old state or one that [`finish`] completes. The note becomes the [report](super::report).
//!
//! # What is read
//!
//! SQLite reads a log up to the first frame with a wrong checksum, and nothing of a log with a damaged header. Most
//! pages behind that are intact. So hookstream [reads the log itself](wal), writes it again next to a second name of
//! the old file, with checksums that SQLite accepts, and opens that. It tries each reading of the log that may contain
//! other rows, the one with the most frames first. A page that does not belong causes errors, or rows with a wrong
//! [checksum](format::RowEntry), which are skipped. If not even the first page can be read, it is created again: the
//! tables of every spool begin on the same pages.
//!
//! # What is lost
//!
//! The [`mark`] has the number of rows that must exist. A row that was delivered and deleted may reappear from an
//! old page: it is published twice, and it hides a lost one. So the number of lost rows is exact if nothing was deleted
//! since the log began, and otherwise a range.

mod walk;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::Connection;
use walk::{Rows, damage};

use super::error::OpenError;
use super::format::{self, PAGE, with};
use super::mark::{self, Counts, MarkState};
use super::report::{ASIDE, Lost, REPORT, Salvage};
use super::{disk, own, wal};

/// The suffixes of a database's files.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

/// Salvages the spool in `dir`. `mark` has the rows that it must contain, `cause` is the damage. Returns the report,
/// and the counts of the new file.
pub(super) fn salvage(dir: &Path, mark: MarkState, cause: &str) -> Result<(Salvage, Counts), OpenError> {
    let (new, old) = (dir.join("spool.db.salvage"), format::file(dir));
    let failed = |cause| OpenError::io("cannot salvage into", &new, cause);
    let sql = |cause| OpenError::sql("cannot salvage into", &new, cause);
    remove_all(&new).map_err(failed)?;
    let log = wal::read(&with(&old, "-wal")).map_err(failed)?;
    let mut target = create(&new).map_err(failed)?.map_err(sql)?;
    let views = Views { dir, log: &log, first: first_page(&new).map_err(failed)? };
    let work = target.transaction().map_err(sql)?;
    let mut rows = Rows::new(&work, mark.counts());
    for reading in log.readings() {
        if let Some(view) = views.open(&reading)? {
            rows.read(&view).map_err(sql)?;
        }
        if rows.is_all() {
            break;
        }
    }
    let before =
        views.open(&[])?.and_then(|file| format::counts(&file).ok()).and_then(|(_, removed)| removed);
    remove_all(&views.path()).map_err(failed)?;
    let lost = if matches!(mark, MarkState::Torn(_)) { Lost::UNKNOWN } else { rows.lost(before) };
    let counts = rows.counts();
    let kept = rows.kept();
    format::set_counts(&work, counts).and_then(|()| work.commit()).map_err(sql)?;
    drop(target);
    let salvage = Salvage { at: Timestamp::now(), cause: cause.to_owned(), kept, lost, aside: aside(dir) };
    note(dir, &salvage, mark)?;
    finish(dir)?;
    Ok((salvage, counts))
}

/// Reports an unknown number of lost rows, for a spool with an intact file whose mark is damaged or missing.
pub(super) fn report_unknown(dir: &Path, mark: MarkState, kept: u64) -> Result<Salvage, OpenError> {
    let cause = match mark {
        MarkState::Damaged => "spool.mark is damaged",
        _ => "spool.mark is missing",
    };
    let (at, lost) = (Timestamp::now(), Lost::UNKNOWN);
    let salvage = Salvage { at, cause: String::from(cause), kept, lost, aside: aside(dir) };
    note(dir, &salvage, mark)?;
    finish(dir)?;
    Ok(salvage)
}

/// Whether a salvage was cut short, which [`finish`] completes.
pub(super) fn is_unfinished(dir: &Path) -> bool {
    note_of(dir).exists()
}

/// Renames the old files and the new one, if a salvage had got as far as its note.
pub(super) fn finish(dir: &Path) -> Result<(), OpenError> {
    let new = dir.join("spool.db.salvage");
    let failed = |cause| OpenError::io("cannot set aside the damaged", &format::file(dir), cause);
    let text = match fs::read_to_string(note_of(dir)) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            // What an earlier, interrupted salvage has left.
            let leftovers = [new, dir.join("spool.db.view")];
            return leftovers.iter().try_for_each(|path| remove_all(path)).map_err(failed);
        }
        Err(cause) => return Err(failed(cause)),
    };
    // A version without reports wrote only the path.
    let report: Option<Salvage> = serde_json::from_str(&text).ok();
    let aside = report.as_ref().map_or_else(|| PathBuf::from(text), |report| report.aside.clone());
    let aside = dir.join(aside.file_name().unwrap_or("spool.db.corrupt".as_ref()));
    // As long as the new file exists, `spool.db` is the old one.
    if new.exists() {
        for part in PARTS {
            let old = with(&format::file(dir), part);
            if old.exists() {
                fs::rename(&old, with(&aside, part)).map_err(failed)?;
            }
        }
        disk::sync_dir(dir).map_err(failed)?;
        fs::rename(&new, format::file(dir)).map_err(failed)?;
        disk::sync_dir(dir).map_err(failed)?;
    }
    match report {
        Some(_) => fs::rename(note_of(dir), with(&aside, REPORT)),
        None => fs::remove_file(note_of(dir)),
    }
    .map_err(failed)?;
    disk::sync_dir(dir).map_err(failed)
}

/// Writes the note for [`finish`]. A damaged mark is set aside with the other files, and a new one is created.
fn note(dir: &Path, salvage: &Salvage, mark: MarkState) -> Result<(), OpenError> {
    let path = note_of(dir);
    let write = || {
        if mark == MarkState::Damaged {
            fs::rename(dir.join(mark::FILE), with(&salvage.aside, "-mark"))?;
        }
        remove(&path)?;
        let mut file = own::create(&path)?;
        file.write_all(&serde_json::to_vec_pretty(salvage)?)?;
        file.sync_all()?;
        disk::sync_dir(dir)
    };
    write().map_err(|cause| OpenError::io("cannot salvage into", &path, cause))
}

fn note_of(dir: &Path) -> PathBuf {
    dir.join("salvage")
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a database with its log and other files.
fn remove_all(path: &Path) -> io::Result<()> {
    ["", "-wal", "-shm", "-journal"].into_iter().try_for_each(|end| remove(&with(path, end)))
}

fn aside(dir: &Path) -> PathBuf {
    let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let name = dir.join(format!("{ASIDE}{now}"));
    let free = |path: &PathBuf| !path.exists() && !with(path, REPORT).exists();
    let mut others = (2..100).map(|number| with(&name, &format!("-{number}"))).filter(free);
    if free(&name) { name } else { others.next().unwrap_or(name) }
}

fn create(path: &Path) -> io::Result<rusqlite::Result<Connection>> {
    own::create(path)?;
    let create = || {
        let mut db = Connection::open(path)?;
        // Without WAL, so that it is a single file once it is closed.
        db.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON")?;
        format::create(&mut db, Counts::default())?;
        Ok(db)
    };
    Ok(create())
}

/// The first page of an empty spool, in the form of one with a log.
fn first_page(new: &Path) -> io::Result<[u8; PAGE]> {
    let mut page = [0; PAGE];
    File::open(new)?.read_exact_at(&mut page, 0)?;
    // The read and write versions: WAL.
    page[18..20].fill(2);
    // The size in pages is unknown: SQLite uses the file's length.
    page[28..32].fill(0);
    Ok(page)
}

/// The old file under a second name, next to rewritten logs. It is never written to.
struct Views<'a> {
    dir: &'a Path,
    log: &'a wal::WalReader,
    first: [u8; PAGE],
}

impl Views<'_> {
    fn path(&self) -> PathBuf {
        self.dir.join("spool.db.view")
    }

    /// Opens the file with this reading of its log; `None` if that is not readable.
    fn open(&self, reading: &[wal::Frame]) -> Result<Option<Connection>, OpenError> {
        for first in [None, Some(&self.first)] {
            self.lay_out(reading, first)
                .map_err(|cause| OpenError::io("cannot salvage through", &self.path(), cause))?;
            match format::open_damaged(&self.path()) {
                Ok(view) if walk::can_read(&view) => return Ok(Some(view)),
                Ok(_) => {}
                Err(OpenError::Foreign { .. } | OpenError::Newer { .. }) => {}
                Err(OpenError::Sql { cause, .. }) if damage(&cause) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn lay_out(&self, reading: &[wal::Frame], first: Option<&[u8; PAGE]>) -> io::Result<()> {
        let (old, view) = (format::file(self.dir), self.path());
        remove_all(&view)?;
        let bytes = fs::metadata(&old).map_or(0, |meta| meta.len());
        if bytes == 0 {
            own::create(&view)?.write_all(&[0; PAGE])?;
        } else if fs::hard_link(&old, &view).is_err() {
            // This file system has no hard links.
            fs::copy(&old, &view)?;
        }
        let pages = bytes.div_ceil(PAGE as u64).max(1).try_into().unwrap_or(u32::MAX);
        self.log.write(reading, first, pages, &with(&view, "-wal"))
    }
}
