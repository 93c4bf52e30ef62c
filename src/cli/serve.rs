//! `hookstream serve`

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigArgs, ExitStatus};
use crate::app::{self, App, DrainOnly, Listeners};
use crate::config::LoadedConfig;
use crate::http;
use crate::observe::log;

const EXAMPLES: &str = "\
Examples:
  hookstream serve
  hookstream serve -c /etc/hookstream/hookstream.toml
  hookstream serve -X http.listen=0.0.0.0:8080
  hookstream serve --drain-only             publish the rows of the spool, then exit

Signals:
  SIGHUP             reload the configuration; a change of its files does the same
  SIGTERM, SIGINT    finish the deliveries in progress, then exit; a second signal exits at once

Exit codes: 0 stopped; 1 --drain-only was stopped before the spool was empty; 2 error.";

/// Receive deliveries and publish them to Kafka
///
/// Creates missing topics and registers schemas at start. Logs to standard error; `log.filter` in the configuration or
/// the variable HOOKSTREAM_LOG sets the filter of the log.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Receive no deliveries: publish the rows of the spool, then exit
    #[arg(long)]
    drain_only: bool,
}

/// Runs until SIGTERM or SIGINT, then stops without loss; a second signal stops it at once.
///
/// # Errors
/// Problems of the configuration; deliveries still in progress when the shutdown times out.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    let _written = log::init_service();
    app::log_panics();
    // Draining publishes finished records and verifies nothing, so it needs no secrets.
    let loaded = if args.drain_only { config.load_unread()? } else { config.load()? };
    let file = loaded.file.as_ref().map_or("none (built in)".into(), |file| file.display().to_string());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = file, "starting");
    log::filter(&loaded.config.log.filter);
    app::warn(&loaded, &[]);
    for (source, why) in &loaded.off {
        tracing::info!(source, why, "source is off");
    }
    let mut signals = Signals::new()?;
    if args.drain_only {
        return drain(&loaded, &mut signals).await;
    }
    // Before the ports are open: until this handler exists, SIGHUP ends the process.
    let hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let listeners = Listeners::bind(&loaded.config).await?;
    let mut app = App::start(loaded, listeners, http::log()).await?;
    app.watch_files(app::RELOAD_LOOK);
    app.reload_on(hangups);
    tracing::info!(hooks = %app.hooks, admin = %app.admin, "listening");
    tokio::spawn({
        let health = app.health.clone();
        async move {
            health.ready().await;
            tracing::info!("ready");
        }
    });
    signals.next().await;
    tracing::info!("stopping: not ready, still serving for the drain delay");
    tokio::select! {
        stopped = app.stop() => stopped?,
        () = signals.next() => anyhow::bail!("stopped at once by a second signal: deliveries in progress were cut off"),
    }
    tracing::info!("stopped");
    Ok(ExitStatus::Success)
}

/// Runs until the spool has no live rows; [`ExitStatus::Failure`] if a signal stops it earlier.
async fn drain(loaded: &LoadedConfig, signals: &mut Signals) -> anyhow::Result<ExitStatus> {
    let draining = DrainOnly::start(loaded, app::bind_admin(&loaded.config).await?).await?;
    tracing::info!(admin = %draining.admin, "draining the spool; no deliveries are accepted");
    let emptied = tokio::select! {
        emptied = draining.emptied() => emptied.map(|()| true),
        () = signals.next() => Ok(false),
    };
    let left = draining.stop().await?;
    let emptied = emptied?;
    tracing::info!(live = left.live, parked = left.parked, emptied, "left in the spool");
    if left.parked > 0 {
        tracing::warn!(
            parked = left.parked,
            "Kafka refused these rows permanently: see `hookstream spool --parked`"
        );
    }
    Ok(if emptied { ExitStatus::Success } else { ExitStatus::Failure })
}

/// Waits for SIGTERM or SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
