//! How many partitions each topic has, as the producer's partitioner sees it: with that, the partition of a
//! record that was not acknowledged is known without asking anybody.

use std::collections::HashMap;

use arc_swap::ArcSwap;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The counts by topic. A topic that is not known, or is gone, has none.
#[derive(Debug, Default)]
pub(super) struct PartitionCounts(ArcSwap<HashMap<String, i32>>);

impl PartitionCounts {
    pub(super) fn get(&self, topic: &str) -> Option<i32> {
        self.0.load().get(topic).copied()
    }

    /// Takes news of some topics: 0 where one is gone. The others stay as they are.
    pub(super) fn update<'a>(&self, news: impl IntoIterator<Item = (&'a str, i32)>) {
        let old = self.0.load();
        let news = news.into_iter().filter(|(topic, count)| old.get(*topic).copied().unwrap_or(0) != *count);
        let news: Vec<_> = news.map(|(topic, count)| (topic.to_owned(), count)).collect();
        if news.is_empty() {
            return;
        }
        self.0.rcu(|counts| {
            let mut counts = HashMap::clone(counts);
            counts.extend(news.iter().cloned());
            counts.retain(|_, count| *count > 0);
            counts
        });
    }
}

/// A topic in librdkafka's statistics, of which nothing else is read.
#[derive(Debug, Deserialize)]
pub(super) struct TopicStatistics {
    pub(super) partitions: Count,
}

/// How many keys of an object are numbers of partitions; -1 is that of records without one.
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
    fn partitions_are_counted_without_that_of_records_that_have_none() {
        let text = r#"{"topic":"a","partitions":{"-1":{"leader":-1},"0":{"leader":1},"1":{"leader":{}}}}"#;
        assert_eq!(serde_json::from_str::<TopicStatistics>(text).unwrap().partitions.0, 2);
    }

    #[test]
    fn a_topic_that_is_gone_has_no_count_and_the_others_keep_theirs() {
        let counts = PartitionCounts::default();
        counts.update([("a", 6), ("b", 3)]);
        counts.update([("a", 0), ("c", 0)]);
        assert_eq!((counts.get("a"), counts.get("b"), counts.get("c")), (None, Some(3), None));
    }
}
