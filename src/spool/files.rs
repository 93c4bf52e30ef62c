//! Checks that the files in use are those in the directory.
//!
//! A row that is synced into an unlinked file, or into a directory that was renamed or covered by a mount, is lost when
//! the process ends. SQLite does not notice, so each name is checked before an answer: it must lead to the file that
//! was there when the spool opened. The price: one `lstat` per name, about ten microseconds for a transaction.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::mark;

/// `lock` is among them: while its name leads to our file, no other process holds it. So is `-shm`: another program would
/// create a new one, and the two would not see each other's locks.
const NAMES: [&str; 5] = ["spool.db", "spool.db-wal", "spool.db-shm", mark::FILE, "lock"];

/// The files as they were when the spool opened.
pub(super) struct Files {
    dir: PathBuf,
    seen: [Option<(u64, u64)>; NAMES.len()],
}

impl Files {
    /// The files that are in `dir` now.
    pub(super) fn in_dir(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), seen: NAMES.map(|name| identity(&dir.join(name)).ok()) }
    }

    /// An error if a file was removed or replaced: one sentence with what to do.
    pub(super) fn check(&self) -> Result<(), String> {
        for (name, seen) in NAMES.iter().zip(self.seen) {
            let change = match (identity(&self.dir.join(name)), seen) {
                (Ok(found), Some(seen)) if found == seen => continue,
                (Ok(_), _) => "was replaced",
                (Err(error), None) if error.kind() == io::ErrorKind::NotFound => continue,
                (Err(error), _) if error.kind() == io::ErrorKind::NotFound => "was removed",
                (Err(_), _) => "cannot be checked",
            };
            return Err(format!(
                "{} {change} while in use: nothing is stored, since a restart would not find it; the rows in the old files \
                 go to Kafka while this process runs: wait for 0 live rows, then restart",
                self.dir.join(name).display()
            ));
        }
        Ok(())
    }
}

/// Device and inode, without following a symbolic link: a link is another file.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a3_a_removed_replaced_or_linked_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in NAMES {
            fs::write(path(name), name).unwrap();
        }
        let files = Files::in_dir(dir.path());
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
            files.check().expect("the same file is back");
        }
        fs::rename(dir.path(), dir.path().with_extension("moved")).unwrap();
        assert!(files.check().is_err());
        fs::rename(dir.path().with_extension("moved"), dir.path()).unwrap();
        files.check().unwrap();
    }
}
