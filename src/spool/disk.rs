//! The spool's directory: its lock, durable file names, the reserve, free space.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::{OpenError, own};

/// Creates `dir` and its missing parents. A new directory survives a power cut only once its parent is synced, so each
/// parent is synced. `dir` itself has mode 0700, since it holds payloads.
pub(super) fn make_dir(dir: &Path) -> Result<(), OpenError> {
    let failed = |cause| OpenError::io("cannot make the directory", dir, cause);
    let mut missing: Vec<&Path> = Vec::new();
    let mut at = dir;
    while !at.as_os_str().is_empty() && !at.exists() {
        missing.push(at);
        let Some(parent) = at.parent() else { break };
        at = parent;
    }
    for new in missing.into_iter().rev() {
        let mode = if new == dir { 0o700 } else { 0o777 };
        match fs::DirBuilder::new().mode(mode).create(new) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return Err(failed(cause)),
            _ => {}
        }
        let parent = new.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_dir(parent).map_err(failed)?;
    }
    Ok(())
}

/// Makes the file names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Free bytes on the disk of `dir`, as an ordinary user may use them.
pub(super) fn free(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The operating system's locks on the directory. They end with the process, however it ends.
///
/// There are two: on the file `lock`, which holds the pid for people and which older versions know; and on the
/// directory itself, since somebody can remove the file and create it again.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    _dir: Option<File>,
}

impl Lock {
    /// Takes the locks, or fails with the pid of the process that holds them.
    pub(super) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("lock");
        let failed = |cause| OpenError::io("cannot lock", &path, cause);
        let holder = || {
            let mut holder = String::new();
            // The file may still be empty: its holder locks it before it writes its pid.
            let _ = own::open_existing(&path).and_then(|file| file.take(32).read_to_string(&mut holder));
            OpenError::Locked { dir: dir.to_owned(), holder: holder.trim().parse().ok() }
        };
        // First, so that a second process leaves no file behind.
        let directory = File::open(dir).map_err(failed)?;
        let directory = match directory.try_lock() {
            Ok(()) => Some(directory),
            Err(TryLockError::WouldBlock) => return Err(holder()),
            // This file system cannot lock directories.
            Err(TryLockError::Error(_)) => None,
        };
        let mut file = own::open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(holder()),
            Err(TryLockError::Error(cause)) => return Err(failed(cause)),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file, _dir: directory })
    }
}

/// Bytes of the reserve that are released at a time. A program that fills the disk can take no more than this before
/// the spool uses it. A reserve released as a whole was lost within 160 ms to a program that writes 100 MiB/s; the
/// scheduler only had to pause the writer for that long. The price: up to one checkpoint of the log for each piece.
const PIECE: u64 = 1024 * 1024;

/// Disk space reserved for a full disk: without it SQLite can neither delete a row nor move its log into the file, and
/// draining would stop.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    /// The reserve in `dir`, as an earlier run left it.
    pub(super) fn new(dir: &Path, bytes: u64) -> Self {
        Self { path: dir.join("reserve"), bytes }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reserved bytes, by the file's size: somebody may have deleted it to make room.
    pub(super) fn left(&self) -> u64 {
        fs::symlink_metadata(&self.path).map_or(0, |meta| meta.len())
    }

    /// Bytes that are not reserved yet.
    pub(super) fn missing(&self) -> u64 {
        self.bytes.saturating_sub(self.left())
    }

    /// Whether the reserve is complete.
    pub(super) fn whole(&self) -> bool {
        self.missing() == 0
    }

    /// Releases one piece to the disk. `false` if there was none.
    pub(super) fn release_chunk(&self) -> bool {
        let left = self.left();
        left > 0 && self.cut(left.saturating_sub(PIECE)).is_ok()
    }

    /// Reserves what is missing, synced, in bytes that no file system can compress or store as a hole. On failure it
    /// removes what it wrote.
    pub(super) fn make(&self) -> io::Result<()> {
        let left = self.left();
        let made = self.write(self.bytes.saturating_sub(left));
        if made.is_err() {
            let _ = self.cut(left);
        }
        made
    }

    fn cut(&self, left: u64) -> io::Result<()> {
        if left == 0 {
            return fs::remove_file(&self.path);
        }
        own::open_existing(&self.path)?.set_len(left)
    }

    fn write(&self, mut missing: u64) -> io::Result<()> {
        let mut file = own::open(&self.path)?;
        file.seek(SeekFrom::End(0))?;
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut block = Vec::with_capacity(64 * 1024);
        while missing > 0 {
            block.clear();
            while block.len() < 64 * 1024 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                block.extend_from_slice(&seed.to_le_bytes());
            }
            block.truncate(usize::try_from(missing).unwrap_or(usize::MAX));
            file.write_all(&block)?;
            missing -= block.len() as u64;
        }
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_takes_real_space_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(dir.path(), 100_000);
        assert!(!reserve.whole() && !reserve.release_chunk());
        reserve.make().unwrap();
        let meta = fs::metadata(dir.path().join("reserve")).unwrap();
        assert_eq!(meta.len(), 100_000);
        assert!(std::os::unix::fs::MetadataExt::blocks(&meta) * 512 >= 100_000, "no hole");
        assert!(Reserve::new(dir.path(), 100_000).whole(), "found again");
        assert!(!Reserve::new(dir.path(), 200_000).whole(), "half a reserve is none");
        assert!(reserve.release_chunk() && !dir.path().join("reserve").exists());
        assert!(!reserve.whole() && !reserve.release_chunk());
    }

    #[test]
    fn the_reserve_is_released_in_pieces_and_only_the_missing_ones_are_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = 2 * PIECE + PIECE / 2;
        let len = || fs::metadata(dir.path().join("reserve")).map_or(0, |meta| meta.len());
        let reserve = Reserve::new(dir.path(), bytes);
        reserve.make().unwrap();
        let mut left = Vec::new();
        while reserve.release_chunk() {
            left.push(len());
        }
        assert_eq!(left, [PIECE + PIECE / 2, PIECE / 2, 0]);
        reserve.make().unwrap();
        assert!(reserve.release_chunk());
        let found = Reserve::new(dir.path(), bytes);
        assert_eq!((found.whole(), found.missing()), (false, PIECE));
        found.make().unwrap();
        assert_eq!((found.whole(), len()), (true, bytes));
        fs::remove_file(dir.path().join("reserve")).unwrap();
        assert!(!found.whole() && !found.release_chunk(), "somebody else removed it");
    }

    #[test]
    fn directories_are_made_all_the_way_down() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        make_dir(&deep).unwrap();
        make_dir(&deep).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&deep).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700, "payloads are for the owner alone");
        fs::write(dir.path().join("file"), "").unwrap();
        let error = make_dir(&dir.path().join("file/x")).unwrap_err().to_string();
        assert!(error.contains("cannot make the directory"), "{error}");
    }
}
