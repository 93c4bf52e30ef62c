//! Files that an operator names: reads are bounded in size and time, writes are atomic.
//!
//! A path may lead to anything: a named pipe without a writer, an endless device, a file system whose server is gone.
//! Reading such a path with `std::fs` blocks forever, and a reload would block with it. So every file is read here, and
//! `clippy.toml` bans the other ways. Symbolic links are followed: a mounted Kubernetes Secret consists of them.
//!
//! Each read runs in its own thread, since there is no other way to abandon a blocked system call. This costs about
//! 50 us at start and at each check of a reload. A blocked thread is abandoned, and its directory is not read again for
//! a while, so that few threads block, and only the first of many files causes a wait.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

/// Far above any secret or token.
pub const MAX_SECRET: u64 = 256 << 10;
/// Far above any certificate chain; a bundle of all public authorities has 220 KiB.
pub const MAX_PEM: u64 = 1 << 20;
/// Far above any configuration, schema or file of pinned ids.
pub const MAX_TEXT: u64 = 16 << 20;

/// The time limit of a read, far above what a working disk or network file system needs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a file was not read, as half a sentence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// An error of the operating system.
    #[error("{}", io_reason(.0.kind()))]
    Io(#[from] io::Error),
    /// The path leads to a directory, pipe, socket or device.
    #[error("it is {0}, not a regular file")]
    NotRegular(&'static str),
    /// The file is larger than the limit of its kind.
    #[error("it is larger than {} KiB", .0 / 1024)]
    TooLarge(u64),
    /// The file system, or the writer of a pipe, does not respond.
    #[error("no data within {} s", PATIENCE.as_secs())]
    TimedOut,
    /// The content is not UTF-8.
    #[error("it is not UTF-8 text")]
    NotText,
}

/// The standard library calls a missing file "entity not found".
fn io_reason(kind: ErrorKind) -> String {
    if kind == ErrorKind::NotFound { "no such file".to_owned() } else { kind.to_string() }
}

impl ReadError {
    /// Whether there is no such file, or a part of its path is not a directory.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
    }
}

/// Whether named pipes are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pipes {
    Refused,
    Taken,
}

/// The content of a regular file of at most `max` bytes.
///
/// # Errors
/// [`ReadError`].
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>, ReadError> {
    let file = path.to_owned();
    bounded(path, move || Ok(content(&file, max, Pipes::Refused)?.0))
}

/// The content of a regular file of at most `max` bytes, as text.
///
/// # Errors
/// [`ReadError`].
pub fn read_text(path: &Path, max: u64) -> Result<String, ReadError> {
    String::from_utf8(read(path, max)?).map_err(|_| ReadError::NotText)
}

/// The content of a regular file or a pipe, such as the shell's `<(command)`, and whether it was a pipe, which can be
/// read only once.
///
/// # Errors
/// [`ReadError`].
pub fn read_or_pipe(path: &Path, max: u64) -> Result<(Vec<u8>, bool), ReadError> {
    let file = path.to_owned();
    bounded(path, move || content(&file, max, Pipes::Taken))
}

/// Checks that a file which another library will read cannot block it. Missing and forbidden files are not reported:
/// the library reports them itself.
///
/// # Errors
/// [`ReadError::NotRegular`] for a pipe or a device, [`ReadError::TimedOut`].
pub fn probe(path: &Path) -> Result<(), ReadError> {
    let file = path.to_owned();
    bounded(path, move || match file.metadata().map(|metadata| metadata.file_type()) {
        Ok(kind) if !kind.is_dir() => {
            irregular_kind(kind).map_or(Ok(()), |kind| Err(ReadError::NotRegular(kind)))
        }
        _ => Ok(()),
    })
}

/// The entries of a directory, sorted. Symbolic links are followed, and broken ones are skipped.
///
/// # Errors
/// [`ReadError`].
pub fn list(directory: &Path) -> Result<Vec<(PathBuf, FileType)>, ReadError> {
    let at = directory.to_owned();
    bounded(directory, move || {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(at)? {
            let path = entry?.path();
            if let Ok(metadata) = path.metadata() {
                found.push((path, metadata.file_type()));
            }
        }
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(found)
    })
}

/// Whether something exists at a path. Also true if that cannot be determined.
pub fn may_exist(path: &Path) -> bool {
    let file = path.to_owned();
    let found = bounded(path, move || Ok(file.metadata()?));
    !found.is_err_and(|error| error.is_missing())
}

/// Readers of a file other than its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Every user of this machine.
    Everybody,
    /// The group with this id, to which the process does not belong.
    Group(u32),
}

/// Who may read a file besides its owner, by its mode and those of its parent directories. `None` if only groups of the
/// process may, or if that cannot be determined. In Kubernetes, `fsGroup` gives a Secret's files to a group of the
/// process, which is intended.
pub fn readers(path: &Path) -> Option<Readers> {
    let file = path.to_owned();
    bounded(path, move || {
        let file = file.canonicalize()?;
        let metadata = file.metadata()?;
        let above = file.ancestors().skip(1).map(Path::metadata).collect::<io::Result<Vec<_>>>()?;
        Ok(open_to(&metadata, &above, &own_groups()))
    })
    .ok()
    .flatten()
}

fn open_to(file: &Metadata, above: &[Metadata], own: &[u32]) -> Option<Readers> {
    let (mode, group) = (file.mode(), file.gid());
    // A directory without search permission blocks the path to the file.
    if mode & 0o004 != 0 && above.iter().all(|directory| directory.mode() & 0o001 != 0) {
        return Some(Readers::Everybody);
    }
    let searched = |directory: &Metadata| {
        directory.mode() & 0o001 != 0 || (directory.gid() == group && directory.mode() & 0o010 != 0)
    };
    let foreign = !own.is_empty() && !own.contains(&group);
    (mode & 0o040 != 0 && foreign && above.iter().all(searched)).then_some(Readers::Group(group))
}

/// The groups of the process; empty if the system does not report them.
fn own_groups() -> Vec<u32> {
    let Ok((status, _)) = content(Path::new("/proc/self/status"), MAX_TEXT, Pipes::Refused) else {
        return Vec::new();
    };
    let status = String::from_utf8_lossy(&status).into_owned();
    let lines =
        status.lines().filter_map(|line| line.strip_prefix("Gid:").or_else(|| line.strip_prefix("Groups:")));
    lines.flat_map(str::split_whitespace).filter_map(|group| group.parse().ok()).collect()
}

/// Replaces a file atomically: after a crash it has either the old or the new content, complete. A symbolic link at
/// `path` is replaced. `mode` is subject to the umask.
///
/// # Errors
/// Errors of the file system; then the old file is unchanged.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The leading dot hides the temporary file from programs that read all files of a directory.
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(".new");
    let beside = directory.join(beside);
    // Left by a crash, or placed by somebody else: the content is never written through it.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    sync_directory(directory)
}

/// Makes the names in a directory durable.
///
/// # Errors
/// Errors of the file system.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).custom_flags(flags(OFlags::DIRECTORY)).open(directory)?.sync_all()
}

const fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

/// Reads a file. May block forever: never call it in the caller's own thread.
fn content(path: &Path, max: u64, pipes: Pipes) -> Result<(Vec<u8>, bool), ReadError> {
    // A pipe's writer may come later, so a pipe is opened in blocking mode.
    let piped = pipes == Pipes::Taken && path.metadata()?.file_type().is_fifo();
    // In this mode, opening a pipe without a writer does not block, and a terminal does not become the controlling one.
    let nonblocking = if piped { OFlags::empty() } else { OFlags::NONBLOCK };
    let file = OpenOptions::new().read(true).custom_flags(flags(nonblocking | OFlags::NOCTTY)).open(path)?;
    let metadata = file.metadata()?;
    match irregular_kind(metadata.file_type()) {
        None => {}
        Some(_) if piped && metadata.file_type().is_fifo() => {}
        Some(kind) => return Err(ReadError::NotRegular(kind)),
    }
    if metadata.len() > max {
        return Err(ReadError::TooLarge(max));
    }
    let bytes = bytes_of(file, metadata.len(), max)?;
    Ok((bytes, piped))
}

/// Reads at most `max` bytes, whatever size the file claims: the claim of a pipe or a growing file means nothing. Where it
/// is right, the buffer never grows, which would leave a copy of a secret behind.
fn bytes_of(file: File, claimed: u64, max: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::with_capacity(claimed.min(max) as usize + 1);
    if file.take(max + 1).read_to_end(&mut bytes)? as u64 > max {
        return Err(ReadError::TooLarge(max));
    }
    Ok(bytes)
}

/// The kind of a file that is not regular; `None` for a regular file.
fn irregular_kind(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        return None;
    }
    Some(if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    })
}

/// Reads that were abandoned and may still block.
#[derive(Default)]
struct Hanging(Mutex<Vec<Hung>>);

struct Hung {
    path: PathBuf,
    since: Instant,
    /// The number of the read.
    number: u64,
}

/// How long a directory with a blocked read is not read again. After that, a read is tried: the mount may have been
/// replaced, although the thread of the old one still blocks.
const RETRY: Duration = Duration::from_secs(300);

/// The limit on blocked threads.
const MAX_HANGING: usize = 16;

static HANGING: LazyLock<Arc<Hanging>> = LazyLock::new(Arc::default);

impl Hanging {
    fn list(&self) -> MutexGuard<'_, Vec<Hung>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, path: &Path) -> bool {
        let near = |hung: &Hung| hung.path.parent() == path.parent() && hung.since.elapsed() < RETRY;
        let list = self.list();
        list.len() >= MAX_HANGING || list.iter().any(near)
    }
}

/// The result of `work`, if it ends in time.
fn bounded<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    bounded_by(PATIENCE, &HANGING, path, work)
}

fn bounded_by<T: Send + 'static>(
    patience: Duration,
    hanging: &Arc<Hanging>,
    path: &Path,
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    if hanging.holds(path) {
        return Err(ReadError::TimedOut);
    }
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let (sender, answer) = mpsc::sync_channel(1);
    let thread = {
        let hanging = hanging.clone();
        move || {
            let result = work();
            // Sent under the lock, so that the caller that gives up sees either the answer or that there is none yet.
            let mut list = hanging.list();
            let _ = sender.send(result);
            list.retain(|hung| hung.number != number);
        }
    };
    std::thread::Builder::new().name("file".to_owned()).spawn(thread)?;
    if let Ok(result) = answer.recv_timeout(patience) {
        return result;
    }
    let mut list = hanging.list();
    answer.try_recv().unwrap_or_else(|_| {
        list.push(Hung { path: path.to_owned(), since: Instant::now(), number });
        Err(ReadError::TimedOut)
    })
}

#[cfg(test)]
mod tests;
