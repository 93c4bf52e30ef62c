//! Topics: which there are and what they are like, creating those that are missing, and altering.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigSource, NewPartitions, NewTopic as KafkaTopic, OwnedResourceSpecifier,
    ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::ClusterConfig;
use super::config_error::refused;
use super::ffi::{self, Alteration, GroupDescription};

/// The bound of each call to the cluster.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The cluster's administration; clones share one client.
#[derive(Clone)]
pub struct Admin(Arc<AdminClient<DefaultClientContext>>);

/// What the cluster holds now.
#[derive(Debug)]
pub struct Cluster {
    /// How many brokers there are.
    pub brokers: usize,
    /// By name.
    pub topics: BTreeMap<String, TopicSize>,
}

/// How large a topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSize {
    /// How many partitions.
    pub partitions: usize,
    /// Replicas of that partition which has the fewest.
    pub replication: usize,
}

/// A topic as it really is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// How many partitions.
    pub partitions: usize,
    /// How many copies a record gets.
    pub copies: Copies,
    /// Its configuration by key, in effect wherever it was set; empty if it could not be read.
    pub settings: BTreeMap<String, Setting>,
}

/// One key of a topic's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As Kafka tells it.
    pub value: String,
    /// Whether it was set on the topic itself; else it is the cluster's.
    pub own: bool,
}

impl TopicDescription {
    /// `cleanup.policy`; `None` if it could not be read.
    pub fn cleanup_policy(&self) -> Option<&str> {
        self.settings.get("cleanup.policy").map(|setting| &*setting.value)
    }

    /// Whether only the last record of each key stays; `None` if that could not be read.
    pub fn compacts(&self) -> Option<bool> {
        let policy = self.cleanup_policy()?;
        Some(policy.split(',').any(|word| word.trim() == "compact"))
    }
}

/// A topic that could not be created or altered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicError {
    /// Its name.
    pub topic: String,
    /// Because we may not.
    pub denied: bool,
    /// The broker's reason.
    pub why: String,
}

impl TopicError {
    fn new(topic: String, code: RDKafkaErrorCode, why: String) -> Self {
        let denied = matches!(
            code,
            RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed
        );
        Self { topic, denied, why }
    }
}

/// What of a topic decides how many copies an acknowledged record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copies {
    /// Replicas of that partition which has the fewest.
    pub replication: usize,
    /// `min.insync.replicas`, in effect wherever it was set; `None` if it could not be read.
    pub min_insync: Option<usize>,
}

impl Copies {
    /// The fewest copies that a record has when acks=all has acknowledged it; `None` if nobody knows.
    pub fn guaranteed_copies(&self) -> Option<usize> {
        match self.min_insync {
            Some(min) => Some(self.replication.min(min.max(1))),
            None if self.replication <= 1 => Some(self.replication),
            None => None,
        }
    }
}

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// How many copies.
    pub replication: i32,
    /// Its configuration.
    pub config: Vec<(&'static str, String)>,
}

impl Admin {
    /// Creates the client. Brokers are not waited for.
    ///
    /// # Errors
    /// When librdkafka refuses a property.
    pub fn new(connection: &ClusterConfig) -> anyhow::Result<Self> {
        let client = connection.client_config(&[]).create().map_err(refused)?;
        Ok(Self(Arc::new(client)))
    }

    /// Reads the cluster's brokers and topics.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub async fn cluster(&self) -> anyhow::Result<Cluster> {
        let client = self.0.clone();
        let metadata = tokio::task::spawn_blocking(move || client.inner().fetch_metadata(None, TIMEOUT))
            .await?
            .context("no Kafka broker answers")?;
        let topics = metadata.topics().iter().map(|topic| {
            let replicas = topic.partitions().iter().map(|partition| partition.replicas().len());
            let replication = replicas.min().unwrap_or_default();
            (topic.name().to_owned(), TopicSize { partitions: topic.partitions().len(), replication })
        });
        Ok(Cluster { brokers: metadata.brokers().len(), topics: topics.collect() })
    }

    /// Reads how many copies those of the topics have that are there.
    ///
    /// # Errors
    /// When no broker answers in time, or none that can tell a topic's configuration.
    pub async fn copies(&self, topics: &[String]) -> anyhow::Result<BTreeMap<String, Copies>> {
        let shapes = self.topic_descriptions(topics).await?;
        Ok(shapes.into_iter().map(|(topic, shape)| (topic, shape.copies)).collect())
    }

    /// Reads what those of the topics are like that are there.
    ///
    /// # Errors
    /// When no broker answers in time, or none that can tell a topic's configuration.
    pub async fn topic_descriptions(
        &self,
        topics: &[String],
    ) -> anyhow::Result<BTreeMap<String, TopicDescription>> {
        let mut cluster = self.cluster().await?.topics;
        let there = topics.iter().filter_map(|topic| cluster.remove_entry(topic));
        let there: BTreeMap<String, TopicSize> = there.collect();
        if there.is_empty() {
            return Ok(BTreeMap::new());
        }
        let asked: Vec<_> = there.keys().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let described = self.0.describe_configs(&asked, &options).await;
        let described = described.context("the topics' configuration cannot be read")?;
        // One that we may not see comes back without entries.
        let settings = |topic: &str| {
            let found = described.iter().flatten().find(
                |found| matches!(&found.specifier, OwnedResourceSpecifier::Topic(name) if name == topic),
            );
            let entries = found.map(|found| found.entries.as_slice()).unwrap_or_default().iter();
            let setting = |value: &String, source: &ConfigSource| {
                let own = matches!(source, ConfigSource::DynamicTopic);
                Setting { value: value.clone(), own }
            };
            let settings = entries.filter_map(|entry| {
                Some((entry.name.clone(), setting(entry.value.as_ref()?, &entry.source)))
            });
            settings.collect::<BTreeMap<_, _>>()
        };
        let shapes = there.into_iter().map(|(topic, TopicSize { partitions, replication })| {
            let settings = settings(&topic);
            let min_insync =
                settings.get("min.insync.replicas").and_then(|setting| setting.value.parse().ok());
            let copies = Copies { replication, min_insync };
            (topic, TopicDescription { partitions, copies, settings })
        });
        Ok(shapes.collect())
    }

    /// Whether those of the topics compact that are there; `None` where it could not be read. The embedded
    /// Kafka knows no topic's configuration, leaves such a call unanswered, and keeps all.
    ///
    /// # Errors
    /// When no broker answers in time, or none that can tell a topic's configuration.
    pub async fn compacting(&self, topics: &[String]) -> anyhow::Result<BTreeMap<String, Option<bool>>> {
        if self.is_in_memory().await? {
            return Ok(topics.iter().map(|topic| (topic.clone(), Some(false))).collect());
        }
        let shapes = self.topic_descriptions(topics).await?;
        Ok(shapes.into_iter().map(|(topic, shape)| (topic, shape.compacts())).collect())
    }

    /// Whether it is librdkafka's in-memory cluster, which has no topic administration.
    ///
    /// # Errors
    /// When the call cannot be made.
    pub async fn is_in_memory(&self) -> anyhow::Result<bool> {
        let client = self.0.clone();
        let id = tokio::task::spawn_blocking(move || client.inner().fetch_cluster_id(TIMEOUT)).await?;
        // As it calls itself; that of a real cluster is 22 characters of base64.
        Ok(id.is_some_and(|id| id.starts_with("mockCluster")))
    }

    /// Asks the brokers whether they would create the topics, without doing it: those they would not.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub async fn refusals(&self, topics: &[NewTopic]) -> anyhow::Result<Vec<TopicError>> {
        let refused = self.try_create(topics, true).await?;
        Ok(refused.into_iter().map(|(topic, code)| TopicError::new(topic, code, code.to_string())).collect())
    }

    /// Creates the topics. One that somebody else has created meanwhile is no error.
    ///
    /// # Errors
    /// Names each topic that could not be created, with the broker's reason.
    pub async fn create(&self, topics: &[NewTopic]) -> anyhow::Result<()> {
        let failed = self.try_create(topics, false).await?;
        let failed: Vec<String> = failed
            .into_iter()
            .filter(|(_, code)| *code != RDKafkaErrorCode::TopicAlreadyExists)
            .map(|(name, code)| format!("{name} ({code})"))
            .collect();
        anyhow::ensure!(failed.is_empty(), "topics could not be created: {}", failed.join(", "));
        Ok(())
    }

    /// Sets the settings by IncrementalAlterConfigs, so that all others stay as they are; those topics
    /// that were refused. With `only_ask` nothing is changed.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub async fn alter(&self, wished: Vec<Alteration>, only_ask: bool) -> anyhow::Result<Vec<TopicError>> {
        if wished.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.0.clone();
        let alter = move || ffi::alter(client.inner(), &wished, only_ask, TIMEOUT);
        let refused = tokio::task::spawn_blocking(alter).await??;
        let refusal = |(topic, code, why): (String, RDKafkaErrorCode, String)| {
            TopicError::new(topic, code, if why.is_empty() { code.to_string() } else { why })
        };
        Ok(refused.into_iter().map(refusal).collect())
    }

    /// The consumer groups that we may see, by name.
    ///
    /// # Errors
    /// When a broker does not answer in time.
    pub(super) async fn groups(&self) -> anyhow::Result<BTreeMap<String, GroupDescription>> {
        let client = self.0.clone();
        tokio::task::spawn_blocking(move || ffi::groups(client.inner(), TIMEOUT)).await?
    }

    /// Gives topics so many partitions in all; those that were refused. With `only_ask` nothing is changed.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub async fn add_partitions(
        &self,
        wished: &[(String, usize)],
        only_ask: bool,
    ) -> anyhow::Result<Vec<TopicError>> {
        if wished.is_empty() {
            return Ok(Vec::new());
        }
        let wished: Vec<_> = wished.iter().map(|(topic, count)| NewPartitions::new(topic, *count)).collect();
        let options = AdminOptions::new().validate_only(only_ask);
        let options = options.operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
        let results = self.0.create_partitions(&wished, &options).await.context("no Kafka broker answers")?;
        let refused = results.into_iter().filter_map(Result::err);
        Ok(refused.map(|(topic, code)| TopicError::new(topic, code, code.to_string())).collect())
    }

    /// Those that were not created, with the broker's reason.
    async fn try_create(
        &self,
        topics: &[NewTopic],
        only_ask: bool,
    ) -> anyhow::Result<Vec<(String, RDKafkaErrorCode)>> {
        let wished: Vec<KafkaTopic<'_>> = topics.iter().map(kafka_topic).collect();
        let options = AdminOptions::new().validate_only(only_ask);
        let options = options.operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
        let results = self.0.create_topics(&wished, &options).await.context("no Kafka broker answers")?;
        Ok(results.into_iter().filter_map(Result::err).collect())
    }
}

fn kafka_topic(topic: &NewTopic) -> KafkaTopic<'_> {
    let replication = TopicReplication::Fixed(topic.replication);
    let new = KafkaTopic::new(&topic.name, topic.partitions, replication);
    topic.config.iter().fold(new, |new, (key, value)| new.set(key, value))
}
