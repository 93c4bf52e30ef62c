//! Copies a damaged table row by row into a new one, around its damaged pages.

use std::collections::BTreeSet;

use rusqlite::Connection;

use crate::spool::format::{self, COLUMNS, InsertRow, RowEntry};
use crate::spool::mark::Counts;
use crate::spool::report::Lost;

/// The number of ids that are tried one by one behind damage, if the index does not list them either.
const STEPS: u32 = 1_000_000;

/// Whether the error is a damaged page, an unreadable sector, or a schema that SQLite does not understand.
pub(super) fn damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{SystemIoFailure, Unknown};
    format::is_damage(error) || matches!(error.sqlite_error_code(), Some(SystemIoFailure | Unknown))
}

/// Whether a view has the spool's schema.
pub(super) fn can_read(view: &Connection) -> bool {
    view.prepare(&format!("SELECT {COLUMNS} FROM records WHERE id = ?1")).is_ok()
}

/// The rows found so far, over all views.
pub(super) struct Rows<'a> {
    target: &'a Connection,
    /// The mark's counts, if it exists.
    marked: Option<Counts>,
    /// The highest counts of the views.
    seen: Counts,
    kept: u64,
    /// The kept rows that the mark counts.
    kept_of_marked: u64,
    /// Rows that were found damaged.
    lost: BTreeSet<i64>,
    /// The highest id that was found.
    last: i64,
    /// An upper bound for the missing acknowledged rows: a view was intact and ends this number of rows early.
    missing: Option<u64>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(target: &'a Connection, marked: Option<Counts>) -> Self {
        Self {
            target,
            marked,
            seen: Counts::default(),
            kept: 0,
            kept_of_marked: 0,
            lost: BTreeSet::new(),
            last: 0,
            missing: None,
        }
    }

    pub(super) fn kept(&self) -> u64 {
        self.kept
    }

    /// Whether no other view can add rows.
    pub(super) fn is_all(&self) -> bool {
        self.missing == Some(0)
    }

    /// Copies the rows of `view` that were not found yet.
    pub(super) fn read(&mut self, view: &Connection) -> rusqlite::Result<()> {
        let counts = format::counts(view).ok();
        let (given, removed) = counts.unwrap_or_default();
        let named = named(view);
        let marked = self.marked.unwrap_or_default().given;
        let last = given.max(marked).cast_signed().max(named.last().copied().unwrap_or(0));
        let all_named = named.len() as u64;
        let mut walk = TableWalk { view, rows: self, named, met: 0, whole: true, at: 0 };
        walk.all(last)?;
        let TableWalk { named, met, whole, .. } = walk;
        // Then table and index are from the same moment, and no older page replaces a row by a deleted one.
        let whole = whole && named.is_empty() && met == all_named;
        // In the index, but no longer in the table.
        self.lost.extend(named.into_iter().filter(|id| !is_there(self.target, *id)));
        if let Some(removed) = removed {
            let counts = Counts { given, removed };
            if whole && met == counts.rows() && self.marked.is_some() {
                let missing = marked.saturating_sub(given);
                self.missing = Some(self.missing.map_or(missing, |before| before.min(missing)));
            }
            self.seen = Counts { given: given.max(self.seen.given), removed: removed.max(self.seen.removed) };
        } else {
            self.seen.given = given.max(self.seen.given);
        }
        Ok(())
    }

    fn take(&mut self, entry: RowEntry) -> rusqlite::Result<bool> {
        self.last = self.last.max(entry.id);
        let RowEntry { id, state, why, record } = entry;
        let Some(record) = record else {
            if !is_there(self.target, id) {
                self.lost.insert(id);
            }
            return Ok(false);
        };
        let line = InsertRow::from_record(record);
        let entry = RowEntry { id, state, why, record: None };
        if format::restore(self.target, &entry, &line)? {
            self.kept += 1;
            self.lost.remove(&id);
            let marked = self.marked.is_some_and(|marked| id.cast_unsigned() <= marked.given);
            self.kept_of_marked += u64::from(marked);
        }
        Ok(true)
    }

    /// The bounds of the lost rows. `before` is the number of rows that had been removed when the oldest page was
    /// written that may have been read.
    pub(super) fn lost(&self, before: Option<u64>) -> Lost {
        let Some(marked) = self.marked else {
            return Lost { least: self.lost.len() as u64, most: None };
        };
        let least = marked.rows().saturating_sub(self.kept_of_marked);
        let before = if marked.removed == 0 { Some(0) } else { before };
        let reappeared = before.map(|before| marked.removed.saturating_sub(before));
        let bounds = [Some(marked.rows()), self.missing, reappeared.map(|rows| least.saturating_add(rows))];
        // A page in the wrong place may be older than `before`, and bring back rows that hide lost ones. Then the index may
        // still list the lost ones, or an old page of it removed ones.
        let listed = if marked.removed == 0 { 0 } else { (self.lost.len() as u64).min(marked.rows()) };
        Lost { least, most: bounds.into_iter().flatten().min().map(|most| most.max(least).max(listed)) }
    }

    /// The counts of the new file: no earlier id is assigned again, and lost rows count as removed. They are never
    /// behind the mark, also if more rows reappeared than it counts.
    pub(super) fn counts(&self) -> Counts {
        let marked = self.marked.unwrap_or_default();
        let given = self.seen.given.max(marked.given).max(self.last.max(0).cast_unsigned());
        let given = given.max(marked.removed.max(self.seen.removed).saturating_add(self.kept));
        Counts { given, removed: given.saturating_sub(self.kept) }
    }
}

fn is_there(target: &Connection, id: i64) -> bool {
    let find = target.prepare_cached("SELECT 1 FROM records WHERE id = ?1");
    find.and_then(|mut find| find.exists([id])).unwrap_or(false)
}

/// A walk along the table of one view.
struct TableWalk<'a, 'b> {
    view: &'a Connection,
    rows: &'a mut Rows<'b>,
    /// Ids in the index that were not found in the table yet.
    named: BTreeSet<i64>,
    met: u64,
    /// Whether no damage was found.
    whole: bool,
    at: i64,
}

impl TableWalk<'_, '_> {
    fn all(&mut self, last: i64) -> rusqlite::Result<()> {
        let mut steps = 0;
        loop {
            match self.read("id > ?1 ORDER BY id LIMIT 1", self.at) {
                Ok(None) => return Ok(()),
                // The damaged tree leads in a circle.
                Ok(Some(entry)) if entry.id <= self.at => {
                    self.whole = false;
                    return Ok(());
                }
                Ok(Some(entry)) => self.take(entry)?,
                Err(_) => {
                    self.whole = false;
                    steps += 1;
                    let next = self.named.range(self.at + 1..).next().copied().unwrap_or(self.at + 1);
                    if next > last || steps > STEPS {
                        return Ok(());
                    }
                    self.one(next)?;
                }
            }
        }
    }

    /// Reads one id, whose page may be damaged.
    fn one(&mut self, id: i64) -> rusqlite::Result<()> {
        match self.read("id = ?1", id) {
            Ok(Some(entry)) if entry.id == id => return self.take(entry),
            Ok(_) => {}
            Err(_) => {
                if !is_there(self.rows.target, id) {
                    self.rows.lost.insert(id);
                }
            }
        }
        self.at = id;
        Ok(())
    }

    fn take(&mut self, entry: RowEntry) -> rusqlite::Result<()> {
        self.at = entry.id;
        self.named.remove(&entry.id);
        self.met += 1;
        self.whole &= self.rows.take(entry)?;
        Ok(())
    }

    /// Reads one row. Every error here is damage of the view.
    fn read(&self, which: &str, id: i64) -> rusqlite::Result<Option<RowEntry>> {
        let sql = format!("SELECT {COLUMNS} FROM records WHERE {which}");
        let mut select = self.view.prepare_cached(&sql)?;
        let mut rows = select.query([id])?;
        rows.next()?.map(format::entry).transpose()
    }
}

/// The ids in the index, from either end up to the damage.
fn named(view: &Connection) -> BTreeSet<i64> {
    let mut ids = BTreeSet::new();
    for order in ["state, topic, id", "state DESC, topic DESC, id DESC"] {
        let sql = format!("SELECT id FROM records INDEXED BY by_topic ORDER BY {order}");
        let _ = view.prepare(&sql).and_then(|mut select| {
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                ids.insert(row.get(0)?);
            }
            Ok(())
        });
    }
    ids
}
