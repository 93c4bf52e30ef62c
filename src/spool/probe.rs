//! The spool's directory, looked at from outside: what a start would meet there.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{OpenError, disk, format, own};

/// What stands in the way of a spool, or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolProbe {
    /// Bytes that may still be written on its disk.
    pub free: u64,
    /// How long a small write took to be synced; `None` while there is no directory yet.
    pub sync: Option<Duration>,
    /// Whether a process has it now.
    pub in_use: bool,
}

/// Looks without disturbing who has it. A file of its own is written, synced and removed; where the
/// directory is not there yet, nothing is made, and the one above is looked at.
///
/// # Errors
/// What `serve` would fail on: no directory and none to be made, not ours to write, no spool's file.
pub fn probe(dir: &Path) -> Result<SpoolProbe, OpenError> {
    let failed = |cause| OpenError::io("cannot use", dir, cause);
    let above = dir.ancestors().find(|at| at.as_os_str().is_empty() || at.exists()).unwrap_or(Path::new("/"));
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let free = disk::free(above).map_err(failed)?;
    if above != dir {
        if !above.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        rustix::fs::access(above, rustix::fs::Access::WRITE_OK).map_err(|cause| failed(cause.into()))?;
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
    if format::file(dir).exists() {
        format::open_reader(&format::file(dir))?;
    }
    Ok(SpoolProbe { free, sync: Some(sync), in_use })
}

/// A shared lock for an instant: a service that runs does not notice; one that starts in that very
/// instant would fail, and its supervisor start it again.
fn in_use(dir: &Path) -> io::Result<bool> {
    // The directory's own lock stays where `lock` was removed; that on `lock` is all that an older version takes.
    let whole = File::open(dir)?.try_lock_shared();
    if matches!(whole, Err(TryLockError::WouldBlock)) {
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
