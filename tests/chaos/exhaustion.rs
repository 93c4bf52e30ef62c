//! The exhaustion matrix: clients without a secret exhaust one resource after the other, while a provider delivers at a
//! steady rate and the probes are requested.
//!
//! The hostile clients run in their own process (`tests/hostile/crowd.rs`) at nice 19, since in reality they use other
//! machines. The test of open files has its own service, since their limit applies to a process. A row that fails is
//! repeated: a real problem shows every time, a busy moment of the machine does not. A lost delivery always counts.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::clients::Kind;
use crate::crowd::{Crowd, Plan, enough_files};
use crate::honest::{Honest, Times, percentile};
use crate::senders::PROVIDER_TIMEOUT;
use crate::support::{Setup, kafka};
use crate::watched::Service;

/// The length of a measured round, at 100 deliveries a second.
const ROUND: Duration = Duration::from_secs(5);

/// The length of the rounds while the hostile clients connect and disconnect.
const SHORT: Duration = Duration::from_secs(1);

/// The rounds of [`SHORT`] within which the metric must change.
const ARRIVAL: usize = 10;

/// The p99 may be twice the quiet one, or [`FLOOR`] above it: a time slice or two of other processes on the same core. The
/// bugs that these rows guard against cost seconds.
const RATIO: u32 = 2;
const FLOOR: Duration = Duration::from_millis(100);

/// The time for a probe, from the connection to the answer.
const PROBE: Duration = Duration::from_secs(1);

/// Connections that each group of clients opens per second.
const OPENS: u32 = 500;

/// Attempts at a row, at most.
const ATTEMPTS: usize = 3;

/// The limits of the service, small enough to reach.
const CONNECTIONS: usize = 400;
const BODY_MIB: usize = 32;

/// The open files of the service with a low limit, and the secrets of the source that is costly to verify.
const FILES: u64 = 320;
const SECRETS: usize = 100;

/// The formula of docs/operations.md without the producer's queue, which is empty here, in KiB.
const MEMORY: usize = 64 * 1024 + 40 * CONNECTIONS + 2 * 1024 * BODY_MIB;

#[derive(Clone, Copy)]
enum Port {
    Hooks,
    Admin,
}

/// Hostile clients of a port, and the number of their addresses.
type Group = (Port, &'static [(Kind, usize)], usize);

/// A resource, and the clients that exhaust it.
struct Row {
    resource: &'static str,
    strangers: &'static [Group],
    /// The start of the line of the metric that must rise.
    metric: &'static str,
    /// A further check during the attack.
    also: fn(&Service) -> anyhow::Result<()>,
}

const ROWS: [Row; 5] = [
    Row {
        resource: "connections",
        strangers: &[(Port::Hooks, &[(Kind::Silent, 300), (Kind::KeepAlive, 150)], 8)],
        metric: "hookstream_connections_closed_total{port=\"http\",cause=\"unverified\"}",
        also: |_| Ok(()),
    },
    Row {
        resource: "operator's port",
        strangers: &[(Port::Admin, &[(Kind::KeepAlive, 50), (Kind::HalfHead, 50)], 8)],
        metric: "hookstream_connections_closed_total{port=\"admin\",",
        also: |_| Ok(()),
    },
    Row {
        resource: "bytes of bodies",
        strangers: &[(Port::Hooks, &[(Kind::Stalled, 45)], 1)],
        metric: "hookstream_unverified_limited_total{cause=\"address_bytes\"}",
        also: |_| Ok(()),
    },
    Row {
        resource: "verification",
        strangers: &[(Port::Hooks, &[(Kind::Costly, 4)], 4)],
        metric: "hookstream_unverified_limited_total{cause=\"address_work\"}",
        also: |_| Ok(()),
    },
    Row {
        resource: "memory",
        strangers: &[(Port::Hooks, &[(Kind::LargeHead, 320), (Kind::Stalled, 60)], 24)],
        metric: "hookstream_unverified_limited_total{cause=\"address_bytes\"}",
        also: |service| {
            let resident = service.memory();
            println!("    resident: {} MiB of {} MiB", resident / 1024, MEMORY / 1024);
            anyhow::ensure!(resident <= MEMORY, "{resident} KiB resident, but only {MEMORY} KiB allowed");
            Ok(())
        },
    },
];

const FEW_FILES: Row = Row {
    resource: "file handles",
    strangers: &[
        (Port::Hooks, &[(Kind::HalfHead, 2 * FILES as usize)], 8),
        (Port::Admin, &[(Kind::HalfHead, FILES as usize)], 8),
    ],
    metric: "hookstream_connections_closed_total{port=\"http\",cause=\"unverified\"}",
    also: |service| {
        let files = service.files();
        println!("    open files: {files} of {FILES}");
        anyhow::ensure!(service.logged("Too many open files") == 0, "it ran out of open files");
        anyhow::ensure!(
            service.logged("lowered from 10000 to") == 1,
            "the log does not report the lower limit of connections"
        );
        Ok(())
    },
};

/// The result of a row.
struct Outcome {
    resource: &'static str,
    quiet: Times,
    attacked: Times,
    /// Slowest answers of /livez and /readyz.
    probes: [Duration; 2],
    metric: &'static str,
    rise: usize,
    /// Failures; empty if the row passed.
    failures: Vec<String>,
}

impl Outcome {
    fn bound(&self) -> Duration {
        let quiet = percentile(&self.quiet.all(), 99);
        (RATIO * quiet).max(quiet + FLOOR)
    }

    fn line(&self) -> String {
        let at = |times: &Times, percent| percentile(&times.all(), percent).as_secs_f64() * 1e3;
        format!(
            "{:<16} {:>6.1} {:>6.1}   {:>6.1} {:>6.1} {:>6.0}   {:>6.0} {:>6.0}   {} +{}{}",
            self.resource,
            at(&self.quiet, 50),
            at(&self.quiet, 99),
            at(&self.attacked, 50),
            at(&self.attacked, 99),
            self.bound().as_secs_f64() * 1e3,
            self.probes[0].as_secs_f64() * 1e3,
            self.probes[1].as_secs_f64() * 1e3,
            self.metric,
            self.rise,
            if self.failures.is_empty() { "" } else { "   FAILED" },
        )
    }
}

/// Runs all rows, prints the table, and fails if honest deliveries or probes were affected too much.
pub async fn run() -> anyhow::Result<()> {
    enough_files(2 * CONNECTIONS);
    let secrets = tempfile::tempdir()?;
    for n in 0..SECRETS {
        std::fs::write(secrets.path().join(format!("{n:03}")), format!("wh_secret-number-{n}"))?;
    }
    let mut setup = Setup::new("datagrid");
    setup.http = format!("max_connections = {CONNECTIONS}\nmax_body_bytes = \"{BODY_MIB} MiB\"");
    setup.tables = format!(
        "[source.{}-many]\npreset = \"grapevine\"\nsecrets = [{{ dir = \"{}\" }}]",
        setup.source,
        secrets.path().display()
    );
    let mut seen = rows(&setup, None, &ROWS).await?;
    seen.extend(rows(&Setup::new("datagrid"), Some(FILES), &[FEW_FILES]).await?);
    println!(
        "\n{:<16} {:>13}   {:>13} {:>6}   {:>13}   metric",
        "ms", "quiet p50 p99", "with p50  p99", "limit", "livez readyz"
    );
    seen.iter().for_each(|seen| println!("{}", seen.line()));
    let failures: Vec<_> = seen.iter().flat_map(|seen| &seen.failures).map(String::as_str).collect();
    anyhow::ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Runs the rows on one service, whose provider delivers from the first to the last.
async fn rows(setup: &Setup, files: Option<u64>, rows: &[Row]) -> anyhow::Result<Vec<Outcome>> {
    let service = Service::ready_with(setup, files).await;
    let path = format!("/hooks/{}", setup.source);
    let client = || reqwest::Client::builder().timeout(PROVIDER_TIMEOUT).no_proxy();
    let mut honest = Honest::new(format!("http://{}{path}", service.hooks), client);
    honest.round("warm", SHORT).await;
    let mut all = Vec::new();
    for row in rows {
        let mut lost = Vec::new();
        for attempt in 1..=ATTEMPTS {
            println!("{}, attempt {attempt}", row.resource);
            let mut seen =
                watch(&service, &mut honest, &path, row, &format!("{}_{attempt}", all.len())).await?;
            lost.append(&mut seen.failures);
            let slow = slow_answers(&seen);
            let again = attempt < ATTEMPTS && !slow.is_empty() && lost.is_empty();
            slow.iter().for_each(|slow| println!("    {slow}"));
            if !again {
                seen.failures =
                    lost.into_iter().chain(slow).map(|why| format!("{}: {why}", row.resource)).collect();
                all.push(seen);
                break;
            }
        }
    }
    let found = kafka::all(&format!("{}.batch_prediction.completed", setup.source)).await;
    let found: BTreeSet<String> = found.into_iter().collect();
    println!("{} deliveries sent, {} events in the topic", honest.sent.len(), found.len());
    if found != honest.sent {
        let (missing, more) =
            (honest.sent.difference(&found).count(), found.difference(&honest.sent).count());
        let last = all.last_mut().context("a row")?;
        last.failures
            .push(format!("{missing} sent deliveries are not in the topic, and {more} unknown ones are"));
    }
    Ok(all)
}

/// Failures that a busy moment of the machine can cause.
fn slow_answers(seen: &Outcome) -> Vec<String> {
    let mut slow = Vec::new();
    let (p99, bound) = (percentile(&seen.attacked.all(), 99), seen.bound());
    if p99 > bound {
        slow.push(format!("p99 {p99:.0?} during the attack, but only {bound:.0?} allowed"));
    }
    for (name, slowest) in ["/livez", "/readyz"].into_iter().zip(seen.probes) {
        if slowest > PROBE {
            slow.push(format!("{name} took {slowest:.0?}"));
        }
    }
    slow
}

fn start(service: &Service, path: &str, (port, kinds, addresses): Group) -> Crowd {
    let (to, path) = match port {
        Port::Hooks => (service.hooks, path),
        Port::Admin => (service.admin, "/livez"),
    };
    Crowd::start(&Plan { to, path: path.into(), kinds: kinds.to_vec(), addresses, opens: OPENS })
}

/// Measures a quiet round and one with hostile clients. Its failures do not depend on how busy the machine is.
async fn watch(
    service: &Service,
    honest: &mut Honest,
    path: &str,
    row: &Row,
    name: &str,
) -> anyhow::Result<Outcome> {
    let (quiet, mut lost) = honest.try_round(&format!("quiet_{name}"), ROUND).await;
    let before = service.metrics().await.starting(row.metric);
    let crowds: Vec<Crowd> = row.strangers.iter().map(|group| start(service, path, *group)).collect();
    let mut rise = 0;
    for n in 0..ARRIVAL {
        let (_, failed) = honest.try_round(&format!("coming_{name}_{n}"), SHORT).await;
        lost.extend(failed);
        rise = service.metrics().await.starting(row.metric) - before;
        if rise > 0 {
            break;
        }
    }
    let with = format!("with_{name}");
    let ((attacked, failed), (probes, mut failures)) =
        tokio::join!(honest.try_round(&with, ROUND), probe(service.admin));
    lost.extend(failed);
    rise = (service.metrics().await.starting(row.metric) - before).max(rise);
    if let Err(error) = (row.also)(service) {
        failures.push(error.to_string());
    }
    crowds.iter().for_each(|crowd| println!("    {:?}", crowd.report()));
    drop(crowds);
    let (_, failed) = honest.try_round(&format!("going_{name}"), SHORT).await;
    lost.extend(failed);
    if let Some(first) = lost.first() {
        failures.push(format!("{} deliveries were not published, such as {first}", lost.len()));
    }
    if rise == 0 {
        failures.push(format!("{} did not rise", row.metric));
    }
    Ok(Outcome { resource: row.resource, quiet, attacked, probes, metric: row.metric, rise, failures })
}

/// Requests both probes for the time of a round, each time on a new connection. Returns the slowest answers, and every
/// failure.
async fn probe(admin: SocketAddr) -> ([Duration; 2], Vec<String>) {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PROVIDER_TIMEOUT)
        .pool_max_idle_per_host(0)
        .build()
        .unwrap();
    let (mut slowest, mut failures, start) = ([Duration::ZERO; 2], Vec::new(), Instant::now());
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    while start.elapsed() < ROUND {
        pace.tick().await;
        for (name, slowest) in ["livez", "readyz"].into_iter().zip(&mut slowest) {
            let begun = Instant::now();
            match client.get(format!("http://{admin}/{name}")).send().await {
                Ok(answer) if answer.status() == 200 => {}
                Ok(answer) => failures.push(format!("/{name} answered {}", answer.status())),
                Err(error) => failures.push(format!("/{name} did not answer: {error:?}")),
            }
            *slowest = begun.elapsed().max(*slowest);
        }
    }
    (slowest, failures)
}
