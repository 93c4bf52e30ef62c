//! Measures a group: its contenders are started once, and measured in turn in each round.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hookstream::names;

use crate::deliveries::{Requests, event_type};
use crate::kafka::Kafka;
use crate::load;
use crate::pace::{Latency, Pace, post};
use crate::plan::{Plan, Program, Variant};
use crate::process::{self, Process, address, ask, cpu_us, memory_kib, page, secret_variable};
use crate::results::Sample;

/// Seconds of load before the first round, to warm up code and open connections to Kafka.
const WARM_UP: f64 = 1.0;

/// Further seconds for each additional event type with traffic: a producer's first record in a partition takes the broker
/// milliseconds, and each type has six partitions.
const WARM_TYPE: f64 = 0.2;

/// Seconds before the measured part of each run at a fixed rate.
const WARM: f64 = 1.0;

/// The pause between two measurements, so that the last one's work can end.
const PAUSE: Duration = Duration::from_millis(300);

/// The timeout for the spool's row count, which is updated once a second.
const COUNT_TIMEOUT: Duration = Duration::from_secs(120);

/// The environment of all measurements.
pub struct World<'a> {
    pub kafka: &'a Kafka,
    pub registry: &'a str,
    pub dir: &'a Path,
}

/// Measures a plan, and calls `report` with each measurement.
pub fn run(
    world: &World<'_>,
    plan: &Plan,
    rounds: usize,
    seconds: f64,
    mut report: impl FnMut(&Sample),
) -> anyhow::Result<Vec<Sample>> {
    let mut contenders = Vec::new();
    for (n, variant) in plan.variants.iter().enumerate() {
        let source = format!("{}-{n}", plan.name);
        contenders.push(Running::start(world, variant, source).with_context(|| variant.name.clone())?);
    }
    if plan.rate.is_none() {
        for running in &contenders {
            let types = (running.variant.traffic - 1) as f64;
            running.load(Duration::from_secs_f64(WARM_UP + types * WARM_TYPE), || ())?;
        }
    }
    let mut samples = Vec::new();
    for round in 0..rounds {
        for running in &mut contenders {
            std::thread::sleep(PAUSE); // so that each measurement begins on an idle machine
            let sample = running.measure(world, round, plan.rate, seconds);
            let sample = sample.with_context(|| running.variant.name.clone())?;
            report(&sample);
            samples.push(sample);
        }
    }
    drop(contenders);
    world.kafka.clear()?;
    Ok(samples)
}

/// A running contender.
struct Running<'a> {
    variant: &'a Variant,
    /// `None` for the contender that is started for each measurement.
    process: Option<Process>,
    dir: PathBuf,
    hooks: SocketAddr,
    admin: SocketAddr,
    requests: Arc<Requests>,
    /// Topics with their number of partitions; empty for bare axum and for the spool.
    topics: Vec<(String, usize)>,
}

impl<'a> Running<'a> {
    fn start(world: &World<'_>, variant: &'a Variant, source: String) -> anyhow::Result<Self> {
        let dir = world.dir.join(&source);
        std::fs::create_dir_all(&dir)?;
        let (hooks, admin) = (address()?, address()?);
        std::fs::write(dir.join("hookstream.toml"), configuration(world, variant, &source, hooks, admin))?;
        let topics: Vec<String> =
            (0..variant.traffic).map(|n| names::topic(&source, &event_type(n))).collect();
        let requests = Requests::make(&source, variant.bytes, variant.traffic, variant.signing);
        let mut running = Self {
            variant,
            process: None,
            dir,
            hooks,
            admin,
            requests: Arc::new(requests),
            topics: Vec::new(),
        };
        if variant.program.is_given_topics() {
            world.kafka.create(&topics)?;
        }
        if variant.program != Program::Produce {
            let (program, arguments) = running.command(&topics)?;
            let secrets = variant.signing.secrets();
            running.process = Some(Process::start(&program, &arguments, secrets, &running.dir)?);
            running.ready()?;
        }
        if !variant.spool && !matches!(variant.program, Program::Axum | Program::StockAxum) {
            let all = world.kafka.topics()?;
            running.topics = all.into_iter().filter(|(topic, _)| names::source_of(topic) == source).collect();
        }
        Ok(running)
    }

    fn command(&self, topics: &[String]) -> anyhow::Result<(PathBuf, Vec<String>)> {
        let words = |words: &[&str]| words.iter().map(|word| String::from(*word)).collect::<Vec<_>>();
        let mut arguments = match self.variant.program {
            Program::Hookstream => {
                return Ok((process::hookstream(), words(&["serve", "-c", "hookstream.toml"])));
            }
            Program::Axum => words(&["axum"]),
            Program::StockAxum => words(&["axum", "--stock"]),
            Program::Relay => words(&["relay"]),
            Program::Least => words(&["least"]),
            Program::Produce => words(&["produce", "--bytes", &self.variant.bytes.to_string()]),
        };
        arguments.extend(words(&["-c", "hookstream.toml"]));
        if self.variant.program.is_given_topics() {
            arguments.extend(topics.iter().flat_map(|topic| [String::from("--topic"), topic.clone()]));
        }
        Ok((std::env::current_exe()?, arguments))
    }

    /// Waits until a delivery succeeds.
    fn ready(&mut self) -> anyhow::Result<()> {
        let Self { variant, hooks, admin, requests, process, .. } = self;
        let process = process.as_mut().context("no process")?;
        process.listens(*hooks)?;
        if variant.program == Program::Hookstream {
            process.ready(*admin)?;
        }
        let expected = if variant.spool { 202 } else { 200 };
        let first = requests.take(1);
        process.wait("its first delivery fails", || ask(*hooks, requests.get(first)) == Some(expected))
    }

    fn load(&self, time: Duration, started: impl FnOnce()) -> anyhow::Result<load::Ended> {
        load::run(self.hooks, self.variant.connections, self.variant.threads, &self.requests, time, started)
    }

    fn measure(
        &mut self,
        world: &World<'_>,
        round: usize,
        rate: Option<u32>,
        seconds: f64,
    ) -> anyhow::Result<Sample> {
        let Some(process) = &mut self.process else { return self.produce(world, round, rate, seconds) };
        process.runs()?;
        let service = process.pid();
        let before = self.count(world)?;
        let clock = || {
            let generator = std::process::id();
            Ok::<_, anyhow::Error>((cpu_us(service)?, cpu_us(world.kafka.pid)?, cpu_us(generator)?))
        };
        let (mut began, time) = (clock(), Duration::from_secs_f64(seconds));
        let (took, answers, latency) = match rate {
            None => {
                let ended = self.load(time, || began = clock())?;
                (ended.took, ended.answers, None)
            }
            Some(rate) => {
                let pace = Pace { rate, warm: Duration::from_secs_f64(WARM), time };
                let start = Instant::now();
                let latency = post(self.hooks, self.variant.connections, &self.requests, pace)?;
                (start.elapsed(), latency.answers.clone(), Some(latency))
            }
        };
        let (from, to) = (began?, clock()?);
        let (rss_kib, peak_kib) = memory_kib(service)?;
        let (good, failed): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|(status, _)| (200..300).contains(status));
        let answered = good.iter().map(|(_, count)| count).sum();
        let records = match before {
            Some(before) => Some(self.added(world, before, answered)?),
            None => None,
        };
        Ok(Sample {
            contender: self.variant.name.clone(),
            round,
            seconds: took.as_secs_f64(),
            answered,
            failed: failed.into_iter().collect(),
            records,
            service_us: to.0 - from.0,
            broker_us: to.1 - from.1,
            generator_us: to.2 - from.2,
            rss_kib,
            peak_kib,
            latency,
        })
    }

    /// The number of records or rows that were added to its topics or its spool.
    fn added(&self, world: &World<'_>, before: u64, expected: u64) -> anyhow::Result<u64> {
        let start = Instant::now();
        loop {
            let added = self.count(world)?.unwrap_or_default().saturating_sub(before);
            if added == expected || !self.variant.spool || start.elapsed() > COUNT_TIMEOUT {
                return Ok(added);
            }
            std::thread::sleep(Duration::from_millis(100)); // polls with a bound
        }
    }

    /// Records in its topics, or rows in its spool; `None` if it has neither.
    fn count(&self, world: &World<'_>) -> anyhow::Result<Option<u64>> {
        if self.variant.spool {
            let page = page(self.admin, "/metrics")?;
            let rows = "hookstream_spool_rows{state=\"live\"} ";
            let rows = page.lines().find_map(|line| line.strip_prefix(rows)?.trim().parse::<f64>().ok());
            return Ok(Some(rows.context("no metric of the spool's rows")? as u64));
        }
        if self.topics.is_empty() { Ok(None) } else { world.kafka.records(&self.topics).map(Some) }
    }

    /// Measures the contender without HTTP, a process for each measurement, which reports its own times.
    fn produce(
        &self,
        world: &World<'_>,
        round: usize,
        rate: Option<u32>,
        seconds: f64,
    ) -> anyhow::Result<Sample> {
        let (program, mut arguments) =
            self.command(&self.topics.iter().map(|(topic, _)| topic.clone()).collect::<Vec<_>>())?;
        let rate = rate.context("no rate")?;
        arguments.extend(["--rate".into(), rate.to_string(), "--warm".into(), WARM.to_string()]);
        arguments.extend(["--seconds".into(), seconds.to_string()]);
        let before = world.kafka.records(&self.topics)?;
        let (broker, start) = (cpu_us(world.kafka.pid)?, Instant::now());
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.dir).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.env(secret_variable(0), crate::deliveries::secret(0)).output()?;
        anyhow::ensure!(output.status.success(), "the contender ended with {}", output.status);
        let latency: Latency = serde_json::from_slice(&output.stdout).context("unreadable times")?;
        let answered = latency.answers.get(&200).copied().unwrap_or_default();
        Ok(Sample {
            contender: self.variant.name.clone(),
            round,
            seconds: start.elapsed().as_secs_f64(),
            answered,
            failed: latency.answers.clone().into_iter().filter(|(status, _)| *status != 200).collect(),
            records: Some(world.kafka.records(&self.topics)? - before),
            service_us: 0,
            broker_us: cpu_us(world.kafka.pid)? - broker,
            generator_us: 0,
            rss_kib: 0,
            peak_kib: 0,
            latency: Some(latency),
        })
    }
}

/// The configuration file of each contender; other settings have their defaults.
fn configuration(
    world: &World<'_>,
    variant: &Variant,
    source: &str,
    hooks: SocketAddr,
    admin: SocketAddr,
) -> String {
    // Nobody listens on port 1.
    let bootstrap = if variant.spool { "127.0.0.1:1" } else { &world.kafka.bootstrap };
    let mut text = format!(
        "[http]\nlisten = \"{hooks}\"\n[admin]\nlisten = \"{admin}\"\n[kafka]\nbootstrap_servers = \"{bootstrap}\"\n\
         [registry]\nurl = \"{}\"\n[kafka.properties]\n",
        world.registry
    );
    for (name, value) in &variant.properties {
        let _ = writeln!(text, "{name} = \"{value}\"");
    }
    if variant.spool {
        text.push_str("[spool]\ndir = \"spool\"\n");
    }
    let types: Vec<_> = (0..variant.types).map(|n| format!("\"{}\"", event_type(n))).collect();
    let secrets = 0..variant.signing.secrets();
    let secrets: Vec<_> = secrets.map(|n| format!("{{ env = \"{}\" }}", secret_variable(n))).collect();
    let _ = write!(
        text,
        "[source.{source}]\npreset = \"datagrid\"\ntypes = [{}]\nsecrets = [{}]\n",
        types.join(", "),
        secrets.join(", ")
    );
    text
}
