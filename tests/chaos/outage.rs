//! All brokers down for minutes under a steady load: the answers, the memory, and the effect of the backlog on live
//! deliveries once Kafka is back.
//!
//! Brokers are slow after a start, even without a backlog. So they are killed and restarted twice: first without
//! deliveries during the outage. The latency after that is the baseline for the latency while the backlog drains.
//!
//! The sleeps are the lengths of the measured phases. Everything that must happen is waited for with a timeout.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hookstream::load::Tally;

use crate::cluster::Broker;
use crate::proxy::Mode;
use crate::room::Tmpfs;
use crate::senders::Senders;
use crate::service::metric;
use crate::world::{LIVE_ROWS, World, drained, parked};

/// The length of the phases before and after, for comparison.
const NORMAL: Duration = Duration::from_secs(60);

/// The timeout for the backlog to drain; live deliveries have priority.
const DRAINED: Duration = Duration::from_secs(1800);

/// The measured phase.
const OUTAGE: &str = "no broker";

/// The MiB by which the service's memory may grow from the outage's first minute to its end.
const FLAT: u64 = 8;

/// The length of the phases after the brokers' return.
const SLICE: Duration = Duration::from_secs(5);

/// The measurements of one phase.
struct Phase {
    name: &'static str,
    seconds: f64,
    tally: Tally,
    memory: Vec<u64>,
}

impl Phase {
    fn of_slices(name: &'static str, slices: Vec<Self>) -> anyhow::Result<Self> {
        let none = Self { name, seconds: 0.0, tally: Tally::new()?, memory: Vec::new() };
        Ok(slices.into_iter().fold(none, |mut all, slice| {
            all.seconds += slice.seconds;
            all.tally.merge(&slice.tally);
            all.memory.extend(slice.memory);
            all
        }))
    }

    /// In milliseconds.
    fn latency(&self, quantile: f64) -> u64 {
        self.tally.latency(quantile).unwrap_or_default() as u64
    }

    fn p99(&self) -> u64 {
        self.latency(0.99).max(1)
    }

    fn of(&self, status: u16) -> u64 {
        self.tally.count(|kind| kind.status == Some(status))
    }
}

/// Runs it, prints the table, and fails if the delivery guarantee was violated.
pub async fn run(time: Duration, rate: u32, seed: u64, cut: bool) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("hookstream-outage-").tempdir()?;
    println!("outage of {} s at {rate}/s, seed {seed}", time.as_secs());
    // On their own file system, as on other machines: on the same disk, syncs of the spool would delay their appends.
    let brokers = dir.path().join("brokers");
    std::fs::create_dir(&brokers)?;
    let _disk = Tmpfs::mount(&brokers, "4g")?;
    let mut world = World::start_on(dir.path(), &brokers, &dir.path().join("spool"), seed, None).await?;
    let load = tokio::spawn(world.senders.clone().run(rate));
    let (pid, admin) = {
        let service = world.program.service.lock().await;
        (service.pid(), service.admin)
    };
    let mut phases = Vec::new();
    // The first deliveries open the connections.
    watch("warm-up", pid, &world.senders, tokio::time::sleep(Duration::from_secs(10))).await?;
    phases.push(watch("normal", pid, &world.senders, tokio::time::sleep(NORMAL)).await?);
    world.senders.pause(true);
    start_outage(&mut world, cut);
    tokio::time::sleep(Duration::from_secs(5)).await; // an outage without deliveries
    end_outage(&mut world).await?;
    world.senders.pause(false);
    let control = slices(pid, &world.senders, 12).await?;
    let usual: Vec<_> = control.iter().map(Phase::p99).collect();
    phases.push(Phase::of_slices("no backlog", control)?);
    start_outage(&mut world, cut);
    // By then, deliveries acknowledged just before the outage are answered.
    watch("start of the outage", pid, &world.senders, tokio::time::sleep(Duration::from_secs(1))).await?;
    phases.push(watch(OUTAGE, pid, &world.senders, tokio::time::sleep(time)).await?);
    let backlog = metric(admin, LIVE_ROWS).await?;
    let senders = world.senders.clone();
    phases.push(watch("brokers start", pid, &senders, end_outage(&mut world)).await?);
    let left = metric(admin, LIVE_ROWS).await?;
    let slices = drain(pid, admin, &world.senders).await?;
    let p99: Vec<_> = slices.iter().map(Phase::p99).collect();
    phases.push(Phase::of_slices("draining", slices)?);
    phases.push(watch("normal again", pid, &world.senders, tokio::time::sleep(NORMAL)).await?);
    world.senders.stop();
    load.await??;
    drained(admin).await?;
    let parked = parked(&dir.path().join("hookstream.toml"))?.len();
    print(&phases, backlog, left, parked);
    println!("p99 of each {} s after the brokers' return:", SLICE.as_secs());
    println!("  with no backlog  {usual:?}\n  while draining   {p99:?}");
    judge(&phases, &usual, &p99, &world.senders)
}

/// Makes all brokers unavailable.
fn start_outage(world: &mut World, cut: bool) {
    let each = |broker: &mut Broker| if cut { broker.proxy.set(Mode::Cut) } else { broker.kill() };
    world.cluster.brokers.iter_mut().for_each(each);
}

/// Makes all brokers available again.
async fn end_outage(world: &mut World) -> anyhow::Result<()> {
    world.cluster.heal().await?;
    world.cluster.brokers.iter().for_each(|broker| broker.proxy.set(Mode::Pass));
    Ok(())
}

/// Measures live load in slices.
async fn slices(pid: u32, senders: &Arc<Senders>, count: usize) -> anyhow::Result<Vec<Phase>> {
    let mut slices = Vec::new();
    for _ in 0..count {
        slices.push(watch("a slice", pid, senders, tokio::time::sleep(SLICE)).await?);
    }
    Ok(slices)
}

/// Measures in slices until the spool is empty.
async fn drain(pid: u32, admin: SocketAddr, senders: &Arc<Senders>) -> anyhow::Result<Vec<Phase>> {
    let (mut slices, start) = (Vec::new(), Instant::now());
    while metric(admin, LIVE_ROWS).await? > 0.0 {
        anyhow::ensure!(start.elapsed() < DRAINED, "the spool is not empty after {DRAINED:?}");
        slices.push(watch("draining", pid, senders, tokio::time::sleep(SLICE)).await?);
    }
    Ok(slices)
}

/// Samples the service's memory each second until `until` is over.
async fn watch(
    name: &'static str,
    pid: u32,
    senders: &Arc<Senders>,
    until: impl Future<Output: Ended>,
) -> anyhow::Result<Phase> {
    let start = Instant::now();
    let (mut memory, mut ticks) = (Vec::new(), tokio::time::interval(Duration::from_secs(1)));
    tokio::pin!(until);
    loop {
        tokio::select! {
            ended = &mut until => {
                ended.ok()?;
                break;
            }
            _ = ticks.tick() => memory.push(resident_mib(pid)?),
        }
    }
    Ok(Phase { name, seconds: start.elapsed().as_secs_f64(), tally: senders.phase()?, memory })
}

/// The output of the future that ends a phase.
trait Ended {
    fn ok(self) -> anyhow::Result<()>;
}

impl Ended for () {
    fn ok(self) -> anyhow::Result<()> {
        Ok(())
    }
}

impl Ended for anyhow::Result<()> {
    fn ok(self) -> anyhow::Result<()> {
        self
    }
}

fn resident_mib(pid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024)
}

fn print(phases: &[Phase], backlog: f64, left: f64, parked: usize) {
    println!(
        "\n{:<14} {:>7} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} {:>6}   memory, MiB: first, last, most",
        "phase", "s", "200", "202", "401", "503", "p50", "p99", "max"
    );
    for phase in phases {
        println!(
            "{:<14} {:>7.1} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} {:>6}   {}, {}, {}",
            phase.name,
            phase.seconds,
            phase.of(200),
            phase.of(202),
            phase.of(401),
            phase.of(503),
            phase.latency(0.5),
            phase.p99(),
            phase.latency(1.0),
            phase.memory.first().unwrap_or(&0),
            phase.memory.last().unwrap_or(&0),
            phase.memory.iter().max().unwrap_or(&0)
        );
    }
    println!(
        "\nrows in the spool: {backlog} before the brokers' start, {left} when all had started; parked {parked}"
    );
}

/// `usual` and `draining` are p99 of slices after the brokers' return, without and with a backlog.
fn judge(phases: &[Phase], usual: &[u64], draining: &[u64], senders: &Senders) -> anyhow::Result<()> {
    let outage = phases.iter().find(|phase| phase.name == OUTAGE).context("no outage phase")?;
    // A dead letter is 200 even if it is spooled. The service runs all the time, so no request is without an answer.
    let other = outage.tally.count(|kind| match kind.status {
        Some(200) => kind.outcome != "dead_lettered",
        status => !matches!(status, Some(202 | 401)),
    });
    anyhow::ensure!(other == 0, "unexpected answers during the outage: {:?}", outage.tally.kinds);
    anyhow::ensure!(outage.of(202) > 0, "nothing was spooled");
    anyhow::ensure!(senders.ledger().late == 0, "late answers");
    let minute = outage.memory.get(60).or(outage.memory.last()).copied().unwrap_or(0);
    let last = outage.memory.last().copied().unwrap_or(0);
    anyhow::ensure!(last <= minute + FLAT, "memory grew from {minute} to {last} MiB");
    // Compares each slice with the baseline slice at the same time after the return, later ones with the baseline's median.
    // The median of all ratios counts, since the p99 of one slice depends on ten deliveries.
    let mut sorted = usual.to_vec();
    sorted.sort_unstable();
    let rest = sorted.get(sorted.len() / 2).copied().context("no slice")?;
    let usual = usual.iter().copied().chain(std::iter::repeat(rest));
    let ratio = |(p99, usual): (&u64, u64)| *p99 as f64 / usual as f64;
    let mut ratios: Vec<f64> = draining.iter().zip(usual).map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).copied().context("no slice")?;
    println!("  median ratio     {median:.2}");
    anyhow::ensure!(median < 2.0, "the p99 while draining is {median:.2} times that without a backlog");
    Ok(())
}
