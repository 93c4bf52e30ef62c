//! Counts instructions and allocations of a delivery by stage, without a network, and compares them with `bench/counts.txt`.
//!
//!     cargo bench --profile dev --config bench/count.toml --bench count              # compare
//!     cargo bench --profile dev --config bench/count.toml --bench count -- --update  # update the file
//!
//! It runs itself under callgrind, which counts the instructions within `collected`. The hash is counted separately, since
//! valgrind does not support SHA instructions, so it counts the software implementation, which has several times as many.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "count/allocations.rs"]
mod allocations;
#[path = "count/callgrind.rs"]
mod callgrind;
#[path = "count/deliveries.rs"]
mod deliveries;
#[path = "count/stages.rs"]
mod stages;
#[path = "count/table.rs"]
mod table;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use table::Table;

#[derive(Parser)]
struct Args {
    /// Update bench/counts.txt.
    #[arg(long)]
    update: bool,
    /// Run the stages; for the process under callgrind.
    #[arg(long, hide = true)]
    stages: bool,
    /// Passed by cargo to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.stages {
        stages::run();
        return ExitCode::SUCCESS;
    }
    if cfg!(debug_assertions) {
        eprintln!("this build is not optimised; run it with --config bench/count.toml");
        return ExitCode::FAILURE;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/counts.txt");
    let counted = callgrind::run();
    if args.update {
        std::fs::write(&file, counted.to_string()).unwrap();
        print!("{counted}");
        return ExitCode::SUCCESS;
    }
    let known = Table::read(&std::fs::read_to_string(&file).unwrap());
    if counted.compare(&known) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
