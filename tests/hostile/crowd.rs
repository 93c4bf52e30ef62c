//! The crowd: hostile connections of another process of this executable. The honest clients are in the test's process; in
//! one process, both together would need too many open files.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::clients::{Kind, connect};

/// The environment variable with the plan for the process.
const PLAN: &str = "HOOKSTREAM_TEST_CROWD";

/// The prefix of its report lines.
const MARK: &str = "crowd ";

/// The connections of a crowd and their target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub to: SocketAddr,
    /// The path of the source that honest clients use.
    pub path: String,
    pub kinds: Vec<(Kind, usize)>,
    /// The number of client addresses, used in turn, so that the ports of one address suffice and the connections do
    /// not look like one client. Honest clients use 127.0.0.1.
    pub addresses: usize,
    /// The maximum rate of opening connections per second, at first and to replace closed ones.
    pub opens: u32,
}

impl Plan {
    pub fn connections(&self) -> usize {
        self.kinds.iter().map(|(_, count)| count).sum()
    }

    /// The number of connections that last until the service closes them.
    pub fn lasting(&self) -> usize {
        self.kinds.iter().filter(|(kind, _)| *kind != Kind::Costly).map(|(_, count)| count).sum()
    }
}

/// The crowd's counts so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Open connections by kind.
    pub open: BTreeMap<String, usize>,
    /// Connections opened so far; more than planned if some were reopened.
    pub opened: usize,
    /// Connections that could not be opened.
    pub failed: usize,
    /// Answers by status, for the kinds that read them.
    pub answers: BTreeMap<String, usize>,
    /// Bytes sent by [`Kind::Costly`].
    pub costly: usize,
    /// The average rate of these bytes since the start, in Mbit/s.
    pub costly_mbit: f64,
}

impl Report {
    pub fn open(&self) -> usize {
        self.open.values().sum()
    }
}

/// A running crowd; dropping it ends its process and connections.
pub struct Crowd {
    child: Child,
    report: Arc<Mutex<Report>>,
    // Closes when the test ends, however it ends, which ends the process.
    _stdin: ChildStdin,
}

impl Crowd {
    pub fn start(plan: &Plan) -> Self {
        // At the lowest priority: real attackers use other machines.
        let mut child = Command::new("nice")
            .args(["-n", "19"])
            .arg(std::env::current_exe().unwrap())
            .env(PLAN, serde_json::to_string(plan).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let report = Arc::new(Mutex::new(Report::default()));
        std::thread::spawn({
            let report = report.clone();
            move || {
                for line in lines.map_while(Result::ok) {
                    match line.strip_prefix(MARK) {
                        Some(text) => *report.lock().unwrap() = serde_json::from_str(text).unwrap(),
                        // An error message of the process.
                        None => println!("crowd: {line}"),
                    }
                }
            }
        });
        let stdin = child.stdin.take().unwrap();
        Self { child, report, _stdin: stdin }
    }

    pub fn report(&self) -> Report {
        self.report.lock().unwrap().clone()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The state that all connections of the process share; it has one thread.
pub struct Shared {
    pub plan: Plan,
    report: Mutex<Report>,
    next: Mutex<Instant>,
    start: Instant,
}

impl Shared {
    pub fn answered(&self, status: &str) {
        *self.report.lock().unwrap().answers.entry(status.to_owned()).or_default() += 1;
    }

    /// Counts bytes sent by [`Kind::Costly`].
    pub fn wrote(&self, bytes: usize) {
        let mut report = self.report.lock().unwrap();
        report.costly += bytes;
        report.costly_mbit = report.costly as f64 * 8e-6 / self.start.elapsed().as_secs_f64();
    }

    /// Waits until this connection may be opened.
    async fn turn(&self) {
        let at = {
            let mut next = self.next.lock().unwrap();
            *next = (*next).max(Instant::now()) + Duration::from_secs(1) / self.plan.opens;
            *next
        };
        // The rate of opening connections.
        tokio::time::sleep_until(at).await;
    }

    /// Keeps one connection of the crowd open, and reopens it forever.
    async fn hold(&self, kind: Kind, number: usize) {
        let from = format!("127.0.0.{}:0", 2 + number % self.plan.addresses).parse().unwrap();
        let mut first_life = Some(kind.lifetime().mul_f64(fastrand::f64()));
        loop {
            self.turn().await;
            let Ok(stream) = connect(kind, from, self.plan.to).await else {
                self.report.lock().unwrap().failed += 1;
                continue;
            };
            self.change(kind, |open| *open += 1);
            self.report.lock().unwrap().opened += 1;
            // How a connection ends does not matter. The first one of each client ends early at random, so that the ends are
            // spread over time as in a long-running crowd.
            let life = first_life.take().unwrap_or(Duration::MAX);
            let _ = tokio::time::timeout(life, kind.act(stream, self, number)).await;
            self.change(kind, |open| *open -= 1);
        }
    }

    fn change(&self, kind: Kind, change: impl FnOnce(&mut usize)) {
        change(self.report.lock().unwrap().open.entry(format!("{kind:?}")).or_default());
    }
}

/// The plan, if this is the crowd's process.
pub fn plan_from_environment() -> Option<Plan> {
    std::env::var(PLAN).ok().map(|plan| serde_json::from_str(&plan).unwrap())
}

/// Runs the crowd's process, which ends when its standard input is closed.
pub fn run(plan: Plan) {
    enough_files(plan.connections());
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (report, start) = (Mutex::default(), Instant::now());
        let shared = Rc::new(Shared { plan, report, next: Mutex::new(start), start });
        let mut all: Vec<_> =
            shared.plan.kinds.iter().flat_map(|(kind, count)| (0..*count).map(|n| (*kind, n))).collect();
        // Shuffled with a fixed seed, so that each kind is spread evenly over the time of opening.
        fastrand::Rng::with_seed(7).shuffle(&mut all);
        for (kind, number) in all {
            let shared = shared.clone();
            tokio::task::spawn_local(async move { shared.hold(kind, number).await });
        }
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            println!("{MARK}{}", serde_json::to_string(&*shared.report.lock().unwrap()).unwrap());
        }
    });
}

/// Raises the limit of open files for this many connections; child processes inherit it.
pub fn enough_files(connections: usize) {
    // Both processes need a few more, and the service has its own files and Kafka's connections.
    let wanted = connections as u64 + 500;
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    assert!(
        limit >= wanted,
        "this test opens {connections} connections and needs {wanted} open files in a process, but the hard limit \
         here is {limit}: raise it (ulimit -Hn {wanted} as root, or LimitNOFILE=) and run the test again"
    );
}
