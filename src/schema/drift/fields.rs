//! Looks up a pointer of `additional_fields` in a schema.

use apache_avro::Schema;
use apache_avro::schema::{Name, RecordField, RecordSchema, ResolvedSchema, SchemaKind};

use crate::envelope::EventPlaces;
use crate::json::{Pointer, push_pointer};

/// The result of looking up a pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaPath {
    /// A field reads it.
    Field {
        /// The pointer, with `*` for array indexes and map keys.
        pointer: String,
        /// Its path in the decoded record: names of fields, indexes, keys.
        path: Vec<String>,
        /// The field's type, for display.
        is: String,
    },
    /// No field reads it.
    New {
        /// As above; names in objects that no field reads are unchanged.
        pointer: String,
        /// See [`super::FieldState::New`].
        home: Option<String>,
        /// See [`super::FieldState::New`].
        names: Vec<String>,
    },
}

/// A schema in which pointers are looked up.
pub struct Fields<'s> {
    schema: &'s Schema,
    resolved: ResolvedSchema<'s>,
    places: &'s EventPlaces,
}

impl<'s> Fields<'s> {
    /// `None` if the schema uses an undefined name.
    pub fn new(schema: &'s Schema, places: &'s EventPlaces) -> Option<Self> {
        Some(Self { schema, resolved: ResolvedSchema::new(schema).ok()?, places })
    }

    /// Looks up a pointer from the body's root. `None` if it is not a pointer, or the schema is not a record.
    pub fn find(&self, pointer: &str) -> Option<SchemaPath> {
        let parsed = Pointer::parse(pointer)?;
        let (names, Schema::Record(root)) = (parsed.names(), self.schema) else { return None };
        let mut way = Way::default();
        if let Some(place) = self.envelope(&parsed, root, pointer) {
            return Some(place);
        }
        let data = self.places.data.names();
        if let Some(below) = names.strip_prefix(data) {
            way.pointer = self.places.data.to_string();
            let field = root.fields.iter().find(|field| field.name == "data")?;
            way.path.push(field.name.clone());
            return Some(self.below(&field.schema, below, way));
        }
        let (first, rest) = names.split_first()?;
        let mut body = root.fields.iter().filter(|field| !RESERVED.contains(&&*field.name));
        if let Some(field) = body.find(|field| key(field) == first) {
            way.field(field);
            return Some(self.below(&field.schema, rest, way));
        }
        // Outside `data`, but below the same first name: no field of the root may read that name.
        let beside = data.first() == Some(first);
        Some(way.end((!beside).then_some(&root.name), names))
    }

    /// The record with this full name.
    pub fn record(&self, name: &str) -> Option<&'s RecordSchema> {
        self.resolved.get_names().values().find_map(|schema| match schema {
            Schema::Record(record) if record.name.fullname(None) == name => Some(record),
            _ => None,
        })
    }

    /// The names of all named types, without namespaces.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.resolved.get_names().keys().map(|name| name.name())
    }

    /// The place of a value that the envelope reads, but whose field cannot represent it exactly.
    fn envelope(&self, parsed: &Pointer, root: &RecordSchema, pointer: &str) -> Option<SchemaPath> {
        let EventPlaces { id, event_type, time, .. } = self.places;
        // A value at another place is kept only if the first one was read.
        let parts = [("id", id), ("type", event_type), ("time", time)];
        let (name, _) = parts.into_iter().find(|(_, places)| places.first() == Some(parsed))?;
        let field = root.fields.iter().find(|field| field.name == name)?;
        let (path, is) = (vec![name.to_owned()], type_of(&self.resolved, &field.schema));
        Some(SchemaPath::Field { pointer: pointer.to_owned(), path, is })
    }

    fn below(&self, schema: &'s Schema, names: &[String], mut way: Way) -> SchemaPath {
        let Some((first, rest)) = names.split_first() else {
            return SchemaPath::Field {
                is: type_of(&self.resolved, schema),
                pointer: way.pointer,
                path: way.path,
            };
        };
        let mut records = Vec::new();
        for branch in branches(&self.resolved, schema) {
            match branch {
                Schema::Record(record) => match record.fields.iter().find(|field| key(field) == first) {
                    Some(field) => {
                        way.field(field);
                        return self.below(&field.schema, rest, way);
                    }
                    None => records.push(&record.name),
                },
                Schema::Array(array) if first.bytes().all(|byte| byte.is_ascii_digit()) => {
                    way.any(first);
                    return self.below(&array.items, rest, way);
                }
                Schema::Map(map) => {
                    way.any(first);
                    return self.below(&map.types, rest, way);
                }
                _ => {}
            }
        }
        match records.as_slice() {
            [record] => way.end(Some(record), names),
            _ => way.end(None, names),
        }
    }
}

/// The types that a value may have, without null and with names resolved.
fn branches<'s>(names: &ResolvedSchema<'s>, schema: &'s Schema) -> Vec<&'s Schema> {
    let follow = |schema: &'s Schema| match schema {
        Schema::Ref { name } => names.get_names().get(name).copied().unwrap_or(schema),
        schema => schema,
    };
    match follow(schema) {
        Schema::Union(union) => {
            union.variants().iter().map(follow).filter(|schema| !matches!(schema, Schema::Null)).collect()
        }
        schema => vec![schema],
    }
}

/// The type's name as in a schema, for example `timestamp-millis`.
pub(in crate::schema) fn type_of<'s>(names: &ResolvedSchema<'s>, schema: &'s Schema) -> String {
    let name = |schema: &Schema| {
        let mut name = String::new();
        for c in format!("{:?}", SchemaKind::from(schema)).chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    };
    branches(names, schema).into_iter().map(name).collect::<Vec<_>>().join(" or ")
}

/// A path, as a pointer and in the record.
#[derive(Default)]
struct Way {
    pointer: String,
    path: Vec<String>,
}

impl Way {
    fn field(&mut self, field: &RecordField) {
        push_pointer(&mut self.pointer, key(field));
        self.path.push(field.name.clone());
    }

    fn any(&mut self, name: &str) {
        self.pointer.push_str("/*");
        self.path.push(name.to_owned());
    }

    fn end(mut self, home: Option<&Name>, names: &[String]) -> SchemaPath {
        names.iter().for_each(|name| push_pointer(&mut self.pointer, name));
        SchemaPath::New {
            pointer: self.pointer,
            home: home.map(|name| name.fullname(None)),
            names: names.to_vec(),
        }
    }
}

/// The fields of the root that are not read from the body by their name.
pub(in crate::schema) const RESERVED: [&str; 7] =
    ["id", "type", "source", "time", "received_at", "data", "additional_fields"];

/// The member that a field reads. Another writer's schema may have invalid annotations, which are ignored.
pub(in crate::schema) fn key(field: &RecordField) -> &str {
    field.custom_attributes.get("hookstream.json").and_then(|key| key.as_str()).unwrap_or(&field.name)
}

#[cfg(test)]
mod tests;
