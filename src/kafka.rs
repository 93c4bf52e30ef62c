//! The one room that knows rdkafka.

mod admin;
mod consumer;
mod ffi;
mod murmur2;
mod partitions;
mod producer;
mod config_error;
mod renew;
mod publish_error;

pub mod embedded;
pub mod lag;

pub use admin::{Admin, Cluster, Copies, NewTopic, Setting, TopicDescription, TopicError};
pub use consumer::{Consumer, Event, Fetched, Span, Start};
pub use ffi::{Alteration, GroupDescription};
pub use murmur2::partition_of;
pub use producer::{Ack, Producer, Tuning};
pub use publish_error::{PublishError, Reach};

use std::fmt;

use rdkafka::ClientConfig;

use crate::config::Properties;

/// How to reach the cluster: the same for producer, admin and consumers. `Debug` shows no
/// property's value, since some are secrets.
#[derive(Clone)]
pub struct ClusterConfig {
    bootstrap_servers: String,
    properties: Properties,
}

impl fmt::Debug for ClusterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &self.properties)
            .finish()
    }
}

impl ClusterConfig {
    /// `properties` are librdkafka's own, secrets resolved; the configuration has refused those
    /// that the promise rests on.
    pub fn new(bootstrap_servers: impl Into<String>, properties: Properties) -> Self {
        Self { bootstrap_servers: bootstrap_servers.into(), properties }
    }

    /// `host:port`, comma-separated.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// What every client gets: defaults of ours, then the user's properties over them.
    fn client_config(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap_servers);
        config.set("client.id", "hookstream");
        config.set("socket.keepalive.enable", "true");
        // librdkafka's default of 10 s makes a recovered cluster wait for us.
        config.set("reconnect.backoff.ms", "100");
        config.set("reconnect.backoff.max.ms", "500");
        // A topic that the brokers make by themselves has their settings: one copy, a week, no compaction.
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
