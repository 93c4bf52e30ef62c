//! `tracing`: text on a terminal, JSON lines elsewhere, always on standard error.

use std::io::{BufWriter, IsTerminal};
use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{EnvFilter, Registry};

/// The variable that sets the filter, over the configuration.
pub const VARIABLE: &str = "HOOKSTREAM_LOG";

/// What the service says before its configuration is read.
const SERVICE: &str = "info";

/// What a command says when nobody asks.
pub const QUIET: &str = "off";

/// Lines of the service that wait to be written: some MiB. Past it they are dropped, and counted.
const WAITING: usize = 16_384;

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

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

/// Installs the subscriber for a command.
pub fn init(default: &str) {
    install(default, std::io::stderr);
}

/// Installs the subscriber for the service: lines are written by a thread of their own, several at once where
/// they come fast, so that a reader of the log who hangs holds up no delivery. Drop what is returned at the end:
/// what waits is then written, for a second at most. A kill loses what waits.
pub fn init_service() -> WorkerGuard {
    let (writer, guard): (NonBlocking, _) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING)
        .thread_name("log")
        .finish(BufWriter::new(std::io::stderr()));
    let _ = DROPPED.set(writer.error_counter());
    install(SERVICE, writer);
    guard
}

/// Lines that were dropped so far since nobody read them.
pub(super) fn dropped() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// `apache_avro` is always off: its messages hold payloads.
fn install(default: &str, writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
    let wished = std::env::var(VARIABLE).unwrap_or_else(|_| default.to_owned());
    let (filter, handle) = reload::Layer::new(whole(&wished));
    let _ = FILTER.set(handle);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    // A second initialisation (tests) changes nothing.
    let _ = if std::io::stderr().is_terminal() {
        registry.with(layer).try_init()
    } else {
        registry.with(layer.json().flatten_event(true)).try_init()
    };
}
