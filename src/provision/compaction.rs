//! No topic compacts whose key names more than one event: of five events of one document, four would
//! be gone. Such a topic is created with `cleanup.policy=delete`; one that somebody else has made, or
//! altered since, is not touched, and its event type waits until it is right.

use std::sync::Arc;
use std::time::Duration;

use crate::kafka::Admin;
use crate::sources::{CompactionState, Sources};

/// Topics, and what is known of them.
pub type Watched = Vec<(Arc<str>, Arc<CompactionState>)>;

/// Between two looks at topics that were right.
pub(super) const RECHECK: Duration = Duration::from_secs(3600);

/// The topics that must not compact, and what is known of them.
pub fn non_compacted_topics(sources: &Sources) -> Watched {
    let routes = sources.iter().flat_map(|source| source.routes());
    routes.filter_map(|route| Some((route.topic.clone(), route.policy.clone()?))).collect()
}

/// Reads what they are; says why the event type of one has to wait.
///
/// # Errors
/// When Kafka does not tell.
pub async fn check_compaction(
    admin: &Admin,
    topics: &[(Arc<str>, Arc<CompactionState>)],
    servers: &str,
) -> anyhow::Result<Option<String>> {
    if topics.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = topics.iter().map(|(topic, _)| topic.to_string()).collect();
    let compacting = admin.compacting(&names).await?;
    let mut troubles = Vec::new();
    for (topic, state) in topics {
        // One that is not there is the affair of who creates it.
        let Some(compacts) = compacting.get(&**topic) else { continue };
        let news = state.record(*compacts);
        let Some(trouble) = trouble(topic, *compacts, servers) else { continue };
        if news {
            tracing::error!(%topic, "{trouble}");
        }
        troubles.push(trouble);
    }
    Ok((!troubles.is_empty()).then(|| troubles.join("; ")))
}

/// What is wrong with a topic whose key names more than one event, and what to do.
fn trouble(topic: &str, compacts: Option<bool>, servers: &str) -> Option<String> {
    match compacts {
        Some(false) => None,
        Some(true) => Some(format!(
            "{topic} compacts, and its key names more than one event: its deliveries are answered 503 until \
             it keeps all ({})",
            fix_command(topic, servers)
        )),
        None => Some(format!(
            "whether {topic} compacts is unknown, and its key names more than one event: its deliveries are \
             answered 503; grant DescribeConfigs on it to our user"
        )),
    }
}

/// The command that makes a topic keep all of its records until they are too old.
pub fn fix_command(topic: &str, servers: &str) -> String {
    format!(
        "kafka-configs --bootstrap-server {servers} --entity-type topics --entity-name {topic} --alter \
         --add-config cleanup.policy=delete"
    )
}
