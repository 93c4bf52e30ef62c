//! Creates topics, and tells those that cannot be created from those that hookstream may not see.

use std::collections::BTreeSet;

use rdkafka::admin::{AdminOptions, NewTopic as KafkaTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;

use super::{Admin, TIMEOUT, TopicError};
use crate::kafka::ClusterError;
use crate::kafka::hidden::hidden;

/// The limit of one request to create topics, in records of the cluster's metadata: a topic is one, and so is each of its
/// settings and partitions. Kafka's controller refuses a request with more than 10,000 as a whole.
const MAX_CREATION: usize = 5_000;

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    pub partitions: i32,
    pub replication: i32,
    pub config: Vec<(&'static str, String)>,
}

/// What became of new topics.
#[derive(Debug, Default)]
pub struct Creation {
    /// The topics that were created now. Those that somebody else has created meanwhile are not among them.
    pub created: BTreeSet<String>,
    /// The topics that could not be created.
    pub refused: Vec<TopicError>,
}

impl Admin {
    /// Asks the brokers to validate the creation of the topics, and returns those that they would refuse.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub async fn refusals(&self, topics: &[NewTopic]) -> Result<Vec<TopicError>, ClusterError> {
        let failed = self.try_create(topics, true).await?;
        self.explain(failed).await
    }

    /// Creates the topics. If a topic has been created concurrently, that is not an error.
    ///
    /// # Errors
    /// If no broker answers in time. A topic that cannot be created is reported in the result, and the others are created.
    pub async fn create(&self, topics: &[NewTopic]) -> Result<Creation, ClusterError> {
        let failed = self.try_create(topics, false).await?;
        let created = topics.iter().map(|topic| &topic.name);
        let created = created.filter(|name| !failed.iter().any(|(failed, _)| failed == *name)).cloned();
        Ok(Creation { created: created.collect(), refused: self.explain(failed).await? })
    }

    /// Those of the topics that hookstream's user may not see, whether they exist or not. Pass only topics that
    /// [`Self::cluster`] does not return: each costs a request.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub async fn hidden(&self, topics: Vec<String>) -> Result<BTreeSet<String>, ClusterError> {
        let state = self.0.clone();
        let hidden = move || hidden(state.client.inner(), &topics, TIMEOUT);
        tokio::task::spawn_blocking(hidden).await?.map_err(|cause| self.no_answer(cause))
    }

    /// The errors of topics that could not be created. A topic that exists is one only if hookstream may not see it: else
    /// somebody has created it meanwhile.
    async fn explain(
        &self,
        failed: Vec<(String, RDKafkaErrorCode)>,
    ) -> Result<Vec<TopicError>, ClusterError> {
        use RDKafkaErrorCode::{ClusterAuthorizationFailed, TopicAlreadyExists, TopicAuthorizationFailed};
        let in_doubt = [TopicAlreadyExists, TopicAuthorizationFailed, ClusterAuthorizationFailed];
        let in_doubt = failed.iter().filter(|(_, code)| in_doubt.contains(code));
        let in_doubt: Vec<String> = in_doubt.map(|(topic, _)| topic.clone()).collect();
        let hidden = self.hidden(in_doubt).await?;
        let errors = failed.into_iter().filter_map(|(topic, code)| match hidden.contains(&topic) {
            true => Some(TopicError::hidden(topic, code == TopicAlreadyExists)),
            false if code == TopicAlreadyExists => None,
            false => Some(TopicError::new(topic, code, code.to_string())),
        });
        Ok(errors.collect())
    }

    /// Returns the topics that were not created, with the broker's reason.
    async fn try_create(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Vec<(String, RDKafkaErrorCode)>, ClusterError> {
        let options = AdminOptions::new().validate_only(validate_only);
        let options = options.operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
        let mut failed = Vec::new();
        for batch in creation_batches(topics) {
            let requested: Vec<KafkaTopic<'_>> = batch.iter().map(kafka_topic).collect();
            let results = self.0.client.create_topics(&requested, &options).await;
            failed
                .extend(results.map_err(|cause| self.no_answer(cause))?.into_iter().filter_map(Result::err));
        }
        Ok(failed)
    }
}

/// Splits topics into as few requests as [`MAX_CREATION`] allows, each with at least one topic.
fn creation_batches(topics: &[NewTopic]) -> Vec<&[NewTopic]> {
    let weight =
        |topic: &NewTopic| 1 + topic.config.len() + usize::try_from(topic.partitions).unwrap_or_default();
    let mut sum = 0;
    let batches = topics.chunk_by(|one, next| {
        sum += weight(one);
        let fits = sum + weight(next) <= MAX_CREATION;
        if !fits {
            sum = 0;
        }
        fits
    });
    batches.collect()
}

fn kafka_topic(topic: &NewTopic) -> KafkaTopic<'_> {
    let replication = TopicReplication::Fixed(topic.replication);
    let new = KafkaTopic::new(&topic.name, topic.partitions, replication);
    topic.config.iter().fold(new, |new, (key, value)| new.set(key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w16_topics_are_created_in_as_few_requests_as_the_controller_allows() {
        let topic = |partitions| NewTopic {
            name: String::from("a"),
            partitions,
            replication: 1,
            config: vec![("retention.ms", String::from("-1"))],
        };
        let sizes = |partitions: i32, count: usize| {
            let topics = vec![topic(partitions); count];
            creation_batches(&topics).iter().map(|batch| batch.len()).collect::<Vec<_>>()
        };
        assert!(sizes(6, 0).is_empty());
        assert_eq!(sizes(6, 625), [625]);
        assert_eq!(sizes(6, 1400), [625, 625, 150]);
        assert_eq!(sizes(9000, 2), [1, 1]);
    }
}
