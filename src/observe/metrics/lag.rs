//! The metrics of consumer lag. Each measurement replaces the series of the previous one.
//!
//! Decision: what is unknown has no series. In PromQL a sum over a NaN is NaN, so that one partition without a commit
//! would hide the lag of its whole group; [`LagSnapshot::unknown`] counts it under a name of its own.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use metrics_exporter_prometheus::PrometheusHandle;

use super::snapshot::Snapshot;
use super::{LAG, LAG_SECONDS, LAG_UNKNOWN, LOG_END};

/// The series of the last measurement; none before the first one and after a failed one.
#[derive(Clone, Default)]
pub struct LagSeries(Arc<ArcSwapOption<PrometheusHandle>>);

impl LagSeries {
    /// Replaces all series.
    pub fn publish(&self, snapshot: &LagSnapshot) {
        self.0.store(Some(Arc::new(snapshot.0.handle())));
    }

    /// Removes all series.
    pub fn clear(&self) {
        self.0.store(None);
    }

    pub(super) fn render(&self) -> String {
        self.0.load().as_ref().map(|handle| handle.render()).unwrap_or_default()
    }
}

/// A partition that a consumer group reads.
#[derive(Clone, Copy, Debug)]
pub struct GroupPartition<'a> {
    /// The group. The caller bounds the number of groups.
    pub group: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
}

impl GroupPartition<'_> {
    fn labels(self) -> [(&'static str, String); 3] {
        [
            ("consumergroup", self.group.to_owned()),
            ("topic", self.topic.to_owned()),
            ("partition", self.partition.to_string()),
        ]
    }
}

/// The series of one measurement.
pub struct LagSnapshot(Snapshot);

impl LagSnapshot {
    /// No series.
    pub fn empty() -> Self {
        Self(Snapshot::empty())
    }

    /// A lag in records and in seconds; `None` if the seconds are unknown.
    pub fn lag(&self, place: GroupPartition<'_>, records: u64, seconds: Option<f64>) {
        let labels = place.labels();
        self.0.record(|| {
            ::metrics::gauge!(LAG, &labels).set(records as f64);
            if let Some(seconds) = seconds {
                ::metrics::gauge!(LAG_SECONDS, &labels).set(seconds);
            }
        });
    }

    /// A lag that is unknown, and the label of the cause.
    pub fn unknown(&self, place: GroupPartition<'_>, cause: &'static str) {
        let [group, topic, partition] = place.labels();
        let labels = [group, topic, partition, ("cause", cause.to_owned())];
        self.0.record(|| ::metrics::gauge!(LAG_UNKNOWN, &labels).set(1.0));
    }

    /// A partition's log end.
    pub fn log_end(&self, topic: &str, partition: i32, end: i64) {
        let labels = [("topic", topic.to_owned()), ("partition", partition.to_string())];
        self.0.record(|| ::metrics::gauge!(LOG_END, &labels).set(end as f64));
    }
}
