//! An event type whose key is not the event id, with a topic that retains all records.

use std::process::Command;

use hookstream::observe::health::PartState;
use serde_json::{Value, json};

use crate::support::{Service, Setup, batch, datagrid, grapevine, kafka, on_embedded_with, stack, until};

const KEYS: &str = "envelope.keys = { \"document.changed\" = \"/data/document_id\" }";

/// The canonical text of a Grapevine delivery about this document.
fn change(document: &str, n: usize) -> String {
    let time = format!("2026-01-02T03:04:{n:02}.678901Z");
    format!(r#"{{"event":"document.changed","timestamp":"{time}","data":{{"document_id":{document}}}}}"#)
}

async fn post(service: &Service, body: &str) -> crate::support::Answer {
    service.post(&[("X-Grapevine-Signature", &grapevine(body))], body.to_owned()).await
}

/// Runs the `kafka-configs` command that hookstream's advice contains, but with this policy.
fn alter(advice: &str, policy: &str) {
    let at = advice.find("kafka-configs").unwrap_or_else(|| panic!("no command in {advice}"));
    let words = advice[at..].split_whitespace().skip(1).map(|word| word.trim_end_matches([')', ';']));
    let mut words: Vec<String> = words.take(9).map(str::to_owned).collect();
    assert_eq!(words.pop().unwrap(), "cleanup.policy=delete", "{advice}");
    let output = Command::new(stack("JAVA"))
        .args(["-cp", &stack("CLASSPATH"), "kafka.admin.ConfigCommand"])
        .args(words)
        .arg(format!("cleanup.policy=[{policy}]"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn topics(service: &Service) -> (PartState, String) {
    let report = service.app.health.topics.report();
    (report.state, serde_json::to_value(&report).unwrap()["why"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn events_of_one_document_are_in_one_partition_in_order_and_none_is_compacted() {
    let service = Setup { rules: KEYS.into(), ..Setup::new("grapevine") }.ready().await;
    let mut expected = Vec::new();
    for n in 0..4 {
        for document in ["\"README.md\"", "7.50"] {
            let answer = post(&service, &change(document, n)).await;
            answer.is(200, "published", None);
            expected.push((document.trim_matches('"'), answer.body["id"].clone()));
        }
    }
    for (document, reason) in [("null", "id_missing"), ("[1]", "id_invalid"), ("\"\"", "id_invalid")] {
        post(&service, &change(document, 9)).await.is(200, "dead_lettered", Some(reason));
    }

    let topic = service.topic("document.changed");
    let records = kafka::java(&[&topic]);
    assert_eq!(records.len(), expected.len());
    for key in ["README.md", "7.50"] {
        let of_key: Vec<&Value> = records.iter().filter(|record| record["key"] == key).collect();
        let ids: Vec<&Value> = of_key.iter().map(|record| &record["value"]["id"]).collect();
        let sent: Vec<&Value> = expected.iter().filter(|sent| sent.0 == key).map(|sent| &sent.1).collect();
        assert_eq!(ids, sent, "in the order of the answers");
        for record in of_key {
            assert_eq!(record["partition"], record["expectedPartition"], "as Java's clients choose it");
            assert_eq!(record["headers"]["ce_id"], record["value"]["id"], "the id does not change");
            assert!(record["headers"]["hookstream-unsigned"].is_null());
        }
    }
    let dead = kafka::java(&[&service.dead_letters()]);
    let missing = dead.iter().find(|record| record["headers"]["hookstream-reason"] == "id_missing").unwrap();
    assert!(missing["key"].as_str().unwrap().starts_with("sha256:"), "every dead letter has a key");
    assert_eq!(
        missing["headers"]["hookstream-detail"],
        "the key of its type: at /data/document_id: expected text or a number, found null"
    );
    assert_eq!(missing["headers"]["hookstream-original-topic"], topic);
}

#[tokio::test]
async fn an_unsigned_key_is_marked_in_the_record_also_through_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let (service, kafka) = on_embedded_with(|setup| {
        setup.tables = format!("[spool]\ndir = \"{}\"\nmin_free = \"1 MiB\"", dir.path().display());
        let key = "{ header = \"X-Document\", unsigned = true }";
        setup.rules += &format!("envelope.keys = {{ \"batch_prediction.completed\" = {key} }}");
    })
    .await;
    let send = async |id: &str| {
        let body = batch(id);
        let headers = [("datagrid-signature", &*datagrid(body.as_bytes())), ("x-document", "doc 1")];
        service.post(&headers, body.clone()).await
    };
    // 503 until Kafka has reported the topic's policy.
    until("a published delivery", async || send("evt_1").await.status == 200).await;
    kafka.broker_down().unwrap();
    send("evt_2").await.is(202, "spooled", None);
    kafka.broker_up().unwrap();
    until("an empty spool", async || service.app.spool().unwrap().live == 0).await;
    let (servers, topic) = (kafka.bootstrap_servers(), service.topic("batch_prediction.completed"));
    let read = move || {
        let mut found = Vec::new();
        kafka::records(&servers, &topic, |record| {
            use rdkafka::message::{Headers as _, Message as _};
            let header = |name: &str| {
                let mut headers = record.headers().unwrap().iter();
                let value = headers.find(|header| header.key == name).unwrap().value.unwrap();
                String::from_utf8(value.to_vec()).unwrap()
            };
            let key = String::from_utf8(record.key().unwrap().to_vec()).unwrap();
            found.push((key, header("ce_id"), header("hookstream-unsigned")));
        });
        found.sort();
        found.dedup(); // librdkafka may deliver a record that the spool delivers too
        found
    };
    let found = tokio::task::spawn_blocking(read).await.unwrap();
    let record = |id: &str| ("doc 1".to_owned(), id.to_owned(), "key".to_owned());
    assert_eq!(found, [record("evt_1"), record("evt_2")]);
}

#[tokio::test]
async fn a_compacting_topic_stops_its_type_until_it_is_altered() {
    let mut setup = Setup::new("datagrid");
    setup.rules = "types = [\"batch_prediction.completed\", \"batch_prediction.failed\"]\n\
                   envelope.keys = { \"batch_prediction.failed\" = \"/data/id\" }"
        .into();
    let topic = format!("{}.batch_prediction.failed", setup.source);
    kafka::create(&topic, "cleanup.policy", "compact,delete").await;
    let service = setup.start().await;
    let refused = format!("{topic} compacts, and its key names more than one event");
    until("a check of the topics", async || topics(&service).1.contains(&refused)).await;
    assert_eq!(topics(&service).0, PartState::Degraded);
    until("the schema ids", async || service.app.health.schemas.state() == PartState::Ok).await;

    let failed = |id: &str| batch(id).replace("prediction.completed", "prediction.failed");
    service.datagrid_post(failed("evt_1")).await.is(503, "unavailable", Some("kafka_unavailable"));
    service.datagrid_post(batch("evt_2")).await.is(200, "published", None);
    let lines = service.lines();
    assert!(lines.iter().any(|line| line.contains("its topic compacts")), "{lines:?}");
    let (status, ready) = service.admin("/readyz").await;
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!((status.as_u16(), &ready["status"]), (200, &json!("degraded")));

    let advice = ready["parts"]["topics"]["why"].as_str().unwrap().to_owned();
    alter(&advice, "delete");
    until("a published delivery of the type", async || {
        service.datagrid_post(failed("evt_3")).await.status == 200
    })
    .await;
    assert_eq!(topics(&service).0, PartState::Ok);
    assert_eq!(kafka::java(&[&topic])[0]["key"], "bpred_abc123");

    // Altered back while the service runs: the next check notices it, and a reload triggers one.
    alter(&advice, "compact");
    service.app.reload.now().await.unwrap();
    until("the next check of the topics", async || {
        service.datagrid_post(failed("evt_4")).await.status == 503
    })
    .await;
    service.datagrid_post(batch("evt_5")).await.is(200, "published", None);
}
