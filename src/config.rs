//! The configuration as plain data. [`load()`] reads and merges its layers, [`ConfigErrors`] collects its errors, and
//! `secret_ref` reads the secrets. Each other room compiles its own part.

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
mod merge;
mod networks;
mod origin;
mod presets;
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
pub use envelope::{EnvelopeConfig, EventIdRule, FirstOf, TextPart, TimeFormat};
pub use errors::{ConfigErrors, suggestion};
pub use handshake::{AnswerConfig, AnswerValue, Challenge, ChallengeMethod, Handshake, TakenValue, When};
pub use load::{Auth, LoadedConfig, load};
pub use networks::Networks;
pub use origin::{Overrides, Secrets};
pub use presets::{About, PresetSample, PresetVector, Provider, presets, provider_rules, providers};
pub use properties::{Properties, Property};
pub use secret::{Binds, Environment, Secret, SecretText, ValidityWindow};
pub use secret_ref::{SecretEntry, SecretRef};
pub use signature::{
    BodyForm, CREDENTIALS, Encoding, Hash, SecretFormat, Signature, SignatureKind, TimestampFormat,
    TimestampUnit,
};
pub use source::{ContentEncoding, SourceConfig, Stale, Unmapped};

/// The complete configuration, with presets merged in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The listener that providers call.
    pub http: Http,
    /// The operator's listener.
    pub admin: AdminConfig,
    /// The Kafka cluster.
    pub kafka: Kafka,
    /// The schema registry.
    pub registry: RegistryConfig,
    /// The local queue for the time when Kafka is unavailable.
    pub spool: SpoolConfig,
    /// What `serve` creates at start.
    pub provision: Provision,
    /// What the service logs.
    pub log: Log,
    /// The consumer groups whose lag `serve` measures.
    pub lag: LagConfig,
    /// Where the spans of deliveries are exported to.
    pub traces: TracesConfig,
    /// By name, as in the URL and in the topics. After loading, only enabled sources.
    #[serde(default)]
    pub source: BTreeMap<String, SourceConfig>,
}

/// `[http]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// `address:port`; port 0 selects a free port.
    pub listen: String,
    /// Maximum size of a request body, in bytes.
    #[serde(deserialize_with = "de::size")]
    pub max_body: usize,
    /// Maximum size of a request head, in bytes.
    #[serde(deserialize_with = "de::size")]
    pub max_head: usize,
    /// Time limit for the complete request head, from its first byte; for the first one, from the start of the
    /// connection.
    #[serde(deserialize_with = "de::duration")]
    pub head_timeout: Duration,
    /// How long a connection may wait for its next request.
    #[serde(deserialize_with = "de::duration")]
    pub idle_timeout: Duration,
    /// Time limit from the complete head to the complete body.
    #[serde(deserialize_with = "de::duration")]
    pub body_timeout: Duration,
    /// Maximum size of all bodies together, in bytes: those being read and those whose delivery is in progress. Beyond
    /// it, 503.
    #[serde(deserialize_with = "de::size")]
    pub max_body_bytes: usize,
    /// Open connections. Beyond it, a new connection replaces one that is idle or has not delivered anything verified.
    #[serde(deserialize_with = "de::number")]
    pub max_connections: usize,
    /// Open connections of one address, except trusted proxies. Beyond it, a new connection is closed immediately. The
    /// default is an eighth of `max_connections`, but at least 256.
    #[serde(default, deserialize_with = "de::some_number")]
    pub max_connections_per_address: Option<usize>,
    /// Maximum age of a connection; the first response after it closes the connection.
    #[serde(deserialize_with = "de::duration")]
    pub max_connection_age: Duration,
    /// Requests per connection; the response to the last one closes the connection.
    #[serde(deserialize_with = "de::number")]
    pub max_requests_per_connection: u32,
    /// The proxies whose header with the client's address is trusted.
    pub trusted_proxies: Networks,
    /// The header in which the proxies send the client's address.
    #[serde(deserialize_with = "networks::header")]
    pub client_address_header: HeaderName,
    /// Deliveries answered 401, per second and client address; beyond it, 503 before the body. No default: behind a
    /// proxy that is not trusted, all clients would share one limit.
    #[serde(default, deserialize_with = "de::some_number")]
    pub unverified_rate_per_address: Option<u32>,
    /// Bytes hashed for deliveries that do not verify, per second and client address: bytes of the body, times secrets,
    /// times forms. Beyond it, 503 before the body, except for small deliveries.
    #[serde(deserialize_with = "de::size")]
    pub unverified_work_per_address: usize,
    /// Verified deliveries in flight; beyond it, 503.
    #[serde(deserialize_with = "de::number")]
    pub max_in_flight: usize,
    /// After SIGTERM, how long deliveries are still accepted, so that load balancers notice.
    #[serde(deserialize_with = "de::duration")]
    pub drain_delay: Duration,
    /// After the drain delay, time limit for the deliveries in flight.
    #[serde(deserialize_with = "de::duration")]
    pub shutdown_timeout: Duration,
    /// Without it, plain HTTP.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
}

/// `[admin]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// `address:port`; port 0 selects a free port.
    pub listen: String,
    /// The token that every request except `/livez` and `/readyz` must send as `Authorization: Bearer`.
    #[serde(default)]
    pub bearer: Option<SecretRef>,
    /// Without `bearer`, the clients that may request more than `/livez`, `/readyz` and `/metrics`.
    pub without_token: Networks,
    /// Names accepted in `Host`, in addition to addresses, `localhost` and the name in `listen`. `*.` matches any names
    /// before the rest.
    #[serde(deserialize_with = "de::list")]
    pub hosts: Vec<String>,
    /// Without it, plain HTTP.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
}

/// `[http.tls]` and `[admin.tls]`. The paths are read at start, the files at each reload.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM: the server's certificate, then its issuers'.
    pub cert: PathBuf,
    /// PEM: the certificate's private key, without a passphrase.
    pub key: PathBuf,
    /// PEM: the authorities of client certificates. If set, the handshake fails for clients without one.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// `[kafka]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `host:port`, comma-separated.
    pub bootstrap_servers: String,
    /// librdkafka's own properties, with dotted names flattened; never those that durability depends on.
    /// [`LoadedConfig::properties`] has them with their secrets read.
    #[serde(default)]
    pub properties: BTreeMap<String, Property>,
    /// Defaults for the topics that hookstream creates.
    pub topics: Topics,
}

/// `[kafka.topics]`: how missing topics are created; `provision` alters existing ones.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    /// Partitions of each topic.
    #[serde(deserialize_with = "de::number")]
    pub partitions: u32,
    /// Replicas of each partition; fewer if the cluster has fewer brokers.
    #[serde(deserialize_with = "de::number")]
    pub replication: u32,
    /// `min.insync.replicas`; at most the number of replicas.
    #[serde(deserialize_with = "de::number")]
    pub min_insync_replicas: u32,
    /// How long event topics retain records. Dead letters are retained permanently.
    #[serde(deserialize_with = "de::duration")]
    pub retention: Duration,
}

/// `[registry]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// Base URL of the Confluent-compatible API.
    pub url: String,
    /// User and password.
    #[serde(default)]
    pub basic_auth: Option<BasicAuth>,
    /// A bearer token; excludes `basic_auth`.
    #[serde(default)]
    pub bearer: Option<SecretRef>,
    /// PEM file with the registry's certificate authority, if the system does not trust it.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM file with hookstream's client certificate and its chain, if the registry requires one; needs `client_key`.
    #[serde(default)]
    pub client_cert: Option<PathBuf>,
    /// PEM file with the certificate's private key, not encrypted.
    #[serde(default)]
    pub client_key: Option<PathBuf>,
    /// The registry context of hookstream's subjects, such as `.tenant`. Unset, the registry's default context.
    #[serde(default)]
    pub context: Option<String>,
    /// How the name of a schema's subject is built.
    #[serde(deserialize_with = "de::choice")]
    pub subject_name_strategy: SubjectNameStrategy,
    /// Whether the registry treats schemas that differ only in form as equal.
    #[serde(deserialize_with = "de::boolean")]
    pub normalize: bool,
    /// Whether schemas are registered; if not, they are only looked up.
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
pub struct SpoolConfig {
    /// The spool's directory. Without it there is no spool, and a delivery that Kafka does not acknowledge is answered
    /// 503. No default: with a directory that does not outlive the process, a 202 would be a false promise.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// Maximum size of the waiting rows, in bytes.
    #[serde(deserialize_with = "de::size")]
    pub max_size: usize,
    /// Maximum number of waiting rows.
    #[serde(deserialize_with = "de::number")]
    pub max_rows: u64,
    /// The share of both limits that one source may use while several are enabled: above 0 and at most 1.
    #[serde(deserialize_with = "de::part")]
    pub source_share: f64,
    /// Bytes that must stay free on the disk.
    #[serde(deserialize_with = "de::size")]
    pub min_free: usize,
    /// The part of the ack deadline that Kafka may not use, so that time is left to write the row to disk.
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

/// `[log]`. A reload applies changes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// In the syntax of `tracing_subscriber::EnvFilter`; the variable HOOKSTREAM_LOG overrides it.
    pub filter: String,
}

/// `[lag]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LagConfig {
    /// Names of consumer groups; `*` matches any text. None by default: with several replicas, or beside an existing
    /// lag exporter, the same figures would be exported more than once.
    #[serde(deserialize_with = "de::list")]
    pub groups: Vec<String>,
    /// The time between two measurements.
    #[serde(deserialize_with = "de::duration")]
    pub interval: Duration,
}

/// `[traces]`: OpenTelemetry's spans over OTLP/HTTP, in protobuf.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// The collector's base URL, `http://collector:4318`; `/v1/traces` is appended, as OpenTelemetry does with
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`. Without it there are no spans. It has no default and no other variable than
    /// hookstream's own, so that a variable which a cluster sets for all its pods does not start an export.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The share that is exported, 0 to 1, of the deliveries whose verified caller makes no sampling decision and of
    /// all refused deliveries.
    #[serde(deserialize_with = "de::part")]
    pub sample: f64,
    /// Additional headers of each request to the collector, by name: mostly its token.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretRef>,
}
