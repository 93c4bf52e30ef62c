//! Collects the drift table from decoded records.

use std::collections::HashMap;

use apache_avro::Schema;
use serde_json::value::RawValue;

use super::fields::{Fields, SchemaPath};
use super::table::{DriftTable, FieldState};
use crate::envelope::EventPlaces;
use crate::json::{self, JsonKind, Object};

/// Limit on cached lookups of pointers: most pointers recur in each record. Each array index makes a new pointer.
const MAX_KNOWN: usize = 10_000;

/// Pointers longer than this, in bytes, are not cached: the sender chooses them.
const MAX_LENGTH: usize = 256;

/// Observes the `additional_fields` of the records of one event type.
pub struct Observer<'s> {
    today: Fields<'s>,
    places: &'s EventPlaces,
    known: HashMap<(u32, String), ResolvedPath>,
    table: DriftTable,
}

/// A pointer looked up in the schema that its record was written with, else in the current one.
#[derive(Clone)]
struct ResolvedPath {
    /// Whether the record's own schema has a field for it.
    then: bool,
    path: SchemaPath,
}

impl<'s> Observer<'s> {
    /// `today` is the event type's current schema. `None` if it uses an undefined name.
    pub fn new(today: &'s Schema, places: &'s EventPlaces) -> Option<Self> {
        let (known, table) = (HashMap::new(), DriftTable::default());
        Some(Self { today: Fields::new(today, places)?, places, known, table })
    }

    /// Adds a decoded record ([`crate::schema::decode::json`]), with the id and the schema that it was written with,
    /// and its timestamp in milliseconds since 1970.
    pub fn observe(&mut self, id: u32, writer: &Schema, decoded: &str, time: Option<i64>) {
        self.table.next_record();
        let Ok(raw) = serde_json::from_str::<&RawValue>(decoded) else { return };
        let Ok(Some(root)) = Object::open(raw) else { return };
        let kept = root.get("additional_fields").map(Object::open);
        let Some(Ok(Some(kept))) = kept else { return };
        for (pointer, text) in kept.members() {
            let Some(text) = json::string(text) else { continue };
            // hookstream writes only valid JSON here, but other producers may write to the topic, too.
            let Ok(value) = json::check(text.as_bytes()) else { continue };
            let (pointer, standing) = self.standing(id, writer, pointer, raw);
            self.table.add(pointer, standing, time, value);
        }
    }

    /// The table of all observations.
    pub fn table(&self) -> &DriftTable {
        &self.table
    }

    fn standing(
        &mut self,
        id: u32,
        writer: &Schema,
        pointer: &str,
        record: &RawValue,
    ) -> (String, FieldState) {
        let ResolvedPath { then, path } = self.place(id, writer, pointer);
        match path {
            SchemaPath::New { pointer, home, names } => (pointer, FieldState::New { home, names }),
            SchemaPath::Field { pointer, .. } if !then => (pointer, FieldState::Former),
            SchemaPath::Field { pointer, path, is } => {
                let value = below(record, &path);
                let null = value.is_none_or(|value| JsonKind::of(value) == JsonKind::Null);
                (pointer, if null { FieldState::Misfit { is } } else { FieldState::Rounded { is } })
            }
        }
    }

    fn place(&mut self, id: u32, writer: &Schema, pointer: &str) -> ResolvedPath {
        let key = (id, pointer.to_owned());
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let then = Fields::new(writer, self.places).and_then(|fields| fields.find(pointer));
        let then = then.filter(|path| matches!(path, SchemaPath::Field { .. }));
        let nowhere = || SchemaPath::New { pointer: pointer.to_owned(), home: None, names: Vec::new() };
        let known = match then {
            Some(path) => ResolvedPath { then: true, path },
            None => ResolvedPath { then: false, path: self.today.find(pointer).unwrap_or_else(nowhere) },
        };
        if self.known.len() < MAX_KNOWN && pointer.len() <= MAX_LENGTH {
            self.known.insert(key, known.clone());
        }
        known
    }
}

/// The value in a decoded record at a path of names, indexes and keys.
fn below<'d>(raw: &'d RawValue, path: &[String]) -> Option<&'d RawValue> {
    let Some((first, rest)) = path.split_first() else { return Some(raw) };
    let next = match JsonKind::of(raw) {
        JsonKind::Array => json::elements(raw)?.get(first.parse::<usize>().ok()?).copied(),
        _ => Object::open(raw).ok()??.get(first),
    };
    below(next?, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Pointer;
    use crate::schema::shipped;

    fn schema(more: &str) -> Schema {
        shipped::parse(&format!(
            r#"{{"type":"record","name":"R","fields":[{{"name":"time","type":["null","long"]}},
            {{"name":"data","type":{{"type":"record","name":"D","fields":[
            {{"name":"n","type":["null","double"]}},{{"name":"l","type":["null",{{"type":"array","items":["null","long"]}}]}}{more}]}}}},
            {{"name":"additional_fields","type":{{"type":"map","values":"string"}}}}]}}"#
        ))
        .unwrap()
    }

    #[test]
    fn kept_values_are_listed_by_reason() {
        let (then, today) = (schema(""), schema(r#",{"name":"priority","type":["null","string"]}"#));
        let part = |text| Pointer::parse(text);
        let places = EventPlaces {
            id: part("/id").into_iter().collect(),
            event_type: Vec::new(),
            time: part("/at").into_iter().collect(),
            data: part("/data").unwrap(),
        };
        let mut observer = Observer::new(&today, &places).unwrap();
        let mut see = |id, writer, data: &str, kept: &str| {
            let record = format!(r#"{{"time":5,"data":{data},"additional_fields":{kept}}}"#);
            observer.observe(id, writer, &record, Some(1_000));
        };
        see(
            1,
            &then,
            r#"{"n":0.1,"l":[1,null]}"#,
            r#"{"/data/n":"0.10000000000000000001","/data/l/1":"\"x\""}"#,
        );
        see(1, &then, r#"{"n":null,"l":null}"#, r#"{"/data/n":"\"x\"","/data/priority":"\"high\""}"#);
        see(2, &today, r#"{"n":null,"l":[],"priority":null}"#, r#"{"/data/priority":"7","/data/new":"[]"}"#);
        see(2, &today, r#"{"n":1.0}"#, r#"{"/at":"\"2026-01-02T03:04:05.0001Z\"","/data/bad":"{"}"#);
        let rows: Vec<_> = observer
            .table()
            .rows()
            .map(|row| {
                let standing = match &row.standing {
                    FieldState::New { home, .. } => format!("new in {}", home.as_deref().unwrap_or("?")),
                    FieldState::Misfit { is } => format!("misfit {is}"),
                    FieldState::Rounded { is } => format!("rounded {is}"),
                    FieldState::Former => "former".into(),
                };
                format!("{} {standing}: {}", row.pointer, row.shape.description())
            })
            .collect();
        assert_eq!(
            rows,
            [
                "/data/new new in D: empty array",
                "/data/n misfit double: string",
                "/data/l/* misfit long: string",
                "/data/priority misfit string: integer",
                "/data/n rounded double: number",
                "/at rounded long: string",
                "/data/priority former: string",
            ]
        );
        assert_eq!(observer.table().records(), 4);
    }
}
