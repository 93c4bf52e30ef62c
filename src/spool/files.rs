//! The files under the promise are those in the directory.
//!
//! A row that is synced into a file that was unlinked, or into a directory that was renamed or covered by a mount, is gone
//! with the process. SQLite writes on without a word, so before an answer each name is looked at again: it must lead to the
//! file that was there when the spool opened. Price: one `lstat` each, about ten microseconds for a whole transaction.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::mark;

/// `lock`: while its name leads to our file, nobody else holds it. `-shm`: another program would make a new one and agree
/// with us about nothing.
const NAMES: [&str; 5] = ["spool.db", "spool.db-wal", "spool.db-shm", mark::FILE, "lock"];

/// The files as they were when the spool opened.
pub(super) struct Files {
    dir: PathBuf,
    seen: [Option<(u64, u64)>; NAMES.len()],
}

impl Files {
    /// Those that are there now.
    pub(super) fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), seen: NAMES.map(|name| identity(&dir.join(name)).ok()) }
    }

    /// Whether each is still in its place; what is wrong, in one sentence with what to do.
    pub(super) fn check(&self) -> Result<(), String> {
        for (name, seen) in NAMES.iter().zip(self.seen) {
            let what = match (identity(&self.dir.join(name)), seen) {
                (Ok(found), Some(seen)) if found == seen => continue,
                (Ok(_), _) => "was replaced",
                (Err(error), None) if error.kind() == io::ErrorKind::NotFound => continue,
                (Err(error), _) if error.kind() == io::ErrorKind::NotFound => "was removed",
                (Err(_), _) => "cannot be looked at",
            };
            return Err(format!(
                "{} {what} while in use: nothing is stored in a file that a restart would not find; what is left in the \
                 old files goes to Kafka while this process lives: wait for 0 live rows, then restart",
                self.dir.join(name).display()
            ));
        }
        Ok(())
    }
}

/// Device and inode of the name itself; a symbolic link is another file.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a3_a_file_that_is_gone_or_another_or_behind_a_link_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in NAMES {
            fs::write(path(name), name).unwrap();
        }
        let files = Files::of(dir.path());
        files.check().unwrap();
        for name in NAMES {
            fs::rename(path(name), path("away")).unwrap();
            assert!(files.check().unwrap_err().contains(&format!("{name} was removed")));
            fs::copy(path("away"), path(name)).unwrap();
            assert!(files.check().unwrap_err().contains(&format!("{name} was replaced")));
            fs::remove_file(path(name)).unwrap();
            std::os::unix::fs::symlink(path("away"), path(name)).unwrap();
            assert!(files.check().unwrap_err().contains(&format!("{name} was replaced")));
            fs::rename(path("away"), path(name)).unwrap();
            files.check().expect("the very file is back");
        }
        fs::rename(dir.path(), dir.path().with_extension("moved")).unwrap();
        assert!(files.check().is_err());
        fs::rename(dir.path().with_extension("moved"), dir.path()).unwrap();
        files.check().unwrap();
    }
}
