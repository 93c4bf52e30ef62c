//! Runs on librdkafka's in-memory cluster, so without compaction and transactions.

use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use super::*;
use crate::kafka::embedded::Embedded;

const TOPICS: [&str; 2] = ["datagrid.done", "dead_letter.datagrid"];

struct Fixture {
    _kafka: Embedded,
    producer: FutureProducer,
    consumer: Consumer,
}

impl Fixture {
    /// Two topics of two partitions, empty.
    fn new() -> Self {
        let kafka = Embedded::start().unwrap();
        for topic in TOPICS {
            kafka.create_topic(topic, 2).unwrap();
        }
        let servers = kafka.bootstrap_servers();
        let producer = ClientConfig::new().set("bootstrap.servers", &servers).create().unwrap();
        let consumer = Consumer::new(&ClusterConfig::new(servers, Default::default())).unwrap();
        Self { _kafka: kafka, producer, consumer }
    }

    async fn send(&self, topic: &str, partition: i32, value: &str, timestamp: i64) {
        let headers = OwnedHeaders::new().insert(Header { key: "h", value: Some(value) });
        let record = FutureRecord::to(topic)
            .key("key")
            .payload(value)
            .partition(partition)
            .timestamp(timestamp)
            .headers(headers);
        self.producer.send(record, Timeout::After(TIMEOUT)).await.unwrap();
    }

    async fn spans(&self, start: Start) -> Vec<Span> {
        let partitions: Vec<_> = TOPICS
            .iter()
            .flat_map(|topic| [0, 1].map(|partition| ((*topic).to_owned(), partition)))
            .collect();
        self.consumer.spans(&partitions, start).await.unwrap()
    }

    /// All values of the spans, sorted, after the bounded read has ended.
    async fn values(&self, spans: &[Span]) -> Vec<String> {
        let (sender, mut events) = mpsc::channel(64);
        let read = tokio::time::timeout(Duration::from_secs(20), self.consumer.read(spans, true, &sender));
        read.await.expect("the read ends by itself").unwrap();
        drop(sender);
        let mut values = Vec::new();
        while let Some(event) = events.recv().await {
            match event {
                ConsumerEvent::Record(record) => {
                    values.push(String::from_utf8(record.value.unwrap()).unwrap())
                }
                ConsumerEvent::Trouble(text) => panic!("{text}"),
            }
        }
        values.sort();
        values
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_read_ends_at_the_end_of_its_spans() {
    let fixture = Fixture::new();
    assert_eq!(fixture.consumer.topics().await.unwrap().values().copied().collect::<Vec<_>>(), [2, 2]);
    assert!(fixture.values(&fixture.spans(Start::Beginning).await).await.is_empty(), "empty partitions");

    fixture.send(TOPICS[0], 0, "a", 1_000).await;
    fixture.send(TOPICS[0], 0, "b", 2_000).await;
    fixture.send(TOPICS[1], 0, "c", 3_000).await;
    let spans = fixture.spans(Start::Beginning).await;
    fixture.send(TOPICS[0], 0, "too late", 4_000).await;
    fixture.send(TOPICS[1], 1, "too late", 4_000).await;
    assert_eq!(fixture.values(&spans).await, ["a", "b", "c"]);
    assert!(fixture.values(&fixture.spans(Start::End).await).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_begins_at_its_start() {
    let fixture = Fixture::new();
    for (value, timestamp) in [("a", 1_000), ("b", 2_000), ("c", 3_000)] {
        fixture.send(TOPICS[0], 0, value, timestamp).await;
    }
    fixture.send(TOPICS[1], 1, "d", 2_500).await;
    let at = |ms| Start::Time(Timestamp::from_millisecond(ms).unwrap());
    for (start, expected) in [
        (Start::Last(1), &["c", "d"][..]),
        (Start::Last(2), &["b", "c", "d"]),
        (Start::Last(99), &["a", "b", "c", "d"]),
        (at(2_000), &["b", "c", "d"]),
        (at(2_501), &["c"]),
        (at(3_001), &[]),
    ] {
        assert_eq!(fixture.values(&fixture.spans(start).await).await, expected, "{start:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unbounded_read_returns_new_records_with_all_their_parts() {
    let fixture = Fixture::new();
    fixture.send(TOPICS[0], 1, "before", 1_000).await;
    let spans = fixture.spans(Start::End).await;
    // Between determining the span and reading it: must not be lost.
    fixture.send(TOPICS[0], 1, "between", 2_000).await;
    let (sender, mut events) = mpsc::channel(64);
    let record = tokio::select! {
        read = fixture.consumer.read(&spans, false, &sender) => panic!("an unbounded read ended: {read:?}"),
        event = events.recv() => match event.unwrap() {
            ConsumerEvent::Record(record) => record,
            ConsumerEvent::Trouble(text) => panic!("{text}"),
        },
    };
    assert_eq!((record.topic.as_str(), record.partition, record.offset), (TOPICS[0], 1, 1));
    assert_eq!(record.timestamp_ms, Some(2_000));
    assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&b"key"[..]), Some(&b"between"[..])));
    assert_eq!(record.headers, [("h".to_owned(), Some(b"between".to_vec()))]);
    assert!(!format!("{record:?}").contains("between"), "no payload in Debug");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_broker_is_reported_soon_and_with_the_reason() {
    // Bound and closed again, so that nothing listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let consumer =
        Consumer::new(&ClusterConfig::new(format!("127.0.0.1:{port}"), Default::default())).unwrap();
    let start = Instant::now();
    let error = consumer.topics().await.unwrap_err().to_string();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("refused"), "{error}");
}
