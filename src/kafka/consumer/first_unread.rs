//! What lag is measured by: what a group has committed, where a partition ends, and when the first record at or after an offset was written.
//! Compaction may have taken the one at it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::stream::{StreamExt as _, select_all};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::{ClusterConfig, Consumer};
use crate::kafka::ffi::{self, Committed};

/// Topic, partition, offset.
pub(in crate::kafka) type TopicPartitionOffset = (String, i32, i64);

/// The first record at or after a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kafka) enum FirstUnread {
    /// Its timestamp, in milliseconds since 1970.
    At(i64),
    /// There is none up to the end.
    Nothing,
    /// Half a sentence about why it is not known.
    Unread(String),
}

impl Consumer {
    /// One that fetches no more than it must for single records.
    ///
    /// # Errors
    /// When librdkafka refuses a property.
    pub(in crate::kafka) fn for_lag(connection: &ClusterConfig) -> anyhow::Result<Self> {
        let forced = [
            ("queued.min.messages", "1"),
            ("queued.max.messages.kbytes", "1024"),
            // From one record of a partition to the next: by default it pauses a second, since that one
            // record is all that may wait.
            ("fetch.queue.backoff.ms", "5"),
            // A batch that is larger still comes, whole.
            ("fetch.message.max.bytes", "65536"),
        ];
        Self::with(connection, &forced)
    }

    /// Log start and log end of each partition, where Kafka tells them.
    ///
    /// # Errors
    /// When the cluster does not answer in time.
    pub(in crate::kafka) async fn bounds(
        &self,
        partitions: &[(String, i32)],
    ) -> anyhow::Result<BTreeMap<(String, i32), (i64, i64)>> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let starts = self.found(partitions, Offset::Beginning).await?;
        let ends = self.found(partitions, Offset::End).await?;
        let told = |list: &TopicPartitionList, topic: &str, partition| {
            let place = list.find_partition(topic, partition)?;
            match (place.error(), place.offset()) {
                (Ok(()), Offset::Offset(offset)) => Some(offset),
                _ => None,
            }
        };
        let bounds = partitions.iter().filter_map(|(topic, partition)| {
            let (start, end) = (told(&starts, topic, *partition)?, told(&ends, topic, *partition)?);
            Some(((topic.clone(), *partition), (start, end)))
        });
        Ok(bounds.collect())
    }

    /// What a group has committed, for whichever topics; it is not joined.
    ///
    /// # Errors
    /// When its coordinator does not answer in time.
    pub(in crate::kafka) async fn committed(&self, group: String) -> anyhow::Result<Committed> {
        let consumer = self.inner.clone();
        tokio::task::spawn_blocking(move || ffi::committed(&consumer, &group, super::TIMEOUT)).await?
    }

    /// Reads one record for each of the places, which stand in ascending order. Those of one partition one
    /// after the other, since it is read from one offset at a time. What `bound` has not been enough for is
    /// unread.
    ///
    /// # Errors
    /// When librdkafka refuses to read.
    pub(in crate::kafka) async fn firsts(
        &self,
        places: impl IntoIterator<Item = TopicPartitionOffset>,
        bound: Duration,
    ) -> anyhow::Result<BTreeMap<TopicPartitionOffset, FirstUnread>> {
        let mut rounds = Vec::<Vec<TopicPartitionOffset>>::new();
        let mut before = BTreeMap::<(String, i32), usize>::new();
        for place in places {
            let round = before.entry((place.0.clone(), place.1)).or_default();
            if rounds.len() == *round {
                rounds.push(Vec::new());
            }
            rounds.get_mut(*round).into_iter().for_each(|round| round.push(place.clone()));
            *round += 1;
        }
        let (until, mut found) = (Instant::now() + bound, BTreeMap::new());
        for round in rounds {
            let read = self.round(round, until, &mut found).await;
            // Else fetching would go on.
            self.inner.unassign().context("the partitions cannot be left")?;
            read?;
        }
        Ok(found)
    }

    /// Places of different partitions, at once.
    async fn round(
        &self,
        places: Vec<TopicPartitionOffset>,
        until: Instant,
        found: &mut BTreeMap<TopicPartitionOffset, FirstUnread>,
    ) -> anyhow::Result<()> {
        let (mut queues, mut list) = (Vec::with_capacity(places.len()), TopicPartitionList::new());
        for (topic, partition, offset) in &places {
            // Before `assign`, so that nothing comes through the common queue.
            let queue = self.inner.split_partition_queue(topic, *partition);
            queues.push(queue.with_context(|| format!("{topic} [{partition}] does not exist"))?);
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        self.inner.assign(&list).context("the partitions cannot be read")?;
        let mut records = select_all(
            queues.iter().enumerate().map(|(at, queue)| queue.stream().map(move |result| (at, result))),
        );
        let mut open: Vec<Option<TopicPartitionOffset>> = places.into_iter().map(Some).collect();
        let mut left = open.len();
        while left > 0 {
            tokio::select! {
                Some((at, result)) = records.next() => {
                    let Some(slot) = open.get_mut(at) else { continue };
                    let first = match result {
                        // One from before, still in the queue.
                        Ok(record) if slot.as_ref().is_some_and(|place| record.offset() < place.2) => continue,
                        Ok(record) => match record.timestamp().to_millis() {
                            Some(time) => FirstUnread::At(time),
                            None => FirstUnread::Unread("the record has no timestamp".into()),
                        },
                        Err(KafkaError::PartitionEOF(_)) => FirstUnread::Nothing,
                        Err(error) => {
                            let code = error.rdkafka_error_code();
                            FirstUnread::Unread(code.map_or_else(|| error.to_string(), |code| code.to_string()))
                        }
                    };
                    if let Some(place) = slot.take() {
                        found.insert(place, first);
                        left -= 1;
                    }
                }
                _ = self.inner.recv() => {}
                () = tokio::time::sleep_until(until) => break,
            }
        }
        let late = || FirstUnread::Unread(format!("the record was not read in time{}", self.reason()));
        found.extend(open.into_iter().flatten().map(|place| (place, late())));
        Ok(())
    }
}
