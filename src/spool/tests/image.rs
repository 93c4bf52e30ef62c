//! Copies of a spool's files, as a kill leaves them, to be changed and opened elsewhere.

use super::*;

/// A directory in memory: these tests need no disk.
pub(super) fn memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// The files of a spool.
pub(super) const FILES: [&str; 4] = ["spool.db", "spool.db-wal", "spool.db-shm", mark::FILE];

/// The files with their contents.
#[derive(Clone)]
pub(super) struct Image(pub(super) Vec<(&'static str, Vec<u8>)>);

impl Image {
    pub(super) fn from_dir(dir: &Path) -> Self {
        let read = |name| std::fs::read(dir.join(name)).ok().map(|bytes| (name, bytes));
        Self(FILES.into_iter().filter_map(read).collect())
    }

    /// Writes them to an empty directory.
    pub(super) fn put(&self, dir: &Path) {
        for (name, bytes) in &self.0 {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
    }

    pub(super) fn file(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.0.iter_mut().find(|(found, _)| *found == name).unwrap().1
    }

    pub(super) fn without(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(found, _)| *found != name).cloned().collect())
    }

    pub(super) fn with(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut image = self.clone();
        change(image.file(name));
        image
    }
}

/// A spool with `rows` rows "0", "1", ... of topic "a", one transaction each.
pub(super) async fn filled(dir: &Path, rows: u64) -> Arc<Spool> {
    let (spool, _) = open(dir);
    for n in 0..rows {
        spool.store(vec![row(n)]).await.unwrap();
    }
    spool
}

pub(super) fn row(n: u64) -> Record {
    record("a", &n.to_string(), &[(n as u8).wrapping_add(1); 700])
}

/// Opens an image in a new directory; returns the keys found, each checked for its value, and the report.
pub(super) async fn opened(image: &Image) -> (tempfile::TempDir, Arc<Spool>, Opened, Vec<u64>) {
    let dir = memory();
    image.put(dir.path());
    let allowed = check_dir(dir.path());
    let (spool, opened) = open(dir.path());
    assert!(allowed.is_ok(), "the check refuses a spool that opens: {allowed:?}");
    let rows = oldest(&spool, "a").await;
    let mut keys = Vec::new();
    for row in &rows {
        let n: u64 = row.record.key().parse().unwrap();
        assert_eq!(row.record.value(), self::row(n).value());
        keys.push(n);
    }
    (dir, spool, opened, keys)
}
