//! `tracing`: text on a terminal, JSON lines elsewhere, always on standard error.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::prelude::*;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{EnvFilter, Registry};

/// The variable that sets the filter, over the configuration.
pub const VARIABLE: &str = "HOOKSTREAM_LOG";

/// What the service says before its configuration is read.
pub const SERVICE: &str = "info";

/// What a command says when nobody asks.
pub const QUIET: &str = "off";

static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// The libraries below us say what we say ourselves, and more often; whoever asks for them gets them.
fn whole(wished: &str) -> EnvFilter {
    EnvFilter::new(format!("librdkafka=off,rdkafka=off,{wished},apache_avro=off"))
}

/// Replaces the filter, while the process runs; not where [`VARIABLE`] has set it.
pub fn filter(wished: &str) {
    if std::env::var_os(VARIABLE).is_none()
        && let Some(filter) = FILTER.get()
    {
        // Fails only once the subscriber is gone.
        let _ = filter.reload(whole(wished));
    }
}

/// Installs the subscriber. `apache_avro` is always off: its messages hold payloads.
pub fn init(default: &str) {
    let wished = std::env::var(VARIABLE).unwrap_or_else(|_| default.to_owned());
    let (filter, handle) = reload::Layer::new(whole(&wished));
    let _ = FILTER.set(handle);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    // A second initialisation (tests) changes nothing.
    let _ = if std::io::stderr().is_terminal() {
        registry.with(layer).try_init()
    } else {
        registry.with(layer.json().flatten_event(true)).try_init()
    };
}
