//! `hookstream schema`

mod drift;
mod infer;
mod proposal;
mod scan;
mod schema_files;
mod show;

use clap::Subcommand;
use jiff::Timestamp;

use super::tail::offset;
use super::{ConfigArgs, ExitStatus};

/// Find fields that no schema covers, and write schemas for them
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: SchemaCommand,
}

/// The variants have no doc comments: clap would show those instead of the doc comments of the `Args`.
#[derive(Debug, Subcommand)]
enum SchemaCommand {
    Drift(drift::Args),
    Infer(infer::Args),
}

/// Runs the subcommand.
///
/// # Errors
/// Problems of the configuration, an unknown source or type, no broker, or a schema that cannot be made or written.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    match &args.command {
        SchemaCommand::Drift(args) => drift::run(config, args).await,
        SchemaCommand::Infer(args) => infer::run(config, args).await,
    }
}

/// Parses a time, or a duration before now.
fn since(text: &str) -> Result<Timestamp, String> {
    let now = Timestamp::now();
    let expected = "expected a time such as 2h, 7days, 2026-11-22T02:00:00Z (with a time zone) or 1795312800";
    let ago = || offset::time(&format!("-{text}"), now);
    offset::time(text, now).or_else(|_| ago()).map_err(|_| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_accepts_a_time_or_a_duration() {
        let ago = |text: &str| {
            let time = since(text).unwrap();
            Timestamp::now().duration_since(time).as_secs()
        };
        assert!((7_200..7_260).contains(&ago("2h")) && (7_200..7_260).contains(&ago("-2h")));
        assert_eq!(since("2026-11-22T02:00:00Z"), Ok("2026-11-22T02:00:00Z".parse().unwrap()));
        for bad in ["", "soon", "2026-11-22", "--2h"] {
            assert!(since(bad).unwrap_err().contains("7days"), "{bad}");
        }
    }
}
