//! The operator's commands for the spool: list, export, requeue, drain.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hookstream::kafka::embedded::Embedded;
use hookstream::spool::{Spool, SpoolLimits};
use rdkafka::types::RDKafkaRespErr;
use serde_json::Value;

use crate::spool::{keys, spool, waiting, with_spool};
use crate::support::hostile::{PLANTED, Trick, hostile};
use crate::support::{PATIENCE, Setup, batch, on_embedded_with, until};

/// Runs the program as a separate process.
async fn run(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookstream"));
    command.env_clear().args(arguments);
    // The service runs on this thread and must not be blocked.
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = tokio::time::timeout(PATIENCE, output).await.expect("the end of the command").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn spool_list_show_and_export_work_while_the_service_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (service, kafka) = with_spool(dir.path(), "").await;
    kafka.broker_down().unwrap();
    for n in 1..=3 {
        service.datagrid_post(batch(&format!("evt_{n}"))).await.is(202, "spooled", None);
    }
    service.datagrid_post("no json").await.is(200, "dead_lettered", Some("json_invalid"));
    let at = ["--dir", dir.path().to_str().unwrap()];
    let spool = async |arguments: &[&str]| run(&[&["spool"], arguments, &at].concat()).await;

    let (code, stdout, stderr) = spool(&[]).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    for expected in ["received", "evt_1", "evt_3", "live", "4 rows in total: 4 live, 0 parked"] {
        assert!(stdout.contains(expected), "{expected}: {stdout}");
    }
    let topic = service.topic("batch_prediction.completed");
    let (_, stdout, _) = spool(&["list", "--json", "--topic", &topic, "--limit", "2"]).await;
    let found: Vec<_> = lines(&stdout).iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, ["evt_1", "evt_2"]);
    let (code, stdout, _) = spool(&["--limit", "1"]).await;
    assert!(code == 0 && stdout.contains("... and more") && !stdout.contains("evt_2"), "{stdout}");
    let (code, stdout, _) = spool(&["list", "--parked"]).await;
    assert!(code == 0 && !stdout.contains("evt_1"), "{stdout}");

    let (_, all, _) = spool(&["list", "--json"]).await;
    let odd = lines(&all).pop().unwrap();
    let id = odd["id"].to_string();
    let (code, stdout, _) = spool(&["show", &id]).await;
    assert!(code == 0 && stdout.contains("hookstream-reason: json_invalid"), "{stdout}");
    assert!(!stdout.contains("no json"), "the value is shown only on request: {stdout}");
    let (_, stdout, _) = spool(&["show", &id, "--value"]).await;
    assert!(stdout.contains("no json"), "{stdout}");
    let (code, stdout, stderr) = spool(&["show", "4711"]).await;
    assert!(code == 1 && stdout.is_empty() && stderr.contains("4711"), "{stderr}");

    let (code, stdout, stderr) = spool(&["export", "-"]).await;
    assert!(code == 0 && stderr.contains("exported 4 rows"), "{stderr}");
    let exported = lines(&stdout);
    assert_eq!(exported.len(), 4);
    assert_eq!(exported[3]["value_base64"], "bm8ganNvbg==");
    assert!(exported[0]["headers"].as_array().unwrap().contains(&serde_json::json!(["ce_id", "evt_1"])));
    let file = dir.path().join("out.jsonl");
    let file = file.to_str().unwrap();
    assert_eq!(spool(&["export", file]).await.0, 0);
    assert_eq!(std::fs::read_to_string(file).unwrap(), stdout);
    let (code, _, stderr) = spool(&["export", file]).await;
    assert!(code == 2 && stderr.contains(file), "existing files are not overwritten: {stderr}");
    let (code, _, stderr) = spool(&["--parked", "export", "-"]).await;
    assert!(code == 2 && stderr.contains("must follow the subcommand"), "{stderr}");
    let (code, stdout, _) = spool(&["requeue", "--all"]).await;
    assert!(code == 0 && stdout.contains("nothing to do"), "{stdout}");

    kafka.broker_up().unwrap();
    until("an empty spool", async || waiting(&service) == 0).await;
    assert_eq!(keys(&kafka, &topic).await, ["evt_1", "evt_2", "evt_3"]);
}

#[tokio::test]
async fn parked_rows_are_published_after_a_requeue_through_the_operators_port() {
    let dir = tempfile::tempdir().unwrap();
    let (service, kafka) = with_spool(dir.path(), "").await;
    let topic = service.topic("batch_prediction.completed");
    // Kafka has accepted the clock, so that only the records can be wrong.
    service.datagrid_post(batch("evt")).await.is(200, "published", None);
    kafka.broker_down().unwrap();
    let expected: Vec<String> = (0..3).map(|n| format!("evt_{n}")).collect();
    for id in &expected {
        service.datagrid_post(batch(id)).await.is(202, "spooled", None);
    }
    kafka.fail_produce(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD; 20]).unwrap();
    kafka.broker_up().unwrap();
    until("all rows to be parked", async || service.app.spool().unwrap().parked == 3).await;
    kafka.fail_produce_no_more().unwrap();

    let port = service.app.admin.to_string();
    let at = ["--dir", dir.path().to_str().unwrap(), "--url", &port];
    let requeue = async |arguments: &[&str]| run(&[&["spool", "requeue"], arguments, &at].concat()).await;
    let (code, stdout, _) = requeue(&["--all"]).await;
    assert!(code == 1 && stdout.contains("pending: 3 parked rows") && stdout.contains("evt_"), "{stdout}");
    assert_eq!(service.app.spool().unwrap().parked, 3, "a plan changes nothing");
    let (_, metrics) = service.admin("/metrics").await;
    assert!(metrics.contains("hookstream_spool_rows{state=\"parked\"}"), "{metrics}");

    // One row by its id, the others together.
    let (_, stdout, _) = run(&["spool", "list", "--parked", "--json", at[0], at[1]]).await;
    let first = lines(&stdout)[0].clone();
    assert!(first["why"].as_str().is_some_and(|why| !why.is_empty()), "{first}");
    let (code, stdout, stderr) = requeue(&[&first["id"].to_string(), "4711", "--apply", "--json"]).await;
    assert_eq!((code, stdout.trim()), (0, r#"{"requeued":1}"#), "{stderr}");
    assert!(stderr.contains("no row 4711"), "{stderr}");
    let (code, stdout, stderr) = requeue(&["--all", "--apply"]).await;
    assert!(code == 0 && stdout.contains("requeued 2 rows"), "{stdout}{stderr}");
    until("an empty spool", async || {
        let stats = service.app.spool().unwrap();
        (stats.live, stats.parked) == (0, 0)
    })
    .await;
    assert_eq!(keys(&kafka, &topic).await, ["evt", "evt_0", "evt_1", "evt_2"]);
}

#[tokio::test]
async fn the_operators_port_accepts_only_well_formed_requeue_requests() {
    let dir = tempfile::tempdir().unwrap();
    let (service, _kafka) = with_spool(dir.path(), "").await;
    let url = format!("http://{}/spool/requeue", service.app.admin);
    let post = async |media: &str, body: String| {
        let request = service.client.post(&url).header("content-type", media);
        let request = request.header("hookstream-request", "1").body(body);
        request.send().await.unwrap().status().as_u16()
    };
    let json = "application/json";
    assert_eq!(post(json, r#"{"ids":[1,2]}"#.into()).await, 200);
    assert_eq!(post("application/json; charset=utf-8", r#"{"all":true}"#.into()).await, 200);
    for odd in ["", "{}", r#"{"all":false}"#, r#"{"ids":[1],"all":true}"#, r#"{"ids":["x"]}"#, r#"{"al":1}"#]
    {
        assert_eq!(post(json, odd.into()).await, 400, "{odd}");
    }
    assert_eq!(post("text/plain", r#"{"all":true}"#.into()).await, 415, "a browser's form must be refused");
    assert_eq!(post(json, format!("{{\"ids\":[{}1]}}", "1,".repeat(100_000))).await, 413);
    assert_eq!(service.admin("/spool/requeue").await.0, 405);
    let (without, _kafka) = on_embedded_with(|_| {}).await;
    let url = format!("http://{}/spool/requeue", without.app.admin);
    let answer = without.client.post(url).header("content-type", json).header("hookstream-request", "1");
    let answer = answer.body(r#"{"all":true}"#).send().await;
    assert_eq!(answer.unwrap().status(), 404, "no spool");
}

/// Makes a spool with `rows` live rows and stops its service. Returns the configuration file.
async fn left_behind(dir: &Path, rows: usize) -> (Embedded, String, PathBuf) {
    let (service, kafka) = with_spool(&dir.join("spool"), "").await;
    kafka.broker_down().unwrap();
    for n in 0..rows {
        service.datagrid_post(batch(&format!("evt_{n}"))).await.is(202, "spooled", None);
    }
    let topic = service.topic("batch_prediction.completed");
    let setup = Setup {
        kafka: kafka.bootstrap_servers(),
        source: service.source.clone(),
        tables: spool(&dir.join("spool"), ""),
        ..Setup::new("datagrid")
    };
    service.app.stop().await.unwrap();
    let file = dir.join("hookstream.toml");
    std::fs::write(&file, setup.toml()).unwrap();
    (kafka, topic, file)
}

#[tokio::test]
async fn drain_only_empties_the_spool_without_secrets_and_exits() {
    let dir = tempfile::tempdir().unwrap();
    let (kafka, topic, file) = left_behind(dir.path(), 3).await;
    kafka.broker_up().unwrap();
    let arguments = ["serve", "--drain-only", "-c", file.to_str().unwrap()];
    let (code, _, stderr) = run(&arguments).await;
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(keys(&kafka, &topic).await, ["evt_0", "evt_1", "evt_2"]);
    let (_, stdout, _) = run(&["spool", "-c", file.to_str().unwrap()]).await;
    assert_eq!(stdout.trim(), "the spool is empty");
    let nowhere = format!("spool.dir={}", dir.path().join("nowhere").display());
    let (code, _, stderr) = run(&[&arguments[..], &["-X", &nowhere]].concat()).await;
    assert!(code == 2 && stderr.contains("nowhere"), "{stderr}");
}

#[tokio::test]
async fn drain_only_exits_with_1_if_it_is_stopped_before_the_spool_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (_kafka, _, file) = left_behind(dir.path(), 2).await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_hookstream"))
        .env_clear()
        .args(["serve", "--drain-only", "-c", file.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Nothing else runs on this thread, so it may block.
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let start = log.by_ref().map_while(Result::ok).find(|line| line.contains("draining the spool"));
    let start: Value = serde_json::from_str(&start.expect("a log line at the start")).unwrap();
    let admin = format!("http://{}", start["admin"].as_str().unwrap());
    let get = async |path: &str| {
        let answer = reqwest::get(format!("{admin}{path}")).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    // The metrics are updated once a second.
    until("the spool's metrics", async || {
        let (_, metrics) = get("/metrics").await;
        let oldest =
            metrics.lines().find_map(|line| line.strip_prefix("hookstream_spool_oldest_timestamp_seconds "));
        metrics.contains("\nhookstream_spool_rows{state=\"live\"} 2\n")
            && metrics.contains("\nhookstream_spool_rows{state=\"parked\"} 0\n")
            && metrics.contains("# TYPE hookstream_spool_bytes gauge")
            && oldest.is_some_and(|seconds| seconds.parse::<f64>().unwrap() > 1.7e9)
    })
    .await;
    let (status, ready) = get("/readyz").await;
    assert!(status == 503 && ready.contains("draining the spool only"), "{ready}");
    // Otherwise the alerts about parts would fire.
    let parts = &serde_json::from_str::<Value>(&ready).unwrap()["parts"];
    assert!(["topics", "schemas", "durability"].iter().all(|part| parts[part]["state"] == "ok"), "{ready}");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let last = log.map(Result::unwrap).last().unwrap_or_default();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{last}");
    let (_, stdout, _) = run(&["spool", "--json", "-c", file.to_str().unwrap()]).await;
    assert_eq!(lines(&stdout).len(), 2, "no row is lost");
}

#[tokio::test]
async fn requeue_works_directly_on_a_spool_that_no_process_has_open() {
    let dir = tempfile::tempdir().unwrap();
    let (_kafka, _, file) = left_behind(dir.path(), 2).await;
    let at = dir.path().join("spool");
    let (spool, _) = Spool::open(&at, SpoolLimits::UNBOUNDED).unwrap();
    assert!(spool.park(1, "too large").await.unwrap());
    let config = ["-c", file.to_str().unwrap()];
    let requeue = async |arguments: &[&str]| run(&[&["spool", "requeue"], arguments, &config].concat()).await;

    // A process has the spool open, but nobody answers at the operator's port.
    let (code, _, stderr) = requeue(&["1", "--apply", "--url", "127.0.0.1:1"]).await;
    assert!(code == 2 && stderr.contains("--url"), "{stderr}");
    let (code, _, stderr) = requeue(&["1", "--apply"]).await;
    assert!(code == 2 && stderr.contains("admin.listen is 127.0.0.1:0"), "{stderr}");
    assert_eq!(spool.stats().parked, 1);
    spool.close(PATIENCE).await.unwrap();

    let (code, stdout, _) = requeue(&["1", "2", "--json"]).await;
    assert_eq!((code, stdout.trim()), (1, r#"{"pending":1}"#));
    let (code, stdout, stderr) = requeue(&["1", "2", "--apply"]).await;
    assert!(code == 0 && stdout.contains("requeued 1 row"), "{stdout}{stderr}");
    assert!(stderr.contains("row 2 is already live"), "{stderr}");
    let (code, _, stderr) = requeue(&["1", "--apply"]).await;
    assert_eq!(code, 0, "nothing to do: {stderr}");
    let (_, stdout, _) = run(&[&["spool"], &config[..]].concat()).await;
    assert!(stdout.contains("2 rows in total: 2 live, 0 parked"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_requeue_accepts_no_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (_kafka, _, file) = left_behind(dir.path(), 1).await;
    // A process has the spool open, so the command asks at the operator's port.
    let (spool, _) = Spool::open(&dir.path().join("spool"), SpoolLimits::UNBOUNDED).unwrap();
    assert!(spool.park(1, "too large").await.unwrap());
    // Without the answer that comes byte by byte: it would take the full minute that a large requeue may take.
    for trick in Trick::ALL.into_iter().filter(|trick| !matches!(trick, Trick::Drip)) {
        let url = hostile(trick).await;
        let arguments = ["spool", "requeue", "1", "--apply", "--url", &url, "-c", file.to_str().unwrap()];
        let (code, stdout, stderr) = run(&arguments).await;
        assert!(code == 2 && stdout.is_empty(), "{trick:?}: {stdout}{stderr}");
        assert!(stderr.contains(trick.message()) && !stderr.contains(PLANTED), "{trick:?}: {stderr}");
    }
    assert_eq!(spool.stats().parked, 1);
    spool.close(PATIENCE).await.unwrap();
}
