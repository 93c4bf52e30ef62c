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
  source <(hookstream completions bash)      # in this shell only";

/// Print the script that completes commands and options in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Whose script
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// What writing says.
pub fn run(args: &Args) -> anyhow::Result<ExitStatus> {
    // The generator panics where writing fails, as into a pipe that nobody reads any more.
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "hookstream", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(ExitStatus::Success)
}
