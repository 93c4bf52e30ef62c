//! The output of `lag`: text and JSON.

use anstyle::Style;
use serde::Serialize;

use crate::cli::output::{TextTable, UNKNOWN, escape_controls};
use crate::kafka::lag::{Behind, GroupLag, Lag, PartitionLag};

/// The message if there are no groups to show.
pub(super) fn no_groups(patterns: &[String]) -> &'static str {
    match patterns {
        [] => "no consumer group has committed offsets on the topics of the configured sources",
        _ => "no group with that name has committed offsets on the topics of the configured sources",
    }
}

/// The lag of a group on one topic, summed over its partitions, and why it is not completely known.
pub(super) struct Sum<'a> {
    pub(super) topic: &'a str,
    partitions: &'a [PartitionLag],
    pub(super) records: u64,
    /// The seconds of the partition that is furthest behind.
    pub(super) seconds: f64,
    pub(super) records_unknown: Option<String>,
    pub(super) seconds_unknown: Option<String>,
}

/// One sum for each topic, in order.
pub(super) fn sums(group: &GroupLag) -> impl Iterator<Item = Sum<'_>> {
    let partitions = group.partitions.as_deref().unwrap_or_default();
    partitions.chunk_by(|one, next| one.topic == next.topic).map(|partitions| {
        let topic = partitions.first().map_or("", |partition| &*partition.topic);
        let mut sum =
            Sum { topic, partitions, records: 0, seconds: 0.0, records_unknown: None, seconds_unknown: None };
        for PartitionLag { partition, behind, .. } in partitions {
            let why = |why: &str| Some(format!("partition {partition}: {why}"));
            match behind {
                Ok(Behind { records, seconds, .. }) => {
                    sum.records = sum.records.saturating_add(*records);
                    match seconds {
                        Ok(seconds) => sum.seconds = sum.seconds.max(*seconds),
                        Err(unread) => sum.seconds_unknown = sum.seconds_unknown.or(why(unread)),
                    }
                }
                Err(unknown) => {
                    let why = || why(unknown.why());
                    sum.records_unknown = sum.records_unknown.or_else(why);
                    sum.seconds_unknown = sum.seconds_unknown.or_else(why);
                }
            }
        }
        sum
    })
}

/// A heading and a table for each group. `with_time` adds the time of the measurement.
pub(super) fn text(lag: &Lag, patterns: &[String], with_time: bool) -> String {
    let mut parts = Vec::new();
    if with_time {
        parts.push(format!("measured {}", lag.measured.strftime("%FT%TZ")));
    }
    if lag.groups.is_empty() {
        parts.push(no_groups(patterns).to_owned());
    }
    parts.extend(lag.groups.iter().map(group_text));
    parts.join("\n\n")
}

fn group_text(group: &GroupLag) -> String {
    let (name, bold) = (escape_controls(&group.name), Style::new().bold());
    let kind = group.group.as_ref().map(|group| format!("  {} ({})", group.state, group.protocol));
    let heading = format!("{bold}{name}{bold:#}{}", kind.unwrap_or_default());
    match &group.partitions {
        Err(why) => format!("{heading}\nunknown: {why}"),
        Ok(_) => format!("{heading}\n{}", table(group)),
    }
}

fn table(group: &GroupLag) -> TextTable {
    let mut rows = Vec::new();
    for sum in sums(group) {
        for PartitionLag { partition, committed, end, behind, .. } in sum.partitions {
            let offset =
                |offset: &Option<i64>| offset.map_or_else(|| "-".into(), |offset| offset.to_string());
            let (records, seconds, note) = match behind {
                Err(unknown) => (UNKNOWN.into(), UNKNOWN.into(), unknown.why().to_owned()),
                Ok(Behind { records, deleted, seconds }) => {
                    let deleted = (*deleted > 0).then(|| format!("{deleted} of them deleted by retention"));
                    let (seconds, unread) = match seconds {
                        Ok(seconds) => (format!("{seconds:.1}"), None),
                        Err(why) => (UNKNOWN.into(), Some(why.clone())),
                    };
                    let note = deleted.into_iter().chain(unread).collect::<Vec<_>>().join("; ");
                    (records.to_string(), seconds, note)
                }
            };
            let (committed, end) = (offset(committed), offset(end));
            rows.push([sum.topic.to_owned(), partition.to_string(), committed, end, records, seconds, note]);
        }
        let records = if sum.records_unknown.is_some() { UNKNOWN.into() } else { sum.records.to_string() };
        let seconds =
            if sum.seconds_unknown.is_some() { UNKNOWN.into() } else { format!("{:.1}", sum.seconds) };
        let least = sum.records_unknown.filter(|_| sum.records > 0);
        let note = least.map(|_| format!("at least {} records", sum.records)).unwrap_or_default();
        let none = String::new;
        rows.push([String::from("  total"), none(), none(), none(), records, seconds, note]);
    }
    let columns = ["topic", "partition", "committed", "end", "lag", "seconds", "note"];
    let shown = if rows.iter().any(|row| row.last().is_some_and(|note| !note.is_empty())) { 7 } else { 6 };
    let mut table = TextTable::new(columns.into_iter().take(shown));
    for row in rows {
        table.row(row.into_iter().take(shown));
    }
    table
}

#[derive(Serialize)]
pub(super) struct LagReport<'a> {
    /// The time of the measurement, RFC 3339.
    measured: String,
    groups: Vec<GroupJson<'a>>,
}

#[derive(Serialize)]
struct GroupJson<'a> {
    group: &'a str,
    /// The state as Kafka names it; null if Kafka does not list the group as a consumer group.
    state: Option<&'a str>,
    protocol: Option<&'a str>,
    /// Why the topics are unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    topics: Vec<TopicJson<'a>>,
}

#[derive(Serialize)]
struct TopicJson<'a> {
    topic: &'a str,
    /// Null if the lag of a partition is unknown; likewise `seconds`.
    records: Option<u64>,
    seconds: Option<f64>,
    partitions: Vec<Partition<'a>>,
}

#[derive(Serialize)]
struct Partition<'a> {
    partition: i32,
    committed: Option<i64>,
    end: Option<i64>,
    records: Option<u64>,
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

pub(super) fn json(lag: &Lag) -> LagReport<'_> {
    LagReport { measured: lag.measured.to_string(), groups: lag.groups.iter().map(json_group).collect() }
}

fn json_group(group: &GroupLag) -> GroupJson<'_> {
    let topics = sums(group).map(|sum| TopicJson {
        topic: sum.topic,
        records: sum.records_unknown.is_none().then_some(sum.records),
        seconds: sum.seconds_unknown.is_none().then_some(sum.seconds),
        partitions: sum.partitions.iter().map(json_partition).collect(),
    });
    GroupJson {
        group: &group.name,
        state: group.group.as_ref().map(|group| &*group.state),
        protocol: group.group.as_ref().map(|group| &*group.protocol),
        why: group.partitions.as_ref().err().map(ToString::to_string),
        topics: topics.collect(),
    }
}

fn json_partition(lag: &PartitionLag) -> Partition<'_> {
    let known = lag.behind.as_ref().ok();
    let why = match &lag.behind {
        Err(unknown) => Some(unknown.why()),
        Ok(behind) => behind.seconds.as_ref().err().map(|why| &**why),
    };
    Partition {
        partition: lag.partition,
        committed: lag.committed,
        end: lag.end,
        records: known.map(|behind| behind.records),
        seconds: known.and_then(|behind| behind.seconds.as_ref().ok().copied()),
        deleted: known.map(|behind| behind.deleted).filter(|deleted| *deleted > 0),
        why,
    }
}
