//! Makes the spool's files private to one user: they hold payloads, and writing to a planted file name would change
//! somebody else's file.
//!
//! - A new file gets mode 0600, whatever the umask; an existing file with more permissions is tightened.
//! - No symbolic link is followed. A file with a second name, or one that belongs neither to our user nor to the directory's
//!   owner, is refused. Root uses the directory owner's files and gives new ones to that owner, so that a command run as root
//!   does not lock the service out.
//! - A directory that hookstream did not create keeps its mode. Its group may be our only access (Kubernetes' `fsGroup`), or
//!   the setting may be wrong and name `/tmp` or `/var/lib`, which others need. Its files are private whatever its mode. If
//!   others may *replace* them, a WARN line reports it, and [`super::files`] detects a replacement.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use rustix::fs::OFlags;

use super::OpenError;

/// The mode of every file.
const MODE: u32 = 0o600;

/// The permissions of the group and of everybody else.
const OTHERS: u32 = 0o077;

/// Opens or creates a file for reading and writing.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = options().read(true).write(true).create(true).open(path).map_err(explain)?;
    check_open(&file, path)?;
    Ok(file)
}

/// Opens an existing file.
pub(super) fn open_existing(path: &Path) -> io::Result<File> {
    let file = options().read(true).write(true).open(path).map_err(explain)?;
    check_open(&file, path)?;
    Ok(file)
}

/// Creates a file; an error if it exists.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let file = options().read(true).write(true).create_new(true).open(path).map_err(explain)?;
    check_open(&file, path)?;
    Ok(file)
}

/// Checks and tightens a file that SQLite opens. By path: opening and closing it here would drop SQLite's locks.
pub(super) fn tighten(path: &Path) -> io::Result<()> {
    if check(path)?.is_some_and(|meta| meta.mode() & OTHERS != 0) {
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    }
    Ok(())
}

/// Checks a file by its path; `None` if there is none.
fn check(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(meta) => judge(&meta, path).map(|()| Some(meta)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Checks and tightens all files of the spool in `dir`, including those that older versions set aside.
pub(super) fn tighten_all(dir: &Path) -> Result<(), OpenError> {
    each_file(dir, tighten)
}

/// Checks all files of the spool in `dir`, and changes none.
pub(super) fn check_all(dir: &Path) -> Result<(), OpenError> {
    each_file(dir, |path| check(path).map(|_| ()))
}

fn each_file(dir: &Path, work: impl Fn(&Path) -> io::Result<()>) -> Result<(), OpenError> {
    let failed = |cause| OpenError::io("cannot check", dir, cause);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with("spool.") || ["lock", "reserve", "salvage", "damaged"].contains(&name) {
            let path = dir.join(name);
            work(&path).map_err(|cause| OpenError::io("cannot use", &path, cause))?;
        }
    }
    Ok(())
}

/// Logs a warning if others can replace the files in the directory.
pub(super) fn check_dir(dir: &Path) -> io::Result<()> {
    const STICKY: u32 = 0o1000;
    let meta = fs::metadata(dir)?;
    let (mode, ours) = (meta.mode(), Some(meta.uid()) == us());
    // If the directory belongs to another user, its group is how we write to it.
    let writable = if ours { 0o022 } else { 0o002 };
    if mode & writable != 0 && mode & STICKY == 0 {
        tracing::warn!(
            dir = %dir.display(), mode = format!("{:o}", mode & 0o7777),
            "others may replace the spool's files; chmod 700 the directory"
        );
    }
    Ok(())
}

fn options() -> fs::OpenOptions {
    let mut options = File::options();
    // Without O_NONBLOCK a planted FIFO would block the start forever.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.mode(MODE).custom_flags(flags.bits().cast_signed());
    options
}

fn check_open(file: &File, path: &Path) -> io::Result<()> {
    let meta = file.metadata()?;
    judge(&meta, path)?;
    if meta.nlink() != 1 {
        return Err(io::Error::other("it has another name as well (a hard link); remove it"));
    }
    if meta.mode() & OTHERS != 0 {
        file.set_permissions(fs::Permissions::from_mode(MODE))?;
    }
    let owner = dir_of(path)?;
    if us() == Some(0) && meta.uid() == 0 && owner.uid() != 0 {
        fchown(file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

fn judge(meta: &Metadata, path: &Path) -> io::Result<()> {
    if meta.is_symlink() {
        return Err(io::Error::other(LINK));
    }
    if !meta.is_file() {
        return Err(io::Error::other("it is no plain file; remove it"));
    }
    let (owner, us) = (meta.uid(), us());
    if us.is_some_and(|us| us != owner) && dir_of(path)?.uid() != owner {
        return Err(io::Error::other(format!(
            "it belongs to another user (uid {owner}); remove it, or give it to the user that runs hookstream"
        )));
    }
    Ok(())
}

const LINK: &str = "it is a symbolic link, and the spool follows none; remove it";

fn explain(error: io::Error) -> io::Error {
    let link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    if link { io::Error::other(LINK) } else { error }
}

fn dir_of(path: &Path) -> io::Result<Metadata> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::metadata(dir)
}

/// Our user id, read without an unsafe system call; `None` without /proc.
fn us() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|meta| meta.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn c2_a_new_file_is_private_and_an_existing_one_is_tightened() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (dir.path().join("new"), dir.path().join("old"));
        create(&new).unwrap();
        fs::write(&old, "x").unwrap();
        fs::set_permissions(&old, fs::Permissions::from_mode(0o644)).unwrap();
        open(&old).unwrap();
        assert_eq!((mode(&new), mode(&old)), (0o600, 0o600));
        fs::set_permissions(&old, fs::Permissions::from_mode(0o666)).unwrap();
        tighten(&old).unwrap();
        assert_eq!(mode(&old), 0o600);
        tighten(&dir.path().join("not there")).unwrap();
    }

    #[test]
    fn c2_links_fifos_and_other_users_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, planted) = (dir.path().join("victim"), dir.path().join("planted"));
        fs::write(&victim, "untouched").unwrap();
        let refused = |says: &str| {
            let results =
                [open(&planted), open_existing(&planted), tighten(&planted).and_then(|()| open(&planted))];
            for error in results.map(|result| result.unwrap_err().to_string()) {
                assert!(error.contains(says), "{error}");
            }
            assert!(create(&planted).is_err(), "{says}");
            fs::remove_file(&planted).unwrap();
        };
        std::os::unix::fs::symlink(&victim, &planted).unwrap();
        refused("symbolic link");
        fs::hard_link(&victim, &planted).unwrap();
        refused("another name");
        rustix::fs::mknodat(rustix::fs::CWD, &planted, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        refused("no plain file");
        if us() == Some(0) {
            fs::write(&planted, "x").unwrap();
            std::os::unix::fs::chown(&planted, Some(4711), None).unwrap();
            refused("another user");
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    }
}
