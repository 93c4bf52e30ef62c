//! Rows of a topic that must not compact wait until Kafka has said that it does not, and said so lately: it
//! may have been altered while they lay in the spool, and compaction would leave one event of each key.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::deliver::Holds;
use crate::kafka::Admin;
use crate::names;
use crate::observe::health::{Health, PartState};
use crate::provision::{self, Watched};
use crate::sources::{CompactionState, Sources};

/// The drain's question, answered from what was read of the topics.
pub(super) struct Policies<F> {
    watched: F,
    /// Notified where a topic has to be read again.
    asked: Arc<Notify>,
}

impl<F: Fn() -> Watched + Send + Sync> Holds for Policies<F> {
    fn why(&self, topic: &str) -> Option<&'static str> {
        let (_, policy) = (self.watched)().into_iter().find(|(name, _)| **name == *topic)?;
        let (why, asks) = policy.holds_rows();
        if asks {
            self.asked.notify_one();
        }
        why
    }

    fn outage(&self) {
        (self.watched)().iter().for_each(|(_, policy)| policy.doubt());
    }
}

/// By the sources in force; who is notified reads their topics.
pub(super) fn of_sources(sources: &Arc<ArcSwap<Sources>>, asked: &Arc<Notify>) -> Arc<dyn Holds> {
    let sources = sources.clone();
    Arc::new(Policies {
        watched: move || provision::non_compacted_topics(&sources.load()),
        asked: asked.clone(),
    })
}

/// By the configuration alone, for a service without sources; with the task that reads the topics.
pub(super) fn of_config(
    config: &Config,
    admin: Admin,
    health: Arc<Health>,
) -> (Arc<dyn Holds>, JoinHandle<()>) {
    let keys = config.source.iter().flat_map(|(source, rules)| {
        rules.envelope.keys.keys().map(move |event_type| names::topic(source, event_type))
    });
    let watched: Watched = keys.map(|topic| (topic.into(), Arc::<CompactionState>::default())).collect();
    let (asked, servers) = (Arc::new(Notify::new()), config.kafka.bootstrap_servers.clone());
    let holds = Policies {
        watched: {
            let watched = watched.clone();
            move || watched.clone()
        },
        asked: asked.clone(),
    };
    let reading = async move {
        loop {
            asked.notified().await;
            match provision::check_compaction(&admin, &watched, &servers).await {
                Ok(None) => health.topics.set(PartState::Ok, ""),
                Ok(Some(why)) => health.topics.set(PartState::Degraded, why),
                Err(error) => {
                    health.topics.set(PartState::Degraded, format!("whether topics compact: {error:#}"))
                }
            }
        }
    };
    (Arc::new(holds), tokio::spawn(reading))
}
