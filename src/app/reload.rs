//! Reads the configuration again while the service runs, and applies all of it or nothing.
//!
//! It compares what was read, not the files. So it does not matter whether a file was replaced, a symbolic link changed
//! or a directory filled, and there is no list of watched files that could be incomplete. The price is a complete load
//! at each check, some milliseconds outside the hot path. A file that is read while it is half written is refused, and
//! applied at the next check.

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

/// Why a reload gets no answer.
const GONE: &str = "the service is stopping, or its task `reload` has ended";

/// Between two checks whether a file has changed.
pub const LOOK: Duration = Duration::from_secs(10);

/// Asks the running service for a reload.
#[derive(Clone)]
pub struct Reload(mpsc::Sender<ReloadRequest>);

enum ReloadRequest {
    /// Only if something differs from what was read last.
    IfChanged,
    /// In any case.
    Now(oneshot::Sender<Result<(), ConfigErrors>>),
}

impl Reload {
    /// Reads everything again. Deliveries that arrive after it returns are judged by the new configuration.
    ///
    /// # Errors
    /// All problems of the new configuration: the old one stays in force. If the service is stopping.
    pub async fn now(&self) -> anyhow::Result<()> {
        let (answer, answered) = oneshot::channel();
        self.0.send(ReloadRequest::Now(answer)).await.ok().context(GONE)?;
        Ok(answered.await.context(GONE)??)
    }

    /// Checks once per `every` whether something has changed. Runs until dropped, also after the end of the task that
    /// it asks: that end has its own report.
    pub(super) async fn watch(self, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.0.send(ReloadRequest::IfChanged).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// A configuration as it was read.
struct ConfigSnapshot {
    /// Its sources are new; all other settings are as at the start.
    loaded: Arc<LoadedConfig>,
    schemas: Schemas,
    ports: PortSecurity,
    /// Changed settings that only a restart applies.
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

    /// The names of sources that differ.
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

/// Reads the configuration, and passes it to the task that compiles and swaps the sources.
pub(super) struct Reloader {
    started: Arc<LoadedConfig>,
    /// The configuration in force.
    current: Arc<ConfigSnapshot>,
    /// The last one that was read, or its problems.
    last: Result<Arc<ConfigSnapshot>, Vec<String>>,
    /// Warnings that were logged already. Some appear with time, without a change of the configuration.
    logged: Vec<String>,
    requests: mpsc::Receiver<ReloadRequest>,
    swaps: SwapHandles,
}

/// Where a new configuration goes.
pub(super) struct SwapHandles {
    /// To the task that compiles the sources and puts them in force.
    pub(super) sources: mpsc::Sender<Reloaded>,
    /// What `/status` shows.
    pub(super) in_force: Arc<status::CurrentConfig>,
    /// Certificates for new connections.
    pub(super) ports: CurrentTls,
}

/// What `/status` shows about a configuration that is put in force now.
pub(super) fn in_force(loaded: &LoadedConfig, schemas: &Schemas) -> InForce {
    let mut hash = Sha256::new();
    // `Debug` of plain, ordered data without secrets.
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
    /// The reloader of a service that was started with this configuration, and the handle that asks it.
    pub(super) fn new(
        started: Arc<LoadedConfig>,
        schemas: Schemas,
        ports: PortSecurity,
        swaps: SwapHandles,
    ) -> (Self, Reload) {
        let (sender, requests) = mpsc::channel(1);
        let current = Arc::new(ConfigSnapshot { loaded: started.clone(), schemas, ports, later: Vec::new() });
        let logged = started.warnings.iter().chain(started.refusing.values()).cloned().collect();
        (Self { started, last: Ok(current.clone()), current, logged, requests, swaps }, Reload(sender))
    }

    /// Handles one request after the other. Runs until dropped.
    pub(super) async fn run(mut self) {
        while let Some(request) = self.requests.recv().await {
            let started = self.started.clone();
            let Ok(snapshot) = tokio::task::spawn_blocking(move || ConfigSnapshot::take(&started)).await
            else {
                // Reading has panicked, or the runtime ends.
                return;
            };
            let snapshot = snapshot.map(Arc::new);
            let seen = snapshot.as_ref().map(Arc::clone).map_err(ConfigErrors::lines);
            let changed = match (&seen, &self.last) {
                (Ok(snapshot), Ok(last)) => !snapshot.same(last),
                (Err(problems), Err(last)) => problems != last,
                _ => true,
            };
            self.last = seen;
            if matches!(request, ReloadRequest::IfChanged) && !changed {
                // The same configuration, but time has passed: a certificate may be about to expire.
                self.log_new_warnings();
                continue;
            }
            let outcome = match snapshot {
                Ok(snapshot) => match self.swap(snapshot).await {
                    Some(outcome) => outcome,
                    None => return,
                },
                Err(problems) => Err(problems),
            };
            metrics::reload(outcome.is_ok());
            if let Err(problems) = &outcome {
                tracing::error!(%problems, "configuration refused; the old one stays in force");
            }
            if let ReloadRequest::Now(answer) = request {
                // The caller may have given up.
                let _ = answer.send(outcome);
            }
        }
    }

    /// `None` if the task that swaps the sources has ended.
    async fn swap(&mut self, snapshot: Arc<ConfigSnapshot>) -> Option<Result<(), ConfigErrors>> {
        let (answer, answered) = oneshot::channel();
        let reloaded =
            Reloaded { loaded: snapshot.loaded.clone(), schemas: snapshot.schemas.clone(), answer };
        self.swaps.sources.send(reloaded).await.ok()?;
        if let Err(problems) = answered.await.ok()? {
            return Some(Err(problems));
        }
        let sources = snapshot.differing_sources(&self.current).join(", ");
        let tls = snapshot.ports != self.current.ports;
        if tls {
            // Existing connections keep the old certificate.
            self.swaps.ports.store(Arc::new(snapshot.ports.clone()));
            snapshot.ports.tell();
        }
        tracing::info!(sources, tls, "reloaded");
        if !snapshot.later.is_empty() {
            tracing::warn!(settings = snapshot.later.join(", "), "these changed settings need a restart");
        }
        log::filter(&snapshot.loaded.config.log.filter);
        self.swaps.in_force.store(Arc::new(in_force(&snapshot.loaded, &snapshot.schemas)));
        self.current = snapshot;
        self.log_new_warnings();
        Some(Ok(()))
    }

    /// Logs the warnings that were not logged yet.
    fn log_new_warnings(&mut self) {
        let Ok(last) = &self.last else { return };
        // A configuration that was read but did not compile is not in force.
        if last.same(&self.current) {
            self.logged = warn(&last.loaded, &self.logged);
        }
    }
}

/// Logs the warnings that are not in `logged`, and returns all warnings.
pub fn warn(loaded: &LoadedConfig, logged: &[String]) -> Vec<String> {
    for warning in loaded.warnings.iter().filter(|warning| !logged.contains(warning)) {
        tracing::warn!("{warning}");
    }
    for refusing in loaded.refusing.values().filter(|refusing| !logged.contains(refusing)) {
        tracing::error!("{refusing}");
    }
    loaded.warnings.iter().chain(loaded.refusing.values()).cloned().collect()
}
