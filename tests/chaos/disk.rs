//! A spool on a full file system: no acknowledged delivery is lost, the spool drains without any free space, and
//! deliveries are spooled again once there is space, without a restart.
//!
//! The file system is a small tmpfs in its own mount namespace, so that it vanishes with the last process that sees it.
//! Kafka is the in-memory one, since a real broker cannot be cut off from the program alone; program and registry are
//! real.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use hookstream::kafka::embedded::Embedded;
use hookstream::load::Answer;
use hookstream::names;
use hookstream::spool::RESERVE;

use crate::provider::{Provider, within};
use crate::room::{self, Ballast, Tmpfs};
use crate::service::{Launch, Service, metric};
use crate::support::{PATIENCE, Setup, kafka, stack};

/// The size of the file system; the spool's reserve is a quarter of it.
const SIZE: &str = "64m";

/// Deliveries of one step, and their connections. All steps together must fit into the 5 MiB that the in-memory Kafka
/// keeps of a partition.
const DELIVERIES: usize = 2400;
const CLIENTS: usize = 8;

/// The latest time of an answer: the ack deadline, and some slack for a busy machine.
const IN_TIME: Duration = Duration::from_millis(4_750);

/// With the first value, the spool stops before the disk is full. With the second, only the disk stops it, so that its log
/// has rows for which the database file has no space.
const MIN_FREE: [&str; 2] = ["4 MiB", NO_MIN_FREE];
const NO_MIN_FREE: &str = "0 B";

const LIVE: &str = "hookstream_spool_rows{state=\"live\"}";

const TYPE: &str = "batch_prediction.completed";

/// Fails if an acknowledged delivery is lost, or if the spool does not recover without a restart.
pub async fn run() -> anyhow::Result<()> {
    for min_free in MIN_FREE {
        println!("spool.min_free = {min_free}");
        let temporary = tempfile::tempdir()?;
        let mount = temporary.path().join("mount");
        std::fs::create_dir(&mount)?;
        let tmpfs = Tmpfs::mount(&mount, SIZE)?;
        let fixture = Fixture::start(temporary.path(), &mount, tmpfs.ballast(), min_free).await?;
        if let Err(error) = fixture.play(min_free).await {
            let log = std::fs::read_to_string(temporary.path().join("log")).unwrap_or_default();
            // The log without the lines of deliveries.
            log.lines().filter(|line| !line.contains("\"delivery\":")).for_each(|line| eprintln!("{line}"));
            return Err(error);
        }
    }
    Ok(())
}

/// The parts, and all answers so far.
struct Fixture {
    kafka: Embedded,
    service: Service,
    provider: Provider,
    topic: String,
    mount: std::path::PathBuf,
    ballast: Ballast,
    /// The answers, with the ids of their deliveries.
    answers: Vec<(String, Answer)>,
    next: usize,
}

/// An event of 4 KiB: its row takes more than a page, and the delete of the row another.
fn body(id: &str) -> String {
    let pad = "x".repeat(4_000);
    format!(
        r#"{{"id":"{id}","event_type":"{TYPE}","timestamp":1775847600,"data":{{"object":"batch_prediction","id":"bpred_abc123","status":"completed","pad":"{pad}"}}}}"#
    )
}

/// The 503 that is correct while Kafka is down and the spool is full.
fn refused(answer: &Answer) -> bool {
    let reason = matches!(answer.word(), Some("spool_full" | "spool_error"));
    answer.status == 503 && reason && answer.retry_after.is_some()
}

impl Fixture {
    async fn start(dir: &Path, mount: &Path, ballast: Ballast, min_free: &str) -> anyhow::Result<Self> {
        let kafka = Embedded::start()?;
        let setup = Setup {
            kafka: kafka.bootstrap_servers(),
            registry: stack("REGISTRY"),
            rules: format!("types = [\"{TYPE}\"]"),
            tables: format!("[spool]\ndir = \"{}/spool\"\nmin_free = \"{min_free}\"", mount.display()),
            ..Setup::new("datagrid")
        };
        let topic = names::topic(&setup.source, TYPE);
        kafka.create_topic(&topic, 12)?;
        kafka.create_topic(&names::dead_letter_topic(&setup.source), 1)?;
        let config = dir.join("hookstream.toml");
        std::fs::write(&config, setup.toml())?;
        let service = Launch { config, log: dir.join("log"), under: Vec::new(), bug: None }.start()?;
        let provider = Provider::new(service.hooks, &setup.source)?;
        let mount = mount.to_owned();
        Ok(Self { kafka, service, provider, topic, mount, ballast, answers: Vec::new(), next: 0 })
    }

    async fn play(mut self, min_free: &str) -> anyhow::Result<()> {
        self.until("a 200", PATIENCE, |answer| answer.status == 200).await?;
        self.kafka.broker_down()?;
        self.until("a 202", PATIENCE, |answer| answer.status == 202).await?;
        self.expect(DELIVERIES, "while Kafka is down", |answer| answer.status == 202).await?;

        // The disk fills up while rows are written. From here until the spool is empty, another program takes each free
        // byte, including those of the reserve that the spool gives up.
        let ballast = self.ballast.clone();
        let filling = ballast.keep_filling();
        let accepted = self.refused_under_load().await?;
        within("a full file system", PATIENCE, async || Ok(room::free(&self.mount)? == 0)).await?;
        // A single row may still fit where eight together did not; it is counted then.
        self.expect(100, "on a full disk", |answer| answer.status == 202 || refused(answer)).await?;
        self.waiting().await?;
        let waiting = self.answers.iter().filter(|(_, answer)| answer.status == 202).count();

        self.kafka.broker_up()?;
        let (drained, published_directly) = self.drain_under_load().await?;
        self.expect(50, "with Kafka up and the disk full", |answer| answer.status == 200).await?;
        filling.stop()?;
        ballast.fill()?;
        let filled = ballast.bytes()?;
        self.count("on a full disk").await?;
        // Checks the test itself: without this, it would not have tested the reserve.
        let needed = !self.reserve();
        anyhow::ensure!(needed || min_free != NO_MIN_FREE, "the spool drained without giving up its reserve");

        // Kafka is known to be down before there is space, so that only the spool is measured.
        self.kafka.broker_down()?;
        // If the reserve was not needed, some rows may still fit into free pages.
        let full = |answer: &Answer| if needed { refused(answer) } else { answer.status != 200 };
        self.until("503 from a full spool", PATIENCE, full).await?;
        ballast.remove()?;
        let again = self.until("202 once there is space", PATIENCE, |answer| answer.status == 202).await?;
        self.expect(50, "once there is space", |answer| answer.status == 202).await?;
        anyhow::ensure!(self.reserve(), "the reserve is not restored");
        self.waiting().await?;
        self.kafka.broker_up()?;
        let drained_again = self.drain("once there is space").await?;
        let (lost, most) = self.count("at the end").await?;

        let slowest = self.answers.iter().map(|(_, answer)| answer.took).max().unwrap_or_default();
        for status in [200, 202, 503] {
            let count = self.answers.iter().filter(|(_, answer)| answer.status == status).count();
            println!("{:<36}{count:>10}", format!("answered {status}"));
        }
        println!("{:<36}{lost:>10}", "lost, although answered 2xx");
        println!("{:<36}{most:>10}", "most copies of one id");
        println!("{:<36}{accepted:>10}", "202 while the disk filled up");
        println!("{:<36}{published_directly:>10}", "200 while draining on the full disk");
        println!("{:<36}{:>10.2}", "slowest answer, s", slowest.as_secs_f64());
        println!("{:<36}{needed:>10}", "reserve given up to drain");
        println!("{:<36}{:>10.1}", "ballast on the full disk, MiB", filled as f64 / 1_048_576.0);
        println!("{:<36}{waiting:>10}", "rows at Kafka's return");
        println!("{:<36}{:>10.2}", "drained on the full disk, s", drained.as_secs_f64());
        println!("{:<36}{:>10.2}", "202 again once there is space, s", again.as_secs_f64());
        println!("{:<36}{:>10.2}", "drained once there is space, s", drained_again.as_secs_f64());
        Ok(())
    }

    fn ids(&mut self, count: usize) -> Vec<String> {
        self.next += count;
        (self.next - count..self.next).map(|n| format!("disk-evt-{n:06}")).collect()
    }

    /// Sends `count` deliveries, whose answers must all be `so`.
    async fn expect(&mut self, count: usize, when: &str, so: impl Fn(&Answer) -> bool) -> anyhow::Result<()> {
        let ids = self.ids(count);
        let answers = self.provider.all(ids, CLIENTS, body).await?;
        let unexpected = answers.iter().find(|(_, answer)| !so(answer)).cloned();
        self.keep(answers)?;
        unexpected
            .map_or(Ok(()), |unexpected| Err(anyhow::anyhow!("an unexpected answer {when}: {unexpected:?}")))
    }

    /// Sends until an answer is `so`. Returns how long that took.
    async fn until(
        &mut self,
        what: &str,
        bound: Duration,
        so: impl Fn(&Answer) -> bool,
    ) -> anyhow::Result<Duration> {
        within(what, bound, async || {
            let id = self.ids(1).remove(0);
            let answer = self.provider.send(&id, body(&id)).await?;
            let end = so(&answer);
            self.keep(vec![(id, answer)])?;
            Ok(end)
        })
        .await
    }

    /// Checks that each answer is in time, and 200, 202 or 503.
    fn keep(&mut self, answers: Vec<(String, Answer)>) -> anyhow::Result<()> {
        for (_, answer) in &answers {
            anyhow::ensure!(matches!(answer.status, 200 | 202 | 503), "an unexpected answer: {answer:?}");
            anyhow::ensure!(answer.took < IN_TIME, "a late answer: {answer:?}");
        }
        self.answers.extend(answers);
        Ok(())
    }

    /// Sends rounds of deliveries until a whole round is refused. Returns the number of accepted deliveries.
    async fn refused_under_load(&mut self) -> anyhow::Result<usize> {
        let mut accepted = 0;
        within("503 while the disk fills up", PATIENCE, async || {
            let ids = self.ids(4 * CLIENTS);
            let answers = self.provider.all(ids, CLIENTS, body).await?;
            let spooled = answers.iter().filter(|(_, answer)| answer.status == 202).count();
            let unexpected = answers.iter().find(|(_, answer)| answer.status != 202 && !refused(answer));
            anyhow::ensure!(
                unexpected.is_none(),
                "an unexpected answer while the disk fills up: {unexpected:?}"
            );
            accepted += spooled;
            self.keep(answers)?;
            Ok(spooled == 0)
        })
        .await?;
        Ok(accepted)
    }

    /// Waits for an empty spool while live deliveries arrive. Returns how long that took, and how many live deliveries were
    /// published directly.
    async fn drain_under_load(&mut self) -> anyhow::Result<(Duration, usize)> {
        let drained = Arc::new(AtomicBool::new(false));
        let (provider, end) = (self.provider.clone(), drained.clone());
        let live = tokio::spawn(async move {
            let mut answers = Vec::new();
            while !end.load(Ordering::Relaxed) {
                let id = format!("live-evt-{:06}", answers.len());
                let answer = provider.send(&id, body(&id)).await?;
                answers.push((id, answer));
                tokio::time::sleep(Duration::from_millis(5)).await; // a low rate, since the topic is small
            }
            anyhow::Ok(answers)
        });
        let took = self.drain("on a full disk").await;
        drained.store(true, Ordering::Relaxed);
        let answers = live.await??;
        // Deliveries are 503 until the service notices that Kafka is back; after the first 200, all are 200.
        let first = answers.iter().position(|(_, answer)| answer.status == 200).unwrap_or(answers.len());
        let later: Vec<_> = answers.iter().skip(first).cloned().collect();
        self.keep(answers)?;
        let took = took?;
        let unexpected = later.iter().find(|(_, answer)| answer.status != 200);
        anyhow::ensure!(unexpected.is_none(), "an unexpected answer while draining: {unexpected:?}");
        anyhow::ensure!(!later.is_empty(), "no live delivery was published while the spool drained");
        Ok((took, later.len()))
    }

    /// Whether the spool has its reserve.
    fn reserve(&self) -> bool {
        self.mount.join("spool/reserve").metadata().is_ok_and(|reserve| reserve.len() == RESERVE)
    }

    /// Waits until the metric, which is updated once a second, shows rows, since a 0 before that may be outdated.
    async fn waiting(&self) -> anyhow::Result<f64> {
        let mut rows = 0.0;
        within("a metric of rows in the spool", PATIENCE, async || {
            rows = metric(self.service.admin, LIVE).await?;
            Ok(rows > 0.0)
        })
        .await?;
        Ok(rows)
    }

    /// Waits for an empty spool.
    async fn drain(&self, when: &str) -> anyhow::Result<Duration> {
        let what = format!("an empty spool {when}");
        within(&what, PATIENCE, async || Ok(metric(self.service.admin, LIVE).await? == 0.0)).await
    }

    /// Reads the topic, and checks that it has each acknowledged delivery at least once and at most twice. Returns the
    /// number of lost deliveries, and of copies of one delivery at most.
    async fn count(&self, when: &str) -> anyhow::Result<(usize, usize)> {
        let (bootstrap, topic) = (self.kafka.bootstrap_servers(), self.topic.clone());
        let keys = tokio::task::spawn_blocking(move || kafka::read(&bootstrap, &topic)).await?;
        let mut copies = BTreeMap::<&str, usize>::new();
        for key in &keys {
            *copies.entry(key).or_default() += 1;
        }
        let acknowledged = self.answers.iter().filter(|(_, answer)| answer.status != 503);
        let lost: BTreeSet<&str> =
            acknowledged.map(|(id, _)| &**id).filter(|id| !copies.contains_key(id)).collect();
        anyhow::ensure!(lost.is_empty(), "{} acknowledged deliveries are lost {when}: {lost:?}", lost.len());
        let most = copies.iter().max_by_key(|(_, count)| **count).context("an empty topic")?;
        anyhow::ensure!(*most.1 <= 2, "{} was published {} times {when}", most.0, most.1);
        Ok((lost.len(), *most.1))
    }
}
