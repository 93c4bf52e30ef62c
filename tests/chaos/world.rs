//! Everything that the oracle can break: the service, three brokers, the registry, the disk.

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
use crate::registry::{Registered, Registry};
use crate::room::Tmpfs;
use crate::senders::{ACK_DEADLINE, Senders};
use crate::service::{Launch, Service, metric};
use crate::support::clock::Clock;
use crate::verdict::{Deleted, Found};

/// The spool's file system: some minutes of load, and quickly filled.
const DISK: &str = "192m";

/// For anything that must come by itself once nothing is broken any more.
const RECOVERY: Duration = Duration::from_secs(180);

/// The service, which may be killed at any moment.
#[derive(Debug)]
pub struct Program {
    launch: Launch,
    /// The one that runs.
    pub service: Mutex<Service>,
    /// How often it was killed.
    pub kills: AtomicU64,
}

impl Program {
    /// Starts it.
    pub fn start(launch: Launch) -> anyhow::Result<Arc<Self>> {
        let service = Mutex::new(launch.start()?);
        Ok(Arc::new(Self { launch, service, kills: AtomicU64::new(0) }))
    }

    /// kill -9, and a new start at once.
    pub async fn kill(&self) -> anyhow::Result<()> {
        let mut service = self.service.lock().await;
        service.kill();
        self.kills.fetch_add(1, Ordering::Relaxed);
        *service = tokio::task::block_in_place(|| self.launch.start())?;
        Ok(())
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
    /// Its schemas before any fault.
    pub snapshot: Vec<Registered>,
    /// The spool's file system, if it can be filled.
    pub disk: Option<Tmpfs>,
    /// The clients.
    pub senders: Arc<Senders>,
    /// Records of topics that were deleted.
    pub archive: Vec<Found>,
    /// Those topics.
    pub deleted: Vec<Deleted>,
    /// How often each fault was injected.
    pub injected: Injected,
    /// The service's wall clock.
    pub clock: Clock,
}

/// How long topics keep records: a run is shorter, and a clock that is off is further off.
pub const RETENTION: SignedDuration = SignedDuration::from_hours(1);

/// Makes some of the topics, whose records the producer's clock stamps; those that the service makes, Kafka's.
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
        done.map_err(|(topic, code)| anyhow::anyhow!("{topic} could not be created: {code}"))?;
    }
    Ok(())
}

impl World {
    /// Starts all of it below `dir` and waits until it is ready. The spool stands on a small disk.
    pub async fn start(dir: &Path, seed: u64, bug: Option<&'static str>) -> anyhow::Result<Self> {
        let disk = dir.join("disk");
        std::fs::create_dir(&disk)?;
        let disk = Tmpfs::mount(&disk, DISK)?;
        let world = Self::start_on(dir, dir, &dir.join("disk/spool"), seed, bug).await?;
        Ok(Self { disk: Some(disk), ..world })
    }

    /// The same with brokers and spool where the caller likes.
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
        let snapshot = registry.snapshot().await?;
        let senders = Senders::new(seed, Box::new(move || format!("http://{hooks}/hooks")));
        Ok(Self {
            program,
            cluster,
            registry,
            snapshot,
            disk: None,
            senders,
            archive: Vec::new(),
            deleted: Vec::new(),
            injected: Injected::new(),
            clock,
        })
    }
}

/// The file that configures the service: both providers, fixed ports, a spool.
pub fn configuration(
    dir: &Path,
    cluster: &Cluster,
    registry: &Registry,
    spool: &Path,
) -> anyhow::Result<PathBuf> {
    let [hooks, admin] = ports(2)?[..] else { anyhow::bail!("two ports") };
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

/// Waits for a condition that must become true without intervention.
pub async fn wait(what: &str, mut condition: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    while !condition().await {
        anyhow::ensure!(start.elapsed() < RECOVERY, "{what} did not come within {RECOVERY:?}");
        tokio::time::sleep(Duration::from_millis(100)).await; // a poll, bounded
    }
    Ok(())
}

/// Waits until the service takes deliveries of all types for Kafka.
pub async fn ready(admin: SocketAddr) -> anyhow::Result<()> {
    wait("a service that is ready", async || {
        let said = async { reqwest::get(format!("http://{admin}/readyz")).await?.json().await };
        let Ok::<serde_json::Value, _>(said) = said.await else { return false };
        ["kafka", "topics", "schemas"].iter().all(|part| said["parts"][part]["state"] == "ok")
    })
    .await
}

/// The metric of rows on their way.
pub const LIVE_ROWS: &str = "hookstream_spool_rows{state=\"live\"}";

/// Waits until the spool has no live row.
pub async fn drained(admin: SocketAddr) -> anyhow::Result<()> {
    wait("an empty spool", async || metric(admin, LIVE_ROWS).await.is_ok_and(|rows| rows == 0.0)).await
}

/// The keys of the rows that wait for a person.
pub fn parked(config: &Path) -> anyhow::Result<std::collections::BTreeSet<String>> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_hookstream"))
        .args(["spool", "list", "--parked", "--json", "--limit", "1000000", "-c"])
        .arg(config)
        .output()?;
    anyhow::ensure!(output.status.success(), "spool list: {}", String::from_utf8_lossy(&output.stderr));
    let rows = String::from_utf8(output.stdout)?;
    let key = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line)?;
        Ok(row["key"].as_str().context("a key")?.to_owned())
    };
    rows.lines().map(key).collect()
}
