//! SQLite's log, read by ourselves: what SQLite passes over in silence behind the first frame that does not fit.
//!
//! A frame is 24 bytes and a page. It belongs to the log of now if it has the salts of the log's header, and its checksum
//! goes on from that of the frame before it (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>). What may stand
//! behind the last commit without any damage:
//!
//! | what | left by |
//! |---|---|
//! | frames with other salts | the log before, which this one overwrites from the start |
//! | frames that fit, but no commit | a kill or a power cut in a transaction |
//! | half a frame, or one of zeros | the same |
//! | frames with our salts that fit among themselves, a commit too, but do not go on from ours | a transaction that failed, was longer than the one that was written over it; or after a power cut one that was never synced |
//!
//! The last cannot be told from a flipped bit by the log alone: the [mark](super::mark) tells. Where there is none, it
//! counts as damage: the price is one look by a person at a log that was whole; passing over it would cost rows.

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

/// The lowest bit says in which order the checksum takes its bytes.
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

/// A page in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The page's number, from 1 on.
    page: u32,
    /// The database's size in pages, where the frame ends a transaction; else 0.
    size: u32,
    /// Where in the file its bytes stand.
    at: u64,
    /// Whether it goes on from the frame before it.
    fits: bool,
}

impl Frame {
    fn ends(&self) -> bool {
        self.fits && self.size > 0
    }
}

/// A log as it stands.
#[derive(Default)]
pub(super) struct WalReader {
    file: Option<File>,
    /// The frames with the salts of now.
    frames: Vec<Frame>,
    /// How many of these SQLite sees.
    seen: usize,
}

impl WalReader {
    /// Whether a transaction stands behind what SQLite sees.
    pub(super) fn goes_on(&self) -> bool {
        self.frames.iter().skip(self.seen).any(Frame::ends)
    }

    /// What may be made of the log, the most first: all of it; what fits, up to the last end of a transaction; what
    /// SQLite sees.
    pub(super) fn readings(&self) -> Vec<Vec<Frame>> {
        let end = self.frames.iter().rposition(Frame::ends).map_or(0, |last| last + 1);
        let fits = self.frames.iter().take(end).filter(|frame| frame.fits).copied().collect();
        let seen = self.frames.iter().take(self.seen).copied().collect();
        let mut readings = vec![self.frames.clone(), fits, seen];
        readings.dedup();
        readings
    }

    /// Writes `reading` as a log of one transaction to `path`, with `first` as page 1, if there is one. `pages` is what
    /// the database beside it has.
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

/// Reads a log; an empty one where there is none.
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
    // As SQLite goes: up to the first frame that does not fit.
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

/// The salts of a log whose header is not what SQLite wrote: those that the second and the third frame have, else the
/// first's.
fn salts(file: &File) -> io::Result<[u32; 2]> {
    let of = |frame: u64| {
        let mut salts = [0; 8];
        file.read_at(&mut salts, HEADER as u64 + frame * FRAME as u64 + 8).map(|_| sums(&salts, 0))
    };
    let (first, second, third) = (of(0)?, of(1)?, of(2)?);
    Ok(if second == third && second != [0, 0] { second } else { first })
}

/// `false` at the end of the file, also within a frame.
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

/// In which order the checksum takes its bytes.
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
