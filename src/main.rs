//! The entry point of the program. All code is in the library, see `hookstream::cli`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hookstream::cli::main()
}
