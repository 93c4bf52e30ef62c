//! A topic must not be compacted if several events share one key: of five events of one document, four
//! would be lost. hookstream creates such a topic with `cleanup.policy=delete`. It does not alter a topic that
//! somebody else created or altered; the event type waits until the policy is right.

use std::sync::Arc;
use std::time::Duration;

use crate::kafka::{Admin, ClusterError};
use crate::sources::{CompactionState, Sources};

/// Topics with their known compaction state.
pub type Watched = Vec<(Arc<str>, Arc<CompactionState>)>;

/// The interval between two checks of topics with the right policy.
pub(super) const RECHECK: Duration = Duration::from_secs(3600);

/// What has to wait until a topic no longer compacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The deliveries of its type, and rows of the spool.
    Deliveries,
    /// Rows of the spool alone: no route leads to the topic.
    Rows,
}

/// The topics of routes that must not be compacted, with their known compaction state.
pub fn non_compacted_topics(sources: &Sources) -> Watched {
    let routes = sources.iter().flat_map(|source| source.routes());
    routes.filter_map(|route| Some((route.topic.clone(), route.policy.clone()?))).collect()
}

/// The topics without a route that must not be compacted and of which the spool has rows.
pub(super) fn topics_of_rows(sources: &Sources) -> Watched {
    let routed = non_compacted_topics(sources);
    let all = sources.uncompacted().iter().map(|(topic, state)| (topic.clone(), state.clone()));
    all.filter(|(topic, state)| state.has_rows() && !routed.iter().any(|(routed, _)| routed == topic))
        .collect()
}

/// Reads the topics' policies, and returns the reason if an event type must wait.
///
/// # Errors
/// If Kafka does not report the policies.
pub async fn check_compaction(
    admin: &Admin,
    topics: &[(Arc<str>, Arc<CompactionState>)],
    servers: &str,
    waiting: Waiting,
) -> Result<Option<String>, ClusterError> {
    if topics.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = topics.iter().map(|(topic, _)| topic.to_string()).collect();
    let compacting = admin.compacting(&names).await?;
    let mut problems = Vec::new();
    for (topic, state) in topics {
        let Some(compacts) = compacting.get(&**topic) else {
            // The provisioner creates the topics of routes, and reports those that it cannot; nobody creates this one.
            if waiting == Waiting::Rows {
                problems.push(format!(
                    "{topic} does not exist: its rows in the spool wait; create it with cleanup.policy=delete, or enable \
                     its source"
                ));
            }
            continue;
        };
        let changed = state.record(*compacts);
        let Some(problem) = problem(topic, *compacts, servers, waiting) else { continue };
        if changed {
            tracing::error!(%topic, "{problem}");
        }
        problems.push(problem);
    }
    Ok((!problems.is_empty()).then(|| problems.join("; ")))
}

/// The problem of a topic whose keys stand for several events, and its remedy.
fn problem(topic: &str, compacts: Option<bool>, servers: &str, waiting: Waiting) -> Option<String> {
    let wait = match waiting {
        Waiting::Deliveries => "its deliveries are answered 503",
        Waiting::Rows => "its rows in the spool wait",
    };
    match compacts {
        Some(false) => None,
        Some(true) => Some(format!(
            "{topic} compacts, and its key names more than one event: {wait} until it retains all records ({})",
            fix_command(topic, servers)
        )),
        None => Some(format!(
            "cannot read whether {topic} compacts, and its key names more than one event: {wait}; grant \
             DescribeConfigs on it to hookstream's user"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, ConfigErrors, Environment, Overrides};
    use crate::schema::Schemas;

    const KEYED: &str = "[source.datagrid.envelope.keys]\n\"batch_prediction.failed\" = \"/data/id\"\n";
    const TOPIC: &str = "datagrid.batch_prediction.failed";

    fn sources(text: &str, previous: Option<&Sources>) -> Sources {
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        std::fs::write(file.path(), text).unwrap();
        let overrides = Overrides { file: Some(file.path().to_owned()), ..Overrides::default() };
        let secrets = ["DATAGRID_WEBHOOK_SECRET", "GRAPEVINE_WEBHOOK_SECRET"];
        let secrets = secrets.map(|name| (name, "whsec_of-compaction-tests"));
        let loaded = config::load(&overrides, &secrets.into_iter().collect::<Environment>()).unwrap();
        let schemas = Schemas::load("schemas".as_ref(), &loaded.config, &mut ConfigErrors::default());
        Sources::compile(&loaded, &schemas, previous).unwrap()
    }

    fn topics(watched: Watched) -> Vec<String> {
        watched.into_iter().map(|(topic, _)| topic.to_string()).collect()
    }

    #[test]
    fn rows_of_a_disabled_source_wait_for_the_policy_and_kafka_is_asked_only_for_them() {
        let sources = sources(&format!("[source.datagrid]\nenabled = false\n{KEYED}"), None);
        assert!(
            topics(non_compacted_topics(&sources)).is_empty() && topics(topics_of_rows(&sources)).is_empty()
        );
        let state = sources.uncompacted().get(TOPIC).unwrap();
        assert!(state.holds_rows().0.is_some());
        assert_eq!(topics(topics_of_rows(&sources)), [TOPIC]);
        state.record(Some(false));
        assert!(state.holds_rows().0.is_none());
    }

    #[test]
    fn rows_wait_for_the_policy_after_a_reload_that_removes_the_key_or_the_source() {
        let before = sources(KEYED, None);
        assert_eq!(topics(non_compacted_topics(&before)), [TOPIC]);
        for after in ["", "[source.datagrid]\nenabled = false\n"] {
            let after = sources(after, Some(&before));
            assert!(topics(non_compacted_topics(&after)).is_empty(), "deliveries do not wait");
            let state = |sources: &Sources| sources.uncompacted().get(TOPIC).unwrap().clone();
            assert!(Arc::ptr_eq(&state(&before), &state(&after)));
            let again = sources(KEYED, Some(&after));
            assert_eq!(topics(non_compacted_topics(&again)), [TOPIC]);
            assert!(Arc::ptr_eq(&state(&before), &state(&again)));
        }
    }
}
