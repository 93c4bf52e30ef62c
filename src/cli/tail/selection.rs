//! Selects the topics and partitions to read.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Config, Unmapped};
use crate::envelope::{with_binding, without_binding};
use crate::kafka::partition_of;
use crate::names;

/// The records that `--key` selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyFilter {
    /// One of these keys: the argument, and the keys of that event id under the bound secrets.
    Exact(Vec<String>),
    /// Every key with this prefix: a shortened digest, as `dev` and `tail` show it.
    Digest(String),
}

impl KeyFilter {
    pub(super) fn new(text: &str, config: &Config) -> Self {
        match text.strip_prefix("sha256:") {
            Some(digest) if digest.len() < 64 => Self::Digest(text.to_owned()),
            _ => {
                let sources = config.source.values().filter(|source| source.binding_in_key);
                let bindings =
                    sources.flat_map(|source| &source.secrets).filter_map(|entry| entry.binds.as_deref());
                let mut bound: Vec<String> = bindings
                    .map(|binds| with_binding(Some(binds), Cow::Borrowed(text)).into_owned())
                    .collect();
                bound.sort();
                bound.dedup();
                Self::Exact([vec![text.to_owned()], bound].concat())
            }
        }
    }

    pub(super) fn is(&self, key: Option<&[u8]>) -> bool {
        match (self, key) {
            (Self::Exact(wanted), Some(key)) => wanted.iter().any(|wanted| key == wanted.as_bytes()),
            (Self::Digest(start), Some(key)) => {
                let id = std::str::from_utf8(key).map_or(key, |key| without_binding(key).as_bytes());
                id.starts_with(start.as_bytes())
            }
            (_, None) => false,
        }
    }
}

/// The topics of the configured sources, their dead-letter topics last.
pub(in crate::cli) fn of_sources(config: &Config) -> Vec<String> {
    let events = config.source.iter().flat_map(|(name, source)| {
        let unmapped = (source.unmapped == Unmapped::Generic).then_some(names::UNMAPPED);
        let types = source.types.iter().map(String::as_str).chain(unmapped);
        types.map(|event_type| names::topic(name, event_type))
    });
    events.chain(config.source.keys().map(|name| names::dead_letter_topic(name))).collect()
}

/// The existing topics that match the names and patterns.
///
/// # Errors
/// A message about the first name or pattern that matches no topic.
pub(super) fn named(wanted: &[String], there: &BTreeMap<String, i32>) -> Result<Vec<String>, String> {
    let mut topics = Vec::new();
    for wanted in wanted {
        // Kafka's internal topics only if the pattern begins with `__`.
        let hidden = |topic: &str| topic.starts_with("__") && !wanted.starts_with("__");
        let found: Vec<&String> =
            there.keys().filter(|topic| !hidden(topic) && names::matches(wanted, topic)).collect();
        if found.is_empty() {
            return Err(no_match(wanted, there));
        }
        topics.extend(found.into_iter().cloned());
    }
    topics.sort();
    topics.dedup();
    Ok(topics)
}

fn no_match(wanted: &str, there: &BTreeMap<String, i32>) -> String {
    if wanted.contains('*') {
        return format!("no topic matches {wanted}");
    }
    let near = there
        .keys()
        .map(|topic| (strsim::jaro_winkler(wanted, topic), topic))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = near.map_or_else(String::new, |(_, topic)| format!("; did you mean {topic}?"));
    format!("no topic {wanted}{hint}")
}

/// All partitions, or only those that can contain the key.
pub(super) fn partitions(
    topics: &[String],
    there: &BTreeMap<String, i32>,
    key: Option<&KeyFilter>,
) -> Vec<(String, i32)> {
    let mut partitions = Vec::new();
    for topic in topics {
        let count = there.get(topic).copied().unwrap_or(0);
        match key {
            Some(KeyFilter::Exact(keys)) if count > 0 => {
                let own: BTreeSet<i32> = keys.iter().map(|key| partition_of(key.as_bytes(), count)).collect();
                partitions.extend(own.into_iter().map(|partition| (topic.clone(), partition)));
            }
            _ => partitions.extend((0..count).map(|partition| (topic.clone(), partition))),
        }
    }
    partitions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Overrides, Secrets};

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
    fn names_and_patterns_select_each_topic_once() {
        let both = ["datagrid.batch_prediction.completed", "datagrid.batch_prediction.failed"];
        assert_eq!(chosen(&["datagrid.*", both[1]]).unwrap(), both);
        assert_eq!(chosen(&["*"]).unwrap().len(), 4, "without Kafka's own");
        assert_eq!(chosen(&["__*"]).unwrap(), ["__consumer_offsets"]);
    }

    #[test]
    fn an_unmatched_name_is_reported_with_a_similar_one() {
        assert_eq!(chosen(&["other", "x*"]).unwrap_err(), "no topic matches x*");
        assert_eq!(
            chosen(&["datagrid.batch_prediction.complete"]).unwrap_err(),
            "no topic datagrid.batch_prediction.complete; did you mean datagrid.batch_prediction.completed?"
        );
        assert_eq!(chosen(&["zzz"]).unwrap_err(), "no topic zzz");
    }

    #[test]
    fn a_key_selects_one_partition_per_topic_and_a_short_digest_all() {
        let topics = ["datagrid.batch_prediction.completed".to_owned(), "dead_letter.datagrid".to_owned()];
        let config = config("");
        let key = KeyFilter::new("evt_7f3d8a2c", &config);
        let one = partitions(&topics, &there(), Some(&key));
        assert_eq!(one, [(topics[0].clone(), 3), (topics[1].clone(), 0)]);
        assert!(key.is(Some(b"evt_7f3d8a2c")) && !key.is(Some(b"evt_7f3d8a2c0")) && !key.is(None));

        let digest = KeyFilter::new("sha256:8e91344d", &config);
        assert_eq!(partitions(&topics, &there(), Some(&digest)).len(), 9);
        assert!(digest.is(Some(b"sha256:8e91344d00")) && !digest.is(Some(b"sha256:8e91344e")));
        let whole = format!("sha256:{}", "0".repeat(64));
        assert_eq!(KeyFilter::new(&whole, &config), KeyFilter::Exact(vec![whole.clone()]));
    }

    #[test]
    fn c1_an_id_selects_its_keys_under_each_binding() {
        let config = config(
            "[source.datagrid]\npreset = 'datagrid'\nsecrets = [\n\
             { name = 'a', env = 'A', binds = { pointer = '/tenant_id', equals = 'acme' } },\n\
             { name = 'b', env = 'A', binds = { pointer = '/tenant_id', equals = 'acme' } },\n\
             { name = 'c', env = 'A', binds = { pointer = '/tenant_id', equals = 'evil' } }]",
        );
        let key = KeyFilter::new("evt_1", &config);
        let keys = ["evt_1", "/tenant_id=acme:evt_1", "/tenant_id=evil:evt_1"];
        assert_eq!(key, KeyFilter::Exact(keys.map(str::to_owned).to_vec()));
        assert!(keys.iter().all(|found| key.is(Some(found.as_bytes()))));
        assert!(!key.is(Some(b"/tenant_id=other:evt_1")));
        let topics = ["datagrid.batch_prediction.completed".to_owned()];
        let partitions = partitions(&topics, &there(), Some(&key));
        let own = keys.map(|key| partition_of(key.as_bytes(), 6));
        assert!(
            own.iter().all(|own| partitions.contains(&(topics[0].clone(), *own))),
            "{partitions:?} {own:?}"
        );
        let digest = KeyFilter::new("sha256:8e91344d", &config);
        assert!(digest.is(Some(b"/tenant_id=acme:sha256:8e91344d00")));
    }

    fn config(toml: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        let overrides = Overrides {
            file: Some(file.path().to_owned()),
            secrets: Secrets::Unread,
            ..Overrides::default()
        };
        crate::config::load(&overrides, &Environment::default()).unwrap().config
    }
}
