//! Topics and subjects: what should be there, what is, and the difference, which `serve` creates and
//! `provision` also alters; and how durable the topics are.

mod durability;
mod grants;
mod plan;
mod planner;
mod compaction;
mod retention;
mod subjects;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::config::{Config, LoadedConfig};
use crate::kafka::{Admin, NewTopic, Producer};
use crate::names;
use crate::observe::health::{Health, PartState};
use crate::sources::{Route, Sources};

pub use compaction::{Watched, check_compaction, fix_command, non_compacted_topics};
pub use durability::{DurabilityMonitor, judge};
pub use grants::grants;
pub use plan::{
    Allowed, Item, ItemKind, PlanAction, PlanStep, ProvisionPlan, SettingChange, Unchanged, takes_less,
};
pub use planner::{Done, Planner};
pub use retention::{ending, lasting, mend};
pub use subjects::{RECHECK, Reloaded, SchemaRegistrar};

/// Between two rounds while something is missing.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

/// Whose clock stamps a topic's records.
const TIMESTAMP_TYPE: &str = "message.timestamp.type";

/// The bound of warming up one topic's metadata.
const WARM_UP: Duration = Duration::from_secs(5);

/// What is larger in a record than the body that it comes from: headers, the envelope's fields,
/// and the pointers of unknown members, which grow inside arrays.
pub fn max_record(max_body: usize) -> usize {
    2 * max_body + 128 * 1024
}

/// Brings topics to what the configuration wishes. Runs at start and after each reload until nothing
/// is missing; never alters what exists.
pub struct Provisioner {
    /// The configuration; of its sources, those of `sources` count.
    pub loaded: Arc<LoadedConfig>,
    /// The cluster.
    pub admin: Admin,
    /// Whose metadata is warmed up.
    pub producer: Arc<Producer>,
    /// Whose topics they are.
    pub sources: Arc<ArcSwap<Sources>>,
    /// Who is told how far we are.
    pub health: Arc<Health>,
    /// Changes with each swap by a reload.
    pub reloads: watch::Receiver<()>,
    /// Notified where rows of the spool wait for the policy of their topic.
    pub asked: Arc<Notify>,
}

impl Provisioner {
    /// Tries until all is there, with growing pauses, and anew after each reload; where a topic must not
    /// compact, each hour, too, and when rows of the spool wait for it. Ends when no reload can come any more; dropping it stops it.
    pub async fn run(mut self) {
        loop {
            let mut pauses = PAUSES.iter();
            let mut pause = Duration::ZERO;
            while !self.topics().await {
                pause = pauses.next().copied().unwrap_or(pause);
                // Who asks does so every few seconds at most.
                let _ = tokio::time::timeout(pause, self.asked.notified()).await;
            }
            let watches = !compaction::non_compacted_topics(&self.sources.load()).is_empty();
            tokio::select! {
                changed = self.reloads.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(compaction::RECHECK), if watches => {}
                () = self.asked.notified() => {}
            }
        }
    }

    /// True when every topic is there and its metadata is warm.
    async fn topics(&self) -> bool {
        match self.ensure_topics().await {
            Ok(None) => {
                self.health.topics.set(PartState::Ok, "");
                true
            }
            Ok(Some(why)) => {
                self.health.topics.set(PartState::Degraded, why);
                false
            }
            Err(error) => {
                self.health.topics.set(PartState::Down, format!("{error:#}"));
                false
            }
        }
    }

    /// Creates what is missing, if we may; says why something still is. Those that are there are
    /// warm by then: one missing topic holds up its own event type only.
    async fn ensure_topics(&self) -> anyhow::Result<Option<String>> {
        let cluster = self.admin.cluster().await?;
        self.producer.kafka_answers();
        let wished = desired_topics(&self.loaded.config, &self.sources.load(), cluster.brokers);
        let (mut there, missing): (Vec<NewTopic>, Vec<NewTopic>) =
            wished.into_iter().partition(|topic| cluster.topics.contains_key(&topic.name));
        let mut trouble = None;
        if !missing.is_empty() && !self.loaded.config.provision.on_start {
            let names: Vec<&str> = missing.iter().map(|topic| topic.name.as_str()).collect();
            trouble = Some(format!("missing, and [provision] on_start is false: {}", names.join(", ")));
        } else if !missing.is_empty() {
            match self.admin.create(&missing).await {
                Ok(()) => {
                    for NewTopic { name, partitions, replication, .. } in &missing {
                        tracing::info!(topic = name, partitions, replication, "created");
                    }
                    there.extend(missing);
                }
                Err(error) => trouble = Some(format!("{error:#}; create them, or grant Create to our user")),
            }
        }
        let producer = self.producer.clone();
        let names: Vec<String> = there.into_iter().map(|topic| topic.name).collect();
        let warm = tokio::task::spawn_blocking(move || producer.warm_up(&names, WARM_UP)).await?;
        // Rows of the spool may wait for it, though some other topic is not warm.
        let compacts = self.check_compaction().await;
        warm?;
        let troubles: Vec<String> = trouble.into_iter().chain(compacts).collect();
        Ok((!troubles.is_empty()).then(|| troubles.join("; ")))
    }

    /// Why an event type has to wait, which is of no concern to the others.
    async fn check_compaction(&self) -> Option<String> {
        let topics = compaction::non_compacted_topics(&self.sources.load());
        let servers = &self.loaded.config.kafka.bootstrap_servers;
        match compaction::check_compaction(&self.admin, &topics, servers).await {
            Ok(compacts) => compacts,
            Err(error) => {
                if self.health.kafka.state() == PartState::Ok {
                    topics.iter().for_each(|(_, state)| state.record_unreadable());
                }
                Some(format!("whether topics compact: {error:#}"))
            }
        }
    }
}

/// The topics of all sources, as they should be created on a cluster of so many brokers.
pub fn desired_topics(config: &Config, sources: &Sources, brokers: usize) -> Vec<NewTopic> {
    let retention = config.kafka.topics.retention.as_millis();
    let mut topics = Vec::new();
    for source in sources.iter() {
        let kind = |route: &Route| {
            let policy = if route.policy.is_some() { "delete" } else { "compact,delete" };
            vec![("cleanup.policy", policy.to_owned()), ("retention.ms", retention.to_string())]
        };
        topics.extend(source.routes().map(|route| topic(config, brokers, &route.topic, kind(route))));
        // Kept until somebody has looked at them.
        let kept = vec![("cleanup.policy", String::from("delete")), ("retention.ms", String::from("-1"))];
        topics.push(topic(config, brokers, &names::dead_letter_topic(&source.name), kept));
    }
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    topics
}

/// The topic that tells what became of a source's replayed dead letters, as long as these are kept. It
/// is created with the first replay, and not among those of [`wished_topics`].
pub fn replayed_topic(config: &Config, source: &str, brokers: usize) -> NewTopic {
    let kept = vec![("cleanup.policy", String::from("compact"))];
    topic(config, brokers, &names::replayed_topic(source), kept)
}

fn topic(config: &Config, brokers: usize, name: &str, kind: Vec<(&'static str, String)>) -> NewTopic {
    let rules = &config.kafka.topics;
    let replication = rules.replication.min(u32::try_from(brokers).unwrap_or(u32::MAX)).max(1);
    let mut settings = vec![
        ("min.insync.replicas", rules.min_insync_replicas.min(replication).to_string()),
        ("max.message.bytes", max_record(config.http.max_body).to_string()),
        // By Kafka's clock from the append on: no clock of ours, and no wait in the spool, then takes a record's
        // retention from it, or makes Kafka refuse it. The receipt is in its headers and in its value.
        (TIMESTAMP_TYPE, "LogAppendTime".into()),
    ];
    settings.extend(kind);
    NewTopic {
        name: name.to_owned(),
        partitions: i32::try_from(rules.partitions).unwrap_or(i32::MAX),
        replication: i32::try_from(replication).unwrap_or(1),
        config: settings,
    }
}
