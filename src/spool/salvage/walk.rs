//! Through a damaged table and round its damaged pages, row by row into a new one.

use std::collections::BTreeSet;

use rusqlite::Connection;

use crate::spool::format::{self, COLUMNS, InsertRow, RowEntry};
use crate::spool::mark::Counts;
use crate::spool::report::Lost;

/// Ids that are tried one by one behind damage, where the index does not name them either.
const STEPS: u32 = 1_000_000;

/// A bad page, a bad sector under it, or a schema that SQLite does not understand.
pub(super) fn damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{SystemIoFailure, Unknown};
    format::is_damage(error) || matches!(error.sqlite_error_code(), Some(SystemIoFailure | Unknown))
}

/// Whether the schema of a view is one of ours.
pub(super) fn can_read(view: &Connection) -> bool {
    view.prepare(&format!("SELECT {COLUMNS} FROM records WHERE id = ?1")).is_ok()
}

/// The rows that were found so far, over all views.
pub(super) struct Rows<'a> {
    target: &'a Connection,
    /// What the mark says, where it is there.
    marked: Option<Counts>,
    /// What the views said at most.
    told: Counts,
    kept: u64,
    /// Those of them that the mark knows of.
    kept_of_marked: u64,
    /// Met, but not as it was written.
    lost: BTreeSet<i64>,
    /// The highest id that was met.
    last: i64,
    /// No more than so many acknowledged rows are missing: a view was whole, and it ends so many rows early.
    missing: Option<u64>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(target: &'a Connection, marked: Option<Counts>) -> Self {
        Self {
            target,
            marked,
            told: Counts::default(),
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

    /// Whether another view can add nothing.
    pub(super) fn is_all(&self) -> bool {
        self.missing == Some(0)
    }

    /// Takes from `view` what is not there yet.
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
        // Table and index are of one time, and no page of before hides a row behind one that comes back.
        let whole = whole && named.is_empty() && met == all_named;
        // The index names them, the table has them no more.
        self.lost.extend(named.into_iter().filter(|id| !is_there(self.target, *id)));
        if let Some(removed) = removed {
            let told = Counts { given, removed };
            if whole && met == told.rows() && self.marked.is_some() {
                let missing = marked.saturating_sub(given);
                self.missing = Some(self.missing.map_or(missing, |before| before.min(missing)));
            }
            self.told = Counts { given: given.max(self.told.given), removed: removed.max(self.told.removed) };
        } else {
            self.told.given = given.max(self.told.given);
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
        let line = InsertRow::of(record);
        let entry = RowEntry { id, state, why, record: None };
        if format::restore(self.target, &entry, &line)? {
            self.kept += 1;
            self.lost.remove(&id);
            let marked = self.marked.is_some_and(|marked| id.cast_unsigned() <= marked.given);
            self.kept_of_marked += u64::from(marked);
        }
        Ok(true)
    }

    /// How many are missing. `before` is how many had been removed when the oldest page that may have been read was
    /// written.
    pub(super) fn lost(&self, before: Option<u64>) -> Lost {
        let Some(marked) = self.marked else {
            return Lost { least: self.lost.len() as u64, most: None };
        };
        let least = marked.rows().saturating_sub(self.kept_of_marked);
        let before = if marked.removed == 0 { Some(0) } else { before };
        let back = before.map(|before| marked.removed.saturating_sub(before));
        let bounds = [Some(marked.rows()), self.missing, back.map(|back| least.saturating_add(back))];
        Lost { least, most: bounds.into_iter().flatten().min().map(|most| most.max(least)) }
    }

    /// What the new file is to say: no id of before is given again, and what is lost counts as removed. Never behind the
    /// mark, where more rows have come back than it knows.
    pub(super) fn counts(&self) -> Counts {
        let marked = self.marked.unwrap_or_default();
        let given = self.told.given.max(marked.given).max(self.last.max(0).cast_unsigned());
        let given = given.max(marked.removed.max(self.told.removed).saturating_add(self.kept));
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
    /// What the index names and was not met yet.
    named: BTreeSet<i64>,
    met: u64,
    /// No damage was met.
    whole: bool,
    at: i64,
}

impl TableWalk<'_, '_> {
    fn all(&mut self, last: i64) -> rusqlite::Result<()> {
        let mut steps = 0;
        loop {
            match self.read("id > ?1 ORDER BY id LIMIT 1", self.at) {
                Ok(None) => return Ok(()),
                // The tree leads in a circle.
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

    /// An id that may stand on a damaged page.
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

    /// Whatever fails here, it is the view that is damaged.
    fn read(&self, which: &str, id: i64) -> rusqlite::Result<Option<RowEntry>> {
        let sql = format!("SELECT {COLUMNS} FROM records WHERE {which}");
        let mut select = self.view.prepare_cached(&sql)?;
        let mut rows = select.query([id])?;
        rows.next()?.map(format::entry).transpose()
    }
}

/// The ids that the index names, from either end up to the damage.
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
