//! Measures how the outage of one topic or broker affects the others. Three topics have one partition and one copy, each on
//! its own broker, so that a broker affects exactly one topic.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use hookstream::load::{self, LoadPlan, Tally};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::registry::Registry;
use crate::senders::{MAX_CONCURRENT, PROVIDER_TIMEOUT};
use crate::service::Launch;
use crate::support::{batch, datagrid};
use crate::world::{configuration, drained, ready};

/// Event types by the broker that has their topic.
const TYPES: [&str; 3] =
    ["batch_prediction.completed", "batch_prediction.failed", "batch_prediction.expired"];

/// The length of each half of a round: one without and one with the fault.
const TIME: Duration = Duration::from_secs(12);

/// Deliveries per second to each topic.
const RATE: u32 = 60;

/// The index in [`TYPES`] of the topic with the fault.
const AFFECTED: usize = 2;

/// Runs the rounds, prints the table, and fails if the fault doubles the p99 of the other topics.
pub async fn run(rounds: usize) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("hookstream-neighbours-").tempdir()?;
    let (cluster, registry) = tokio::try_join!(Cluster::start(dir.path()), Registry::start(dir.path()))?;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", cluster.direct()).create()?;
    for broker in 0..TYPES.len() {
        create(&admin, broker).await?;
    }
    let config = configuration(dir.path(), &cluster, &registry, &dir.path().join("spool"))?;
    let launch = Launch { config, log: dir.path().join("hookstream.log"), under: Vec::new(), bug: None };
    let service = launch.start()?;
    ready(service.admin).await?;
    let mut load = Load::start(service.hooks)?;
    load.window(TIME).await?; // warm-up
    println!(
        "{rounds} rounds of {TIME:?} each, {RATE}/s to each topic; p99 in ms of the two healthy topics\n"
    );
    println!(
        "{:<32} {:>8} {:>8} {:>8} {:>20}",
        "fault", "without", "with", "ratio", "with the fault: p99 max"
    );
    let mut worst: f64 = 0.0;
    for fault in ["a broker of three stopped", "a topic deleted"] {
        let mut ratios = Vec::new();
        for _ in 0..rounds {
            let (usual, _) = load.window(TIME).await?;
            if fault == "a topic deleted" {
                delete(&admin, AFFECTED).await?;
            } else {
                cluster.brokers[AFFECTED].pause(true)?;
            }
            let (with, affected) = load.window(TIME).await?;
            if fault == "a topic deleted" {
                create(&admin, AFFECTED).await?;
            } else {
                cluster.brokers[AFFECTED].pause(false)?;
            }
            drained(service.admin).await?;
            let ratio = with / usual;
            println!(
                "{fault:<32} {usual:>8.1} {with:>8.1} {ratio:>8.2} {:>14.1} {:>5.0}",
                affected.0, affected.1
            );
            ratios.push(ratio);
        }
        ratios.sort_by(f64::total_cmp);
        println!("{fault:<32} median ratio {:.2}\n", ratios[rounds / 2]);
        worst = worst.max(ratios[rounds / 2]);
    }
    load.take()?; // what came since the last window
    anyhow::ensure!(load.failed == 0, "a delivery was not answered 2xx");
    anyhow::ensure!(worst < 2.0, "the fault changes the p99 of healthy topics by the factor {worst:.2}");
    Ok(())
}

fn topic(broker: usize) -> String {
    format!("datagrid.{}", TYPES[broker])
}

fn options() -> AdminOptions {
    let bound = Some(Duration::from_secs(30));
    AdminOptions::new().operation_timeout(bound).request_timeout(bound)
}

async fn create(admin: &AdminClient<DefaultClientContext>, broker: usize) -> anyhow::Result<()> {
    let (name, id) = (topic(broker), [i32::try_from(broker)? + 1]);
    let placed: [&[i32]; 1] = [&id];
    let new = NewTopic::new(&name, 1, TopicReplication::Variable(&placed));
    let done = admin.create_topics(&[new], &options()).await?;
    anyhow::ensure!(done == [Ok(name)], "{done:?}");
    Ok(())
}

async fn delete(admin: &AdminClient<DefaultClientContext>, broker: usize) -> anyhow::Result<()> {
    let name = topic(broker);
    let done = admin.delete_topics(&[&name], &options()).await?;
    anyhow::ensure!(done == [Ok(name)], "{done:?}");
    Ok(())
}

/// A steady load on each topic, and the answers of the window: of the healthy topics, and of the affected one.
struct Load {
    tallies: Arc<Mutex<[Tally; 2]>>,
    /// Deliveries of all windows that were not answered 2xx.
    failed: u64,
    task: JoinHandle<()>,
}

impl Load {
    fn start(hooks: SocketAddr) -> anyhow::Result<Self> {
        let tallies = Arc::new(Mutex::new([Tally::new()?, Tally::new()?]));
        let client = reqwest::Client::builder().timeout(PROVIDER_TIMEOUT).no_proxy().build()?;
        let url = format!("http://{hooks}/hooks/datagrid");
        let rate = RATE * TYPES.len() as u32;
        let plan = LoadPlan { count: u64::MAX, concurrency: MAX_CONCURRENT, rate: Some(rate.into()) };
        let load = load::run(plan, CancellationToken::new(), move |n, due| {
            let at = n as usize % TYPES.len();
            let body = batch(&format!("evt_{n}")).replace(TYPES[0], TYPES[at]);
            let request =
                client.post(&url).header("Datagrid-Signature", datagrid(body.as_bytes())).body(body);
            async move { (at, load::post(request, due).await) }
        });
        let adding = tallies.clone();
        let task = tokio::spawn(async move {
            let mut load = pin!(load);
            while let Some(ended) = load.next().await {
                let (at, result) = ended.expect("no delivery panics");
                lock(&adding)[usize::from(at == AFFECTED)].add(&result);
            }
        });
        Ok(Self { tallies, failed: 0, task })
    }

    /// The p99 in milliseconds of the healthy topics, and the p99 and the maximum of the affected one.
    async fn window(&mut self, time: Duration) -> anyhow::Result<(f64, (f64, f64))> {
        self.take()?;
        tokio::time::sleep(time).await; // the measured time
        let [healthy, affected] = self.take()?;
        let ms = |tally: &Tally, quantile| tally.latency(quantile).context("no answers");
        Ok((ms(&healthy, 0.99)?, (ms(&affected, 0.99)?, ms(&affected, 1.0)?)))
    }

    fn take(&mut self) -> anyhow::Result<[Tally; 2]> {
        let taken = std::mem::replace(&mut *lock(&self.tallies), [Tally::new()?, Tally::new()?]);
        self.failed += taken.iter().map(Tally::failed).sum::<u64>();
        Ok(taken)
    }
}

fn lock(tallies: &Mutex<[Tally; 2]>) -> MutexGuard<'_, [Tally; 2]> {
    tallies.lock().expect("not poisoned")
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}
