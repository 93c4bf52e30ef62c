//! The real program as a process that can be killed. Its log is a file, and its ports stay the same after a restart.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::support::SECRET;

/// The timeout for the program to listen, while brokers may be starting on the same machine.
const START: Duration = Duration::from_secs(60);

/// How to start `hookstream serve`, also again.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The configuration file.
    pub config: PathBuf,
    /// The file to which its standard error is appended.
    pub log: PathBuf,
    /// A command to run it under, such as strace with its options; empty for none.
    pub under: Vec<String>,
    /// The deliberate bug to activate; needs the feature `failpoints`.
    pub bug: Option<&'static str>,
}

impl Launch {
    /// Starts the program and waits until it listens.
    pub fn start(&self) -> anyhow::Result<Service> {
        let log = File::options().create(true).append(true).open(&self.log).context("the log file")?;
        let from = log.metadata()?.len();
        let program = env!("CARGO_BIN_EXE_hookstream");
        let mut words = self.under.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().unwrap_or(program));
        command.args(words).args(["serve", "-c"]).arg(&self.config);
        command.env("TEST_SECRET", SECRET).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if let Some(bug) = self.bug {
            command.env("HOOKSTREAM_FAILPOINT", bug);
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        match listening(&mut child, &self.log, from) {
            Ok((hooks, admin)) => Ok(Service { child, hooks, admin }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }
}

/// The addresses it listens on, from its log.
fn listening(child: &mut Child, log: &Path, from: u64) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let start = Instant::now();
    loop {
        let text = std::fs::read(log)?.split_off(from as usize);
        for line in String::from_utf8_lossy(&text).lines().filter(|line| line.contains("\"listening\"")) {
            let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let address = |key: &str| line[key].as_str().and_then(|text| text.parse().ok());
            if let (Some(hooks), Some(admin)) = (address("hooks"), address("admin")) {
                return Ok((hooks, admin));
            }
        }
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("hookstream ended with {status}: see {}", log.display());
        }
        anyhow::ensure!(start.elapsed() < START, "hookstream does not listen: see {}", log.display());
        std::thread::sleep(Duration::from_millis(5)); // polls with a bound
    }
}

/// The running program; killed when dropped.
#[derive(Debug)]
pub struct Service {
    child: Child,
    /// The port for providers.
    pub hooks: SocketAddr,
    /// The operator's port.
    pub admin: SocketAddr,
}

impl Service {
    /// Its process id, or that of the command that it runs under.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends SIGTERM. Returns its exit status.
    pub fn stop(mut self) -> anyhow::Result<std::process::ExitStatus> {
        signal(self.child.id(), "TERM")?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal with the command `kill`.
pub fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status()?;
    anyhow::ensure!(status.success(), "kill -{name} {pid}: {status}");
    Ok(())
}

/// The number in a metric's line, such as `hookstream_spool_rows{state="live"}`.
pub async fn metric(admin: SocketAddr, name: &str) -> anyhow::Result<f64> {
    let text = reqwest::get(format!("http://{admin}/metrics")).await?.text().await?;
    crate::support::metric(&text, name).with_context(|| format!("no metric {name}"))
}
