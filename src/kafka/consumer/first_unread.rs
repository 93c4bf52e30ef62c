//! What lag is computed from: a group's committed offsets, the bounds of a partition, and the timestamp of the
//! first record at or after an offset, since compaction may have removed the record at the offset itself.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{StreamExt as _, select_all};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::{ClusterConfig, ClusterError, Consumer};
use crate::kafka::ffi::{self, Committed};

/// Topic, partition, offset.
pub(in crate::kafka) type TopicPartitionOffset = (String, i32, i64);

/// The first record at or after a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kafka) enum FirstUnread {
    /// Its timestamp, in milliseconds since 1970.
    At(i64),
    /// No record follows up to the log end.
    Nothing,
    /// A phrase that says why it is unknown.
    Unread(String),
}

impl Consumer {
    /// Creates a consumer that fetches as little as possible to read single records.
    ///
    /// # Errors
    /// If librdkafka refuses a property.
    pub(in crate::kafka) fn for_lag(connection: &ClusterConfig) -> Result<Self, ClusterError> {
        let forced = [
            ("queued.min.messages", "1"),
            ("queued.max.messages.kbytes", "1024"),
            // The pause between two records of a partition: a second by default, since the queue's limit is one
            // record.
            ("fetch.queue.backoff.ms", "5"),
            // A larger batch still arrives completely.
            ("fetch.message.max.bytes", "65536"),
        ];
        Self::with(connection, &forced)
    }

    /// Log start and log end of each partition for which Kafka reports them.
    ///
    /// # Errors
    /// If the cluster does not answer in time.
    pub(in crate::kafka) async fn bounds(
        &self,
        partitions: &[(String, i32)],
    ) -> Result<BTreeMap<(String, i32), (i64, i64)>, ClusterError> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let starts = self.lookup(partitions, Offset::Beginning).await?;
        let ends = self.lookup(partitions, Offset::End).await?;
        let reported = |list: &TopicPartitionList, topic: &str, partition| {
            let position = list.find_partition(topic, partition)?;
            match (position.error(), position.offset()) {
                (Ok(()), Offset::Offset(offset)) => Some(offset),
                _ => None,
            }
        };
        let bounds = partitions.iter().filter_map(|(topic, partition)| {
            let (start, end) = (reported(&starts, topic, *partition)?, reported(&ends, topic, *partition)?);
            Some(((topic.clone(), *partition), (start, end)))
        });
        Ok(bounds.collect())
    }

    /// A group's committed offsets on all topics. This does not join the group.
    ///
    /// # Errors
    /// If its coordinator does not answer in time.
    pub(in crate::kafka) async fn committed(&self, group: String) -> Result<Committed, ClusterError> {
        let consumer = self.inner.clone();
        tokio::task::spawn_blocking(move || ffi::committed(&consumer, &group, super::TIMEOUT)).await?
    }

    /// Reads one record for each of the positions, which must be in ascending order. Positions of one partition
    /// are read one after the other, since a partition is read from one offset at a time. Positions that could
    /// not be read within `bound` are returned as unread.
    ///
    /// # Errors
    /// If librdkafka refuses to read.
    pub(in crate::kafka) async fn firsts(
        &self,
        positions: impl IntoIterator<Item = TopicPartitionOffset>,
        bound: Duration,
    ) -> Result<BTreeMap<TopicPartitionOffset, FirstUnread>, ClusterError> {
        let mut rounds = Vec::<Vec<TopicPartitionOffset>>::new();
        let mut before = BTreeMap::<(String, i32), usize>::new();
        for position in positions {
            let round = before.entry((position.0.clone(), position.1)).or_default();
            if rounds.len() == *round {
                rounds.push(Vec::new());
            }
            rounds.get_mut(*round).into_iter().for_each(|round| round.push(position.clone()));
            *round += 1;
        }
        let (until, mut firsts) = (Instant::now() + bound, BTreeMap::new());
        for round in rounds {
            let read = self.round(round, until, &mut firsts).await;
            // Otherwise fetching would continue.
            self.inner.unassign().map_err(ClusterError::failed("the partitions cannot be unassigned"))?;
            read?;
        }
        Ok(firsts)
    }

    /// Reads positions of different partitions concurrently.
    async fn round(
        &self,
        positions: Vec<TopicPartitionOffset>,
        until: Instant,
        firsts: &mut BTreeMap<TopicPartitionOffset, FirstUnread>,
    ) -> Result<(), ClusterError> {
        let (mut queues, mut list) = (Vec::with_capacity(positions.len()), TopicPartitionList::new());
        for (topic, partition, offset) in &positions {
            // Split before `assign`, so that no record arrives in the common queue.
            let queue = self.inner.split_partition_queue(topic, *partition);
            let missing = || ClusterError::NoPartition { topic: topic.clone(), partition: *partition };
            queues.push(queue.ok_or_else(missing)?);
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        self.inner.assign(&list).map_err(ClusterError::failed("the partitions cannot be read"))?;
        let mut records = select_all(
            queues.iter().enumerate().map(|(at, queue)| queue.stream().map(move |result| (at, result))),
        );
        let mut open: Vec<Option<TopicPartitionOffset>> = positions.into_iter().map(Some).collect();
        let mut remaining = open.len();
        while remaining > 0 {
            tokio::select! {
                Some((at, result)) = records.next() => {
                    let Some(slot) = open.get_mut(at) else { continue };
                    let first = match result {
                        // A record before the position, still in the queue.
                        Ok(record) if slot.as_ref().is_some_and(|position| record.offset() < position.2) => continue,
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
                    if let Some(position) = slot.take() {
                        firsts.insert(position, first);
                        remaining -= 1;
                    }
                }
                _ = self.inner.recv() => {}
                () = tokio::time::sleep_until(until) => break,
            }
        }
        let late = || FirstUnread::Unread(format!("the record was not read in time{}", self.reason()));
        firsts.extend(open.into_iter().flatten().map(|position| (position, late())));
        Ok(())
    }
}
