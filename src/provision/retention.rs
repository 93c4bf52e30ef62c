//! Checks which retention rules of the topics remove records that Kafka has acknowledged.
//!
//! An event topic removes old records: that is the purpose of its retention, which counts from the append. By size it
//! must not remove the first records of a backlog while the last ones arrive: it has to keep as much as the spool holds.
//! Dead letters wait for a person, and the record of what was replayed must last as long as they do: neither
//! age nor size may remove these. hookstream creates such topics accordingly, and reports if somebody else
//! created or altered one.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::SpoolConfig;
use crate::kafka::TopicDescription;
use crate::names;
use crate::sources::Sources;

/// The topics of dead letters and, for each, the topic that records the outcome of replays.
pub fn lasting(sources: &Sources) -> Vec<String> {
    let topics_of = |name: &str| [names::dead_letter_topic(name), names::replayed_topic(name)];
    sources.iter().flat_map(|source| topics_of(&source.name)).collect()
}

/// Those of the [`lasting`] topics that remove records, and the other topics that keep less than the
/// spool may hold, with the reason.
pub fn ending(
    sources: &Sources,
    descriptions: &BTreeMap<String, TopicDescription>,
    spool: &SpoolConfig,
) -> Vec<(String, String)> {
    let spool = spool.dir.is_some().then_some(spool.max_size as u64);
    let mut topics = lasting(sources);
    topics.extend(descriptions.keys().filter(|topic| !lasts(topic)).cloned());
    let affected = topics.into_iter().filter_map(|topic| {
        let description = descriptions.get(&topic)?;
        let why = match lasts(&topic) {
            true => problem(&topic, description),
            false => small(&topic, description, spool?),
        };
        Some((topic, why?))
    });
    affected.collect()
}

/// Why an event topic may remove the first records of a backlog before anybody has read them: Kafka keeps at least
/// `retention.bytes` of each partition. How evenly the keys fill the partitions is not known, so this is the best case.
fn small(topic: &str, description: &TopicDescription, spool: u64) -> Option<String> {
    let bytes = size_limit(description)?;
    let kept = bytes.saturating_mul(description.partitions as u64);
    (kept < spool).then(|| {
        format!(
            "{topic}: it keeps {bytes} bytes per partition (retention.bytes), in all less than the spool may hold \
             ([spool] max_size {spool}): it would remove the first records of a backlog as the last ones arrive"
        )
    })
}

/// The size of a partition from which on the topic removes records; `None` if it has no such limit, or if its
/// configuration could not be read.
fn size_limit(description: &TopicDescription) -> Option<u64> {
    let bytes = number(description, "retention.bytes")?;
    policy(description, "delete")?.then(|| u64::try_from(bytes).ok())?
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
    if let Some(bytes) = size_limit(description) {
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
    let settings = match (lasts(topic), is_replayed_topic(topic)) {
        (false, _) => "retention.bytes=-1",
        (true, false) => "cleanup.policy=delete,retention.ms=-1,retention.bytes=-1",
        (true, true) => "cleanup.policy=compact,retention.ms=-1,retention.bytes=-1",
    };
    format!(
        "kafka-configs --bootstrap-server {servers} --entity-type topics --entity-name {topic} --alter \
         --add-config {settings}"
    )
}

/// Whether neither age nor size may remove the topic's records.
fn lasts(topic: &str) -> bool {
    names::dead_letter_topic(names::source_of(topic)) == topic || is_replayed_topic(topic)
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
    fn a2_an_event_topic_that_keeps_less_than_the_spool_holds_is_told() {
        // cleanup.policy, retention.bytes, partitions, and whether it is too small for a spool of 1000 bytes.
        for (policy, bytes, partitions, expected) in [
            ("delete", "166", 6, true),
            ("delete", "167", 6, false),
            ("compact,delete", "999", 1, true),
            ("compact", "10", 1, false),
            ("delete", "-1", 1, false),
        ] {
            let settings = [("cleanup.policy", policy), ("retention.bytes", bytes)];
            let description = TopicDescription { partitions, ..description(&settings) };
            let found = small("a.b", &description, 1_000);
            assert_eq!(found.is_some(), expected, "{policy} {bytes}: {found:?}");
        }
        assert_eq!(small("a.b", &description(&[]), 1_000), None, "a topic that cannot be read");
        assert!(
            mend("a.b", "k:9092").ends_with("--add-config retention.bytes=-1"),
            "its age limit and policy stay"
        );
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
