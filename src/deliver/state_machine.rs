//! Whatever Kafka and the spool answer, in whatever order: a record answered 2xx is in the topic, or in a row that gets
//! there. A seeded random walk over a real producer, a real spool and the drain, through their public interfaces.
//! librdkafka's threads do not support paused time, so steps take real time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::tests::{TOPIC, record, spool};
use super::{Deliverer, OnRefusal, Receipt};
use crate::config::Properties;
use crate::delivery::Deadline;
use crate::kafka::embedded::{Embedded, RDKafkaRespErr as Code};
use crate::kafka::{ClusterConfig, Consumer, ConsumerEvent, Producer, Start, Tuning};
use crate::observe::health::{Health, PartState};

const SEED: u64 = 20_261_130;

const ROUNDS: usize = 6;

const STEPS: usize = 8;

/// Far above what any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Possible answers of the brokers: retried by librdkafka, an outage of the topic, or a success without an offset.
const ANSWERS: [Code; 6] = [
    Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
    Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
    Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
    Code::RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
    Code::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER,
];

/// The keys in the topic.
async fn published(connection: &ClusterConfig) -> BTreeSet<String> {
    let consumer = Consumer::new(connection).unwrap();
    let partitions = consumer.topics().await.unwrap()[TOPIC];
    let places: Vec<_> = (0..partitions).map(|partition| (TOPIC.to_owned(), partition)).collect();
    let spans = consumer.spans(&places, Start::Beginning).await.unwrap();
    let (sender, mut events) = mpsc::channel(64);
    let reading = async {
        consumer.read(&spans, true, &sender).await.unwrap();
        drop(sender);
    };
    let collecting = async {
        let mut keys = BTreeSet::new();
        while let Some(event) = events.recv().await {
            if let ConsumerEvent::Record(record) = event {
                keys.insert(String::from_utf8(record.key.unwrap()).unwrap());
            }
        }
        keys
    };
    tokio::join!(reading, collecting).1
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_answered_and_when_2xx_is_in_the_topic_or_in_a_row() {
    let kafka = Embedded::start().unwrap();
    kafka.create_topic(TOPIC, 2).unwrap();
    let connection = ClusterConfig::new(kafka.bootstrap_servers(), Properties::default());
    let tuning = Tuning { kafka_budget: Duration::from_secs(1), max_record: 1_000_000, queue_kib: 64 };
    let health = Health::new();
    let producer = Arc::new(Producer::new(&connection, tuning, health.clone()).unwrap());
    // So few rows that it is full at times.
    let (_dir, spool) = spool(12);
    let deliverer = Arc::new(Deliverer::new(producer.clone(), Some(spool.clone()), health.clone()));
    let draining = tokio::spawn(deliverer.drain(Arc::new(())).unwrap().run());
    let probing = tokio::spawn(async move {
        loop {
            let producer = producer.clone();
            tokio::task::spawn_blocking(move || producer.probe(Duration::from_millis(500))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let started = Instant::now();
    while health.kafka.state() != PartState::Ok {
        assert!(started.elapsed() < PATIENCE, "Kafka does not answer");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let mut random = fastrand::Rng::with_seed(SEED);
    let (mut answered, mut in_topic, mut next) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut ends = [0, 0, 0];
    for round in 0..ROUNDS {
        for step in 0..STEPS {
            // In the first step of a round, Kafka is healthy.
            match if step == 0 { 9 } else { random.u32(..10) } {
                0 => kafka.broker_down().unwrap(),
                1 | 2 => kafka.broker_up().unwrap(),
                3 => kafka.delay(Duration::from_millis(random.u64(..600))).unwrap(),
                4 => kafka.delay(Duration::ZERO).unwrap(),
                5 | 6 => {
                    let codes: Vec<Code> =
                        (0..random.usize(1..6)).map(|_| *random.choice(&ANSWERS).unwrap()).collect();
                    kafka.fail_produce(&codes).unwrap();
                }
                7 => kafka.fail_produce_no_more().unwrap(),
                _ => tokio::time::sleep(Duration::from_millis(random.u64(..200))).await,
            }
            let deliveries = (0..random.usize(1..4)).map(|_| {
                let keys: Vec<String> =
                    (0..random.usize(1..4)).map(|index| format!("evt_{next}_{index}")).collect();
                next += 1;
                let (deliverer, budget) = (deliverer.clone(), Duration::from_millis(random.u64(300..900)));
                async move {
                    let records = keys.iter().map(|key| record(key)).collect();
                    let deadline = Deadline::new(Instant::now(), budget, budget / 2);
                    (keys, deliverer.deliver(records, OnRefusal::DeadLetter, deadline).await)
                }
            });
            for (keys, result) in join_all(deliveries.collect::<Vec<_>>()).await {
                match result {
                    Ok(Receipt::Published(_)) => {
                        ends[0] += 1;
                        in_topic.extend(keys.iter().cloned());
                        answered.extend(keys);
                    }
                    Ok(Receipt::Spooled) => {
                        ends[1] += 1;
                        answered.extend(keys);
                    }
                    Err(_) => ends[2] += 1,
                }
            }
        }
        kafka.broker_up().unwrap();
        kafka.delay(Duration::ZERO).unwrap();
        let published_keys = published(&connection).await;
        let missing: Vec<_> = in_topic.difference(&published_keys).collect();
        assert!(missing.is_empty(), "round {round}, seed {SEED}: acknowledged, but missing: {missing:?}");
        kafka.fail_produce_no_more().unwrap();
        let healed = Instant::now();
        while spool.stats().live > 0 {
            assert!(healed.elapsed() < PATIENCE, "rows remain, seed {SEED}: {:?}", spool.stats());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(spool.stats().parked, 0, "none of these errors is permanent");
        let published_keys = published(&connection).await;
        let missing: Vec<_> = answered.difference(&published_keys).collect();
        assert!(missing.is_empty(), "round {round}, seed {SEED}: answered 2xx, but missing: {missing:?}");
    }
    println!("seed {SEED}: published, spooled, refused: {ends:?}");
    // Otherwise the walk has shown nothing.
    assert!(ends.iter().all(|count| *count > 0), "published, spooled, refused: {ends:?}");
    draining.abort();
    probing.abort();
}
