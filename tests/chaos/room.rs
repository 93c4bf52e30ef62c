//! A small file system, and programs that fill it.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;

/// Set in the process that runs in a mount namespace of its own.
const INSIDE: &str = "HOOKSTREAM_CHAOS_INSIDE";

/// The namespaces to try: a mount namespace, for which one must be root; else root of a user
/// namespace.
const WAYS: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];

/// Whether this process runs in a mount namespace of its own.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this program once more, with the same arguments, in a mount namespace of its own: whatever
/// becomes of it, nothing stays mounted.
pub fn again_inside() -> anyhow::Result<()> {
    let mut said = Vec::new();
    for way in WAYS {
        // As much of it as the check needs, so that a refusal is not taken for a failed check.
        let trial = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"];
        let output = Command::new("unshare").args(way).args(trial).arg(std::env::temp_dir()).output();
        let output = output.context("unshare cannot be started: install the package util-linux")?;
        if output.status.success() {
            let mut again = Command::new("unshare");
            again.args(way).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
            let status = again.env(INSIDE, "1").status()?;
            anyhow::ensure!(status.success(), "it failed: see above");
            return Ok(());
        }
        said.push(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    anyhow::bail!(
        "no file system can be mounted: run this as root, or allow user namespaces ({})",
        said.join("; ")
    )
}

/// A file system in memory; unmounted when dropped.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of `size` at `at`.
    pub fn mount(at: &Path, size: &str) -> anyhow::Result<Self> {
        let options = format!("size={size}");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status()?;
        anyhow::ensure!(status.success(), "mount: {status}");
        Ok(Self(at.to_owned()))
    }

    /// What can take its room; nothing yet.
    pub fn ballast(&self) -> Ballast {
        Ballast(self.0.join("ballast"))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: the program may be about to end.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A file that occupies the free space.
#[derive(Clone, Debug)]
pub struct Ballast(PathBuf);

impl Ballast {
    /// Takes up to 1 MiB; whether there was anything to take.
    fn grow(&self) -> anyhow::Result<bool> {
        let mut file = File::options().create(true).append(true).open(&self.0)?;
        match file.write(&vec![0xA5; 1 << 20]) {
            Ok(count) => Ok(count > 0),
            Err(error) if error.kind() == ErrorKind::StorageFull => Ok(false),
            Err(error) => Err(error).context("the ballast"),
        }
    }

    /// Grows until the file system has no free byte.
    pub fn fill(&self) -> anyhow::Result<()> {
        while self.grow()? {}
        Ok(())
    }

    /// Grows until it is told to stop, at 100 MiB/s: as a disk may fill up, and slow enough that a
    /// thread which the machine does not run for some milliseconds has not lost by that alone.
    pub fn keep_filling(&self) -> Filling {
        let (stop, ballast) = (Arc::new(AtomicBool::new(false)), self.clone());
        let stopped = stop.clone();
        let work = move || {
            while !stopped.load(Ordering::Relaxed) {
                ballast.grow()?;
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        };
        Filling { stop, thread: Some(std::thread::spawn(work)) }
    }

    /// What it takes.
    pub fn bytes(&self) -> anyhow::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    /// Releases the space.
    pub fn remove(&self) -> anyhow::Result<()> {
        std::fs::remove_file(&self.0).context("the ballast")
    }
}

/// A program that fills the disk continuously.
pub struct Filling {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Filling {
    /// Ends it.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).context("the ballast")?
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Free bytes at `at`, as reported by `df`.
pub fn free(at: &Path) -> anyhow::Result<u64> {
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(at).output()?;
    let text = String::from_utf8(output.stdout)?;
    text.lines().nth(1).and_then(|line| line.trim().parse().ok()).context("df says nothing")
}
