//! The exhaustion matrix: strangers without a secret use up one resource after the other, while a provider delivers at
//! a steady rate and somebody asks the probes.
//!
//! The strangers are a process of their own (`tests/hostile/crowd.rs`) at nice 19: in life their work is done elsewhere.
//! Files have a service of their own, since their limit is that of a process. Each row can be looked at more than once:
//! what is wrong shows each time, a busy moment of the machine does not. What is lost counts each time.

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

/// Deliveries in each measured round: 100 a second for so long.
const ROUND: Duration = Duration::from_secs(5);

/// The rounds beside them: while strangers come, and while they go.
const SHORT: Duration = Duration::from_secs(1);

/// For a metric to say what goes on, in rounds of [`SHORT`].
const ARRIVAL: usize = 10;

/// The p99 may be twice the quiet one, and always this much above it: a turn or two of others on the same core. What
/// these rows were before they were mended is seconds.
const RATIO: u32 = 2;
const FLOOR: Duration = Duration::from_millis(100);

/// For a probe, from its connection to its answer.
const PROBE: Duration = Duration::from_secs(1);

/// Connections that each group of strangers opens in a second.
const OPENS: u32 = 500;

/// Looks at a row, at most.
const LOOKS: usize = 3;

/// The bounds of the service: small, so that strangers can meet them.
const CONNECTIONS: usize = 400;
const BODY_MIB: usize = 32;

/// Open files of the service that has few, and secrets of the source that is costly.
const FILES: u64 = 320;
const SECRETS: usize = 100;

/// The formula of docs/operations.md without the producer's queue, which is empty here, in KiB.
const MEMORY: usize = 64 * 1024 + 40 * CONNECTIONS + 2 * 1024 * BODY_MIB;

#[derive(Clone, Copy)]
enum Port {
    Hooks,
    Admin,
}

/// Strangers at a port, and from how many addresses.
type Group = (Port, &'static [(Kind, usize)], usize);

/// A resource, and who uses it up.
struct Row {
    resource: &'static str,
    strangers: &'static [Group],
    /// How the metric's line begins that tells of it.
    metric: &'static str,
    /// What else must be so while it goes on.
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
            anyhow::ensure!(resident <= MEMORY, "{resident} KiB resident, and {MEMORY} KiB are allowed");
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
        anyhow::ensure!(service.said("Too many open files") == 0, "it ran out of files");
        anyhow::ensure!(
            service.said("lowered from 10000 to") == 1,
            "nothing says that connections are fewer"
        );
        Ok(())
    },
};

/// What was seen of a row.
struct Seen {
    resource: &'static str,
    quiet: Times,
    attacked: Times,
    /// Slowest answers of /livez and /readyz.
    probes: [Duration; 2],
    metric: &'static str,
    moved: usize,
    /// What must not be; empty where all is well.
    wrong: Vec<String>,
}

impl Seen {
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
            self.moved,
            if self.wrong.is_empty() { "" } else { "   FAILED" },
        )
    }
}

/// Runs it, prints the table, and fails where honest deliveries or probes noticed more than they may.
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
        "\n{:<16} {:>13}   {:>13} {:>6}   {:>13}   what tells",
        "ms", "quiet p50 p99", "with p50  p99", "bound", "livez readyz"
    );
    seen.iter().for_each(|seen| println!("{}", seen.line()));
    let wrong: Vec<_> = seen.iter().flat_map(|seen| &seen.wrong).map(String::as_str).collect();
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// All these on one service, whose provider goes on from the first to the last.
async fn rows(setup: &Setup, files: Option<u64>, rows: &[Row]) -> anyhow::Result<Vec<Seen>> {
    let service = Service::ready_with(setup, files).await;
    let path = format!("/hooks/{}", setup.source);
    let client = || reqwest::Client::builder().timeout(PROVIDER_TIMEOUT).no_proxy();
    let mut honest = Honest::new(format!("http://{}{path}", service.hooks), client);
    honest.round("warm", SHORT).await;
    let mut all = Vec::new();
    for row in rows {
        let mut lost = Vec::new();
        for look in 1..=LOOKS {
            println!("{}, look {look}", row.resource);
            let mut seen = watch(&service, &mut honest, &path, row, &format!("{}_{look}", all.len())).await?;
            lost.append(&mut seen.wrong);
            let noticed = judge(&seen);
            let again = look < LOOKS && !noticed.is_empty() && lost.is_empty();
            noticed.iter().for_each(|noticed| println!("    {noticed}"));
            if !again {
                seen.wrong =
                    lost.into_iter().chain(noticed).map(|why| format!("{}: {why}", row.resource)).collect();
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
        last.wrong.push(format!("of what was sent {missing} are not in the topic, and {more} others are"));
    }
    Ok(all)
}

/// What may be a busy moment of the machine.
fn judge(seen: &Seen) -> Vec<String> {
    let mut noticed = Vec::new();
    let (p99, bound) = (percentile(&seen.attacked.all(), 99), seen.bound());
    if p99 > bound {
        noticed.push(format!("p99 {p99:.0?} with strangers, and {bound:.0?} are allowed"));
    }
    for (name, slowest) in ["/livez", "/readyz"].into_iter().zip(seen.probes) {
        if slowest > PROBE {
            noticed.push(format!("{name} took {slowest:.0?}"));
        }
    }
    noticed
}

fn start(service: &Service, path: &str, (port, kinds, addresses): Group) -> Crowd {
    let (to, path) = match port {
        Port::Hooks => (service.hooks, path),
        Port::Admin => (service.admin, "/livez"),
    };
    Crowd::start(&Plan { to, path: path.into(), kinds: kinds.to_vec(), addresses, opens: OPENS })
}

/// One quiet round and one with strangers. What it calls wrong is wrong however busy the machine is.
async fn watch(
    service: &Service,
    honest: &mut Honest,
    path: &str,
    row: &Row,
    name: &str,
) -> anyhow::Result<Seen> {
    let (quiet, mut lost) = honest.try_round(&format!("quiet_{name}"), ROUND).await;
    let before = service.metrics().await.starting(row.metric);
    let crowds: Vec<Crowd> = row.strangers.iter().map(|group| start(service, path, *group)).collect();
    let mut moved = 0;
    for n in 0..ARRIVAL {
        let (_, failed) = honest.try_round(&format!("coming_{name}_{n}"), SHORT).await;
        lost.extend(failed);
        moved = service.metrics().await.starting(row.metric) - before;
        if moved > 0 {
            break;
        }
    }
    let with = format!("with_{name}");
    let ((attacked, failed), (probes, mut wrong)) =
        tokio::join!(honest.try_round(&with, ROUND), probe(service.admin));
    lost.extend(failed);
    moved = (service.metrics().await.starting(row.metric) - before).max(moved);
    if let Err(error) = (row.also)(service) {
        wrong.push(error.to_string());
    }
    crowds.iter().for_each(|crowd| println!("    {:?}", crowd.report()));
    drop(crowds);
    let (_, failed) = honest.try_round(&format!("going_{name}"), SHORT).await;
    lost.extend(failed);
    if let Some(first) = lost.first() {
        wrong.push(format!("{} deliveries were not published, such as {first}", lost.len()));
    }
    if moved == 0 {
        wrong.push(format!("{} says nothing of it", row.metric));
    }
    Ok(Seen { resource: row.resource, quiet, attacked, probes, metric: row.metric, moved, wrong })
}

/// Asks both probes for the time of a round, each on a connection of its own: the slowest answers, and what was no 200.
async fn probe(admin: SocketAddr) -> ([Duration; 2], Vec<String>) {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PROVIDER_TIMEOUT)
        .pool_max_idle_per_host(0)
        .build()
        .unwrap();
    let (mut slowest, mut wrong, start) = ([Duration::ZERO; 2], Vec::new(), Instant::now());
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    while start.elapsed() < ROUND {
        pace.tick().await;
        for (name, slowest) in ["livez", "readyz"].into_iter().zip(&mut slowest) {
            let begun = Instant::now();
            match client.get(format!("http://{admin}/{name}")).send().await {
                Ok(answer) if answer.status() == 200 => {}
                Ok(answer) => wrong.push(format!("/{name} answered {}", answer.status())),
                Err(error) => wrong.push(format!("/{name} did not answer: {error:?}")),
            }
            *slowest = begun.elapsed().max(*slowest);
        }
    }
    (slowest, wrong)
}
