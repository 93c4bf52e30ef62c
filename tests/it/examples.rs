//! The consumers in `examples/`, run with the real Kafka and the real registry.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;

use crate::support::process::Process;
use crate::support::{PATIENCE, Service, Setup, batch, stack, until};

type Lines = Arc<Mutex<Vec<String>>>;

fn example(file: &str) -> String {
    format!("{}/examples/{file}", env!("CARGO_MANIFEST_DIR"))
}

/// Collects lines in a thread, so that the pipe does not fill up.
fn lines(of: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let kept = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(of).lines() {
            kept.lock().unwrap().push(line.unwrap());
        }
    });
    lines
}

/// A running consumer, with its standard output and standard error.
struct Running {
    process: Process,
    out: Lines,
    err: Lines,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { process: Process(child), out, err }
    }

    /// Waits for its exit code.
    async fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        until("the end of the example", async || {
            code = self.process.0.try_wait().unwrap();
            code.is_some()
        })
        .await;
        code.unwrap().code()
    }

    async fn stop(mut self) {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        // Java exits with 143 on SIGTERM, even if its shutdown hook has closed everything.
        let code = self.ended().await;
        assert!(code == Some(0) || code == Some(143), "{code:?} {:?}", self.err.lock().unwrap());
    }

    /// Waits for an event with this id. Returns the output so far.
    async fn printed(&self, last: &str) -> Vec<String> {
        let waited = tokio::time::timeout(PATIENCE * 2, async {
            loop {
                let out = self.out.lock().unwrap().clone();
                if out.iter().any(|line| line.starts_with(&format!("{last} "))) {
                    return out;
                }
                tokio::time::sleep(Duration::from_millis(20)).await; // polls with a bound
            }
        });
        waited.await.unwrap_or_else(|_| panic!("no {last}: {:?}", self.err.lock().unwrap()))
    }
}

/// Records that hookstream never writes to an event's topic, but other producers might.
fn write_foreign_records(topic: &str) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", stack("KAFKA")).create().unwrap();
    producer.send(BaseRecord::<str, str>::to(topic).key("evt_deleted")).unwrap();
    producer.send(BaseRecord::to(topic).key("evt_text").payload("{}")).unwrap();
    producer.flush(PATIENCE).unwrap();
}

async fn each_event_once(command: impl Fn(&str, &str) -> Command) {
    let mut setup = Setup::new("datagrid");
    setup.environment.insert("HOOKSTREAM_KAFKA__TOPICS__PARTITIONS".into(), "1".into());
    let service = setup.ready().await;
    let deliver = async |service: &Service, id: &str| {
        service.datagrid_post(batch(id)).await.is(200, "published", None);
    };
    for id in ["evt_1", "evt_2", "evt_1"] {
        deliver(&service, id).await;
    }
    let odd = batch("evt_odd").replace(".completed", ".paused");
    service.datagrid_post(odd).await.is(200, "dead_lettered", Some("type_unknown"));
    let topic = service.topic("batch_prediction.completed");
    write_foreign_records(&topic);
    deliver(&service, "evt_3").await;

    let pattern = format!(r"^{}\..*", service.source);
    let running = Running::start(command(&stack("KAFKA"), &pattern));
    let printed = running.printed("evt_3").await;
    let ids: Vec<&str> = printed.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(ids, ["evt_1", "evt_2", "evt_3"], "each event once, without the dead letter");
    for line in &printed {
        for typed in
            ["batch_prediction.completed", "bpred_abc123", "/v1/batch-predictions/bpred_abc123/results"]
        {
            assert!(line.contains(typed), "{typed} is not in {line}");
        }
        assert!(line.contains("\"completed\"") || line.contains("status=completed"), "{line}");
        assert!(line.contains("2026-04-10T19:00:00") || line.contains("1775847600000"), "{line}");
    }
    // A separate thread reads standard error.
    for skipped in
        [format!("skipped {topic}/0/3: a tombstone"), format!("skipped {topic}/0/4: not in the wire format")]
    {
        let lines = || {
            let err = running.err.lock().unwrap();
            err.iter().filter(|line| line.starts_with(&skipped)).count()
        };
        until(&skipped, async || lines() > 0).await;
        assert_eq!(lines(), 1);
    }
    running.stop().await;

    deliver(&service, "evt_4").await;
    let running = Running::start(command(&stack("KAFKA"), &pattern));
    assert_eq!(running.printed("evt_4").await.len(), 1, "handled events are committed");
    running.stop().await;

    let mut running = Running::start(command("127.0.0.1:1", &pattern));
    assert_eq!(running.ended().await, Some(1));
    let expected = "consumer: Kafka does not answer at 127.0.0.1:1";
    until("the error message", async || {
        running.err.lock().unwrap().iter().any(|line| line.starts_with(expected))
    })
    .await;
    let err = running.err.lock().unwrap().clone();
    assert!(err.last().unwrap().starts_with(expected), "{err:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_example_handles_each_event_once() {
    // `cargo test` builds target/debug/examples/consumer; this program is target/debug/deps/it-...
    let this = std::env::current_exe().unwrap();
    let program = this.parent().and_then(Path::parent).unwrap().join("examples/consumer");
    assert!(program.exists(), "run cargo build --example consumer");
    each_event_once(|kafka, pattern| {
        let mut command = Command::new(&program);
        command.args([kafka, &stack("REGISTRY"), pattern]);
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_java_example_handles_each_event_once() {
    each_event_once(|kafka, pattern| {
        let mut command = Command::new(stack("JAVA"));
        command.args(["-XX:TieredStopAtLevel=1", "-cp", &stack("CLASSPATH")]);
        command.args([&example("java/Consumer.java"), kafka, &stack("REGISTRY"), pattern]);
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_example_handles_each_event_once() {
    each_event_once(|kafka, pattern| {
        let mut command = Command::new(stack("PYTHON"));
        command.args([&example("python/consumer.py"), kafka, &stack("REGISTRY"), pattern]);
        command
    })
    .await;
}

/// The columns of a Flink table that reads such records.
fn columns(record: &Value) -> String {
    let fields = record["fields"].as_array().unwrap().iter();
    let columns =
        fields.map(|field| format!("`{}` {}", field["name"].as_str().unwrap(), flink(&field["type"])));
    columns.collect::<Vec<_>>().join(", ")
}

/// Flink's type for one of Avro's, by the table on the page of its Avro format.
fn flink(kind: &Value) -> String {
    if let Some(kinds) = kind.as_array() {
        return flink(kinds.iter().find(|kind| *kind != "null").unwrap());
    }
    if kind["logicalType"] == "timestamp-millis" {
        return "TIMESTAMP(3)".into();
    }
    match kind["type"].as_str().or(kind.as_str()).unwrap() {
        "string" => "STRING".into(),
        "long" => "BIGINT".into(),
        "map" => format!("MAP<STRING, {}>", flink(&kind["values"])),
        "record" => format!("ROW<{}>", columns(kind)),
        other => panic!("add Flink's type for {other}"),
    }
}

#[test]
fn the_flink_tables_have_the_columns_of_their_schemas() {
    let sql = std::fs::read_to_string(example("flink/events.sql")).unwrap();
    let code: Vec<&str> = sql.lines().map(|line| line.split("--").next().unwrap()).collect();
    let code = code.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    let code = code.replace("< ", "<").replace(" >", ">");
    for (file, topic) in [
        ("datagrid/batch_prediction.avsc", "datagrid.batch_prediction.completed"),
        ("grapevine/document.changed.avsc", "grapevine.document.changed"),
    ] {
        let schema =
            std::fs::read_to_string(format!("{}/schemas/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let expected = format!(
            "( `event_key` STRING, {}, PRIMARY KEY",
            columns(&serde_json::from_str(&schema).unwrap())
        );
        let table = code.split("CREATE TABLE").find(|table| table.contains(&format!("'topic' = '{topic}'")));
        let table = table.unwrap_or_else(|| panic!("no table for {topic}"));
        assert!(table.contains(&expected), "the columns for {topic} must be\n{expected}\nbut are\n{table}");
    }
}
