//! A topic whose key identifies several events starts to compact while its rows are in the spool.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use hookstream::config::Properties;
use hookstream::kafka::{Admin, Alteration, ClusterConfig};
use rdkafka::message::{Headers as _, Message as _};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::broker::Broker;
use crate::support::process::{Process, serve};
use crate::support::{PATIENCE, SECRET, Setup, batch, datagrid, kafka, metric, stack, until};

/// A running service, or a `serve --drain-only`, by its addresses.
struct Running {
    hooks: String,
    admin: String,
    source: String,
    client: reqwest::Client,
}

impl Running {
    async fn get(&self, path: &str) -> Option<String> {
        let answer = self.client.get(format!("http://{}{path}", self.admin)).send().await.ok()?;
        answer.text().await.ok()
    }

    async fn part(&self, part: &str) -> Value {
        let ready = self.get("/readyz").await.unwrap_or_default();
        serde_json::from_str::<Value>(&ready).unwrap_or_default()["parts"][part].clone()
    }

    async fn metric(&self, name: &str) -> Option<f64> {
        metric(&self.get("/metrics").await?, name)
    }

    async fn post(&self, body: String) -> u16 {
        let request = self.client.post(format!("http://{}/hooks/{}", self.hooks, self.source));
        let signature = datagrid(body.as_bytes());
        request.header("datagrid-signature", signature).body(body).send().await.unwrap().status().as_u16()
    }
}

/// Deliveries of the type whose key is `/data/id`; all have the same key.
fn failed(id: &str) -> String {
    batch(id).replace("prediction.completed", "prediction.failed")
}

async fn set_policy(bootstrap: &str, topic: &str, policy: &str) {
    let admin = Admin::new(&ClusterConfig::new(bootstrap.to_owned(), Properties::default())).unwrap();
    let settings = vec![("cleanup.policy".to_owned(), policy.to_owned())];
    let refused = admin.alter(vec![Alteration { topic: topic.to_owned(), settings }], false).await.unwrap();
    assert_eq!(refused, []);
}

/// The event ids in a topic.
async fn ids(bootstrap: &str, topic: &str) -> Vec<String> {
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
    let read = move || {
        let mut found = Vec::new();
        kafka::records(&bootstrap, &topic, |record| {
            let id = record.headers().unwrap().iter().find(|header| header.key == "ce_id").unwrap();
            found.push(String::from_utf8(id.value.unwrap().to_vec()).unwrap());
        });
        found.sort();
        found.dedup();
        found
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

fn signal(process: &Process, name: &str) {
    let sent = Command::new("kill").args([name, &process.0.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

async fn start(config: &Path, source: &str) -> (Process, Running) {
    let config = config.to_owned();
    let (process, hooks, admin) = tokio::task::spawn_blocking(move || serve(&config)).await.unwrap();
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap();
    (process, Running { hooks, admin, source: source.to_owned(), client })
}

/// A `serve --drain-only`. The receiver resolves when its log says that rows are held, the task at the log's end.
fn drain_only(config: &Path) -> (Process, oneshot::Receiver<String>, JoinHandle<()>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hookstream"))
        .args(["serve", "--drain-only", "-c"])
        .arg(config)
        .current_dir(config.parent().unwrap())
        .env("TEST_SECRET", SECRET)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let (held, is_held) = oneshot::channel();
    let reading = tokio::task::spawn_blocking(move || {
        let mut held = Some(held);
        for line in log.lines().map(Result::unwrap).filter(|line| line.contains("\"the topic compacts")) {
            held.take().map(|held| held.send(line));
        }
    });
    (Process(child), is_held, reading)
}

/// A source with its own spool in `directory`, whose type `batch_prediction.failed` is keyed by `/data/id`.
fn keyed(bootstrap: &str, directory: &Path) -> Setup {
    Setup {
        kafka: bootstrap.to_owned(),
        rules: "types = [\"batch_prediction.completed\", \"batch_prediction.failed\"]\n\
                ack_deadline = \"3s\"\n\
                envelope.keys = { \"batch_prediction.failed\" = \"/data/id\" }"
            .into(),
        tables: format!("[spool]\nmin_free = \"1 MiB\"\ndir = \"{}\"", directory.join("spool").display()),
        ..Setup::new("datagrid")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_compacting_topic_are_held_until_it_retains_all_records_again() {
    let mut broker = Broker::start().await;
    let bootstrap = broker.bootstrap();
    let directory = tempfile::tempdir().unwrap();
    let setup = keyed(&bootstrap, directory.path());
    let config = directory.path().join("hookstream.toml");
    std::fs::write(&config, setup.toml()).unwrap();
    let (process, service) = start(&config, &setup.source).await;
    let others = format!("{}.batch_prediction.completed", setup.source);
    let topic = format!("{}.batch_prediction.failed", setup.source);
    until("a published delivery of the type", async || service.post(failed("evt_0")).await == 200).await;

    broker.kill();
    until("the outage", async || service.part("kafka").await["state"] == "down").await;
    // The topic's settings are unknown during the outage, and deliveries are spooled.
    for n in 1..4 {
        assert_eq!(service.post(failed(&format!("evt_{n}"))).await, 202);
    }
    assert_eq!(service.post(batch("evt_other")).await, 202);

    // The topic is altered before the service notices that Kafka is back.
    signal(&process, "-STOP");
    broker.run().await;
    set_policy(&bootstrap, &topic, "compact").await;
    signal(&process, "-CONT");

    let live = "hookstream_spool_rows{state=\"live\"}";
    let held = format!("hookstream_topic_failing{{topic=\"{topic}\",what=\"held\"}}");
    until("the rows of the other topic", async || ids(&bootstrap, &others).await == ["evt_other"]).await;
    until("held rows", async || {
        let why = service.part("publishing").await["why"].to_string();
        let expected = format!("{topic}: 3 rows of the spool held: the topic compacts");
        why.contains(&expected) && service.metric(&held).await == Some(3.0)
    })
    .await;
    let status = service.get("/status").await.unwrap();
    assert!(status.contains("held: the topic compacts"), "{status}");
    assert_eq!(service.post(failed("evt_4")).await, 503);
    assert_eq!(service.post(batch("evt_more")).await, 200);
    assert_eq!(ids(&bootstrap, &topic).await, ["evt_0"], "held rows are not published");
    assert_eq!(service.metric(live).await, Some(3.0));
    assert_eq!(service.metric("hookstream_spool_rows{state=\"parked\"}").await, Some(0.0));

    set_policy(&bootstrap, &topic, "delete").await;
    until("an empty spool", async || service.metric(live).await == Some(0.0)).await;
    assert_eq!(ids(&bootstrap, &topic).await, ["evt_0", "evt_1", "evt_2", "evt_3"]);
    until("a published delivery of the type", async || service.post(failed("evt_4")).await == 200).await;
    until("the end of the hold", async || {
        service.metric(&held).await == Some(0.0) && service.part("publishing").await["state"] == "ok"
    })
    .await;

    // `serve --drain-only` has no sources, but holds the rows too.
    broker.kill();
    until("a spooled delivery", async || service.post(failed("evt_5")).await == 202).await;
    drop(process);
    broker.run().await;
    set_policy(&bootstrap, &topic, "compact").await;
    let (mut draining, is_held, reading) = drain_only(&config);
    tokio::time::timeout(PATIENCE, is_held).await.unwrap().unwrap();
    assert_eq!(draining.0.try_wait().unwrap(), None);
    assert!(!ids(&bootstrap, &topic).await.contains(&"evt_5".to_owned()));
    set_policy(&bootstrap, &topic, "delete").await;
    tokio::time::timeout(PATIENCE, reading).await.expect("the end of the drain").unwrap();
    assert!(draining.0.wait().unwrap().success());
    assert!(ids(&bootstrap, &topic).await.contains(&"evt_5".to_owned()));
}

/// Disables the source. Another one takes its place, since `serve` needs one.
fn disable_source(setup: &mut Setup) {
    setup.rules += "\nenabled = false";
    setup.tables += &format!(
        "\n[source.{}-other]\npreset = \"grapevine\"\nsecrets = [{{ env = \"TEST_SECRET\" }}]",
        setup.source
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_disabled_source_are_held_while_their_topic_compacts() {
    let mut broker = Broker::start().await;
    let bootstrap = broker.bootstrap();
    let directory = tempfile::tempdir().unwrap();
    let mut setup = keyed(&bootstrap, directory.path());
    let config = directory.path().join("hookstream.toml");
    std::fs::write(&config, setup.toml()).unwrap();
    let (process, service) = start(&config, &setup.source).await;
    let topic = format!("{}.batch_prediction.failed", setup.source);
    until("a published delivery of the type", async || service.post(failed("evt_0")).await == 200).await;
    broker.kill();
    until("a spooled delivery", async || service.post(failed("evt_1")).await == 202).await;
    assert_eq!(service.post(failed("evt_2")).await, 202);
    drop(process);

    // At the next start, the source is disabled and its topic compacts.
    disable_source(&mut setup);
    std::fs::write(&config, setup.toml()).unwrap();
    broker.run().await;
    set_policy(&bootstrap, &topic, "compact").await;
    let (process, service) = start(&config, &setup.source).await;
    until("held rows", async || {
        let held = service.part("publishing").await["why"].to_string();
        held.contains(&format!("{topic}: 2 rows of the spool held: the topic compacts"))
    })
    .await;
    until("a report with the command that ends the hold", async || {
        let why = service.part("topics").await["why"].to_string();
        why.contains("its rows in the spool wait") && why.contains("kafka-configs")
    })
    .await;
    assert_eq!(ids(&bootstrap, &topic).await, ["evt_0"], "held rows are not published");
    drop(process);

    let (mut draining, is_held, reading) = drain_only(&config);
    tokio::time::timeout(PATIENCE, is_held).await.unwrap().unwrap();
    assert_eq!(draining.0.try_wait().unwrap(), None);
    set_policy(&bootstrap, &topic, "delete").await;
    tokio::time::timeout(PATIENCE, reading).await.expect("the end of the drain").unwrap();
    assert!(draining.0.wait().unwrap().success());
    assert_eq!(ids(&bootstrap, &topic).await, ["evt_0", "evt_1", "evt_2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_disabled_source_without_their_topic_are_reported_and_published_once_it_exists() {
    let bootstrap = stack("KAFKA");
    let directory = tempfile::tempdir().unwrap();
    let mut setup = keyed(&bootstrap, directory.path());
    let topic = format!("{}.batch_prediction.failed", setup.source);
    let config = directory.path().join("hookstream.toml");
    let published = async |service: &Running| {
        until("a published delivery of the type", async || service.post(failed("evt_0")).await == 200).await;
    };
    // Creates the topics and registers the schemas; the later starts create nothing.
    std::fs::write(&config, setup.toml()).unwrap();
    let (process, service) = start(&config, &setup.source).await;
    published(&service).await;
    drop(process);
    setup.tables += "\n[provision]\non_start = false";
    std::fs::write(&config, setup.toml()).unwrap();
    let (process, service) = start(&config, &setup.source).await;
    published(&service).await;
    kafka::delete(&topic).await;
    until("a spooled delivery", async || service.post(failed("evt_1")).await == 202).await;
    drop(process);

    disable_source(&mut setup);
    std::fs::write(&config, setup.toml()).unwrap();
    let (process, service) = start(&config, &setup.source).await;
    let report = format!("{topic} does not exist: its rows in the spool wait");
    until("a report of the missing topic", async || {
        service.part("topics").await["why"].to_string().contains(&report)
    })
    .await;
    kafka::create_on(&bootstrap, &topic, 1, &[("cleanup.policy", "delete")]).await;
    let live = "hookstream_spool_rows{state=\"live\"}";
    until("an empty spool", async || service.metric(live).await == Some(0.0)).await;
    assert!(ids(&bootstrap, &topic).await.contains(&"evt_1".to_owned()));
    drop(process);
}
