//! Sets up `tracing`: text on a terminal, JSON lines otherwise, always on standard error.

use std::io::{BufWriter, IsTerminal};
use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{EnvFilter, Registry};

/// The environment variable with the filter, which overrides the configuration.
pub const VARIABLE: &str = "HOOKSTREAM_LOG";

/// The service's filter before its configuration is read.
const SERVICE: &str = "info";

/// The default filter of the commands.
pub const QUIET: &str = "off";

/// The service's maximum of lines waiting to be written: some MiB. Further lines are dropped and counted.
const WAITING: usize = 16_384;

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// Adds filters for libraries. librdkafka logs what hookstream logs itself, and more often; the user's
/// directives can enable it.
fn complete_filter(directives: &str) -> EnvFilter {
    EnvFilter::new(format!("librdkafka=off,rdkafka=off,{directives},apache_avro=off"))
}

/// Replaces the filter while the process runs, unless [`VARIABLE`] sets it.
pub fn filter(directives: &str) {
    if std::env::var_os(VARIABLE).is_none()
        && let Some(filter) = FILTER.get()
    {
        // Fails only if the subscriber no longer exists.
        let _ = filter.reload(complete_filter(directives));
    }
}

/// Installs the subscriber for a command.
pub fn init(default: &str) {
    install(default, std::io::stderr);
}

/// Installs the subscriber for the service. A thread of its own writes the lines, several at once under load,
/// so that a blocked reader of the log delays no delivery. Dropping the returned guard writes the waiting lines,
/// for one second at most. A kill loses the waiting lines.
pub fn init_service() -> WorkerGuard {
    let (writer, guard): (NonBlocking, _) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING)
        .thread_name("log")
        .finish(BufWriter::new(std::io::stderr()));
    let _ = DROPPED.set(writer.error_counter());
    install(SERVICE, writer);
    guard
}

/// The number of lines dropped so far because the reader was too slow.
pub(super) fn dropped() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// `apache_avro` is always off, because its messages contain payloads.
fn install(default: &str, writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
    let directives = std::env::var(VARIABLE).unwrap_or_else(|_| default.to_owned());
    let (filter, handle) = reload::Layer::new(complete_filter(&directives));
    let _ = FILTER.set(handle);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    // A second initialisation, in tests, has no effect.
    let _ = if std::io::stderr().is_terminal() {
        registry.with(layer).try_init()
    } else {
        registry.with(layer.json().flatten_event(true)).try_init()
    };
}
