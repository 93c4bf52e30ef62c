//! How many copies a topic has is told, and stops nothing.

use hookstream::observe::health::State;
use serde_json::Value;

use crate::support::{Service, Setup, batch, kafka, on_embedded, until};

/// `/readyz`, once its part `durability` has been read.
async fn read(service: &Service) -> (u16, Value) {
    until("the topics' durability", async || {
        let (_, ready) = service.admin("/readyz").await;
        !ready.contains("not read yet")
    })
    .await;
    let (status, ready) = service.admin("/readyz").await;
    (status.as_u16(), serde_json::from_str(&ready).unwrap())
}

#[tokio::test]
async fn on_one_broker_readiness_is_degraded_names_the_topics_and_takes_deliveries() {
    let setup = Setup::new("datagrid");
    // One copy, whatever it claims: Kafka takes this for a topic of one replica, and acknowledges.
    let claims = format!("{}.batch_prediction.completed", setup.source);
    kafka::create(&claims, "min.insync.replicas", "2").await;
    let service = setup.ready().await;
    let (status, ready) = read(&service).await;
    assert_eq!((status, &ready["status"]), (200, &Value::from("degraded")), "{ready}");
    for (part, report) in ready["parts"].as_object().unwrap() {
        let expected = if part == "durability" { "degraded" } else { "ok" };
        assert_eq!(report["state"], expected, "{part}: {ready}");
    }
    let why = ready["parts"]["durability"]["why"].as_str().unwrap();
    let (one, two) = why.split_once("; ").unwrap();
    assert!(one.starts_with("sure of 1 copy only (replication 1, min.insync.replicas 1): "), "{why}");
    for event_type in ["knowledge.processing.completed", "batch_prediction.failed"] {
        assert!(one.contains(&service.topic(event_type)), "{why}");
    }
    assert!(one.contains(&service.dead_letters()), "{why}");
    assert_eq!(two, format!("sure of 1 copy only (replication 1, min.insync.replicas 2): {claims}"));

    service.wait_ready().await;
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
    assert_eq!(kafka::all(&claims).await, ["evt_1"]);
}

#[tokio::test]
async fn a_kafka_that_tells_no_configuration_leaves_durability_unknown_and_the_service_ready() {
    let (service, _kafka) = on_embedded("").await;
    let (status, ready) = read(&service).await;
    assert_eq!((status, &ready["status"]), (200, &Value::from("ready")), "{ready}");
    assert!(ready["parts"]["durability"]["why"].as_str().unwrap().starts_with("unknown: "), "{ready}");
    assert_eq!(service.app.health.durability.state(), State::Ok);
}
