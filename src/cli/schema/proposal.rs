//! Makes a new version of a schema file with fields for received members.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Context as _;
use apache_avro::schema_compatibility::SchemaCompatibility;
use jiff::Timestamp;

use super::schema_files::{File, ServedSource};
use crate::schema::drift::{self, FieldState, Fields, LeftOut, ObservedShape, PointerStats, Proposal};
use crate::schema::promoted_fields::{Promoted, promoted};
use crate::schema::{Encoder, shipped};

/// The new version.
pub(super) struct Proposed {
    /// The path to write it to.
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Members that move out of `additional_fields`.
    pub(super) moves: Vec<Promoted>,
    pub(super) left_out: Vec<LeftOut>,
    /// See [`Proposal::times`].
    pub(super) times: Vec<String>,
}

/// New members of one record of the schema.
#[derive(Default)]
struct Gain {
    pointer: String,
    shape: ObservedShape,
    /// The first record with each member, in milliseconds since 1970.
    first: BTreeMap<String, Option<i64>>,
}

/// Makes the new version with fields for the new members in `rows`, and checks it as `check` and the registry would.
///
/// # Errors
/// The file's text cannot be edited, or the result is not a compatible schema.
pub(super) fn make<'r>(
    source: &ServedSource,
    file: &File,
    rows: impl Iterator<Item = &'r PointerStats>,
) -> anyhow::Result<Proposed> {
    let fields = Fields::new(&file.schema, &source.places).context("the schema uses an undefined name")?;
    let mut used: BTreeSet<String> = fields.names().map(str::to_owned).collect();
    let (gains, mut left_out) = gains(rows);
    let (mut text, mut times) = (file.text.clone(), Vec::new());
    for (home, gain) in gains {
        let record = fields.record(&home).with_context(|| format!("the schema has no record {home}"))?;
        let taken: Vec<&str> = record.fields.iter().map(|field| field.name.as_str()).collect();
        let name = record.name.name();
        let proposal = drift::propose(&gain.shape, &gain.pointer, name, &taken, &mut used);
        let Proposal { fields, left_out: left, times: found } = proposal;
        for field in &fields {
            let doc = doc(gain.first.get(&field.key).copied().flatten());
            let cannot = || format!("{} cannot be edited", file.origin);
            text = drift::insert(&text, &home, std::slice::from_ref(field), &doc)
                .map_err(anyhow::Error::msg)
                .with_context(cannot)?;
        }
        left_out.extend(left);
        times.extend(found);
    }
    let moves = checked(source, file, &text)
        .context("nothing was written: the schema with these fields is invalid")?;
    Ok(Proposed { path: file.path(source), text, moves, left_out, times })
}

/// New members by the record that gets them, and those that no record can get.
fn gains<'r>(rows: impl Iterator<Item = &'r PointerStats>) -> (BTreeMap<String, Gain>, Vec<LeftOut>) {
    let (mut gains, mut left_out) = (BTreeMap::<String, Gain>::new(), Vec::new());
    for row in rows {
        let FieldState::New { home, names } = &row.standing else { continue };
        let (Some(home), Some(key)) = (home, names.first()) else {
            left_out.push(LeftOut {
                pointer: row.pointer.clone(),
                why: "its record is not clear: several are possible, or it is outside `data`".into(),
            });
            continue;
        };
        let gain = gains.entry(home.clone()).or_default();
        let above = row.pointer.rsplitn(names.len() + 1, '/').last();
        gain.pointer = above.unwrap_or_default().to_owned();
        gain.shape.merge_at(names, &row.shape);
        let first = gain.first.entry(key.clone()).or_default();
        *first = match (*first, row.first) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    (gains, left_out)
}

fn doc(first: Option<i64>) -> String {
    match date(first) {
        Some(date) => format!("Seen since {date}; not described yet."),
        None => "Not described yet.".into(),
    }
}

/// The date in UTC.
pub(super) fn date(ms: Option<i64>) -> Option<String> {
    Some(Timestamp::from_millisecond(ms?).ok()?.strftime("%Y-%m-%d").to_string())
}

/// Checks that the schema may be written, and returns the members that it promotes to fields.
fn checked(source: &ServedSource, file: &File, text: &str) -> anyhow::Result<Vec<Promoted>> {
    let schema = shipped::parse(text).map_err(anyhow::Error::msg)?;
    Encoder::compile(&schema, 0, &source.places)
        .map_err(|faults| anyhow::anyhow!("{}", faults.join("; ")))?;
    SchemaCompatibility::mutual_read(&file.schema, &schema)
        .map_err(|error| anyhow::anyhow!("readers of both versions: {error}"))?;
    Ok(promoted(&file.schema, &schema, &source.places))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::EventPlaces;
    use crate::json::Pointer;
    use crate::schema::shipped::SchemaOrigin;

    #[test]
    fn schemas_that_old_readers_cannot_read_are_never_written() {
        let text = include_str!("../../../schemas/grapevine/document.changed.avsc");
        let places = EventPlaces {
            id: vec![],
            event_type: vec![],
            time: vec![],
            data: Pointer::parse("/data").unwrap(),
        };
        let source = ServedSource {
            name: "a".into(),
            places,
            files: Vec::new(),
            generic: Vec::new(),
            unmapped: false,
        };
        let file = File {
            origin: SchemaOrigin::File("x.avsc".into()),
            text: text.into(),
            schema: shipped::parse(text).unwrap(),
            types: Vec::new(),
        };
        let judged = |text: &str| {
            let judged = checked(&source, &file, text);
            judged.map(|moves| moves.into_iter().map(|one| one.pointer).collect()).map_err(|e| e.to_string())
        };
        let field = |more: &str| {
            let new = format!("{{\"name\": \"new\", \"type\": [\"null\", \"long\"]{more}}}, ");
            text.replacen(
                "{\n            \"name\": \"source\"",
                &format!("{new}{{\n            \"name\": \"source\""),
                1,
            )
        };
        assert_eq!(judged(text), Ok(Vec::new()));
        assert_eq!(judged(&field(", \"default\": null")), Ok(vec!["/data/new".to_owned()]));
        let error = judged(&field("")).unwrap_err();
        assert!(error.starts_with("readers of both versions: "), "no default: {error}");
        let error = judged(&text.replace("\"name\": \"received_at\"", "\"name\": \"at\"")).unwrap_err();
        assert!(error.contains("field `received_at` is missing"), "{error}");
    }
}
