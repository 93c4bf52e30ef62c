//! The mark: what was acknowledged, written down outside of SQLite, so that what is missing later has a number.
//!
//! SQLite takes a log that ends early for a clean end: with one flipped bit in it, everything behind that bit was never
//! there. What the file should hold is therefore told by two counters that only rise:
//!
//! - **given**: the highest id that was given to a row. Ids come from AUTOINCREMENT, one by one, none twice.
//! - **removed**: rows deleted since the spool was made, each after Kafka had acknowledged it.
//!
//! `given - removed` rows must be there. Both stand in the database (in `sqlite_sequence`, and in the table `tally` that a
//! trigger keeps, so that an older hookstream or the sqlite3 shell keep it as well), each transaction changing them together
//! with its rows; and, after each transaction and before its answers, in the file `spool.mark`. A database that is behind
//! its mark has lost transactions that were acknowledged. One that is ahead is what a kill between the two leaves, and so
//! is a log with frames behind its last commit: neither is damage, and neither is told as such.
//!
//! # The file
//!
//! Two lines at offsets 0 and 4096, written in turn, so that one that is torn leaves the other (which then says "at least"):
//!
//! ```text
//! hookstream-spool-mark 1 SEQUENCE GIVEN REMOVED SUM
//! ```
//!
//! The 1 is the version of the spool's format, the line with the higher sequence counts, and SUM is the first 64 bits of the
//! SHA-256 of what stands before it, in hex. Later versions may add a line elsewhere, or raise the version.
//!
//! # What it costs, and what it does not show
//!
//! One write of a line into the page cache for each transaction (about a microsecond), and no sync of its own: that would double the price
//! of a 202. So after kill -9 the mark is exact; it is synced once a second, and after a power cut it may be that old. It is
//! never ahead of the database by then, since it is written after the database's sync: a power cut raises no false alarm.
//! What it cannot show is a disk that loses synced transactions of the last second before a power cut.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::format::VERSION;
use super::{disk, own};

/// Its name in the spool's directory.
pub(super) const FILE: &str = "spool.mark";

/// A line's, with the newline.
const LINE: usize = 128;

/// From one line to the other: so far that no disk tears both.
const APART: u64 = 4096;

const MAGIC: &str = "hookstream-spool-mark";

/// How many rows were ever stored, and how many deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) given: u64,
    pub(super) removed: u64,
}

impl Counts {
    /// Rows that must be there.
    pub(super) fn rows(self) -> u64 {
        self.given.saturating_sub(self.removed)
    }

    /// Whether transactions that `self` knows are missing in `other`.
    pub(super) fn is_ahead_of(self, other: Self) -> bool {
        self.given > other.given || self.removed > other.removed
    }
}

/// What a directory says was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkState {
    /// No file: a new spool, or one of a version before the mark.
    Nothing,
    /// So much.
    Counts(Counts),
    /// At least so much: the other line is not whole, and it may have been the later one.
    Torn(Counts),
    /// A file in which no line is whole.
    Damaged,
    /// A later version's.
    Newer(i64),
}

impl MarkState {
    pub(super) fn counts(self) -> Option<Counts> {
        match self {
            Self::Counts(counts) | Self::Torn(counts) => Some(counts),
            Self::Nothing | Self::Damaged | Self::Newer(_) => None,
        }
    }
}

/// Reads the mark of `dir`.
pub(super) fn read(dir: &Path) -> io::Result<MarkState> {
    let file = match own::open_existing(&dir.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(MarkState::Nothing),
        Err(error) => return Err(error),
    };
    let (lines, whole) = lines(&file)?;
    Ok(match lines.into_iter().max_by_key(|line| line.sequence) {
        None => MarkState::Damaged,
        Some(line) if line.version > VERSION => MarkState::Newer(line.version),
        Some(line) if !whole => MarkState::Torn(line.counts),
        Some(line) => MarkState::Counts(line.counts),
    })
}

/// The mark of an open spool.
pub(super) struct AckMark {
    file: File,
    sequence: u64,
    counts: Counts,
    synced: bool,
}

impl AckMark {
    /// Opens the mark of `dir`, or makes it, and writes `counts` into it, synced.
    pub(super) fn open(dir: &Path, counts: Counts) -> io::Result<Self> {
        let file = own::open(&dir.join(FILE))?;
        let sequence = lines(&file)?.0.iter().map(|line| line.sequence).max().unwrap_or(0);
        let mut mark = Self { file, sequence, counts, synced: false };
        if mark.file.metadata()?.len() < APART + LINE as u64 {
            // The second line's place, too: later writes change no size, so syncing them is cheap.
            mark.file.write_all_at(&[b'\n'; APART as usize], 0)?;
        }
        // Both: a line that was torn before is no news later.
        mark.put()?;
        mark.put()?;
        mark.sync()?;
        disk::sync_dir(dir)?;
        Ok(mark)
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Writes what a transaction came to; not synced.
    pub(super) fn write(&mut self, counts: Counts) -> io::Result<()> {
        if counts == self.counts {
            return Ok(());
        }
        self.counts = counts;
        self.put()
    }

    /// Syncs what was written, if anything was.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if !self.synced {
            self.file.sync_data()?;
            self.synced = true;
        }
        Ok(())
    }

    fn put(&mut self) -> io::Result<()> {
        self.sequence += 1;
        self.synced = false;
        let line = MarkLine { version: VERSION, sequence: self.sequence, counts: self.counts }.text();
        self.file.write_all_at(line.as_bytes(), (self.sequence % 2) * APART)
    }
}

struct MarkLine {
    version: i64,
    sequence: u64,
    counts: Counts,
}

impl MarkLine {
    fn text(&self) -> String {
        let Counts { given, removed } = self.counts;
        let text = format!("{MAGIC} {} {} {given} {removed}", self.version, self.sequence);
        let line = format!("{text} {}", sum(&text));
        format!("{line:<width$}\n", width = LINE - 1)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?.trim_end_matches(' ');
        let (text, found) = line.rsplit_once(' ')?;
        let mut words = text.split(' ');
        if sum(text) != found || words.next() != Some(MAGIC) {
            return None;
        }
        let version = words.next()?.parse().ok()?;
        let mut number = || words.next()?.parse().ok();
        let sequence = number()?;
        let counts = Counts { given: number()?, removed: number()? };
        Some(Self { version, sequence, counts })
    }
}

fn sum(text: &str) -> String {
    let digest = Sha256::digest(text);
    hex::encode(digest.get(..8).unwrap_or_default())
}

/// The lines that are whole, and whether that is both.
fn lines(file: &File) -> io::Result<(Vec<MarkLine>, bool)> {
    let mut text = Vec::new();
    // Whatever somebody has put there is not read whole.
    file.take(APART + LINE as u64).read_to_end(&mut text)?;
    let line = |at: usize| text.get(at..at + LINE).and_then(MarkLine::parse);
    let lines: Vec<MarkLine> = [0, APART as usize].into_iter().filter_map(line).collect();
    let whole = lines.len() == 2;
    Ok((lines, whole))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SOME: Counts = Counts { given: 1_000_000, removed: 17 };

    #[test]
    fn a_mark_is_found_again_and_each_write_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), MarkState::Nothing);
        let mut mark = AckMark::open(dir.path(), Counts::default()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), MarkState::Counts(Counts::default()));
        for given in 1..20 {
            let counts = Counts { given, removed: given / 3 };
            mark.write(counts).unwrap();
            assert_eq!(read(dir.path()).unwrap(), MarkState::Counts(counts));
        }
        drop(mark);
        let mark = AckMark::open(dir.path(), SOME).unwrap();
        assert_eq!((read(dir.path()).unwrap(), mark.counts().rows()), (MarkState::Counts(SOME), 999_983));
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(text.starts_with("hookstream-spool-mark 1 "), "a person can read it: {text}");
    }

    #[test]
    fn a_torn_line_leaves_the_one_before_and_no_flipped_bit_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let mut mark = AckMark::open(dir.path(), Counts { given: 1, removed: 0 }).unwrap();
        mark.write(Counts { given: 2, removed: 0 }).unwrap();
        let path = dir.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        let newest = (mark.sequence % 2 * APART) as usize;
        for bit in 0..LINE * 8 {
            let mut bytes = whole.clone();
            bytes[newest + bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            let found = read(dir.path()).unwrap();
            assert_eq!(found, MarkState::Torn(Counts { given: 1, removed: 0 }), "bit {bit}");
        }
        for text in [&b""[..], b"\n", &whole[..20], &[0; 8192], b"hookstream-spool-mark 1 1 1 1 0"] {
            fs::write(&path, text).unwrap();
            assert_eq!(read(dir.path()).unwrap(), MarkState::Damaged);
        }
        let newer = MarkLine { version: VERSION + 1, sequence: 9, counts: SOME }.text();
        fs::write(&path, newer).unwrap();
        assert_eq!(read(dir.path()).unwrap(), MarkState::Newer(VERSION + 1));
    }

    #[test]
    fn behind_is_what_lacks_a_row_or_a_removal() {
        let at = |given, removed| Counts { given, removed };
        assert!(at(5, 1).is_ahead_of(at(4, 1)) && at(5, 1).is_ahead_of(at(9, 0)));
        assert!(!at(5, 1).is_ahead_of(at(5, 1)) && !at(5, 1).is_ahead_of(at(6, 5)));
    }
}
