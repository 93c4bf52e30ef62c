//! Consumer groups with and without members, and the output of Kafka's own tool about them.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::admin::AdminOptions;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::{PATIENCE, kafka, stack, unique};

/// Writes records to one partition in order, each with a key and a timestamp in milliseconds.
pub async fn write(bootstrap: &str, topic: &str, partition: i32, records: &[(&str, i64)]) {
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    for (key, time) in records {
        let record = FutureRecord::to(topic).partition(partition).key(*key).payload("{}").timestamp(*time);
        producer.send(record, PATIENCE).await.unwrap();
    }
}

/// A transaction with one record in the partition, open until it is committed.
pub async fn begin_transaction(topic: &str, partition: i32) -> FutureProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", stack("KAFKA")).set("transactional.id", unique("transaction"));
    let producer: FutureProducer = config.create().unwrap();
    let begun = producer.clone();
    let start = move || begun.init_transactions(PATIENCE).and_then(|()| begun.begin_transaction());
    tokio::task::spawn_blocking(start).await.unwrap().unwrap();
    let record = FutureRecord::to(topic).partition(partition).key("transaction").payload("{}");
    producer.send(record, PATIENCE).await.unwrap();
    producer
}

/// Commits it, which writes a marker after the record; it has an offset, but no consumer reads it.
pub async fn commit_transaction(transaction: FutureProducer) {
    let commit = move || transaction.commit_transaction(PATIENCE);
    tokio::task::spawn_blocking(commit).await.unwrap().unwrap();
}

/// Topic, partition and offset.
pub type Offsets<'a> = &'a [(&'a str, i32, i64)];

fn list(offsets: Offsets<'_>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).unwrap();
    }
    list
}

fn consumer(bootstrap: &str, group: &str, protocol: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", group).set("group.protocol", protocol);
    config.set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
    config.create().unwrap()
}

/// Commits offsets for a group without members.
pub async fn commit(bootstrap: &str, group: &str, offsets: Offsets<'_>) {
    let (consumer, offsets) = (consumer(bootstrap, group, "classic"), list(offsets));
    let work = move || {
        // The coordinator of a cluster's first group takes a moment to become available.
        let until = Instant::now() + PATIENCE;
        while let Err(error) = consumer.commit(&offsets, CommitMode::Sync) {
            assert!(Instant::now() < until, "{error}");
            std::thread::sleep(Duration::from_millis(50)); // polls with a bound
        }
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

/// A member of a group; it leaves when dropped.
pub struct Member {
    leave: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    /// Joins with the protocol `classic` or `consumer` (KIP-848), waits for its partitions, and commits.
    pub async fn join(group: &str, protocol: &str, topic: &str, offsets: Offsets<'_>) -> Self {
        let (consumer, offsets) = (consumer(&stack("KAFKA"), group, protocol), list(offsets));
        let leave = Arc::new(AtomicBool::new(false));
        consumer.subscribe(&[topic]).unwrap();
        let (joined, has_joined) = mpsc::channel();
        let thread = std::thread::spawn({
            let leave = leave.clone();
            move || {
                let mut committed = false;
                while !leave.load(Ordering::Relaxed) {
                    let _ = consumer.poll(Duration::from_millis(50));
                    if !committed && consumer.assignment().unwrap().count() > 0 {
                        consumer.commit(&offsets, CommitMode::Sync).unwrap();
                        committed = true;
                        joined.send(()).unwrap();
                    }
                }
            }
        });
        let wait = move || has_joined.recv_timeout(PATIENCE).expect("partitions for the member");
        tokio::task::spawn_blocking(wait).await.unwrap();
        Self { leave, thread: Some(thread) }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave.store(true, Ordering::Relaxed);
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Deletes a group of the real Kafka.
pub async fn delete(group: &str) {
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let deleted = kafka::admin().delete_groups(&[group], &options).await.unwrap();
    assert_eq!(deleted, [Ok(group.to_owned())]);
}

/// The output of `kafka-consumer-groups --describe`: current offset, log end and lag by group, topic and partition;
/// `None` for a dash.
pub type Described = BTreeMap<(String, String, i32), [Option<i64>; 3]>;

/// Runs Kafka's own tool.
pub async fn describe(groups: &[&str]) -> Described {
    let mut java = Command::new(stack("JAVA"));
    java.args(["-XX:TieredStopAtLevel=1", "-cp", &stack("CLASSPATH")]);
    java.args(["org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--describe"]);
    java.args(["--bootstrap-server", &stack("KAFKA"), "--timeout", "60000"]);
    for group in groups {
        java.args(["--group", group]);
    }
    let output = tokio::task::spawn_blocking(move || java.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let mut described = Described::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [group, topic, partition, current, end, lag, ..] = words[..] else { continue };
        let Ok(partition) = partition.parse() else { continue };
        let numbers = [current, end, lag].map(|word| word.parse().ok());
        described.insert((group.into(), topic.into(), partition), numbers);
    }
    assert!(!described.is_empty(), "no group in\n{text}");
    described
}
