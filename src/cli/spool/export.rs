//! `hookstream spool export`

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{Whole, count, each, note};
use crate::cli::ExitStatus;
use crate::spool::{Filter, RowState, SpoolReader};

/// Write rows as JSON lines with everything, values in base64; the spool keeps them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A new file (- for standard output)
    file: PathBuf,
    /// Only rows that Kafka refused for good
    #[arg(long)]
    parked: bool,
    /// Only rows of this topic
    #[arg(long)]
    topic: Option<String>,
}

/// Rows written, and those of them that are damaged.
#[derive(Default)]
struct ExportCount {
    rows: u64,
    damaged: u64,
}

pub(super) fn run(reader: &SpoolReader, args: &Args) -> anyhow::Result<ExitStatus> {
    let filter = Filter { topic: args.topic.clone(), state: args.parked.then_some(RowState::Parked) };
    let written = if args.file == Path::new("-") {
        let mut out = BufWriter::new(std::io::stdout().lock());
        let written = write(reader, &filter, &mut out)?;
        out.flush()?;
        written
    } else {
        let failed = || format!("cannot write {}", args.file.display());
        // Values are payloads: for their owner only. What is there is never overwritten.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file);
        let mut out = BufWriter::new(file.with_context(failed)?);
        let written = write(reader, &filter, &mut out)?;
        let file = out.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(failed)?;
        file.sync_all().with_context(failed)?;
        written
    };
    note(&format!("exported {}", count(written.rows, "row")))?;
    if written.damaged > 0 {
        note(&format!("{} no longer held what was written", count(written.damaged, "row")))?;
        return Ok(ExitStatus::Failure);
    }
    Ok(ExitStatus::Success)
}

fn write(reader: &SpoolReader, filter: &Filter, out: &mut impl Write) -> anyhow::Result<ExportCount> {
    let mut written = ExportCount::default();
    each(reader, filter, usize::MAX, |row| {
        // Delivered since it was listed.
        let Some(entry) = reader.show(row.id)? else { return Ok(()) };
        let line = Whole::new(&entry, true);
        written.rows += 1;
        written.damaged += u64::from(line.damaged);
        serde_json::to_writer(&mut *out, &line).map_err(std::io::Error::from)?;
        Ok(out.write_all(b"\n")?)
    })?;
    Ok(written)
}
