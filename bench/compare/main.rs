//! The benchmarks: `./bench/run` builds this, starts Kafka and the registry, and runs it.
//!
//! It also contains the programs that hookstream is compared with, and starts itself for each of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]
#![allow(clippy::print_stdout, clippy::print_stderr, unreachable_pub)]

mod contender;
mod deliveries;
mod kafka;
mod least;
mod load;
mod measure;
mod pace;
mod plan;
mod process;
mod report;
mod results;
mod start;
mod stats;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use kafka::Kafka;
use measure::World;
use pace::Pace;
use plan::Plan;
use results::{Contender, Group};

/// The same allocator as hookstream's for all contenders, so that the comparison is about their work.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compare hookstream with bare axum and with a relay that publishes the body unread.
#[derive(Parser)]
#[command(name = "bench/run", args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    program: Option<Part>,
    #[command(flatten)]
    run: Run,
}

#[derive(clap::Args)]
struct Run {
    /// One round of half a second each, to test the benchmarks themselves. Writes no file
    #[arg(long)]
    quick: bool,
    /// Only these groups; the page keeps the figures of the others
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// Rounds; in each, all contenders of a group are measured once
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of one measurement
    #[arg(long)]
    seconds: Option<f64>,
    /// The directory of the running stack; passed by bench/run
    #[arg(long, hide = true)]
    stack: Option<PathBuf>,
    /// The directory for the contenders' files; passed by bench/run
    #[arg(long, hide = true)]
    dir: Option<PathBuf>,
}

/// The other contenders.
#[derive(Subcommand)]
enum Part {
    #[command(hide = true)]
    Axum {
        #[command(flatten)]
        args: contender::Args,
        #[arg(long)]
        stock: bool,
    },
    #[command(hide = true)]
    Relay(contender::Args),
    #[command(hide = true)]
    Least(contender::Args),
    #[command(hide = true)]
    Produce {
        #[command(flatten)]
        args: contender::Args,
        #[arg(long)]
        rate: u32,
        #[arg(long)]
        warm: f64,
        #[arg(long)]
        seconds: f64,
        #[arg(long)]
        bytes: usize,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.program {
        Some(Part::Axum { args, stock }) => contender::axum(&args, stock).map(|()| true),
        Some(Part::Relay(args)) => contender::relay(args).map(|()| true),
        Some(Part::Least(args)) => least::least(args).map(|()| true),
        Some(Part::Produce { args, rate, warm, seconds, bytes }) => {
            let [warm, time] = [warm, seconds].map(Duration::from_secs_f64);
            contender::produce(&args, Pace { rate, warm, time }, bytes).map(|()| true)
        }
        None => run(&args.run),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether the numbers of answers and records are equal everywhere.
fn run(args: &Run) -> anyhow::Result<bool> {
    let plans = chosen(&args.only)?;
    let variable =
        |name: &str| std::env::var(name).with_context(|| format!("{name} is not set: use ./bench/run"));
    let stack = args.stack.as_deref().context("use ./bench/run, which starts Kafka and the registry")?;
    let dir = args.dir.as_deref().context("use ./bench/run, which starts Kafka and the registry")?;
    let pid = std::fs::read_to_string(stack.join("kafka.pid"))?.trim().parse()?;
    let kafka = Kafka::new(variable("HOOKSTREAM_TEST_KAFKA")?, pid)?;
    let registry = variable("HOOKSTREAM_TEST_REGISTRY")?;
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let world = World { kafka: &kafka, registry: &registry, dir };
    let (home, began) = (Path::new(env!("CARGO_MANIFEST_DIR")), Instant::now());
    let files = home.join("bench/results");
    warm_up(&world, args.quick)?;
    let mut invalid = Vec::new();
    for plan in &plans {
        let (rounds, seconds) = length(args, plan);
        println!("\n{}: {} ({rounds} rounds; so far {} s)", plan.name, plan.title, began.elapsed().as_secs());
        let group = group(&world, plan, rounds, seconds)?;
        println!("{}", report::tables(&group));
        invalid.extend(group.problems());
        if !args.quick {
            group.write(&files)?;
        }
    }
    if !args.quick {
        let page = home.join("docs/benchmarks.md");
        std::fs::write(&page, report::page(&files)?)?;
        println!("wrote docs/benchmarks.md and bench/results/");
    }
    for invalid in &invalid {
        eprintln!("invalid: {invalid}");
    }
    println!(
        "{} s; {}",
        began.elapsed().as_secs(),
        if invalid.is_empty() {
            "every answer had its record"
        } else {
            "some answers or records have no counterpart"
        }
    );
    Ok(invalid.is_empty())
}

fn chosen(only: &[String]) -> anyhow::Result<Vec<Plan>> {
    let names: Vec<_> = plan::all().iter().map(|plan| plan.name).collect();
    for name in only {
        anyhow::ensure!(
            names.contains(&name.as_str()),
            "there is no group {name}; there are: {}",
            names.join(", ")
        );
    }
    let is_selected = |plan: &Plan| {
        if only.is_empty() { !plan.on_request } else { only.iter().any(|name| name == plan.name) }
    };
    Ok(plan::all().into_iter().filter(is_selected).collect())
}

/// The number of rounds, and the seconds of each measurement.
fn length(args: &Run, plan: &Plan) -> (usize, f64) {
    let usual = if args.quick { (1, 0.5) } else { plan.length.unwrap_or((5, 3.0)) };
    (args.rounds.unwrap_or(usual.0), args.seconds.unwrap_or(usual.1))
}

/// Warms up Kafka, whose virtual machine compiles hot code only after some time.
fn warm_up(world: &World<'_>, quick: bool) -> anyhow::Result<()> {
    let mut plan = plan::all().into_iter().find(|plan| plan.name == "base").context("no base point")?;
    plan.name = "warm";
    measure::run(world, &plan, 1, if quick { 2.0 } else { 10.0 }, |_| ())?;
    Ok(())
}

fn group(world: &World<'_>, plan: &Plan, rounds: usize, seconds: f64) -> anyhow::Result<Group> {
    let (contenders, samples) = if plan.name == plan::START {
        start::run(world, rounds, report::tell)?
    } else {
        let contender = |variant: &plan::Variant| Contender {
            name: variant.name.clone(),
            against: variant.against.clone(),
        };
        let contenders = plan.variants.iter().map(contender).collect();
        (contenders, measure::run(world, plan, rounds, seconds, report::tell)?)
    };
    Ok(Group {
        name: plan.name.into(),
        title: plan.title.into(),
        note: plan.note.into(),
        when: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%MZ").to_string(),
        machine: report::machine(),
        commit: report::commit(),
        seconds,
        contenders,
        samples,
    })
}
