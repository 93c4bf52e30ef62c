//! The files that an operator names: read within a bound of size and of time, and written whole or not at all.
//!
//! A path may lead to anything: a named pipe that nobody writes to, a device that never ends, a file system whose
//! server is gone. Whoever reads such a thing with `std::fs` waits for good, and a reload would wait with it. So every
//! file is read here, and `clippy.toml` bans the other ways. Symbolic links are followed: a mounted Kubernetes Secret
//! is made of them.
//!
//! Each read has a thread of its own, since nothing else can leave a system call that does not return. It costs some
//! 50 us at start and at each look of a reload. A thread that hangs is left behind, and nothing of its directory is tried
//! again for a while, so that few of them are left, and of many files only the first is waited for.

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
/// Far above any chain of certificates; a bundle of all authorities of the world has 220 KiB.
pub const MAX_PEM: u64 = 1 << 20;
/// Far above any configuration, schema or file of pinned ids.
pub const MAX_TEXT: u64 = 16 << 20;

/// How long a file may take, far above what a disk or a network file system that works needs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a file was not read, as half a sentence.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// What the system says.
    #[error("{}", .0.kind())]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is {0}, and no regular file")]
    NotRegular(&'static str),
    /// It has more bytes than its kind may have.
    #[error("it is larger than {} KiB", .0 / 1024)]
    TooLarge(u64),
    /// The file system, or the writer of a pipe, gives no answer.
    #[error("nothing came within {} s", PATIENCE.as_secs())]
    TimedOut,
    /// It is no UTF-8.
    #[error("it is no UTF-8 text")]
    NotText,
}

impl ReadError {
    /// Whether there is no such file; also where something on the way to it is no directory.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
    }
}

/// Whether a pipe is taken, too.
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

/// The same as text.
///
/// # Errors
/// [`ReadError`].
pub fn read_text(path: &Path, max: u64) -> Result<String, ReadError> {
    String::from_utf8(read(path, max)?).map_err(|_| ReadError::NotText)
}

/// The content of a regular file or a pipe, such as the shell's `<(command)`, and whether it was a pipe: that gives its
/// content once only.
///
/// # Errors
/// [`ReadError`].
pub fn read_or_pipe(path: &Path, max: u64) -> Result<(Vec<u8>, bool), ReadError> {
    let file = path.to_owned();
    bounded(path, move || content(&file, max, Pipes::Taken))
}

/// Whether a path leads to what another library would read without a bound. What is missing or forbidden is not judged:
/// the library says so itself.
///
/// # Errors
/// [`ReadError::NotRegular`] of a pipe or a device, [`ReadError::TimedOut`].
pub fn probe(path: &Path) -> Result<(), ReadError> {
    let file = path.to_owned();
    bounded(path, move || match file.metadata().map(|metadata| metadata.file_type()) {
        Ok(kind) if !kind.is_dir() => what(kind).map_or(Ok(()), |what| Err(ReadError::NotRegular(what))),
        _ => Ok(()),
    })
}

/// What stands in a directory, in order. Symbolic links are followed, and what leads nowhere is left out.
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

/// Whether there is something at a path, or it cannot be told that there is not.
pub fn may_exist(path: &Path) -> bool {
    let file = path.to_owned();
    let found = bounded(path, move || Ok(file.metadata()?));
    !found.is_err_and(|error| error.is_missing())
}

/// Who may read a file beside its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Everybody on this machine.
    Everybody,
    /// The group of this number, of which this process is none.
    Group(u32),
}

/// Who may read a file beside its owner, as its mode and those of the directories above it say; `None` where nobody
/// may but the process's own groups, or nothing can be told. In Kubernetes `fsGroup` gives a Secret's files to a group of
/// the process, which is as it should be.
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
    // Nobody comes past a directory that they may not search.
    if mode & 0o004 != 0 && above.iter().all(|directory| directory.mode() & 0o001 != 0) {
        return Some(Readers::Everybody);
    }
    let searched = |directory: &Metadata| {
        directory.mode() & 0o001 != 0 || (directory.gid() == group && directory.mode() & 0o010 != 0)
    };
    let foreign = !own.is_empty() && !own.contains(&group);
    (mode & 0o040 != 0 && foreign && above.iter().all(searched)).then_some(Readers::Group(group))
}

/// The groups of this process; none where the system does not tell.
fn own_groups() -> Vec<u32> {
    let Ok((status, _)) = content(Path::new("/proc/self/status"), MAX_TEXT, Pipes::Refused) else {
        return Vec::new();
    };
    let status = String::from_utf8_lossy(&status).into_owned();
    let lines =
        status.lines().filter_map(|line| line.strip_prefix("Gid:").or_else(|| line.strip_prefix("Groups:")));
    lines.flat_map(str::split_whitespace).filter_map(|group| group.parse().ok()).collect()
}

/// Writes a file that holds `content` whole, or what it held before, at any crash; a symbolic link in its place is
/// replaced. `mode` counts where the umask allows it.
///
/// # Errors
/// Those of the file system; the old file is as it was.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Of a name that no directory's reader takes for one of its files.
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(".new");
    let beside = directory.join(beside);
    // What a crash has left, or somebody has put there: it is never written through.
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
/// Those of the file system.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).custom_flags(flags(OFlags::DIRECTORY)).open(directory)?.sync_all()
}

const fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

/// Not for a caller's own thread: anything here may hang.
fn content(path: &Path, max: u64, pipes: Pipes) -> Result<(Vec<u8>, bool), ReadError> {
    // A pipe's writer may come later, so that one is opened as it is.
    let piped = pipes == Pipes::Taken && path.metadata()?.file_type().is_fifo();
    // Opened so, a pipe without a writer does not wait, and a terminal does not become ours.
    let nonblocking = if piped { OFlags::empty() } else { OFlags::NONBLOCK };
    let file = OpenOptions::new().read(true).custom_flags(flags(nonblocking | OFlags::NOCTTY)).open(path)?;
    let metadata = file.metadata()?;
    match what(metadata.file_type()) {
        None => {}
        Some(_) if piped && metadata.file_type().is_fifo() => {}
        Some(what) => return Err(ReadError::NotRegular(what)),
    }
    if metadata.len() > max {
        return Err(ReadError::TooLarge(max));
    }
    let bytes = bytes_of(file, max)?;
    Ok((bytes, piped))
}

/// The size that a file claims is not believed: that of a pipe, or of a file that grows, says nothing.
fn bytes_of(file: File, max: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    if file.take(max + 1).read_to_end(&mut bytes)? as u64 > max {
        return Err(ReadError::TooLarge(max));
    }
    Ok(bytes)
}

/// What a thing is that is no regular file.
fn what(kind: FileType) -> Option<&'static str> {
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

/// The reads that were given up, and may go on hanging.
#[derive(Default)]
struct Hanging(Mutex<Vec<Hung>>);

struct Hung {
    path: PathBuf,
    since: Instant,
    /// That of its read.
    number: u64,
}

/// For so long nothing of a directory in which a read hangs is tried again. Then it is: a mount may have been replaced,
/// and the thread of the old one hangs all the same.
const RETRY: Duration = Duration::from_secs(300);

/// The bound of threads that hang.
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

/// What `work` gives, if it gives it in time.
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
            // Under the lock, so that who gives up sees either the answer or that there is none yet.
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
