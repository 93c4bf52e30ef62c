//! A contender as a process, and the kernel's account of processor time and memory.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::deliveries;
use crate::load::{Connection, PATIENCE};

/// The timeout of a start, on a machine that may be busy or suspended for a while.
const START: Duration = Duration::from_secs(300);

/// /proc has processor time in hundredths of a second (USER_HZ).
const TICK_US: u64 = 10_000;

/// The processor time of a process so far in microseconds, user and system.
pub fn cpu_us(pid: u32) -> anyhow::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} has ended"))?;
    // The program's name is in parentheses, and may contain parentheses.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks =
        |n: usize| fields.get(n).and_then(|field| field.parse::<u64>().ok()).context("/proc/PID/stat");
    Ok((ticks(11)? + ticks(12)?) * TICK_US)
}

/// The resident memory now and its peak, in KiB.
pub fn memory_kib(pid: u32) -> anyhow::Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("/proc/PID/status")?;
        Ok::<u64, anyhow::Error>(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
    };
    Ok((field("VmRSS")?, field("VmHWM")?))
}

/// An address with a free port, never the same twice, below the range of the system's outgoing connections.
pub fn address() -> anyhow::Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + (std::process::id() % 4_000) as u16;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        anyhow::ensure!(port < 20_000, "no free port");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if std::net::TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
}

/// A running contender; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    command: String,
}

impl Process {
    /// Starts it in a directory. What it writes is thrown away: hookstream's log is made, line by line,
    /// and costs no disk.
    pub fn start(program: &Path, args: &[String], secrets: usize, dir: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.envs((0..secrets).map(|n| (secret_variable(n), deliveries::secret(n))));
        command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self {
            child,
            command: format!("cd {} && {} {}", dir.display(), program.display(), args.join(" ")),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if the process has ended.
    pub fn runs(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        anyhow::bail!("the contender ended with {status}; to see its output, run: {}", self.command)
    }

    /// Waits until it listens.
    pub fn listens(&mut self, at: SocketAddr) -> anyhow::Result<()> {
        self.wait("the contender does not listen", || TcpStream::connect(at).is_ok())
    }

    /// Waits until hookstream is ready.
    pub fn ready(&mut self, admin: SocketAddr) -> anyhow::Result<()> {
        let ready = || page(admin, "/readyz").is_ok_and(|page| page.starts_with("HTTP/1.1 200"));
        self.wait("it does not become ready", ready)
    }

    /// Polls `condition` every 2 ms until it is true.
    pub fn wait(&mut self, what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
        let start = Instant::now();
        while !condition() {
            self.runs()?;
            anyhow::ensure!(start.elapsed() < START, "{what}: {}", self.command);
            std::thread::sleep(Duration::from_millis(2)); // polls with a bound
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The environment variable of the `n`th secret.
pub fn secret_variable(n: usize) -> String {
    format!("BENCH_SECRET_{n}")
}

/// What a request is answered with at once; `None` where nobody answers.
pub fn ask(at: SocketAddr, request: &[u8]) -> Option<u16> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let exchange = async { Connection::open(at).await.ok()?.exchange(request).await.ok() };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await.ok()? })
}

/// The answer to a request at the operator's port.
pub fn page(at: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(at)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The hookstream program that was built together with this one.
pub fn hookstream() -> PathBuf {
    env!("CARGO_BIN_EXE_hookstream").into()
}
