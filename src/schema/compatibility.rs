//! Whether two versions of a schema can read each other's records, and if not, because of which fields.
//!
//! apache-avro decides. Its result "partial" (some written values can be read, others not) counts as incompatible, as
//! in the Java registry. Its errors name at most the first field, so a separate walk finds the deepest fields that
//! apache-avro rejects.

use std::iter::once;

use apache_avro::Schema;
use apache_avro::error::CompatibilityError;
use apache_avro::schema::{NamesRef, RecordField, ResolvedSchema, UnionSchema};
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

use super::changes::type_text;
use super::promoted_fields::{SchemaPair, join};
use crate::config::CompatibilityLevel;

/// Limit on the types in a schema with all named types expanded; beyond it, the names are not expanded.
const MAX_TYPES: usize = 20_000;

/// The reasons why `new` is incompatible with `old`, one line per field; empty if it is compatible.
pub fn faults(level: CompatibilityLevel, new: &Schema, old: &Schema) -> Vec<String> {
    let (new, old) = (written_out(new), written_out(old));
    let mut faults = Vec::new();
    let mut add = |reading: &str, found: Vec<Unread>| {
        faults.extend(found.into_iter().map(|Unread { field, why }| match field.as_str() {
            "" => format!("{reading}: {why}"),
            field => format!("field {field}: {reading}: {why}"),
        }));
    };
    if level.backward() {
        add("the new schema cannot read the old records", unread(&old, &new));
    }
    if level.forward() {
        add("the old schema cannot read the new records", unread(&new, &old));
    }
    faults
}

/// A field that cannot be read, by its path.
struct Unread {
    field: String,
    why: String,
}

fn unread(writer: &Schema, reader: &Schema) -> Vec<Unread> {
    let mut walk =
        CompatibilityWalk { pair: SchemaPair::new(writer, reader), within: Vec::new(), found: Vec::new() };
    walk.types(writer, reader, "");
    walk.found
}

struct CompatibilityWalk<'s> {
    pair: SchemaPair<'s>,
    /// Names of the records around the current one.
    within: Vec<&'s str>,
    found: Vec<Unread>,
}

impl<'s> CompatibilityWalk<'s> {
    /// Compares the types at `at`. The fault of a type is reported only if none of its fields explains it.
    fn types(&mut self, writer: &'s Schema, reader: &'s Schema, at: &str) {
        let Some(why) = fault(writer, reader) else { return };
        let before = self.found.len();
        for (steps, written, read) in self.pair.records(writer, reader) {
            let name = read.name.name();
            if name != written.name.name() || self.within.contains(&name) {
                continue;
            }
            self.within.push(name);
            let record = format!("{at}{}", ".*".repeat(steps));
            for field in &read.fields {
                let at = join(&record, &field.name);
                match named(field, &written.fields) {
                    Some(written) => self.types(&written.schema, &field.schema, &at),
                    None if field.default.is_some() => {}
                    None => {
                        let why =
                            "it is missing from them, and has no default in the reading schema".to_owned();
                        self.found.push(Unread { field: at, why });
                    }
                }
            }
            self.within.pop();
        }
        if self.found.len() == before {
            self.found.push(Unread { field: at.to_owned(), why });
        }
    }
}

/// The writer's field from which a reader's field is read.
fn named<'s>(reader: &RecordField, fields: &'s [RecordField]) -> Option<&'s RecordField> {
    once(&reader.name).chain(&reader.aliases).find_map(|name| fields.iter().find(|field| field.name == *name))
}

fn fault(writer: &Schema, reader: &Schema) -> Option<String> {
    let types = || format!("written as {}, read as {}", type_text(writer), type_text(reader));
    match SchemaCompatibility::can_read(writer, reader) {
        Ok(Compatibility::Full) => None,
        Ok(Compatibility::Partial) => Some(format!("not every value: {}", types())),
        Err(CompatibilityError::NameMismatch { writer_name, reader_name }) => {
            Some(format!("written as {writer_name}, read as {reader_name}"))
        }
        Err(_) => Some(types()),
    }
}

/// The schema with each named type expanded, except within itself: apache-avro does not compare a name with its
/// definition, and which use of a type has the definition depends on the order of the fields.
fn written_out(schema: &Schema) -> Schema {
    let Ok(resolved) = ResolvedSchema::new(schema) else { return schema.clone() };
    let mut out = WriteOut { names: resolved.get_names(), within: Vec::new(), left: MAX_TYPES };
    let written = out.schema(schema);
    if out.left == 0 { schema.clone() } else { written }
}

struct WriteOut<'s> {
    names: &'s NamesRef<'s>,
    within: Vec<String>,
    left: usize,
}

impl WriteOut<'_> {
    fn schema(&mut self, schema: &Schema) -> Schema {
        if self.left == 0 {
            return schema.clone();
        }
        self.left -= 1;
        match schema {
            Schema::Ref { name } => match self.names.get(name) {
                Some(named) if !self.within.contains(&name.fullname(None)) => self.schema(named),
                _ => schema.clone(),
            },
            Schema::Record(record) => {
                let mut record = record.clone();
                self.within.push(record.name.fullname(None));
                for field in &mut record.fields {
                    field.schema = self.schema(&field.schema);
                }
                self.within.pop();
                Schema::Record(record)
            }
            Schema::Array(array) => {
                let mut array = array.clone();
                array.items = Box::new(self.schema(&array.items));
                Schema::Array(array)
            }
            Schema::Map(map) => {
                let mut map = map.clone();
                map.types = Box::new(self.schema(&map.types));
                Schema::Map(map)
            }
            Schema::Union(union) => {
                let variants = union.variants().iter().map(|schema| self.schema(schema)).collect();
                UnionSchema::new(variants).map_or_else(|_| schema.clone(), Schema::Union)
            }
            other => other.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &str) -> Schema {
        Schema::parse_str(&format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)).unwrap()
    }

    fn refusing(new: &Schema, old: &Schema) -> Vec<&'static str> {
        let refusing =
            CompatibilityLevel::ALL.into_iter().filter(|level| !faults(*level, new, old).is_empty());
        refusing.map(CompatibilityLevel::as_str).collect()
    }

    const FULL: [&str; 2] = ["FULL", "FULL_TRANSITIVE"];

    #[test]
    fn each_level_rejects_changes_that_its_readers_could_not_read() {
        let one = record(r#"{"name":"a","type":"string"}"#);
        let required = record(r#"{"name":"a","type":"string"},{"name":"b","type":"string"}"#);
        let optional =
            record(r#"{"name":"a","type":"string"},{"name":"b","type":["null","string"],"default":null}"#);
        assert_eq!(refusing(&required, &one), [&["BACKWARD", "BACKWARD_TRANSITIVE"], &FULL[..]].concat());
        assert_eq!(refusing(&one, &required), [&["FORWARD", "FORWARD_TRANSITIVE"], &FULL[..]].concat());
        assert!(refusing(&optional, &one).is_empty());
        assert!(refusing(&one, &optional).is_empty());
    }

    #[test]
    fn a_type_that_only_some_readers_know_is_a_fault_of_one_direction() {
        let narrow = record(r#"{"name":"a","type":["null","string"]}"#);
        let wide = record(r#"{"name":"a","type":["null","string","long"]}"#);
        assert_eq!(refusing(&wide, &narrow), [&["FORWARD", "FORWARD_TRANSITIVE"], &FULL[..]].concat());
    }

    #[test]
    fn a_fault_names_the_field_and_stays_on_one_line() {
        let text = record(r#"{"name":"a","type":"string"}"#);
        let nested = record(
            r#"{"name":"a","type":{"type":"record","name":"N","fields":[{"name":"b","type":"int"}]}}"#,
        );
        let found = faults(CompatibilityLevel::Backward, &nested, &text);
        let why = "field a: the new schema cannot read the old records: written as string, read as N";
        assert_eq!(found, [why]);
    }

    #[test]
    fn each_field_is_named_at_any_depth() {
        let schema = |inner: &str| {
            record(&format!(
                r#"{{"name":"list","type":{{"type":"array","items":["null",{{"type":"record","name":"I","fields":[{inner}]}}]}}}},
                {{"name":"one","type":["null","I"],"default":null}}"#
            ))
        };
        let old = schema(r#"{"name":"a","type":"long"},{"name":"gone","type":"string"}"#);
        let new = schema(r#"{"name":"a","type":"string"},{"name":"b","type":"string"}"#);
        let found = faults(CompatibilityLevel::FullTransitive, &new, &old);
        for expected in [
            "field list.*.a: the new schema cannot read the old records: written as long, read as string",
            "field list.*.b: the new schema cannot read the old records: it is missing from them",
            "field list.*.gone: the old schema cannot read the new records: it is missing from them",
            "field one.a: the old schema cannot read the new records: written as string, read as long",
        ] {
            assert!(found.iter().any(|fault| fault.starts_with(expected)), "{expected} is not in {found:#?}");
        }
        assert_eq!(found.len(), 8, "{found:#?}");
    }

    #[test]
    fn a_new_use_of_a_type_may_precede_its_definition() {
        let place = r#"{"type":"record","name":"P","fields":[{"name":"x","type":"int"},{"name":"in","type":["null","P"]}]}"#;
        let old = record(&format!(r#"{{"name":"b","type":{place}}}"#));
        let new = record(&format!(
            r#"{{"name":"a","type":["null",{place}],"default":null}},{{"name":"b","type":"P"}}"#
        ));
        assert_eq!(faults(CompatibilityLevel::FullTransitive, &new, &old), [""; 0]);
    }

    /// The table in docs/schemas.md.
    #[test]
    fn each_change_of_a_field_has_the_documented_effect() {
        let time =
            |logical: &str| format!(r#"{{"name":"f","type":{{"type":"long","logicalType":"{logical}"}}}}"#);
        let plain = |kind: &str| format!(r#"{{"name":"f","type":{kind}}}"#);
        let symbols = |symbols: &str, default: &str| {
            plain(&format!(r#"{{"type":"enum","name":"E","symbols":[{symbols}]{default}}}"#))
        };
        let decimal = |scale: u8| {
            plain(&format!(r#"{{"type":"bytes","logicalType":"decimal","precision":9,"scale":{scale}}}"#))
        };
        let (none, null) =
            (String::new(), r#"{"name":"f","type":["null","long"],"default":null}"#.to_owned());
        let zero = r#"{"name":"f","type":"long","default":0}"#.to_owned();
        let one = zero.replace("default\":0", "default\":1");
        let documented = zero.replace("long\"", "long\",\"doc\":\"d\"");
        let default = r#","default":"A""#;
        // Before, after, new reads old, old reads new.
        let rows = [
            (&none, &null, true, true),
            (&none, &zero, true, true),
            (&none, &plain("\"long\""), false, true),
            (&null, &none, true, true),
            (&plain("\"long\""), &none, true, false),
            (&zero, &one, true, true),
            (&zero, &documented, true, true),
            (&plain("\"int\""), &plain("\"long\""), true, false),
            (&plain("\"long\""), &plain("\"double\""), true, false),
            (&plain("\"long\""), &plain("\"string\""), false, false),
            (&decimal(2), &decimal(3), false, false),
            (&plain("\"long\""), &plain("[\"null\",\"long\"]"), true, false),
            (&plain("[\"null\",\"long\"]"), &plain("[\"null\",\"long\",\"string\"]"), true, false),
            (&symbols("\"A\"", ""), &symbols("\"A\",\"B\"", ""), true, false),
            (&symbols("\"A\"", default), &symbols("\"A\",\"B\"", default), true, true),
            (&time("timestamp-millis"), &time("timestamp-micros"), true, true),
            (&time("timestamp-millis"), &plain("\"long\""), true, true),
            (&plain("\"string\""), &plain("\"bytes\""), true, true),
        ];
        for (before, after, backward, forward) in rows {
            let (old, new) = (record(before), record(after));
            let fits = |level| faults(level, &new, &old).is_empty();
            let found = (
                fits(CompatibilityLevel::Backward),
                fits(CompatibilityLevel::Forward),
                fits(CompatibilityLevel::FullTransitive),
            );
            assert_eq!(found, (backward, forward, backward && forward), "{before} -> {after}");
        }
    }

    #[test]
    fn a_record_with_another_name_is_incompatible() {
        let other = Schema::parse_str(r#"{"type":"record","name":"S","fields":[]}"#).unwrap();
        let found = faults(CompatibilityLevel::Backward, &record(""), &other);
        assert_eq!(found, ["the new schema cannot read the old records: written as S, read as R"]);
    }
}
