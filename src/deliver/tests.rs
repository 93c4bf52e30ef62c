//! A full producer queue, which the service's limits prevent in tests from outside.

use std::time::{Duration, Instant};

use super::*;
use crate::kafka::embedded::{Embedded, RDKafkaRespErr};
use crate::kafka::{ClusterConfig, Tuning};
use crate::record::RecordParts;
use crate::spool::SpoolLimits;

pub(super) const TOPIC: &str = "source.type";

/// Far above what any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The broker's delay.
const ROUND_TRIP: Duration = Duration::from_millis(700);

/// Two of these exceed a queue of 1 KiB.
pub(super) fn record(key: &str) -> Record {
    sized(key, 700)
}

fn sized(key: &str, bytes: usize) -> Record {
    of_topic(TOPIC, key, bytes)
}

fn of_topic(topic: &str, key: &str, bytes: usize) -> Record {
    Record::from_spool(RecordParts {
        topic: topic.into(),
        key: key.into(),
        value: vec![b'x'; bytes],
        timestamp_ms: 1_767_323_045_678,
        headers: Vec::new(),
    })
    .unwrap()
}

fn deadline() -> Deadline {
    Deadline::new(Instant::now(), PATIENCE, Duration::from_secs(1))
}

/// A producer that has published nothing, so that no timestamp has been accepted.
fn new_producer() -> (Embedded, Arc<Producer>, Arc<Health>) {
    let kafka = Embedded::start().unwrap();
    kafka.create_topic(TOPIC, 1).unwrap();
    let connection = ClusterConfig::new(kafka.bootstrap_servers(), crate::config::Properties::default());
    let tuning = Tuning { kafka_budget: PATIENCE, max_record: 1_000_000, queue_kib: 1 };
    let health = Health::new();
    let producer = Arc::new(Producer::new(&connection, tuning, health.clone()).unwrap());
    producer.probe(PATIENCE);
    assert_eq!(health.kafka.state(), PartState::Ok);
    (kafka, producer, health)
}

/// A producer that has published once.
async fn producer() -> (Embedded, Arc<Producer>, Arc<Health>) {
    let (kafka, producer, health) = new_producer();
    // Its queue space is freed shortly after its acknowledgement, so it must fit beside the next record.
    producer.publish(&sized("evt_0", 10)).unwrap().await.unwrap();
    (kafka, producer, health)
}

/// The same, with a slow broker from now on.
async fn slow() -> (Embedded, Arc<Producer>, Arc<Health>) {
    let slow = producer().await;
    slow.0.delay(ROUND_TRIP).unwrap();
    slow
}

/// librdkafka treats this answer as a success, but has no offset: the record was found to be missing.
#[tokio::test]
async fn a_success_without_an_offset_is_no_acknowledgement() {
    let (_dir, spool) = spool(100);
    let (kafka, producer, health) = producer().await;
    let deliver = async |spool: Option<Arc<Spool>>, key| {
        let repeated = RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER;
        kafka.fail_produce(&[repeated]).unwrap();
        let deliverer = Deliverer::new(producer.clone(), spool, health.clone());
        deliverer.deliver(vec![sized(key, 10)], OnRefusal::DeadLetter, deadline()).await
    };
    let alone = deliver(None, "evt_1").await;
    assert!(matches!(alone, Err(DeliverError::Kafka(_))), "{alone:?}");
    let spooled = deliver(Some(spool.clone()), "evt_2").await;
    assert!(matches!(spooled, Ok(Receipt::Spooled)), "{spooled:?}");
    assert_eq!(spool.stats().live, 1);
}

#[tokio::test]
async fn without_a_spool_a_full_queue_is_overload_and_the_topic_is_well() {
    let (_kafka, producer, health) = slow().await;
    let deliverer = Deliverer::new(producer.clone(), None, health);
    let first = producer.publish(&record("evt_1")).unwrap();
    let second = deliverer.deliver(vec![record("evt_2")], OnRefusal::DeadLetter, deadline()).await;
    assert!(matches!(second, Err(DeliverError::Overloaded(_))), "{second:?}");
    assert!(!deliverer.outages.is_unavailable(TOPIC, || None));
    first.await.unwrap();
    // The queue space is freed shortly after the acknowledgement.
    let start = Instant::now();
    loop {
        match deliverer.deliver(vec![record("evt_3")], OnRefusal::DeadLetter, deadline()).await {
            Ok(Receipt::Published(_)) => break,
            Err(DeliverError::Overloaded(_)) => assert!(start.elapsed() < PATIENCE),
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A spool with a limit of `max_rows`, and its directory.
pub(super) fn spool(max_rows: u64) -> (tempfile::TempDir, Arc<Spool>) {
    let dir = tempfile::tempdir().unwrap();
    let limits = SpoolLimits { max_rows, ..SpoolLimits::UNBOUNDED };
    let spool = Arc::new(Spool::open(dir.path(), limits).unwrap().0);
    (dir, spool)
}

#[tokio::test]
async fn of_several_records_those_that_kafka_does_not_take_are_spooled_together_or_not_at_all() {
    let (_dir, spool) = spool(2);
    let (_kafka, producer, health) = slow().await;
    let deliverer = Deliverer::new(producer.clone(), Some(spool.clone()), health);
    let first = producer.publish(&record("evt_1")).unwrap();
    // Two rows fit: three do not, and none of them remains.
    let three = ["evt_2", "evt_3", "evt_4"].map(record).to_vec();
    let refused = deliverer.deliver(three, OnRefusal::DeadLetter, deadline()).await;
    assert!(matches!(refused, Err(DeliverError::SpoolFull(_))), "{refused:?}");
    assert_eq!(spool.stats().live, 0);

    // The small record fits in the queue beside the first.
    let both = vec![sized("evt_5", 10), record("evt_6")];
    let spooled = deliverer.deliver(both, OnRefusal::DeadLetter, deadline()).await;
    assert!(matches!(spooled, Ok(Receipt::Spooled)), "{spooled:?}");
    assert_eq!(spool.stats().live, 1, "the other one is acknowledged");
    first.await.unwrap();
    let small = vec![sized("evt_7", 10), sized("evt_8", 10)];
    let published = deliverer.deliver(small, OnRefusal::DeadLetter, deadline()).await;
    assert!(matches!(published, Ok(Receipt::Published(_))), "{published:?}");
    assert_eq!(spool.stats().live, 1);
}

#[tokio::test]
async fn with_a_spool_a_full_queue_spools_and_the_drain_waits_for_room() {
    let (_dir, spool) = spool(100);
    let (_kafka, producer, health) = slow().await;
    let deliverer = Deliverer::new(producer.clone(), Some(spool.clone()), health);
    let mut drain = deliverer.drain(Arc::new(())).unwrap();
    let sent = Instant::now();
    let mut first = Box::pin(producer.publish(&record("evt_1")).unwrap());
    let second = deliverer.deliver(vec![record("evt_2")], OnRefusal::DeadLetter, deadline()).await;
    assert!(matches!(second, Ok(Receipt::Spooled)), "{second:?}");
    assert!(!deliverer.outages.is_unavailable(TOPIC, || None));

    let acknowledged = loop {
        let ack = tokio::time::timeout(Duration::from_millis(10), &mut first).await;
        if let Ok(ack) = ack {
            break ack;
        }
        let pause = !drain.step().await;
        assert!(pause || sent.elapsed() > ROUND_TRIP / 2, "the queue is full");
    };
    acknowledged.unwrap();
    assert!(drain.backoffs.is_empty(), "the topic has a back-off although it is healthy");
    let start = Instant::now();
    while spool.stats().live > 0 {
        drain.step().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(spool.stats().parked, 0);
}

#[tokio::test]
async fn where_more_topics_drain_than_rows_are_asked_for_they_take_turns() {
    let (_dir, spool) = spool(100);
    let (_kafka, producer, health) = producer().await;
    let mut drain = Deliverer::new(producer, Some(spool.clone()), health).drain(Arc::new(())).unwrap();
    let topics: Vec<String> = (0..6).map(|n| format!("source.type-{n}")).collect();
    spool.store(topics.iter().map(|topic| of_topic(topic, "evt_1", 10)).collect()).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let rows = drain.rows(4).await;
        assert_eq!(rows.len(), 4);
        seen.extend(rows.iter().map(|row| row.record.topic().to_owned()));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), topics);
}

/// The drain and what it drains, until no row is live.
async fn drained(drain: &mut Drain, spool: &Spool) {
    let start = Instant::now();
    while spool.stats().live > 0 {
        if !drain.step().await {
            drain.idle().await;
        }
        assert!(start.elapsed() < PATIENCE, "{:?}", spool.stats());
    }
}

/// librdkafka may report a wrong clock as an invalid record, but not for a record without others in its batch.
#[tokio::test]
async fn a_row_that_kafka_refuses_alone_is_parked_although_no_timestamp_was_accepted() {
    let (_dir, spool) = spool(100);
    let (kafka, producer, health) = new_producer();
    let invalid = RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD;
    // First the batch of both, then the first row alone.
    kafka.fail_produce(&[invalid, invalid]).unwrap();
    spool.store(vec![sized("evt_1", 10), sized("evt_2", 10)]).await.unwrap();
    let mut drain = Deliverer::new(producer, Some(spool.clone()), health).drain(Arc::new(())).unwrap();
    drain.step().await;
    assert_eq!((spool.stats().live, spool.stats().parked), (2, 0), "the timestamps may be the cause");
    drained(&mut drain, &spool).await;
    assert_eq!(spool.stats().parked, 1, "the other row is published");
}

#[tokio::test]
async fn the_drain_waits_for_room_in_the_queue_also_when_it_probes() {
    let (_dir, spool) = spool(100);
    let (_kafka, producer, health) = slow().await;
    let deliverer = Deliverer::new(producer.clone(), Some(spool.clone()), health);
    let mut drain = deliverer.drain(Arc::new(())).unwrap();
    let why = "the partition is unavailable";
    deliverer.outages.record(TOPIC, || Some((0, 1)), &Err(PublishError::unanswered(why)));
    spool.store(["evt_2", "evt_3"].map(record).to_vec()).await.unwrap();
    let first = producer.publish(&record("evt_1")).unwrap();
    // One row is probed and finds the queue full, the other one is held.
    assert!(!drain.step().await);
    let start = Instant::now();
    drain.idle().await;
    assert!(start.elapsed() >= Duration::from_millis(200), "only {:?}", start.elapsed());
    first.await.unwrap();
    drained(&mut drain, &spool).await;
}

#[tokio::test]
async fn large_rows_of_many_topics_are_leased_in_bounded_rounds() {
    let (_dir, spool) = spool(1_000);
    let (_kafka, producer, health) = producer().await;
    let mut drain = Deliverer::new(producer, Some(spool.clone()), health).drain(Arc::new(())).unwrap();
    let topics: Vec<String> = (0..20).map(|n| format!("source.type-{n:02}")).collect();
    for topic in &topics {
        spool
            .store(vec![of_topic(topic, "evt_1", 900_000), of_topic(topic, "evt_2", 900_000)])
            .await
            .unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let rows = drain.rows(512).await;
        let bytes: usize = rows.iter().map(|row| row.record.value().len()).sum();
        assert!(bytes <= 17 << 20, "{bytes} bytes at once");
        seen.extend(rows.iter().map(|row| row.record.topic().to_owned()));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), topics, "no topic is left out");
}
