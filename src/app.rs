//! The running service: start, reload, and a stop that loses nothing. Every background task is on this
//! screen.

mod clock;
mod compile;
mod drain_only;
mod holds;
mod lag;
mod listeners;
mod places;
mod reload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

pub(crate) use compile::SCHEMAS;
pub use compile::{Compiled, compile, compile_service};
pub use drain_only::DrainOnly;
pub use listeners::{Listeners, bind_admin};
use places::Places;
pub use reload::{LOOK as RELOAD_LOOK, Reload, warn};
use reload::{Reloader, in_force};

use crate::config::{Config, LoadedConfig};
use crate::deliver::Deliverer;
use crate::delivery::Deadline;
use crate::http::{
    self, Access, BodyBudget, ClientResolver, ConnectionLimits, DeliveryObserver, Ingest, Limits, Operator,
    Phase, Verification,
};
use crate::kafka::{Admin, ClusterConfig, Producer, Tuning};
use crate::observe::health::{Health, PartState};
use crate::observe::traces::Traces;
use crate::observe::{metrics, metrics_upkeep};
use crate::pipeline::Pipeline;
use crate::provision::{self, DurabilityMonitor, Provisioner, SchemaRegistrar};
use crate::schema::{IdCache, Registry};
use crate::sources::Sources;
use crate::spool::{self, Spool};

/// Bytes that SQLite's log may grow to while somebody else reads the spool for long.
const MAX_WAL: u64 = 64 * 1024 * 1024;

/// What librdkafka may take to hand over its last records, once nothing is in flight for us; and beside it,
/// the collector to take the last spans.
const FLUSH: Duration = Duration::from_secs(2);

/// What may wait in librdkafka.
const QUEUE_KIB: u32 = 256 * 1024;

/// Between two looks for a Kafka that is not there, and the bound of each.
const PROBE: Duration = Duration::from_secs(1);

/// The running service.
pub struct App {
    /// Where providers call; the port that was really taken.
    pub hooks: SocketAddr,
    /// The operator's port, likewise.
    pub admin: SocketAddr,
    /// How it does.
    pub health: Arc<Health>,
    /// Reads the configuration again when asked.
    pub reload: Reload,
    drain_delay: Duration,
    shutdown_timeout: Duration,
    phase: watch::Sender<Phase>,
    deliveries: TaskTracker,
    servers: Vec<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
    spool: Option<Arc<Spool>>,
    producer: Arc<Producer>,
    traces: Option<Traces>,
}

/// What the spool may take to commit what waits.
const CLOSE: Duration = Duration::from_secs(5);

impl App {
    /// Starts the tasks. Kafka and the registry are not waited for:
    /// `health` says when they are there. Until then deliveries are answered 503, unless there is a
    /// spool, and in it the ids of an earlier run.
    ///
    /// # Errors
    /// Problems of the configuration; a property that librdkafka refuses.
    pub async fn start(
        mut loaded: LoadedConfig,
        listeners: Listeners,
        watch: DeliveryObserver,
    ) -> anyhow::Result<Self> {
        // Before the sources, which register their metrics.
        metrics::init();
        let Compiled { sources, schemas, ports, collector } = compile_service(&loaded)?;
        let ends = ports.warnings(Timestamp::now());
        ends.iter().for_each(|warning| tracing::warn!("{warning}"));
        loaded.warnings.extend(ends);
        ports.tell();
        let loaded = Arc::new(loaded);
        let config = &loaded.config;
        log_sources(config, &sources);
        // Each connection is a file: the soft limit of many systems is below our own bound.
        let places = Places::new(config);

        let health = Health::new();
        let connection =
            ClusterConfig::new(config.kafka.bootstrap_servers.clone(), loaded.properties.clone());
        let producer = Arc::new(Producer::new(&connection, tuning(config), health.clone())?);
        let sources = Arc::new(ArcSwap::from_pointee(sources));
        let spool = open_spool(config, &health).await?;
        let reserve = if spool.is_some() { config.spool.reserve } else { Deadline::ANSWER };
        let deliverer = Deliverer::new(producer.clone(), spool.clone(), health.clone());
        let mut background = vec![
            tokio::spawn(producer.clone().supervise()),
            tokio::spawn(probe_kafka(producer.clone(), health.clone())),
            tokio::spawn(metrics_upkeep::run(metrics_upkeep::EVERY)),
            tokio::spawn(clock::watch(health.clone())),
        ];
        background.extend(spool.clone().map(|spool| tokio::spawn(watch_spool(spool, health.clone()))));
        let asked = Arc::new(Notify::new());
        let holds = holds::of_sources(&sources, &asked);
        background.extend(deliverer.drain(holds).map(|drain| tokio::spawn(drain.run())));
        let recoveries = deliverer.recoveries();
        let pipeline = Arc::new(Pipeline::new(config.http.max_in_flight, deliverer));
        let registry = Registry::new(&loaded)?.telling(health.clocks.clone());
        // In the spool's directory, which is ours alone by now.
        let pins = config.spool.dir.as_ref().map(|dir| IdCache::open(dir, registry.url()));
        let (swap, reloads) = mpsc::channel(1);
        let in_force = Arc::new(ArcSwap::from_pointee(in_force(&loaded, &schemas)));
        let ports_in_use = Arc::new(ArcSwap::from_pointee(ports.clone()));
        let (reloader, reload) = Reloader::new(
            loaded.clone(),
            schemas.clone(),
            ports.clone(),
            reload::SwapHandles { sources: swap, in_force: in_force.clone(), ports: ports_in_use.clone() },
        );
        let subjects =
            SchemaRegistrar::new(loaded.clone(), registry, sources.clone(), health.clone(), schemas, pins);
        let lag = lag::LagExporter::new(&config.lag, &connection, sources.clone())?;
        let admin = Admin::new(&connection)?;
        let durability = DurabilityMonitor {
            admin: admin.clone(),
            sources: sources.clone(),
            health: health.clone(),
            reloads: subjects.swaps(),
            recoveries,
        };
        let provisioner = Provisioner {
            admin,
            loaded: loaded.clone(),
            producer: producer.clone(),
            sources: sources.clone(),
            health: health.clone(),
            reloads: subjects.swaps(),
            asked,
        };

        let traces =
            collector.map(|collector| Traces::start(&collector, ports.hooks.is_some())).transpose()?;
        let (tracer, traces) = traces.unzip();
        let Listeners { hooks, admin } = listeners;
        let (phase, phases) = watch::channel(Phase::Serving);
        let deliveries = TaskTracker::new();
        let limits = Limits {
            max_body: config.http.max_body,
            max_body_bytes: config.http.max_body_bytes,
            body_timeout: config.http.body_timeout,
            reserve,
        };
        let (refusals, diagnoses) = http::refusals(sources.clone());
        let operator = Operator {
            health: health.clone(),
            spool: spool.clone(),
            sources: sources.clone(),
            in_flight: deliveries.clone(),
            config: Some(in_force.clone()),
            ports: ports_in_use.clone(),
            access: Arc::new(Access::new(&config.admin)),
            started: Timestamp::now(),
        };
        let ingest = Ingest {
            sources,
            pipeline,
            phase: phases.clone(),
            tasks: deliveries.clone(),
            limits,
            bodies: BodyBudget::default(),
            verification: Verification::default(),
            callers: ClientResolver::new(&config.http),
            clocks: health.clocks.clone(),
            watch,
            refusals,
            tracer,
        };
        let (of_hooks, of_admin) = (places.hooks.clone(), places.admin.clone());

        background.push(tokio::spawn(places.watch(health.clone())));
        background.extend(lag.map(|lag| tokio::spawn(lag.run())));
        background.push(tokio::spawn(provisioner.run()));
        background.push(tokio::spawn(durability.run()));
        background.push(tokio::spawn(subjects.run(provision::RECHECK, reloads)));
        background.push(tokio::spawn(reloader.run()));
        background.push(tokio::spawn(diagnoses.run()));
        Ok(Self {
            hooks: hooks.local_addr()?,
            admin: admin.local_addr()?,
            servers: vec![
                tokio::spawn(http::serve(
                    hooks,
                    http::hooks(Arc::new(ingest)),
                    of_hooks,
                    http::hooks_tls(ports_in_use.clone()),
                    phases.clone(),
                )),
                tokio::spawn(http::serve(
                    admin,
                    http::admin(operator),
                    of_admin,
                    http::admin_tls(ports_in_use),
                    phases,
                )),
            ],
            background,
            health,
            reload,
            drain_delay: config.http.drain_delay,
            shutdown_timeout: config.http.shutdown_timeout,
            phase,
            spool,
            deliveries,
            producer,
            traces,
        })
    }

    /// What the spool holds; `None` without one.
    pub fn spool(&self) -> Option<spool::Stats> {
        self.spool.as_ref().map(|spool| spool.stats())
    }

    /// From now on looks `every` so often whether the configuration reads otherwise, and takes it.
    pub fn watch_files(&mut self, every: Duration) {
        self.background.push(tokio::spawn(self.reload.clone().watch(every)));
    }

    /// Deliveries between their complete body and their end.
    pub fn in_flight(&self) -> usize {
        self.deliveries.len()
    }

    /// Stops in order, each step bounded: not ready, but still serving for the drain delay; then
    /// new deliveries are answered 503; what is in flight is finished; connections are closed;
    /// the producer is flushed.
    ///
    /// # Errors
    /// When something was still in flight at the end of the bound: it was answered 503, and may
    /// or may not be written.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.health.service.put(PartState::Down, "shutting down");
        self.phase.send_replace(Phase::Draining);
        tokio::time::sleep(self.drain_delay).await;
        self.phase.send_replace(Phase::Refusing);
        for task in &self.background {
            task.abort();
        }
        self.deliveries.close();
        let bound = self.shutdown_timeout;
        let finished = tokio::time::timeout(bound, self.deliveries.wait()).await;
        self.phase.send_replace(Phase::Closing);
        for server in self.servers {
            let _ = tokio::time::timeout(bound, server).await;
        }
        // Dropping the producer joins its threads: not on a runtime thread either.
        let producer = self.producer;
        let flushing = tokio::task::spawn_blocking(move || producer.flush(FLUSH));
        if let Some(traces) = self.traces {
            traces.stop(FLUSH).await;
        }
        let flushed = flushing.await?;
        if let Err(error) = flushed {
            // Answered 503 long ago; each may still be written, as a duplicate of its retry.
            tracing::warn!("at the end: {error:#}");
        }
        if let Some(spool) = &self.spool {
            let left = spool.stats().live;
            if left > 0 {
                tracing::warn!(rows = left, "left in the spool; the next start goes on with them");
            }
            if let Err(error) = spool.close(CLOSE).await {
                tracing::warn!("at the end: {error:#}");
            }
        }
        finished.map_err(|_| anyhow::anyhow!("deliveries were still in flight after {bound:?}"))
    }
}

/// The bounds of the hooks port's connections. Public for the benchmarks, whose other contenders have
/// the same.
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

/// What the producer must respect. Public for the benchmarks, as [`Producer::config`].
pub fn tuning(config: &Config) -> Tuning {
    let longest = config.source.values().map(|source| source.ack_deadline).max().unwrap_or_default();
    let max_record = provision::max_record(config.http.max_body);
    Tuning { kafka_budget: longest, max_record, queue_kib: QUEUE_KIB }
}

/// One line for each source: what it takes, and its share of what all have together.
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

/// Of the spool's bounds, the part that one source may fill.
fn spool_share(config: &Config) -> f64 {
    if config.source.len() > 1 { config.spool.source_share } else { 1.0 }
}

/// Opens the spool, if one is configured; what it found is said.
async fn open_spool(config: &Config, health: &Health) -> anyhow::Result<Option<Arc<Spool>>> {
    let (rules, share) = (&config.spool, spool_share(config));
    let Some(dir) = rules.dir.clone() else {
        tracing::info!("no spool ([spool] dir is not set): while Kafka is out, deliveries are answered 503");
        return Ok(None);
    };
    // A little less or more than the share is no matter.
    let of = |bound: u64| ((bound as f64 * share) as u64).max(1);
    let limits = spool::Limits {
        max_bytes: rules.max_size as u64,
        max_rows: rules.max_rows,
        source_bytes: of(rules.max_size as u64),
        source_rows: of(rules.max_rows),
        max_wal: MAX_WAL,
        min_free: rules.min_free as u64,
        reserve: spool::RESERVE,
    };
    if let Some(past) = clock::newest(&dir) {
        health.clocks.learn_past(past);
    }
    let (spool, opened) = tokio::task::spawn_blocking(move || Spool::open(&dir, limits)).await??;
    tracing::info!(?opened, "spool");
    health.enable_spool();
    Ok(Some(Arc::new(spool)))
}

/// Between two looks at the spool, for metrics and readiness.
const LOOK: Duration = Duration::from_secs(1);

/// Tells metrics and readiness how the spool does. Its own log lines say so, too.
async fn watch_spool(spool: Arc<Spool>, health: Arc<Health>) {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        let stats = spool.stats();
        metrics::spool(stats.live, stats.parked, stats.bytes, stats.oldest_ms);
        let (state, why) = stats.health();
        metrics::spool_health(state != PartState::Down, stats.salvaged.len());
        health.spool.put(state, why);
    }
}

/// Asks for Kafka as long as it is not there.
async fn probe_kafka(producer: Arc<Producer>, health: Arc<Health>) {
    loop {
        tokio::time::sleep(PROBE).await;
        if health.kafka.state() != PartState::Ok {
            let producer = producer.clone();
            // It ends by itself at its bound.
            let _ = tokio::task::spawn_blocking(move || producer.probe(PROBE)).await;
        }
    }
}
