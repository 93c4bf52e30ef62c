//! Reads topics: with Apache's Java clients where that matters, otherwise with librdkafka, which is faster.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Instant;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use super::{PATIENCE, stack};

/// The records that the Java reader found in a topic.
pub fn java(topics: &[&str]) -> Vec<Value> {
    let output = Command::new(stack("JAVA"))
        .args(["-cp", &stack("CLASSPATH"), "Reader", &stack("KAFKA"), &stack("REGISTRY")])
        .args(topics)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The keys of all records that are in a topic of the real Kafka now.
pub async fn all(topic: &str) -> Vec<String> {
    let (bootstrap, topic) = (stack("KAFKA"), topic.to_owned());
    tokio::task::spawn_blocking(move || read(&bootstrap, &topic)).await.unwrap()
}

/// Like [`all`] for any cluster. Blocks.
pub fn read(bootstrap: &str, topic: &str) -> Vec<String> {
    let mut keys = Vec::new();
    records(bootstrap, topic, |message| {
        keys.push(String::from_utf8(message.key().unwrap().to_vec()).unwrap());
    });
    keys
}

/// Calls `each` for every record that is in a topic now. Blocks.
pub fn records(bootstrap: &str, topic: &str, mut each: impl FnMut(&BorrowedMessage<'_>)) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "hookstream-test-reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    // A broker answers for a moment as if it did not know a topic that it has just created.
    let (begin, mut partitions) = (Instant::now(), 0);
    while partitions == 0 {
        assert!(begin.elapsed() < PATIENCE, "{topic} does not exist");
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        partitions = metadata.topics()[0].partitions().len();
    }
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition as i32, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let (mut last, mut ended) = (Instant::now(), BTreeSet::new());
    while ended.len() < partitions {
        assert!(last.elapsed() < PATIENCE, "{topic} could not be read to its end");
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => {
                assert!(message.payload().is_some_and(|value| !value.is_empty()), "unexpected tombstone");
                each(&message);
                last = Instant::now();
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
}

/// Deletes a topic of the real Kafka, and waits until it does not exist any more.
pub async fn delete(topic: &str) {
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let results = admin().delete_topics(&[topic], &options).await.unwrap();
    assert_eq!(results, [Ok(topic.to_owned())]);
}

/// Creates a topic of the real Kafka with a setting that the service would not choose.
pub async fn create(topic: &str, key: &str, value: &str) {
    create_with(topic, &[(key, value)]).await;
}

/// Like [`create`] with several settings.
pub async fn create_with(topic: &str, settings: &[(&str, &str)]) {
    create_wide(topic, 1, settings).await;
}

/// Like [`create_with`] with this many partitions.
pub async fn create_wide(topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    create_on(&stack("KAFKA"), topic, partitions, settings).await;
}

/// Like [`create_wide`] on any cluster.
pub async fn create_on(bootstrap: &str, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
    assert_eq!(admin.create_topics(&[new], &options).await.unwrap(), [Ok(topic.to_owned())]);
}

/// The settings that were set on a topic of the real Kafka, without the broker's defaults.
pub async fn own_settings(topic: &str) -> BTreeMap<String, String> {
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let described = admin().describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await.unwrap();
    let entries = described.into_iter().flat_map(|described| described.unwrap().entries);
    let own = entries.filter(|entry| matches!(entry.source, ConfigSource::DynamicTopic));
    own.map(|entry| (entry.name, entry.value.unwrap())).collect()
}

pub fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", stack("KAFKA")).create().unwrap()
}

/// Whether the real Kafka has the topic.
pub async fn exists(topic: &str) -> bool {
    let topic = topic.to_owned();
    let exists = move || {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", stack("KAFKA")).create().unwrap();
        let metadata = client.fetch_metadata(None, PATIENCE).unwrap();
        metadata.topics().iter().any(|found| found.name() == topic)
    };
    tokio::task::spawn_blocking(exists).await.unwrap()
}
