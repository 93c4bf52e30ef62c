//! Parse, dispatch, exit code: all of it stands in `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    hookstream::cli::main()
}
