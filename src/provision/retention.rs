//! What ends a record that Kafka has acknowledged, as the topics themselves say.
//!
//! An event's topic removes what is too old: that is what its retention is for, and it counts from the append.
//! Dead letters wait for a person, and what was replayed is remembered as long as they wait: no age and no
//! size may end these. We create them so; who made or altered them since is told.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kafka::TopicDescription;
use crate::names;
use crate::sources::Sources;

/// The topics of dead letters, and of what became of them where something was replayed.
pub fn lasting(sources: &Sources) -> Vec<String> {
    let of = |name: &str| [names::dead_letter_topic(name), names::replayed_topic(name)];
    sources.iter().flat_map(|source| of(&source.name)).collect()
}

/// Those of them that do not last, and why.
pub fn ending(sources: &Sources, shapes: &BTreeMap<String, TopicDescription>) -> Vec<(String, String)> {
    let there = lasting(sources).into_iter().filter_map(|topic| {
        let why = trouble(&topic, shapes.get(&topic)?)?;
        Some((topic, why))
    });
    there.collect()
}

/// How long a record stays, by its age alone; `None` where age removes none. No answer where the
/// configuration could not be read.
pub(super) fn kept_for(shape: &TopicDescription) -> Option<Option<Duration>> {
    let deletes = policy(shape, "delete")?;
    let ms = number(shape, "retention.ms")?;
    Some(u64::try_from(ms).ok().filter(|_| deletes).map(Duration::from_millis))
}

fn trouble(topic: &str, shape: &TopicDescription) -> Option<String> {
    let mut why = Vec::new();
    let replayed = remembers(topic);
    if policy(shape, "compact")? && !replayed {
        why.push(String::from("it compacts, so that of several letters with one key the last is left"));
    }
    if let Some(age) = kept_for(shape)? {
        why.push(format!("it removes records after {age:?} (retention.ms)"));
    }
    if policy(shape, "delete")?
        && let Some(bytes) = number(shape, "retention.bytes").filter(|bytes| *bytes >= 0)
    {
        why.push(format!("it removes records past {bytes} bytes a partition (retention.bytes)"));
    }
    let role =
        if replayed { "what was replayed is remembered there" } else { "letters wait there for a person" };
    (!why.is_empty()).then(|| format!("{topic}: {}; {role}", why.join(", ")))
}

/// The command that makes such a topic last.
pub fn mend(topic: &str, servers: &str) -> String {
    let policy = if remembers(topic) { "compact" } else { "delete" };
    format!(
        "kafka-configs --bootstrap-server {servers} --entity-type topics --entity-name {topic} --alter \
         --add-config cleanup.policy={policy},retention.ms=-1,retention.bytes=-1"
    )
}

/// Whether it tells what became of dead letters.
fn remembers(topic: &str) -> bool {
    names::replayed_topic(names::source_of(topic)) == topic
}

fn policy(shape: &TopicDescription, word: &str) -> Option<bool> {
    Some(shape.cleanup_policy()?.split(',').any(|found| found.trim() == word))
}

fn number(shape: &TopicDescription, key: &str) -> Option<i64> {
    shape.settings.get(key)?.value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{Copies, Setting};

    fn shape(settings: &[(&str, &str)]) -> TopicDescription {
        let setting = |(key, value): &(&str, &str)| {
            ((*key).to_owned(), Setting { value: (*value).to_owned(), own: true })
        };
        let copies = Copies { replication: 1, min_insync: Some(1) };
        TopicDescription { partitions: 1, copies, settings: settings.iter().map(setting).collect() }
    }

    #[test]
    fn a2_what_ends_dead_letters_and_what_remembers_them_is_told() {
        let (letters, replayed) = ("dead_letter.a", "dead_letter.a.replayed");
        // Topic, cleanup.policy, retention.ms, retention.bytes, and what is said.
        for (topic, policy, ms, bytes, said) in [
            (letters, "delete", "-1", "-1", None),
            (letters, "delete", "604800000", "-1", Some("after 604800s (retention.ms)")),
            (letters, "delete", "-1", "1000", Some("past 1000 bytes a partition (retention.bytes)")),
            (letters, "compact", "604800000", "-1", Some("it compacts")),
            (letters, "compact,delete", "-1", "-1", Some("it compacts")),
            (replayed, "compact", "604800000", "1000", None),
            (replayed, "compact,delete", "604800000", "-1", Some("after 604800s (retention.ms)")),
            (replayed, "delete", "-1", "1000", Some("past 1000 bytes")),
        ] {
            let shape =
                shape(&[("cleanup.policy", policy), ("retention.ms", ms), ("retention.bytes", bytes)]);
            let found = trouble(topic, &shape);
            assert_eq!(found.is_some(), said.is_some(), "{topic} {policy} {ms} {bytes}: {found:?}");
            assert!(
                found.unwrap_or_default().contains(said.unwrap_or_default()),
                "{topic} {policy} {ms} {bytes}"
            );
        }
        assert_eq!(trouble(letters, &shape(&[])), None, "a topic that cannot be read");
    }

    #[test]
    fn a2_age_removes_only_where_the_policy_says_delete() {
        let kept = |policy, ms| kept_for(&shape(&[("cleanup.policy", policy), ("retention.ms", ms)]));
        assert_eq!(kept("compact,delete", "15000"), Some(Some(Duration::from_secs(15))));
        assert_eq!(kept("compact", "15000"), Some(None));
        assert_eq!(kept("delete", "-1"), Some(None));
        assert_eq!(kept_for(&shape(&[])), None);
    }
}
