//! `serve --drain-only`: producer, spool and drain without the port that providers call. For a spool whose service is gone
//! permanently, or that must be empty before a change.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::supervisor::Supervisor;
use super::{CLOSE, FLUSH, holds, open_spool, places, start_kafka_tasks, tuning};
use crate::config::LoadedConfig;
use crate::deliver::Deliverer;
use crate::http::{self, Access, Operator, Phase, PortSecurity};
use crate::kafka::{Admin, ClusterConfig, Producer};
use crate::observe::health::{Health, PartState};
use crate::observe::metrics;
use crate::observe::metrics::lag::LagSeries;
use crate::sources::Sources;
use crate::spool::{Spool, Stats};

/// Between two checks whether the spool is empty.
const INTERVAL: Duration = Duration::from_millis(100);

/// A service that only drains the spool.
pub struct DrainOnly {
    /// The address of the operator's port, with the port number that the system chose for 0.
    pub admin: SocketAddr,
    spool: Arc<Spool>,
    producer: Arc<Producer>,
    phase: watch::Sender<Phase>,
    tasks: Supervisor,
}

impl DrainOnly {
    /// Starts the tasks without waiting for Kafka.
    ///
    /// # Errors
    /// If there is no spool or another process has it open; a property that librdkafka refuses.
    pub async fn start(loaded: &LoadedConfig, admin: TcpListener) -> anyhow::Result<Self> {
        let config = &loaded.config;
        let dir =
            config.spool.dir.as_deref().context("there is no spool to drain: [spool] dir is not set")?;
        // Opening would create it: a misspelt directory would count as an empty spool.
        anyhow::ensure!(dir.is_dir(), "there is no spool to drain: {} does not exist", dir.display());
        metrics::init();
        let mut problems = loaded.problems();
        // Draining takes minutes, so there is no reload.
        let ports = PortSecurity::read(loaded, &mut problems);
        let ports = Arc::new(ArcSwap::from_pointee(problems.or(ports)?));
        let health = Health::new();
        health.service.put(PartState::Down, "draining the spool only: no deliveries are accepted");
        // Nothing here checks these, except for topics that rows wait for: without this they would stay "starting", and
        // the alerts about parts would fire.
        for part in [&health.topics, &health.schemas, &health.durability] {
            part.put(PartState::Ok, "not checked while draining the spool only");
        }
        let connection =
            ClusterConfig::new(config.kafka.bootstrap_servers.clone(), loaded.properties.clone());
        let producer = Arc::new(Producer::new(&connection, tuning(config), health.clone())?);
        let spool = open_spool(config, &health).await?.context("there is no spool")?;
        let deliverer = Deliverer::new(producer.clone(), Some(spool.clone()), health.clone());
        let sources = Arc::new(ArcSwap::from_pointee(Sources::without_routes(loaded)));
        let holds = holds::Policies { sources, asked: Arc::default() };
        let servers = config.kafka.bootstrap_servers.clone();
        let policies = holds::reading(&holds, Admin::new(&connection)?, servers, health.clone());
        let mut tasks = Supervisor::new(health.clone());
        start_kafka_tasks(&mut tasks, &producer, Some(&spool), &health);
        tasks.restart("compaction", policies);
        if let Some(drain) = deliverer.drains(Arc::new(holds)) {
            tasks.restart("drain", move || drain().run());
        }
        let (phase, phases) = watch::channel(Phase::Serving);
        let connections = places::admin_alone(config);
        let address = admin.local_addr()?;
        let operator = Operator {
            health,
            spool: Some(spool.clone()),
            sources: Arc::default(),
            in_flight: TaskTracker::new(),
            lag: LagSeries::default(),
            config: None,
            access: Arc::new(Access::new(&config.admin, ports.clone())),
            started: Timestamp::now(),
        };
        let router = http::admin(operator);
        tasks.serve("admin", http::serve(admin, router, connections, http::admin_tls(ports), phases));
        Ok(Self { admin: address, spool, producer, phase, tasks })
    }

    /// Resolves when no live row is left and all published rows are deleted.
    ///
    /// # Errors
    /// If a thread of the spool has ended: no further row would be published or deleted.
    pub async fn emptied(&self) -> anyhow::Result<()> {
        loop {
            let stats = self.spool.stats();
            if stats.live == 0 {
                return Ok(());
            }
            anyhow::ensure!(stats.ended.is_none(), "{}", stats.health().1);
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Stops, each step bounded, and returns what is left in the spool.
    ///
    /// # Errors
    /// If flushing the producer panics.
    pub async fn stop(mut self) -> anyhow::Result<Stats> {
        self.tasks.stop();
        self.phase.send_replace(Phase::Closing);
        self.tasks.servers_ended(CLOSE).await;
        let producer = self.producer;
        // Rows that are not acknowledged stay in the spool, whether or not Kafka has them.
        let _ = tokio::task::spawn_blocking(move || producer.flush(FLUSH)).await?;
        if let Err(error) = self.spool.close(CLOSE).await {
            tracing::warn!("cannot close the spool: {error:#}");
        }
        Ok(self.spool.stats())
    }
}
