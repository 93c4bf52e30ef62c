//! Wrong clocks and long outages, on a Kafka that removes expired records immediately. The service is the real program;
//! only its clock is wrong.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::broker::Broker;
use crate::support::clock::Clock;
use crate::support::process::{Log, Process, serve_under};
use crate::support::{PATIENCE, SECRET, Setup, batch, datagrid, hmac_with, kafka, metric, unique, until};

/// Makes Kafka check for expired records continuously instead of after 30 s and then every 5 minutes.
const QUICK_RETENTION: &str =
    "auto.create.topics.enable=false\nlog.initial.task.delay.ms=100\nlog.retention.check.interval.ms=200\n";

const RIGHT: SignedDuration = SignedDuration::ZERO;
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// The program, and a broker only for this test.
struct World {
    setup: Setup,
    clock: Clock,
    directory: TempDir,
    program: Option<(Process, String, String, Log)>,
    client: reqwest::Client,
}

impl World {
    fn new(broker: &Broker, off: SignedDuration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut setup = Setup::new("datagrid");
        setup.kafka = broker.bootstrap();
        setup.rules = "types = [\"batch_prediction.completed\"]\n".into();
        setup.tables = format!(
            "[spool]\nmin_free = \"1 MiB\"\ndir = \"{}\"\n",
            directory.path().join("spool").display()
        );
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap();
        Self { setup, clock: Clock::off(off), directory, program: None, client }
    }

    fn topic(&self) -> String {
        format!("{}.batch_prediction.completed", self.setup.source)
    }

    fn letters(&self) -> String {
        format!("dead_letter.{}", self.setup.source)
    }

    /// Creates the topics with the producer's timestamps, as older versions and other tools do.
    async fn topics_by_create_time(&self, retention: SignedDuration) {
        for topic in [self.topic(), self.letters()] {
            create(&self.setup.kafka, &topic, retention).await;
        }
    }

    async fn start(&mut self) {
        let config: PathBuf = self.directory.path().join("hookstream.toml");
        std::fs::write(&config, self.setup.toml()).unwrap();
        let clock = self.clock.command();
        let started = tokio::task::spawn_blocking(move || serve_under(&config, &clock));
        self.program = Some(started.await.unwrap());
        until("readiness", async || {
            let ready = self.ready().await;
            ["kafka", "topics", "schemas"].iter().all(|part| ready["parts"][part]["state"] == "ok")
        })
        .await;
    }

    async fn ready(&self) -> Value {
        let url = format!("http://{}/readyz", self.program.as_ref().unwrap().2);
        self.client.get(url).send().await.unwrap().json().await.unwrap()
    }

    async fn metric(&self, name: &str) -> f64 {
        let url = format!("http://{}/metrics", self.program.as_ref().unwrap().2);
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        metric(&text, name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Sends all concurrently, so that they share batches. Each must be answered 200 or 202.
    async fn send_at_once(&self, ids: &[String]) {
        let answers = ids.iter().map(async |id| self.send(std::iter::once(id.clone())).await);
        futures_util::future::join_all(answers).await;
    }

    /// The number of answers 200 and 202. No other status may occur.
    async fn send(&self, ids: impl Iterator<Item = String>) -> [usize; 2] {
        let url = format!("http://{}/hooks/{}", self.program.as_ref().unwrap().1, self.setup.source);
        let mut answers = [0; 2];
        for id in ids {
            let body = batch(&id);
            let request = self.client.post(&url).header("Datagrid-Signature", datagrid(body.as_bytes()));
            let answer = request.body(body).send().await.unwrap();
            match answer.status().as_u16() {
                200 => answers[0] += 1,
                202 => answers[1] += 1,
                _ => panic!("{id}: {answer:?}"),
            }
        }
        answers
    }

    /// From `/status`, since the metric is updated only once a second.
    async fn drained(&self) {
        let url = format!("http://{}/status", self.program.as_ref().unwrap().2);
        until("an empty spool", async || {
            let status: Value = self.client.get(&url).send().await.unwrap().json().await.unwrap();
            assert_eq!(status["spool"]["parked"], 0);
            status["spool"]["live"] == 0
        })
        .await;
    }

    /// The event ids in the topic, in order.
    async fn ids(&self) -> Vec<String> {
        let mut ids = keys(&self.setup.kafka, &self.topic()).await;
        ids.sort();
        ids.dedup();
        ids
    }
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("evt_{n:03}")).collect()
}

async fn keys(bootstrap: &str, topic: &str) -> Vec<String> {
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || kafka::read(&bootstrap, &topic)).await.unwrap()
}

async fn create(bootstrap: &str, topic: &str, retention: SignedDuration) {
    let retention = retention.as_millis().to_string();
    let settings = [
        ("retention.ms", retention.as_str()),
        ("message.timestamp.type", "CreateTime"),
        ("cleanup.policy", "compact,delete"),
    ];
    kafka::create_on(bootstrap, topic, 1, &settings).await;
}

/// Waits until Kafka has checked all topics once more, and removed records older than `retention`.
async fn retention_has_run(bootstrap: &str, retention: SignedDuration) {
    let topic = unique("old");
    create(bootstrap, &topic, retention).await;
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    // Twice, since it may check this topic before the others.
    for _ in 0..2 {
        let old = Timestamp::now() - retention - HOUR;
        let record = FutureRecord::to(&topic).key("old").payload("{}").timestamp(old.as_millisecond());
        producer.send(record, PATIENCE).await.unwrap();
        until("the removal of an old record", async || keys(bootstrap, &topic).await.is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_a_clock_60_days_behind_removes_no_acknowledged_record() {
    let month = SignedDuration::from_hours(30 * 24);
    let broker = Broker::start_with(QUICK_RETENTION).await;
    // Topics that the service creates, and existing ones: only the registry shows whose clock they use.
    for existing in [false, true] {
        let mut world = World::new(&broker, -SignedDuration::from_hours(60 * 24));
        if existing {
            world.topics_by_create_time(month).await;
        }
        world.start().await;
        assert_eq!(world.send(ids(20).into_iter()).await, [20, 0]);
        retention_has_run(&broker.bootstrap(), month).await;
        assert_eq!(world.ids().await, ids(20), "existing topics: {existing}");
        // The service reports the wrong clock until it is right.
        let reference = if existing { "the registry's" } else { "Kafka's" };
        until("a clock that is off", async || {
            let ready = world.ready().await;
            let (state, why) = (&ready["parts"]["clock"]["state"], &ready["parts"]["clock"]["why"]);
            let why = why.as_str().unwrap_or_default();
            state == "degraded"
                && why.starts_with("hookstream's clock is 14")
                && why.contains(&format!("behind {reference}"))
        })
        .await;
        let offset = format!(
            "hookstream_clock_offset_seconds{{reference=\"{}\"}}",
            if existing { "registry" } else { "kafka" }
        );
        let off = world.metric(&offset).await + 60.0 * 86_400.0;
        assert!(off.abs() < 120.0, "{off}");
        world.clock.set(RIGHT);
        until("a report that the clock is right", async || {
            world.ready().await["parts"]["clock"]["state"] == "ok"
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_an_outage_longer_than_the_retention_removes_no_drained_record() {
    let retention = SignedDuration::from_mins(10);
    let mut broker = Broker::start_with(QUICK_RETENTION).await;
    // The deliveries are received an hour before the broker returns.
    let mut world = World::new(&broker, -HOUR);
    world.topics_by_create_time(retention).await;
    world.start().await;
    broker.kill();
    assert_eq!(world.send(ids(30).into_iter()).await, [0, 30]);
    world.clock.set(RIGHT);
    broker.run().await;
    world.drained().await;
    retention_has_run(&broker.bootstrap(), retention).await;
    assert_eq!(world.ids().await, ids(30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k2b_a_clock_2_hours_ahead_refuses_and_parks_nothing_and_shows_in_readiness() {
    let broker = Broker::start().await;
    for existing in [false, true] {
        let mut world = World::new(&broker, 2 * HOUR);
        if existing {
            world.topics_by_create_time(SignedDuration::from_hours(1_000)).await;
        }
        world.start().await;
        let [direct, spooled] = world.send(ids(20).into_iter()).await;
        assert_eq!(direct + spooled, 20);
        assert!(existing || spooled == 0, "Kafka stamps what it appends");
        world.drained().await;
        assert_eq!(world.ids().await, ids(20), "existing topics: {existing}");
        until("a clock that is off", async || {
            let ready = world.ready().await;
            let why = ready["parts"]["clock"]["why"].as_str().unwrap_or_default().to_owned();
            ready["status"] == "degraded"
                && why.starts_with("hookstream's clock is")
                && why.contains("ahead of")
        })
        .await;
        world.clock.set(RIGHT);
        assert_eq!(world.send(ids(21).into_iter().skip(20)).await.iter().sum::<usize>(), 1);
        world.drained().await;
        assert_eq!(world.ids().await, ids(21), "existing topics: {existing}");
    }
}

/// librdkafka reports `InvalidRecord` for each of several records of a batch that the broker refuses for their timestamps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k2b_batches_with_wrong_timestamps_are_neither_dead_lettered_nor_parked() {
    let broker = Broker::start().await;
    let mut world = World::new(&broker, 2 * HOUR);
    world.topics_by_create_time(SignedDuration::from_hours(1_000)).await;
    world.start().await;
    let all = ids(300);
    world.send_at_once(&all).await;
    world.drained().await;
    assert!(keys(&world.setup.kafka, &world.letters()).await.is_empty(), "dead letters");
    assert_eq!(world.ids().await, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_a_clock_that_jumps_back_and_forth_stops_nothing() {
    let broker = Broker::start_with(QUICK_RETENTION).await;
    let mut world = World::new(&broker, RIGHT);
    world.start().await;
    let all = ids(30);
    for (n, off) in [2 * HOUR, -SignedDuration::from_hours(60 * 24), RIGHT].into_iter().enumerate() {
        world.clock.set(off);
        let began = std::time::Instant::now();
        let some = all[10 * n..10 * (n + 1)].to_vec();
        assert_eq!(world.send(some.into_iter()).await, [10, 0], "{off:#}");
        assert!(began.elapsed() < Duration::from_secs(20), "a thread slept until the clock was right again");
    }
    assert_eq!(world.ids().await, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_delivery_is_refused_as_stale_while_the_clock_is_known_to_be_wrong() {
    let broker = Broker::start().await;
    let mut world = World::new(&broker, 2 * HOUR);
    world.setup.rules += "stale = \"reject\"\n";
    world.start().await;
    until("a clock that is off", async || world.ready().await["parts"]["clock"]["state"] == "degraded").await;
    let url = format!("http://{}/hooks/{}", world.program.as_ref().unwrap().1, world.setup.source);
    let body = batch("evt_000");
    let post = async |secret: &str, ago: SignedDuration| {
        let time = (Timestamp::now() - ago).as_second();
        let signature = format!("t={time},v1={}", hmac_with(secret, format!("{time}.{body}").as_bytes()));
        let request = world.client.post(&url).header("Datagrid-Signature", signature).body(body.clone());
        let answer = request.send().await.unwrap();
        let again = answer.headers().contains_key("retry-after");
        (answer.status().as_u16(), again, answer.json::<Value>().await.unwrap()["reason"].clone())
    };
    assert_eq!(post(SECRET, RIGHT).await, (503, true, "clock_off".into()));
    // A sender without a valid signature is not asked to retry.
    assert_eq!(post("another", RIGHT).await.0, 401);
    world.clock.set(RIGHT);
    assert!(matches!(post(SECRET, RIGHT).await.0, 200 | 202));
    assert_eq!(post(SECRET, 2 * HOUR).await.0, 401, "a stale delivery");
}
