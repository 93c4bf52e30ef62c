//! What the spool needs of its directory: the lock, durable names, the reserve, free space.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::{OpenError, own};

/// Makes `dir` and what is missing above it. A new directory survives a power cut only once its
/// parent is synced, so each one is. `dir` itself is for its owner alone: it holds payloads.
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

/// Makes the names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Bytes that an ordinary user may still write on the disk of `dir`.
pub(super) fn free(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The operating system's locks on the directory; they end with the process, however that ends.
///
/// On `lock`, where the holder's pid is for people and for versions that know no other lock; and on the directory itself,
/// since a file can be removed and made anew.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    _dir: Option<File>,
}

impl Lock {
    /// Takes the locks or says who holds them.
    pub(super) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("lock");
        let failed = |cause| OpenError::io("cannot lock", &path, cause);
        let holder = || {
            let mut holder = String::new();
            // Between its lock and its line the holder's pid is not there yet.
            let _ = own::open_existing(&path).and_then(|file| file.take(32).read_to_string(&mut holder));
            OpenError::Locked { dir: dir.to_owned(), holder: holder.trim().parse().ok() }
        };
        // First, so that whoever comes second leaves no file.
        let whole = File::open(dir).map_err(failed)?;
        let whole = match whole.try_lock() {
            Ok(()) => Some(whole),
            Err(TryLockError::WouldBlock) => return Err(holder()),
            // A file system that locks no directories.
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
        Ok(Self { _file: file, _dir: whole })
    }
}

/// Given up at a time. Another program that fills the disk wins no more than this by being quicker:
/// the reserve in one piece was gone within 160 ms to one that writes 100 MiB/s, and the machine had
/// only to stop the writer for so long. The price: the log may be folded once for each piece.
const PIECE: u64 = 1024 * 1024;

/// Space that is held back for the moment when the disk is full: without it SQLite can neither
/// delete a row nor move its log into the file, and a spool that drains would stand still.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    /// The reserve of `dir`, as an earlier run left it.
    pub(super) fn new(dir: &Path, bytes: u64) -> Self {
        Self { path: dir.join("reserve"), bytes }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is in place, as the file says: somebody may have deleted it to make room.
    pub(super) fn left(&self) -> u64 {
        fs::symlink_metadata(&self.path).map_or(0, |meta| meta.len())
    }

    /// What is not in place.
    pub(super) fn missing(&self) -> u64 {
        self.bytes.saturating_sub(self.left())
    }

    /// Whether all of it is in place.
    pub(super) fn whole(&self) -> bool {
        self.missing() == 0
    }

    /// Gives a piece of the space back. `false` when there was none to give.
    pub(super) fn release_chunk(&self) -> bool {
        let left = self.left();
        left > 0 && self.cut(left.saturating_sub(PIECE)).is_ok()
    }

    /// Takes what is missing of the space: bytes that no file system can store as a hole or compress
    /// away, synced. What was written of it is removed again on failure.
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
    fn the_reserve_goes_by_the_piece_and_only_what_is_missing_is_made_again() {
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
        assert!(!found.whole() && !found.release_chunk(), "gone by another hand");
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
