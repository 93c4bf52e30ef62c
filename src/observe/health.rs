//! Readiness that tells the truth, part by part.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use serde::Serialize;

/// How a part does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should.
    Ok,
    /// Deliveries are taken, but not all, or not as safely.
    Degraded,
    /// No delivery can be made durable.
    Down,
}

/// Why a part is down before anybody has looked.
const STARTING: &str = "starting";

/// One part and why it is as it is.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How it does.
    pub state: State,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

/// A part's current state. The lock is held for a copy only, never across an await.
#[derive(Debug)]
pub struct Part {
    name: &'static str,
    report: Mutex<Report>,
    changed: Arc<Notify>,
}

impl Part {
    fn new(name: &'static str, state: State, changed: &Arc<Notify>) -> Self {
        Self {
            name,
            changed: changed.clone(),
            report: Mutex::new(Report {
                state,
                why: String::from(if state == State::Ok { "" } else { STARTING }),
            }),
        }
    }

    /// Sets the state and logs its change: a healthy part says nothing, a sick one says so once,
    /// however its reasons vary.
    pub fn set(&self, state: State, why: impl Into<String>) {
        let why = why.into();
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        if report.state != state || report.why == STARTING {
            match state {
                State::Ok => tracing::info!(part = self.name, "ok"),
                State::Degraded => tracing::warn!(part = self.name, why, "degraded"),
                State::Down => tracing::error!(part = self.name, why, "down"),
            }
        }
        *report = Report { state, why };
        self.changed.notify_waiters();
    }

    /// Down on purpose: that has a log line of its own.
    pub fn stop(&self, why: &str) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) =
            Report { state: State::Down, why: why.into() };
        self.changed.notify_waiters();
    }

    /// How it stands.
    pub fn report(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The parts that readiness is made of.
#[derive(Debug)]
pub struct Health {
    /// Whether a broker answers.
    pub kafka: Part,
    /// Whether the topics are there.
    pub topics: Part,
    /// Whether the registry has given each schema its id.
    pub schemas: Part,
    /// Whether we are shutting down.
    pub service: Part,
    changed: Arc<Notify>,
}

/// The body of `/readyz`.
#[derive(Debug, Serialize)]
pub struct Readiness {
    /// `ready`, `degraded` (still 200) or `not_ready` (503).
    pub status: &'static str,
    parts: Parts,
}

#[derive(Debug, Serialize)]
struct Parts {
    kafka: Report,
    topics: Report,
    schemas: Report,
    service: Report,
}

impl Health {
    /// All parts but the service itself down, until they say otherwise.
    pub fn new() -> Arc<Self> {
        let changed = Arc::new(Notify::new());
        Arc::new(Self {
            kafka: Part::new("kafka", State::Down, &changed),
            topics: Part::new("topics", State::Down, &changed),
            schemas: Part::new("schemas", State::Down, &changed),
            service: Part::new("service", State::Ok, &changed),
            changed,
        })
    }

    /// Resolves when deliveries can be made durable, all of them.
    pub async fn ready(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before looking, so that no change falls in between.
            changed.as_mut().enable();
            if self.readiness().status == "ready" {
                return;
            }
            changed.await;
        }
    }

    /// The whole is as well as its worst part.
    pub fn readiness(&self) -> Readiness {
        let parts = Parts {
            kafka: self.kafka.report(),
            topics: self.topics.report(),
            schemas: self.schemas.report(),
            service: self.service.report(),
        };
        let worst = [&parts.kafka, &parts.topics, &parts.schemas, &parts.service]
            .into_iter()
            .map(|report| report.state)
            .max()
            .unwrap_or(State::Down);
        let status = match worst {
            State::Ok => "ready",
            State::Degraded => "degraded",
            State::Down => "not_ready",
        };
        Readiness { status, parts }
    }
}

impl Readiness {
    /// Whether deliveries can be made durable.
    pub fn is_ready(&self) -> bool {
        self.status != "not_ready"
    }
}
