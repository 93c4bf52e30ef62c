//! How many connections the ports may have, and how full they are.

use std::sync::Arc;
use std::time::Duration;

use super::connections;
use crate::config::Config;
use crate::http::{ConnectionLimits, Connections, Lifetime};
use crate::observe::health::{Health, PartState};
use crate::observe::metrics;

/// Few people look at the operator's port. Who comes when it is full has another's place: a probe never waits.
const ADMIN: usize = 64;

/// The longest that the operator's port lets anybody do nothing.
const ADMIN_IDLE: Duration = Duration::from_secs(5);

/// A browser's page asks every three seconds, probes and scrapers less often.
const ADMIN_LIFETIME: Lifetime = Lifetime { age: Duration::from_secs(300), requests: 200 };

/// Files that are not connections: the spool's, the log's, the runtime's, those to registry and collector.
const OWN_FILES: usize = 64;

/// A socket and a pipe to wake its thread, for each of our clients.
const FILES_PER_BROKER: usize = 16;

/// Even of a cluster whose list names one.
const BROKERS: usize = 3;

/// Between two looks at the tables.
const LOOK: Duration = Duration::from_secs(1);

/// An address that no proxy vouches for has this part of all connections, and never less than [`LEAST_PER_ADDRESS`]: more
/// than any provider behind one address opens.
const PER_ADDRESS: usize = 8;

/// See [`PER_ADDRESS`].
const LEAST_PER_ADDRESS: usize = 256;

/// The tables of both ports.
pub(super) struct Places {
    pub(super) hooks: Arc<Connections>,
    pub(super) admin: Arc<Connections>,
}

impl Places {
    /// As many as the configuration wants and the limit of open files allows, which is raised as far as it goes. A cut is
    /// said.
    pub(super) fn new(config: &Config) -> Self {
        let http = &config.http;
        // Where raising it is forbidden it stands as it is; where nobody knows a limit there is none.
        let limit = rlimit::increase_nofile_limit(u64::MAX).or_else(|_| rlimit::Resource::NOFILE.get_soft());
        let limit = limit.unwrap_or(u64::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let own = own_files(&config.kafka.bootstrap_servers);
        let (hooks, admin) = share_out(limit, http.max_connections, own);
        if hooks < http.max_connections {
            tracing::warn!(
                limit,
                max_connections = hooks,
                "the limit of open files is {limit}: http.max_connections is cut from {} to {hooks}, since files are kept \
                 back for Kafka, the spool and the operator's port; raise it to {} or more (`ulimit -n`, LimitNOFILE= in \
                 a unit, --ulimit nofile= of a container)",
                http.max_connections,
                http.max_connections + ADMIN + own,
            );
        }
        let lifetime = Lifetime { age: http.max_connection_age, requests: http.max_requests_per_connection };
        let limits = ConnectionLimits { max_connections: hooks, ..connections(config) };
        Self { hooks: Connections::new("http", limits, lifetime), admin: self::admin(config, admin) }
    }

    /// Tells metrics and readiness how full they are.
    pub(super) async fn watch(self, health: Arc<Health>) {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            for table in [&self.hooks, &self.admin] {
                let load = table.load();
                metrics::connections(table.port(), load.open, load.idle, table.most());
            }
            let (load, most) = (self.hooks.load(), self.hooks.most());
            if load.full {
                let why = format!(
                    "full: {} of {most} open, {} idle; a new one has another's place",
                    load.open, load.idle
                );
                health.connections.set(PartState::Degraded, why);
            } else if health.connections.state() != PartState::Ok {
                health.connections.set(PartState::Ok, "");
            }
        }
    }
}

/// The operator's port alone.
pub(super) fn admin(config: &Config, max_connections: usize) -> Arc<Connections> {
    let limits = connections(config);
    let head_timeout = limits.head_timeout.min(ADMIN_IDLE);
    let limits = ConnectionLimits { max_connections, max_per_address: None, head_timeout, ..limits };
    Connections::new("admin", limits, ADMIN_LIFETIME)
}

/// The same where no deliveries are taken.
pub(super) fn admin_alone(config: &Config) -> Arc<Connections> {
    admin(config, ADMIN)
}

/// What one address may have of `max_connections` where the configuration does not say.
pub(super) fn per_address(max_connections: usize) -> usize {
    (max_connections / PER_ADDRESS).max(LEAST_PER_ADDRESS)
}

fn own_files(bootstrap_servers: &str) -> usize {
    OWN_FILES + FILES_PER_BROKER * bootstrap_servers.split(',').count().max(BROKERS)
}

/// Of `limit` open files: the connections of the port that providers call, at most `wanted`, and the operator's. Where it
/// is too low for all, both get a part, and three quarters are left for what deliveries need besides: with one broker
/// that is 31 to 40.
fn share_out(limit: usize, wanted: usize, own: usize) -> (usize, usize) {
    let admin = ADMIN.min(limit / 16).max(1);
    let free = limit.saturating_sub(own + ADMIN).max(limit / 6).max(1);
    (wanted.min(free), admin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b7_files_are_kept_back_for_what_is_no_connection() {
        let own = own_files("a:9092,b:9092");
        assert_eq!(own, 112);
        assert_eq!(share_out(1_048_576, 10_000, own), (10_000, 64));
        assert_eq!(share_out(usize::MAX, 10_000, own), (10_000, 64));
        assert_eq!(share_out(4096, 10_000, own), (4096 - 64 - 112, 64));
        assert_eq!(share_out(1024, 100, own), (100, 64), "what is wanted fits");
        assert_eq!(share_out(64, 10_000, own), (10, 4));
        assert_eq!(share_out(0, 10_000, own), (1, 1), "and fails elsewhere");
        for limit in 32..5000 {
            let (hooks, admin) = share_out(limit, 10_000, own);
            assert!(hooks + admin <= limit / 4 || hooks + admin + own <= limit, "{limit}: {hooks} {admin}");
        }
    }
}
