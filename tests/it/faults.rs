//! No answer is 2xx before Kafka's acknowledgement, and every answer is in time, whatever Kafka does.

use std::time::{Duration, Instant};

use hookstream::kafka::embedded::Embedded;
use rdkafka::types::RDKafkaRespErr;

use crate::support::raw::{self, head};
use crate::support::{PATIENCE, Setup, batch, datagrid, kafka, on_embedded, on_embedded_with, until};

/// How late an answer may be if the machine is busy.
const SLACK: Duration = Duration::from_millis(750);

#[tokio::test]
async fn the_answer_waits_for_the_acknowledgement() {
    let (service, kafka) = on_embedded("").await;
    service.datagrid_post(batch("evt_0")).await.is(200, "published", None);
    let delay = Duration::from_millis(900);
    kafka.delay(delay).unwrap();
    let start = Instant::now();
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
    assert!(start.elapsed() >= delay, "answered after {:?}, before the broker", start.elapsed());
}

#[tokio::test]
async fn deliveries_to_a_slow_broker_are_answered_503_in_time() {
    let (service, kafka) = on_embedded("ack_deadline = \"2500ms\"").await;
    kafka.delay(Duration::from_secs(20)).unwrap();
    let start = Instant::now();
    let answer = service.datagrid_post(batch("evt_1")).await;
    answer.is(503, "unavailable", Some("kafka_unavailable"));
    let took = start.elapsed();
    assert!(took > Duration::from_secs(2) && took < Duration::from_millis(2500) + SLACK, "{took:?}");
    // The delivery's own timer ended the wait, not the outer deadline: the delivery had its result by then.
    assert!(service.lines()[0].contains("no acknowledgement within the deadline"), "{:?}", service.lines());
}

#[tokio::test]
async fn deliveries_are_answered_503_in_time_while_the_broker_is_down_and_recover_without_help() {
    let (service, kafka) = on_embedded("ack_deadline = \"2500ms\"").await;
    service.datagrid_post(batch("evt_0")).await.is(200, "published", None);
    kafka.broker_down().unwrap();
    for n in 0..3 {
        let start = Instant::now();
        let answer = service.datagrid_post(batch(&format!("evt_down_{n}"))).await;
        answer.is(503, "unavailable", Some("kafka_unavailable"));
        assert!(start.elapsed() < Duration::from_millis(2500) + SLACK, "{:?}", start.elapsed());
    }
    let (status, readiness) = service.admin("/readyz").await;
    assert_eq!(status, 503, "ready although no delivery can be durable: {readiness}");
    assert_eq!(service.admin("/livez").await.0, 200, "a restart does not help against a Kafka outage");
    kafka.broker_up().unwrap();
    service.wait_ready().await;
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
}

#[tokio::test]
async fn deliveries_to_a_deleted_topic_are_answered_503_and_other_topics_continue() {
    let setup = Setup { rules: "ack_deadline = \"3s\"".into(), ..Setup::new("datagrid") };
    let service = setup.ready().await;
    let (gone, kept) =
        (service.topic("batch_prediction.completed"), service.topic("batch_prediction.failed"));
    kafka::delete(&gone).await;

    let deadline = Instant::now() + PATIENCE;
    let mut refused = 0;
    // The broker may still accept a record for a moment; after the first 503, all answers are 503.
    while refused < 3 && Instant::now() < deadline {
        let start = Instant::now();
        let answer = service.datagrid_post(batch(&format!("evt_{refused}"))).await;
        assert!(start.elapsed() < Duration::from_secs(3) + SLACK, "{:?}", start.elapsed());
        if answer.status == 200 {
            assert_eq!(refused, 0, "a 2xx for a deleted topic");
            continue;
        }
        answer.is(503, "unavailable", Some("kafka_unavailable"));
        refused += 1;
    }
    assert_eq!(refused, 3);
    let other = batch("evt_other").replace("batch_prediction.completed", "batch_prediction.failed");
    service.datagrid_post(other).await.is(200, "published", None);
    assert_eq!(kafka::all(&kept).await.len(), 1);
}

#[tokio::test]
async fn a_client_that_disconnects_does_not_lose_its_delivery() {
    let (service, kafka) = on_embedded("").await;
    // The client disconnects before the broker answers.
    kafka.delay(Duration::from_millis(700)).unwrap();
    let body = batch("evt_hung_up");
    let length = body.len().to_string();
    let header = datagrid(body.as_bytes());
    let request = head(
        "POST",
        &format!("/hooks/{}", service.source),
        &[("Datagrid-Signature", &header), ("content-length", &length)],
    ) + &body;
    drop(raw::open(service.hooks(), request.as_bytes()).await);

    until("the end of the delivery", async || !service.lines().is_empty()).await;
    assert!(service.lines()[0].starts_with("200 "), "{:?}", service.lines());
    kafka.delay(Duration::ZERO).unwrap();
    let (bootstrap, topic) = (kafka.bootstrap_servers(), service.topic("batch_prediction.completed"));
    let found = tokio::task::spawn_blocking(move || kafka::read(&bootstrap, &topic)).await.unwrap();
    assert_eq!(found, ["evt_hung_up"]);
}

#[tokio::test]
async fn without_a_registry_deliveries_are_answered_503_and_liveness_stays_200() {
    let setup = Setup { registry: "http://127.0.0.1:1".into(), ..Setup::new("datagrid") };
    let service = setup.start().await;
    service.datagrid_post(batch("evt_1")).await.is(503, "unavailable", Some("schema_unknown"));
    assert_eq!(service.admin("/readyz").await.0, 503);
    assert_eq!(service.admin("/livez").await.0, 200);
}

#[tokio::test]
async fn verified_deliveries_beyond_the_slots_are_answered_503_at_once() {
    let one = |setup: &mut Setup| setup.http = "max_in_flight = 1".into();
    let (service, embedded) = on_embedded_with(one).await;
    embedded.delay(Duration::from_secs(1)).unwrap();
    let posts = (0..5).map(|n| service.datagrid_post(batch(&format!("evt_{n}"))));
    let answers = futures_util::future::join_all(posts).await;
    let published = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(published, 1, "{answers:?}");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        answer.is(503, "unavailable", Some("overloaded"));
    }
    // An unverified delivery takes none of the slots.
    let (held, refused) = tokio::join!(service.datagrid_post(batch("evt_held")), async {
        service.post(&[("Datagrid-Signature", "t=1,v1=00")], batch("evt_forged")).await
    });
    held.is(200, "published", None);
    refused.is(401, "refused", Some("unauthorized"));
}

/// Makes the producer fail permanently: after an out-of-order error for its oldest request in flight, librdkafka assumes
/// that its sequence numbers are wrong, and refuses every record.
fn fail_producer(kafka: &Embedded) {
    kafka.fail_produce(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]).unwrap();
}

#[tokio::test]
async fn a_failed_producer_is_replaced_without_a_restart() {
    let (service, kafka) = on_embedded("").await;
    service.datagrid_post(batch("evt_0")).await.is(200, "published", None);
    // The second failure shows that the replacement producer is monitored like the first one.
    for round in 0..2 {
        fail_producer(&kafka);
        let answer = service.datagrid_post(batch(&format!("evt_lost_{round}"))).await;
        answer.is(503, "unavailable", Some("kafka_unavailable"));
        until("a report of the failed producer", async || {
            let (status, readiness) = service.admin("/readyz").await;
            status == 503 && readiness.contains("the producer has failed fatally: OutOfOrder")
        })
        .await;
        until("a new producer", async || {
            let answer = service.datagrid_post(batch(&format!("evt_again_{round}"))).await;
            assert!(matches!(answer.status, 200 | 503), "{answer:?}");
            answer.status == 200
        })
        .await;
        service.wait_ready().await;
    }
}
