//! Manual tests that take minutes and are not part of `./tests/run`.
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
    /// Compare the canonical form with the output of Python's json.dumps for random objects.
    Canonical(canonical::Args),
    /// Test whether a signature with a wrong first byte is refused in a different time than one with a wrong last byte.
    Timing(timing::Args),
}

fn main() -> ExitCode {
    let passed = match Args::parse() {
        Args::Canonical(args) => canonical::run(&args),
        Args::Timing(args) => timing::run(&args),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
