//! `hookstream spool show`

use std::fmt::Write as _;

use base64::Engine as _;

use super::{BASE64, RowJson, note, print_json, time};
use crate::cli::ExitStatus;
use crate::cli::output::{self, escape_controls};
use crate::record::{Record, headers};
use crate::spool::{RowEntry, SpoolReader};

/// Show one row with its headers
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The id of the row
    id: i64,
    /// Also show the value: as text if it is UTF-8, else in base64
    #[arg(long)]
    value: bool,
}

pub(super) fn run(reader: &SpoolReader, args: &Args, json: bool) -> anyhow::Result<ExitStatus> {
    let Some(entry) = reader.show(args.id)? else {
        note(&format!("no row {}: it was delivered, or never existed", args.id))?;
        return Ok(ExitStatus::Failure);
    };
    if json {
        print_json(&RowJson::new(&entry, args.value))?;
    } else {
        output::print_line(text(&entry, args.value).trim_end())?;
    }
    Ok(if entry.record.is_some() { ExitStatus::Success } else { ExitStatus::Failure })
}

fn text(entry: &RowEntry, with_value: bool) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<10}{}", escape_controls(value));
    };
    line("row", &entry.id.to_string());
    line("state", entry.state.label());
    if let Some(why) = &entry.why {
        line("why", why);
    }
    let Some(record) = &entry.record else {
        line("damaged", "the row no longer contains what was written");
        return text;
    };
    line("topic", record.topic());
    line("key", record.key());
    line("received", &time(record.timestamp_ms()));
    for (index, (name, value)) in record.headers().iter().enumerate() {
        line(if index == 0 { "headers" } else { "" }, &format!("{name}: {value}"));
    }
    line("value", &kind(record));
    if with_value {
        match std::str::from_utf8(record.value()) {
            Ok(value) if !value.contains('\0') => value.lines().for_each(|value| line("", value)),
            _ => line("base64", &BASE64.encode(record.value())),
        }
    }
    text
}

/// Describes the value without showing it.
fn kind(record: &Record) -> String {
    let bytes = record.value().len();
    let avro =
        record.headers().iter().any(|(name, value)| name == headers::CONTENT_TYPE && value == headers::AVRO);
    match record.value().split_first_chunk::<5>() {
        Some(([0, id @ ..], _)) if avro => {
            format!("{bytes} bytes: Avro, schema id {}", u32::from_be_bytes(*id))
        }
        _ => format!("{bytes} bytes: the body as it was sent"),
    }
}
