//! A rolling upgrade: two replicas behind a load balancer, replaced one after the other under load.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context as _;

use crate::cluster::Cluster;
use crate::deliveries;
use crate::registry::Registry;
use crate::senders::{Book, Senders};
use crate::service::{Launch, Service};
use crate::verdict::{self, Judge, Verdict};
use crate::world::{configuration, drained, ready, wait};

/// New deliveries per second.
const RATE: u32 = 200;

/// How often each of the two is replaced.
const ROUNDS: usize = 2;

/// Between the balancer's looks at its replicas.
const LOOK: Duration = Duration::from_millis(50);

/// How long a replica serves on once it is told to end: twenty looks, so that nobody is sent to it any more.
const DRAIN_DELAY: &str = "1s";

/// A place behind the balancer, and what it knows of who stands there.
struct Place {
    launch: Launch,
    /// None between two.
    service: Option<Service>,
    ready: bool,
}

/// Sends to those that were ready at its last look, as load balancers and Kubernetes' services do.
struct Balancer {
    places: Mutex<Vec<Place>>,
    turn: AtomicUsize,
    client: reqwest::Client,
}

impl Balancer {
    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().expect("nothing panics with it")
    }

    /// The next replica in turn.
    fn choose(&self) -> String {
        let (places, turn) = (self.places(), self.turn.fetch_add(1, Ordering::Relaxed));
        let ready: Vec<_> = places.iter().filter(|place| place.ready).collect();
        // With none that is ready, one that may be gone: the sender sees a broken connection.
        let chosen = ready.get(turn % ready.len().max(1)).copied().unwrap_or(&places[0]);
        chosen.service.as_ref().map_or(String::new(), |one| format!("http://{}/hooks", one.hooks))
    }

    /// Asks each replica's /readyz, for as long as it is polled.
    async fn look(&self) {
        let mut due = tokio::time::interval(LOOK);
        loop {
            due.tick().await;
            let admins: Vec<_> =
                self.places().iter().map(|place| place.service.as_ref().map(|one| one.admin)).collect();
            for (n, admin) in admins.into_iter().enumerate() {
                let Some(admin) = admin else { continue };
                let answer = self.client.get(format!("http://{admin}/readyz")).send().await;
                self.places()[n].ready = answer.is_ok_and(|answer| answer.status() == 200);
            }
        }
    }

    async fn both_ready(&self) -> anyhow::Result<()> {
        wait("two replicas that are ready", async || self.places().iter().all(|place| place.ready)).await
    }

    /// The one that stands there ends as it is told to; a new one takes its place.
    async fn replace(&self, n: usize) -> anyhow::Result<()> {
        let pid = self.places()[n].service.as_ref().context("one that runs")?.pid();
        crate::service::signal(pid, "TERM")?;
        // It serves on, and is asked, until it is gone.
        let gone = wait("the old one's end", async || {
            self.places()[n].service.as_mut().is_none_or(|one| one.ended().is_some())
        });
        gone.await?;
        let (old, launch) = {
            let place = &mut self.places()[n];
            place.ready = false;
            (place.service.take(), place.launch.clone())
        };
        let ended = old.and_then(|mut one| one.ended()).context("an exit status")?;
        anyhow::ensure!(ended.success(), "a replica ended with {ended}");
        let new = tokio::task::spawn_blocking(move || launch.start()).await??;
        self.places()[n].service = Some(new);
        self.both_ready().await
    }
}

/// Runs it, prints the table, and fails if a delivery had no answer or the delivery guarantee was violated.
pub async fn run(seed: u64) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("hookstream-rolling-").tempdir()?;
    println!("a rolling upgrade of two replicas, {ROUNDS} times, at {RATE}/s, seed {seed}");
    let result = within(seed, dir.path()).await;
    if result.is_err() {
        println!("logs: {}", dir.keep().display());
    }
    result
}

async fn within(seed: u64, dir: &Path) -> anyhow::Result<()> {
    let (cluster, registry) = tokio::try_join!(Cluster::start(dir), Registry::start(dir))?;
    let places = ["one", "two"].map(|name| place(&dir.join(name), &cluster, &registry));
    let balancer = Arc::new(Balancer {
        places: Mutex::new(places.into_iter().collect::<Result<_, _>>()?),
        turn: AtomicUsize::new(0),
        client: reqwest::Client::builder().timeout(Duration::from_secs(1)).no_proxy().build()?,
    });
    let admins: Vec<_> = balancer.places().iter().flat_map(|place| &place.service).map(|s| s.admin).collect();
    for admin in &admins {
        ready(*admin).await?;
    }
    let looking = tokio::spawn({
        let balancer = balancer.clone();
        async move { balancer.look().await }
    });
    balancer.both_ready().await?;

    let senders = Senders::new(seed, {
        let balancer = balancer.clone();
        Box::new(move || balancer.choose())
    });
    let load = tokio::spawn(senders.clone().run(RATE));
    for n in (0..ROUNDS).flat_map(|_| 0..2) {
        balancer.replace(n).await?;
    }
    senders.stop();
    load.await?;
    looking.abort();
    for admin in admins {
        drained(admin).await?;
    }

    let mut found = Vec::new();
    for topic in
        deliveries::topics().into_iter().chain(deliveries::SOURCES.map(|s| format!("dead_letter.{s}")))
    {
        found.extend(verdict::read(&cluster.direct(), &topic).await?);
    }
    let judge = Judge { seed, sent: senders.begun(), deleted: &[], parked: &Default::default() };
    let book = senders.book().clone();
    let verdict = judge.count(&book, &found, &registry).await?;
    print(&book, &verdict);
    verdict_of(&book, &verdict)
}

/// A replica with a directory, ports and a spool of its own.
fn place(dir: &Path, cluster: &Cluster, registry: &Registry) -> anyhow::Result<Place> {
    std::fs::create_dir(dir)?;
    let config = configuration(dir, cluster, registry, &dir.join("spool"))?;
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(
        &config,
        text.replace("drain_delay = \"0s\"", &format!("drain_delay = \"{DRAIN_DELAY}\"")),
    )?;
    let launch = Launch { config, log: dir.join("hookstream.log"), under: Vec::new(), bug: None };
    Ok(Place { service: Some(launch.start()?), launch, ready: false })
}

fn print(book: &Book, verdict: &Verdict) {
    let row = |name: &str, value: u64| println!("  {name:<34} {value}");
    println!("  {:<34} {} deliveries, {} requests", "sent", book.sent, book.attempts);
    book.answers.iter().for_each(|(said, count)| row(&format!("  {said}"), *count));
    row("without an answer", book.broken + book.late);
    row("given up by their sender", book.gave_up);
    row("records read", verdict.records);
    row("duplicates", verdict.duplicates);
    row("lost", verdict.lost.len() as u64);
    row("forged", verdict.forged.len() as u64);
    row("wrong", (verdict.wrong.len() + book.wrong.len()) as u64);
    for line in verdict.lost.iter().chain(&verdict.forged).chain(&verdict.wrong).chain(&book.wrong).take(20) {
        println!("  ! {line}");
    }
}

fn verdict_of(book: &Book, verdict: &Verdict) -> anyhow::Result<()> {
    anyhow::ensure!(!book.accepted.is_empty() && verdict.records > 0, "no delivery came through");
    anyhow::ensure!(book.broken + book.late + book.gave_up == 0, "a delivery was left without an answer");
    anyhow::ensure!(verdict.lost.is_empty() && verdict.forged.is_empty(), "the promise is broken");
    anyhow::ensure!(verdict.wrong.is_empty() && book.wrong.is_empty(), "an answer or a record is wrong");
    Ok(())
}
