//! The oracle: checks the delivery guarantee by counting every delivery under faults.
//!
//! `--help` lists the modes and options. It needs a running stack (`tests/stack/stack`) and its `HOOKSTREAM_TEST_*`
//! variables: `./tests/run --keep NAME` leaves a stack running and prints how to use it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub
)]

mod cluster;
mod deliveries;
mod disk;
mod exhaustion;
mod failpoints;
mod faults;
mod neighbours;
mod oracle;
mod order;
mod outage;
mod provider;
mod proxy;
mod registry;
mod rolling;
mod room;
mod senders;
mod service;
mod tasks;
mod trace;
mod tree;
mod verdict;
mod world;

#[path = "../hostile/clients.rs"]
mod clients;
#[allow(dead_code)]
#[path = "../hostile/crowd.rs"]
mod crowd;
#[allow(dead_code)]
#[path = "../hostile/honest.rs"]
mod honest;
#[allow(dead_code)]
#[path = "../it/support/mod.rs"]
mod support;
#[allow(dead_code)]
#[path = "../hostile/service.rs"]
mod watched;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum as _};

use faults::Fault;

/// The faults of the clock, and one that fills the spool between them.
const CLOCK: [Fault; 5] = [
    Fault::ClockBehind,
    Fault::ClockAhead,
    Fault::ClockJumps,
    Fault::OutlivesRetention,
    Fault::AllBrokersKilled,
];

/// Inject faults around a real hookstream, and check the outcome of every delivery.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    mode: Option<Mode>,
    #[command(flatten)]
    oracle: Oracle,
}

#[derive(clap::Args)]
struct Oracle {
    /// Minutes of faults; each kind is injected at least once.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// The seed of deliveries and faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// New deliveries per second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Only these kinds of faults.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Fault>,
}

#[derive(Subcommand)]
enum Mode {
    /// All brokers down for minutes: checks answers, memory, and the effect of the backlog on live deliveries.
    Outage {
        /// Minutes without a broker.
        #[arg(long, default_value_t = 5.0)]
        minutes: f64,
        /// New deliveries per second.
        #[arg(long, default_value_t = 200)]
        rate: u32,
        /// Cut the network to the brokers instead of killing them, so that they are warm afterwards.
        #[arg(long)]
        cut: bool,
    },
    /// One topic or broker unavailable: measures the effect on the others.
    Neighbours {
        /// Rounds, each with and without the fault.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// The spool's file system is full.
    Disk,
    /// Unauthenticated clients exhaust each resource in turn: measures the effect on honest deliveries and probes.
    Exhaustion,
    /// Check in a trace of system calls that each 202 follows the sync of its row.
    Order,
    /// Replace two replicas behind a load balancer one after the other, under load.
    Rolling {
        /// The seed of the deliveries.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// The service's clock is behind, ahead, and jumps; and an outage outlasts the topics' retention.
    Clock {
        /// The seed of deliveries and faults.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// New deliveries per second.
        #[arg(long, default_value_t = 100)]
        rate: u32,
    },
    /// Activate each failpoint in turn: the checks must find it. Needs --features failpoints.
    Failpoints {
        /// The seed of the deliveries.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Make each background task and the spool's writer panic: readiness must name it. Needs --features failpoints.
    Tasks,
}

impl Args {
    /// Whether the mode mounts a small file system, to fill it.
    fn needs_a_disk(&self) -> bool {
        matches!(
            self.mode,
            None | Some(Mode::Disk | Mode::Outage { .. } | Mode::Failpoints { .. } | Mode::Clock { .. })
        )
    }
}

fn minutes(minutes: f64) -> Duration {
    Duration::from_secs_f64(60.0 * minutes)
}

async fn run(args: Args) -> anyhow::Result<()> {
    if args.needs_a_disk() && !room::inside() {
        return tokio::task::spawn_blocking(room::again_inside).await?;
    }
    match args.mode {
        None => {
            let Oracle { minutes: time, seed, rate, mut faults } = args.oracle;
            if faults.is_empty() {
                faults = Fault::value_variants().to_vec();
            }
            oracle::run(oracle::Plan { time: minutes(time), seed, rate, faults, bug: None }).await
        }
        Some(Mode::Outage { minutes: time, rate, cut }) => outage::run(minutes(time), rate, 1, cut).await,
        Some(Mode::Neighbours { rounds }) => neighbours::run(rounds.max(1)).await,
        Some(Mode::Exhaustion) => exhaustion::run().await,
        Some(Mode::Disk) => disk::run().await,
        Some(Mode::Order) => order::run(None).await,
        Some(Mode::Rolling { seed }) => rolling::run(seed).await,
        Some(Mode::Clock { seed, rate }) => {
            oracle::run(oracle::Plan { time: Duration::ZERO, seed, rate, faults: CLOCK.to_vec(), bug: None })
                .await
        }
        Some(Mode::Failpoints { seed }) => failpoints::run(seed).await,
        Some(Mode::Tasks) => tasks::run().await,
    }
}

fn main() -> ExitCode {
    if let Some(plan) = crowd::plan_from_environment() {
        crowd::run(plan);
        return ExitCode::SUCCESS;
    }
    judge()
}

#[tokio::main(worker_threads = 2)]
async fn judge() -> ExitCode {
    let result = tokio::select! {
        result = run(Args::parse()) => result,
        // Dropping the run ends every process that it started.
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
