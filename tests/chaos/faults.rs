//! The schedule of faults, made from a seed; each kind is injected once before any is repeated.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fastrand::Rng;
use jiff::SignedDuration;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;

use crate::deliveries;
use crate::proxy::Mode;
use crate::service::metric;
use crate::verdict::{self, Deleted};
use crate::world::{LIVE_ROWS, Program, RETENTION, World, drained, wait};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// kill -9 of one broker of three.
    BrokerKilled,
    /// kill -9 of all three at the same time.
    AllBrokersKilled,
    /// SIGSTOP of one broker: its connections stay open without traffic.
    BrokerStopped,
    /// One topic is deleted under load.
    TopicDeleted,
    /// Connections to one or all brokers are closed and refused.
    NetworkCut,
    /// Connections to one or all brokers stay open without traffic.
    NetworkHung,
    /// Traffic to one or all brokers is delayed.
    NetworkSlow,
    /// kill -9 of the service while rows of its spool are on their way to slow brokers.
    KilledWhileDraining,
    /// No connection to the registry, during a restart of the service.
    RegistryCut,
    /// SIGSTOP of the registry.
    RegistryStopped,
    /// The registry loses its data, which is restored later.
    RegistryWiped,
    /// The spool's file system is full, and no broker answers.
    DiskFull,
    /// The service's clock is 60 days behind.
    ClockBehind,
    /// The service's clock is 2 hours ahead.
    ClockAhead,
    /// The service's clock jumps back and forth.
    ClockJumps,
    /// No broker answers for longer than the topics' retention, by the service's clock.
    OutlivesRetention,
}

/// The faults to inject.
#[derive(Debug)]
pub struct Schedule {
    rng: Rng,
    kinds: Vec<Fault>,
    left: Vec<Fault>,
    rounds: u64,
}

impl Schedule {
    /// A schedule of these kinds, in an order that depends on the seed.
    pub fn new(seed: u64, kinds: Vec<Fault>) -> Self {
        Self { rng: Rng::with_seed(seed), kinds, left: Vec::new(), rounds: 0 }
    }

    /// A period of load without faults.
    pub fn quiet(&mut self) -> Duration {
        self.between(1_000, 4_000)
    }

    fn between(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.u64(from..to))
    }

    /// The next fault.
    pub fn next(&mut self) -> Fault {
        if self.left.is_empty() {
            self.left = self.kinds.clone();
            self.rng.shuffle(&mut self.left);
            self.rounds += 1;
        }
        self.left.pop().expect("there is a kind")
    }

    /// Whether every kind was injected, and equally often.
    pub fn is_round(&self) -> bool {
        self.rounds > 0 && self.left.is_empty()
    }

    /// Injects the fault and ends it; the system may still recover when this returns.
    pub async fn inject(&mut self, fault: Fault, world: &mut World) -> anyhow::Result<()> {
        let time = self.between(3_000, 9_000);
        let one = self.rng.usize(..world.cluster.brokers.len());
        let all = self.rng.bool();
        let chosen: Vec<usize> = if all { (0..world.cluster.brokers.len()).collect() } else { vec![one] };
        *world.injected.entry(fault).or_default() += 1;
        match fault {
            Fault::BrokerKilled => {
                world.cluster.brokers[one].kill();
                tokio::time::sleep(time).await; // the duration of the fault, here and below
                world.cluster.heal().await
            }
            Fault::AllBrokersKilled => {
                world.cluster.brokers.iter_mut().for_each(|broker| broker.kill());
                tokio::time::sleep(time).await;
                world.cluster.heal().await
            }
            Fault::BrokerStopped => {
                world.cluster.brokers[one].pause(true)?;
                tokio::time::sleep(time).await;
                world.cluster.brokers[one].pause(false)
            }
            Fault::NetworkCut => network(world, &chosen, Mode::Cut, time).await,
            Fault::NetworkHung => network(world, &chosen, Mode::Hang, time).await,
            Fault::NetworkSlow => {
                let delay = self.between(20, 600);
                network(world, &chosen, Mode::Delay(delay), time).await
            }
            Fault::KilledWhileDraining => killed_while_draining(world, time).await,
            Fault::TopicDeleted => {
                let topics = deliveries::topics();
                let topic = topics[self.rng.usize(..topics.len())].clone();
                // Longer than librdkafka keeps a record for an unknown topic.
                delete_topic(world, topic, time + Duration::from_secs(5)).await
            }
            Fault::RegistryCut => {
                world.registry.proxy.set(Mode::Cut);
                world.program.kill().await?;
                tokio::time::sleep(time).await;
                world.registry.proxy.set(Mode::Pass);
                Ok(())
            }
            Fault::RegistryStopped => {
                world.registry.pause(true)?;
                tokio::time::sleep(time).await;
                world.registry.pause(false)
            }
            Fault::RegistryWiped => wipe(world).await,
            Fault::DiskFull => disk_full(world, time, all).await,
            Fault::ClockBehind => clock(world, &[-SignedDuration::from_hours(60 * 24)], time).await,
            Fault::ClockAhead => clock(world, &[SignedDuration::from_hours(2)], time).await,
            Fault::ClockJumps => {
                let mut jump = || SignedDuration::from_mins(self.rng.i64(-90 * 24 * 60..3 * 60));
                let jumps = [jump(), jump(), jump(), jump()];
                clock(world, &jumps, time).await
            }
            Fault::OutlivesRetention => {
                let set = |mode| world.cluster.brokers.iter().for_each(|broker| broker.proxy.set(mode));
                world.clock.set(-2 * RETENTION);
                set(Mode::Cut);
                tokio::time::sleep(time).await;
                // By the right clock, the spooled rows were received two hours ago.
                world.clock.set(SignedDuration::ZERO);
                set(Mode::Pass);
                Ok(())
            }
        }
    }
}

/// Sets the clock to one offset after the other, and then right again.
async fn clock(world: &World, offsets: &[SignedDuration], time: Duration) -> anyhow::Result<()> {
    for offset in offsets {
        world.clock.set(*offset);
        tokio::time::sleep(time / offsets.len() as u32).await; // the duration of the fault
    }
    world.clock.set(SignedDuration::ZERO);
    Ok(())
}

async fn network(world: &World, brokers: &[usize], mode: Mode, time: Duration) -> anyhow::Result<()> {
    let set = |mode| brokers.iter().for_each(|broker| world.cluster.brokers[*broker].proxy.set(mode));
    set(mode);
    tokio::time::sleep(time).await; // the duration of the fault
    set(Mode::Pass);
    Ok(())
}

/// The timeout for the drain to start; more rows may arrive than are drained.
const DRAIN_START: Duration = Duration::from_secs(15);

async fn killed_while_draining(world: &World, time: Duration) -> anyhow::Result<()> {
    let set = |mode| world.cluster.brokers.iter().for_each(|broker| broker.proxy.set(mode));
    set(Mode::Cut);
    tokio::time::sleep(time).await; // the duration of the fault
    let admin = world.program.service.lock().await.admin;
    // Slow, so that the drain does not end before it is noticed.
    set(Mode::Delay(Duration::from_millis(150)));
    let (start, mut last, mut falling) = (Instant::now(), 0.0, false);
    while !falling && start.elapsed() < DRAIN_START {
        if let Ok(rows) = metric(admin, LIVE_ROWS).await {
            falling = rows < last;
            last = rows;
        }
        tokio::time::sleep(Duration::from_millis(100)).await; // polls with a bound
    }
    // Rows that are handed over now get no answer, however few the drain hands over at a time.
    set(Mode::Hang);
    tokio::time::sleep(Duration::from_secs(1)).await; // the duration of the fault
    let killed = world.program.kill().await;
    set(Mode::Pass);
    killed
}

/// The limit of the time in which records may go with a deleted topic: a loss within it would not be noticed.
const EXCUSED: Duration = Duration::from_secs(10);

/// Reads the topic before it is deleted, while no row of the spool is on its way. Records that are acknowledged between the
/// read and the delete do not count as lost.
async fn delete_topic(world: &mut World, topic: String, time: Duration) -> anyhow::Result<()> {
    let program = world.program.clone();
    // The lock prevents a restart, which would create the topic again.
    let service = program.service.lock().await;
    let empty_at = drained(service.admin).await.context("before the delete of a topic")?;
    // A row that is accepted from now on may be published before the delete, and be deleted with the topic.
    let from = world.senders.now().saturating_sub(empty_at.elapsed());
    world.archive.extend(verdict::read(&world.cluster.direct(), &topic).await?);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", world.cluster.direct()).create()?;
    let bound = Some(Duration::from_secs(30));
    let options = AdminOptions::new().operation_timeout(bound).request_timeout(bound);
    let done = admin.delete_topics(&[&topic], &options).await?;
    anyhow::ensure!(done == [Ok(topic.clone())], "{done:?}");
    // The brokers learn of the delete one after the other, and no call tells when the last one has. Until then it may
    // acknowledge records that go with the topic, so they are excused; a shorter time would call them lost.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let until = world.senders.now();
    anyhow::ensure!(
        until - from <= EXCUSED,
        "{topic}: read and deleted in {:?}, which hides losses",
        until - from
    );
    let in_spool = program.keys_of_rows(&topic)?;
    world.deleted.push(Deleted { topic: topic.clone(), from, until, in_spool });
    tokio::time::sleep(time).await; // the duration of the fault
    drop(service);
    let new = NewTopic::new(&topic, 6, TopicReplication::Fixed(3)).set("min.insync.replicas", "2");
    let done = admin.create_topics(&[new], &options).await?;
    match done.as_slice() {
        [Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))] => Ok(()),
        other => anyhow::bail!("{topic} cannot be recreated: {other:?}"),
    }
}

/// Until the registry's data is restored, ids are wrong, and a service that starts must notice that.
async fn wipe(world: &mut World) -> anyhow::Result<()> {
    world.registry.wipe().await?;
    world.program.kill().await?;
    let client = reqwest::Client::new();
    let program = world.program.clone();
    wait("a report of the lost schemas", async || {
        let url = format!("http://{}/readyz", program.service.lock().await.admin);
        let Ok(answer) = client.get(url).send().await else { return false };
        answer.text().await.is_ok_and(|text| text.contains("lost or changed id"))
    })
    .await?;
    // Cut off during the restore, since a schema that the service registers would take an id.
    world.registry.proxy.set(Mode::Cut);
    let restored = world.registry.restore(world.schemas.clone()).await;
    world.registry.proxy.set(Mode::Pass);
    restored
}

/// Fills the disk while no broker answers. With `brokers_first`, the brokers return before there is space.
async fn disk_full(world: &mut World, time: Duration, brokers_first: bool) -> anyhow::Result<()> {
    let cut = |world: &World, mode| world.cluster.brokers.iter().for_each(|broker| broker.proxy.set(mode));
    cut(world, Mode::Cut);
    tokio::time::sleep(time / 3).await; // the duration of the fault, here and below
    let ballast = world.disk.as_ref().context("no disk to fill")?.ballast();
    ballast.fill()?;
    tokio::time::sleep(time).await;
    if brokers_first {
        cut(world, Mode::Pass);
        tokio::time::sleep(time / 3).await;
        ballast.remove()?;
    } else {
        ballast.remove()?;
        cut(world, Mode::Pass);
    }
    Ok(())
}

/// How often each kind was injected, for the table.
pub type Injected = BTreeMap<Fault, u64>;

/// Kills the service repeatedly, at times that depend on the seed.
pub async fn kill_repeatedly(seed: u64, program: Arc<Program>) -> anyhow::Result<()> {
    let mut rng = Rng::with_seed(seed ^ 0x6b69_6c6c);
    loop {
        tokio::time::sleep(Duration::from_millis(rng.u64(10_000..32_000))).await;
        program.kill().await?;
    }
}
