//! Measures how the outage of one topic or broker affects the others. Three topics have one partition and one copy, each on
//! its own broker, so that a broker affects exactly one topic.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::registry::Registry;
use crate::senders::PROVIDER_TIMEOUT;
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
    let load = Load::start(service.hooks)?;
    load.window(TIME).await; // warm-up
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
            let (usual, _) = load.window(TIME).await;
            if fault == "a topic deleted" {
                delete(&admin, AFFECTED).await?;
            } else {
                cluster.brokers[AFFECTED].pause(true)?;
            }
            let (with, affected) = load.window(TIME).await;
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
    anyhow::ensure!(load.all_2xx(), "a delivery was not answered 2xx");
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

/// A steady load on each topic, and the durations of its answers, in tenths of a millisecond.
struct Load {
    took: Arc<[std::sync::Mutex<Histogram<u64>>; 3]>,
    all_ok: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(hooks: SocketAddr) -> anyhow::Result<Self> {
        let none = || Histogram::new(3).map(std::sync::Mutex::new);
        let took = Arc::new([none()?, none()?, none()?]);
        let (all_ok, number) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let client = reqwest::Client::builder().timeout(PROVIDER_TIMEOUT).no_proxy().build()?;
        let url = format!("http://{hooks}/hooks/datagrid");
        let sender = |at: usize| {
            let (client, url, took) = (client.clone(), url.clone(), took.clone());
            let (all_ok, number) = (all_ok.clone(), number.clone());
            tokio::spawn(async move {
                let mut due = tokio::time::interval(Duration::from_secs(1) / RATE);
                loop {
                    due.tick().await;
                    let n = number.fetch_add(1, Ordering::Relaxed);
                    let body = batch(&format!("evt_{n}")).replace(TYPES[0], TYPES[at]);
                    let request = client.post(&url).header("Datagrid-Signature", datagrid(body.as_bytes()));
                    let (took, all_ok) = (took.clone(), all_ok.clone());
                    tokio::spawn(async move {
                        let start = Instant::now();
                        let answer = request.body(body).send().await;
                        if !answer.is_ok_and(|answer| answer.status().is_success()) {
                            all_ok.store(false, Ordering::Relaxed);
                        }
                        let tenths = start.elapsed().as_micros() as u64 / 100;
                        took[at].lock().expect("not poisoned").record(tenths).expect("a resizable histogram");
                    });
                }
            })
        };
        let tasks = (0..TYPES.len()).map(sender).collect();
        Ok(Self { took, all_ok, tasks })
    }

    /// The p99 in milliseconds of the healthy topics, and the p99 and the maximum of the affected one.
    async fn window(&self, time: Duration) -> (f64, (f64, f64)) {
        let take = || {
            let mut healthy = Histogram::<u64>::new(3).expect("3 digits");
            let mut affected = (0.0, 0.0);
            for (at, took) in self.took.iter().enumerate() {
                let mut took = took.lock().expect("not poisoned");
                if at == AFFECTED {
                    affected = (took.value_at_quantile(0.99) as f64 / 10.0, took.max() as f64 / 10.0);
                } else {
                    healthy += &*took;
                }
                took.reset();
            }
            (healthy.value_at_quantile(0.99) as f64 / 10.0, affected)
        };
        take();
        tokio::time::sleep(time).await; // the measured time
        take()
    }

    fn all_2xx(&self) -> bool {
        self.all_ok.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
