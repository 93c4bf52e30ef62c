//! A rolling upgrade: two replicas behind a load balancer, replaced one after the other under load.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context as _;

use crate::cluster::Cluster;
use crate::deliveries;
use crate::registry::Registry;
use crate::senders::{Ledger, Senders};
use crate::service::{Launch, Service};
use crate::verdict::{self, Judge, Verdict};
use crate::world::{configuration, drained, ready, wait};

/// New deliveries per second.
const RATE: u32 = 200;

/// How often each of the two is replaced.
const ROUNDS: usize = 2;

/// The interval between the balancer's probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// How long a replica keeps serving after SIGTERM: twenty probe intervals, so that the balancer stops sending to it.
const DRAIN_DELAY: &str = "1s";

/// A replica, and its readiness as the balancer knows it.
struct Replica {
    launch: Launch,
    /// `None` during the replacement.
    service: Option<Service>,
    ready: bool,
}

/// Sends to replicas that were ready at the last probe, as load balancers and Kubernetes' services do.
struct Balancer {
    replicas: Mutex<Vec<Replica>>,
    turn: AtomicUsize,
    client: reqwest::Client,
}

impl Balancer {
    fn replicas(&self) -> MutexGuard<'_, Vec<Replica>> {
        self.replicas.lock().expect("not poisoned")
    }

    /// The next replica in turn.
    fn choose(&self) -> String {
        let (replicas, turn) = (self.replicas(), self.turn.fetch_add(1, Ordering::Relaxed));
        let ready: Vec<_> = replicas.iter().filter(|replica| replica.ready).collect();
        // If none is ready, one that may have ended; the sender then sees a broken connection.
        let chosen = ready.get(turn % ready.len().max(1)).copied().unwrap_or(&replicas[0]);
        chosen.service.as_ref().map_or(String::new(), |one| format!("http://{}/hooks", one.hooks))
    }

    /// Requests each replica's /readyz forever.
    async fn probe(&self) {
        let mut due = tokio::time::interval(PROBE_INTERVAL);
        loop {
            due.tick().await;
            let admins: Vec<_> =
                self.replicas().iter().map(|replica| replica.service.as_ref().map(|one| one.admin)).collect();
            for (n, admin) in admins.into_iter().enumerate() {
                let Some(admin) = admin else { continue };
                let answer = self.client.get(format!("http://{admin}/readyz")).send().await;
                self.replicas()[n].ready = answer.is_ok_and(|answer| answer.status() == 200);
            }
        }
    }

    async fn both_ready(&self) -> anyhow::Result<()> {
        wait("two ready replicas", async || self.replicas().iter().all(|replica| replica.ready)).await
    }

    /// Stops the replica with SIGTERM and starts a new one.
    async fn replace(&self, n: usize) -> anyhow::Result<()> {
        let pid = self.replicas()[n].service.as_ref().context("no running replica")?.pid();
        crate::service::signal(pid, "TERM")?;
        // It keeps serving and being probed until it ends.
        let stopped = wait("the end of the old replica", async || {
            self.replicas()[n].service.as_mut().is_none_or(|one| one.ended().is_some())
        });
        stopped.await?;
        let (old, launch) = {
            let replica = &mut self.replicas()[n];
            replica.ready = false;
            (replica.service.take(), replica.launch.clone())
        };
        let ended = old.and_then(|mut one| one.ended()).context("no exit status")?;
        anyhow::ensure!(ended.success(), "a replica ended with {ended}");
        let new = tokio::task::spawn_blocking(move || launch.start()).await??;
        self.replicas()[n].service = Some(new);
        self.both_ready().await
    }
}

/// Runs the mode, prints the table, and fails if a delivery had no answer or the delivery guarantee was violated.
pub async fn run(seed: u64) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("hookstream-rolling-").tempdir()?;
    println!("rolling upgrade of two replicas, {ROUNDS} times, at {RATE}/s, seed {seed}");
    let result = within(seed, dir.path()).await;
    if result.is_err() {
        println!("logs: {}", dir.keep().display());
    }
    result
}

async fn within(seed: u64, dir: &Path) -> anyhow::Result<()> {
    let (cluster, registry) = tokio::try_join!(Cluster::start(dir), Registry::start(dir))?;
    let replicas = ["one", "two"].map(|name| replica(&dir.join(name), &cluster, &registry));
    let balancer = Arc::new(Balancer {
        replicas: Mutex::new(replicas.into_iter().collect::<Result<_, _>>()?),
        turn: AtomicUsize::new(0),
        client: reqwest::Client::builder().timeout(Duration::from_secs(1)).no_proxy().build()?,
    });
    let admins: Vec<_> =
        balancer.replicas().iter().flat_map(|replica| &replica.service).map(|s| s.admin).collect();
    for admin in &admins {
        ready(*admin).await?;
    }
    let probing = tokio::spawn({
        let balancer = balancer.clone();
        async move { balancer.probe().await }
    });
    balancer.both_ready().await?;

    let senders = Senders::new(seed, {
        let balancer = balancer.clone();
        Box::new(move || balancer.choose())
    })?;
    let load = tokio::spawn(senders.clone().run(RATE));
    for n in (0..ROUNDS).flat_map(|_| 0..2) {
        balancer.replace(n).await?;
    }
    senders.stop();
    load.await??;
    probing.abort();
    for admin in admins {
        drained(admin).await?;
    }

    let mut found = Vec::new();
    for topic in
        deliveries::topics().into_iter().chain(deliveries::SOURCES.map(|s| format!("dead_letter.{s}")))
    {
        found.extend(verdict::read(&cluster.direct(), &topic).await?);
    }
    let judge = Judge { seed, sent: senders.started(), deleted: &[], parked: &Default::default() };
    let ledger = senders.ledger().clone();
    let verdict = judge.count(&ledger, &found, &registry).await?;
    print(&ledger, &verdict);
    verdict_of(&ledger, &verdict)
}

/// A replica with its own directory, ports and spool.
fn replica(dir: &Path, cluster: &Cluster, registry: &Registry) -> anyhow::Result<Replica> {
    std::fs::create_dir(dir)?;
    let config = configuration(dir, cluster, registry, &dir.join("spool"))?;
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(
        &config,
        text.replace("drain_delay = \"0s\"", &format!("drain_delay = \"{DRAIN_DELAY}\"")),
    )?;
    let launch = Launch { config, log: dir.join("hookstream.log"), under: Vec::new(), bug: None };
    Ok(Replica { service: Some(launch.start()?), launch, ready: false })
}

fn print(ledger: &Ledger, verdict: &Verdict) {
    let row = |name: &str, value: u64| println!("  {name:<34} {value}");
    println!("  {:<34} {} deliveries, {} requests", "sent", ledger.sent, ledger.tally.sent());
    ledger.tally.kinds.iter().for_each(|(kind, count)| row(&format!("  {kind}"), *count));
    row("abandoned by their sender", ledger.abandoned);
    row("records read", verdict.records);
    row("duplicates", verdict.duplicates);
    row("lost", verdict.lost.len() as u64);
    row("forged", verdict.forged.len() as u64);
    row("wrong", (verdict.wrong.len() + ledger.wrong.len()) as u64);
    for line in verdict.lost.iter().chain(&verdict.forged).chain(&verdict.wrong).chain(&ledger.wrong).take(20)
    {
        println!("  ! {line}");
    }
}

fn verdict_of(ledger: &Ledger, verdict: &Verdict) -> anyhow::Result<()> {
    anyhow::ensure!(!ledger.accepted.is_empty() && verdict.records > 0, "no delivery was accepted");
    let unanswered = ledger.tally.count(|kind| kind.status.is_none());
    anyhow::ensure!(unanswered + ledger.abandoned == 0, "a delivery had no answer");
    anyhow::ensure!(
        verdict.lost.is_empty() && verdict.forged.is_empty(),
        "the delivery guarantee is violated"
    );
    anyhow::ensure!(verdict.wrong.is_empty() && ledger.wrong.is_empty(), "an answer or a record is wrong");
    Ok(())
}
