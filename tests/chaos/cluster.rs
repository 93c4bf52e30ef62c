//! A real Kafka of three nodes. Each is a process that can be killed, stopped and restarted, behind a forwarder whose port
//! it advertises.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::proxy::Proxy;
use crate::service::signal;
use crate::support::stack;

const NODES: usize = 3;

/// The timeout for a broker to start; three at once on two cores need 10 to 20 s.
const START: Duration = Duration::from_secs(90);

/// The three nodes.
#[derive(Debug)]
pub struct Cluster {
    /// The brokers; the index is the id minus one.
    pub brokers: Vec<Broker>,
}

/// One node, broker and controller.
#[derive(Debug)]
pub struct Broker {
    /// Between the service and the broker.
    pub proxy: Proxy,
    dir: PathBuf,
    direct: u16,
    child: Option<Child>,
}

impl Cluster {
    /// Formats and starts all three below `dir`, and returns when all have started.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let ports = ports(3 * NODES)?;
        let voters: Vec<String> =
            (0..NODES).map(|n| format!("{}@127.0.0.1:{}", n + 1, ports[3 * n])).collect();
        let mut brokers = Vec::new();
        for n in 0..NODES {
            let (controller, direct, client) = (ports[3 * n], ports[3 * n + 1], ports[3 * n + 2]);
            let proxy = Proxy::start(client).await?;
            let dir = dir.join(format!("broker-{}", n + 1));
            std::fs::create_dir_all(&dir)?;
            let advertised = proxy.address;
            let (id, voters, data) = (n + 1, voters.join(","), dir.join("data"));
            let text = format!(
                "process.roles=broker,controller\n\
                 node.id={id}\n\
                 controller.quorum.voters={voters}\n\
                 listeners=CLIENT://127.0.0.1:{client},DIRECT://127.0.0.1:{direct},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=CLIENT://{advertised},DIRECT://127.0.0.1:{direct}\n\
                 listener.security.protocol.map=CLIENT:PLAINTEXT,DIRECT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
                 controller.listener.names=CONTROLLER\n\
                 inter.broker.listener.name=DIRECT\n\
                 log.dirs={}\n\
                 auto.create.topics.enable=false\n\
                 offsets.topic.num.partitions=1\n\
                 log.initial.task.delay.ms=1000\n\
                 log.retention.check.interval.ms=1000\n",
                data.display()
            );
            std::fs::write(dir.join("server.properties"), text)?;
            brokers.push(Broker { proxy, dir, direct, child: None });
        }
        let mut formats = Vec::new();
        for broker in &brokers {
            let mut java = java("256m", &broker.dir.join("format.log"))?;
            java.args(["kafka.tools.StorageTool", "format", "-t", "ABEiM0RVZneImaq7zN3u_w", "-c"]);
            formats.push(java.arg(broker.dir.join("server.properties")).spawn()?);
        }
        for mut format in formats {
            anyhow::ensure!(format.wait()?.success(), "a broker's directory could not be formatted");
        }
        let mut cluster = Self { brokers };
        for n in 0..NODES {
            cluster.brokers[n].run()?;
        }
        cluster.wait().await?;
        Ok(cluster)
    }

    /// The address for the service.
    pub fn bootstrap(&self) -> String {
        let all: Vec<String> = self.brokers.iter().map(|broker| broker.proxy.address.to_string()).collect();
        all.join(",")
    }

    /// The address for checks, which bypasses the forwarders.
    pub fn direct(&self) -> String {
        let all: Vec<String> =
            self.brokers.iter().map(|broker| format!("127.0.0.1:{}", broker.direct)).collect();
        all.join(",")
    }

    /// Starts the brokers that are down, and waits until all have started.
    pub async fn heal(&mut self) -> anyhow::Result<()> {
        for broker in &mut self.brokers {
            if broker.child.is_none() {
                broker.run()?;
            }
        }
        self.wait().await
    }

    async fn wait(&self) -> anyhow::Result<()> {
        for broker in &self.brokers {
            broker.wait().await?;
        }
        Ok(())
    }
}

impl Broker {
    fn log(&self) -> PathBuf {
        self.dir.join("kafka.log")
    }

    fn run(&mut self) -> anyhow::Result<()> {
        if self.log().exists() {
            // A file for each run, since the start is recognised by a line in it.
            let old = (1..).map(|n| self.dir.join(format!("kafka-{n}.log"))).find(|path| !path.exists());
            std::fs::rename(self.log(), old.context("a name for the old log")?)?;
        }
        let mut java = java("384m", &self.log())?;
        java.arg("kafka.Kafka").arg(self.dir.join("server.properties"));
        self.child = Some(java.spawn()?);
        Ok(())
    }

    async fn wait(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let text = std::fs::read_to_string(self.log()).unwrap_or_default();
            if text.contains("Kafka Server started") {
                return Ok(());
            }
            anyhow::ensure!(
                start.elapsed() < START,
                "the broker does not start: see {}",
                self.log().display()
            );
            tokio::time::sleep(Duration::from_millis(50)).await; // polls with a bound
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP or SIGCONT: a stopped process keeps its connections, but does nothing.
    pub fn pause(&self, paused: bool) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("the broker is down")?;
        signal(child.id(), if paused { "STOP" } else { "CONT" })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Kafka's own programs, at a lower priority: starting brokers would use both cores, and the service is measured here.
fn java(memory: &str, log: &Path) -> anyhow::Result<Command> {
    let log = File::create(log)?;
    let mut java = Command::new("nice");
    java.args(["-n", "5"]).arg(stack("JAVA")).arg(format!("-Xmx{memory}")).arg("-XX:TieredStopAtLevel=1");
    let logging = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stack/log4j2-broker.properties");
    java.arg(format!("-Dlog4j2.configurationFile={}", logging.display()));
    java.args(["-cp", &format!("{}/*", stack("STACK_LIB"))]);
    java.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(java)
}

/// Free ports, each returned once, below the range of the system's outgoing connections.
pub fn ports(count: usize) -> anyhow::Result<Vec<u16>> {
    static NEXT: LazyLock<Mutex<Range<u16>>> =
        LazyLock::new(|| Mutex::new(20_000 + (std::process::id() % 8_000) as u16..32_000));
    let mut next = NEXT.lock().expect("not poisoned");
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let found: Vec<u16> = next.by_ref().filter(free).take(count).collect();
    anyhow::ensure!(found.len() == count, "cannot find {count} free ports");
    Ok(found)
}
