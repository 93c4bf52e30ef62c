//! The parts that `hookstream dev` embeds, so that it needs nothing else: a schema registry, an in-memory Kafka,
//! and a forwarder that makes Kafka available at the usual address.

pub mod forward;
pub mod registry;

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::http::{self, ConnectionLimits, Phase};
use crate::kafka::embedded::Embedded;
use forward::{Forwarder, bind_or_free};

/// Kafka's address, if the port is free.
pub const KAFKA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9092);
/// The registry's address, likewise.
pub const REGISTRY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8081);

/// The embedded Kafka and registry, which run until dropped.
pub struct DevParts {
    /// The address of Kafka for clients.
    pub kafka: SocketAddr,
    /// The address of the registry for clients.
    pub registry: SocketAddr,
    /// Describes each address that was in use and therefore replaced.
    pub moved: Vec<String>,
    embedded: Embedded,
    _forwarder: Forwarder,
    _registry: JoinHandle<()>,
    _phase: watch::Sender<Phase>,
}

impl DevParts {
    /// Starts both, each at its usual address or, if that is in use, at a free port.
    ///
    /// # Errors
    /// If no port is available.
    pub async fn start(limits: ConnectionLimits) -> anyhow::Result<Self> {
        let embedded = Embedded::start()?;
        let target = embedded.bootstrap_servers().parse().context("the embedded Kafka's address")?;
        let mut moved = Vec::new();
        let kafka = bind_or_fallback("kafka", KAFKA, &mut moved).await?;
        let registry = bind_or_fallback("registry", REGISTRY, &mut moved).await?;
        let (phase, phases) = watch::channel(Phase::Serving);
        Ok(Self {
            kafka: kafka.local_addr()?,
            registry: registry.local_addr()?,
            moved,
            embedded,
            _forwarder: Forwarder::spawn(kafka, target),
            _registry: tokio::spawn(http::serve(registry, registry::router(), limits, || None, phases)),
            _phase: phase,
        })
    }

    /// Kafka's own address: the service itself needs no forwarder.
    pub fn bootstrap_servers(&self) -> String {
        self.embedded.bootstrap_servers()
    }

    /// Creates a topic; the embedded Kafka has no topic administration.
    ///
    /// # Errors
    /// If librdkafka refuses the topic.
    pub fn create_topic(&self, name: &str, partitions: u32) -> anyhow::Result<()> {
        Ok(self.embedded.create_topic(name, i32::try_from(partitions).unwrap_or(i32::MAX))?)
    }
}

/// Binds `address`, or a free port if it is in use, which is then recorded in `moved`.
///
/// # Errors
/// If no port is available.
pub async fn bind_or_fallback(
    name: &str,
    address: SocketAddr,
    moved: &mut Vec<String>,
) -> anyhow::Result<tokio::net::TcpListener> {
    let (listener, taken) =
        bind_or_free(address).await.with_context(|| format!("cannot listen for {name} on {address}"))?;
    if taken {
        moved.push(format!("{name}: {address} is in use, so {}", listener.local_addr()?));
    }
    Ok(listener)
}
