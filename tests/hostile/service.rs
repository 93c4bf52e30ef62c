//! The service as a separate process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::process::{Log, Process, serve_with_log, serve_with_open_files};
use crate::support::{PATIENCE, Setup, until};

pub struct Service {
    process: Process,
    pub hooks: SocketAddr,
    pub admin: SocketAddr,
    log: Log,
    client: reqwest::Client,
    _directory: TempDir,
}

impl Service {
    /// Starts the service and waits until it is ready.
    pub async fn ready(setup: &Setup) -> Self {
        Self::ready_with(setup, None).await
    }

    /// Like [`Self::ready`], with a limit of open files.
    pub async fn ready_with(setup: &Setup, files: Option<u64>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("hookstream.toml");
        std::fs::write(&config, setup.toml()).unwrap();
        let (process, hooks, admin, log) = match files {
            None => serve_with_log(&config),
            Some(files) => serve_with_open_files(files, &config),
        };
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap();
        let (hooks, admin) = (hooks.parse().unwrap(), admin.parse().unwrap());
        let service = Self { process, hooks, admin, log, client, _directory: directory };
        until("readiness", async || {
            let answer = service.client.get(format!("http://{}/readyz", service.admin)).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        service
    }

    fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.process.0.id().to_string()).join(name)
    }

    /// The number of open files: its accepted connections and a few others. With thousands of them, the call takes
    /// milliseconds in the kernel.
    pub fn files(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// Resident memory in KiB.
    pub fn memory(&self) -> usize {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The number of its log lines that contain this text.
    pub fn logged(&self, text: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.to_string().contains(text)).count()
    }

    /// How long its current threads have run, and how long they have waited for a processor.
    pub fn scheduled(&self) -> (Duration, Duration) {
        let read = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("schedstat")).ok();
        let tasks = std::fs::read_dir(self.proc("task")).unwrap();
        let stats: Vec<String> = tasks.filter_map(|task| read(task.unwrap())).collect();
        let sum = |field| {
            let numbers = stats.iter().map(|text| text.split_whitespace().nth(field).unwrap());
            Duration::from_nanos(numbers.map(|number| number.parse::<u64>().unwrap()).sum())
        };
        (sum(0), sum(1))
    }

    pub async fn metrics(&self) -> Metrics {
        let answer = self.client.get(format!("http://{}/metrics", self.admin)).send().await.unwrap();
        Metrics(answer.text().await.unwrap())
    }
}

/// The metrics of one scrape.
pub struct Metrics(String);

impl Metrics {
    /// A source's deliveries with this outcome and reason.
    pub fn deliveries(&self, source: &str, outcome: &str, reason: &str) -> usize {
        self.sum("hookstream_deliveries_total{", &[source, outcome, reason])
    }

    /// A source's deliveries with this outcome, whatever the reason.
    pub fn of_source(&self, source: &str, outcome: &str) -> usize {
        self.sum("hookstream_deliveries_total{", &[source, outcome])
    }

    /// A metric without labels.
    pub fn plain(&self, name: &str) -> usize {
        self.sum(&format!("{name} "), &[])
    }

    /// The sum of all samples whose name and labels begin with `start`.
    pub fn starting(&self, start: &str) -> usize {
        self.sum(start, &[])
    }

    fn sum(&self, start: &str, values: &[&str]) -> usize {
        let is_selected = |line: &&str| {
            line.starts_with(start) && values.iter().all(|value| line.contains(&format!("=\"{value}\"")))
        };
        let value = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap();
        self.0.lines().filter(is_selected).map(value).sum()
    }
}
