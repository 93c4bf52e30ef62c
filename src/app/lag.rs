//! Measures the lag of consumer groups in the background, for `/metrics`.
//!
//! A gauge that keeps an old value is wrong. All gauges are NaN while nothing can be measured, and those of a group,
//! topic or partition that no longer exists are NaN too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::config;
use crate::kafka::ClusterConfig;
use crate::kafka::lag::{GroupLagError, Lag, LagUnknown, Meter};
use crate::observe::metrics;
use crate::sources::Sources;

/// The number of groups with metrics. The metrics of a group that no longer exists stay, as NaN, until a restart; so
/// the first groups keep theirs until then.
const MAX_GROUPS: usize = 100;

/// The timeout of a measurement.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Measures the groups of `[lag]`.
pub(super) struct LagExporter {
    meter: Meter,
    config: config::LagConfig,
    sources: Arc<ArcSwap<Sources>>,
    gauges: Gauges,
}

impl LagExporter {
    /// `None` if no groups are configured.
    ///
    /// # Errors
    /// If librdkafka refuses a property.
    pub(super) fn new(
        config: &config::LagConfig,
        connection: &ClusterConfig,
        sources: Arc<ArcSwap<Sources>>,
    ) -> anyhow::Result<Option<Self>> {
        if config.groups.is_empty() {
            return Ok(None);
        }
        let (meter, config) = (Meter::new(connection)?, config.clone());
        Ok(Some(Self { meter, config, sources, gauges: Gauges::default() }))
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
            let lag = timeout(TIMEOUT, measuring).await;
            let lag = lag.unwrap_or_else(|_| Err(anyhow::anyhow!("it took longer than {TIMEOUT:?}")));
            let why = match lag {
                Ok(lag) => {
                    self.gauges.show(&lag);
                    measured.set(lag.measured.as_millisecond() as f64 / 1000.0);
                    flaw(&lag)
                }
                Err(error) => {
                    self.gauges.forget();
                    Some(format!("{error:#}"))
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

/// All gauges that were ever set.
#[derive(Default)]
struct Gauges {
    groups: BTreeSet<String>,
    full: bool,
    lags: BTreeMap<(String, String, i32), [::metrics::Gauge; 2]>,
    ends: BTreeMap<(String, i32), ::metrics::Gauge>,
}

impl Gauges {
    fn show(&mut self, lag: &Lag) {
        let mut lags = BTreeMap::new();
        for group in &lag.groups {
            let Ok(partitions) = &group.partitions else { continue };
            if !self.has_place(&group.name) {
                continue;
            }
            for lag in partitions {
                let known = lag.behind.as_ref().ok();
                let records = known.map_or(f64::NAN, |behind| behind.records as f64);
                let seconds = known.and_then(|behind| behind.seconds.as_ref().ok().copied());
                let key = (group.name.clone(), lag.topic.clone(), lag.partition);
                lags.insert(key, [records, seconds.unwrap_or(f64::NAN)]);
            }
        }
        for (key, gauges) in &self.lags {
            if !lags.contains_key(key) {
                gauges.iter().for_each(|gauge| gauge.set(f64::NAN));
            }
        }
        for (key, values) in lags {
            let (group, topic, partition) = &key;
            let made = || metrics::lag(group, topic, *partition);
            let gauges = self.lags.entry(key.clone()).or_insert_with(made);
            gauges.iter().zip(values).for_each(|(gauge, value)| gauge.set(value));
        }
        for (place, gauge) in &self.ends {
            if !lag.ends.contains_key(place) {
                gauge.set(f64::NAN);
            }
        }
        for (place, end) in &lag.ends {
            let made = || metrics::log_end(&place.0, place.1);
            self.ends.entry(place.clone()).or_insert_with(made).set(*end as f64);
        }
    }

    /// Sets all gauges to unknown.
    fn forget(&self) {
        self.lags.values().flatten().chain(self.ends.values()).for_each(|gauge| gauge.set(f64::NAN));
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
    use super::*;

    #[test]
    fn the_groups_that_came_first_keep_their_places() {
        let mut gauges = Gauges::default();
        assert!((0..MAX_GROUPS).all(|n| gauges.has_place(&format!("group-{n}"))));
        assert!(!gauges.has_place("one-more") && gauges.full);
        assert!(gauges.has_place("group-0"));
        assert_eq!(gauges.groups.len(), MAX_GROUPS);
    }
}
