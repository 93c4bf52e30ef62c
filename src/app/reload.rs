//! The configuration read again while the service runs: taken whole or refused whole.
//!
//! What is compared is what was read, not the files: so it does not matter whether a file was
//! replaced, a symbolic link swapped or a directory filled, and nothing need be watched that might be
//! forgotten. The price is a whole load at each look, some milliseconds off the hot path. A file that
//! is caught half written is refused, and taken at the next look.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::compile::SCHEMAS;
use crate::config::{Loaded, Problems};
use crate::http::{InUse, Ports};
use crate::observe::status::InForce;
use crate::observe::{log, metrics, status};
use crate::provision::Reloaded;
use crate::schema::Schemas;

/// Between two looks whether a file has changed.
pub const LOOK: Duration = Duration::from_secs(10);

/// Asks the running service to read its configuration again.
#[derive(Clone)]
pub struct Reload(mpsc::Sender<Request>);

enum Request {
    /// Only if something reads otherwise than at the last look.
    IfChanged,
    /// In any case.
    Now(oneshot::Sender<Result<(), Problems>>),
}

impl Reload {
    /// Reads all again. Deliveries that come after it are judged by what was read.
    ///
    /// # Errors
    /// Every problem of what was read; the old configuration stays. When the service stops.
    pub async fn now(&self) -> anyhow::Result<()> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Request::Now(answer)).await.ok().context("the service is stopping")?;
        Ok(answered.await.context("the service is stopping")??)
    }

    /// Looks `every` so often whether something has changed. Ends with the service.
    pub(super) async fn watch(self, every: Duration) {
        let mut looks = tokio::time::interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if self.0.send(Request::IfChanged).await.is_err() {
                return;
            }
        }
    }
}

/// What was read.
struct Look {
    /// Its sources are new; all else is as at start.
    loaded: Arc<Loaded>,
    schemas: Schemas,
    ports: Ports,
    /// Settings that would be others after a restart.
    later: Vec<String>,
}

impl Look {
    /// Reads the files. Blocks.
    fn take(started: &Loaded) -> Result<Self, Problems> {
        let mut loaded = started.again()?;
        let later = loaded.keep_what_needs_a_restart(started);
        let mut problems = loaded.problems();
        let schemas = Schemas::load(Path::new(SCHEMAS), &loaded.config, &mut problems);
        let ports = Ports::read(&loaded, &mut problems);
        loaded.warnings.extend(ports.warnings(Timestamp::now()));
        problems.or(Self { loaded: Arc::new(loaded), schemas, ports, later })
    }

    /// The sources that are not the same.
    fn differing_sources(&self, other: &Self) -> Vec<String> {
        let mut names = self.loaded.differing_sources(&other.loaded);
        names.extend(self.schemas.differing_sources(&other.schemas));
        names.into_iter().collect()
    }

    fn same(&self, other: &Self) -> bool {
        self.later == other.later
            && self.loaded.config.log == other.loaded.config.log
            && self.ports == other.ports
            && self.differing_sources(other).is_empty()
    }
}

/// Reads, and hands over to who compiles and swaps.
pub(super) struct Reloader {
    started: Arc<Loaded>,
    /// In force.
    current: Arc<Look>,
    /// Read last; of one that could not be used, what was wrong.
    last: Result<Arc<Look>, Vec<String>>,
    /// Its warnings, told already: some come with time, without any change of what is read.
    told: Vec<String>,
    requests: mpsc::Receiver<Request>,
    swaps: Swaps,
}

/// What takes over from what was in force.
pub(super) struct Swaps {
    /// Compiles the sources, and puts them in force.
    pub(super) sources: mpsc::Sender<Reloaded>,
    /// For `/status`.
    pub(super) in_force: Arc<status::Config>,
    /// For new connections.
    pub(super) ports: InUse,
}

/// What `/status` shows of a configuration that is in force from now on.
pub(super) fn in_force(loaded: &Loaded, schemas: &Schemas) -> InForce {
    let mut hash = Sha256::new();
    // `Debug` of plain, ordered data, which has no secrets in it.
    hash.update(format!("{} {:?}", env!("CARGO_PKG_VERSION"), loaded.config));
    for schema in schemas.iter() {
        hash.update(schema.subject.as_bytes());
        hash.update(schema.text.as_bytes());
    }
    let mut hash = hex::encode(hash.finalize());
    hash.truncate(8);
    InForce { hash, file: loaded.file.clone(), loaded: Timestamp::now() }
}

impl Reloader {
    /// One for a service that was started with these, and the handle to ask it.
    pub(super) fn new(started: Arc<Loaded>, schemas: Schemas, ports: Ports, swaps: Swaps) -> (Self, Reload) {
        let (asking, requests) = mpsc::channel(1);
        let current = Arc::new(Look { loaded: started.clone(), schemas, ports, later: Vec::new() });
        let told = started.warnings.iter().chain(started.refusing.values()).cloned().collect();
        (Self { started, last: Ok(current.clone()), current, told, requests, swaps }, Reload(asking))
    }

    /// Does what is asked, one after the other. Ends with the service.
    pub(super) async fn run(mut self) {
        while let Some(request) = self.requests.recv().await {
            let started = self.started.clone();
            let Ok(look) = tokio::task::spawn_blocking(move || Look::take(&started)).await else {
                // The runtime is going down.
                return;
            };
            let look = look.map(Arc::new);
            let seen = look.as_ref().map(Arc::clone).map_err(Problems::lines);
            let news = match (&seen, &self.last) {
                (Ok(look), Ok(last)) => !look.same(last),
                (Err(problems), Err(last)) => problems != last,
                _ => true,
            };
            self.last = seen;
            if matches!(request, Request::IfChanged) && !news {
                // What is in force, but older by now.
                self.warn_of_last();
                continue;
            }
            let outcome = match look {
                Ok(look) => match self.swap(look).await {
                    Some(outcome) => outcome,
                    None => return,
                },
                Err(problems) => Err(problems),
            };
            metrics::reload(outcome.is_ok());
            if let Err(problems) = &outcome {
                tracing::error!(%problems, "configuration refused; the old one stays");
            }
            if let Request::Now(answer) = request {
                // Who asked may have gone.
                let _ = answer.send(outcome);
            }
        }
    }

    /// `None` when nobody is left to do it: the service is stopping.
    async fn swap(&mut self, look: Arc<Look>) -> Option<Result<(), Problems>> {
        let (answer, answered) = oneshot::channel();
        let reloaded = Reloaded { loaded: look.loaded.clone(), schemas: look.schemas.clone(), answer };
        self.swaps.sources.send(reloaded).await.ok()?;
        if let Err(problems) = answered.await.ok()? {
            return Some(Err(problems));
        }
        let sources = look.differing_sources(&self.current).join(", ");
        let tls = look.ports != self.current.ports;
        if tls {
            // Connections that stand keep what they have.
            self.swaps.ports.store(Arc::new(look.ports.clone()));
            look.ports.tell();
        }
        tracing::info!(sources, tls, "reloaded");
        if !look.later.is_empty() {
            tracing::warn!(settings = look.later.join(", "), "changed, and ignored until a restart");
        }
        log::filter(&look.loaded.config.log.filter);
        self.swaps.in_force.store(Arc::new(in_force(&look.loaded, &look.schemas)));
        self.current = look;
        self.warn_of_last();
        Some(Ok(()))
    }

    /// Tells what is to be minded and was not told yet.
    fn warn_of_last(&mut self) {
        let Ok(last) = &self.last else { return };
        // One that was read and could not be compiled is not in force.
        if last.same(&self.current) {
            self.told = warn(&last.loaded, &self.told);
        }
    }
}

/// Logs what is to be minded and not in `told`; returns all of it.
pub fn warn(loaded: &Loaded, told: &[String]) -> Vec<String> {
    for warning in loaded.warnings.iter().filter(|warning| !told.contains(warning)) {
        tracing::warn!("{warning}");
    }
    for refusing in loaded.refusing.values().filter(|refusing| !told.contains(refusing)) {
        tracing::error!("{refusing}");
    }
    loaded.warnings.iter().chain(loaded.refusing.values()).cloned().collect()
}
