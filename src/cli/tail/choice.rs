//! Which topics and partitions are read.

use std::collections::BTreeMap;

use crate::config::{Config, Unmapped};
use crate::kafka::partition_of;
use crate::names;

/// What `--key` picks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// This key.
    Exact(String),
    /// Each key that begins so: a digest cut short, as `dev` and `tail` show it.
    Digest(String),
}

impl Key {
    pub(super) fn new(text: &str) -> Self {
        match text.strip_prefix("sha256:") {
            Some(digest) if digest.len() < 64 => Self::Digest(text.to_owned()),
            _ => Self::Exact(text.to_owned()),
        }
    }

    pub(super) fn is(&self, key: Option<&[u8]>) -> bool {
        match (self, key) {
            (Self::Exact(wanted), Some(key)) => key == wanted.as_bytes(),
            (Self::Digest(start), Some(key)) => key.starts_with(start.as_bytes()),
            (_, None) => false,
        }
    }
}

/// The topics that the configured sources write, their dead letters last.
pub(in crate::cli) fn of_sources(config: &Config) -> Vec<String> {
    let events = config.source.iter().flat_map(|(name, source)| {
        let unmapped = (source.unmapped == Unmapped::Generic).then_some(names::UNMAPPED);
        let types = source.types.iter().map(String::as_str).chain(unmapped);
        types.map(|event_type| names::topic(name, event_type))
    });
    events.chain(config.source.keys().map(|name| names::dead_letter_topic(name))).collect()
}

/// The topics that are there for the names and patterns.
///
/// # Errors
/// A sentence about the first that matches none.
pub(super) fn named(wanted: &[String], there: &BTreeMap<String, i32>) -> Result<Vec<String>, String> {
    let mut topics = Vec::new();
    for wanted in wanted {
        // Kafka's own topics only for those who ask for them.
        let hidden = |topic: &str| topic.starts_with("__") && !wanted.starts_with("__");
        let found: Vec<&String> =
            there.keys().filter(|topic| !hidden(topic) && names::matches(wanted, topic)).collect();
        if found.is_empty() {
            return Err(none(wanted, there));
        }
        topics.extend(found.into_iter().cloned());
    }
    topics.sort();
    topics.dedup();
    Ok(topics)
}

fn none(wanted: &str, there: &BTreeMap<String, i32>) -> String {
    if wanted.contains('*') {
        return format!("no topic matches {wanted}");
    }
    let near = there
        .keys()
        .map(|topic| (strsim::jaro_winkler(wanted, topic), topic))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = near.map_or_else(String::new, |(_, topic)| format!("; did you mean {topic}?"));
    format!("there is no topic {wanted}{hint}")
}

/// All partitions, or only those in which the key can stand.
pub(super) fn partitions(
    topics: &[String],
    there: &BTreeMap<String, i32>,
    key: Option<&Key>,
) -> Vec<(String, i32)> {
    let mut partitions = Vec::new();
    for topic in topics {
        let count = there.get(topic).copied().unwrap_or(0);
        match key {
            Some(Key::Exact(key)) if count > 0 => {
                partitions.push((topic.clone(), partition_of(key.as_bytes(), count)));
            }
            _ => partitions.extend((0..count).map(|partition| (topic.clone(), partition))),
        }
    }
    partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there() -> BTreeMap<String, i32> {
        let topics = [
            ("__consumer_offsets", 1),
            ("datagrid.batch_prediction.completed", 6),
            ("datagrid.batch_prediction.failed", 6),
            ("dead_letter.datagrid", 3),
            ("other", 1),
        ];
        topics.into_iter().map(|(topic, count)| (topic.to_owned(), count)).collect()
    }

    fn chosen(wanted: &[&str]) -> Result<Vec<String>, String> {
        let wanted: Vec<String> = wanted.iter().map(|text| (*text).to_owned()).collect();
        named(&wanted, &there())
    }

    #[test]
    fn names_and_patterns_pick_each_topic_once() {
        let both = ["datagrid.batch_prediction.completed", "datagrid.batch_prediction.failed"];
        assert_eq!(chosen(&["datagrid.*", both[1]]).unwrap(), both);
        assert_eq!(chosen(&["*"]).unwrap().len(), 4, "without Kafka's own");
        assert_eq!(chosen(&["__*"]).unwrap(), ["__consumer_offsets"]);
    }

    #[test]
    fn what_matches_nothing_is_named_with_what_may_be_meant() {
        assert_eq!(chosen(&["other", "x*"]).unwrap_err(), "no topic matches x*");
        assert_eq!(
            chosen(&["datagrid.batch_prediction.complete"]).unwrap_err(),
            "there is no topic datagrid.batch_prediction.complete; did you mean datagrid.batch_prediction.completed?"
        );
        assert_eq!(chosen(&["zzz"]).unwrap_err(), "there is no topic zzz");
    }

    #[test]
    fn a_key_leads_to_one_partition_of_each_topic_and_a_short_digest_to_all() {
        let topics = ["datagrid.batch_prediction.completed".to_owned(), "dead_letter.datagrid".to_owned()];
        let key = Key::new("evt_7f3d8a2c");
        let one = partitions(&topics, &there(), Some(&key));
        assert_eq!(one, [(topics[0].clone(), 3), (topics[1].clone(), 0)]);
        assert!(key.is(Some(b"evt_7f3d8a2c")) && !key.is(Some(b"evt_7f3d8a2c0")) && !key.is(None));

        let digest = Key::new("sha256:8e91344d");
        assert_eq!(partitions(&topics, &there(), Some(&digest)).len(), 9);
        assert!(digest.is(Some(b"sha256:8e91344d00")) && !digest.is(Some(b"sha256:8e91344e")));
        let whole = format!("sha256:{}", "0".repeat(64));
        assert_eq!(Key::new(&whole), Key::Exact(whole.clone()));
    }
}
