//! Measures how far consumer groups are behind the log ends of topics, and computes the lag of each partition.
//!
//! The numbers are those of Kafka's own tool (`kafka-consumer-groups --describe`): log end minus committed
//! offset, counted in offsets, so that a compacted topic may hold fewer records. If Kafka's tool shows a
//! negative number or a dash, the lag is unknown here, with a reason.
//!
//! No group is joined and nothing is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;

use super::consumer::first_unread::{FirstUnread, TopicPartitionOffset};
use super::ffi::{Committed, GroupDescription};
use super::{Admin, ClusterConfig, ClusterError, Consumer};
use crate::names;

/// The number of groups whose offsets are requested concurrently.
const AT_ONCE: usize = 8;

/// The total time limit for reading timestamps.
const READING: Duration = Duration::from_secs(10);

/// The result of one measurement.
#[derive(Debug)]
pub struct Lag {
    /// When the last part of it was read.
    pub measured: Timestamp,
    pub groups: Vec<GroupLag>,
    /// How many of the requested topics exist.
    pub topics: usize,
    /// The log end of each partition of the topics, if Kafka reports it.
    pub ends: BTreeMap<(String, i32), i64>,
}

#[derive(Debug)]
pub struct GroupLag {
    pub name: String,
    /// State and protocol; `None` if Kafka lists no such consumer group.
    pub group: Option<GroupDescription>,
    /// All partitions, in order, of each topic on which the group has committed at least one offset; or the
    /// reason why no partition is known.
    pub partitions: Result<Vec<PartitionLag>, GroupLagError>,
}

/// Why the lag of a group is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupLagError {
    /// Kafka lists no group of this name.
    #[error("there is no such group: it was deleted or never existed")]
    NoSuchGroup,
    /// Kafka lists a group of this name that is no consumer group and has committed nothing: a share group, for
    /// example, whose offsets librdkafka cannot read.
    #[error("it is not a consumer group: the lag of other types, such as share groups, is not measured")]
    NotAConsumerGroup,
    /// It has committed nothing on the topics of the configured sources.
    #[error("it has committed nothing on the topics of the configured sources")]
    NothingCommitted,
    /// Its offsets cannot be read; contains Kafka's error.
    #[error("its offsets cannot be read: {0}")]
    Unreadable(String),
}

/// The lag of one group on one partition.
#[derive(Debug)]
pub struct PartitionLag {
    pub topic: String,
    pub partition: i32,
    /// The committed offset: that of the group's first unread record.
    pub committed: Option<i64>,
    /// The log end: the offset of the next record.
    pub end: Option<i64>,
    /// How far the group is behind.
    pub behind: Result<Behind, LagUnknown>,
}

/// The lag behind the log end.
#[derive(Debug, Clone, PartialEq)]
pub struct Behind {
    /// Log end minus committed offset.
    pub records: u64,
    /// How many of these records retention has already deleted, so that the group can no longer read them.
    pub deleted: u64,
    /// The age of the first unread record, by its timestamp; 0 if there is no unread record. Or a phrase that
    /// gives the reason why it is unknown.
    pub seconds: Result<f64, String>,
}

/// Why a lag is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LagUnknown {
    /// The partition has records, and the group's client decides at which one it will begin.
    NothingCommitted,
    /// The log was recreated since: the topic was deleted, or the cluster lost the end of the log.
    PastTheEnd,
    /// The group has committed an offset on a partition that does not exist.
    Gone,
    /// Kafka does not report the bounds of the log: the partition may have no leader.
    NoEnd,
}

impl LagUnknown {
    /// A phrase without capital letter and full stop.
    pub fn why(self) -> &'static str {
        match self {
            Self::NothingCommitted => "nothing committed",
            Self::PastTheEnd => "committed past the log end: the topic was recreated",
            Self::Gone => "the partition no longer exists",
            Self::NoEnd => "Kafka does not report the log end",
        }
    }

    /// The value of the label `cause`.
    pub fn label(self) -> &'static str {
        match self {
            Self::NothingCommitted => "uncommitted",
            Self::PastTheEnd => "past_end",
            Self::Gone => "gone",
            Self::NoEnd => "no_end",
        }
    }
}

/// A group's position in one partition; `unread` is the offset of its first unread record, if there is one.
struct Position {
    records: u64,
    deleted: u64,
    unread: Option<i64>,
}

/// `log` is the pair of log start and log end.
fn position_of(committed: Option<i64>, log: Option<(i64, i64)>) -> Result<Position, LagUnknown> {
    let (start, end) = log.ok_or(LagUnknown::NoEnd)?;
    let count = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or(0);
    match committed {
        None if start >= end => Ok(Position { records: 0, deleted: 0, unread: None }),
        None => Err(LagUnknown::NothingCommitted),
        Some(committed) if committed > end => Err(LagUnknown::PastTheEnd),
        Some(committed) => {
            let next = committed.max(start);
            let unread = (next < end).then_some(next);
            Ok(Position { records: count(committed, end), deleted: count(committed, start.min(end)), unread })
        }
    }
}

/// Measures lag. It holds two clients, so create one and reuse it.
pub struct Meter {
    consumer: Consumer,
    admin: Admin,
}

impl Meter {
    /// Creates the clients without waiting for brokers.
    ///
    /// # Errors
    /// If librdkafka refuses a property.
    pub fn new(connection: &ClusterConfig) -> Result<Self, ClusterError> {
        Ok(Self { consumer: Consumer::for_lag(connection)?, admin: Admin::new(connection)? })
    }

    /// Those of the topics that hookstream's user may not see, and in which it therefore cannot measure.
    ///
    /// # Errors
    /// If no broker answers in time.
    pub async fn hidden(&self, topics: &[String]) -> Result<BTreeSet<String>, ClusterError> {
        let existing = self.consumer.topics().await?;
        let missing: Vec<String> =
            topics.iter().filter(|topic| !existing.contains_key(*topic)).cloned().collect();
        self.consumer.hidden(&missing).await
    }

    /// Measures, on the topics, the groups that match a pattern (`*` matches any text), or all groups if there
    /// is no pattern. A group without a committed offset on the topics is omitted, unless it was named without a `*`.
    ///
    /// # Errors
    /// If the cluster does not answer in time. A group or partition that cannot be read is reported as unknown
    /// instead.
    pub async fn measure(&self, topics: &[String], patterns: &[String]) -> Result<Lag, ClusterError> {
        // First, because its error explains an unreachable cluster best.
        let existing = self.consumer.topics().await?;
        let configured: BTreeSet<&String> = topics.iter().collect();
        let existing =
            existing.into_iter().filter(|(topic, _)| configured.contains(topic)).collect::<Vec<_>>();
        let places = existing.iter().flat_map(|(topic, count)| (0..*count).map(|n| (topic.clone(), n)));
        let places: Vec<(String, i32)> = places.collect();
        let mut listed = self.list().await?;
        // Before the log ends: in the other order, offsets committed meanwhile would seem to be past the end.
        let committed = self.committed(select_groups(patterns, &listed)).await?;
        let bounds = self.consumer.bounds(&places).await?;

        let mut unread = BTreeSet::new();
        let mut position = Vec::new();
        for (name, offsets) in committed {
            let group = listed.remove(&name);
            let mut partition_rows = partition_rows(&offsets, &configured, &places, &bounds);
            // The list has only consumer groups. Groups of other types may have committed offsets, too.
            if group.is_none() && matches!(partition_rows, Err(GroupLagError::NothingCommitted)) {
                let exists = self.admin.has_group(name.clone()).await?;
                partition_rows =
                    Err(if exists { GroupLagError::NotAConsumerGroup } else { GroupLagError::NoSuchGroup });
            }
            if matches!(partition_rows, Err(GroupLagError::NoSuchGroup | GroupLagError::NothingCommitted))
                && !patterns.contains(&name)
            {
                continue;
            }
            for row in partition_rows.iter().flatten() {
                unread.extend(row.unread());
            }
            position.push((name, group, partition_rows));
        }
        let firsts = self.consumer.firsts(unread, READING).await?;
        let measured = Timestamp::now();
        let groups = position.into_iter().map(|(name, group, partition_rows)| {
            let finish = |row: PartitionRow| row.finish(&firsts, measured);
            GroupLag {
                name,
                group,
                partitions: partition_rows
                    .map(|partition_rows| partition_rows.into_iter().map(finish).collect()),
            }
        });
        let groups = groups.collect();
        let ends = bounds.into_iter().map(|(place, (_, end))| (place, end)).collect();
        Ok(Lag { measured, groups, topics: existing.len(), ends })
    }

    async fn list(&self) -> Result<BTreeMap<String, GroupDescription>, ClusterError> {
        match self.admin.groups().await {
            Err(_) if self.admin.is_in_memory().await.unwrap_or(false) => Err(ClusterError::NoGroupsInMemory),
            listed => listed,
        }
    }

    async fn committed(&self, groups: BTreeSet<String>) -> Result<BTreeMap<String, Committed>, ClusterError> {
        let requests = stream::iter(groups).map(async |group| {
            let committed = self.consumer.committed(group.clone()).await?;
            Ok((group, committed))
        });
        requests.buffer_unordered(AT_ONCE).try_collect().await
    }
}

/// The listed groups that match a pattern, and all groups named without a `*`, listed or not.
fn select_groups(patterns: &[String], listed: &BTreeMap<String, GroupDescription>) -> BTreeSet<String> {
    if patterns.is_empty() {
        return listed.keys().cloned().collect();
    }
    let matches_pattern = |name: &&String| patterns.iter().any(|pattern| names::matches(pattern, name));
    let named = patterns.iter().filter(|pattern| !pattern.contains('*'));
    listed.keys().filter(matches_pattern).chain(named).cloned().collect()
}

/// A partition of a group before the timestamp of its first unread record is known.
struct PartitionRow {
    topic: String,
    partition: i32,
    committed: Option<i64>,
    end: Option<i64>,
    position: Result<Position, LagUnknown>,
}

impl PartitionRow {
    /// The position of the record whose timestamp is needed.
    fn unread(&self) -> Option<TopicPartitionOffset> {
        let offset = self.position.as_ref().ok()?.unread?;
        Some((self.topic.clone(), self.partition, offset))
    }

    fn finish(self, firsts: &BTreeMap<TopicPartitionOffset, FirstUnread>, now: Timestamp) -> PartitionLag {
        let first = self.unread().map(|place| firsts.get(&place).cloned());
        let behind = self.position.map(|Position { records, deleted, .. }| {
            let seconds = match first {
                None | Some(Some(FirstUnread::Nothing)) => Ok(0.0),
                // The producer's clock may be ahead of this one.
                Some(Some(FirstUnread::At(time))) => Ok((now.as_millisecond() - time).max(0) as f64 / 1000.0),
                Some(Some(FirstUnread::Unread(why))) => Err(why),
                Some(None) => Err(String::from("the record was not read")),
            };
            Behind { records, deleted, seconds }
        });
        let Self { topic, partition, committed, end, .. } = self;
        PartitionLag { topic, partition, committed, end, behind }
    }
}

/// All partitions of the topics on which the group has committed an offset.
fn partition_rows(
    offsets: &Committed,
    configured: &BTreeSet<&String>,
    existing: &[(String, i32)],
    bounds: &BTreeMap<(String, i32), (i64, i64)>,
) -> Result<Vec<PartitionRow>, GroupLagError> {
    use rdkafka::error::RDKafkaErrorCode::GroupIdNotFound;

    let offsets = match offsets {
        Ok(offsets) => offsets,
        // Kafka also answers this for groups of another type that commit no offsets: share groups.
        Err(GroupIdNotFound) => return Err(GroupLagError::NothingCommitted),
        Err(code) => return Err(GroupLagError::Unreadable(code.to_string())),
    };
    let topics: BTreeSet<&String> =
        offsets.keys().map(|(topic, _)| topic).filter(|topic| configured.contains(topic)).collect();
    if topics.is_empty() {
        return Err(GroupLagError::NothingCommitted);
    }
    let existing: BTreeSet<&(String, i32)> = existing.iter().collect();
    let committed = offsets.keys();
    let places: BTreeSet<_> = existing.iter().copied().chain(committed).collect();
    let places = places.into_iter().filter(|(topic, _)| topics.contains(topic));
    let row = |place: &(String, i32)| {
        let (committed, log) = (offsets.get(place).copied(), bounds.get(place).copied());
        let position =
            if existing.contains(place) { position_of(committed, log) } else { Err(LagUnknown::Gone) };
        let (topic, partition) = place.clone();
        PartitionRow { topic, partition, committed, end: log.map(|(_, end)| end), position }
    };
    Ok(places.map(row).collect())
}

#[cfg(test)]
mod tests;
