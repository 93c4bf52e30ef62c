//! `hookstream serve`

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigArgs, ExitStatus};
use crate::app::{self, App, DrainOnly, Listeners};
use crate::config::LoadedConfig;
use crate::http;
use crate::observe::log;

/// Take deliveries and publish them to Kafka
///
/// Missing topics are created and schemas registered at start. SIGHUP reads the
/// configuration again, as does a change of its files. SIGTERM stops it without loss, a second signal at
/// once. The log's filter is `log.filter`, or the variable HOOKSTREAM_LOG.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Take no deliveries: publish what the spool holds, then end (0 all out, 1 stopped before)
    #[arg(long)]
    drain_only: bool,
}

/// Runs until SIGTERM or SIGINT, then stops without loss; a second signal stops at once.
///
/// # Errors
/// Problems of the configuration; what was still in flight at the end of the shutdown's bound.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    let _written = log::init_service();
    // What only publishes finished records verifies nothing.
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
    // Before anybody can take us for started: until then it ends the process.
    let mut hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let listeners = Listeners::bind(&loaded.config).await?;
    let mut app = App::start(loaded, listeners, http::log()).await?;
    app.watch_files(app::RELOAD_LOOK);
    let reload = app.reload.clone();
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            // It says itself how it went.
            let _ = reload.now().await;
        }
    });
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
        () = signals.next() => anyhow::bail!("stopped at once by a second signal: what was in flight is not finished"),
    }
    tracing::info!("stopped");
    Ok(ExitStatus::Success)
}

/// Until no live row is left; [`Verdict::No`] when a signal came before.
async fn drain(loaded: &LoadedConfig, signals: &mut Signals) -> anyhow::Result<ExitStatus> {
    let draining = DrainOnly::start(loaded, app::bind_admin(&loaded.config).await?).await?;
    tracing::info!(admin = %draining.admin, "draining the spool; no deliveries are taken");
    let emptied = tokio::select! {
        () = draining.emptied() => true,
        () = signals.next() => false,
    };
    let left = draining.stop().await?;
    tracing::info!(live = left.live, parked = left.parked, emptied, "left in the spool");
    if left.parked > 0 {
        tracing::warn!(
            parked = left.parked,
            "Kafka refuses these rows for good: see `hookstream spool --parked`"
        );
    }
    Ok(if emptied { ExitStatus::Success } else { ExitStatus::Failure })
}

/// SIGTERM and SIGINT.
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
