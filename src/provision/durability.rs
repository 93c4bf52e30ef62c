//! Reads from the cluster how many copies an acknowledged record is guaranteed to have, and which topics remove
//! records that must last. Topics may have been created by others and changed since.
//!
//! acks=all waits for the replicas in sync, and `min.insync.replicas` sets how few these may be. So a record
//! has at least that many copies, but no more than the topic has replicas: Kafka accepts
//! `min.insync.replicas=2` for a topic with one replica. From Kafka 4 on it acknowledges the only copy; earlier brokers
//! then accept no record at all, and librdkafka retries in silence until the delivery's time is over.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::retention;
use crate::config::SpoolConfig;
use crate::kafka::{Admin, ClusterError, Copies};
use crate::observe::error_chain::ErrorChain;
use crate::observe::health::{Health, PartState};
use crate::observe::metrics;
use crate::sources::Sources;

/// With fewer copies, one lost disk may lose a record that was answered 200.
const MIN_COPIES: usize = 2;

/// The interval between two checks. A topic may be deleted and recreated, by an operator or with the brokers'
/// settings, while nothing is published to it.
const RECHECK: Duration = Duration::from_secs(60);

/// The growing intervals while some topic is unknown; the last one repeats.
const RETRY: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(60)];

/// What is known of the Kafka of `hookstream dev`, which does not describe the configuration of topics.
pub const IN_MEMORY: &str = "the in-memory Kafka keeps records until it ends";

/// Reports the durability of the topics to `health`. Low durability is no reason to refuse deliveries.
pub struct DurabilityMonitor {
    pub admin: Admin,
    /// The sources whose topics are checked.
    pub sources: Arc<ArcSwap<Sources>>,
    /// How much the topics must keep.
    pub spool: SpoolConfig,
    /// Receives the durability.
    pub health: Arc<Health>,
    /// Changes after each reload, which may add topics.
    pub reloads: watch::Receiver<()>,
    /// Changes when a topic acknowledges again: it may be a new topic of the same name.
    pub recoveries: watch::Receiver<()>,
}

impl DurabilityMonitor {
    /// Checks once the topics exist, and repeatedly as long as the service runs. Does not return; dropping
    /// the future stops it.
    pub async fn run(mut self) {
        let topics = |health: &Health| health.topics.state();
        let (mut read_before, mut retries) = (false, RETRY.iter());
        loop {
            // While no broker answers, another request would only time out.
            let reachable = |health: &Health| health.kafka.state().max(topics(health)) != PartState::Down;
            self.health.wait(reachable).await;
            let complete = topics(&self.health) == PartState::Ok;
            let known = match self.read().await {
                Ok(known) => {
                    read_before = true;
                    known
                }
                Err(error) => {
                    let why = ErrorChain(&error).to_string();
                    tracing::debug!(why, "the durability of the topics is unknown");
                    // An earlier result is still the best knowledge.
                    if !read_before {
                        self.health.durability.put(PartState::Unknown, why);
                    }
                    false
                }
            };
            if known {
                retries = RETRY.iter();
            }
            let pause = if known { RECHECK } else { retries.next().copied().unwrap_or(RECHECK) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.health.wait(|health| topics(health) == PartState::Ok), if !complete => {}
                Ok(()) = self.reloads.changed() => {}
                Ok(()) = self.recoveries.changed() => {}
            }
        }
    }

    /// True if the durability of every topic is known.
    async fn read(&self) -> Result<bool, ClusterError> {
        if self.admin.is_in_memory().await? {
            self.health.durability.set(PartState::Unknown, IN_MEMORY);
            return Ok(true);
        }
        let sources = self.sources.load_full();
        let topics = sources.topics();
        let names: Vec<String> = topics.iter().cloned().chain(retention::lasting(&sources)).collect();
        let descriptions = self.admin.topic_descriptions(&names).await?;
        for (topic, description) in &descriptions {
            retention::kept_for(description)
                .into_iter()
                .for_each(|retention| metrics::retention(topic, retention));
        }
        let copies = topics.into_iter().map(|topic| {
            let copies = descriptions.get(&topic).map(|description| description.copies);
            (topic, copies)
        });
        let copies: BTreeMap<String, Option<Copies>> = copies.collect();
        let known =
            copies.values().all(|copies| copies.is_some_and(|copies| copies.guaranteed_copies().is_some()));
        let (mut state, why) = judge(&copies);
        let mut reasons: Vec<String> = Some(why).filter(|why| !why.is_empty()).into_iter().collect();
        for (_, why) in retention::ending(&sources, &descriptions, &self.spool) {
            state = state.max(PartState::Degraded);
            reasons.push(why);
        }
        self.health.durability.set(state, reasons.join("; "));
        Ok(known)
    }
}

/// Judges the guaranteed copies; topics with the same reason are listed together. `None` means that the topic
/// is missing. An unknown topic is never Ok, and neither is an empty list.
pub fn judge(copies: &BTreeMap<String, Option<Copies>>) -> (PartState, String) {
    let mut few = BTreeMap::<(usize, Copies), Vec<&str>>::new();
    let (mut unknown, mut missing) = (Vec::new(), Vec::new());
    for (topic, copies) in copies {
        match copies.map(|copies| (copies.guaranteed_copies(), copies)) {
            Some((Some(guaranteed), copies)) if guaranteed < MIN_COPIES || copies.is_short() => {
                few.entry((guaranteed, copies)).or_default().push(topic)
            }
            Some((Some(_), _)) => {}
            Some((None, _)) => unknown.push(topic.as_str()),
            None => missing.push(topic.as_str()),
        }
    }
    let mut why = Vec::new();
    for ((guaranteed, copies), topics) in &few {
        let Copies { replication, min_insync } = copies;
        let mut settings = format!("replication {replication}");
        if let Some(min) = min_insync {
            let _ = write!(settings, ", min.insync.replicas {min}");
        }
        if copies.is_short() {
            settings.push_str(": brokers before Kafka 4 accept no record");
        }
        let copies = if *guaranteed == 1 { "copy" } else { "copies" };
        why.push(format!("only {guaranteed} {copies} guaranteed ({settings}): {}", topics.join(", ")));
    }
    if !unknown.is_empty() {
        why.push(format!("unknown, cannot read min.insync.replicas: {}", unknown.join(", ")));
    }
    if !missing.is_empty() {
        why.push(format!("unknown, missing or not visible: {}", missing.join(", ")));
    }
    let state = match (few.is_empty(), why.is_empty() && !copies.is_empty()) {
        (false, _) => PartState::Degraded,
        (true, true) => PartState::Ok,
        (true, false) => PartState::Unknown,
    };
    (state, why.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_as_durable_as_the_fewest_copies_that_kafka_acknowledges() {
        // Replication, min.insync.replicas, and the guaranteed copies.
        let cases = [
            (1, Some(1), Some(1)),
            (1, Some(2), Some(1)),
            (3, Some(1), Some(1)),
            (3, Some(2), Some(2)),
            (3, Some(0), Some(1)),
            (2, Some(2), Some(2)),
            (2, Some(3), Some(2)),
            (3, None, None),
            (1, None, Some(1)),
        ];
        for (replication, min_insync, guaranteed) in cases {
            let copies = Copies { replication, min_insync };
            assert_eq!(copies.guaranteed_copies(), guaranteed, "{copies:?}");
            let (state, why) = judge(&BTreeMap::from([(String::from("a.b"), Some(copies))]));
            let expected = match guaranteed {
                _ if copies.is_short() => PartState::Degraded,
                Some(0 | 1) => PartState::Degraded,
                Some(_) => PartState::Ok,
                None => PartState::Unknown,
            };
            assert_eq!(state, expected, "{copies:?}");
            assert_eq!(why.is_empty(), expected == PartState::Ok, "{copies:?}: {why}");
        }
    }

    #[test]
    fn topics_are_listed_with_the_reason() {
        let copies = [
            ("a.healthy", 3, Some(2)),
            ("b.one", 1, Some(2)),
            ("c.one", 1, Some(2)),
            ("d.loose", 3, Some(1)),
            ("e.hidden", 3, None),
        ];
        let copies = copies.map(|(name, replication, min)| {
            (String::from(name), Some(Copies { replication, min_insync: min }))
        });
        let (state, why) = judge(&BTreeMap::from(copies));
        assert_eq!(state, PartState::Degraded);
        assert_eq!(
            why,
            "only 1 copy guaranteed (replication 1, min.insync.replicas 2: brokers before Kafka 4 accept no record): \
            b.one, c.one; \
            only 1 copy guaranteed (replication 3, min.insync.replicas 1): d.loose; \
            unknown, cannot read min.insync.replicas: e.hidden"
        );
    }

    #[test]
    fn k10_fewer_replicas_than_min_insync_replicas_are_reported_as_such() {
        for (replication, min) in [(1, 2), (2, 3)] {
            let copies = Some(Copies { replication, min_insync: Some(min) });
            let (state, why) = judge(&BTreeMap::from([(String::from("a.b"), copies)]));
            assert_eq!(state, PartState::Degraded, "{why}");
            assert!(why.contains("brokers before Kafka 4 accept no record"), "{why}");
        }
    }

    #[test]
    fn k8b_what_is_not_known_is_never_ok() {
        let healthy = Some(Copies { replication: 3, min_insync: Some(2) });
        let (state, why) =
            judge(&BTreeMap::from([(String::from("a.healthy"), healthy), (String::from("b.gone"), None)]));
        assert_eq!((state, &*why), (PartState::Unknown, "unknown, missing or not visible: b.gone"));
        assert_eq!(judge(&BTreeMap::new()).0, PartState::Unknown, "an empty list");
        let one = Some(Copies { replication: 1, min_insync: Some(1) });
        let (state, _) =
            judge(&BTreeMap::from([(String::from("a.one"), one), (String::from("b.gone"), None)]));
        assert_eq!(state, PartState::Degraded, "a known defect outranks an unknown topic");
    }
}
