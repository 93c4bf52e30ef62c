//! Where a kept pointer stands in a schema, and which pointers a new version of it takes over.

use std::collections::HashSet;

use apache_avro::Schema;
use apache_avro::schema::{Name, RecordField, RecordSchema, ResolvedSchema, SchemaKind};

use crate::envelope::Places;
use crate::json::{Pointer, push_pointer};
use crate::schema::annotation::Annotations;

/// What a schema says of a pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A field of this type reads it.
    Field {
        /// With `*` for an array's index and a map's key.
        pointer: String,
        /// Where it stands in the decoded record: names of fields, indexes, keys.
        path: Vec<String>,
        /// The field's type, for people.
        is: String,
    },
    /// No field reads it.
    New {
        /// As above; names in objects that no field reads stay.
        pointer: String,
        /// See [`super::Standing::New`].
        home: Option<String>,
        /// See [`super::Standing::New`].
        names: Vec<String>,
    },
}

/// A schema, for pointers to be looked up in.
pub struct Fields<'s> {
    schema: &'s Schema,
    resolved: ResolvedSchema<'s>,
    places: &'s Places,
}

impl<'s> Fields<'s> {
    /// `None` where a name of the schema is not known.
    pub fn new(schema: &'s Schema, places: &'s Places) -> Option<Self> {
        Some(Self { schema, resolved: ResolvedSchema::new(schema).ok()?, places })
    }

    /// Looks a pointer from the body's root up. `None` where it is no pointer, or the schema no record.
    pub fn find(&self, pointer: &str) -> Option<Place> {
        let parsed = Pointer::parse(pointer)?;
        let (names, Schema::Record(root)) = (parsed.names(), self.schema) else { return None };
        let mut way = Way::default();
        if let Some(place) = self.envelope(&parsed, root, pointer) {
            return Some(place);
        }
        let data = self.places.data.names();
        if let Some(below) = names.strip_prefix(data) {
            data.iter().for_each(|name| push_pointer(&mut way.pointer, name));
            let field = root.fields.iter().find(|field| field.name == "data")?;
            way.path.push(field.name.clone());
            return Some(self.below(&field.schema, below, way));
        }
        let (first, rest) = names.split_first()?;
        let field =
            root.fields.iter().filter(|field| !is_ours(&field.name)).find(|field| key(field) == first);
        if let Some(field) = field {
            way.field(field);
            return Some(self.below(&field.schema, rest, way));
        }
        // Beside what `data` reads, but below the same name: no field of the root may read that name.
        let beside = data.first() == Some(first);
        Some(way.end((!beside).then_some(&root.name), names))
    }

    /// The record of this full name.
    pub fn record(&self, name: &str) -> Option<&'s RecordSchema> {
        self.resolved.get_names().values().find_map(|schema| match schema {
            Schema::Record(record) if record.name.fullname(None) == name => Some(record),
            _ => None,
        })
    }

    /// The names of all that has one, without namespaces.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.resolved.get_names().keys().map(|name| name.name())
    }

    /// What the envelope reads, and its field cannot give back.
    fn envelope(&self, parsed: &Pointer, root: &RecordSchema, pointer: &str) -> Option<Place> {
        let Places { id, event_type, time, .. } = self.places;
        let parts = [("id", id), ("type", event_type), ("time", time)];
        let (name, _) = parts.into_iter().find(|(_, place)| place.as_ref() == Some(parsed))?;
        let field = root.fields.iter().find(|field| field.name == name)?;
        let (path, is) = (vec![name.to_owned()], type_of(&self.resolved, &field.schema));
        Some(Place::Field { pointer: pointer.to_owned(), path, is })
    }

    fn below(&self, schema: &'s Schema, names: &[String], mut way: Way) -> Place {
        let Some((first, rest)) = names.split_first() else {
            return Place::Field {
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

/// The types that a value may have, without null and with names followed.
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

/// The type's name as schemas have it, `timestamp-millis` for instance.
fn type_of<'s>(names: &ResolvedSchema<'s>, schema: &'s Schema) -> String {
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

/// The way to a place.
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

    fn end(mut self, home: Option<&Name>, names: &[String]) -> Place {
        names.iter().for_each(|name| push_pointer(&mut self.pointer, name));
        Place::New {
            pointer: self.pointer,
            home: home.map(|name| name.fullname(None)),
            names: names.to_vec(),
        }
    }
}

/// Fields of the root that are not read from the body by their name.
fn is_ours(name: &str) -> bool {
    ["id", "type", "source", "time", "received_at", "data", "additional_fields"].contains(&name)
}

fn key(field: &RecordField) -> &str {
    // What another's schema says in our names counts only where it means something.
    Annotations::of(field).ok().and_then(|annotations| annotations.json).unwrap_or(&field.name)
}

/// A pointer whose value has a field in the new version, and is in `additional_fields` no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// From the body's root, with `*` for an array's index and a map's key.
    pub pointer: String,
    /// The field by its names, such as `data.priority`; below an array or a map `[]` stands behind its
    /// name.
    pub field: String,
    /// The field's type beside null: `string`, `record`.
    pub is: String,
}

/// The fields that `new` has and `old` has not, in the order of `new`: each moves its pointer out of
/// `additional_fields`. Of a new record only itself is named, not what is in it. `data` says where the
/// body's `data` stands ([`Places::data`]).
pub fn promoted(old: &Schema, new: &Schema, data: &Pointer) -> Vec<Promotion> {
    let (Ok(old_names), Ok(new_names)) = (ResolvedSchema::new(old), ResolvedSchema::new(new)) else {
        return Vec::new();
    };
    let mut pairs = Pairs { old: old_names, new: new_names, seen: HashSet::new(), found: Vec::new() };
    if let (Schema::Record(old), Schema::Record(new)) = (old, new) {
        let mut start = String::new();
        data.names().iter().for_each(|name| push_pointer(&mut start, name));
        for field in new.fields.iter().filter(|field| field.name == "data" || !is_ours(&field.name)) {
            let pointer = if field.name == "data" {
                start.clone()
            } else {
                let mut pointer = String::new();
                push_pointer(&mut pointer, key(field));
                pointer
            };
            pairs.field(old, field, pointer, field.name.clone());
        }
    }
    pairs.found
}

/// Two versions, walked side by side.
struct Pairs<'s> {
    old: ResolvedSchema<'s>,
    new: ResolvedSchema<'s>,
    /// Records that hold themselves end here.
    seen: HashSet<(&'s Name, &'s Name)>,
    found: Vec<Promotion>,
}

impl<'s> Pairs<'s> {
    fn field(&mut self, old: &'s RecordSchema, field: &'s RecordField, pointer: String, name: String) {
        match old.fields.iter().find(|other| key(other) == key(field)) {
            Some(other) => self.types(&other.schema, &field.schema, &pointer, &name),
            None => {
                let is = type_of(&self.new, &field.schema);
                self.found.push(Promotion { pointer, field: name, is });
            }
        }
    }

    fn types(&mut self, old: &'s Schema, new: &'s Schema, pointer: &str, name: &str) {
        match (old, new) {
            (Schema::Ref { name: known }, new) => {
                let Some(old) = self.old.get_names().get(known).copied() else { return };
                self.types(old, new, pointer, name);
            }
            (old, Schema::Ref { name: known }) => {
                let Some(new) = self.new.get_names().get(known).copied() else { return };
                self.types(old, new, pointer, name);
            }
            (Schema::Union(union), new) => {
                union.variants().iter().for_each(|old| self.types(old, new, pointer, name));
            }
            (old, Schema::Union(union)) => {
                union.variants().iter().for_each(|new| self.types(old, new, pointer, name));
            }
            (Schema::Array(old), Schema::Array(new)) => {
                self.types(&old.items, &new.items, &format!("{pointer}/*"), &format!("{name}[]"));
            }
            (Schema::Map(old), Schema::Map(new)) => {
                self.types(&old.types, &new.types, &format!("{pointer}/*"), &format!("{name}[]"));
            }
            // Of a union the records that are each other's versions have one name.
            (Schema::Record(old), Schema::Record(new)) if old.name == new.name => {
                if !self.seen.insert((&old.name, &new.name)) {
                    return;
                }
                for field in &new.fields {
                    let mut below = pointer.to_owned();
                    push_pointer(&mut below, key(field));
                    self.field(old, field, below, format!("{name}.{}", field.name));
                }
                self.seen.remove(&(&old.name, &new.name));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
