//! A damaged file: what can be read goes into a new one, the old one is set aside whole.
//!
//! The new file is finished before the old one is touched, and a note says where the old one goes,
//! so that a crash at any point leaves either the old state or one that [`finish`] completes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};

use super::disk;
use super::error::OpenError;
use super::format::{self, COLUMNS, Entry, Line};
use super::open::Salvage;

/// Ids that are tried one by one behind damage, where the index does not name them either.
const STEPS: u32 = 1_000_000;

/// The files of a database.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

pub(super) fn salvage(dir: &Path) -> Result<Salvage, OpenError> {
    let new = dir.join("spool.db.salvage");
    let failed = |cause| OpenError::io("cannot salvage into", &new, cause);
    for part in ["", "-journal"] {
        remove(&with(&new, part)).map_err(failed)?;
    }
    let old = format::file(dir);
    let counts = match format::open_damaged(&old) {
        Ok(source) => copy(&source, &new),
        // Not even the first page can be read: an empty new file.
        Err(OpenError::Sql { cause, .. }) if damage(&cause) => create(&new).map(|_| (0, 0)),
        Err(error) => return Err(error),
    };
    let (kept, lost) = counts.map_err(|cause| OpenError::sql("cannot salvage into", &new, cause))?;
    let aside = aside(dir);
    fs::write(note(dir), aside.as_os_str().as_encoded_bytes()).map_err(failed)?;
    fs::File::open(note(dir)).and_then(|file| file.sync_all()).map_err(failed)?;
    disk::sync_dir(dir).map_err(failed)?;
    finish(dir)?;
    Ok(Salvage { kept, lost, aside })
}

/// Brings the old file out of the way and the new one into its place, if a salvage came so far.
pub(super) fn finish(dir: &Path) -> Result<(), OpenError> {
    let new = dir.join("spool.db.salvage");
    let failed = |cause| OpenError::io("cannot set aside the damaged", &format::file(dir), cause);
    let aside = match fs::read_to_string(note(dir)) {
        Ok(text) => PathBuf::from(text),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(failed(cause)),
    };
    let aside = dir.join(aside.file_name().unwrap_or("spool.db.corrupt".as_ref()));
    // As long as the new file is there, what bears the spool's name is the old one.
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
    remove(&note(dir)).map_err(failed)?;
    disk::sync_dir(dir).map_err(failed)
}

fn note(dir: &Path) -> PathBuf {
    dir.join("salvage")
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn aside(dir: &Path) -> PathBuf {
    let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let name = dir.join(format!("spool.db.corrupt-{now}"));
    let free = |path: &PathBuf| !path.exists();
    let mut others = (2..100).map(|number| with(&name, &format!("-{number}"))).filter(free);
    if free(&name) { name } else { others.next().unwrap_or(name) }
}

fn create(path: &Path) -> rusqlite::Result<Connection> {
    let mut db = Connection::open(path)?;
    // One transaction with a journal: closed, it is one file.
    db.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON")?;
    format::create(&mut db)?;
    Ok(db)
}

/// A bad page, or a bad sector under it.
fn damage(error: &rusqlite::Error) -> bool {
    format::is_damage(error) || error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure)
}

/// The rows kept, the rows lost.
fn copy(source: &Connection, new: &Path) -> rusqlite::Result<(u64, u64)> {
    let mut target = create(new)?;
    let work = target.transaction()?;
    let named = named(source);
    let seq = "SELECT seq FROM sqlite_sequence WHERE name = 'records'";
    let seq: i64 = source.query_row(seq, [], |row| row.get(0)).optional().ok().flatten().unwrap_or(0);
    let last = seq.max(named.last().copied().unwrap_or(0));
    let mut walk = Walk { source, target: &work, named, lost: BTreeSet::new(), kept: 0, at: 0 };
    walk.all(last)?;
    let Walk { kept, mut lost, named, at, .. } = walk;
    // The index names them, the table has them no more.
    lost.extend(named);
    work.execute("DELETE FROM sqlite_sequence WHERE name = 'records'", [])?;
    work.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('records', ?1)", [last.max(at)])?;
    work.commit()?;
    Ok((kept, lost.len() as u64))
}

/// A walk along the table that goes round its damaged pages.
struct Walk<'a> {
    source: &'a Connection,
    target: &'a Connection,
    /// What the index names and was not met yet.
    named: BTreeSet<i64>,
    lost: BTreeSet<i64>,
    kept: u64,
    at: i64,
}

impl Walk<'_> {
    fn all(&mut self, last: i64) -> rusqlite::Result<()> {
        let mut steps = 0;
        loop {
            match self.read("id > ?1 ORDER BY id LIMIT 1", self.at) {
                // Past the end, or the tree leads in a circle.
                Ok(None) => return Ok(()),
                Ok(Some(entry)) if entry.id <= self.at => return Ok(()),
                Ok(Some(entry)) => self.take(entry)?,
                Err(error) if damage(&error) => {
                    steps += 1;
                    let next = self.named.range(self.at + 1..).next().copied().unwrap_or(self.at + 1);
                    if next > last || steps > STEPS {
                        return Ok(());
                    }
                    self.one(next)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// An id that may stand on a damaged page.
    fn one(&mut self, id: i64) -> rusqlite::Result<()> {
        match self.read("id = ?1", id) {
            Ok(Some(entry)) if entry.id == id => return self.take(entry),
            Ok(_) => {}
            Err(error) if damage(&error) => drop(self.lost.replace(id)),
            Err(error) => return Err(error),
        }
        self.at = id;
        Ok(())
    }

    fn take(&mut self, entry: Entry) -> rusqlite::Result<()> {
        self.at = entry.id;
        self.named.remove(&entry.id);
        match entry.record {
            Some(record) => {
                let (state, why) = (entry.state.number(), entry.why);
                Line::of(record).insert(self.target)?;
                self.target.execute(
                    "UPDATE records SET id = ?1, state = ?2, why = ?3 WHERE id = last_insert_rowid()",
                    (entry.id, state, why),
                )?;
                self.kept += 1;
            }
            None => drop(self.lost.replace(entry.id)),
        }
        Ok(())
    }

    fn read(&self, which: &str, id: i64) -> rusqlite::Result<Option<Entry>> {
        let sql = format!("SELECT {COLUMNS} FROM records WHERE {which}");
        let mut select = self.source.prepare_cached(&sql)?;
        let mut rows = select.query([id])?;
        rows.next()?.map(format::entry).transpose()
    }
}

/// The ids that the index names, from either end up to the damage.
fn named(source: &Connection) -> BTreeSet<i64> {
    let mut ids = BTreeSet::new();
    for order in ["state, topic, id", "state DESC, topic DESC, id DESC"] {
        let sql = format!("SELECT id FROM records INDEXED BY by_topic ORDER BY {order}");
        let _ = source.prepare(&sql).and_then(|mut select| {
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                ids.insert(row.get(0)?);
            }
            Ok(())
        });
    }
    ids
}
