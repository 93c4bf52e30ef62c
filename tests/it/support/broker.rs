//! A Kafka of one node for one test, which it may kill and start again.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

use super::stack;

/// For a broker to serve; beside a build it needs a minute.
const START: Duration = Duration::from_secs(180);

/// Gone, with its data, when dropped.
pub struct Broker {
    directory: TempDir,
    port: u16,
    runs: usize,
    child: Option<Child>,
}

impl Broker {
    /// Ready when it says that it serves.
    pub async fn start() -> Self {
        // Held together, so that they differ.
        let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, controller] = held.each_ref().map(|listener| listener.local_addr().unwrap().port());
        drop(held);
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\n\
             log.dirs={}\n\
             auto.create.topics.enable=false\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\n",
            directory.path().join("data").display()
        );
        std::fs::write(directory.path().join("server.properties"), text).unwrap();
        let mut broker = Self { directory, port, runs: 0, child: None };
        let format = ["kafka.tools.StorageTool", "format", "-t", "ABEiM0RVZneImaq7zN3u_w", "-c"];
        let mut format = broker.java("format.log", &format);
        assert!(tokio::task::spawn_blocking(move || format.wait().unwrap().success()).await.unwrap());
        broker.run().await;
        broker
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it once more.
    pub async fn run(&mut self) {
        self.runs += 1;
        let log = format!("kafka-{}.log", self.runs);
        self.child = Some(self.java(&log, &["kafka.Kafka"]));
        let log = self.directory.path().join(log);
        let serves = async {
            while !std::fs::read_to_string(&log).unwrap().contains("Kafka Server started") {
                tokio::time::sleep(Duration::from_millis(50)).await; // a poll, bounded
            }
        };
        timeout(START, serves).await.expect("the broker serves");
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// One of Kafka's own programs, with the broker's properties as its last argument.
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
