//! Checks which retention rules of the topics remove records that Kafka has acknowledged.
//!
//! An event topic removes old records: that is the purpose of its retention, which counts from the append.
//! Dead letters wait for a person, and the record of what was replayed must last as long as they do: neither
//! age nor size may remove these. hookstream creates such topics accordingly, and reports if somebody else
//! created or altered one.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kafka::TopicDescription;
use crate::names;
use crate::sources::Sources;

/// The topics of dead letters and, for each, the topic that records the outcome of replays.
pub fn lasting(sources: &Sources) -> Vec<String> {
    let topics_of = |name: &str| [names::dead_letter_topic(name), names::replayed_topic(name)];
    sources.iter().flat_map(|source| topics_of(&source.name)).collect()
}

/// Those of the [`lasting`] topics that remove records, with the reason.
pub fn ending(sources: &Sources, descriptions: &BTreeMap<String, TopicDescription>) -> Vec<(String, String)> {
    let affected = lasting(sources).into_iter().filter_map(|topic| {
        let why = problem(&topic, descriptions.get(&topic)?)?;
        Some((topic, why))
    });
    affected.collect()
}

/// The time after which a record's age removes it; `Some(None)` if age removes nothing, and `None` if the
/// configuration could not be read.
pub(super) fn kept_for(description: &TopicDescription) -> Option<Option<Duration>> {
    let deletes = policy(description, "delete")?;
    let ms = number(description, "retention.ms")?;
    Some(u64::try_from(ms).ok().filter(|_| deletes).map(Duration::from_millis))
}

fn problem(topic: &str, description: &TopicDescription) -> Option<String> {
    let mut why = Vec::new();
    let replayed = is_replayed_topic(topic);
    if policy(description, "compact")? && !replayed {
        why.push(String::from("it compacts, so that only the last of several letters with one key remains"));
    }
    if let Some(age) = kept_for(description)? {
        why.push(format!("it removes records after {age:?} (retention.ms)"));
    }
    if policy(description, "delete")?
        && let Some(bytes) = number(description, "retention.bytes").filter(|bytes| *bytes >= 0)
    {
        why.push(format!("it removes records past {bytes} bytes per partition (retention.bytes)"));
    }
    let role = if replayed {
        "it records which letters were replayed"
    } else {
        "letters must wait there for a person"
    };
    (!why.is_empty()).then(|| format!("{topic}: {}; {role}", why.join(", ")))
}

/// The command that stops a topic from removing records.
pub fn mend(topic: &str, servers: &str) -> String {
    let policy = if is_replayed_topic(topic) { "compact" } else { "delete" };
    format!(
        "kafka-configs --bootstrap-server {servers} --entity-type topics --entity-name {topic} --alter \
         --add-config cleanup.policy={policy},retention.ms=-1,retention.bytes=-1"
    )
}

/// Whether the topic records the outcome of replays.
fn is_replayed_topic(topic: &str) -> bool {
    names::replayed_topic(names::source_of(topic)) == topic
}

fn policy(description: &TopicDescription, word: &str) -> Option<bool> {
    Some(description.cleanup_policy()?.split(',').any(|found| found.trim() == word))
}

fn number(description: &TopicDescription, key: &str) -> Option<i64> {
    description.settings.get(key)?.value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{Copies, TopicSetting};

    fn description(settings: &[(&str, &str)]) -> TopicDescription {
        let setting = |(key, value): &(&str, &str)| {
            ((*key).to_owned(), TopicSetting { value: (*value).to_owned(), own: true })
        };
        let copies = Copies { replication: 1, min_insync: Some(1) };
        TopicDescription { partitions: 1, copies, settings: settings.iter().map(setting).collect() }
    }

    #[test]
    fn a2_what_ends_dead_letters_and_what_remembers_them_is_told() {
        let (letters, replayed) = ("dead_letter.a", "dead_letter.a.replayed");
        // Topic, cleanup.policy, retention.ms, retention.bytes, and the expected text.
        for (topic, policy, ms, bytes, expected) in [
            (letters, "delete", "-1", "-1", None),
            (letters, "delete", "604800000", "-1", Some("after 604800s (retention.ms)")),
            (letters, "delete", "-1", "1000", Some("past 1000 bytes per partition (retention.bytes)")),
            (letters, "compact", "604800000", "-1", Some("it compacts")),
            (letters, "compact,delete", "-1", "-1", Some("it compacts")),
            (replayed, "compact", "604800000", "1000", None),
            (replayed, "compact,delete", "604800000", "-1", Some("after 604800s (retention.ms)")),
            (replayed, "delete", "-1", "1000", Some("past 1000 bytes")),
        ] {
            let description =
                description(&[("cleanup.policy", policy), ("retention.ms", ms), ("retention.bytes", bytes)]);
            let found = problem(topic, &description);
            assert_eq!(found.is_some(), expected.is_some(), "{topic} {policy} {ms} {bytes}: {found:?}");
            assert!(
                found.unwrap_or_default().contains(expected.unwrap_or_default()),
                "{topic} {policy} {ms} {bytes}"
            );
        }
        assert_eq!(problem(letters, &description(&[])), None, "a topic that cannot be read");
    }

    #[test]
    fn a2_age_removes_only_where_the_policy_says_delete() {
        let retention =
            |policy, ms| kept_for(&description(&[("cleanup.policy", policy), ("retention.ms", ms)]));
        assert_eq!(retention("compact,delete", "15000"), Some(Some(Duration::from_secs(15))));
        assert_eq!(retention("compact", "15000"), Some(None));
        assert_eq!(retention("delete", "-1"), Some(None));
        assert_eq!(kept_for(&description(&[])), None);
    }
}
