//! The mark: the number of acknowledged rows, stored outside of SQLite, so that lost rows can be counted.
//!
//! SQLite treats a log that ends early as complete: after one flipped bit, it ignores everything behind that bit. Two
//! counters that only rise therefore record what the file should contain:
//!
//! - **given**: the highest id of any row. Ids come from AUTOINCREMENT, without gaps and none twice.
//! - **removed**: rows deleted since the spool was created, each after Kafka had acknowledged it.
//!
//! The file must contain `given - removed` rows. Both counters are in the database: in `sqlite_sequence`, and in the
//! table `tally`, which a trigger updates, so that an older hookstream or the sqlite3 shell update it too. Each
//! transaction changes them together with its rows. After each transaction and before its answers, they are also
//! written to the file `spool.mark`. A database that is behind its mark has lost acknowledged transactions. A kill
//! between the two leaves a database that is ahead, or a log with frames behind its last commit: neither is damage, and
//! neither is reported.
//!
//! # The file
//!
//! Two lines at offsets 0 and 4096, written in turn, so that a torn one leaves the other, which is then a lower bound:
//!
//! ```text
//! hookstream-spool-mark 1 SEQUENCE GIVEN REMOVED SUM
//! ```
//!
//! The 1 is the version of the spool's format, the line with the higher SEQUENCE counts, and SUM is the first 64 bits
//! of the SHA-256 of the text before it, in hex. Later versions may add a line elsewhere, or raise the version.
//!
//! # Cost and limits
//!
//! The cost is one write of a line into the page cache per transaction (about a microsecond). It has no sync of its
//! own, which would double the price of a 202. So after kill -9 the mark is exact; it is synced once a second, and
//! after a power cut it may be that old. It is never ahead of the database then, since it is written after the
//! database's sync: a power cut causes no false alarm. It cannot detect a disk that loses synced transactions of the
//! last second before a power cut.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{VERSION, disk, own};

/// The mark's file name in the spool's directory.
pub(super) const FILE: &str = "spool.mark";

/// Bytes of a line, including the newline.
const LINE: usize = 128;

/// Bytes between the starts of the two lines: far enough apart that no disk tears both.
const APART: u64 = 4096;

const MAGIC: &str = "hookstream-spool-mark";

/// The number of rows ever stored, and of rows deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) given: u64,
    pub(super) removed: u64,
}

impl Counts {
    /// The number of rows that must be in the file.
    pub(super) fn rows(self) -> u64 {
        self.given.saturating_sub(self.removed)
    }

    /// Whether `other` lacks transactions that `self` counts.
    pub(super) fn is_ahead_of(self, other: Self) -> bool {
        self.given > other.given || self.removed > other.removed
    }
}

/// The mark of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkState {
    /// No file: a new spool, or one of a version without the mark.
    Nothing,
    /// Both lines are complete.
    Counts(Counts),
    /// A lower bound: the other line is damaged, and may have been the later one.
    Torn(Counts),
    /// Both lines are damaged.
    Damaged,
    /// A later version wrote it.
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

/// Reads the mark in `dir`.
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
    /// Opens or creates the mark in `dir`, writes `counts` and syncs.
    pub(super) fn open(dir: &Path, counts: Counts) -> io::Result<Self> {
        let file = own::open(&dir.join(FILE))?;
        let sequence = lines(&file)?.0.iter().map(|line| line.sequence).max().unwrap_or(0);
        let mut mark = Self { file, sequence, counts, synced: false };
        if mark.file.metadata()?.len() < APART + LINE as u64 {
            // Up to the second line's place: later writes do not change the size, so syncing them is cheap.
            mark.file.write_all_at(&[b'\n'; APART as usize], 0)?;
        }
        // Both lines, so that a line torn earlier is not reported again.
        mark.put()?;
        mark.put()?;
        mark.sync()?;
        disk::sync_dir(dir)?;
        Ok(mark)
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Writes the counts after a transaction, without a sync.
    pub(super) fn write(&mut self, counts: Counts) -> io::Result<()> {
        if counts == self.counts {
            return Ok(());
        }
        self.counts = counts;
        self.put()
    }

    /// Syncs, if anything was written since the last sync.
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

/// The undamaged lines, and whether both are.
fn lines(file: &File) -> io::Result<(Vec<MarkLine>, bool)> {
    let mut text = Vec::new();
    // Bounded: somebody else may have put a large file there.
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
