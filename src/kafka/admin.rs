//! Topic administration: describe topics, create missing ones, alter settings and add partitions.

mod creation;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigSource, NewPartitions, OwnedResourceSpecifier, ResourceSpecifier,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use super::ffi::{self, Alteration, GroupDescription};
use super::last_error::LastError;
use super::{ClusterConfig, ClusterError, TRIES, TRY};
pub use creation::{Creation, NewTopic};

/// The time limit of each call to the cluster.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An admin client; clones share one librdkafka client.
#[derive(Clone)]
pub struct Admin(Arc<AdminState>);

struct AdminState {
    client: AdminClient<DefaultClientContext>,
    bootstrap_servers: String,
    last_error: LastError,
}

/// The cluster's current metadata.
#[derive(Debug)]
pub struct Cluster {
    pub brokers: usize,
    pub topics: BTreeMap<String, TopicSize>,
}

impl Cluster {
    /// Splits desired topics into those that exist and those that are missing.
    pub fn split(&self, desired: Vec<NewTopic>) -> (Vec<NewTopic>, Vec<NewTopic>) {
        desired.into_iter().partition(|topic| self.topics.contains_key(&topic.name))
    }
}

impl From<&Metadata> for Cluster {
    fn from(metadata: &Metadata) -> Self {
        let topics = metadata.topics().iter().map(|topic| {
            let replicas = topic.partitions().iter().map(|partition| partition.replicas().len());
            let replication = replicas.min().unwrap_or_default();
            (topic.name().to_owned(), TopicSize { partitions: topic.partitions().len(), replication })
        });
        Self { brokers: metadata.brokers().len(), topics: topics.collect() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSize {
    pub partitions: usize,
    /// The lowest replica count of all partitions.
    pub replication: usize,
}

/// A topic's actual state in Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    pub partitions: usize,
    /// The replication of its records.
    pub copies: Copies,
    /// The effective configuration by key, whether set on the topic or inherited; empty if it could not be read.
    pub settings: BTreeMap<String, TopicSetting>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSetting {
    /// The value as Kafka reports it.
    pub value: String,
    /// Whether it is set on the topic itself rather than inherited from the cluster.
    pub own: bool,
}

impl TopicDescription {
    /// `cleanup.policy`; `None` if it could not be read.
    pub fn cleanup_policy(&self) -> Option<&str> {
        self.settings.get("cleanup.policy").map(|setting| &*setting.value)
    }

    /// Whether Kafka keeps only the last record of each key; `None` if that could not be read.
    pub fn compacts(&self) -> Option<bool> {
        let policy = self.cleanup_policy()?;
        Some(policy.split(',').any(|word| word.trim() == "compact"))
    }
}

/// A topic that could not be created or altered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicError {
    pub topic: String,
    /// Whether hookstream lacks the authorization for what it tried.
    pub denied: bool,
    /// Whether hookstream may not see the topic, which then seems to be missing.
    pub hidden: bool,
    /// The broker's reason.
    pub why: String,
}

impl TopicError {
    fn new(topic: String, code: RDKafkaErrorCode, why: String) -> Self {
        let denied = matches!(
            code,
            RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed
        );
        Self { topic, denied, hidden: false, why }
    }

    /// A topic that Kafka does not show. `exists` if it has refused to create it because it exists.
    fn hidden(topic: String, exists: bool) -> Self {
        let why = match exists {
            true => "it exists, but hookstream may not see it: grant Describe",
            false => "hookstream may neither see nor create it: grant Describe and Create",
        };
        Self { topic, denied: !exists, hidden: true, why: why.to_owned() }
    }
}

/// The settings that decide how many copies an acknowledged record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copies {
    /// The lowest replica count of all partitions.
    pub replication: usize,
    /// The effective `min.insync.replicas`, whether set on the topic or inherited; `None` if it could not be read.
    pub min_insync: Option<usize>,
}

impl Copies {
    /// Whether there are fewer replicas than `min.insync.replicas`. Brokers before Kafka 4 then refuse every record
    /// (`NotEnoughReplicas`); later ones lower the minimum to the number of replicas.
    pub fn is_short(&self) -> bool {
        self.min_insync.is_some_and(|min| min > self.replication)
    }

    /// The minimum number of copies that a record has once acks=all has acknowledged it; `None` if unknown.
    pub fn guaranteed_copies(&self) -> Option<usize> {
        match self.min_insync {
            Some(min) => Some(self.replication.min(min.max(1))),
            None if self.replication <= 1 => Some(self.replication),
            None => None,
        }
    }
}

impl Admin {
    /// Creates the client without waiting for brokers.
    ///
    /// # Errors
    /// If librdkafka refuses a property.
    pub fn new(connection: &ClusterConfig) -> Result<Self, ClusterError> {
        let client = connection.client_config(&[]).create().map_err(|error| connection.refused(error))?;
        let bootstrap_servers = connection.bootstrap_servers().to_owned();
        Ok(Self(Arc::new(AdminState { client, bootstrap_servers, last_error: LastError::default() })))
    }

    /// Reads the cluster's brokers and topics.
    ///
    /// # Errors
    /// If no broker answers in time; contains the last reason that librdkafka gave.
    pub async fn cluster(&self) -> Result<Cluster, ClusterError> {
        self.cluster_within(TRY * TRIES).await
    }

    /// Like [`Self::cluster`], but waits only for `limit`.
    ///
    /// # Errors
    /// Those of [`Self::cluster`].
    pub async fn cluster_within(&self, limit: Duration) -> Result<Cluster, ClusterError> {
        let until = Instant::now() + limit;
        loop {
            let (state, limit) = (self.0.clone(), TRY.min(until.saturating_duration_since(Instant::now())));
            let fetch = move || state.client.inner().fetch_metadata(None, limit);
            let metadata = tokio::task::spawn_blocking(fetch).await?;
            self.record_errors();
            if let Ok(metadata) = metadata {
                self.0.last_error.forget();
                return Ok(Cluster::from(&metadata));
            }
            if self.0.last_error.is_hopeless() || Instant::now() >= until {
                return Err(self.unreachable());
            }
        }
    }

    /// Reads the errors that librdkafka has reported to this client.
    fn record_errors(&self) {
        let reported = ffi::reported(self.0.client.inner()).unwrap_or_default();
        reported.iter().for_each(|(code, reason)| self.0.last_error.record(*code, reason));
    }

    fn unreachable(&self) -> ClusterError {
        let AdminState { bootstrap_servers, last_error, .. } = &*self.0;
        ClusterError::Unreachable { servers: bootstrap_servers.clone(), reason: last_error.text() }
    }

    /// The error of a call that no broker answered.
    fn no_answer(&self, cause: KafkaError) -> ClusterError {
        self.record_errors();
        match self.0.last_error.text().is_empty() {
            true => ClusterError::no_broker(cause),
            false => self.unreachable(),
        }
    }

    /// Reads the replication of those topics that exist.
    ///
    /// # Errors
    /// If no broker answers in time, or none that can describe a topic's configuration.
    pub async fn copies(&self, topics: &[String]) -> Result<BTreeMap<String, Copies>, ClusterError> {
        let descriptions = self.topic_descriptions(topics).await?;
        Ok(descriptions.into_iter().map(|(topic, description)| (topic, description.copies)).collect())
    }

    /// Describes those topics that exist.
    ///
    /// # Errors
    /// If no broker answers in time, or none that can describe a topic's configuration.
    pub async fn topic_descriptions(
        &self,
        topics: &[String],
    ) -> Result<BTreeMap<String, TopicDescription>, ClusterError> {
        let mut cluster = self.cluster().await?.topics;
        let existing = topics.iter().filter_map(|topic| cluster.remove_entry(topic));
        let existing: BTreeMap<String, TopicSize> = existing.collect();
        if existing.is_empty() {
            return Ok(BTreeMap::new());
        }
        let resources: Vec<_> = existing.keys().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let described = self.0.client.describe_configs(&resources, &options).await;
        let described =
            described.map_err(ClusterError::failed("the topics' configuration cannot be read"))?;
        // Kafka returns no entries for a topic that hookstream is not authorized to describe.
        let settings = |topic: &str| {
            let found = described.iter().flatten().find(
                |found| matches!(&found.specifier, OwnedResourceSpecifier::Topic(name) if name == topic),
            );
            let entries = found.map(|found| found.entries.as_slice()).unwrap_or_default().iter();
            let setting = |value: &String, source: &ConfigSource| {
                let own = matches!(source, ConfigSource::DynamicTopic);
                TopicSetting { value: value.clone(), own }
            };
            let settings = entries.filter_map(|entry| {
                Some((entry.name.clone(), setting(entry.value.as_ref()?, &entry.source)))
            });
            settings.collect::<BTreeMap<_, _>>()
        };
        let descriptions = existing.into_iter().map(|(topic, TopicSize { partitions, replication })| {
            let settings = settings(&topic);
            let min_insync =
                settings.get("min.insync.replicas").and_then(|setting| setting.value.parse().ok());
            let copies = Copies { replication, min_insync };
            (topic, TopicDescription { partitions, copies, settings })
        });
        Ok(descriptions.collect())
    }

    /// Whether each existing topic is compacted; `None` if its configuration could not be read. The embedded
    /// Kafka has no topic configuration, does not answer such a call, and never compacts.
    ///
    /// # Errors
    /// If no broker answers in time, or none that can describe a topic's configuration.
    pub async fn compacting(
        &self,
        topics: &[String],
    ) -> Result<BTreeMap<String, Option<bool>>, ClusterError> {
        if self.is_in_memory().await? {
            return Ok(topics.iter().map(|topic| (topic.clone(), Some(false))).collect());
        }
        let descriptions = self.topic_descriptions(topics).await?;
        Ok(descriptions.into_iter().map(|(topic, description)| (topic, description.compacts())).collect())
    }

    /// Whether this is librdkafka's in-memory cluster, which has no topic administration.
    ///
    /// # Errors
    /// If the call cannot be made.
    pub async fn is_in_memory(&self) -> Result<bool, ClusterError> {
        let state = self.0.clone();
        let id = tokio::task::spawn_blocking(move || state.client.inner().fetch_cluster_id(TIMEOUT)).await?;
        // The in-memory cluster's own id; a real cluster's id is 22 characters of base64.
        Ok(id.is_some_and(|id| id.starts_with("mockCluster")))
    }

    /// Sets the settings by IncrementalAlterConfigs, which leaves all others unchanged. Returns the topics
    /// that were refused. With `validate_only`, nothing changes.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub async fn alter(
        &self,
        requested: Vec<Alteration>,
        validate_only: bool,
    ) -> Result<Vec<TopicError>, ClusterError> {
        if requested.is_empty() {
            return Ok(Vec::new());
        }
        let state = self.0.clone();
        let alter = move || ffi::alter(state.client.inner(), &requested, validate_only, TIMEOUT);
        let refused = tokio::task::spawn_blocking(alter).await??;
        let refusal = |(topic, code, why): (String, RDKafkaErrorCode, String)| {
            TopicError::new(topic, code, if why.is_empty() { code.to_string() } else { why })
        };
        Ok(refused.into_iter().map(refusal).collect())
    }

    /// The consumer groups that hookstream is authorized to see, by name.
    ///
    /// # Errors
    /// If a broker does not answer in time.
    pub(super) async fn groups(&self) -> Result<BTreeMap<String, GroupDescription>, ClusterError> {
        let state = self.0.clone();
        tokio::task::spawn_blocking(move || ffi::groups(state.client.inner(), TIMEOUT)).await?
    }

    /// Whether the brokers list a group of this name and of any type. Unlike [`Admin::groups`], ListGroups is not
    /// limited to consumer groups here.
    ///
    /// # Errors
    /// If a broker does not answer in time.
    pub(super) async fn has_group(&self, name: String) -> Result<bool, ClusterError> {
        let state = self.0.clone();
        let listed = move || {
            let listed = state.client.inner().fetch_group_list(Some(&name), TIMEOUT);
            listed.map(|listed| !listed.groups().is_empty())
        };
        tokio::task::spawn_blocking(listed).await?.map_err(ClusterError::GroupsNotListed)
    }

    /// Increases each topic's partitions to the given total. Returns the topics that were refused. With
    /// `validate_only`, nothing changes.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub async fn add_partitions(
        &self,
        requested: &[(String, usize)],
        validate_only: bool,
    ) -> Result<Vec<TopicError>, ClusterError> {
        if requested.is_empty() {
            return Ok(Vec::new());
        }
        let requested: Vec<_> =
            requested.iter().map(|(topic, count)| NewPartitions::new(topic, *count)).collect();
        let options = AdminOptions::new().validate_only(validate_only);
        let options = options.operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
        let results = self.0.client.create_partitions(&requested, &options).await;
        let results = results.map_err(|cause| self.no_answer(cause))?;
        let refused = results.into_iter().filter_map(Result::err);
        Ok(refused.map(|(topic, code)| TopicError::new(topic, code, code.to_string())).collect())
    }
}
