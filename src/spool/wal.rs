//! Reads SQLite's log, including the frames that SQLite silently ignores behind the first one with a wrong checksum.
//!
//! A frame is 24 bytes and a page. It belongs to the current log if it has the salts of the log's header, and its
//! checksum continues that of the frame before it (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>). An
//! undamaged log may contain, behind its last commit:
//!
//! | frames | left by |
//! |---|---|
//! | with other salts | the previous log, which this one overwrites from the start |
//! | with the right checksums, but without a commit | a kill or a power cut during a transaction |
//! | half a frame, or one of zeros | the same |
//! | with the current salts and checksums that continue each other, including a commit, but not those of the frames before | a failed transaction that was longer than the one that was written over it; or after a power cut, one that was never synced |
//!
//! The log alone does not distinguish the last case from a flipped bit; the [mark](super::mark) does. Without a mark it
//! counts as damage. The price is that a person examines an intact log; ignoring it would lose rows.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::format::PAGE;
use super::own;

const HEADER: usize = 32;
const HEAD: usize = 24;
const FRAME: usize = HEAD + PAGE;

/// The lowest bit is the byte order of the checksums.
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

/// A page in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The page's number, from 1 on.
    page: u32,
    /// The database's size in pages if the frame ends a transaction; else 0.
    size: u32,
    /// The offset of the page's bytes in the file.
    at: u64,
    /// Whether its checksum continues that of the frame before it.
    fits: bool,
}

impl Frame {
    fn ends(&self) -> bool {
        self.fits && self.size > 0
    }
}

/// The contents of a log.
#[derive(Default)]
pub(super) struct WalReader {
    file: Option<File>,
    /// The frames with the current salts.
    frames: Vec<Frame>,
    /// The number of these that SQLite reads.
    seen: usize,
}

impl WalReader {
    /// Whether there is a transaction behind the part that SQLite reads.
    pub(super) fn goes_on(&self) -> bool {
        self.frames.iter().skip(self.seen).any(Frame::ends)
    }

    /// The possible readings of the log, the longest first: all frames; the frames with right checksums, up to the last
    /// end of a transaction; the part that SQLite reads.
    pub(super) fn readings(&self) -> Vec<Vec<Frame>> {
        let end = self.frames.iter().rposition(Frame::ends).map_or(0, |last| last + 1);
        let fits = self.frames.iter().take(end).filter(|frame| frame.fits).copied().collect();
        let seen = self.frames.iter().take(self.seen).copied().collect();
        let mut readings = vec![self.frames.clone(), fits, seen];
        readings.dedup();
        readings
    }

    /// Writes `reading` to `path` as a log of one transaction, with `first` as page 1 if it is given. `pages` is the
    /// size of the database next to it.
    pub(super) fn write(
        &self,
        reading: &[Frame],
        first: Option<&[u8; PAGE]>,
        pages: u32,
        path: &Path,
    ) -> io::Result<()> {
        // The last version of each page.
        let mut last: BTreeMap<u32, Option<u64>> =
            reading.iter().map(|frame| (frame.page, Some(frame.at))).collect();
        if first.is_some() {
            last.insert(1, None);
        }
        let Some((highest, _)) = last.last_key_value() else { return Ok(()) };
        let pages = pages.max(*highest);
        let order = Order { big_endian: true };
        let mut header = [0; HEADER];
        for (at, value) in [(0, MAGIC | 1), (4, VERSION), (8, PAGE as u32), (16, 1), (20, 1)] {
            put(&mut header, at, value);
        }
        let mut sum = order.sum([0, 0], &header[..24]);
        put_sum(&mut header, 24, sum);
        let mut out = BufWriter::new(own::create(path)?);
        out.write_all(&header)?;
        let end = last.len();
        for (index, (page, at)) in last.into_iter().enumerate() {
            let mut frame = [0; FRAME];
            put(&mut frame, 0, page);
            put(&mut frame, 4, if index + 1 == end { pages } else { 0 });
            frame[8..16].copy_from_slice(&header[16..24]);
            match (at, &self.file, first) {
                (Some(at), Some(file), _) => file.read_exact_at(&mut frame[HEAD..], at)?,
                (None, _, Some(first)) => frame[HEAD..].copy_from_slice(first),
                _ => {}
            }
            sum = order.sum(order.sum(sum, &frame[..8]), &frame[HEAD..]);
            put_sum(&mut frame, 16, sum);
            out.write_all(&frame)?;
        }
        out.flush()
    }
}

/// Reads a log; an empty one if the file does not exist.
pub(super) fn read(path: &Path) -> io::Result<WalReader> {
    let file = match own::open_existing(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(WalReader::default()),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::with_capacity(64 * FRAME, &file);
    let mut header = [0; HEADER];
    if !fill(&mut reader, &mut header)? {
        return Ok(WalReader::default());
    }
    let order = Order { big_endian: number(&header, 0) & 1 == 1 };
    let sound = number(&header, 0) & !1 == MAGIC
        && number(&header, 4) == VERSION
        && number(&header, 8) as usize == PAGE
        && order.sum([0, 0], &header[..24]) == sums(&header, 24);
    let salts = if sound { sums(&header, 16) } else { salts(&file)? };
    let (mut frames, mut seen, mut at) = (Vec::new(), 0, HEADER as u64);
    // SQLite reads up to the first frame with a wrong checksum.
    let mut whole = sound;
    let mut before = sums(&header, 24);
    let mut frame = [0; FRAME];
    while fill(&mut reader, &mut frame)? {
        let (page, size, ours) = (number(&frame, 0), number(&frame, 4), sums(&frame, 8) == salts);
        let fits = order.sum(order.sum(before, &frame[..8]), &frame[HEAD..]) == sums(&frame, 16);
        whole = whole && ours && fits && page > 0;
        if ours && page > 0 {
            frames.push(Frame { page, size, at: at + HEAD as u64, fits });
            if whole && size > 0 {
                seen = frames.len();
            }
        }
        (before, at) = (sums(&frame, 16), at + FRAME as u64);
    }
    drop(reader);
    Ok(WalReader { file: Some(file), frames, seen })
}

/// The salts of a log with a damaged header: those of the second and third frame if they are equal, else the first
/// frame's.
fn salts(file: &File) -> io::Result<[u32; 2]> {
    let of = |frame: u64| {
        let mut salts = [0; 8];
        file.read_at(&mut salts, HEADER as u64 + frame * FRAME as u64 + 8).map(|_| sums(&salts, 0))
    };
    let (first, second, third) = (of(0)?, of(1)?, of(2)?);
    Ok(if second == third && second != [0, 0] { second } else { first })
}

/// Fills `bytes`; `false` at the end of the file, also within a frame.
fn fill(reader: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn sums(bytes: &[u8], at: usize) -> [u32; 2] {
    [number(bytes, at), number(bytes, at + 4)]
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = value.to_be_bytes();
    }
}

fn put_sum(bytes: &mut [u8], at: usize, [one, two]: [u32; 2]) {
    put(bytes, at, one);
    put(bytes, at + 4, two);
}

/// The byte order of the checksums.
#[derive(Clone, Copy)]
struct Order {
    big_endian: bool,
}

impl Order {
    fn sum(self, [mut one, mut two]: [u32; 2], bytes: &[u8]) -> [u32; 2] {
        let word =
            |bytes| if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        let (words, _) = bytes.as_chunks::<4>();
        let (pairs, _) = words.as_chunks::<2>();
        for [first, second] in pairs {
            one = one.wrapping_add(word(*first)).wrapping_add(two);
            two = two.wrapping_add(word(*second)).wrapping_add(one);
        }
        [one, two]
    }
}
