//! Topics and subjects: compares the desired with the actual state. `serve` creates what is missing;
//! `provision` also alters existing topics and subjects. Also monitors the durability of the topics.

mod durability;
mod grants;
mod plan;
mod planner;
mod provision_error;
mod compaction;
mod retention;
mod subjects;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::config::{Config, LoadedConfig};
use crate::kafka::{Admin, Creation, NewTopic, Producer, TopicError};
use crate::names;
use crate::observe::error_chain::ErrorChain;
use crate::observe::health::{Health, PartState};
use crate::sources::{Route, Sources};

pub use compaction::{Waiting, Watched, check_compaction, fix_command, non_compacted_topics};
pub use durability::{DurabilityMonitor, IN_MEMORY, judge};
pub use grants::grants;
pub use plan::{
    Allowed, Item, ItemKind, PlanAction, PlanStep, ProvisionPlan, SettingChange, Unchanged, takes_less,
};
pub use planner::{Done, Planner};
pub use provision_error::ProvisionError;
pub use retention::{ending, lasting, mend};
pub use subjects::{RECHECK, Reloaded, SchemaRegistrar};

/// The pauses between attempts while something is missing.
const BACKOFF: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

/// The number of subjects about which the registry is asked at once. Few enough that a registry which serves one call
/// after another, as those that register do, answers each within its time-out.
pub const SUBJECTS_AT_ONCE: usize = 8;

/// The setting that decides whose clock stamps a topic's records.
const TIMESTAMP_TYPE: &str = "message.timestamp.type";

/// The time limit of warming up the topics' metadata.
const WARM_UP: Duration = Duration::from_secs(5);

/// The largest record for a body of `max_body` bytes. It adds room for headers, the envelope's fields, and
/// the pointers of unknown members, which grow inside arrays.
pub fn max_record(max_body: usize) -> usize {
    2 * max_body + 128 * 1024
}

/// Creates the missing topics of the configuration. Runs at start and after each reload until none is
/// missing; never alters an existing topic.
pub struct Provisioner {
    /// The configuration; its list of sources is replaced by `sources`.
    pub loaded: Arc<LoadedConfig>,
    pub admin: Admin,
    /// The producer whose metadata is warmed up.
    pub producer: Arc<Producer>,
    /// The sources whose topics are provisioned.
    pub sources: Arc<ArcSwap<Sources>>,
    /// Receives the state of the topics.
    pub health: Arc<Health>,
    /// Changes after each reload.
    pub reloads: watch::Receiver<()>,
    /// Notified when spool rows wait for the cleanup policy of their topic.
    pub asked: Arc<Notify>,
}

impl Provisioner {
    /// Retries with growing pauses until every topic exists, and starts again after each reload. If a topic
    /// must not be compacted, also checks every hour, and when spool rows wait for that check. Goes on if no reload
    /// can follow; dropping the future stops it.
    pub async fn run(mut self) {
        loop {
            let mut pauses = BACKOFF.iter();
            let mut pause = Duration::ZERO;
            while !self.topics().await {
                pause = pauses.next().copied().unwrap_or(pause);
                // Notifications arrive at most every few seconds.
                let _ = tokio::time::timeout(pause, self.asked.notified()).await;
            }
            let recheck = !compaction::non_compacted_topics(&self.sources.load()).is_empty();
            tokio::select! {
                Ok(()) = self.reloads.changed() => {}
                () = tokio::time::sleep(compaction::RECHECK), if recheck => {}
                () = self.asked.notified() => {}
            }
        }
    }

    /// True if every topic exists and its metadata is warm.
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
                self.health.topics.set(PartState::Down, ErrorChain(&error).to_string());
                false
            }
        }
    }

    /// Creates the missing topics, if authorized, and returns the reason if one is still missing. The metadata
    /// of existing topics is warm afterwards, so a missing topic affects only its own event type.
    async fn ensure_topics(&self) -> Result<Option<String>, ProvisionError> {
        let cluster = self.admin.cluster().await?;
        self.producer.kafka_answers();
        let desired = desired_topics(&self.loaded.config, &self.sources.load(), cluster.brokers);
        let (mut existing, missing) = cluster.split(desired);
        let mut reason = None;
        if !missing.is_empty() && !self.loaded.config.provision.on_start {
            reason = Some(self.not_there(missing).await?);
        } else if !missing.is_empty() {
            match self.admin.create(&missing).await {
                Ok(Creation { created, refused }) => {
                    for NewTopic { name, partitions, replication, .. } in &missing {
                        if created.contains(name) {
                            tracing::info!(topic = name, partitions, replication, "created");
                        }
                    }
                    let is_refused =
                        |topic: &NewTopic| refused.iter().any(|refused| refused.topic == topic.name);
                    existing.extend(missing.into_iter().filter(|topic| !is_refused(topic)));
                    reason = (!refused.is_empty()).then(|| not_created(&refused));
                }
                Err(error) => reason = Some(format!("topics could not be created: {}", ErrorChain(&error))),
            }
        }
        let producer = self.producer.clone();
        let names: Vec<String> = existing.into_iter().map(|topic| topic.name).collect();
        let warm = tokio::task::spawn_blocking(move || producer.warm_up(&names, WARM_UP)).await?;
        // Before the error is returned: spool rows may wait for this check even if another topic is not warm.
        let compaction = self.check_compaction().await;
        warm?;
        let reasons: Vec<String> = reason.into_iter().chain(compaction).collect();
        Ok((!reasons.is_empty()).then(|| reasons.join("; ")))
    }

    /// Why topics seem to be missing that hookstream must not create.
    async fn not_there(&self, missing: Vec<NewTopic>) -> Result<String, ProvisionError> {
        let names: Vec<String> = missing.into_iter().map(|topic| topic.name).collect();
        let hidden = self.admin.hidden(names.clone()).await?;
        let (hidden, missing): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| hidden.contains(name));
        let mut texts = Vec::new();
        if !missing.is_empty() {
            texts.push(format!("missing, and [provision] on_start is false: {}", missing.join(", ")));
        }
        if !hidden.is_empty() {
            texts.push(format!("not visible: grant Describe to hookstream's user on {}", hidden.join(", ")));
        }
        Ok(texts.join("; "))
    }

    /// The reason if an event type, or rows of the spool, must wait; this does not affect the other types.
    async fn check_compaction(&self) -> Option<String> {
        let sources = self.sources.load_full();
        let (topics, of_rows) =
            (compaction::non_compacted_topics(&sources), compaction::topics_of_rows(&sources));
        let servers = &self.loaded.config.kafka.bootstrap_servers;
        let check = async |topics: &Watched, waiting| {
            compaction::check_compaction(&self.admin, topics, servers, waiting).await
        };
        match tokio::try_join!(check(&topics, Waiting::Deliveries), check(&of_rows, Waiting::Rows)) {
            Ok((deliveries, rows)) => {
                let reasons: Vec<String> = deliveries.into_iter().chain(rows).collect();
                (!reasons.is_empty()).then(|| reasons.join("; "))
            }
            Err(error) => {
                if self.health.kafka.state() == PartState::Ok {
                    topics.iter().for_each(|(_, state)| state.record_unreadable());
                }
                Some(format!("cannot read whether topics are compacted: {}", ErrorChain(&error)))
            }
        }
    }
}

/// What to do about topics that could not be created.
pub fn not_created(refused: &[TopicError]) -> String {
    let (hidden, refused): (Vec<_>, Vec<_>) = refused.iter().partition(|refused| refused.hidden);
    let listed = |refused: Vec<&TopicError>| {
        let each = refused.into_iter().map(|TopicError { topic, why, .. }| format!("{topic} ({why})"));
        each.collect::<Vec<_>>().join(", ")
    };
    let mut texts = Vec::new();
    if !refused.is_empty() {
        texts.push(format!(
            "topics could not be created: {}; create them, or grant Create to hookstream's user",
            listed(refused)
        ));
    }
    if !hidden.is_empty() {
        texts.push(format!("topics are not visible: {}", listed(hidden)));
    }
    texts.join("; ")
}

/// The topics of all sources as they should be created on a cluster of `brokers` brokers.
pub fn desired_topics(config: &Config, sources: &Sources, brokers: usize) -> Vec<NewTopic> {
    let retention = config.kafka.topics.retention.as_millis();
    let mut topics = Vec::new();
    for source in sources.iter() {
        let policy_settings = |route: &Route| {
            let policy = if route.policy.is_some() { "delete" } else { "compact,delete" };
            vec![("cleanup.policy", policy.to_owned()), ("retention.ms", retention.to_string())]
        };
        topics.extend(
            source.routes().map(|route| topic(config, brokers, &route.topic, policy_settings(route))),
        );
        // Dead letters stay until a person has handled them.
        let kept = vec![("cleanup.policy", String::from("delete")), ("retention.ms", String::from("-1"))];
        topics.push(topic(config, brokers, &names::dead_letter_topic(&source.name), kept));
    }
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    topics
}

/// The topic that records the outcome of a source's replayed dead letters, retained as long as those. The
/// first replay creates it, so [`desired_topics`] does not contain it.
pub fn replayed_topic(config: &Config, source: &str, brokers: usize) -> NewTopic {
    let kept = vec![("cleanup.policy", String::from("compact"))];
    topic(config, brokers, &names::replayed_topic(source), kept)
}

fn topic(
    config: &Config,
    brokers: usize,
    name: &str,
    policy_settings: Vec<(&'static str, String)>,
) -> NewTopic {
    let rules = &config.kafka.topics;
    let replication = rules.replication.min(u32::try_from(brokers).unwrap_or(u32::MAX)).max(1);
    let mut settings = vec![
        ("min.insync.replicas", rules.min_insync_replicas.min(replication).to_string()),
        ("max.message.bytes", max_record(config.http.max_body).to_string()),
        // Kafka's clock at the append. So neither a wrong clock of hookstream nor a wait in the spool shortens a
        // record's retention or makes Kafka refuse it. The time of receipt is in the record's headers and value.
        (TIMESTAMP_TYPE, "LogAppendTime".into()),
    ];
    settings.extend(policy_settings);
    NewTopic {
        name: name.to_owned(),
        partitions: i32::try_from(rules.partitions).unwrap_or(i32::MAX),
        replication: i32::try_from(replication).unwrap_or(1),
        config: settings,
    }
}
