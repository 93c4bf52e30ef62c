//! A schema as the tree that the walk follows: owned, checked once, nothing left to look up.

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::schema::{Name, RecordField, RecordSchema};

use super::walk;

/// A type of the schema.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Text,
    /// `timestamp-millis`, from an RFC 3339 text.
    Instant,
    Array(Box<Node>),
    Map(Box<Node>),
    /// Shared, since a name may be used again.
    Record(Arc<Record>),
    /// A union with null; the bytes that choose the branch.
    Nullable {
        null: u8,
        value: u8,
        inner: Box<Node>,
    },
}

impl Node {
    /// What the type asks for, for people.
    pub(super) const fn expects(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Text => "string",
            Self::Instant => "an RFC 3339 time with its offset",
            Self::Array(_) => "array",
            Self::Map(_) => "map",
            Self::Record(_) => "record",
            Self::Nullable { inner, .. } => inner.expects(),
        }
    }

    /// Whether null is one of its values.
    pub(super) const fn takes_null(&self) -> bool {
        matches!(self, Self::Null | Self::Nullable { .. })
    }
}

/// A record of the schema.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) fields: Vec<Field>,
}

impl Record {
    pub(super) fn knows(&self, name: &str) -> bool {
        self.fields.iter().any(|field| *field.name == *name)
    }
}

/// A field that is read from the body by its name.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: Box<str>,
    pub(super) node: Node,
    /// The default as Avro, for a field that is missing and may not be null.
    pub(super) default: Option<Box<[u8]>>,
}

/// Compiles the types of one schema.
#[derive(Default)]
pub(super) struct Compiler {
    /// The records that are complete: a name that is used inside its own record is not there yet.
    records: HashMap<Name, Arc<Record>>,
}

impl Compiler {
    /// Compiles a field; `at` names it in an error.
    pub(super) fn field(&mut self, field: &RecordField, at: &str) -> Result<Field, String> {
        let node = self.node(&field.schema, at)?;
        let default = match &field.default {
            // Null for what is missing, whatever a reader's default says: the value tells what came.
            Some(default) if !node.takes_null() => {
                let text = default.to_string();
                let bytes = walk::plain(&node, &text)
                    .ok_or_else(|| format!("field `{at}`: this default is not supported yet"))?;
                Some(bytes.into_boxed_slice())
            }
            _ => None,
        };
        Ok(Field { name: field.name.as_str().into(), node, default })
    }

    fn node(&mut self, schema: &Schema, at: &str) -> Result<Node, String> {
        Ok(match schema {
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Boolean,
            Schema::Int => Node::Int,
            Schema::Long => Node::Long,
            Schema::Float => Node::Float,
            Schema::Double => Node::Double,
            Schema::String => Node::Text,
            Schema::TimestampMillis => Node::Instant,
            Schema::Array(array) => Node::Array(Box::new(self.node(&array.items, at)?)),
            Schema::Map(map) => Node::Map(Box::new(self.node(&map.types, at)?)),
            Schema::Record(record) => Node::Record(self.record(record, at)?),
            Schema::Union(union) => match union.variants() {
                [Schema::Null, value] => {
                    Node::Nullable { null: 0, value: 2, inner: Box::new(self.node(value, at)?) }
                }
                [value, Schema::Null] => {
                    Node::Nullable { null: 2, value: 0, inner: Box::new(self.node(value, at)?) }
                }
                _ => {
                    return Err(format!(
                        "field `{at}`: a union other than null and one type is not supported yet"
                    ));
                }
            },
            Schema::Ref { name } => match self.records.get(name) {
                Some(record) => Node::Record(Arc::clone(record)),
                None => {
                    return Err(format!("field `{at}`: the recursive type `{name}` is not supported yet"));
                }
            },
            other => return Err(format!("field `{at}`: {} is not supported yet", kind(other))),
        })
    }

    fn record(&mut self, schema: &RecordSchema, at: &str) -> Result<Arc<Record>, String> {
        let fields = schema.fields.iter().map(|field| self.field(field, &format!("{at}.{}", field.name)));
        let record = Arc::new(Record { fields: fields.collect::<Result<_, _>>()? });
        self.records.insert(schema.name.clone(), Arc::clone(&record));
        Ok(record)
    }
}

/// The type's name, without the whole of the schema.
pub(super) fn kind(schema: &Schema) -> String {
    format!("the type {:?}", apache_avro::schema::SchemaKind::from(schema)).to_lowercase()
}
