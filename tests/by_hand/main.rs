//! What takes minutes and is run by hand: no part of `./tests/run`.
//!
//!     cargo test --test by_hand -- canonical --objects 1000000
//!     cargo test --release --test by_hand -- timing
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod canonical;
mod timing;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
enum Args {
    /// Compare the canonical form with what Python's json.dumps writes for random objects.
    Canonical(canonical::Args),
    /// Look for a difference in time between a signature wrong in its first and in its last byte.
    Timing(timing::Args),
}

fn main() -> ExitCode {
    let right = match Args::parse() {
        Args::Canonical(args) => canonical::run(&args),
        Args::Timing(args) => timing::run(&args),
    };
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
