//! `hookstream completions`

use std::io::{self, Write as _};

use clap::CommandFactory as _;
use clap_complete::aot::{Shell, generate};

use super::{Cli, ExitStatus};

const EXAMPLES: &str = "\
Examples:
  hookstream completions bash > /usr/share/bash-completion/completions/hookstream
  hookstream completions zsh > /usr/local/share/zsh/site-functions/_hookstream
  hookstream completions fish > ~/.config/fish/completions/hookstream.fish
  source <(hookstream completions bash)      # for this shell only";

/// Print the completion script for a shell
///
/// It completes the names of commands and options.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completion script.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitStatus> {
    // The generator panics if a write fails, as to a pipe whose reader has exited: so it writes to memory.
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "hookstream", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(ExitStatus::Success)
}
