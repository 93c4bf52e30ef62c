//! How many copies an acknowledged record is sure to have, as the cluster says itself, and what ends those that
//! must last: topics may have been made by others, and changed since.
//!
//! acks=all waits for the replicas that are in sync, and `min.insync.replicas` says how few these
//! may be. So a record is sure to have that many copies, and no more than there are replicas: Kafka
//! takes `min.insync.replicas=2` for a topic of one replica, and acknowledges its only copy.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::retention;
use crate::kafka::{Admin, Copies};
use crate::observe::health::{Health, PartState};
use crate::observe::metrics;
use crate::sources::Sources;

/// Fewer, and one lost disk may lose a record that was answered 200.
const ENOUGH: usize = 2;

/// Between two looks: a topic may be deleted and made again, by an operator or with the brokers' settings,
/// while nothing is published to it.
const RECHECK: Duration = Duration::from_secs(60);

/// The same while something is not known, longer with each look up to the last.
const RETRY: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(60)];

/// Tells `health` how durable the topics are. Bad news is no reason to take no deliveries.
pub struct DurabilityMonitor {
    /// The cluster.
    pub admin: Admin,
    /// Whose topics they are.
    pub sources: Arc<ArcSwap<Sources>>,
    /// Who is told.
    pub health: Arc<Health>,
    /// Changes with each swap by a reload: there may be new topics.
    pub reloads: watch::Receiver<()>,
    /// Changes when a topic acknowledges again: it may be another one of the same name.
    pub recoveries: watch::Receiver<()>,
}

impl DurabilityMonitor {
    /// Looks once the topics are there, and again as long as the service runs. Does not end;
    /// dropping it stops it.
    pub async fn run(mut self) {
        let topics = |health: &Health| health.topics.state();
        let (mut told, mut retries) = (false, RETRY.iter());
        loop {
            // While no broker answers, nobody need wait for that once more.
            let there = |health: &Health| health.kafka.state().max(topics(health)) != PartState::Down;
            self.health.wait(there).await;
            let complete = topics(&self.health) == PartState::Ok;
            let known = match self.read().await {
                Ok(known) => {
                    told = true;
                    known
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    tracing::debug!(why, "how durable the topics are is unknown");
                    // What was found before still holds, for all we know.
                    if !told {
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

    /// True when it is known of every topic.
    async fn read(&self) -> anyhow::Result<bool> {
        let sources = self.sources.load_full();
        let topics = sources.topics();
        let asked: Vec<String> = topics.iter().cloned().chain(retention::lasting(&sources)).collect();
        let shapes = self.admin.topic_descriptions(&asked).await?;
        for (topic, shape) in &shapes {
            retention::kept_for(shape).into_iter().for_each(|kept| metrics::retention(topic, kept));
        }
        let copies = topics.into_iter().map(|topic| {
            let found = shapes.get(&topic).map(|shape| shape.copies);
            (topic, found)
        });
        let copies: BTreeMap<String, Option<Copies>> = copies.collect();
        let known =
            copies.values().all(|copies| copies.is_some_and(|copies| copies.guaranteed_copies().is_some()));
        let (mut state, why) = judge(&copies);
        let mut whys: Vec<String> = Some(why).filter(|why| !why.is_empty()).into_iter().collect();
        for (_, why) in retention::ending(&sources, &shapes) {
            state = state.max(PartState::Degraded);
            whys.push(why);
        }
        self.health.durability.set(state, whys.join("; "));
        Ok(known)
    }
}

/// The topics with too few copies, those that have the same reason together. A topic without any is not
/// there. What is not known is never ok, and so is nothing of no topic.
pub fn judge(copies: &BTreeMap<String, Option<Copies>>) -> (PartState, String) {
    let mut few = BTreeMap::<(usize, Copies), Vec<&str>>::new();
    let (mut unknown, mut missing) = (Vec::new(), Vec::new());
    for (topic, copies) in copies {
        match copies.map(|copies| (copies.guaranteed_copies(), copies)) {
            Some((Some(sure), copies)) if sure < ENOUGH => few.entry((sure, copies)).or_default().push(topic),
            Some((Some(_), _)) => {}
            Some((None, _)) => unknown.push(topic.as_str()),
            None => missing.push(topic.as_str()),
        }
    }
    let mut why = Vec::new();
    for ((sure, Copies { replication, min_insync }), topics) in &few {
        let mut rules = format!("replication {replication}");
        if let Some(min) = min_insync {
            let _ = write!(rules, ", min.insync.replicas {min}");
        }
        let copies = if *sure == 1 { "copy" } else { "copies" };
        why.push(format!("sure of {sure} {copies} only ({rules}): {}", topics.join(", ")));
    }
    if !unknown.is_empty() {
        why.push(format!("unknown, min.insync.replicas cannot be read: {}", unknown.join(", ")));
    }
    if !missing.is_empty() {
        why.push(format!("unknown, not there or not to be seen: {}", missing.join(", ")));
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
        // Replication, min.insync.replicas, and what is sure.
        let cases = [
            (1, Some(1), Some(1)),
            (1, Some(2), Some(1)),
            (3, Some(1), Some(1)),
            (3, Some(2), Some(2)),
            (3, Some(0), Some(1)),
            (2, Some(2), Some(2)),
            (3, None, None),
            (1, None, Some(1)),
        ];
        for (replication, min_insync, sure) in cases {
            let copies = Copies { replication, min_insync };
            assert_eq!(copies.guaranteed_copies(), sure, "{copies:?}");
            let (state, why) = judge(&BTreeMap::from([(String::from("a.b"), Some(copies))]));
            let expected = match sure {
                Some(0 | 1) => PartState::Degraded,
                Some(_) => PartState::Ok,
                None => PartState::Unknown,
            };
            assert_eq!(state, expected, "{copies:?}");
            assert_eq!(why.is_empty(), sure == Some(2), "{copies:?}: {why}");
        }
    }

    #[test]
    fn it_is_said_of_which_topics_and_why() {
        let copies = [
            ("a.well", 3, Some(2)),
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
            "sure of 1 copy only (replication 1, min.insync.replicas 2): b.one, c.one; \
             sure of 1 copy only (replication 3, min.insync.replicas 1): d.loose; \
             unknown, min.insync.replicas cannot be read: e.hidden"
        );
    }

    #[test]
    fn k8b_what_is_not_known_is_never_ok() {
        let well = Some(Copies { replication: 3, min_insync: Some(2) });
        let (state, why) =
            judge(&BTreeMap::from([(String::from("a.well"), well), (String::from("b.gone"), None)]));
        assert_eq!((state, &*why), (PartState::Unknown, "unknown, not there or not to be seen: b.gone"));
        assert_eq!(judge(&BTreeMap::new()).0, PartState::Unknown, "all of no topic");
        let one = Some(Copies { replication: 1, min_insync: Some(1) });
        let (state, _) =
            judge(&BTreeMap::from([(String::from("a.one"), one), (String::from("b.gone"), None)]));
        assert_eq!(state, PartState::Degraded, "what is known to be bad is told first");
    }
}
