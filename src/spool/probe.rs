//! Checks the spool's directory for `hookstream check`, without opening the spool.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::format::with;
use super::mark::{self, MarkState};
use super::{OpenError, disk, format, own, salvage};

/// What was found out about the spool's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolProbe {
    /// Free bytes on its disk.
    pub free: u64,
    /// How long writing and syncing 4 KiB took; `None` if the directory does not exist yet.
    pub sync: Option<Duration>,
    /// Whether a process has the spool open.
    pub in_use: bool,
}

/// Checks, without changing anything, whether `serve` could use the directory, or could create it.
///
/// # Errors
/// The directory cannot be created or written, or its files cannot be a spool of ours.
pub fn check_dir(dir: &Path) -> Result<(), OpenError> {
    let failed = |cause| OpenError::io("cannot use", dir, cause);
    let found = nearest_existing(dir);
    if !found.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    rustix::fs::access(found, rustix::fs::Access::WRITE_OK).map_err(|cause| failed(cause.into()))?;
    if found == dir {
        own::check_all(dir)?;
        check_database(dir)?;
    }
    Ok(())
}

/// Refuses the database of another program or of a newer hookstream, and only if [`super::Spool::open`] would refuse it
/// too, which opens or salvages everything else. So whatever cannot be decided without the log is left to it: the price
/// is that such a database is reported without the other problems of the configuration.
fn check_database(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join(mark::FILE);
    match mark::read(dir).map_err(|cause| OpenError::io("cannot use", &path, cause))? {
        MarkState::Newer(found) => return Err(OpenError::Newer { path, found }),
        // The spool is ours, whatever damage makes its file look like.
        MarkState::Counts(_) | MarkState::Torn(_) => return Ok(()),
        MarkState::Nothing | MarkState::Damaged => {}
    }
    let file = format::file(dir);
    let has_log = fs::metadata(with(&file, "-wal")).is_ok_and(|meta| meta.len() > 0);
    if has_log || salvage::is_unfinished(dir) {
        return Ok(());
    }
    match format::version_without_log(&file) {
        Err(error @ (OpenError::Foreign { .. } | OpenError::Newer { .. })) => Err(error),
        _ => Ok(()),
    }
}

/// The directory, or the part of its path that exists.
fn nearest_existing(dir: &Path) -> &Path {
    let found = dir.ancestors().find(|at| at.as_os_str().is_empty() || at.exists()).unwrap_or(Path::new("/"));
    if found.as_os_str().is_empty() { Path::new(".") } else { found }
}

/// Checks the directory without disturbing a running service. It writes, syncs and removes a file of its own. If the
/// directory does not exist yet, it creates nothing and checks the parent.
///
/// # Errors
/// The errors that `serve` would fail with: the directory cannot be created or written, or holds no spool.
pub fn probe(dir: &Path) -> Result<SpoolProbe, OpenError> {
    let failed = |cause| OpenError::io("cannot use", dir, cause);
    check_dir(dir)?;
    let found = nearest_existing(dir);
    let free = disk::free(found).map_err(failed)?;
    if found != dir {
        return Ok(SpoolProbe { free, sync: None, in_use: false });
    }
    let begin = Instant::now();
    let probe = dir.join(format!("check-{}", std::process::id()));
    let written = own::create(&probe).and_then(|mut file| {
        file.write_all(&[0; 4096])?;
        file.sync_all()
    });
    let sync = begin.elapsed();
    let _ = fs::remove_file(&probe);
    written.map_err(failed)?;
    let in_use = in_use(dir).map_err(failed)?;
    Ok(SpoolProbe { free, sync: Some(sync), in_use })
}

/// Takes a shared lock for a moment. A running service does not notice; one that starts in that moment would fail, and
/// its process supervisor would start it again.
fn in_use(dir: &Path) -> io::Result<bool> {
    // If somebody removed `lock`, the lock on the directory is still there. Older versions lock only `lock`.
    let directory = File::open(dir)?.try_lock_shared();
    if matches!(directory, Err(TryLockError::WouldBlock)) {
        return Ok(true);
    }
    let file = match own::open_existing(&dir.join("lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
