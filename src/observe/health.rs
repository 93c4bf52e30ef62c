//! Readiness that tells the truth, part by part.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::Notify;

use super::clock::Clocks;

/// How a part does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartState {
    /// As it should.
    Ok,
    /// Nobody knows, which is not ok, and no reason to take no deliveries.
    Unknown,
    /// Deliveries are taken, but not all, or not as safely.
    Degraded,
    /// No delivery can be made durable.
    Down,
}

/// Why a part is down before anybody has looked.
const STARTING: &str = "starting";

/// One part and why it is as it is.
#[derive(Clone, Debug, Serialize)]
pub struct PartReport {
    /// How it does.
    pub state: PartState,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

/// A part's current state; reading it takes no lock.
#[derive(Debug)]
pub struct PartHealth {
    name: &'static str,
    report: ArcSwap<PartReport>,
    changed: Arc<Notify>,
}

impl PartHealth {
    fn new(name: &'static str, state: PartState, why: &str, changed: &Arc<Notify>) -> Self {
        let report = ArcSwap::from_pointee(PartReport { state, why: why.into() });
        Self { name, report, changed: changed.clone() }
    }

    /// Sets the state and logs its change: a healthy part says nothing, a sick one says so once,
    /// however its reasons vary.
    pub fn set(&self, state: PartState, why: impl Into<String>) {
        let why = why.into();
        let before = self.report.load();
        if before.state != state || before.why == STARTING {
            match state {
                PartState::Ok => tracing::info!(part = self.name, "ok"),
                PartState::Unknown => tracing::warn!(part = self.name, why, "unknown"),
                PartState::Degraded => tracing::warn!(part = self.name, why, "degraded"),
                PartState::Down => tracing::error!(part = self.name, why, "down"),
            }
        }
        self.put(state, why);
    }

    /// Sets the state without a log line, for what has one of its own.
    pub fn put(&self, state: PartState, why: impl Into<String>) {
        self.report.store(Arc::new(PartReport { state, why: why.into() }));
        self.changed.notify_waiters();
    }

    /// How it does, for the hot path.
    pub fn state(&self) -> PartState {
        self.report.load().state
    }

    /// How it stands.
    pub fn report(&self) -> PartReport {
        PartReport::clone(&self.report.load())
    }
}

/// The parts that readiness is made of.
#[derive(Debug)]
pub struct Health {
    /// Whether a broker answers.
    pub kafka: PartHealth,
    /// Whether the topics are there.
    pub topics: PartHealth,
    /// Whether the registry has given each schema its id.
    pub schemas: PartHealth,
    /// Whether the topics, and each of their partitions, take what they are given. One that does not makes
    /// the service not ready for nobody else.
    pub publishing: PartHealth,
    /// How many copies an acknowledged record is sure to have. Too few never makes the service not
    /// ready: deliveries are taken, and a wait would not change it.
    pub durability: PartHealth,
    /// Whether our clock agrees with Kafka's, or else the registry's. One that does not stops nothing.
    pub clock: PartHealth,
    /// The local queue, where there is one.
    pub spool: PartHealth,
    /// Whether there is room for one more on the port that providers call. Full never makes the service not ready: who
    /// waits or does not verify has to go, and taking this one out would only fill the next.
    pub connections: PartHealth,
    /// Whether the background tasks run. `Down` if one has ended without which deliveries cannot stay durable.
    pub tasks: PartHealth,
    /// Whether we are shutting down.
    pub service: PartHealth,
    /// What other clocks say.
    pub clocks: Arc<Clocks>,
    /// Whether there is a spool to turn to.
    has_spool: AtomicBool,
    changed: Arc<Notify>,
}

/// The body of `/readyz`.
#[derive(Debug, Serialize)]
pub struct Readiness {
    /// `ready`, `degraded` (still 200) or `not_ready` (503).
    pub status: &'static str,
    parts: ReadinessParts,
}

#[derive(Debug, Serialize)]
struct ReadinessParts {
    kafka: PartReport,
    topics: PartReport,
    schemas: PartReport,
    publishing: PartReport,
    durability: PartReport,
    clock: PartReport,
    spool: PartReport,
    connections: PartReport,
    tasks: PartReport,
    service: PartReport,
}

impl Health {
    /// All parts but the service itself down, until they say otherwise.
    pub fn new() -> Arc<Self> {
        let changed = Arc::new(Notify::new());
        Arc::new(Self {
            kafka: PartHealth::new("kafka", PartState::Down, STARTING, &changed),
            topics: PartHealth::new("topics", PartState::Down, STARTING, &changed),
            schemas: PartHealth::new("schemas", PartState::Down, STARTING, &changed),
            publishing: PartHealth::new("publishing", PartState::Ok, "", &changed),
            durability: PartHealth::new("durability", PartState::Unknown, "not read yet", &changed),
            clock: PartHealth::new("clock", PartState::Ok, "not looked at yet", &changed),
            spool: PartHealth::new("spool", PartState::Ok, "off: [spool] dir is not set", &changed),
            clocks: Arc::default(),
            has_spool: AtomicBool::new(false),
            connections: PartHealth::new("connections", PartState::Ok, "", &changed),
            tasks: PartHealth::new("tasks", PartState::Ok, "", &changed),
            service: PartHealth::new("service", PartState::Ok, "", &changed),
            changed,
        })
    }

    /// Resolves when deliveries can be made durable, all of them; with how many copies is not asked,
    /// since a cluster of one broker is as ready as it gets.
    pub async fn ready(&self) {
        self.wait(|health| health.taken(&health.parts()) == PartState::Ok).await;
    }

    /// Resolves when the parts are as wished.
    pub async fn wait(&self, wished: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before looking, so that no change falls in between.
            changed.as_mut().enable();
            if wished(self) {
                return;
            }
            changed.await;
        }
    }

    /// From now on there is a spool: a Kafka that is out makes the service degraded, not down.
    pub fn enable_spool(&self) {
        self.has_spool.store(true, Ordering::Relaxed);
        self.spool.put(PartState::Ok, "");
    }

    /// The whole is as well as its worst part.
    pub fn readiness(&self) -> Readiness {
        let parts = self.parts();
        let told = parts.durability.state.max(parts.publishing.state).max(parts.clock.state);
        let told = told.max(parts.connections.state).max(parts.tasks.state).min(PartState::Degraded);
        let status = match self.taken(&parts).max(told) {
            PartState::Ok | PartState::Unknown => "ready",
            PartState::Degraded => "degraded",
            PartState::Down => "not_ready",
        };
        Readiness { status, parts }
    }

    fn parts(&self) -> ReadinessParts {
        ReadinessParts {
            kafka: self.kafka.report(),
            topics: self.topics.report(),
            schemas: self.schemas.report(),
            publishing: self.publishing.report(),
            durability: self.durability.report(),
            clock: self.clock.report(),
            spool: self.spool.report(),
            connections: self.connections.report(),
            tasks: self.tasks.report(),
            service: self.service.report(),
        }
    }

    /// Whether deliveries are taken, and all of them. Kafka and its topics may be out as long as the
    /// spool takes what they do not.
    fn taken(&self, parts: &ReadinessParts) -> PartState {
        let spool = self.has_spool.load(Ordering::Relaxed) && parts.spool.state != PartState::Down;
        let cluster = parts.kafka.state.max(parts.topics.state);
        let cluster = if spool { cluster.min(PartState::Degraded) } else { cluster };
        // A spool that cannot write is missed only while Kafka is out.
        let spool = parts.spool.state.min(PartState::Degraded);
        // A task that is restarted, or that no delivery needs, is reported and makes nothing else wait.
        let tasks = if parts.tasks.state == PartState::Down { PartState::Down } else { PartState::Ok };
        cluster.max(spool).max(parts.schemas.state).max(tasks).max(parts.service.state)
    }
}

impl Readiness {
    /// Whether deliveries can be made durable.
    pub fn is_ready(&self) -> bool {
        self.status != "not_ready"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn too_few_copies_and_a_wrong_clock_are_told_and_stop_nothing() {
        let health = Health::new();
        for part in [&health.kafka, &health.topics, &health.schemas] {
            part.put(PartState::Ok, "");
        }
        for part in [&health.durability, &health.clock] {
            assert_eq!(health.readiness().status, "ready");
            for state in [PartState::Degraded, PartState::Down] {
                part.put(state, "1 copy, or 2 h");
                let readiness = health.readiness();
                assert!(readiness.status == "degraded" && readiness.is_ready(), "{readiness:?}");
                health.ready().await;
            }
            part.put(PartState::Ok, "");
        }
        health.tasks.put(PartState::Degraded, "lag panicked");
        assert_eq!(health.readiness().status, "degraded");
        health.ready().await;
        health.tasks.put(PartState::Down, "schemas panicked");
        assert_eq!(health.readiness().status, "not_ready");
        health.tasks.put(PartState::Ok, "");
        health.kafka.put(PartState::Down, "no broker answers");
        assert_eq!(health.readiness().status, "not_ready");
    }
}
