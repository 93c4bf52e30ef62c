//! Known outages of topics and partitions. They are tracked separately, so that one broker that is down, or one topic
//! that denies access, does not send everything to the spool. Shown in readiness and as a metric.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use jiff::{Timestamp, Unit};
use tokio::sync::watch;

use crate::kafka::{Ack, PublishError, Reach};
use crate::observe::health::{Health, PartState};
use crate::observe::metrics;

/// The number of topics, and of partitions of each, that readiness names; a metric covers all.
const SHOWN: usize = 8;

/// The outages of all topics. While there is none, which is the rule, a query costs one atomic load.
pub(super) struct Outages {
    /// The number of topics with an outage that keeps deliveries from Kafka.
    count: AtomicUsize,
    topics: RwLock<BTreeMap<String, Outage>>,
    health: Arc<Health>,
    /// Changes when a topic acknowledges again: it may have been recreated under the same name.
    recoveries: watch::Sender<()>,
}

/// The outages of one topic.
#[derive(Default)]
struct Outage {
    topic_cause: Option<OutageCause>,
    partitions: BTreeMap<i32, OutageCause>,
    /// Rows of the spool that the topic rejects by its configuration. They do not affect deliveries.
    rows: Option<(usize, OutageCause)>,
    /// Rows of the spool that are held because of the topic's configuration. They do not affect deliveries.
    held: Option<(u64, OutageCause)>,
}

struct OutageCause {
    why: String,
    since: Timestamp,
}

impl OutageCause {
    fn new(why: &str) -> Self {
        Self { why: why.to_owned(), since: Timestamp::now() }
    }
}

impl Outage {
    fn keeps_from_kafka(&self) -> bool {
        self.topic_cause.is_some() || !self.partitions.is_empty()
    }

    fn covers(&self, partition: Option<i32>) -> bool {
        // If the partition is unknown, one failing partition is enough.
        self.topic_cause.is_some()
            || partition
                .map_or(!self.partitions.is_empty(), |partition| self.partitions.contains_key(&partition))
    }

    fn is_over(&self) -> bool {
        !self.keeps_from_kafka() && self.rows.is_none() && self.held.is_none()
    }

    fn describe(&self) -> String {
        let mut texts = Vec::new();
        let mut add = |prefix: &str, OutageCause { why, since }: &OutageCause| {
            let since = since.round(Unit::Second).unwrap_or(*since);
            texts.push(format!("{prefix}{why}, since {since}"));
        };
        if let Some(cause) = &self.topic_cause {
            add("", cause);
        } else if let Some((_, cause)) = self.partitions.iter().min_by_key(|(_, cause)| cause.since) {
            let numbers: Vec<String> = self.partitions.keys().take(SHOWN).map(i32::to_string).collect();
            let word = if self.partitions.len() == 1 { "partition" } else { "partitions" };
            let more = if self.partitions.len() > SHOWN { " and more" } else { "" };
            add(&format!("{word} {}{more}: ", numbers.join(", ")), cause);
        }
        if let Some((rows, cause)) = &self.rows {
            let word = if *rows == 1 { "row" } else { "rows" };
            add(&format!("{rows} {word} of the spool: "), cause);
        }
        if let Some((rows, cause)) = &self.held {
            let word = if *rows == 1 { "row" } else { "rows" };
            add(&format!("{rows} {word} of the spool held: "), cause);
        }
        texts.join("; ")
    }
}

impl Outages {
    pub(super) fn new(health: Arc<Health>) -> Self {
        Self {
            count: AtomicUsize::new(0),
            topics: RwLock::default(),
            health,
            recoveries: watch::channel(()).0,
        }
    }

    /// Changes whenever a topic or partition acknowledges again.
    pub(super) fn recoveries(&self) -> watch::Receiver<()> {
        self.recoveries.subscribe()
    }

    /// Whether the topic's or this partition's last record was not acknowledged. `partition` is called only during an
    /// outage.
    pub(super) fn is_unavailable(&self, topic: &str, partition: impl FnOnce() -> Option<i32>) -> bool {
        self.count.load(Ordering::Relaxed) > 0
            && self
                .topics
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .get(topic)
                .is_some_and(|outage| outage.keeps_from_kafka() && outage.covers(partition()))
    }

    /// Whether the topic as such is failing.
    pub(super) fn is_topic_unavailable(&self, topic: &str) -> bool {
        self.count.load(Ordering::Relaxed) > 0
            && self
                .topics
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .get(topic)
                .is_some_and(|outage| outage.topic_cause.is_some())
    }

    /// Records a result. One failure is enough for an outage: the record is in the spool then, so the drain probes the
    /// partition at once, and one acknowledgement ends the outage. `place` returns the record's partition and the
    /// number of partitions; it is called only for a failure or during an outage.
    pub(super) fn record(
        &self,
        topic: &str,
        place: impl FnOnce() -> Option<(i32, i32)>,
        result: &Result<Ack, PublishError>,
    ) {
        match result {
            Ok(_) if self.count.load(Ordering::Relaxed) == 0 => {}
            Ok(ack) => self.record_healthy(topic, ack.partition, place().map(|(_, count)| count)),
            Err(PublishError::Unavailable { reach: Reach::Cluster, why }) => {
                self.health.kafka.set(PartState::Down, why.as_ref());
            }
            Err(PublishError::Unavailable { reach: Reach::Topic, why }) => {
                self.record_failing(topic, None, why)
            }
            // While no broker is reachable, a record without an answer says nothing about its partition, which would
            // stay failing for a while after all others have recovered.
            Err(PublishError::Unavailable { reach: Reach::Partition, .. })
                if self.health.kafka.state() == PartState::Down => {}
            Err(PublishError::Unavailable { reach: Reach::Partition, why }) => {
                self.record_failing(topic, place().map(|(partition, _)| partition), why);
            }
            Err(ambiguous @ PublishError::Ambiguous) => {
                let partition = place().map(|(partition, _)| partition);
                self.record_failing(topic, partition, &ambiguous.to_string());
            }
            // The leader has answered, and the error does not concern the topic's health.
            Err(PublishError::Limit(_)) if self.count.load(Ordering::Relaxed) > 0 => {
                let place = place();
                self.record_healthy(
                    topic,
                    place.map_or(-1, |(partition, _)| partition),
                    place.map(|(_, count)| count),
                );
            }
            // The error concerns the record or the service, not the topic.
            Err(
                PublishError::Unavailable { reach: Reach::Record, .. }
                | PublishError::Refused(_)
                | PublishError::Limit(_)
                | PublishError::QueueFull,
            ) => {}
        }
    }

    /// Forgets rejected and held rows, which a new drain finds out again.
    pub(super) fn forget_rows(&self) {
        let topics: Vec<String> = self.write().keys().cloned().collect();
        for topic in topics {
            self.set_rows(&topic, 0, "");
            self.set_held(&topic, 0, "");
        }
    }

    /// Sets the number of spool rows that the topic rejects until its configuration changes.
    pub(super) fn set_rows(&self, topic: &str, rows: usize, why: &str) {
        let mut topics = self.write();
        let outage = topics.entry(topic.to_owned()).or_default();
        outage.rows = match outage.rows.take() {
            _ if rows == 0 => None,
            Some((_, cause)) => Some((rows, cause)),
            None => {
                tracing::warn!(topic, why, "the topic rejects a spool row, which is retried");
                Some((rows, OutageCause::new(why)))
            }
        };
        self.publish(topics, topic);
    }

    /// Sets the number of held spool rows, and the reason.
    pub(super) fn set_held(&self, topic: &str, rows: u64, why: &str) {
        let mut topics = self.write();
        let outage = topics.entry(topic.to_owned()).or_default();
        outage.held = match outage.held.take() {
            _ if rows == 0 => None,
            Some((_, cause)) if cause.why == why => Some((rows, cause)),
            _ => {
                tracing::info!(topic, rows, why, "spool rows of the topic are held");
                Some((rows, OutageCause::new(why)))
            }
        };
        self.publish(topics, topic);
    }

    fn record_failing(&self, topic: &str, partition: Option<i32>, why: &str) {
        let mut topics = self.write();
        let outage = topics.entry(topic.to_owned()).or_default();
        match partition {
            Some(partition) if outage.partitions.contains_key(&partition) => return,
            Some(partition) => {
                tracing::warn!(topic, partition, why, "no acknowledgement: deliveries go to the spool");
                outage.partitions.insert(partition, OutageCause::new(why));
            }
            None if outage.topic_cause.is_some() => return,
            None => {
                tracing::warn!(topic, why, "no acknowledgement: deliveries go to the spool");
                outage.topic_cause = Some(OutageCause::new(why));
                // The topic's outage covers them. When it is over, the topic may have other partitions.
                outage.partitions.clear();
            }
        }
        self.publish(topics, topic);
    }

    fn record_healthy(&self, topic: &str, partition: i32, count: Option<i32>) {
        let mut topics = self.write();
        let Some(outage) = topics.get_mut(topic) else { return };
        let before = (outage.topic_cause.take().is_some(), outage.partitions.len());
        // A recreated topic may have fewer partitions.
        outage
            .partitions
            .retain(|failing, _| *failing != partition && count.is_none_or(|count| *failing < count));
        if before == (false, outage.partitions.len()) {
            return;
        }
        tracing::info!(topic, partition, "acknowledges again");
        self.publish(topics, topic);
        self.recoveries.send_replace(());
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Outage>> {
        self.topics.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a topic's changed state, still under the lock, so that no older state follows.
    fn publish(&self, mut topics: RwLockWriteGuard<'_, BTreeMap<String, Outage>>, changed: &str) {
        if let Some(outage) = topics.get(changed) {
            metrics::failing(metrics::Failing {
                topic: changed,
                whole: outage.topic_cause.is_some(),
                partitions: outage.partitions.len(),
                rows: outage.rows.as_ref().map_or(0, |(rows, _)| *rows),
                held: outage.held.as_ref().map_or(0, |(rows, _)| *rows),
            });
        }
        topics.retain(|_, outage| !outage.is_over());
        let out = topics.values().filter(|outage| outage.keeps_from_kafka()).count();
        self.count.store(out, Ordering::Relaxed);
        let mut texts: Vec<String> = topics
            .iter()
            .take(SHOWN)
            .map(|(topic, outage)| format!("{topic}: {}", outage.describe()))
            .collect();
        if topics.len() > SHOWN {
            texts.push(format!("and {} more topics", topics.len() - SHOWN));
        }
        let state = if topics.is_empty() { PartState::Ok } else { PartState::Degraded };
        self.health.publishing.put(state, texts.join("; "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK: Result<Ack, PublishError> = Ok(Ack { partition: 1, offset: 7 });

    fn outages() -> (Arc<Health>, Outages) {
        let health = Health::new();
        health.kafka.set(PartState::Ok, "");
        (health.clone(), Outages::new(health))
    }

    fn out(reach: Reach) -> Result<Ack, PublishError> {
        Err(PublishError::Unavailable { reach, why: "NotEnoughReplicas: too few".into() })
    }

    #[test]
    fn k15_one_partition_that_is_out_leaves_the_others_of_its_topic() {
        let (health, outages) = outages();
        outages.record("a", || Some((1, 6)), &out(Reach::Partition));
        assert!(outages.is_unavailable("a", || Some(1)) && !outages.is_unavailable("a", || Some(0)));
        assert!(!outages.is_unavailable("b", || Some(1)) && !outages.is_topic_unavailable("a"));
        assert!(outages.is_unavailable("a", || None), "the partition is not known");
        let report = serde_json::to_string(&health.publishing.report()).unwrap();
        assert!(report.contains("a: partition 1: NotEnoughReplicas: too few, since 20"), "{report}");
        outages.record("a", || None, &Ok(Ack { partition: 0, offset: 7 }));
        assert!(
            outages.is_unavailable("a", || Some(1)),
            "an acknowledgement of another partition does not matter"
        );
        outages.record("a", || None, &ACK);
        assert!(!outages.is_unavailable("a", || Some(1)));
        assert_eq!(health.publishing.state(), PartState::Ok);
    }

    #[test]
    fn a_record_that_waited_while_no_broker_answered_says_nothing_about_its_partition() {
        let (health, outages) = outages();
        health.kafka.set(PartState::Down, "no broker answers");
        outages.record("a", || Some((1, 6)), &out(Reach::Partition));
        assert!(!outages.is_unavailable("a", || Some(1)));
        health.kafka.set(PartState::Ok, "");
        outages.record("a", || Some((1, 6)), &out(Reach::Partition));
        assert!(outages.is_unavailable("a", || Some(1)));
    }

    #[test]
    fn a_partition_that_a_topic_does_not_have_any_more_is_not_out() {
        let (health, outages) = outages();
        outages.record("a", || Some((5, 6)), &out(Reach::Partition));
        outages.record("a", || Some((1, 6)), &ACK);
        assert_eq!(health.publishing.state(), PartState::Degraded);
        outages.record("a", || Some((1, 3)), &ACK);
        assert_eq!(health.publishing.state(), PartState::Ok);
    }

    #[test]
    fn k2a_a_denied_topic_is_out_as_a_whole_until_any_partition_acknowledges() {
        let (health, outages) = outages();
        let recoveries = outages.recoveries();
        outages.record("a", || panic!("the partition is not needed"), &out(Reach::Topic));
        assert!(outages.is_unavailable("a", || Some(5)) && outages.is_topic_unavailable("a"));
        assert_eq!(health.publishing.state(), PartState::Degraded);
        assert!(!recoveries.has_changed().unwrap());
        outages.record("a", || None, &ACK);
        assert!(!outages.is_unavailable("a", || Some(5)) && recoveries.has_changed().unwrap());
    }

    #[test]
    fn a_partition_that_is_not_known_counts_as_the_whole_topic() {
        let (_, outages) = outages();
        outages.record("a", || None, &out(Reach::Partition));
        assert!(outages.is_topic_unavailable("a"));
    }

    #[test]
    fn errors_of_the_record_or_the_service_do_not_affect_the_topic() {
        let (health, outages) = outages();
        for trouble in [
            PublishError::Limit("large".into()),
            PublishError::Refused("bad".into()),
            PublishError::QueueFull,
        ] {
            outages.record("a", || Some((0, 6)), &Err(trouble));
        }
        outages.record("a", || Some((0, 6)), &out(Reach::Record));
        assert!(!outages.is_unavailable("a", || Some(0)));
        assert_eq!(health.publishing.state(), PartState::Ok);
    }

    #[test]
    fn k2c_a_leader_that_finds_a_record_too_large_is_there() {
        let (health, outages) = outages();
        for place in [Some((2, 6)), None] {
            outages.record("a", || place, &out(Reach::Partition));
            assert_eq!(health.publishing.state(), PartState::Degraded);
            outages.record("a", || place, &Err(PublishError::Limit("large".into())));
            assert_eq!(health.publishing.state(), PartState::Ok);
        }
    }

    #[test]
    fn k2c_rows_that_a_topic_does_not_take_are_told_and_turn_no_delivery_away() {
        let (health, outages) = outages();
        outages.set_rows("a", 2, "MessageSizeTooLarge: larger");
        assert!(!outages.is_unavailable("a", || Some(0)));
        let report = serde_json::to_string(&health.publishing.report()).unwrap();
        assert!(
            report.contains("degraded") && report.contains("a: 2 rows of the spool: MessageSize"),
            "{report}"
        );
        outages.set_rows("a", 0, "");
        assert_eq!(health.publishing.state(), PartState::Ok);
    }

    #[test]
    fn readiness_names_a_bounded_number_of_topics() {
        let (health, outages) = outages();
        for n in 0..100 {
            outages.record(&format!("topic-{n:03}"), || Some((0, 6)), &out(Reach::Topic));
        }
        let report = serde_json::to_string(&health.publishing.report()).unwrap();
        assert!(report.contains("topic-007") && !report.contains("topic-008"), "{report}");
        assert!(report.contains("and 92 more topics"), "{report}");
    }
}
