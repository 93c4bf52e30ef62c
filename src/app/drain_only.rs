//! `serve --drain-only`: producer, spool and drain without the port that providers call. For a
//! spool whose service is gone for good, or that must be empty before a change.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::{CLOSE, FLUSH, holds, open_spool, places, probe_kafka, tuning, watch_spool};
use crate::config::LoadedConfig;
use crate::deliver::Deliverer;
use crate::http::{self, Access, Operator, Phase, PortSecurity};
use crate::kafka::{Admin, ClusterConfig, Producer};
use crate::observe::health::{Health, PartState};
use crate::observe::metrics;
use crate::spool::{Spool, Stats};

/// Between two looks whether it is done.
const LOOK: Duration = Duration::from_millis(100);

/// A spool on its way out.
pub struct DrainOnly {
    /// The operator's port that was really taken.
    pub admin: SocketAddr,
    spool: Arc<Spool>,
    producer: Arc<Producer>,
    phase: watch::Sender<Phase>,
    background: Vec<JoinHandle<()>>,
    server: JoinHandle<()>,
}

impl DrainOnly {
    /// Starts the tasks. Kafka is not waited for.
    ///
    /// # Errors
    /// When there is no spool, or another process has it; a property that librdkafka refuses.
    pub async fn start(loaded: &LoadedConfig, admin: TcpListener) -> anyhow::Result<Self> {
        let config = &loaded.config;
        let dir =
            config.spool.dir.as_deref().context("there is no spool to drain: [spool] dir is not set")?;
        // A directory made for a slip of the pen would be found empty.
        anyhow::ensure!(dir.is_dir(), "there is no spool to drain: {} does not exist", dir.display());
        metrics::init();
        let mut problems = loaded.problems();
        // For a minute's work nothing is read again.
        let ports = PortSecurity::read(loaded, &mut problems);
        let ports = Arc::new(ArcSwap::from_pointee(problems.or(ports)?));
        let health = Health::new();
        health.service.put(PartState::Down, "draining the spool only: no deliveries are taken");
        let connection =
            ClusterConfig::new(config.kafka.bootstrap_servers.clone(), loaded.properties.clone());
        let producer = Arc::new(Producer::new(&connection, tuning(config), health.clone())?);
        let spool = open_spool(config, &health).await?.context("there is no spool")?;
        let deliverer = Deliverer::new(producer.clone(), Some(spool.clone()), health.clone());
        let (holds, policies) = holds::of_config(config, Admin::new(&connection)?, health.clone());
        let mut background = vec![
            policies,
            tokio::spawn(producer.clone().supervise()),
            tokio::spawn(probe_kafka(producer.clone(), health.clone())),
            tokio::spawn(watch_spool(spool.clone(), health.clone())),
        ];
        background.extend(deliverer.drain(holds).map(|drain| tokio::spawn(drain.run())));
        let (phase, phases) = watch::channel(Phase::Serving);
        let few = places::admin_alone(config);
        let address = admin.local_addr()?;
        let operator = Operator {
            health,
            spool: Some(spool.clone()),
            sources: Arc::default(),
            in_flight: TaskTracker::new(),
            config: None,
            ports: ports.clone(),
            access: Arc::new(Access::new(&config.admin)),
            started: Timestamp::now(),
        };
        let router = http::admin(operator);
        let server = tokio::spawn(http::serve(admin, router, few, http::admin_tls(ports), phases));
        Ok(Self { admin: address, spool, producer, phase, background, server })
    }

    /// Resolves when no live row is left and what was published is deleted.
    pub async fn emptied(&self) {
        while self.spool.stats().live > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stops, each step bounded; what is left.
    ///
    /// # Errors
    /// When the producer cannot be flushed off the runtime.
    pub async fn stop(self) -> anyhow::Result<Stats> {
        for task in &self.background {
            task.abort();
        }
        self.phase.send_replace(Phase::Closing);
        let _ = tokio::time::timeout(CLOSE, self.server).await;
        let producer = self.producer;
        // What is not acknowledged stays in the spool, whatever becomes of it.
        let _ = tokio::task::spawn_blocking(move || producer.flush(FLUSH)).await?;
        if let Err(error) = self.spool.close(CLOSE).await {
            tracing::warn!("at the end: {error:#}");
        }
        Ok(self.spool.stats())
    }
}
