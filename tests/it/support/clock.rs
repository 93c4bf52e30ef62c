//! Runs the unchanged program with a wrong wall clock: see `clock.c`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use jiff::SignedDuration;
use tempfile::NamedTempFile;

/// Builds the library once per process and moves it into place atomically, since another process may be using it.
static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clock.so");
    let new = library.with_extension(std::process::id().to_string());
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/clock.c");
    let cc = Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&new).arg(source).output();
    let cc = cc.expect("cc");
    assert!(cc.status.success(), "{}", String::from_utf8_lossy(&cc.stderr));
    std::fs::rename(&new, &library).unwrap();
    library
});

/// The wall clock of the programs that its [`command`](Clock::command) runs.
#[derive(Debug)]
pub struct Clock(NamedTempFile);

impl Clock {
    /// A clock with this offset, ahead or behind.
    pub fn off(by: SignedDuration) -> Self {
        let clock = Self(NamedTempFile::new().unwrap());
        clock.set(by);
        clock
    }

    /// Changes the offset.
    pub fn set(&self, by: SignedDuration) {
        let file: &File = self.0.as_file();
        let nanoseconds = i64::try_from(by.as_nanos()).unwrap();
        file.write_all_at(&nanoseconds.to_ne_bytes(), 0).unwrap();
    }

    /// The command to run the program under.
    pub fn command(&self) -> Vec<String> {
        let library = format!("LD_PRELOAD={}", LIBRARY.display());
        let file = format!("HOOKSTREAM_TEST_CLOCK={}", self.0.path().display());
        vec![String::from("env"), library, file]
    }
}
