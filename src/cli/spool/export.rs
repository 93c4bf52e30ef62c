//! `hookstream spool export`

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{RowJson, count, each, note};
use crate::cli::ExitStatus;
use crate::spool::{Filter, RowState, SpoolReader};

/// Write complete rows as JSON lines to a new file
///
/// Values are in base64. The rows stay in the spool.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The new file, or `-` for standard output
    file: PathBuf,
    /// Only parked rows, which Kafka refused permanently
    #[arg(long)]
    parked: bool,
    /// Only rows for this topic
    #[arg(long)]
    topic: Option<String>,
}

/// The number of rows written, and how many of them are damaged.
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
        // Values are payloads: only the owner may read the file. An existing file is never overwritten.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file);
        let mut out = BufWriter::new(file.with_context(failed)?);
        let written = write(reader, &filter, &mut out)?;
        let file = out.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(failed)?;
        file.sync_all().with_context(failed)?;
        written
    };
    note(&format!("exported {}", count(written.rows, "row")))?;
    if written.damaged > 0 {
        note(&format!("{} no longer contained what was written", count(written.damaged, "row")))?;
        return Ok(ExitStatus::Failure);
    }
    Ok(ExitStatus::Success)
}

fn write(reader: &SpoolReader, filter: &Filter, out: &mut impl Write) -> anyhow::Result<ExportCount> {
    let mut written = ExportCount::default();
    each(reader, filter, usize::MAX, |row| {
        // The row was delivered after it was listed.
        let Some(entry) = reader.show(row.id)? else { return Ok(()) };
        let line = RowJson::new(&entry, true);
        written.rows += 1;
        written.damaged += u64::from(line.damaged);
        serde_json::to_writer(&mut *out, &line).map_err(std::io::Error::from)?;
        Ok(out.write_all(b"\n")?)
    })?;
    Ok(written)
}
