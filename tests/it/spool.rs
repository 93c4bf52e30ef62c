//! The spool: 202 while Kafka is unavailable, and every event in its topic afterwards.

use std::path::Path;
use std::time::{Duration, Instant};

use hookstream::kafka::embedded::Embedded;
use rdkafka::types::RDKafkaRespErr;

use crate::support::{Service, Setup, batch, kafka, on_embedded_with, until};
use crate::topic_rules::{publishing, set_limit};

/// How late an answer may be if the machine is busy.
const SLACK: Duration = Duration::from_millis(750);

pub fn spool(dir: &Path, more: &str) -> String {
    format!("[spool]\ndir = \"{}\"\nmin_free = \"1 MiB\"\n{more}", dir.display())
}

pub async fn with_spool(dir: &Path, more: &str) -> (Service, Embedded) {
    on_embedded_with(|setup| {
        setup.tables = spool(dir, more);
        setup.rules.push_str("ack_deadline = \"3s\"");
    })
    .await
}

pub async fn keys(embedded: &Embedded, topic: &str) -> Vec<String> {
    let (bootstrap, topic) = (embedded.bootstrap_servers(), topic.to_owned());
    let mut keys = tokio::task::spawn_blocking(move || kafka::read(&bootstrap, &topic)).await.unwrap();
    keys.sort();
    keys.dedup();
    keys
}

pub fn waiting(service: &Service) -> u64 {
    service.app.spool().unwrap().live
}

#[tokio::test]
async fn deliveries_are_spooled_in_time_during_a_kafka_outage_and_drained_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (service, kafka) = with_spool(&dir.path().join("made/by/us"), "").await;
    service.datagrid_post(batch("evt_0")).await.is(200, "published", None);
    kafka.broker_down().unwrap();
    let mut expected = vec![String::from("evt_0")];
    for n in 1..=20 {
        let (id, start) = (format!("evt_{n}"), Instant::now());
        let answer = service.datagrid_post(batch(&id)).await;
        answer.is(202, "spooled", None);
        assert!(answer.body["partition"].is_null() && answer.body["topic"].is_string(), "{answer:?}");
        assert!(start.elapsed() < Duration::from_secs(3) + SLACK, "{:?}", start.elapsed());
        expected.push(id);
    }
    let odd = service.datagrid_post("no json").await;
    odd.is(200, "dead_lettered", Some("json_invalid"));
    assert_eq!(waiting(&service), 21);
    let (status, ready) = service.admin("/readyz").await;
    assert!(status == 200 && ready.contains("\"status\":\"degraded\""), "{ready}");

    kafka.broker_up().unwrap();
    until("an empty spool", async || waiting(&service) == 0).await;
    expected.sort();
    assert_eq!(keys(&kafka, &service.topic("batch_prediction.completed")).await, expected);
    assert_eq!(keys(&kafka, &service.dead_letters()).await.len(), 1);
    service.datagrid_post(batch("evt_after")).await.is(200, "published", None);
}

#[tokio::test]
async fn deliveries_are_spooled_while_a_failed_producer_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (service, kafka) = with_spool(dir.path(), "").await;
    service.datagrid_post(batch("evt_000")).await.is(200, "published", None);
    kafka.fail_produce(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]).unwrap();
    let (mut expected, mut spooled) = (vec![String::from("evt_000")], 0);
    until("a new producer that publishes", async || {
        let (id, start) = (format!("evt_{:03}", expected.len()), Instant::now());
        let answer = service.datagrid_post(batch(&id)).await;
        assert!(matches!(answer.status, 200 | 202), "{answer:?}");
        assert!(start.elapsed() < SLACK, "a delivery waited for the failed producer: {:?}", start.elapsed());
        expected.push(id);
        spooled += u32::from(answer.status == 202);
        spooled > 0 && answer.status == 200
    })
    .await;
    until("an empty spool", async || waiting(&service) == 0).await;
    assert_eq!(keys(&kafka, &service.topic("batch_prediction.completed")).await, expected);
}

#[tokio::test]
async fn the_next_start_drains_the_rows_of_the_last_run() {
    let dir = tempfile::tempdir().unwrap();
    let (service, kafka) = with_spool(dir.path(), "").await;
    let source = service.source.clone();
    kafka.broker_down().unwrap();
    for n in 0..3 {
        service.datagrid_post(batch(&format!("evt_{n}"))).await.is(202, "spooled", None);
    }
    service.app.stop().await.unwrap();
    kafka.broker_up().unwrap();

    let setup = Setup {
        kafka: kafka.bootstrap_servers(),
        source,
        rules: "types = [\"batch_prediction.completed\"]".into(),
        tables: spool(dir.path(), ""),
        ..Setup::new("datagrid")
    };
    let service = setup.ready().await;
    until("an empty spool", async || waiting(&service) == 0).await;
    let topic = service.topic("batch_prediction.completed");
    assert_eq!(keys(&kafka, &topic).await, ["evt_0", "evt_1", "evt_2"]);
}

#[tokio::test]
async fn deliveries_are_answered_503_while_the_spool_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let (service, kafka) = with_spool(dir.path(), "max_rows = 2").await;
    kafka.broker_down().unwrap();
    for n in 0..2 {
        service.datagrid_post(batch(&format!("evt_{n}"))).await.is(202, "spooled", None);
    }
    service.datagrid_post(batch("evt_2")).await.is(503, "unavailable", Some("spool_full"));
    kafka.broker_up().unwrap();
    until("an empty spool", async || waiting(&service) == 0).await;
    assert_eq!(keys(&kafka, &service.topic("batch_prediction.completed")).await, ["evt_0", "evt_1"]);
}

#[tokio::test]
async fn a_second_service_on_the_directory_is_refused_with_the_pid_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let (_service, kafka) = with_spool(dir.path(), "").await;
    let setup =
        Setup { kafka: kafka.bootstrap_servers(), tables: spool(dir.path(), ""), ..Setup::new("datagrid") };
    let error = setup.try_start().await.err().unwrap();
    assert!(format!("{error:#}").contains(&std::process::id().to_string()), "{error:#}");
}

#[tokio::test]
async fn deliveries_to_a_deleted_topic_are_spooled_and_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup {
        rules: "ack_deadline = \"3s\"".into(),
        tables: spool(dir.path(), ""),
        ..Setup::new("datagrid")
    };
    let service = setup.ready().await;
    let deleted = service.topic("batch_prediction.completed");
    kafka::delete(&deleted).await;
    let mut spooled = 0;
    until("spooled deliveries", async || {
        let answer = service.datagrid_post(batch(&format!("evt_{spooled}"))).await;
        spooled += u64::from(answer.status == 202);
        assert!(matches!(answer.status, 200 | 202), "{answer:?}");
        spooled == 3
    })
    .await;
    let start = Instant::now();
    let other = batch("evt_other").replace("batch_prediction.completed", "batch_prediction.failed");
    service.datagrid_post(other).await.is(200, "published", None);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());

    // Kafka returns, but accepts only smaller records: larger rows wait until it accepts them.
    kafka::create(&deleted, "max.message.bytes", "300").await;
    let reported = format!("{deleted}: {spooled} rows of the spool: MessageSizeTooLarge");
    until("a report of all rows", async || publishing(&service).await.1.contains(&reported)).await;
    assert_eq!((waiting(&service), service.app.spool().unwrap().parked), (spooled, 0));
    set_limit(&deleted, "1000000").await;
    until("an empty spool", async || waiting(&service) == 0).await;
    assert!(kafka::all(&deleted).await.len() as u64 >= spooled);
}

#[tokio::test]
async fn readiness_reports_a_full_spool() {
    let dir = tempfile::tempdir().unwrap();
    let (service, kafka) = with_spool(dir.path(), "max_rows = 1").await;
    kafka.broker_down().unwrap();
    service.datagrid_post(batch("evt_1")).await.is(202, "spooled", None);
    until("the end of readiness", async || {
        let (status, text) = service.admin("/readyz").await;
        status == 503 && text.contains("full: rows")
    })
    .await;
    kafka.broker_up().unwrap();
    until("readiness", async || service.admin("/readyz").await.1.contains("\"status\":\"ready\"")).await;
}

#[tokio::test]
async fn a_start_without_kafka_spools_once_the_registry_has_answered() {
    let dir = tempfile::tempdir().unwrap();
    let setup =
        Setup { kafka: "127.0.0.1:1".into(), tables: spool(dir.path(), ""), ..Setup::new("datagrid") };
    let start = Instant::now();
    let service = setup.start().await;
    until("a spooled delivery", async || service.datagrid_post(batch("evt_1")).await.status == 202).await;
    assert!(start.elapsed() < Duration::from_secs(5), "the start waited for Kafka: {:?}", start.elapsed());
}
