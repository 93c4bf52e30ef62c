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
use crate::config::{ConfigErrors, LoadedConfig};
use crate::http::{CurrentTls, PortSecurity};
use crate::observe::status::InForce;
use crate::observe::{log, metrics, status};
use crate::provision::Reloaded;
use crate::schema::Schemas;

/// Between two looks whether a file has changed.
pub const LOOK: Duration = Duration::from_secs(10);

/// Asks the running service to read its configuration again.
#[derive(Clone)]
pub struct Reload(mpsc::Sender<ReloadRequest>);

enum ReloadRequest {
    /// Only if something reads otherwise than at the last look.
    IfChanged,
    /// In any case.
    Now(oneshot::Sender<Result<(), ConfigErrors>>),
}

impl Reload {
    /// Reads all again. Deliveries that come after it are judged by what was read.
    ///
    /// # Errors
    /// Every problem of what was read; the old configuration stays. When the service stops.
    pub async fn now(&self) -> anyhow::Result<()> {
        let (answer, answered) = oneshot::channel();
        self.0.send(ReloadRequest::Now(answer)).await.ok().context("the service is stopping")?;
        Ok(answered.await.context("the service is stopping")??)
    }

    /// Looks `every` so often whether something has changed. Ends with the service.
    pub(super) async fn watch(self, every: Duration) {
        let mut looks = tokio::time::interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if self.0.send(ReloadRequest::IfChanged).await.is_err() {
                return;
            }
        }
    }
}

/// What was read.
struct ConfigSnapshot {
    /// Its sources are new; all else is as at start.
    loaded: Arc<LoadedConfig>,
    schemas: Schemas,
    ports: PortSecurity,
    /// Settings that would be others after a restart.
    later: Vec<String>,
}

impl ConfigSnapshot {
    /// Reads the files. Blocks.
    fn take(started: &LoadedConfig) -> Result<Self, ConfigErrors> {
        let mut loaded = started.reread()?;
        let later = loaded.retain_startup_settings(started);
        let mut problems = loaded.problems();
        let schemas = Schemas::load(Path::new(SCHEMAS), &loaded.config, &mut problems);
        let ports = PortSecurity::read(&loaded, &mut problems);
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
    started: Arc<LoadedConfig>,
    /// In force.
    current: Arc<ConfigSnapshot>,
    /// Read last; of one that could not be used, what was wrong.
    last: Result<Arc<ConfigSnapshot>, Vec<String>>,
    /// Its warnings, told already: some come with time, without any change of what is read.
    told: Vec<String>,
    requests: mpsc::Receiver<ReloadRequest>,
    swaps: SwapHandles,
}

/// What takes over from what was in force.
pub(super) struct SwapHandles {
    /// Compiles the sources, and puts them in force.
    pub(super) sources: mpsc::Sender<Reloaded>,
    /// For `/status`.
    pub(super) in_force: Arc<status::Config>,
    /// For new connections.
    pub(super) ports: CurrentTls,
}

/// What `/status` shows of a configuration that is in force from now on.
pub(super) fn in_force(loaded: &LoadedConfig, schemas: &Schemas) -> InForce {
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
    pub(super) fn new(
        started: Arc<LoadedConfig>,
        schemas: Schemas,
        ports: PortSecurity,
        swaps: SwapHandles,
    ) -> (Self, Reload) {
        let (asking, requests) = mpsc::channel(1);
        let current = Arc::new(ConfigSnapshot { loaded: started.clone(), schemas, ports, later: Vec::new() });
        let told = started.warnings.iter().chain(started.refusing.values()).cloned().collect();
        (Self { started, last: Ok(current.clone()), current, told, requests, swaps }, Reload(asking))
    }

    /// Does what is asked, one after the other. Ends with the service.
    pub(super) async fn run(mut self) {
        while let Some(request) = self.requests.recv().await {
            let started = self.started.clone();
            let Ok(look) = tokio::task::spawn_blocking(move || ConfigSnapshot::take(&started)).await else {
                // The runtime is going down.
                return;
            };
            let look = look.map(Arc::new);
            let seen = look.as_ref().map(Arc::clone).map_err(ConfigErrors::lines);
            let news = match (&seen, &self.last) {
                (Ok(look), Ok(last)) => !look.same(last),
                (Err(problems), Err(last)) => problems != last,
                _ => true,
            };
            self.last = seen;
            if matches!(request, ReloadRequest::IfChanged) && !news {
                // What is in force, but older by now.
                self.log_new_warnings();
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
            if let ReloadRequest::Now(answer) = request {
                // Who asked may have gone.
                let _ = answer.send(outcome);
            }
        }
    }

    /// `None` when nobody is left to do it: the service is stopping.
    async fn swap(&mut self, look: Arc<ConfigSnapshot>) -> Option<Result<(), ConfigErrors>> {
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
        self.log_new_warnings();
        Some(Ok(()))
    }

    /// Tells what is to be minded and was not told yet.
    fn log_new_warnings(&mut self) {
        let Ok(last) = &self.last else { return };
        // One that was read and could not be compiled is not in force.
        if last.same(&self.current) {
            self.told = warn(&last.loaded, &self.told);
        }
    }
}

/// Logs what is to be minded and not in `told`; returns all of it.
pub fn warn(loaded: &LoadedConfig, told: &[String]) -> Vec<String> {
    for warning in loaded.warnings.iter().filter(|warning| !told.contains(warning)) {
        tracing::warn!("{warning}");
    }
    for refusing in loaded.refusing.values().filter(|refusing| !told.contains(refusing)) {
        tracing::error!("{refusing}");
    }
    loaded.warnings.iter().chain(loaded.refusing.values()).cloned().collect()
}
