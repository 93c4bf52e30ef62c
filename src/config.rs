//! The configuration as plain data. [`load`] reads and merges its layers, [`Problems`] collects
//! what is wrong with it, `reference` reads secrets; each room compiles its own part.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use serde::Deserialize;

mod reload;
mod validate;
mod envelope;
mod handshake;
mod layers;
mod compatibility_level;
mod load;
mod networks;
mod errors;
mod properties;
mod secret_ref;
pub mod secret;
pub mod settings;
mod signature;
mod source;
#[cfg(test)]
mod tests;
mod de;
mod tree;
mod warnings;

pub use compatibility_level::CompatibilityLevel;
pub use envelope::{Envelope, EventIdRule, TextPart, TimeFormat};
pub use errors::ConfigErrors;
pub use handshake::{Challenge, Handshake, HandshakeAnswer, When};
pub use load::{Auth, LoadedConfig, Overrides, Secrets, load, presets};
pub use networks::Networks;
pub use properties::{Properties, Property};
pub use secret::{Binds, Environment, Secret, SecretText, ValidityWindow};
pub use secret_ref::{SecretEntry, SecretRef};
pub use signature::{
    BodyForm, CREDENTIALS, Encoding, Hash, SecretFormat, Signature, SignatureKind, TimestampUnit,
};
pub use source::{SourceConfig, Stale, Unmapped};

/// Everything, presets merged in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The port that providers call.
    pub http: Http,
    /// The operator's port.
    pub admin: Admin,
    /// The cluster.
    pub kafka: Kafka,
    /// The schema registry.
    pub registry: Registry,
    /// The local queue for while Kafka is out.
    pub spool: Spool,
    /// What `serve` creates at start.
    pub provision: Provision,
    /// What the service says.
    pub log: Log,
    /// Which consumer groups' lag `serve` measures.
    pub lag: Lag,
    /// Where spans of deliveries go.
    pub traces: Traces,
    /// By name: the name in the URL and in the topics. As loaded, only those that are on.
    #[serde(default)]
    pub source: BTreeMap<String, SourceConfig>,
}

/// `[http]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// `address:port`; port 0 takes a free one.
    pub listen: String,
    /// Bound of a request's body, in bytes.
    #[serde(deserialize_with = "de::size")]
    pub max_body: usize,
    /// Bound of a request's head, in bytes.
    #[serde(deserialize_with = "de::size")]
    pub max_head: usize,
    /// Bound from the first byte of a connection, or the end of the answer before, to the
    /// complete request head: the keep-alive limit, too.
    #[serde(deserialize_with = "de::duration")]
    pub head_timeout: Duration,
    /// Bound from the complete head to the complete body.
    #[serde(deserialize_with = "de::duration")]
    pub body_timeout: Duration,
    /// Bound of all bodies together, in bytes: those being read and those whose delivery has not
    /// ended. Past it, 503.
    #[serde(deserialize_with = "de::size")]
    pub max_body_bytes: usize,
    /// Open connections; past it, a new one has the place of one that waits or has not verified yet.
    #[serde(deserialize_with = "de::number")]
    pub max_connections: usize,
    /// Open connections of one address, trusted proxies left out; past it, a new one is closed at once. Without it, an
    /// eighth of `max_connections`, and at least 256.
    #[serde(default, deserialize_with = "de::some_number")]
    pub max_connections_per_address: Option<usize>,
    /// How long a connection may go on; the answer after it is its last.
    #[serde(deserialize_with = "de::duration")]
    pub max_connection_age: Duration,
    /// How many requests a connection may bring; the answer to the last one closes it.
    #[serde(deserialize_with = "de::number")]
    pub max_requests_per_connection: u32,
    /// The proxies that are believed when they tell their client's address.
    pub trusted_proxies: Networks,
    /// The header they tell it in.
    #[serde(deserialize_with = "networks::header")]
    pub client_address_header: HeaderName,
    /// Deliveries answered 401, per second and client address; past it, 503 before the body. No default, for
    /// the same reason.
    #[serde(default, deserialize_with = "de::some_number")]
    pub unverified_rate_per_address: Option<u32>,
    /// Bytes that are hashed for deliveries that do not verify, per second and client address: bytes of the body,
    /// times secrets, times forms. Past it, 503 before the body, but for what is small.
    #[serde(deserialize_with = "de::size")]
    pub unverified_work_per_address: usize,
    /// Verified deliveries in flight; past it, 503.
    #[serde(deserialize_with = "de::number")]
    pub max_in_flight: usize,
    /// After SIGTERM: how long deliveries are still taken, so that load balancers notice.
    #[serde(deserialize_with = "de::duration")]
    pub drain_delay: Duration,
    /// After the drain delay: how long what is in flight may take.
    #[serde(deserialize_with = "de::duration")]
    pub shutdown_timeout: Duration,
    /// Without it, plain HTTP.
    #[serde(default)]
    pub tls: Option<Tls>,
}

/// `[admin]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// `address:port`; port 0 takes a free one.
    pub listen: String,
    /// What a request must bring as `Authorization: Bearer`, `/livez` and `/readyz` excepted.
    #[serde(default)]
    pub bearer: Option<SecretRef>,
    /// Without `bearer`: who may ask for more than `/livez`, `/readyz` and `/metrics`.
    pub without_token: Networks,
    /// Names that the port is called by in `Host`, beside addresses, `localhost` and that of `listen`; `*.` stands for
    /// any names before the rest.
    #[serde(deserialize_with = "de::list")]
    pub hosts: Vec<String>,
    /// Without it, plain HTTP.
    #[serde(default)]
    pub tls: Option<Tls>,
}

/// `[http.tls]` and `[admin.tls]`. The paths are read at start, what stands there at each reload.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM: the server's certificate, then its issuers'.
    pub cert: PathBuf,
    /// PEM: its private key, without a passphrase.
    pub key: PathBuf,
    /// PEM: the authorities of the clients' certificates. With it, who has none gets no handshake.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// `[kafka]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `host:port`, comma-separated.
    pub bootstrap_servers: String,
    /// librdkafka's own properties, dotted names flattened; never those that the promise rests on.
    /// With their secrets read, they are [`Loaded::properties`].
    #[serde(default)]
    pub properties: BTreeMap<String, Property>,
    /// Defaults for the topics that we create.
    pub topics: Topics,
}

/// `[kafka.topics]`: how missing topics are created; `provision` alters existing ones.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    /// Partitions of each topic.
    #[serde(deserialize_with = "de::number")]
    pub partitions: u32,
    /// Copies; fewer where the cluster has fewer brokers.
    #[serde(deserialize_with = "de::number")]
    pub replication: u32,
    /// `min.insync.replicas`; at most the copies there are.
    #[serde(deserialize_with = "de::number")]
    pub min_insync_replicas: u32,
    /// How long event topics keep records. Dead letters are kept for good.
    #[serde(deserialize_with = "de::duration")]
    pub retention: Duration,
}

/// `[registry]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Base URL of the Confluent-compatible API.
    pub url: String,
    /// User and password.
    #[serde(default)]
    pub basic_auth: Option<BasicAuth>,
    /// A bearer token; excludes `basic_auth`.
    #[serde(default)]
    pub bearer: Option<SecretRef>,
    /// PEM file with the registry's certificate authority, when it is none of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM file with our own certificate and its chain, where the registry asks for one; with `client_key`.
    #[serde(default)]
    pub client_cert: Option<PathBuf>,
    /// PEM file with the certificate's private key, not encrypted.
    #[serde(default)]
    pub client_key: Option<PathBuf>,
    /// The context that our subjects stand in, `.tenant`. Without it, the registry's default one.
    #[serde(default)]
    pub context: Option<String>,
    /// What a schema's subject is called.
    #[serde(deserialize_with = "de::choice")]
    pub subject_name_strategy: SubjectNameStrategy,
    /// Whether the registry is to take schemas that differ in form only for one.
    #[serde(deserialize_with = "de::boolean")]
    pub normalize: bool,
    /// Whether schemas are registered at all; if not, they are only looked up.
    #[serde(deserialize_with = "de::boolean")]
    pub auto_register: bool,
}

/// `subject_name_strategy = "record_name"`: Confluent's strategies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectNameStrategy {
    /// `<topic>-value`
    #[default]
    TopicName,
    /// The record's full name. Several topics may share it.
    RecordName,
    /// `<topic>-<the record's full name>`
    TopicRecordName,
}

/// `basic_auth = { username = "...", password = { env = "..." } }`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// In plain text.
    pub username: String,
    /// By reference.
    pub password: SecretRef,
}

/// `[spool]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spool {
    /// Where it stands; without it there is no spool, and a delivery that Kafka does not take is
    /// answered 503. No default: a directory that does not outlive the process would make a 202 a lie.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// Bound of what waits, in bytes.
    #[serde(deserialize_with = "de::size")]
    pub max_size: usize,
    /// Bound of what waits, in rows.
    #[serde(deserialize_with = "de::number")]
    pub max_rows: u64,
    /// Of both bounds, the part that one source may fill while several are on: above 0, up to 1.
    #[serde(deserialize_with = "de::part")]
    pub source_share: f64,
    /// What must stay free on the disk, in bytes.
    #[serde(deserialize_with = "de::size")]
    pub min_free: usize,
    /// What is kept back from Kafka's share of the ack deadline, for the row's way to the disk.
    #[serde(deserialize_with = "de::duration")]
    pub reserve: Duration,
}

/// `[provision]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provision {
    /// Whether `serve` creates missing topics and registers schemas.
    #[serde(deserialize_with = "de::boolean")]
    pub on_start: bool,
}

/// `[log]`, in force from the next reload on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// In the syntax of `tracing_subscriber::EnvFilter`; the variable HOOKSTREAM_LOG stands above it.
    pub filter: String,
}

/// `[lag]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lag {
    /// Names of groups, `*` stands for anything. None by default: with several replicas, or an exporter
    /// that is there already, each would tell the same numbers once more.
    #[serde(deserialize_with = "de::list")]
    pub groups: Vec<String>,
    /// Between two measurements.
    #[serde(deserialize_with = "de::duration")]
    pub interval: Duration,
}

/// `[traces]`: OpenTelemetry's spans over OTLP/HTTP, in protobuf.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// The collector's base URL, `http://collector:4318`; `/v1/traces` is appended, as OpenTelemetry
    /// does with `OTEL_EXPORTER_OTLP_ENDPOINT`. Without it there are no spans: no default, and no other
    /// variable than our own, so that one which a cluster sets for all its pods starts no export.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Of the deliveries whose verified caller says nothing of sampling, and of all that are refused,
    /// the part that is exported: 0 to 1.
    #[serde(deserialize_with = "de::part")]
    pub sample: f64,
    /// What each request to the collector brings besides, by the header's name: mostly its token.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretRef>,
}
