//! Rows of a topic that must not compact wait until Kafka has recently confirmed that it does not: somebody may have
//! altered the topic while the rows were in the spool, and compaction would keep only one event of each key.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::config::Config;
use crate::deliver::Holds;
use crate::kafka::Admin;
use crate::names;
use crate::observe::health::{Health, PartState};
use crate::provision::{self, Watched};
use crate::sources::{CompactionState, Sources};

/// Answers the drain from the topics' policies, as they were read last.
pub(super) struct Policies<F> {
    watched: F,
    /// Notified if a topic's policy has to be read again.
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

/// Holds by the sources in force. The task that waits for `asked` reads their topics.
pub(super) fn of_sources(sources: &Arc<ArcSwap<Sources>>, asked: &Arc<Notify>) -> Arc<dyn Holds> {
    let sources = sources.clone();
    Arc::new(Policies {
        watched: move || provision::non_compacted_topics(&sources.load()),
        asked: asked.clone(),
    })
}

/// Holds by the configuration alone, for a service without sources, and the task that reads the topics.
pub(super) fn of_config(
    config: &Config,
    admin: Admin,
    health: Arc<Health>,
) -> (Arc<dyn Holds>, impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) {
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
    let reading = move || -> BoxFuture<'static, ()> {
        let (admin, watched, servers) = (admin.clone(), watched.clone(), servers.clone());
        let (asked, health) = (asked.clone(), health.clone());
        Box::pin(async move {
            loop {
                asked.notified().await;
                match provision::check_compaction(&admin, &watched, &servers).await {
                    Ok(None) => health.topics.set(PartState::Ok, ""),
                    Ok(Some(why)) => health.topics.set(PartState::Degraded, why),
                    Err(error) => {
                        let why = format!("whether topics compact is unknown: {error:#}");
                        health.topics.set(PartState::Degraded, why);
                    }
                }
            }
        })
    };
    (Arc::new(holds), reading)
}
