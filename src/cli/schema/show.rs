//! The report of `schema drift`: text and JSON.

use std::collections::BTreeMap;

use anstyle::{AnsiColor, Style};
use indicatif::HumanCount;
use serde::Serialize;
use similar::{ChangeTag, TextDiff};

use super::proposal::{Proposed, date};
use super::schema_files::{File, ServedSource};
use crate::cli::output::{self, escape_controls};
use crate::schema::drift::{DriftTable, FieldState, JsonType, LeftOut, PointerStats};
use crate::schema::promoted_fields::Promoted;

/// The complete report, as --json prints it. It has names and types, never values.
#[derive(Serialize)]
pub(super) struct DriftReport<'a> {
    source: &'a str,
    types: Vec<TypeJson<'a>>,
    /// Event types without a schema, which cannot drift.
    generic: &'a [String],
    /// The number of records that could not be decoded, by reason.
    pub(super) unreadable: BTreeMap<String, u64>,
    /// The new version of the schema, if a type was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) schema: Option<SchemaChange>,
}

#[derive(Serialize)]
struct TypeJson<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    topic: &'a str,
    records: u64,
    fields: Vec<FieldJson<'a>>,
    /// The number of values at pointers beyond the limit of separate pointers.
    past: u64,
}

#[derive(Serialize)]
struct FieldJson<'a> {
    #[serde(skip)]
    row: &'a PointerStats,
    pointer: &'a str,
    why: &'static str,
    /// The type of the existing field that cannot represent the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    field_type: Option<&'a str>,
    records: u64,
    first: Option<String>,
    last: Option<String>,
    json_types: Vec<&'static str>,
}

/// The change of a schema file.
#[derive(Serialize)]
pub(super) struct SchemaChange {
    file: String,
    from: String,
    serves: Vec<String>,
    written: bool,
    diff: Vec<String>,
    moves: Vec<Promoted>,
    left_out: Vec<LeftOut>,
    times: Vec<String>,
}

impl<'a> DriftReport<'a> {
    pub(super) fn new(source: &'a ServedSource, tables: &[(&'a str, &'a str, &'a DriftTable)]) -> Self {
        let types = tables.iter().map(|(name, topic, table)| {
            let fields = table.rows().map(FieldJson::new).collect();
            TypeJson { name, topic, records: table.records(), fields, past: table.past() }
        });
        Self {
            source: &source.name,
            types: types.collect(),
            generic: &source.generic,
            unreadable: BTreeMap::new(),
            schema: None,
        }
    }

    /// Each field with its event type.
    fn fields(&self) -> impl Iterator<Item = (&'a str, &'a PointerStats)> {
        self.types.iter().flat_map(|one| one.fields.iter().map(move |field| (one.name, field.row)))
    }

    /// Those for which the schema has no field.
    fn new_fields(&self) -> impl Iterator<Item = (&'a str, &'a PointerStats)> {
        self.fields().filter(|(_, row)| matches!(row.standing, FieldState::New { .. }))
    }
}

impl<'a> FieldJson<'a> {
    fn new(row: &'a PointerStats) -> Self {
        let (why, field_type) = match &row.standing {
            FieldState::New { .. } => ("new", None),
            FieldState::Misfit { is } => ("misfit", Some(is.as_str())),
            FieldState::Rounded { is } => ("rounded", Some(is.as_str())),
            FieldState::Former => ("former", None),
        };
        let time = |ms: Option<i64>| jiff::Timestamp::from_millisecond(ms?).ok().map(|time| time.to_string());
        Self {
            row,
            pointer: &row.pointer,
            why,
            field_type,
            records: row.records,
            first: time(row.first),
            last: time(row.last),
            json_types: row.shape.types().iter().copied().map(JsonType::name).collect(),
        }
    }
}

impl SchemaChange {
    pub(super) fn new(file: &File, proposed: Proposed, written: bool) -> Self {
        Self {
            file: proposed.path.display().to_string(),
            from: file.origin.to_string(),
            serves: file.types.clone(),
            written,
            diff: diff(&file.text, &proposed.text),
            moves: proposed.moves,
            left_out: proposed.left_out,
            times: proposed.times,
        }
    }
}

/// A unified diff: lines with `+`, `-` or a space in front, and `@@` lines with positions.
fn diff(old: &str, new: &str) -> Vec<String> {
    let diff = TextDiff::from_lines(old, new);
    let mut lines = Vec::new();
    for hunk in diff.unified_diff().context_radius(2).iter_hunks() {
        lines.push(hunk.header().to_string());
        lines.extend(hunk.iter_changes().map(|change| {
            let sign = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            format!("{sign}{}", change.value().trim_end_matches(['\r', '\n']))
        }));
    }
    lines
}

const ADD: Style = AnsiColor::Green.on_default();
const REMOVE: Style = AnsiColor::Red.on_default();
const PLACE: Style = AnsiColor::Cyan.on_default();
const BOLD: Style = Style::new().bold();

/// Prints the report as text.
pub(super) fn report(report: &DriftReport<'_>) -> anyhow::Result<()> {
    let records: u64 = report.types.iter().map(|one| one.records).sum();
    if report.new_fields().next().is_none() {
        let types = super::scan::count(length(&report.types), "event type");
        let records = super::scan::count(records, "record");
        output::print_line(&format!("no drift in {records} of {types}: all fields are known"))?;
    } else {
        let mut table = output::TextTable::new(["type", "field", "seen", "since", "JSON type"]);
        for (name, row) in report.new_fields() {
            table.row(cells(name, row));
        }
        output::print_line(&table.to_string())?;
    }
    misfits(report)?;
    for one in report.types.iter().filter(|one| one.past > 0) {
        line(&format!(
            "note  {}: {} at further pointers, beyond the 1,000 that are counted separately",
            one.name,
            super::scan::count(one.past, "value")
        ))?;
    }
    for one in &report.types {
        let former = one.fields.iter().filter(|field| field.row.standing == FieldState::Former);
        let former: Vec<&str> = former.map(|field| field.pointer).collect();
        if !former.is_empty() {
            line(&format!(
                "note  {}: only in records from before the schema had a field: {}",
                one.name,
                former.join(", ")
            ))?;
        }
    }
    match &report.schema {
        Some(schema) => change(schema),
        None => next(report),
    }
}

/// Prints values that an existing field cannot represent.
fn misfits(report: &DriftReport<'_>) -> anyhow::Result<()> {
    let mut table =
        output::TextTable::new(["type", "kept in additional_fields", "seen", "since", "JSON type", "why"]);
    let mut any = false;
    for (name, row) in report.fields() {
        let why = match &row.standing {
            FieldState::Misfit { is } => format!("not a {is}: the field is null"),
            FieldState::Rounded { is } => format!("a {is} cannot represent it exactly"),
            FieldState::New { .. } | FieldState::Former => continue,
        };
        table.row(cells(name, row).into_iter().chain([why]));
        any = true;
    }
    if any {
        output::print_line("")?;
        output::print_line(&table.to_string())?;
    }
    Ok(())
}

/// A field's row in a table.
fn cells(event_type: &str, row: &PointerStats) -> [String; 5] {
    [
        event_type.to_owned(),
        row.pointer.clone(),
        HumanCount(row.records).to_string(),
        date(row.first).unwrap_or_default(),
        row.shape.description(),
    ]
}

fn next(report: &DriftReport<'_>) -> anyhow::Result<()> {
    if let Some((first, _)) = report.new_fields().next() {
        let source = report.source;
        output::print_line("")?;
        line(&format!("next  hookstream schema drift {source} {first}   shows the schema that covers them"))?;
    }
    Ok(())
}

/// Prints the change of the schema and the next step.
fn change(change: &SchemaChange) -> anyhow::Result<()> {
    output::print_line("")?;
    if change.diff.is_empty() {
        line(&format!("{}: no field to add", change.from))?;
        return left_out(change);
    }
    let file = escape_controls(&change.file);
    let origin =
        if change.from == change.file { String::new() } else { format!(" (new, from {})", change.from) };
    output::print_line(&format!("{BOLD}{file}{BOLD:#}{}", escape_controls(&origin)))?;
    if change.serves.len() > 1 {
        line(&format!("serves {}: all of them gain the fields", change.serves.join(", ")))?;
    }
    for text in &change.diff {
        let style = match text.as_bytes().first() {
            Some(b'+') => ADD,
            Some(b'-') => REMOVE,
            Some(b'@') => PLACE,
            _ => Style::new(),
        };
        output::print_line(&format!("{style}{}{style:#}", escape_controls(text)))?;
    }
    output::print_line("")?;
    left_out(change)?;
    for pointer in &change.times {
        line(&format!(
            "note  {pointer}: every value was an RFC 3339 time; if it should be a timestamp-millis, change it now: \
             its type cannot be changed once it is registered"
        ))?;
    }
    moves(&change.moves)?;
    line(if change.written {
        "next  describe the new fields in their `doc`, run hookstream provision --apply, and reload (SIGHUP)"
    } else {
        "next  nothing was written: --write writes the file"
    })
}

/// Prints the members that consumers must read in another place.
fn moves(moves: &[Promoted]) -> anyhow::Result<()> {
    let mut table = output::TextTable::new([
        "moves out of additional_fields",
        "into",
        "consumers read both, for example",
    ]);
    for one in moves {
        table.row([&one.pointer, &one.field, &both(one)]);
    }
    output::print_line(&table.to_string())?;
    output::print_line("")?;
    line(
        "note  new records no longer have these in additional_fields; values there are JSON text, strings in quotes",
    )
}

/// SQL that reads the typed field, or the text of older records.
fn both(Promoted { pointer, field, is }: &Promoted) -> String {
    if pointer.contains("/*") {
        return String::new();
    }
    let text = format!("additional_fields['{}']", pointer.replace('\'', "''"));
    let cast = |is: &str| format!("COALESCE({field}, CAST({text} AS {is}))");
    match is.as_str() {
        "string" => format!("COALESCE({field}, TRIM(BOTH '\"' FROM {text}))"),
        "long" => cast("BIGINT"),
        "double" => cast("DOUBLE"),
        "boolean" => cast("BOOLEAN"),
        // For other types, consumers must parse the text.
        _ => String::new(),
    }
}

fn left_out(change: &SchemaChange) -> anyhow::Result<()> {
    change.left_out.iter().try_for_each(|left| line(&format!("no field for {}: {}", left.pointer, left.why)))
}

fn line(text: &str) -> anyhow::Result<()> {
    Ok(output::print_line(&escape_controls(text))?)
}

/// The length as a `u64`.
pub(super) fn length<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_shows_changes_and_positions() {
        let old = "a\nb\nc\nd\ne\n";
        assert_eq!(
            diff(old, "a\nb\nc,\nnew\nd\ne\n"),
            ["@@ -1,5 +1,6 @@", " a", " b", "-c", "+c,", "+new", " d", " e"]
        );
        assert!(diff(old, old).is_empty());
    }
}
