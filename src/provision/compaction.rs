//! A topic must not be compacted if several events share one key: of five events of one document, four
//! would be lost. hookstream creates such a topic with `cleanup.policy=delete`. It does not alter a topic that
//! somebody else created or altered; the event type waits until the policy is right.

use std::sync::Arc;
use std::time::Duration;

use crate::kafka::Admin;
use crate::sources::{CompactionState, Sources};

/// Topics with their known compaction state.
pub type Watched = Vec<(Arc<str>, Arc<CompactionState>)>;

/// The interval between two checks of topics with the right policy.
pub(super) const RECHECK: Duration = Duration::from_secs(3600);

/// The topics that must not be compacted, with their known compaction state.
pub fn non_compacted_topics(sources: &Sources) -> Watched {
    let routes = sources.iter().flat_map(|source| source.routes());
    routes.filter_map(|route| Some((route.topic.clone(), route.policy.clone()?))).collect()
}

/// Reads the topics' policies, and returns the reason if an event type must wait.
///
/// # Errors
/// If Kafka does not report the policies.
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
    let mut problems = Vec::new();
    for (topic, state) in topics {
        // Creating a missing topic is the provisioner's task.
        let Some(compacts) = compacting.get(&**topic) else { continue };
        let changed = state.record(*compacts);
        let Some(problem) = problem(topic, *compacts, servers) else { continue };
        if changed {
            tracing::error!(%topic, "{problem}");
        }
        problems.push(problem);
    }
    Ok((!problems.is_empty()).then(|| problems.join("; ")))
}

/// The problem of a topic whose keys stand for several events, and its remedy.
fn problem(topic: &str, compacts: Option<bool>, servers: &str) -> Option<String> {
    match compacts {
        Some(false) => None,
        Some(true) => Some(format!(
            "{topic} compacts, and its key names more than one event: its deliveries are answered 503 until \
            it retains all records ({})",
            fix_command(topic, servers)
        )),
        None => Some(format!(
            "cannot read whether {topic} compacts, and its key names more than one event: its deliveries are \
            answered 503; grant DescribeConfigs on it to hookstream's user"
        )),
    }
}

/// The command that makes a topic retain all records until their age exceeds its retention.
pub fn fix_command(topic: &str, servers: &str) -> String {
    format!(
        "kafka-configs --bootstrap-server {servers} --entity-type topics --entity-name {topic} --alter \
         --add-config cleanup.policy=delete"
    )
}
