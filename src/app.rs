//! The running service: start, reload, and a stop that loses nothing. `App::start_tasks` has every background task.

mod clock;
mod compile;
mod drain_only;
mod holds;
mod lag;
mod listeners;
mod panics;
mod places;
mod reload;
mod supervisor;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::signal::unix::Signal;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

pub(crate) use compile::SCHEMAS;
pub use compile::{Compiled, compile, compile_service};
pub use drain_only::DrainOnly;
use lag::LagExporter;
pub use listeners::{Listeners, bind_admin};
pub use panics::log_panics;
use places::ConnectionPlaces;
pub use reload::{LOOK as RELOAD_LOOK, Reload, warn};
use reload::{Reloader, in_force};
use supervisor::Supervisor;

use crate::config::{Config, LoadedConfig};
use crate::deliver::{Deliverer, Drain};
use crate::delivery::Deadline;
use crate::http::{
    self, Access, BodyBudget, ClientResolver, ConnectionLimits, CurrentTls, DeliveryObserver, Diagnoser,
    DiagnosisQueue, Ingest, Operator, Phase, RequestLimits, Verification,
};
use crate::kafka::{Admin, ClusterConfig, Producer, Tuning};
use crate::observe::error_chain::ErrorChain;
use crate::observe::health::{Health, PartState};
use crate::observe::metrics::lag::LagSeries;
use crate::observe::traces::{Tracer, Traces};
use crate::observe::{metrics, metrics_upkeep, status};
use crate::pipeline::Pipeline;
use crate::provision::{self, DurabilityMonitor, Provisioner, Reloaded, SchemaRegistrar};
use crate::schema::{IdCache, Registry};
use crate::sources::Sources;
use crate::spool::{self, Spool};

/// How long librdkafka may take to send its last records once no delivery is in flight, and at the same time the
/// collector to accept the last spans.
const FLUSH: Duration = Duration::from_secs(2);

/// Between two probes while no broker answers, and the timeout of each.
const PROBE: Duration = Duration::from_secs(1);

/// The running service.
pub struct App {
    /// The address of the port that providers call, with the port number that the system chose for 0.
    pub hooks: SocketAddr,
    /// The address of the operator's port, likewise.
    pub admin: SocketAddr,
    /// Readiness, part by part.
    pub health: Arc<Health>,
    /// Reads the configuration again on request.
    pub reload: Reload,
    drain_delay: Duration,
    shutdown_timeout: Duration,
    phase: watch::Sender<Phase>,
    deliveries: TaskTracker,
    tasks: Supervisor,
    spool: Option<Arc<Spool>>,
    producer: Arc<Producer>,
    traces: Option<Traces>,
}

/// How long the spool may take to commit what is queued.
const CLOSE: Duration = Duration::from_secs(5);

/// What the tasks and the ports share.
struct Parts {
    loaded: Arc<LoadedConfig>,
    health: Arc<Health>,
    producer: Arc<Producer>,
    spool: Option<Arc<Spool>>,
    sources: Arc<ArcSwap<Sources>>,
    pipeline: Arc<Pipeline>,
    places: Arc<ConnectionPlaces>,
    in_force: Arc<status::CurrentConfig>,
    tls: CurrentTls,
    refusals: DiagnosisQueue,
    tracer: Option<Tracer>,
    traces: Option<Traces>,
    lag_series: LagSeries,
    reload: Reload,
}

/// What the background tasks own: taken apart when they start.
struct TaskParts {
    drains: Option<Box<dyn Fn() -> Drain + Send + Sync>>,
    provisioner: Provisioner,
    durability: DurabilityMonitor,
    registrar: SchemaRegistrar,
    reloads: mpsc::Receiver<Reloaded>,
    reloader: Reloader,
    lag: Option<LagExporter>,
    diagnoser: Diagnoser,
}

impl App {
    /// Starts the service. It waits neither for Kafka nor for the registry: `health` reports when they answer. Until
    /// then deliveries are answered 503, unless there is a spool, and in it the schema ids of an earlier run.
    ///
    /// # Errors
    /// Problems of the configuration; a property that librdkafka refuses.
    pub async fn start(
        loaded: LoadedConfig,
        listeners: Listeners,
        observer: DeliveryObserver,
    ) -> anyhow::Result<Self> {
        let (parts, task_parts) = Self::build(loaded).instrument(tracing::info_span!("build")).await?;
        let tasks = tracing::info_span!("tasks").in_scope(|| Self::start_tasks(&parts, task_parts));
        tracing::info_span!("ports").in_scope(|| Self::open_ports(parts, tasks, listeners, observer))
    }

    /// Makes all parts from the configuration and opens the spool. Nothing runs yet except librdkafka's threads and the
    /// spool's.
    async fn build(mut loaded: LoadedConfig) -> anyhow::Result<(Parts, TaskParts)> {
        // Before the sources, which register their metrics.
        metrics::init();
        let Compiled { sources, schemas, ports, collector } = compile_service(&loaded)?;
        let expiring = ports.warnings(Timestamp::now());
        expiring.iter().for_each(|warning| tracing::warn!("{warning}"));
        loaded.warnings.extend(expiring);
        ports.tell();
        let loaded = Arc::new(loaded);
        let config = &loaded.config;
        log_sources(config, &sources);
        // Each connection is a file: the soft limit of many systems is below `http.max_connections`.
        let places = Arc::new(ConnectionPlaces::new(config));

        let health = Health::new();
        let cluster = ClusterConfig::new(config.kafka.bootstrap_servers.clone(), loaded.properties.clone());
        let producer = Arc::new(Producer::new(&cluster, tuning(config), health.clone())?);
        let sources = Arc::new(ArcSwap::from_pointee(sources));
        let spool = open_spool(config, &health).await?;
        let deliverer = Deliverer::new(producer.clone(), spool.clone(), health.clone());
        let topics_in_doubt = Arc::new(Notify::new());
        let holds = holds::Policies { sources: sources.clone(), asked: topics_in_doubt.clone() };
        let drains = deliverer
            .drains(Arc::new(holds))
            .map(|drain| -> Box<dyn Fn() -> Drain + Send + Sync> { Box::new(drain) });
        let recoveries = deliverer.recoveries();
        let pipeline = Arc::new(Pipeline::new(config.http.max_in_flight, deliverer));

        let registry = Registry::new(&loaded)?.telling(health.clocks.clone());
        // In the spool's directory, which this process has locked by now.
        let pins = config.spool.dir.as_ref().map(|dir| IdCache::open(dir, registry.url()));
        let (swap, reloads) = mpsc::channel(1);
        let in_force = Arc::new(ArcSwap::from_pointee(in_force(&loaded, &schemas)));
        let tls = Arc::new(ArcSwap::from_pointee(ports.clone()));
        let swaps = reload::SwapHandles { sources: swap, in_force: in_force.clone(), ports: tls.clone() };
        let (reloader, reload) = Reloader::new(loaded.clone(), schemas.clone(), ports.clone(), swaps);
        let registrar =
            SchemaRegistrar::new(loaded.clone(), registry, sources.clone(), health.clone(), schemas, pins);

        let admin = Admin::new(&cluster)?;
        let durability = DurabilityMonitor {
            admin: admin.clone(),
            sources: sources.clone(),
            spool: config.spool.clone(),
            health: health.clone(),
            reloads: registrar.swaps(),
            recoveries,
        };
        let provisioner = Provisioner {
            admin,
            loaded: loaded.clone(),
            producer: producer.clone(),
            sources: sources.clone(),
            health: health.clone(),
            reloads: registrar.swaps(),
            asked: topics_in_doubt,
        };
        let lag_series = LagSeries::default();
        let lag = LagExporter::new(&config.lag, &cluster, sources.clone(), lag_series.clone())?;
        let (refusals, diagnoser) = http::refusals(sources.clone());
        let traces =
            collector.map(|collector| Traces::start(&collector, ports.hooks.is_some())).transpose()?;
        let (tracer, traces) = traces.unzip();
        let tasks =
            TaskParts { drains, provisioner, durability, registrar, reloads, reloader, lag, diagnoser };
        let parts = Parts {
            loaded,
            health,
            producer,
            spool,
            sources,
            pipeline,
            places,
            in_force,
            tls,
            refusals,
            tracer,
            traces,
            lag_series,
            reload,
        };
        Ok((parts, tasks))
    }

    /// Starts every background task. Their names are in docs/operations.md.
    ///
    /// The service is `down` without a task that deliveries need sooner or later: new topics, schema ids. Without
    /// the reloader the old configuration stays in force, and a file that makes it panic would otherwise take all
    /// replicas out at once; so that is `degraded`, like a loss of what only measures or explains.
    fn start_tasks(parts: &Parts, tasks: TaskParts) -> Supervisor {
        let TaskParts { drains, provisioner, durability, registrar, reloads, reloader, lag, diagnoser } =
            tasks;
        let mut tasks = Supervisor::new(parts.health.clone());
        start_kafka_tasks(&mut tasks, &parts.producer, parts.spool.as_ref(), &parts.health);
        if let Some(drain) = drains {
            tasks.restart("drain", move || drain().run());
        }
        tasks.restart("metrics", || metrics_upkeep::run(metrics_upkeep::EVERY));
        let health = parts.health.clone();
        tasks.restart("clock", move || clock::watch(health.clone()));
        let (places, health) = (parts.places.clone(), parts.health.clone());
        tasks.restart("connections", move || places.clone().watch(health.clone()));

        tasks.run("topics", PartState::Down, provisioner.run());
        tasks.run("schemas", PartState::Down, registrar.run(provision::RECHECK, reloads));
        tasks.run("reload", PartState::Degraded, reloader.run());
        tasks.run("durability", PartState::Degraded, durability.run());
        if let Some(lag) = lag {
            tasks.run("lag", PartState::Degraded, lag.run());
        }
        tasks.run("diagnosis", PartState::Degraded, diagnoser.run());
        tasks
    }

    /// Starts the two HTTP servers.
    fn open_ports(
        parts: Parts,
        mut tasks: Supervisor,
        listeners: Listeners,
        observer: DeliveryObserver,
    ) -> anyhow::Result<Self> {
        let Parts { loaded, health, producer, spool, sources, tls, traces, reload, .. } = parts;
        let config = &loaded.config;
        let (phase, phases) = watch::channel(Phase::Serving);
        let deliveries = TaskTracker::new();
        let operator = Operator {
            health: health.clone(),
            spool: spool.clone(),
            sources: sources.clone(),
            in_flight: deliveries.clone(),
            lag: parts.lag_series,
            config: Some(parts.in_force),
            access: Arc::new(Access::new(&config.admin, tls.clone())),
            started: Timestamp::now(),
        };
        let limits = RequestLimits {
            max_body: config.http.max_body,
            max_body_bytes: config.http.max_body_bytes,
            body_timeout: config.http.body_timeout,
            reserve: if spool.is_some() { config.spool.reserve } else { Deadline::ANSWER },
        };
        let ingest = Ingest {
            sources,
            pipeline: parts.pipeline,
            phase: phases.clone(),
            tasks: deliveries.clone(),
            limits,
            bodies: BodyBudget::default(),
            verification: Verification::default(),
            callers: ClientResolver::new(&config.http),
            clocks: health.clocks.clone(),
            watch: observer,
            refusals: parts.refusals,
            tracer: parts.tracer,
        };
        let (hooks, admin) = (listeners.hooks.local_addr()?, listeners.admin.local_addr()?);
        let (hooks_connections, admin_connections) = (parts.places.hooks.clone(), parts.places.admin.clone());
        let router = http::hooks(Arc::new(ingest));
        let (hooks_tls, admin_tls) = (http::hooks_tls(tls.clone()), http::admin_tls(tls));
        tasks.serve(
            "http",
            http::serve(listeners.hooks, router, hooks_connections, hooks_tls, phases.clone()),
        );
        let router = http::admin(operator);
        tasks.serve("admin", http::serve(listeners.admin, router, admin_connections, admin_tls, phases));
        Ok(Self {
            hooks,
            admin,
            health,
            reload,
            drain_delay: config.http.drain_delay,
            shutdown_timeout: config.http.shutdown_timeout,
            phase,
            deliveries,
            tasks,
            spool,
            producer,
            traces,
        })
    }

    /// The spool's state; `None` without a spool.
    pub fn spool(&self) -> Option<spool::Stats> {
        self.spool.as_ref().map(|spool| spool.stats())
    }

    /// From now on checks once per `every` whether the configuration has changed, and reloads it.
    pub fn watch_files(&mut self, every: Duration) {
        let reload = self.reload.clone();
        self.tasks.restart("config-watch", move || reload.clone().watch(every));
    }

    /// From now on each signal reloads the configuration. The reload logs its outcome itself.
    pub fn reload_on(&mut self, mut signal: Signal) {
        let reload = self.reload.clone();
        self.tasks.run("reload-signal", PartState::Degraded, async move {
            while signal.recv().await.is_some() {
                let _ = reload.now().await;
            }
        });
    }

    /// Deliveries whose body is complete and that are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.deliveries.len()
    }

    /// Stops step by step, each step bounded: the service is not ready but still serves for the drain delay; then new
    /// deliveries are answered 503; deliveries in flight finish; connections are closed; the producer is flushed.
    ///
    /// # Errors
    /// If deliveries were still in flight at `http.shutdown_timeout`. They were answered 503, and may or may not be
    /// written.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.health.service.put(PartState::Down, "shutting down");
        self.phase.send_replace(Phase::Draining);
        tokio::time::sleep(self.drain_delay).await;
        self.phase.send_replace(Phase::Refusing);
        self.tasks.stop();
        self.deliveries.close();
        let bound = self.shutdown_timeout;
        let finished = tokio::time::timeout(bound, self.deliveries.wait()).await;
        self.phase.send_replace(Phase::Closing);
        self.tasks.servers_ended(bound).await;
        // Flushing blocks. So does dropping the producer, which joins its threads.
        let producer = self.producer;
        let flushing = tokio::task::spawn_blocking(move || producer.flush(FLUSH));
        if let Some(traces) = self.traces {
            traces.stop(FLUSH).await;
        }
        let flushed = flushing.await?;
        if let Err(error) = flushed {
            // These deliveries were answered 503 long ago. Kafka may still have the records; the retries are
            // duplicates.
            tracing::warn!("cannot flush the producer: {}", ErrorChain(&error));
        }
        if let Some(spool) = &self.spool {
            let left = spool.stats().live;
            if left > 0 {
                tracing::warn!(rows = left, "rows are left in the spool; the next start publishes them");
            }
            if let Err(error) = spool.close(CLOSE).await {
                tracing::warn!("cannot close the spool: {error:#}");
            }
        }
        finished.map_err(|_| anyhow::anyhow!("deliveries were still in flight after {bound:?}"))
    }
}

/// The connection limits of the port that providers call. Public for the benchmarks, which give the other contenders
/// the same limits.
pub fn connections(config: &Config) -> ConnectionLimits {
    let per_address = config.http.max_connections_per_address;
    let per_address = per_address.unwrap_or_else(|| places::per_address(config.http.max_connections));
    ConnectionLimits {
        max_connections: config.http.max_connections,
        max_per_address: Some(per_address),
        trusted_proxies: config.http.trusted_proxies.clone(),
        head_timeout: config.http.head_timeout,
        max_head: config.http.max_head,
    }
}

/// The producer's bounds, from the configuration. Public for the benchmarks, like [`Producer::config`].
pub fn tuning(config: &Config) -> Tuning {
    let longest = config.source.values().map(|source| source.ack_deadline).max().unwrap_or_default();
    let max_record = provision::max_record(config.http.max_body);
    Tuning { kafka_budget: longest, max_record, queue_kib: Tuning::QUEUE_KIB }
}

/// Logs one line for each source: its event types, and its share of the common limits.
fn log_sources(config: &Config, sources: &Sources) {
    for (name, rules) in &config.source {
        let Some(source) = sources.get(name) else { continue };
        tracing::info!(
            source = name,
            types = rules.types.join(","),
            others = source.topic_of_others(),
            max_in_flight = source.max_in_flight(),
            spool_share = config.spool.dir.as_ref().map(|_| spool_share(config)),
            "source is on"
        );
    }
}

/// The part of the spool's bounds that one source may fill.
fn spool_share(config: &Config) -> f64 {
    if config.source.len() > 1 { config.spool.source_share } else { 1.0 }
}

/// Opens the spool if one is configured, and logs its contents.
async fn open_spool(config: &Config, health: &Health) -> anyhow::Result<Option<Arc<Spool>>> {
    let (rules, share) = (&config.spool, spool_share(config));
    let Some(dir) = rules.dir.clone() else {
        tracing::info!(
            "no spool ([spool] dir is not set): while Kafka is unavailable, deliveries are answered 503"
        );
        return Ok(None);
    };
    // Rounding does not matter.
    let share_of = |bound: u64| ((bound as f64 * share) as u64).max(1);
    let limits = spool::SpoolLimits {
        max_bytes: rules.max_size as u64,
        max_rows: rules.max_rows,
        source_bytes: share_of(rules.max_size as u64),
        source_rows: share_of(rules.max_rows),
        max_wal: spool::MAX_WAL,
        min_free: rules.min_free as u64,
        reserve: spool::RESERVE,
    };
    if let Some(newest) = clock::newest_file_time(&dir) {
        health.clocks.learn_past(newest);
    }
    let at = dir.clone();
    let (spool, opened) = tokio::task::spawn_blocking(move || Spool::open(&at, limits)).await??;
    if opened.created {
        // Every other sign of an earlier spool would be on its disk, which may not be mounted.
        tracing::warn!(dir = %dir.display(), "created a new spool; if there was one before, its disk may not be mounted");
    }
    tracing::info!(live = opened.live, parked = opened.parked, bytes = opened.bytes, "the spool is open");
    health.enable_spool();
    Ok(Some(Arc::new(spool)))
}

/// Between two updates of the spool's metrics and readiness: readiness reports a change within a second.
const SPOOL_WATCH: Duration = Duration::from_millis(500);

/// Copies the spool's state to the metrics and to readiness. The spool logs its changes itself.
async fn watch_spool(spool: Arc<Spool>, health: Arc<Health>) {
    let mut ticks = tokio::time::interval(SPOOL_WATCH);
    loop {
        ticks.tick().await;
        let stats = spool.stats();
        metrics::spool(stats.live, stats.parked, stats.bytes, stats.oldest_ms);
        let (state, why) = stats.health();
        metrics::spool_health(state != PartState::Down, stats.salvaged.len());
        health.spool.put(state, why);
    }
}

/// Asks for a broker as long as none answers.
async fn probe_kafka(producer: Arc<Producer>, health: Arc<Health>) {
    loop {
        tokio::time::sleep(PROBE).await;
        if health.kafka.state() != PartState::Ok {
            let producer = producer.clone();
            // Bounded by `PROBE`. An error is a panic: the end of this task reports it.
            if tokio::task::spawn_blocking(move || producer.probe(PROBE)).await.is_err() {
                return;
            }
        }
    }
}

/// Starts the tasks that a service without the port of the providers has as well, except for the drain.
fn start_kafka_tasks(
    tasks: &mut Supervisor,
    producer: &Arc<Producer>,
    spool: Option<&Arc<Spool>>,
    health: &Arc<Health>,
) {
    let supervised = producer.clone();
    tasks.restart("producer", move || supervised.clone().supervise());
    let (probed, reported) = (producer.clone(), health.clone());
    tasks.restart("kafka-probe", move || probe_kafka(probed.clone(), reported.clone()));
    if let Some(spool) = spool.cloned() {
        let health = health.clone();
        tasks.restart("spool-watch", move || watch_spool(spool.clone(), health.clone()));
    }
}
