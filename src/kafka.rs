//! The Kafka clients: producer, consumer and admin client. No other room uses rdkafka.

mod admin;
mod cluster_error;
mod consumer;
mod ffi;
mod health_reporter;
mod hidden;
mod last_error;
mod murmur2;
mod partitions;
mod producer;
mod config_error;
mod renew;
mod publish_error;
mod validate;

pub mod embedded;
pub mod lag;

pub use admin::{Admin, Cluster, Copies, Creation, NewTopic, TopicDescription, TopicError, TopicSetting};
pub use cluster_error::ClusterError;
pub use consumer::{Consumer, ConsumerEvent, Fetched, Span, Start};
pub use ffi::{Alteration, GroupDescription};
pub use murmur2::partition_of;
pub use producer::{Ack, Producer, Tuning};
pub use publish_error::{PublishError, Reach};

use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;

use crate::config::Properties;

/// The time limit of one attempt to read the topics, and the number of attempts. It is short because an
/// attempt cannot be cancelled.
const TRY: Duration = Duration::from_secs(3);
const TRIES: u32 = 3;

/// Connection settings shared by producer, admin client and consumers. `Debug` shows no property
/// value, because some are secrets.
#[derive(Clone)]
pub struct ClusterConfig {
    bootstrap_servers: String,
    properties: Properties,
}

impl fmt::Debug for ClusterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &self.properties)
            .finish()
    }
}

impl ClusterConfig {
    /// `properties` are librdkafka properties with secrets resolved. The configuration has already refused
    /// those that would weaken the delivery guarantee.
    pub fn new(bootstrap_servers: impl Into<String>, properties: Properties) -> Self {
        Self { bootstrap_servers: bootstrap_servers.into(), properties }
    }

    /// `host:port`, comma-separated.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// The settings of every client: hookstream's defaults, overridden by the user's properties.
    fn client_config(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap_servers);
        config.set("client.id", "hookstream");
        config.set("socket.keepalive.enable", "true");
        // With librdkafka's default of 10 s, hookstream would notice a recovered cluster late.
        config.set("reconnect.backoff.ms", "100");
        config.set("reconnect.backoff.max.ms", "500");
        // A topic that the brokers create automatically has their defaults: one replica, a week of retention, no
        // compaction.
        config.set("allow.auto.create.topics", "false");
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in self.properties.iter() {
            config.set(name, value);
        }
        config
    }
}
