//! Too few copies of a topic are reported, and stop nothing.

use hookstream::observe::health::PartState;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::{PATIENCE, Service, Setup, batch, kafka, on_embedded, until};

const SHORT: &str =
    "only 1 copy guaranteed (replication 1, min.insync.replicas 2: brokers before Kafka 4 accept no record)";

/// Waits until the part `durability` of `/readyz` is known, also for new topics.
async fn read(service: &Service) -> (u16, Value) {
    until("the topics' durability", async || {
        let (_, ready) = service.admin("/readyz").await;
        !ready.contains("not read yet") && !ready.contains("missing or not visible")
    })
    .await;
    let (status, ready) = service.admin("/readyz").await;
    (status.as_u16(), serde_json::from_str(&ready).unwrap())
}

#[tokio::test]
async fn on_one_broker_readiness_is_degraded_and_deliveries_are_accepted() {
    let setup = Setup::new("datagrid");
    // One copy, whatever the setting: Kafka accepts it for a topic with one replica, and acknowledges.
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
    assert!(one.starts_with("only 1 copy guaranteed (replication 1, min.insync.replicas 1): "), "{why}");
    for event_type in ["knowledge.processing.completed", "batch_prediction.failed"] {
        assert!(one.contains(&service.topic(event_type)), "{why}");
    }
    assert!(one.contains(&service.dead_letters()), "{why}");
    assert_eq!(two, format!("{SHORT}: {claims}"));

    service.wait_ready().await;
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
    assert_eq!(kafka::all(&claims).await, ["evt_1"]);
}

#[tokio::test]
async fn durability_is_unknown_and_the_service_ready_if_kafka_returns_no_configuration() {
    let (service, _kafka) = on_embedded("").await;
    let (status, ready) = read(&service).await;
    assert_eq!((status, &ready["status"]), (200, &Value::from("ready")), "{ready}");
    let durability = &ready["parts"]["durability"];
    let why = "the in-memory Kafka keeps records until it ends";
    assert_eq!(durability, &json!({"state": "unknown", "why": why}), "{ready}");
    assert_eq!(service.app.health.durability.state(), PartState::Unknown, "unknown is not ok");
}

#[tokio::test]
async fn k8_a_recreated_topic_is_checked_after_its_first_acknowledgement() {
    let service = Setup { rules: "ack_deadline = \"3s\"".into(), ..Setup::new("datagrid") }.ready().await;
    let topic = service.topic("batch_prediction.completed");
    read(&service).await;
    kafka::delete(&topic).await;
    until("a deleted topic", async || service.datagrid_post(batch("evt_1")).await.status == 503).await;
    kafka::create(&topic, "min.insync.replicas", "2").await;
    // The other topics have 1.
    let found = format!("{SHORT}: {topic}");
    until("its durability", async || {
        service.datagrid_post(batch("evt_2")).await;
        read(&service).await.1.to_string().contains(&found)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k8_brokers_create_no_topic_for_us() {
    let broker = Broker::start_with("auto.create.topics.enable=true\n").await;
    let setup = Setup {
        kafka: broker.bootstrap(),
        rules: "ack_deadline = \"3s\"".into(),
        tables: "[provision]\non_start = false".into(),
        ..Setup::new("datagrid")
    };
    let service = setup.start().await;
    // A dead letter needs no schema. Each attempt asks the broker for its topic.
    let mut refused = 0;
    until("three refusals", async || {
        let answer = service.datagrid_post("no JSON").await;
        assert_eq!(answer.status, 503, "a 2xx for a topic that does not exist: {answer:?}");
        refused += u32::from(answer.body["reason"] == "kafka_unavailable");
        refused == 3
    })
    .await;
    let bootstrap = broker.bootstrap();
    let topics = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
        let metadata = client.fetch_metadata(None, PATIENCE).unwrap();
        metadata.topics().iter().map(|topic| topic.name().to_owned()).collect::<Vec<_>>()
    });
    let topics = topics.await.unwrap();
    assert!(!topics.contains(&service.dead_letters()), "{topics:?}");
}
