//! Reads Datagrid's batch predictions and handles each event once.
//!
//! ```console
//! $ cargo run --example consumer -- [BOOTSTRAP [REGISTRY_URL [TOPIC_PATTERN]]]
//! ```
//!
//! The defaults are the addresses of `hookstream dev`. The dependencies in your own crate:
//!
//! ```toml
//! anyhow = "1"
//! apache-avro = "0.22"
//! rdkafka = "0.39"
//! schema_registry_converter = { version = "6.0", default-features = false, features = ["futures", "avro", "rustls_tls"] }
//! serde = { version = "1", features = ["derive"] }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread", "signal"] }
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::{HashSet, VecDeque};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rdkafka::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use schema_registry_converter::async_impl::avro::AvroDecoder;
use schema_registry_converter::async_impl::schema_registry::SrSettings;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

/// The fields of the record that this consumer needs; docs/topics.md lists all of them. A field that a record does not
/// have is `None`, so you can add a field of a later schema version before it arrives.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    event_type: String,
    /// Milliseconds since 1970; null if the provider sent none.
    time: Option<i64>,
    received_at: i64,
    data: BatchPrediction,
}

#[derive(Deserialize)]
struct BatchPrediction {
    id: Option<String>,
    status: Option<String>,
    results_url: Option<String>,
}

/// The work. A crash may repeat it, so it must be idempotent, such as an upsert by key.
fn handle(key: &str, event: &Event) {
    let time = event.time.unwrap_or(event.received_at);
    let BatchPrediction { id, status, results_url } = &event.data;
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    println!(
        "{key} {time} {} {} status={} results={}",
        event.event_type,
        or(id),
        or(status),
        or(results_url)
    );
}

/// The keys handled last, to skip most duplicates. It forgets older keys: if handling an event twice does harm, store
/// the key with the result in one transaction.
struct Seen {
    keys: HashSet<(String, String)>,
    order: VecDeque<(String, String)>,
}

impl Seen {
    const MOST: usize = 100_000;

    /// Records a key. Returns whether it is new.
    fn add(&mut self, topic: &str, key: &str) -> bool {
        let key = (topic.to_owned(), key.to_owned());
        if !self.keys.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > Self::MOST {
            self.order.pop_front().map(|oldest| self.keys.remove(&oldest));
        }
        true
    }
}

async fn consume(servers: &str, registry: &str, pattern: &str) -> anyhow::Result<()> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "hookstream-example-rust")
        .set("auto.offset.reset", "earliest")
        // Only offsets stored after the work are committed, so a crash repeats the work.
        .set("enable.auto.offset.store", "false")
        .create()?;
    let patience = Duration::from_secs(10);
    consumer.fetch_metadata(None, patience).map_err(|error| match error.rdkafka_error_code() {
        Some(code) => anyhow!("Kafka does not answer at {servers}: {code}"),
        None => anyhow!("Kafka does not answer at {servers}: {error}"),
    })?;
    consumer.subscribe(&[pattern])?;
    let decoder = AvroDecoder::new(SrSettings::new(registry.to_owned()));
    let mut seen = Seen { keys: HashSet::new(), order: VecDeque::new() };
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let message = tokio::select! {
            message = consumer.recv() => message?,
            _ = terminate.recv() => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let key = String::from_utf8_lossy(message.key().unwrap_or_default());
        let place = format!("{}/{}/{}", message.topic(), message.partition(), message.offset());
        match message.payload() {
            Some(value) if value.first() == Some(&0) => {
                if seen.add(message.topic(), &key) {
                    let decoded = decoder.decode(Some(value)).await;
                    let value = decoded
                        .map_err(|error| {
                            anyhow!("{place} cannot be read with the registry at {registry}: {}", error.error)
                        })?
                        .value;
                    let event = apache_avro::from_value::<Event>(&value);
                    handle(&key, &event.with_context(|| format!("{place} is not a batch prediction"))?);
                }
            }
            // hookstream never writes these; other producers may.
            Some(_) => eprintln!("skipped {place}: not in the wire format of a schema registry"),
            None => eprintln!("skipped {place}: a tombstone"),
        }
        if let Err(error) = consumer.store_offset_from_message(&message) {
            eprintln!("{place} may be read again: its partition is assigned to another consumer ({error})");
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let or = |at: usize, default: &str| given.get(at).cloned().unwrap_or_else(|| default.to_owned());
    let (servers, registry) = (or(0, "127.0.0.1:9092"), or(1, "http://127.0.0.1:8081"));
    // Dead letters are excluded: their topics begin with `dead_letter.`, and their values are not Avro.
    match consume(&servers, &registry, &or(2, r"^datagrid\.batch_prediction\..*")).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("consumer: {error:#}");
            ExitCode::FAILURE
        }
    }
}
