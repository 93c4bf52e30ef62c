//! The partition count of each topic, as the producer's partitioner sees it. It gives the partition of a
//! record that was not acknowledged without a request to Kafka.

use std::collections::HashMap;

use arc_swap::ArcSwap;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The counts by topic. A topic that is unknown or deleted has none.
#[derive(Debug, Default)]
pub(super) struct PartitionCounts(ArcSwap<HashMap<String, i32>>);

impl PartitionCounts {
    pub(super) fn get(&self, topic: &str) -> Option<i32> {
        self.0.load().get(topic).copied()
    }

    /// Updates the counts of the given topics; 0 removes a topic. The others are unchanged.
    pub(super) fn update<'a>(&self, changes: impl IntoIterator<Item = (&'a str, i32)>) {
        let old = self.0.load();
        let changes =
            changes.into_iter().filter(|(topic, count)| old.get(*topic).copied().unwrap_or(0) != *count);
        let changes: Vec<_> = changes.map(|(topic, count)| (topic.to_owned(), count)).collect();
        if changes.is_empty() {
            return;
        }
        self.0.rcu(|counts| {
            let mut counts = HashMap::clone(counts);
            counts.extend(changes.iter().cloned());
            counts.retain(|_, count| *count > 0);
            counts
        });
    }
}

/// A topic in librdkafka's statistics; its other members are skipped.
#[derive(Debug, Deserialize)]
pub(super) struct TopicStatistics {
    pub(super) partitions: Count,
}

/// The number of partitions in an object keyed by partition; -1 is for records not assigned to one yet.
#[derive(Debug)]
pub(super) struct Count(pub(super) i32);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountVisitor;
        impl<'de> Visitor<'de> for CountVisitor {
            type Value = Count;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of partitions")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while let Some((partition, IgnoredAny)) = map.next_entry::<i32, _>()? {
                    count += i32::from(partition >= 0);
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_map(CountVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_counted_without_the_one_of_unassigned_records() {
        let text = r#"{"topic":"a","partitions":{"-1":{"leader":-1},"0":{"leader":1},"1":{"leader":{}}}}"#;
        assert_eq!(serde_json::from_str::<TopicStatistics>(text).unwrap().partitions.0, 2);
    }

    #[test]
    fn a_deleted_topic_has_no_count_and_the_others_keep_theirs() {
        let counts = PartitionCounts::default();
        counts.update([("a", 6), ("b", 3)]);
        counts.update([("a", 0), ("c", 0)]);
        assert_eq!((counts.get("a"), counts.get("b"), counts.get("c")), (None, Some(3), None));
    }
}
