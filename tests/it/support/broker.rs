//! A Kafka cluster of one or more nodes for a single test, which may kill and restart them.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

use super::stack;

/// The timeout for a broker to start; while a build runs, it may need a minute.
const START: Duration = Duration::from_secs(180);

/// Stopped, and deleted with its data, when dropped.
pub struct Broker {
    directory: TempDir,
    port: u16,
    runs: usize,
    child: Option<Child>,
}

impl Broker {
    /// Starts one node, and returns when it is ready.
    pub async fn start() -> Self {
        Self::start_with("auto.create.topics.enable=false\n").await
    }

    /// Like [`Self::start`] with further properties.
    pub async fn start_with(more: &str) -> Self {
        Self::cluster(1, more).await.remove(0)
    }

    /// Starts this many nodes with ids from 1, and returns when all are ready.
    pub async fn cluster(nodes: usize, more: &str) -> Vec<Self> {
        // All ports are reserved at the same time, so that they differ.
        let held: Vec<TcpListener> =
            (0..2 * nodes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        drop(held);
        let voter = |n: usize| format!("{}@127.0.0.1:{}", n + 1, ports[2 * n]);
        let voters = (0..nodes).map(voter).collect::<Vec<_>>().join(",");
        let mut brokers: Vec<Self> = (0..nodes)
            .map(|n| {
                let directory = tempfile::tempdir().unwrap();
                let (controller, port, id) = (ports[2 * n], ports[2 * n + 1], n + 1);
                let text = format!(
                    "process.roles=broker,controller\n\
                     node.id={id}\n\
                     controller.quorum.voters={voters}\n\
                     listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                     advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
                     listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
                     controller.listener.names=CONTROLLER\n\
                     log.dirs={}\n\
                     offsets.topic.replication.factor=1\n\
                     offsets.topic.num.partitions=1\n\
                     {more}",
                    directory.path().join("data").display()
                );
                std::fs::write(directory.path().join("server.properties"), text).unwrap();
                Self { directory, port, runs: 0, child: None }
            })
            .collect();
        let format = ["kafka.tools.StorageTool", "format", "-t", "ABEiM0RVZneImaq7zN3u_w", "-c"];
        let formats: Vec<Child> = brokers.iter().map(|broker| broker.java("format.log", &format)).collect();
        let formatted = move || formats.into_iter().all(|mut format| format.wait().unwrap().success());
        assert!(tokio::task::spawn_blocking(formatted).await.unwrap());
        // All concurrently, since a node is ready only with the others.
        futures_util::future::join_all(brokers.iter_mut().map(Self::run)).await;
        brokers
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts a node again.
    pub async fn run(&mut self) {
        self.runs += 1;
        let log = format!("kafka-{}.log", self.runs);
        self.child = Some(self.java(&log, &["kafka.Kafka"]));
        let log = self.directory.path().join(log);
        let serves = async {
            while !std::fs::read_to_string(&log).unwrap().contains("Kafka Server started") {
                tokio::time::sleep(Duration::from_millis(50)).await; // polls with a bound
            }
        };
        timeout(START, serves).await.expect("the broker's start");
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Runs one of Kafka's own programs with the broker's properties as its last argument.
    fn java(&self, log: &str, arguments: &[&str]) -> Child {
        let log = File::create(self.directory.path().join(log)).unwrap();
        let logging = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stack/log4j2-broker.properties");
        Command::new(stack("JAVA"))
            .args(["-Xmx384m", "-XX:TieredStopAtLevel=1"])
            .arg(format!("-Dlog4j2.configurationFile={}", logging.display()))
            .args(["-cp", &format!("{}/*", stack("STACK_LIB"))])
            .args(arguments)
            .arg(self.directory.path().join("server.properties"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
