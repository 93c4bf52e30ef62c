//! Rows of a topic that must not compact wait until Kafka has recently confirmed that it does not: somebody may have
//! altered the topic while the rows were in the spool, and compaction would keep only one event of each key.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::deliver::Holds;
use crate::kafka::Admin;
use crate::observe::error_chain::ErrorChain;
use crate::observe::health::{Health, PartState};
use crate::provision::{self, Waiting, Watched};
use crate::sources::Sources;

/// Answers the drain from the topics' policies, as they were read last.
pub(super) struct Policies {
    /// The sources in force.
    pub(super) sources: Arc<ArcSwap<Sources>>,
    /// Notified if a topic's policy has to be read again.
    pub(super) asked: Arc<Notify>,
}

impl Holds for Policies {
    fn why(&self, topic: &str) -> Option<&'static str> {
        let sources = self.sources.load();
        let (why, asks) = sources.uncompacted().get(topic)?.holds_rows();
        if asks {
            self.asked.notify_one();
        }
        why
    }

    fn outage(&self) {
        self.sources.load().uncompacted().values().for_each(|policy| policy.doubt());
    }
}

/// The task that reads the policies for a service without sources, as [`provision::Provisioner`] does for others.
pub(super) fn reading(
    policies: &Policies,
    admin: Admin,
    servers: String,
    health: Arc<Health>,
) -> impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static {
    let topics = policies.sources.load();
    let topics: Watched =
        topics.uncompacted().iter().map(|(topic, state)| (topic.clone(), state.clone())).collect();
    let asked = policies.asked.clone();
    move || -> BoxFuture<'static, ()> {
        let (admin, topics, servers) = (admin.clone(), topics.clone(), servers.clone());
        let (asked, health) = (asked.clone(), health.clone());
        Box::pin(async move {
            loop {
                asked.notified().await;
                // Not the topics that no row goes to: it does not matter whether they exist.
                let topics: Watched = topics.iter().filter(|(_, state)| state.has_rows()).cloned().collect();
                match provision::check_compaction(&admin, &topics, &servers, Waiting::Rows).await {
                    Ok(None) => health.topics.set(PartState::Ok, ""),
                    Ok(Some(why)) => health.topics.set(PartState::Degraded, why),
                    Err(error) => {
                        let why = format!("whether topics compact is unknown: {}", ErrorChain(&error));
                        health.topics.set(PartState::Degraded, why);
                    }
                }
            }
        })
    }
}
