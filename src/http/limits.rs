//! What a port allows: connections, the life of a connection, requests.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::Networks;

/// The limits of a listener's connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// All open connections; beyond it, a waiting one is closed in favour of a new one.
    pub max_connections: usize,
    /// Connections of one client address; beyond it, a new one is closed at once. `None` for no separate limit.
    pub max_per_address: Option<usize>,
    /// Proxies whose connections serve many clients; `max_per_address` does not apply to them.
    pub trusted_proxies: Networks,
    /// The time from the first byte to the complete head; for a new connection, from its start. A TLS handshake before
    /// it may take the same time again.
    pub head_timeout: Duration,
    /// The size of the head, in bytes.
    pub max_head: usize,
}

impl ConnectionLimits {
    pub(super) fn most_of(&self, address: IpAddr) -> usize {
        let bound = self.max_per_address.filter(|_| !self.trusted_proxies.contains(address));
        bound.unwrap_or(usize::MAX)
    }
}

/// The limits of a connection: when it reaches age or requests, its next answer is its last. Each connection gets its own
/// limits, up to a quarter lower than these, so that connections opened together do not end together.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// The time since it was accepted.
    pub age: Duration,
    /// The number of answers.
    pub requests: u32,
    /// The time between an answer and the first byte of the next request.
    pub idle: Duration,
}

impl Default for Lifetime {
    fn default() -> Self {
        Self { age: Duration::from_secs(600), requests: 10_000, idle: Duration::from_secs(75) }
    }
}

/// The limits of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// The size of a body, in bytes.
    pub max_body: usize,
    /// The size of all bodies in memory, from arrival to the end of their deliveries, in bytes; beyond it, 503.
    pub max_body_bytes: usize,
    /// The time from the complete head to the complete body.
    pub body_timeout: Duration,
    /// The part of the deadline that is not available to Kafka.
    pub reserve: Duration,
}
