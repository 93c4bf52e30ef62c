//! Everything that the oracle can break: the service, three brokers, the registry and the disk.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::SignedDuration;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use tokio::sync::Mutex;

use crate::cluster::{Cluster, ports};
use crate::deliveries;
use crate::faults::Injected;
use crate::registry::Registry;
use crate::room::Tmpfs;
use crate::senders::{ACK_DEADLINE, Senders};
use crate::service::{Launch, Service};
use crate::support::clock::Clock;
use crate::verdict::{Deleted, Found};

/// The size of the spool's file system: enough for minutes of load, and quickly filled.
const DISK: &str = "192m";

/// The timeout for every recovery once the faults are over.
const RECOVERY: Duration = Duration::from_secs(180);

/// The service, which may be killed at any moment.
#[derive(Debug)]
pub struct Program {
    launch: Launch,
    /// The running process.
    pub service: Mutex<Service>,
    /// How often it was killed.
    pub kills: AtomicU64,
}

impl Program {
    /// Starts the service.
    pub fn start(launch: Launch) -> anyhow::Result<Arc<Self>> {
        let service = Mutex::new(launch.start()?);
        Ok(Arc::new(Self { launch, service, kills: AtomicU64::new(0) }))
    }

    /// kill -9, followed by a restart.
    pub async fn kill(&self) -> anyhow::Result<()> {
        let mut service = self.service.lock().await;
        service.kill();
        self.kills.fetch_add(1, Ordering::Relaxed);
        *service = tokio::task::block_in_place(|| self.launch.start())?;
        Ok(())
    }

    /// The keys of the spool's rows for this topic.
    pub fn keys_of_rows(&self, topic: &str) -> anyhow::Result<BTreeSet<String>> {
        tokio::task::block_in_place(|| keys_of_rows(&self.launch.config, &["--topic", topic]))
    }
}

/// All parts, and the faults injected into them.
pub struct World {
    /// The service.
    pub program: Arc<Program>,
    /// Kafka.
    pub cluster: Cluster,
    /// The registry.
    pub registry: Registry,
    /// The registry's export before any fault.
    pub schemas: Vec<u8>,
    /// The spool's file system, if it can be filled.
    pub disk: Option<Tmpfs>,
    /// The clients.
    pub senders: Arc<Senders>,
    /// Records of topics that were deleted.
    pub archive: Vec<Found>,
    /// The deleted topics.
    pub deleted: Vec<Deleted>,
    /// How often each fault was injected.
    pub injected: Injected,
    /// The service's wall clock.
    pub clock: Clock,
}

/// The retention of the topics: longer than a run, and shorter than the offsets of wrong clocks.
pub const RETENTION: SignedDuration = SignedDuration::from_hours(1);

/// Creates half of the topics with the producer's timestamps; the service creates the others with Kafka's.
async fn topics_by_create_time(bootstrap: &str) -> anyhow::Result<()> {
    let retention = RETENTION.as_millis().to_string();
    let topics = deliveries::topics();
    let new: Vec<_> = topics
        .iter()
        .step_by(2)
        .map(|topic| {
            NewTopic::new(topic, 6, TopicReplication::Fixed(3))
                .set("min.insync.replicas", "2")
                .set("message.timestamp.type", "CreateTime")
                .set("cleanup.policy", "compact,delete")
                .set("retention.ms", &retention)
        })
        .collect();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
    let options = AdminOptions::new().operation_timeout(Some(RECOVERY)).request_timeout(Some(RECOVERY));
    for done in admin.create_topics(&new, &options).await? {
        done.map_err(|(topic, code)| anyhow::anyhow!("{topic} cannot be created: {code}"))?;
    }
    Ok(())
}

impl World {
    /// Starts everything below `dir` and waits until it is ready. The spool is on a small file system.
    pub async fn start(dir: &Path, seed: u64, bug: Option<&'static str>) -> anyhow::Result<Self> {
        let disk = dir.join("disk");
        std::fs::create_dir(&disk)?;
        let disk = Tmpfs::mount(&disk, DISK)?;
        let world = Self::start_on(dir, dir, &dir.join("disk/spool"), seed, bug).await?;
        Ok(Self { disk: Some(disk), ..world })
    }

    /// Like [`Self::start`], with brokers and spool in these directories.
    pub async fn start_on(
        dir: &Path,
        brokers: &Path,
        spool: &Path,
        seed: u64,
        bug: Option<&'static str>,
    ) -> anyhow::Result<Self> {
        let (cluster, registry) = tokio::try_join!(Cluster::start(brokers), Registry::start(dir))?;
        let config = configuration(dir, &cluster, &registry, spool)?;
        topics_by_create_time(&cluster.direct()).await?;
        let clock = Clock::off(SignedDuration::ZERO);
        let launch = Launch { config, log: dir.join("hookstream.log"), under: clock.command(), bug };
        let program = Program::start(launch)?;
        let (hooks, admin) = {
            let service = program.service.lock().await;
            (service.hooks, service.admin)
        };
        ready(admin).await?;
        let schemas = registry.export().await?;
        let senders = Senders::new(seed, Box::new(move || format!("http://{hooks}/hooks")))?;
        Ok(Self {
            program,
            cluster,
            registry,
            schemas,
            disk: None,
            senders,
            archive: Vec::new(),
            deleted: Vec::new(),
            injected: Injected::new(),
            clock,
        })
    }
}

/// Writes the service's configuration: both providers, fixed ports, a spool.
pub fn configuration(
    dir: &Path,
    cluster: &Cluster,
    registry: &Registry,
    spool: &Path,
) -> anyhow::Result<PathBuf> {
    let [hooks, admin] = ports(2)?[..] else { anyhow::bail!("no two ports") };
    let (kafka, url, spool) = (cluster.bootstrap(), registry.url(), spool.display());
    let sources = deliveries::SOURCES.map(|source| {
        format!(
            "[source.{source}]\npreset = \"{source}\"\nack_deadline = \"{}ms\"\nsecrets = [{{ env = \"TEST_SECRET\" }}]\n",
            ACK_DEADLINE.as_millis()
        )
    });
    let text = format!(
        "[http]\nlisten = \"127.0.0.1:{hooks}\"\ndrain_delay = \"0s\"\n\
         [admin]\nlisten = \"127.0.0.1:{admin}\"\n\
         [kafka]\nbootstrap_servers = \"{kafka}\"\n[kafka.topics]\nretention = \"{}s\"\n\
         [registry]\nurl = \"{url}\"\n\
         [spool]\ndir = \"{spool}\"\nmin_free = \"4 MiB\"\n{}",
        RETENTION.as_secs(),
        sources.concat()
    );
    let path = dir.join("hookstream.toml");
    std::fs::write(&path, text)?;
    Ok(path)
}

/// Waits until `condition` is true, which must happen without intervention. A look that gets no answer is bounded as well.
pub async fn wait(what: &str, mut condition: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let polling = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(100)).await; // polls with a bound
        }
    };
    let waited = tokio::time::timeout(RECOVERY, polling).await;
    waited.with_context(|| format!("timed out after {RECOVERY:?} waiting for {what}"))
}

/// Waits until the service publishes deliveries of all types.
pub async fn ready(admin: SocketAddr) -> anyhow::Result<()> {
    wait("a ready service", async || {
        let readiness = async { reqwest::get(format!("http://{admin}/readyz")).await?.json().await };
        let Ok::<serde_json::Value, _>(readiness) = readiness.await else { return false };
        ["kafka", "topics", "schemas"].iter().all(|part| readiness["parts"][part]["state"] == "ok")
    })
    .await
}

/// The metric of rows that wait for the drain.
pub const LIVE_ROWS: &str = "hookstream_spool_rows{state=\"live\"}";

/// Waits until the spool has no live row. Returns the time just before the last poll: rows of deliveries that were accepted
/// before that have left the spool. Reads `/status`, since the metric is up to half a second old.
pub async fn drained(admin: SocketAddr) -> anyhow::Result<Instant> {
    let mut looked_at = Instant::now();
    let live_rows = async || -> anyhow::Result<Option<u64>> {
        let status: serde_json::Value = reqwest::get(format!("http://{admin}/status")).await?.json().await?;
        Ok(status["spool"]["live"].as_u64())
    };
    wait("an empty spool", async || {
        looked_at = Instant::now();
        live_rows().await.is_ok_and(|rows| rows == Some(0))
    })
    .await?;
    Ok(looked_at)
}

/// The keys of the parked rows.
pub fn parked(config: &Path) -> anyhow::Result<BTreeSet<String>> {
    keys_of_rows(config, &["--parked"])
}

/// The keys of the spool's rows that these arguments of `spool list` select.
fn keys_of_rows(config: &Path, selected: &[&str]) -> anyhow::Result<BTreeSet<String>> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_hookstream"))
        .args(["spool", "list", "--json", "--limit", "1000000", "-c"])
        .arg(config)
        .args(selected)
        .output()?;
    anyhow::ensure!(output.status.success(), "spool list: {}", String::from_utf8_lossy(&output.stderr));
    let rows = String::from_utf8(output.stdout)?;
    let key = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line)?;
        Ok(row["key"].as_str().context("a key")?.to_owned())
    };
    rows.lines().map(key).collect()
}
