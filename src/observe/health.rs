//! Readiness, part by part.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::clock::Clocks;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartState {
    /// Healthy.
    Ok,
    /// Unknown: not healthy, but no reason to refuse deliveries.
    Unknown,
    /// Deliveries are accepted, but not all, or with less safety.
    Degraded,
    /// No delivery can be made durable.
    Down,
}

impl PartState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Unknown, Self::Degraded, Self::Down];

    /// The state as `/readyz` and the metrics name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// The cause of a part that was not checked yet.
const STARTING: &str = "starting";

/// The state of a part and its cause.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PartReport {
    pub state: PartState,
    /// Why; empty for a part that is ok.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
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

    /// Sets the state and logs a change of the state, but not of the cause alone: a failing part is logged once.
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

    /// Sets the state without a log line, for parts that log their changes themselves.
    pub fn put(&self, state: PartState, why: impl Into<String>) {
        self.report.store(Arc::new(PartReport { state, why: why.into() }));
        self.changed.notify_waiters();
    }

    /// The state, for the hot path.
    pub fn state(&self) -> PartState {
        self.report.load().state
    }

    /// The state with its cause.
    pub fn report(&self) -> PartReport {
        PartReport::clone(&self.report.load())
    }
}

/// The parts of readiness.
#[derive(Debug)]
pub struct Health {
    /// Whether a broker answers.
    pub kafka: PartHealth,
    /// Whether all topics exist.
    pub topics: PartHealth,
    /// Whether each schema has an id from the registry.
    pub schemas: PartHealth,
    /// Whether each topic and partition accepts records. One that does not never makes the service not ready, since the
    /// others do.
    pub publishing: PartHealth,
    /// How many copies of an acknowledged record are guaranteed. Too few never makes the service not ready: deliveries
    /// are accepted, and waiting would not help.
    pub durability: PartHealth,
    /// Whether our clock agrees with Kafka's or, if that is unknown, the registry's. A wrong clock stops nothing.
    pub clock: PartHealth,
    /// The spool, if there is one.
    pub spool: PartHealth,
    /// Whether the port that providers call has room for another connection. A full port never makes the service not
    /// ready: idle and unverified connections are closed, and removing this replica would only fill the next.
    pub connections: PartHealth,
    /// Whether the background tasks run. `Down` if one has ended without which deliveries cannot stay durable.
    pub tasks: PartHealth,
    /// Whether the service is shutting down.
    pub service: PartHealth,
    /// The offsets to other clocks.
    pub clocks: Arc<Clocks>,
    /// Whether there is a spool.
    has_spool: AtomicBool,
    changed: Arc<Notify>,
}

/// The body of `/readyz`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Readiness {
    /// All parts together.
    pub status: ReadinessStatus,
    parts: ReadinessParts,
}

/// The readiness of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadinessStatus {
    /// All deliveries can be made durable.
    Ready,
    /// Still 200: not all of them, or not as safely.
    Degraded,
    /// 503: none.
    NotReady,
}

#[derive(Debug, Serialize, Deserialize)]
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
    /// The state at the start: Kafka, topics and schemas are down until they are checked.
    pub fn new() -> Arc<Self> {
        let changed = Arc::new(Notify::new());
        Arc::new(Self {
            kafka: PartHealth::new("kafka", PartState::Down, STARTING, &changed),
            topics: PartHealth::new("topics", PartState::Down, STARTING, &changed),
            schemas: PartHealth::new("schemas", PartState::Down, STARTING, &changed),
            publishing: PartHealth::new("publishing", PartState::Ok, "", &changed),
            durability: PartHealth::new("durability", PartState::Unknown, "not read yet", &changed),
            clock: PartHealth::new("clock", PartState::Ok, "not checked yet", &changed),
            spool: PartHealth::new("spool", PartState::Ok, "off: [spool] dir is not set", &changed),
            clocks: Arc::default(),
            has_spool: AtomicBool::new(false),
            connections: PartHealth::new("connections", PartState::Ok, "", &changed),
            tasks: PartHealth::new("tasks", PartState::Ok, "", &changed),
            service: PartHealth::new("service", PartState::Ok, "", &changed),
            changed,
        })
    }

    /// Resolves when all deliveries can be made durable. The number of copies does not matter, since a cluster of one
    /// broker never gets more.
    pub async fn ready(&self) {
        self.wait(|health| health.accepting(&health.parts()) == PartState::Ok).await;
    }

    /// Resolves when `condition` holds.
    pub async fn wait(&self, condition: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before the check, so that no change is missed in between.
            changed.as_mut().enable();
            if condition(self) {
                return;
            }
            changed.await;
        }
    }

    /// Records that there is a spool: an unavailable Kafka then makes the service degraded, not down.
    pub fn enable_spool(&self) {
        self.has_spool.store(true, Ordering::Relaxed);
        self.spool.put(PartState::Ok, "");
    }

    /// The readiness of the service: that of its worst part.
    pub fn readiness(&self) -> Readiness {
        let parts = self.parts();
        let reported = parts.durability.state.max(parts.publishing.state).max(parts.clock.state);
        let reported = reported.max(parts.connections.state).max(parts.tasks.state).min(PartState::Degraded);
        let status = match self.accepting(&parts).max(reported) {
            PartState::Ok | PartState::Unknown => ReadinessStatus::Ready,
            PartState::Degraded => ReadinessStatus::Degraded,
            PartState::Down => ReadinessStatus::NotReady,
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

    /// Whether deliveries are accepted, and all of them. Kafka and its topics may be unavailable as long as the spool
    /// stores their records.
    fn accepting(&self, parts: &ReadinessParts) -> PartState {
        let spool = self.has_spool.load(Ordering::Relaxed) && parts.spool.state != PartState::Down;
        let cluster = parts.kafka.state.max(parts.topics.state);
        let cluster = if spool { cluster.min(PartState::Degraded) } else { cluster };
        // A spool that cannot write matters only while Kafka is unavailable.
        let spool = parts.spool.state.min(PartState::Degraded);
        // A task that is restarted, or that no delivery needs, is reported and makes nothing else wait.
        let tasks = if parts.tasks.state == PartState::Down { PartState::Down } else { PartState::Ok };
        cluster.max(spool).max(parts.schemas.state).max(tasks).max(parts.service.state)
    }
}

impl Readiness {
    /// Whether deliveries can be made durable.
    pub fn is_ready(&self) -> bool {
        self.status != ReadinessStatus::NotReady
    }

    pub fn parts(&self) -> [(&'static str, &PartReport); 10] {
        let ReadinessParts {
            kafka,
            topics,
            schemas,
            publishing,
            durability,
            clock,
            spool,
            connections,
            tasks,
            service,
        } = &self.parts;
        [
            ("clock", clock),
            ("connections", connections),
            ("durability", durability),
            ("kafka", kafka),
            ("publishing", publishing),
            ("schemas", schemas),
            ("service", service),
            ("spool", spool),
            ("tasks", tasks),
            ("topics", topics),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn too_few_copies_and_a_wrong_clock_are_reported_and_stop_nothing() {
        let health = Health::new();
        for part in [&health.kafka, &health.topics, &health.schemas] {
            part.put(PartState::Ok, "");
        }
        for part in [&health.durability, &health.clock] {
            assert_eq!(health.readiness().status, ReadinessStatus::Ready);
            for state in [PartState::Degraded, PartState::Down] {
                part.put(state, "1 copy, or 2 h");
                let readiness = health.readiness();
                assert!(
                    readiness.status == ReadinessStatus::Degraded && readiness.is_ready(),
                    "{readiness:?}"
                );
                health.ready().await;
            }
            part.put(PartState::Ok, "");
        }
        health.tasks.put(PartState::Degraded, "lag panicked");
        assert_eq!(health.readiness().status, ReadinessStatus::Degraded);
        health.ready().await;
        health.tasks.put(PartState::Down, "schemas panicked");
        assert_eq!(health.readiness().status, ReadinessStatus::NotReady);
        health.tasks.put(PartState::Ok, "");
        health.kafka.put(PartState::Down, "no broker answers");
        assert_eq!(health.readiness().status, ReadinessStatus::NotReady);
    }
}
