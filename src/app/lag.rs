//! Measures the lag of consumer groups in the background, for `/metrics`.
//!
//! A gauge that keeps an old value is wrong, so each measurement replaces all series: there are none while nothing can
//! be measured, and none of a group, topic or partition that no longer exists.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::config;
use crate::kafka::ClusterConfig;
use crate::kafka::lag::{GroupLagError, Lag, LagUnknown, Meter};
use crate::observe::error_chain::ErrorChain;
use crate::observe::metrics;
use crate::observe::metrics::lag::{GroupPartition, LagSeries, LagSnapshot};
use crate::sources::Sources;

/// The number of groups with metrics. The first groups keep theirs while they exist.
const MAX_GROUPS: usize = 100;

/// The timeout of a measurement.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Measures the groups of `[lag]`.
pub(super) struct LagExporter {
    meter: Meter,
    config: config::LagConfig,
    sources: Arc<ArcSwap<Sources>>,
    groups: ExportedGroups,
    series: LagSeries,
}

impl LagExporter {
    /// Measures into `series`. `None` if no groups are configured.
    ///
    /// # Errors
    /// If librdkafka refuses a property.
    pub(super) fn new(
        config: &config::LagConfig,
        connection: &ClusterConfig,
        sources: Arc<ArcSwap<Sources>>,
        series: LagSeries,
    ) -> anyhow::Result<Option<Self>> {
        if config.groups.is_empty() {
            return Ok(None);
        }
        let (meter, config) = (Meter::new(connection)?, config.clone());
        Ok(Some(Self { meter, config, sources, groups: ExportedGroups::default(), series }))
    }

    /// Measures until it is dropped.
    pub(super) async fn run(mut self) {
        let (errors, measured) = metrics::lag_meters();
        let mut trouble = None;
        let mut ticks = interval(self.config.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let topics = self.sources.load().topics();
            let measuring = self.meter.measure(&topics, &self.config.groups);
            let lag = match timeout(TIMEOUT, measuring).await {
                Ok(lag) => lag.map_err(|error| ErrorChain(&error).to_string()),
                Err(_) => Err(format!("it took longer than {TIMEOUT:?}")),
            };
            let why = match lag {
                Ok(lag) => {
                    self.series.publish(&self.groups.snapshot(&lag));
                    measured.set(lag.measured.as_millisecond() as f64 / 1000.0);
                    flaw(&lag)
                }
                Err(why) => {
                    self.series.clear();
                    Some(why)
                }
            };
            if why.is_some() {
                errors.increment(1);
            }
            match (&why, &trouble) {
                (Some(why), None) => tracing::warn!("lag cannot be measured, hookstream keeps trying: {why}"),
                (None, Some(_)) => tracing::info!("lag is measured again"),
                _ => {}
            }
            trouble = why;
        }
    }
}

impl Drop for LagExporter {
    /// A task that panicked would otherwise leave its last values.
    fn drop(&mut self) {
        self.series.clear();
    }
}

/// Why a part of the lag is unknown, if Kafka should have returned it.
fn flaw(lag: &Lag) -> Option<String> {
    lag.groups.iter().find_map(|group| {
        let name = &group.name;
        match &group.partitions {
            Err(why @ GroupLagError::Unreadable(_)) => Some(format!("group {name}: {why}")),
            Err(_) => None,
            Ok(partitions) => partitions.iter().find_map(|lag| {
                let why = match &lag.behind {
                    Err(why @ LagUnknown::NoEnd) => why.why(),
                    Err(_) => return None,
                    Ok(behind) => behind.seconds.as_ref().err()?,
                };
                Some(format!("group {name}, {} [{}]: {why}", lag.topic, lag.partition))
            }),
        }
    })
}

/// The groups with metrics.
#[derive(Default)]
struct ExportedGroups {
    groups: BTreeSet<String>,
    full: bool,
}

impl ExportedGroups {
    /// The series of a measurement.
    fn snapshot(&mut self, lag: &Lag) -> LagSnapshot {
        self.groups.retain(|name| lag.groups.iter().any(|group| group.name == *name));
        let snapshot = LagSnapshot::empty();
        for group in &lag.groups {
            let Ok(partitions) = &group.partitions else { continue };
            if !self.has_place(&group.name) {
                continue;
            }
            for lag in partitions {
                let place =
                    GroupPartition { group: &group.name, topic: &lag.topic, partition: lag.partition };
                match &lag.behind {
                    Ok(behind) => {
                        snapshot.lag(place, behind.records, behind.seconds.as_ref().ok().copied());
                    }
                    Err(unknown) => snapshot.unknown(place, unknown.label()),
                }
            }
        }
        for ((topic, partition), end) in &lag.ends {
            snapshot.log_end(topic, *partition, *end);
        }
        snapshot
    }

    fn has_place(&mut self, group: &str) -> bool {
        if self.groups.contains(group) {
            return true;
        }
        if self.groups.len() >= MAX_GROUPS {
            if !std::mem::replace(&mut self.full, true) {
                tracing::warn!("[lag] groups: only the first {MAX_GROUPS} groups are shown; match fewer");
            }
            return false;
        }
        self.groups.insert(group.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::config::Properties;
    use crate::kafka::lag::{Behind, GroupLag, LagUnknown, PartitionLag};
    use crate::observe::health::Health;
    use crate::observe::metrics::scrape::{self, Now};

    fn lag(groups: Vec<GroupLag>) -> Lag {
        Lag { measured: Timestamp::UNIX_EPOCH, groups, topics: 1, ends: Default::default() }
    }

    fn group(name: &str, behind: Vec<Result<Behind, LagUnknown>>) -> GroupLag {
        let partition = |(partition, behind)| PartitionLag {
            topic: "a.b".into(),
            partition,
            committed: None,
            end: None,
            behind,
        };
        let partitions = Ok((0..).zip(behind).map(partition).collect());
        GroupLag { name: name.into(), group: None, partitions }
    }

    fn known(records: u64, seconds: Option<f64>) -> Result<Behind, LagUnknown> {
        let seconds = seconds.ok_or_else(|| String::from("the record was not read"));
        Ok(Behind { records, deleted: 0, seconds })
    }

    /// The lines of a scrape that concern the lag, without comments.
    fn scraped(series: &LagSeries) -> Vec<String> {
        let readiness = Health::new().readiness();
        let text = scrape::render(&Now {
            in_flight: 0,
            kafka_up: true,
            readiness: &readiness,
            expiring: Vec::new(),
            lag: series,
        });
        let lines = text.lines().filter(|line| line.contains("consumergroup="));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_partition_whose_lag_is_unknown_has_its_own_metric_and_no_series_that_people_sum() {
        let (mut groups, series) = (ExportedGroups::default(), LagSeries::default());
        let uncommitted = || Err(LagUnknown::NothingCommitted);
        let behind = vec![known(3, Some(1.5)), uncommitted(), known(4, None), uncommitted()];
        series.publish(&groups.snapshot(&lag(vec![group("billing", behind)])));
        let labels =
            |partition: i32| format!("consumergroup=\"billing\",topic=\"a.b\",partition=\"{partition}\"");
        let expected = [
            format!("hookstream_lag_unknown{{{},cause=\"uncommitted\"}} 1", labels(1)),
            format!("hookstream_lag_unknown{{{},cause=\"uncommitted\"}} 1", labels(3)),
            format!("kafka_consumergroup_lag_seconds{{{}}} 1.5", labels(0)),
            format!("kafka_consumergroup_lag{{{}}} 3", labels(0)),
            format!("kafka_consumergroup_lag{{{}}} 4", labels(2)),
        ];
        assert_eq!(scraped(&series), expected);

        // What is no longer there leaves nothing behind.
        series.publish(&groups.snapshot(&lag(vec![group("billing", vec![known(0, Some(0.0))])])));
        assert_eq!(scraped(&series).len(), 2);
        series.clear();
        assert_eq!(scraped(&series), [""; 0]);
    }

    #[tokio::test]
    async fn an_exporter_that_ends_leaves_no_series_behind() {
        let (cluster, series) =
            (ClusterConfig::new("127.0.0.1:1", Properties::default()), LagSeries::default());
        let config = config::LagConfig { groups: vec!["billing".into()], interval: Duration::from_secs(30) };
        let exporter = LagExporter::new(&config, &cluster, Arc::default(), series.clone()).unwrap();
        series
            .publish(&ExportedGroups::default().snapshot(&lag(vec![group("billing", vec![known(3, None)])])));
        assert_eq!(scraped(&series).len(), 1);
        drop(exporter);
        assert_eq!(scraped(&series), [""; 0]);
    }

    #[test]
    fn the_first_groups_keep_their_places_while_they_exist() {
        let mut groups = ExportedGroups::default();
        let named =
            |from: usize| lag((from..=MAX_GROUPS).map(|n| group(&format!("{n:03}"), vec![])).collect());
        groups.snapshot(&named(1));
        assert!(groups.groups.len() == MAX_GROUPS && !groups.full);
        groups.snapshot(&named(0));
        assert!(!groups.groups.contains("000") && groups.groups.contains("100") && groups.full);
        groups.snapshot(&lag(vec![group("000", vec![])]));
        assert_eq!(groups.groups, ["000".to_owned()].into());
    }
}
