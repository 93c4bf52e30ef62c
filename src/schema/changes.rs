//! The differences between two versions of a schema, field by field, for display.
#![expect(clippy::disallowed_types, reason = "schemas are shown as JSON; no payload comes here")]

use apache_avro::Schema;
use apache_avro::schema::{RecordField, RecordSchema};
use serde::Serialize;
use serde_json::Value;

use super::promoted_fields::{SchemaPair, join};

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// Its path in the record, `data.priority`, with `*` for array elements and map values.
    pub field: String,
    /// The old type, default and annotations; `None` if the field is new.
    pub from: Option<String>,
    /// The new type, default and annotations; `None` if the field was removed.
    pub to: Option<String>,
}

/// The fields that differ: new and changed ones in the order of `new`, then the removed fields of each record. A change
/// of `doc` alone is not a difference.
pub fn changes(old: &Schema, new: &Schema) -> Vec<FieldChange> {
    let mut walk = ChangeWalk { pair: SchemaPair::new(old, new), within: Vec::new(), found: Vec::new() };
    walk.types(old, new, "");
    walk.found
}

struct ChangeWalk<'s> {
    pair: SchemaPair<'s>,
    /// Names of the records around the current one.
    within: Vec<&'s str>,
    found: Vec<FieldChange>,
}

impl<'s> ChangeWalk<'s> {
    fn types(&mut self, old: &'s Schema, new: &'s Schema, at: &str) {
        for (steps, old, new) in self.pair.records(old, new) {
            let name = new.name.name();
            if self.within.contains(&name) {
                continue;
            }
            self.within.push(name);
            self.records(old, new, &format!("{at}{}", ".*".repeat(steps)));
            self.within.pop();
        }
    }

    fn records(&mut self, old: &'s RecordSchema, new: &'s RecordSchema, at: &str) {
        for field in &new.fields {
            let name = join(at, &field.name);
            let to = Some(field_text(field));
            let Some(before) = old.fields.iter().find(|before| before.name == field.name) else {
                self.found.push(FieldChange { field: name, from: None, to });
                continue;
            };
            let from = Some(field_text(before));
            if from != to {
                self.found.push(FieldChange { field: name.clone(), from, to });
            }
            self.types(&before.schema, &field.schema, &name);
        }
        let gone = old.fields.iter().filter(|field| !new.fields.iter().any(|new| new.name == field.name));
        self.found.extend(gone.map(|field| FieldChange {
            field: join(at, &field.name),
            from: Some(field_text(field)),
            to: None,
        }));
    }
}

/// Type, default and annotations.
fn field_text(field: &RecordField) -> String {
    let mut text = type_text(&field.schema);
    if let Some(default) = &field.default {
        text.push_str(&format!(" default {default}"));
    }
    for (name, value) in field.custom_attributes.iter().filter(|(name, _)| name.starts_with("hookstream.")) {
        text.push_str(&format!(" {name} {value}"));
    }
    text
}

/// A short form of a type; for a record, its name.
pub(super) fn type_text(schema: &Schema) -> String {
    serde_json::to_value(schema).map_or_else(|_| "?".to_owned(), |schema| short(&schema))
}

fn short(schema: &Value) -> String {
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    let inner = |key: &str| schema.get(key).map(short).unwrap_or_default();
    let name = || last(text("name").unwrap_or_default()).to_owned();
    match schema {
        Value::String(name) => last(name).to_owned(),
        Value::Array(branches) => {
            let branch = |branch: &Value| match branch {
                Value::String(_) => format!("\"{}\"", short(branch)),
                other => short(other),
            };
            format!("[{}]", branches.iter().map(branch).collect::<Vec<_>>().join(","))
        }
        _ => match (text("logicalType"), text("type")) {
            (Some("decimal"), _) => {
                format!("decimal({},{})", inner_number(schema, "precision"), inner_number(schema, "scale"))
            }
            (Some(logical), _) => logical.to_owned(),
            (None, Some("record")) => name(),
            (None, Some("array")) => format!("array<{}>", inner("items")),
            (None, Some("map")) => format!("map<{}>", inner("values")),
            (None, Some("enum")) => format!("enum {}({})", name(), symbols(schema)),
            (None, Some("fixed")) => format!("fixed {}({})", name(), inner_number(schema, "size")),
            (None, Some(other)) => last(other).to_owned(),
            (None, None) => inner("type"),
        },
    }
}

fn symbols(schema: &Value) -> String {
    let symbols = schema.get("symbols").and_then(Value::as_array).into_iter().flatten();
    let mut text = symbols.filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    if let Some(default) = schema.get("default").and_then(Value::as_str) {
        text.push_str(&format!("; default {default}"));
    }
    text
}

fn inner_number(schema: &Value, key: &str) -> u64 {
    schema.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// A name without its namespace.
fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::shipped;

    fn record(fields: &str) -> Schema {
        shipped::parse(&format!(r#"{{"type":"record","name":"R","namespace":"a.b","fields":[{fields}]}}"#))
            .unwrap()
    }

    fn listed(old: &str, new: &str) -> Vec<String> {
        let each = changes(&record(old), &record(new)).into_iter().map(|change| match change {
            FieldChange { field, from: None, to: Some(to) } => format!("+ {field} {to}"),
            FieldChange { field, from: Some(from), to: Some(to) } => format!("~ {field} {from} -> {to}"),
            FieldChange { field, from, .. } => format!("- {field} {}", from.unwrap_or_default()),
        });
        each.collect()
    }

    #[test]
    fn new_changed_and_removed_fields_are_listed_with_short_types() {
        let old = r#"{"name":"same","type":"int","doc":"old"},{"name":"type","type":"long"},
            {"name":"default","type":"string","default":"a"},{"name":"gone","type":["null","bytes"]},
            {"name":"time","type":{"type":"long","logicalType":"timestamp-millis"},"hookstream.time":"unix_seconds"}"#;
        let new = r#"{"name":"same","type":"int","doc":"new"},{"name":"type","type":"string"},
            {"name":"default","type":"string","default":"b"},
            {"name":"time","type":{"type":"long","logicalType":"timestamp-millis"},"hookstream.time":"unix_milliseconds"},
            {"name":"new","type":["null","string"],"default":null,"hookstream.json":"n-w"},
            {"name":"list","type":["null",{"type":"array","items":{"type":"record","name":"I","fields":[]}}]},
            {"name":"by","type":{"type":"map","values":"I"}},
            {"name":"color","type":{"type":"enum","name":"Color","symbols":["RED","BLUE"],"default":"RED"}},
            {"name":"hash","type":{"type":"fixed","name":"Md5","size":16}},
            {"name":"money","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2},"hookstream.bytes":"hex"}"#;
        assert_eq!(
            listed(old, new),
            [
                "~ type long -> string",
                "~ default string default \"a\" -> string default \"b\"",
                "~ time timestamp-millis hookstream.time \"unix_seconds\" -> timestamp-millis hookstream.time \"unix_milliseconds\"",
                "+ new [\"null\",\"string\"] default null hookstream.json \"n-w\"",
                "+ list [\"null\",array<I>]",
                "+ by map<I>",
                "+ color enum Color(RED,BLUE; default RED)",
                "+ hash fixed Md5(16)",
                "+ money decimal(12,2) hookstream.bytes \"hex\"",
                "- gone [\"null\",\"bytes\"]",
            ]
        );
    }

    #[test]
    fn records_in_arrays_maps_and_unions_are_compared_by_their_fields() {
        let with = |fields: &str| {
            format!(
                r#"{{"name":"list","type":["null",{{"type":"array","items":{{"type":"record","name":"I","fields":[{fields}]}}}}]}},
                {{"name":"by","type":{{"type":"map","values":"I"}}}}"#
            )
        };
        let (old, new) = (with(r#"{"name":"a","type":"int"}"#), with(r#"{"name":"b","type":"int"}"#));
        assert_eq!(listed(&old, &new), ["+ list.*.b int", "- list.*.a int", "+ by.*.b int", "- by.*.a int"]);
        let itself = |more: &str| {
            format!(
                r#"{{"name":"n","type":{{"type":"record","name":"N","fields":[{{"name":"next","type":["null","N"]}}{more}]}}}}"#
            )
        };
        assert_eq!(listed(&itself(""), &itself(r#",{"name":"x","type":"int"}"#)), ["+ n.x int"]);
        assert_eq!(listed(&old, &old), [""; 0]);
    }
}
