//! Owns the background tasks and reports those that end unasked, by a return or by a panic.
//!
//! Each task runs inside a wrapper that catches its panic, so nobody has to poll a set of join handles and the report
//! comes in the same poll as the end. The readiness part `tasks` and the metric `hookstream_tasks_failed` have the
//! result:
//!
//! - A task that keeps no state is started again, after a pause that doubles up to a minute. The part is `degraded`
//!   until the task has run for a minute.
//! - A task that owns the receiving end of a channel is not: its receiver, and the state that the panic interrupted, are
//!   gone. The part is `down` or `degraded`, by what is lost without the task, until somebody restarts hookstream.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;

use crate::failpoints;
use crate::observe::health::{Health, PartState};
use crate::observe::metrics;

/// The pauses before a restart, and for how long a restarted task must run to count as healthy.
#[derive(Clone, Copy)]
struct Restarts {
    first_pause: Duration,
    max_pause: Duration,
    probation: Duration,
}

impl Restarts {
    const DEFAULT: Self = Self {
        first_pause: Duration::from_secs(1),
        max_pause: Duration::from_secs(60),
        probation: Duration::from_secs(60),
    };
}

/// The background tasks of a service. Dropping it stops none of them: [`Supervisor::stop`] does.
pub(super) struct Supervisor {
    failures: Arc<Failures>,
    restarts: Restarts,
    background: Vec<JoinHandle<()>>,
    servers: Vec<JoinHandle<()>>,
}

impl Supervisor {
    /// A supervisor that reports to `health`.
    pub(super) fn new(health: Arc<Health>) -> Self {
        metrics::tasks_failed(0);
        let failures = Failures { health, stopping: AtomicBool::new(false), failed: Mutex::default() };
        Self {
            failures: Arc::new(failures),
            restarts: Restarts::DEFAULT,
            background: Vec::new(),
            servers: Vec::new(),
        }
    }

    /// Starts a task that cannot be restarted; `loss` is the state of the service without it.
    pub(super) fn run(
        &mut self,
        name: &'static str,
        loss: PartState,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.background.push(self.spawn(name, loss, task));
    }

    /// Starts an HTTP server. Unlike the other tasks, a stop lets it end by itself: [`Supervisor::servers_ended`].
    pub(super) fn serve(&mut self, name: &'static str, server: impl Future<Output = ()> + Send + 'static) {
        self.servers.push(self.spawn(name, PartState::Down, server));
    }

    fn spawn(
        &self,
        name: &'static str,
        loss: PartState,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let failures = self.failures.clone();
        tokio::spawn(async move {
            let end = guard(name, task).await;
            failures.lost(name, loss, end);
        })
    }

    /// Starts a task that keeps no state between two runs, and starts it again whenever it ends.
    pub(super) fn restart<F>(&mut self, name: &'static str, task: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        let (failures, restarts) = (self.failures.clone(), self.restarts);
        self.background.push(tokio::spawn(async move {
            let mut pause = restarts.first_pause;
            loop {
                let mut running = pin!(guard(name, async { task().await }));
                let end = tokio::select! {
                    end = &mut running => end,
                    () = tokio::time::sleep(restarts.probation) => {
                        failures.recovered(name);
                        pause = restarts.first_pause;
                        running.await
                    }
                };
                failures.restarting(name, end, pause);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(restarts.max_pause);
            }
        }));
    }

    /// Stops all tasks except the servers. From now on no end is a failure.
    pub(super) fn stop(&self) {
        self.failures.stopping.store(true, Ordering::Relaxed);
        self.background.iter().for_each(JoinHandle::abort);
    }

    /// Waits until the servers have ended, each for at most `bound`.
    pub(super) async fn servers_ended(&mut self, bound: Duration) {
        for server in self.servers.drain(..) {
            let _ = tokio::time::timeout(bound, server).await;
        }
    }
}

/// How a task ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Returned,
    /// The panic hook logs where and, if it cannot hold a payload, why.
    Panicked,
}

impl End {
    const fn verb(&self) -> &'static str {
        match self {
            Self::Returned => "ended",
            Self::Panicked => "panicked",
        }
    }
}

async fn guard(name: &'static str, task: impl Future<Output = ()>) -> End {
    let task = async {
        tokio::select! {
            biased;
            () = task => {}
            () = failpoints::task_panics(name) => {}
        }
    };
    match AssertUnwindSafe(task).catch_unwind().await {
        Ok(()) => End::Returned,
        Err(_) => End::Panicked,
    }
}

/// The tasks that have failed.
struct Failures {
    health: Arc<Health>,
    stopping: AtomicBool,
    failed: Mutex<BTreeMap<&'static str, (PartState, String)>>,
}

impl Failures {
    /// A task that is not restarted has ended.
    fn lost(&self, name: &'static str, loss: PartState, end: End) {
        if self.stopping.load(Ordering::Relaxed) {
            return;
        }
        let verb = end.verb();
        tracing::error!(task = name, "a background task {verb}; restart hookstream");
        self.update(|failed| {
            failed.insert(name, (loss, format!("{name} {verb}; restart hookstream")));
        });
    }

    /// A task has ended, and is started again after `pause`.
    fn restarting(&self, name: &'static str, end: End, pause: Duration) {
        if self.stopping.load(Ordering::Relaxed) {
            return;
        }
        let verb = end.verb();
        tracing::error!(task = name, ?pause, "a background task {verb}; it is restarted");
        self.update(|failed| {
            failed.insert(name, (PartState::Degraded, format!("{name} {verb} and is restarted")));
        });
    }

    /// A task has run for as long as it takes to count as healthy.
    fn recovered(&self, name: &'static str) {
        self.update(|failed| {
            if failed.remove(name).is_some() {
                tracing::info!(task = name, "the restarted background task is running");
            }
        });
    }

    fn update(&self, change: impl FnOnce(&mut BTreeMap<&'static str, (PartState, String)>)) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = failed.len();
        change(&mut failed);
        if before == 0 && failed.is_empty() {
            return;
        }
        let state = failed.values().map(|(state, _)| *state).max().unwrap_or(PartState::Ok);
        let mut causes: Vec<_> = failed.values().collect();
        causes.sort_by_key(|(state, _)| std::cmp::Reverse(*state));
        let causes: Vec<&str> = causes.into_iter().map(|(_, why)| why.as_str()).collect();
        // Within the lock, so that an older state never replaces a newer one.
        self.health.tasks.put(state, causes.join("; "));
        metrics::tasks_failed(failed.len());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn supervisor(restarts: Restarts) -> (Supervisor, Arc<Health>) {
        let health = Health::new();
        (Supervisor { restarts, ..Supervisor::new(health.clone()) }, health)
    }

    async fn until(health: &Health, state: PartState, why: &str) {
        let reached = health.wait(|health| {
            let report = serde_json::to_string(&health.tasks.report()).unwrap();
            health.tasks.state() == state && report.contains(why)
        });
        let waited = tokio::time::timeout(SOON, reached).await;
        waited.unwrap_or_else(|_| panic!("{state:?} {why}: {:?}", health.tasks.report()));
    }

    #[tokio::test]
    async fn a_task_that_panics_or_returns_is_reported_with_its_name() {
        let (mut tasks, health) = supervisor(Restarts::DEFAULT);
        tasks.run("well", PartState::Down, std::future::pending());
        assert_eq!(health.tasks.state(), PartState::Ok);
        tasks.run("lag", PartState::Degraded, async { panic!("on purpose") });
        until(&health, PartState::Degraded, "\"lag panicked; restart hookstream\"").await;
        tasks.run("schemas", PartState::Down, async {});
        let both = "\"schemas ended; restart hookstream; lag panicked; restart hookstream\"";
        until(&health, PartState::Down, both).await;
        tasks.serve("http", async { panic!("on purpose") });
        until(&health, PartState::Down, "http panicked").await;
        assert_eq!(health.readiness().status, crate::observe::health::ReadinessStatus::NotReady);
    }

    #[tokio::test]
    async fn a_restarted_task_is_degraded_until_it_has_run_for_a_while() {
        let short = Duration::from_millis(20);
        let restarts = Restarts { first_pause: short, max_pause: 2 * short, probation: 5 * short };
        let (mut tasks, health) = supervisor(restarts);
        let (runs, fail) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counted, failing) = (runs.clone(), fail.clone());
        tasks.restart("drain", move || {
            let (run, fail) = (counted.fetch_add(1, Ordering::Relaxed), failing.clone());
            async move {
                match run {
                    // Before the future exists is covered as well, see below.
                    0..=2 => panic!("on purpose"),
                    3 => {}
                    _ => fail.notified().await,
                }
            }
        });
        until(&health, PartState::Degraded, "\"drain panicked and is restarted\"").await;
        until(&health, PartState::Ok, "").await;
        assert_eq!(runs.load(Ordering::Relaxed), 5);
        fail.notify_one();
        until(&health, PartState::Degraded, "\"drain ended and is restarted\"").await;
        until(&health, PartState::Ok, "").await;
        assert_eq!(runs.load(Ordering::Relaxed), 6);
    }

    #[tokio::test]
    async fn a_panic_while_the_task_is_made_is_caught_too() {
        fn made() -> std::future::Pending<()> {
            panic!("on purpose")
        }
        let (mut tasks, health) = supervisor(Restarts::DEFAULT);
        tasks.restart("clock", made);
        until(&health, PartState::Degraded, "clock panicked").await;
    }

    #[tokio::test]
    async fn a_stop_is_no_failure() {
        let (mut tasks, health) = supervisor(Restarts::DEFAULT);
        let close = Arc::new(Notify::new());
        let closed = close.clone();
        tasks.serve("http", async move { closed.notified().await });
        tasks.run("topics", PartState::Down, std::future::pending());
        tasks.stop();
        close.notify_one();
        tasks.servers_ended(SOON).await;
        assert_eq!(health.tasks.state(), PartState::Ok);
    }
}
