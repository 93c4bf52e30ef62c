//! Topics that the brokers do not show to hookstream's user. The metadata of all topics omits them, so that they seem to
//! be missing; only the answer to a request by name is different.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};

/// The topics that the user may not describe; Kafka does not tell whether they exist. One request for each topic, within
/// `timeout` for all: pass only topics that seem to be missing. Blocks.
pub(super) fn hidden<C: ClientContext>(
    client: &Client<C>,
    topics: &[String],
    timeout: Duration,
) -> KafkaResult<BTreeSet<String>> {
    let until = Instant::now() + timeout;
    let mut hidden = BTreeSet::new();
    for name in topics {
        let metadata = client.fetch_metadata(Some(name), until.saturating_duration_since(Instant::now()))?;
        let mut errors = metadata.topics().iter().filter_map(|topic| topic.error());
        if errors.any(|error| Code::from(error) == Code::TopicAuthorizationFailed) {
            hidden.insert(name.clone());
        }
    }
    Ok(hidden)
}
