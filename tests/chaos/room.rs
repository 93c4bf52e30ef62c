//! A small file system, and a file that fills it.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;

/// Set in the process that runs in its own mount namespace.
const INSIDE: &str = "HOOKSTREAM_CHAOS_INSIDE";

/// The options to try: a mount namespace, which needs root; else one within a user namespace.
const NAMESPACES: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];

/// Whether this process runs in its own mount namespace.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this program again with the same arguments in its own mount namespace, so that nothing stays mounted, however it
/// ends.
pub fn again_inside() -> anyhow::Result<()> {
    let mut messages = Vec::new();
    for options in NAMESPACES {
        // Tries the mount that the check needs, so that a missing permission does not look like a failed check.
        let trial = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"];
        let output = Command::new("unshare").args(options).args(trial).arg(std::env::temp_dir()).output();
        let output = output.context("unshare cannot be started; install the package util-linux")?;
        if output.status.success() {
            let mut again = Command::new("unshare");
            again.args(options).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
            let status = again.env(INSIDE, "1").status()?;
            anyhow::ensure!(status.success(), "the run in the namespace failed; see above");
            return Ok(());
        }
        messages.push(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    anyhow::bail!(
        "cannot mount a file system; run this as root, or allow user namespaces ({})",
        messages.join("; ")
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

    /// A file that can occupy its space; not created yet.
    pub fn ballast(&self) -> Ballast {
        Ballast(self.0.join("ballast"))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazy, since the program may still be ending.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A file that occupies the free space.
#[derive(Clone, Debug)]
pub struct Ballast(PathBuf);

impl Ballast {
    /// Takes up to 1 MiB. Returns whether there was any free space.
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

    /// Grows until it is stopped, at 100 MiB/s: slow enough that a writer does not lose the race for free space merely
    /// because the system did not schedule it for some milliseconds.
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

    /// Its size.
    pub fn bytes(&self) -> anyhow::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    /// Releases the space.
    pub fn remove(&self) -> anyhow::Result<()> {
        std::fs::remove_file(&self.0).context("the ballast")
    }
}

/// A thread that fills the disk continuously.
pub struct Filling {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Filling {
    /// Stops it.
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
    text.lines().nth(1).and_then(|line| line.trim().parse().ok()).context("no number from df")
}
