//! How many connections each port may have, and how many are open.

use std::sync::Arc;
use std::time::Duration;

use super::connections;
use crate::config::Config;
use crate::http::{ConnectionLimits, Connections, Lifetime};
use crate::observe::health::{Health, PartState};
use crate::observe::metrics;

/// Few people use the operator's port. If it is full, a new connection replaces another one, so a probe never waits.
const ADMIN: usize = 64;

/// After this time without a request, or within one, the operator's port closes a connection.
const ADMIN_IDLE: Duration = Duration::from_secs(5);

/// The page in a browser refreshes every three seconds; probes and scrapers call less often.
const ADMIN_LIFETIME: Lifetime = Lifetime { age: Duration::from_secs(300), requests: 200, idle: ADMIN_IDLE };

/// Open files that are not connections to the ports: the spool, the log, the runtime, connections to registry and
/// collector.
const OWN_FILES: usize = 64;

/// For each librdkafka client, a socket and a pipe that wakes its thread.
const FILES_PER_BROKER: usize = 16;

/// The least number of brokers to expect, also if `kafka.bootstrap_servers` names one.
const BROKERS: usize = 3;

/// Between two updates of metrics and readiness.
const INTERVAL: Duration = Duration::from_secs(1);

/// The divisor for one address's share of all connections, if the address is no trusted proxy. The share is at least
/// [`LEAST_PER_ADDRESS`], more than any provider opens from one address.
const PER_ADDRESS: usize = 8;

/// See [`PER_ADDRESS`].
const LEAST_PER_ADDRESS: usize = 256;

/// The connection tables of both ports.
pub(super) struct ConnectionPlaces {
    pub(super) hooks: Arc<Connections>,
    pub(super) admin: Arc<Connections>,
}

impl ConnectionPlaces {
    /// As many connections as the configuration asks for and the limit of open files allows. Raises that limit as far
    /// as possible, and logs a warning if it is still too low.
    pub(super) fn new(config: &Config) -> Self {
        let http = &config.http;
        // If raising it is forbidden, the current limit counts; if none can be read, there is none.
        let limit = rlimit::increase_nofile_limit(u64::MAX).or_else(|_| rlimit::Resource::NOFILE.get_soft());
        let limit = limit.unwrap_or(u64::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let own = own_files(&config.kafka.bootstrap_servers);
        let (hooks, admin) = share_out(limit, http.max_connections, own);
        if hooks < http.max_connections {
            tracing::warn!(
                limit,
                max_connections = hooks,
                "the limit of open files is {limit}: http.max_connections is lowered from {} to {hooks}, since \
                 hookstream also needs files for Kafka, the spool and the operator's port; raise it to {} or more (`ulimit -n`, LimitNOFILE= in \
                 a unit, --ulimit nofile= of a container)",
                http.max_connections,
                http.max_connections + ADMIN + own,
            );
        }
        let lifetime = Lifetime {
            age: http.max_connection_age,
            requests: http.max_requests_per_connection,
            idle: http.idle_timeout,
        };
        let limits = ConnectionLimits { max_connections: hooks, ..connections(config) };
        Self { hooks: Connections::new("http", limits, lifetime), admin: self::admin(config, admin) }
    }

    /// Reports the open connections to the metrics and to readiness.
    pub(super) async fn watch(self: Arc<Self>, health: Arc<Health>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            for table in [&self.hooks, &self.admin] {
                let load = table.load();
                metrics::connections(table.port(), load.open, load.idle, table.most());
            }
            let (load, max) = (self.hooks.load(), self.hooks.most());
            if load.full {
                let why = format!(
                    "full: {} of {max} open, {} idle; each new one replaces another",
                    load.open, load.idle
                );
                health.connections.set(PartState::Degraded, why);
            } else if health.connections.state() != PartState::Ok {
                health.connections.set(PartState::Ok, "");
            }
        }
    }
}

/// The connection table of the operator's port.
pub(super) fn admin(config: &Config, max_connections: usize) -> Arc<Connections> {
    let limits = connections(config);
    let head_timeout = limits.head_timeout.min(ADMIN_IDLE);
    let limits = ConnectionLimits { max_connections, max_per_address: None, head_timeout, ..limits };
    Connections::new("admin", limits, ADMIN_LIFETIME)
}

/// The same for a service that accepts no deliveries.
pub(super) fn admin_alone(config: &Config) -> Arc<Connections> {
    admin(config, ADMIN)
}

/// The default of `http.max_connections_per_address`.
pub(super) fn per_address(max_connections: usize) -> usize {
    (max_connections / PER_ADDRESS).max(LEAST_PER_ADDRESS)
}

fn own_files(bootstrap_servers: &str) -> usize {
    OWN_FILES + FILES_PER_BROKER * bootstrap_servers.split(',').count().max(BROKERS)
}

/// Divides `limit` open files: the connections of the port that providers call, at most `wanted`, and those of the
/// operator's port. If the limit is too low for everything, both get a part, and three quarters remain for the rest
/// that deliveries need: with one broker that is 31 to 40 files.
fn share_out(limit: usize, wanted: usize, own: usize) -> (usize, usize) {
    let admin = ADMIN.min(limit / 16).max(1);
    let free = limit.saturating_sub(own + ADMIN).max(limit / 6).max(1);
    (wanted.min(free), admin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b7_files_are_reserved_for_other_uses_than_connections() {
        let own = own_files("a:9092,b:9092");
        assert_eq!(own, 112);
        assert_eq!(share_out(1_048_576, 10_000, own), (10_000, 64));
        assert_eq!(share_out(usize::MAX, 10_000, own), (10_000, 64));
        assert_eq!(share_out(4096, 10_000, own), (4096 - 64 - 112, 64));
        assert_eq!(share_out(1024, 100, own), (100, 64), "the wanted number fits");
        assert_eq!(share_out(64, 10_000, own), (10, 4));
        assert_eq!(share_out(0, 10_000, own), (1, 1), "a service that cannot start fails elsewhere");
        for limit in 32..5000 {
            let (hooks, admin) = share_out(limit, 10_000, own);
            assert!(hooks + admin <= limit / 4 || hooks + admin + own <= limit, "{limit}: {hooks} {admin}");
        }
    }
}
