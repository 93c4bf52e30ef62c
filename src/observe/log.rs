//! `tracing`: text on a terminal, JSON lines elsewhere, always on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::prelude::*;

/// The variable that sets the filter, in the syntax of `tracing_subscriber::EnvFilter`.
pub const VARIABLE: &str = "HOOKSTREAM_LOG";

/// What the service says when nobody asks: its own lines only.
pub const SERVICE: &str = "info,librdkafka=off,rdkafka=off";

/// What a command says when nobody asks.
pub const QUIET: &str = "off";

/// Installs the subscriber. `apache_avro` is always off: its messages hold payloads.
pub fn init(default: &str) {
    let wished = std::env::var(VARIABLE).unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::new(format!("{wished},apache_avro=off"));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    // A second initialisation (tests) changes nothing.
    let _ = if std::io::stderr().is_terminal() {
        registry.with(layer).try_init()
    } else {
        registry.with(layer.json().flatten_event(true)).try_init()
    };
}
