//! The crowd: hostile connections held by a process of its own, this executable once more. With
//! the service in the test's process both together would need twice the files of one process.

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

/// How the process is told what to hold.
const PLAN: &str = "HOOKSTREAM_TEST_CROWD";

/// What the lines of its report begin with.
const MARK: &str = "crowd ";

/// What a crowd holds, and against whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub to: SocketAddr,
    /// Of the source that honest clients send to.
    pub path: String,
    pub kinds: Vec<(Kind, usize)>,
    /// Connections are from the next of these in turn, so that neither the ports of one address run out nor
    /// all of them look like one client. Honest ones come from 127.0.0.1.
    pub addresses: usize,
    /// Connections that it opens in a second, the first ones and those that the service closed.
    pub opens: u32,
}

impl Plan {
    pub fn connections(&self) -> usize {
        self.kinds.iter().map(|(_, count)| count).sum()
    }

    /// Those that stay until the service ends them.
    pub fn lasting(&self) -> usize {
        self.kinds.iter().filter(|(kind, _)| *kind != Kind::Costly).map(|(_, count)| count).sum()
    }
}

/// What the crowd has seen so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Open now, by kind.
    pub open: BTreeMap<String, usize>,
    /// Opened so far; what is more than the plan was opened again.
    pub opened: usize,
    /// Connections that could not be opened.
    pub failed: usize,
    /// Answers by status, of the kinds that read any.
    pub answers: BTreeMap<String, usize>,
    /// Bytes that [`Kind::Costly`] has written.
    pub costly: usize,
    /// These in Mbit/s, all together, since the start.
    pub costly_mbit: f64,
}

impl Report {
    pub fn open(&self) -> usize {
        self.open.values().sum()
    }
}

/// A running crowd; gone, with all connections, when dropped.
pub struct Crowd {
    child: Child,
    report: Arc<Mutex<Report>>,
    // Its end tells the process that the test is gone, however that ended.
    _stdin: ChildStdin,
}

impl Crowd {
    pub fn start(plan: &Plan) -> Self {
        // Behind all others: in life its work is done elsewhere.
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
                        // Why it failed, if it did.
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

/// What all connections of the process share; one thread.
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

    /// So many bytes of [`Kind::Costly`].
    pub fn wrote(&self, bytes: usize) {
        let mut report = self.report.lock().unwrap();
        report.costly += bytes;
        report.costly_mbit = report.costly as f64 * 8e-6 / self.start.elapsed().as_secs_f64();
    }

    /// Waits for this connection's turn.
    async fn turn(&self) {
        let at = {
            let mut next = self.next.lock().unwrap();
            *next = (*next).max(Instant::now()) + Duration::from_secs(1) / self.plan.opens;
            *next
        };
        // The pace that connections are opened at.
        tokio::time::sleep_until(at).await;
    }

    /// One place of the crowd, for ever.
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
            // Ends with the connection; which end it was is nothing to a hostile client. The first
            // life is cut short somewhere, so that the ends are spread over the time as those of a
            // crowd that has been there for long.
            let life = first_life.take().unwrap_or(Duration::MAX);
            let _ = tokio::time::timeout(life, kind.act(stream, self, number)).await;
            self.change(kind, |open| *open -= 1);
        }
    }

    fn change(&self, kind: Kind, change: impl FnOnce(&mut usize)) {
        change(self.report.lock().unwrap().open.entry(format!("{kind:?}")).or_default());
    }
}

/// What this process is to hold, if it is the crowd's.
pub fn asked_for() -> Option<Plan> {
    std::env::var(PLAN).ok().map(|plan| serde_json::from_str(&plan).unwrap())
}

/// The crowd's process. Ends when its standard input does.
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
        // Mixed, always in the same way, and so each kind's evenly over the time that opening takes.
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

/// Room for as many connections in this process; what it starts has the same bound.
pub fn enough_files(connections: usize) {
    // Both processes need a few more, and the service has files of Kafka's and its own.
    let wanted = connections as u64 + 500;
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    assert!(
        limit >= wanted,
        "this test holds {connections} connections and needs {wanted} open files in a process; the hard limit \
         here is {limit}: raise it (ulimit -Hn {wanted} as root, or LimitNOFILE=) and run the test again"
    );
}
