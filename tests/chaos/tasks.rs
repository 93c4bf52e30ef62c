//! Makes each background task of a real service panic, and the spool's writer thread: readiness must name it within a
//! second, a restarted task must recover, and no delivery may wait for a writer that has ended. Needs the feature
//! `failpoints`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hookstream::failpoints::{Failpoint, TASK_PANICS};
use hookstream::kafka::embedded::Embedded;
use hookstream::names;
use jiff::Timestamp;
use serde_json::Value;

use crate::provider::{Provider, within};
use crate::service::{Launch, Service, metric};
use crate::support::{PATIENCE, Setup, stack};

/// The time from a panic until readiness names the task, and for the answer to a delivery without a writer.
const PROMPT: Duration = Duration::from_secs(1);

/// A restarted task counts as healthy after a minute.
const RECOVERY: Duration = Duration::from_secs(90);

const TYPE: &str = "batch_prediction.completed";

/// The restarted tasks, those that leave the service degraded, and those that leave it down.
const RESTARTED: [&str; 8] = [
    "task-panics:producer",
    "task-panics:kafka-probe",
    "task-panics:spool-watch",
    "task-panics:drain",
    "task-panics:metrics",
    "task-panics:clock",
    "task-panics:connections",
    "task-panics:config-watch",
];
const DEGRADED: [&str; 5] = [
    "task-panics:reload-signal",
    "task-panics:reload",
    "task-panics:durability",
    "task-panics:lag",
    "task-panics:diagnosis",
];
const DOWN: [&str; 3] = ["task-panics:topics", "task-panics:schemas", "task-panics:http"];
const ADMIN: &str = "task-panics:admin";

/// Fails if a panic is not reported in time, or if a delivery waits.
pub async fn run() -> anyhow::Result<()> {
    anyhow::ensure!(cfg!(feature = "failpoints"), "this build has no failpoints: add --features failpoints");
    let dir = tempfile::Builder::new().prefix("hookstream-tasks-").tempdir()?;
    let result = check(dir.path()).await;
    if result.is_err() {
        println!("logs: {}", dir.keep().display());
    }
    result
}

async fn check(dir: &Path) -> anyhow::Result<()> {
    let mut restarted = Vec::new();
    for bug in RESTARTED {
        let fixture = Fixture::start(dir, bug)?;
        fixture.wait_named("degraded", "panicked and is restarted").await?;
        restarted.push(fixture);
    }
    for bug in DEGRADED {
        Fixture::start(dir, bug)?.wait_named("degraded", "panicked; restart hookstream").await?;
    }
    for bug in DOWN {
        Fixture::start(dir, bug)?.wait_named("down", "panicked; restart hookstream").await?;
    }
    Fixture::start(dir, ADMIN)?.admin_gone().await?;
    writer(dir).await?;
    for fixture in restarted {
        within(fixture.task, RECOVERY, async || Ok(fixture.tasks().await?["state"] == "ok")).await?;
        anyhow::ensure!(
            metric(fixture.service.admin, "hookstream_tasks_failed").await? == 0.0,
            "{}",
            fixture.task
        );
        println!("{:<16} recovered", fixture.task);
    }
    Ok(())
}

/// A service with one bug. Kafka and registry are not needed, so nothing answers at their addresses.
struct Fixture {
    task: &'static str,
    service: Service,
    log: PathBuf,
}

impl Fixture {
    fn start(dir: &Path, bug: &'static str) -> anyhow::Result<Self> {
        let task = bug.strip_prefix(TASK_PANICS).context("not a task's failpoint")?;
        let dir = dir.join(task);
        std::fs::create_dir(&dir)?;
        let setup = Setup {
            kafka: String::from("127.0.0.1:1"),
            registry: String::from("http://127.0.0.1:1"),
            rules: format!("types = [\"{TYPE}\"]"),
            tables: format!("[spool]\ndir = \"{}/spool\"\n[lag]\ngroups = [\"group\"]", dir.display()),
            ..Setup::new("datagrid")
        };
        let (config, log) = (dir.join("hookstream.toml"), dir.join("log"));
        std::fs::write(&config, setup.toml())?;
        let service = Launch { config, log: log.clone(), under: Vec::new(), bug: Some(bug) }.start()?;
        Ok(Self { task, service, log })
    }

    async fn tasks(&self) -> anyhow::Result<Value> {
        part(&self.service, "tasks").await
    }

    /// Waits until readiness names the task, and compares the time with that of the panic in the log.
    async fn wait_named(&self, state: &str, why: &str) -> anyhow::Result<()> {
        let expected = format!("{} {why}", self.task);
        // Tasks that wait for its messages may end with it.
        within(&expected, PATIENCE, async || {
            Ok(self.tasks().await?["why"].as_str().is_some_and(|why| why.contains(&expected)))
        })
        .await?;
        let seen = Timestamp::now();
        let tasks = self.tasks().await?;
        anyhow::ensure!(tasks["state"] == state, "{}: {tasks}", self.task);
        anyhow::ensure!(metric(self.service.admin, "hookstream_tasks_failed").await? >= 1.0, "{}", self.task);
        self.check_log(seen).await
    }

    /// Checks the operator's port itself: its probes fail, and the log says why.
    async fn admin_gone(&self) -> anyhow::Result<()> {
        within("a closed port", PATIENCE, async || {
            Ok(tokio::net::TcpStream::connect(self.service.admin).await.is_err())
        })
        .await?;
        self.check_log(Timestamp::now()).await
    }

    async fn check_log(&self, seen: Timestamp) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        // A separate thread writes the lines.
        within("a line in the log", PROMPT, async || {
            lines = errors(&self.log, "task", self.task)?;
            Ok(!lines.is_empty())
        })
        .await?;
        anyhow::ensure!(lines.len() == 1, "{}: {lines:#?}", self.task);
        let panicked: Timestamp = lines[0]["timestamp"].as_str().context("no time")?.parse()?;
        let late = seen.duration_since(panicked);
        anyhow::ensure!(late < PROMPT.try_into()?, "{}: reported after {late:#}", self.task);
        println!("{:<16} reported after {late:#}", self.task);
        Ok(())
    }
}

async fn part(service: &Service, name: &str) -> anyhow::Result<Value> {
    let text = reqwest::get(format!("http://{}/readyz", service.admin)).await?.text().await?;
    let readiness: Value = serde_json::from_str(&text)?;
    Ok(readiness["parts"][name].clone())
}

/// The ERROR lines whose `field` is `value`.
fn errors(log: &Path, field: &str, value: &str) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(log)?;
    // Without an incomplete last line.
    let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    // Rust's own message about a panic would be plain text.
    let lines = complete.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>();
    let lines = lines.with_context(|| format!("{} is not only JSON", log.display()))?.into_iter();
    Ok(lines.filter(|line| line["level"] == "ERROR" && line[field] == value).collect())
}

/// Makes the writer panic at the first store: that delivery and all later ones are answered 503 immediately.
async fn writer(dir: &Path) -> anyhow::Result<()> {
    let dir = dir.join("writer");
    std::fs::create_dir(&dir)?;
    let kafka = Embedded::start()?;
    let setup = Setup {
        kafka: kafka.bootstrap_servers(),
        registry: stack("REGISTRY"),
        rules: format!("types = [\"{TYPE}\"]"),
        tables: format!("[spool]\ndir = \"{}/spool\"", dir.display()),
        ..Setup::new("datagrid")
    };
    kafka.create_topic(&names::topic(&setup.source, TYPE), 3)?;
    kafka.create_topic(&names::dead_letter_topic(&setup.source), 1)?;
    let (config, log) = (dir.join("hookstream.toml"), dir.join("log"));
    std::fs::write(&config, setup.toml())?;
    let bug = Some(Failpoint::SpoolWriterPanics.name());
    let service = Launch { config, log: log.clone(), under: Vec::new(), bug }.start()?;
    let provider = Provider::new(service.hooks, &setup.source)?;
    let body = |id: &str| crate::support::batch(id);
    within("a 200", PATIENCE, async || Ok(provider.send("evt", body("evt")).await?.status == 200)).await?;
    kafka.broker_down()?;
    within("a report of the Kafka outage", PATIENCE, async || {
        Ok(part(&service, "kafka").await?["state"] == "down")
    })
    .await?;
    let start = Instant::now();
    for n in 0..20 {
        let id = format!("evt_{n}");
        let answer = provider.send(&id, body(&id)).await?;
        anyhow::ensure!(answer.status == 503 && answer.word() == Some("spool_error"), "{answer:?}");
        anyhow::ensure!(answer.took < PROMPT && answer.retry_after.is_some(), "{answer:?}");
    }
    let why = "the spool's writer thread has ended; restart hookstream";
    let reported = within("a report of the spool", PROMPT, async || {
        let spool = part(&service, "spool").await?;
        Ok(spool["state"] == "down" && spool["why"] == why)
    });
    reported.await?;
    anyhow::ensure!(metric(service.admin, "hookstream_spool_up").await? == 0.0, "hookstream_spool_up");
    anyhow::ensure!(errors(&log, "thread", "writer")?.len() == 1, "no line in {}", log.display());
    println!("{:<16} 20 deliveries refused and reported within {:?}", "spool-writer", start.elapsed());
    // Without the spool, the service works as long as Kafka does.
    kafka.broker_up()?;
    within("200 again", PATIENCE, async || Ok(provider.send("evt_z", body("evt_z")).await?.status == 200))
        .await?;
    Ok(())
}
