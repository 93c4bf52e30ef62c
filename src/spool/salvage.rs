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
    let counts = match source(&old) {
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

/// Read-only, so that nothing of the old file changes.
fn source(path: &Path) -> Result<Connection, OpenError> {
    let db = format::open_reader(path)?;
    // It would refuse whole pages for one odd cell; each row's sum is the judge here.
    db.execute_batch("PRAGMA cell_size_check = OFF")
        .map_err(|cause| OpenError::sql("cannot open", path, cause))?;
    Ok(db)
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
    let mut named = named(source);
    let last = source
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'records'", [], |row| row.get::<_, i64>(0))
        .optional()
        .unwrap_or_default()
        .max(named.last().copied())
        .unwrap_or(0);
    let (mut kept, mut lost, mut at, mut steps) = (0, BTreeSet::new(), 0, 0);
    loop {
        match read(source, "id > ?1 ORDER BY id LIMIT 1", at) {
            Ok(None) => break,
            // The tree leads in a circle.
            Ok(Some(entry)) if entry.id <= at => break,
            Ok(Some(entry)) => {
                at = entry.id;
                named.remove(&at);
                if keep(&work, entry)? { kept += 1 } else { drop(lost.insert(at)) }
            }
            Err(error) if damage(&error) => {
                let next = named.range(at + 1..).next().copied().unwrap_or(at + 1);
                steps += 1;
                if next > last || steps > STEPS {
                    break;
                }
                at = next;
                match read(source, "id = ?1", at) {
                    Ok(Some(entry)) if entry.id == at => {
                        named.remove(&at);
                        if keep(&work, entry)? { kept += 1 } else { drop(lost.insert(at)) }
                    }
                    Ok(_) => {}
                    Err(error) if damage(&error) => drop(lost.insert(at)),
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
    lost.append(&mut named);
    work.execute("DELETE FROM sqlite_sequence WHERE name = 'records'", [])?;
    work.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('records', ?1)", [last.max(at)])?;
    work.commit()?;
    Ok((kept, lost.len() as u64))
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

fn read(source: &Connection, which: &str, id: i64) -> rusqlite::Result<Option<Entry>> {
    let sql = format!("SELECT {COLUMNS} FROM records WHERE {which}");
    let mut select = source.prepare_cached(&sql)?;
    let mut rows = select.query([id])?;
    rows.next()?.map(format::entry).transpose()
}

/// Whether the row was whole.
fn keep(target: &Connection, entry: Entry) -> rusqlite::Result<bool> {
    let Some(record) = entry.record else { return Ok(false) };
    Line::of(record).insert(target)?;
    let (state, why) = (entry.state.number(), entry.why);
    target.execute(
        "UPDATE records SET id = ?1, state = ?2, why = ?3 WHERE id = last_insert_rowid()",
        (entry.id, state, why),
    )?;
    Ok(true)
}
