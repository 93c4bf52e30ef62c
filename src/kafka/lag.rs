//! How far consumer groups are behind the ends of topics: the measuring, and the judgement of one partition.
//!
//! The numbers are those of Kafka's own tool (`kafka-consumer-groups --describe`): log end minus committed
//! offset, counted in offsets, so that on a compacted topic the records may be fewer. Where Kafka's tool
//! shows a negative number or a dash, the lag is unknown here, with a word why.
//!
//! No group is joined and nothing is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;

use super::consumer::first_unread::{FirstUnread, TopicPartitionOffset};
use super::ffi::{Committed, GroupDescription};
use super::{Admin, ClusterConfig, Consumer};
use crate::names;

/// Groups that are asked for their offsets at a time.
const AT_ONCE: usize = 8;

/// The bound of reading timestamps, all together.
const READING: Duration = Duration::from_secs(10);

/// What one measurement found.
#[derive(Debug)]
pub struct Lag {
    /// When the last of it was read.
    pub measured: Timestamp,
    /// By name.
    pub groups: Vec<GroupLag>,
    /// How many of the topics exist.
    pub topics: usize,
    /// The log end of each partition of the topics, where Kafka tells it.
    pub ends: BTreeMap<(String, i32), i64>,
}

/// One group.
#[derive(Debug)]
pub struct GroupLag {
    /// Its name.
    pub name: String,
    /// What it is like; `None` where Kafka lists no such group.
    pub group: Option<GroupDescription>,
    /// All partitions of each topic of which it has committed at least one, in their order; or why there
    /// are none.
    pub partitions: Result<Vec<PartitionLag>, GroupLagError>,
}

/// Why nothing is known of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupLagError {
    /// Kafka lists none of this name.
    NoSuchGroup,
    /// It has committed nothing on our topics.
    NothingCommitted,
    /// Its offsets cannot be read; what Kafka says.
    Unreadable(String),
}

impl fmt::Display for GroupLagError {
    /// Half a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchGroup => f.write_str("there is no such group: it was deleted, or never was"),
            Self::NothingCommitted => {
                f.write_str("it has committed nothing on the topics of the configured sources")
            }
            Self::Unreadable(why) => write!(f, "its offsets cannot be read: {why}"),
        }
    }
}

/// One partition, for one group.
#[derive(Debug)]
pub struct PartitionLag {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The committed offset: that of the first record that is not yet read.
    pub committed: Option<i64>,
    /// The log end: the offset that the next record gets.
    pub end: Option<i64>,
    /// How far the group is behind.
    pub behind: Result<Behind, LagUnknown>,
}

/// How far behind a log end.
#[derive(Debug, Clone, PartialEq)]
pub struct Behind {
    /// Log end minus committed offset.
    pub records: u64,
    /// How many of these retention has already deleted, so that the group cannot read them any more.
    pub deleted: u64,
    /// How long ago the first record that is not yet read was written, by its timestamp; 0 where none is
    /// left. Or half a sentence why it is not known.
    pub seconds: Result<f64, String>,
}

/// Why a lag is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LagUnknown {
    /// There are records, and where the group will begin is its client's matter.
    NothingCommitted,
    /// The log was made anew since: a topic that was deleted, a cluster that lost its end.
    PastTheEnd,
    /// The group has committed on a partition that is not there.
    Gone,
    /// Kafka does not say where the log begins and ends: it may have no leader.
    NoEnd,
}

impl LagUnknown {
    /// Half a sentence.
    pub fn why(self) -> &'static str {
        match self {
            Self::NothingCommitted => "nothing committed",
            Self::PastTheEnd => "committed past the log end: the topic was made anew",
            Self::Gone => "the partition is gone",
            Self::NoEnd => "Kafka does not tell the log end",
        }
    }
}

/// The judgement of one partition: the offset of its first record that is not yet read, if there is one.
struct Judged {
    records: u64,
    deleted: u64,
    unread: Option<i64>,
}

/// `log` is start and end.
fn judge(committed: Option<i64>, log: Option<(i64, i64)>) -> Result<Judged, LagUnknown> {
    let (start, end) = log.ok_or(LagUnknown::NoEnd)?;
    let count = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or(0);
    match committed {
        None if start >= end => Ok(Judged { records: 0, deleted: 0, unread: None }),
        None => Err(LagUnknown::NothingCommitted),
        Some(committed) if committed > end => Err(LagUnknown::PastTheEnd),
        Some(committed) => {
            let next = committed.max(start);
            let unread = (next < end).then_some(next);
            Ok(Judged { records: count(committed, end), deleted: count(committed, start.min(end)), unread })
        }
    }
}

/// Measures. It holds two clients, so make one and keep it.
pub struct Meter {
    consumer: Consumer,
    admin: Admin,
}

impl Meter {
    /// Creates the clients. Brokers are not waited for.
    ///
    /// # Errors
    /// When librdkafka refuses a property.
    pub fn new(connection: &ClusterConfig) -> anyhow::Result<Self> {
        Ok(Self { consumer: Consumer::for_lag(connection)?, admin: Admin::new(connection)? })
    }

    /// Measures the groups that the patterns name (`*` stands for anything), without any all groups, on the
    /// topics. A group without an offset on these is left out, unless it was named without a `*`.
    ///
    /// # Errors
    /// When the cluster does not answer in time. What of one group or one partition cannot be read is
    /// unknown instead.
    pub async fn measure(&self, topics: &[String], patterns: &[String]) -> anyhow::Result<Lag> {
        // First, since its error says most about a cluster that is not there.
        let there = self.consumer.topics().await?;
        let ours: BTreeSet<&String> = topics.iter().collect();
        let existing = there.into_iter().filter(|(topic, _)| ours.contains(topic)).collect::<Vec<_>>();
        let places = existing.iter().flat_map(|(topic, count)| (0..*count).map(|n| (topic.clone(), n)));
        let places: Vec<(String, i32)> = places.collect();
        let mut listed = self.list().await?;
        // Before the ends: the other way round, what is committed meanwhile would seem to be past them.
        let committed = self.committed(chosen(patterns, &listed)).await?;
        let bounds = self.consumer.bounds(&places).await?;

        let mut unread = BTreeSet::new();
        let mut judged = Vec::new();
        for (name, offsets) in committed {
            let group = listed.remove(&name);
            let rows = match group {
                Some(_) => rows(&offsets, &ours, &places, &bounds),
                None => Err(GroupLagError::NoSuchGroup),
            };
            if matches!(rows, Err(GroupLagError::NoSuchGroup | GroupLagError::NothingCommitted))
                && !patterns.contains(&name)
            {
                continue;
            }
            for row in rows.iter().flatten() {
                unread.extend(row.unread());
            }
            judged.push((name, group, rows));
        }
        let firsts = self.consumer.firsts(unread, READING).await?;
        let measured = Timestamp::now();
        let groups = judged.into_iter().map(|(name, group, rows)| {
            let finish = |row: PartitionRow| row.finish(&firsts, measured);
            GroupLag { name, group, partitions: rows.map(|rows| rows.into_iter().map(finish).collect()) }
        });
        let groups = groups.collect();
        let ends = bounds.into_iter().map(|(place, (_, end))| (place, end)).collect();
        Ok(Lag { measured, groups, topics: existing.len(), ends })
    }

    async fn list(&self) -> anyhow::Result<BTreeMap<String, GroupDescription>> {
        match self.admin.groups().await {
            Err(_) if self.admin.is_in_memory().await.unwrap_or(false) => {
                anyhow::bail!("the in-memory Kafka of `hookstream dev` lists no consumer groups")
            }
            listed => listed,
        }
    }

    async fn committed(&self, groups: BTreeSet<String>) -> anyhow::Result<BTreeMap<String, Committed>> {
        let asked = stream::iter(groups).map(async |group| {
            let committed = self.consumer.committed(group.clone()).await?;
            anyhow::Ok((group, committed))
        });
        asked.buffer_unordered(AT_ONCE).try_collect().await
    }
}

/// Those that fit a pattern, and those that are named without a `*`, whether they are there or not.
fn chosen(patterns: &[String], listed: &BTreeMap<String, GroupDescription>) -> BTreeSet<String> {
    if patterns.is_empty() {
        return listed.keys().cloned().collect();
    }
    let fits = |name: &&String| patterns.iter().any(|pattern| names::matches(pattern, name));
    let named = patterns.iter().filter(|pattern| !pattern.contains('*'));
    listed.keys().filter(fits).chain(named).cloned().collect()
}

/// A partition of a group, before its record is read.
struct PartitionRow {
    topic: String,
    partition: i32,
    committed: Option<i64>,
    end: Option<i64>,
    judged: Result<Judged, LagUnknown>,
}

impl PartitionRow {
    /// The place of the record whose timestamp is wanted.
    fn unread(&self) -> Option<TopicPartitionOffset> {
        let offset = self.judged.as_ref().ok()?.unread?;
        Some((self.topic.clone(), self.partition, offset))
    }

    fn finish(self, firsts: &BTreeMap<TopicPartitionOffset, FirstUnread>, now: Timestamp) -> PartitionLag {
        let first = self.unread().map(|place| firsts.get(&place).cloned());
        let behind = self.judged.map(|Judged { records, deleted, .. }| {
            let seconds = match first {
                None | Some(Some(FirstUnread::Nothing)) => Ok(0.0),
                // A producer's clock may be ahead of ours.
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

/// All partitions of the topics on which the group has committed something.
fn rows(
    offsets: &Committed,
    ours: &BTreeSet<&String>,
    there: &[(String, i32)],
    bounds: &BTreeMap<(String, i32), (i64, i64)>,
) -> Result<Vec<PartitionRow>, GroupLagError> {
    use rdkafka::error::RDKafkaErrorCode::GroupIdNotFound;

    let offsets = match offsets {
        Ok(offsets) => offsets,
        // Also what Kafka says of a group of another kind, which commits no offsets: a share group.
        Err(GroupIdNotFound) => return Err(GroupLagError::NothingCommitted),
        Err(code) => return Err(GroupLagError::Unreadable(code.to_string())),
    };
    let topics: BTreeSet<&String> =
        offsets.keys().map(|(topic, _)| topic).filter(|topic| ours.contains(topic)).collect();
    if topics.is_empty() {
        return Err(GroupLagError::NothingCommitted);
    }
    let there: BTreeSet<&(String, i32)> = there.iter().collect();
    let committed = offsets.keys();
    let places: BTreeSet<_> = there.iter().copied().chain(committed).collect();
    let places = places.into_iter().filter(|(topic, _)| topics.contains(topic));
    let row = |place: &(String, i32)| {
        let (committed, log) = (offsets.get(place).copied(), bounds.get(place).copied());
        let judged = if there.contains(place) { judge(committed, log) } else { Err(LagUnknown::Gone) };
        let (topic, partition) = place.clone();
        PartitionRow { topic, partition, committed, end: log.map(|(_, end)| end), judged }
    };
    Ok(places.map(row).collect())
}

#[cfg(test)]
mod tests;
