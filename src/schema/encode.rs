//! Encodes an event's raw JSON in Confluent's wire format, in one walk over the compiled schema.
//!
//! The root of a schema is the contract of every topic: `id`, `type`, `source`, `time` and `received_at` are the
//! envelope's fields, `data` is the provider's, any other field is read from the body's root by its name, and
//! `additional_fields` contains the rest. It is the last field, so that the walk can collect its entries before writing
//! it.
//!
//! The generic schema, for event types without their own, differs: `data` is a string with the complete event as JSON
//! text, `content_type` is the delivery's, and nothing is left for `additional_fields`.

use std::fmt;

use apache_avro::Schema;
use apache_avro::schema::RecordField;
use jiff::Timestamp;

use super::annotation::Annotations;
use super::compile::{PlanCompiler, kind};
use super::places::{EnvelopeTree, ValuePath};
use super::plan::{FieldPlan, RecordPlan, Time, TypePlan};
use super::timestamp::Unit;
use super::walk::{EnvelopeValues, EventEncoder, WalkError};
use crate::config::TimeFormat;
use crate::envelope::{Event, EventPlaces};
use crate::json;
use crate::outcome::Fault;

/// A framed value: 0x00, the schema id big-endian, Avro.
pub struct Encoded {
    /// The record's value.
    pub value: Vec<u8>,
    /// JSON pointers, from the body's root, of the entries of `additional_fields`.
    pub additional: Vec<String>,
    /// How many of them did not fit their field, which is null instead.
    pub misfits: usize,
    /// The shapes of those that no field of the schema reads: pointers with `*` for indexes and map keys. One for each
    /// member, so a shape may occur more than once.
    pub drift: Vec<String>,
}

/// Shows sizes only: the value is payload, and so are the names in the pointers.
impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({} bytes, {} additional)", self.value.len(), self.additional.len())
    }
}

/// A schema compiled to a plan, with its schema id. Shared by `Arc`.
#[derive(Debug)]
pub struct Encoder {
    id: u32,
    fields: Vec<RootField>,
    records: Vec<Option<RecordPlan>>,
    spots: EnvelopeTree,
    /// `data` is the complete event as text, and there is no `additional_fields`.
    generic: bool,
    /// The place of `data`, as names and as a pointer.
    data: Vec<String>,
    data_pointer: String,
}

/// A field of the root record.
#[derive(Debug)]
enum RootField {
    Id,
    Type,
    Source,
    Time { null: u8, value: u8 },
    ReceivedAt,
    Data(FieldPlan),
    Body(FieldPlan),
    Json,
    ContentType { null: u8, value: u8 },
}

impl Encoder {
    /// Compiles `schema` for bodies with the envelope's parts at `places`.
    ///
    /// # Errors
    /// A sentence for each field that is missing, of the wrong type or not supported.
    pub fn compile(schema: &Schema, id: u32, places: &EventPlaces) -> Result<Self, Vec<String>> {
        let Schema::Record(record) = schema else {
            return Err(vec![format!("the schema is {}, not a record", kind(schema))]);
        };
        let named = |name: &str| record.fields.iter().find(|field| field.name == name);
        let last = "additional_fields";
        let is_text = named("data").is_some_and(|data| matches!(data.schema, Schema::String));
        let generic = is_text && named(last).is_none();
        let more = (!generic).then_some(last);
        let mut faults = Vec::new();
        for name in ["id", "type", "source", "time", "received_at", "data"].into_iter().chain(more) {
            if named(name).is_none() {
                faults.push(format!("field `{name}` is missing from the root record"));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut compiler = PlanCompiler::default();
        let mut fields = Vec::with_capacity(record.fields.len());
        let mut rest = record.fields.iter();
        if !generic {
            let last = rest.next_back().filter(|field| field.name == last);
            if !last.is_some_and(|field| is_text_map(&field.schema)) {
                faults.push("field `additional_fields` must be a map of strings and the last field".into());
            }
        }
        for field in rest {
            match RootField::compile(&mut compiler, field, places, generic) {
                Ok(root)
                    if root.key().is_some()
                        && fields.iter().any(|other: &RootField| other.key() == root.key()) =>
                {
                    faults.push(format!("field `{}` reads what another field reads", field.name));
                }
                Ok(root) => fields.push(root),
                Err(fault) => faults.push(fault),
            }
        }
        let PlanCompiler { records, faults: within, .. } = compiler;
        faults.extend(within);
        if !faults.is_empty() {
            return Err(faults);
        }
        let (data, data_pointer) = (places.data.names().to_vec(), places.data.to_string());
        Ok(Self { id, fields, records, spots: EnvelopeTree::tree(places), generic, data, data_pointer })
    }

    /// The schema id in the frame.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Encodes one event. The result is deterministic.
    ///
    /// # Errors
    /// `shape_mismatch` if a value does not fit and no field around it is nullable;
    /// `duplicate_key` in an object that the schema opens.
    pub fn encode(&self, event: &Event<'_>) -> Result<Encoded, Fault> {
        self.walk(event).map_err(|stop| match stop {
            WalkError::Misfit(misfit) => misfit.into(),
            WalkError::Fault(fault) => fault,
        })
    }

    fn walk(&self, event: &Event<'_>) -> Result<Encoded, WalkError> {
        // Avro is shorter than the JSON; the rest is room for the root and `additional_fields`.
        let texts = event.id.len() + event.event_type.len() + event.source.len();
        let mut out = Vec::with_capacity(
            128 + texts
                + if self.generic { event.text.len() } else { event.data.map_or(0, |raw| raw.get().len()) },
        );
        out.push(0);
        out.extend_from_slice(&self.id.to_be_bytes());
        let time = event.time_place.filter(|_| is_exact(event.time));
        let envelope = EnvelopeValues { id: &event.id, event_type: &event.event_type, time };
        let mut walk = EventEncoder::new(out, envelope, &self.records);
        for field in &self.fields {
            self.root(field, event, &mut walk)?;
        }
        if self.generic {
            return Ok(Encoded { value: walk.out, additional: Vec::new(), misfits: 0, drift: Vec::new() });
        }
        self.unknown(event, &mut walk)?;
        Ok(finish(walk))
    }

    fn root<'d>(
        &self,
        field: &RootField,
        event: &Event<'d>,
        walk: &mut EventEncoder<'_, 'd>,
    ) -> Result<(), WalkError> {
        match field {
            RootField::Id => walk.text(&event.id),
            RootField::Type => walk.text(&event.event_type),
            RootField::Source => walk.text(event.source),
            RootField::ReceivedAt => walk.long(milliseconds(event.received_at)),
            RootField::Time { null, value } => match event.time {
                Some(time) => {
                    walk.out.push(*value);
                    walk.long(milliseconds(time));
                }
                None => walk.out.push(*null),
            },
            RootField::Json => {
                // hookstream does not open it, but readers do: a duplicate key would be ambiguous.
                json::unique(event.text)?;
                walk.text(event.text);
            }
            RootField::ContentType { null, value } => match content_type(event) {
                Some(text) => {
                    walk.out.push(*value);
                    walk.text(text);
                }
                None => walk.out.push(*null),
            },
            RootField::Data(field) => {
                let path = ValuePath::start(&self.data_pointer);
                walk.field(field, event.data, &path, self.spots.at(&self.data))?;
            }
            RootField::Body(field) => {
                let path = ValuePath::start("");
                let spot = self.spots.below(&field.key);
                walk.field(field, event.root.get(&field.key), &path.field(&field.key), spot)?;
            }
        }
        Ok(())
    }

    /// Keeps the members of the body's root that no field reads.
    fn unknown<'d>(&self, event: &Event<'d>, walk: &mut EventEncoder<'_, 'd>) -> Result<(), WalkError> {
        if self.data.is_empty() {
            return Ok(()); // The body is `data`, and its walk has handled them.
        }
        let reads = |key: &str| self.fields.iter().any(|field| field.key() == Some(key));
        let path = ValuePath::start("");
        for (key, raw) in event.root.members() {
            if !reads(key) {
                walk.unknown(raw, &path.unknown(key), self.spots.below(key))?;
            }
        }
        Ok(())
    }
}

impl RootField {
    /// The member of the body's root that the field reads.
    fn key(&self) -> Option<&str> {
        match self {
            Self::Body(field) => Some(&field.key),
            _ => None,
        }
    }

    fn compile<'s>(
        compiler: &mut PlanCompiler<'s>,
        field: &'s RecordField,
        places: &EventPlaces,
        generic: bool,
    ) -> Result<Self, String> {
        let name = field.name.as_str();
        let must = |fits: bool, root: Self, wanted: &str| {
            fits.then_some(root).ok_or_else(|| format!("field `{name}` must be {wanted}"))
        };
        let is_text = matches!(field.schema, Schema::String);
        let reserved = ["id", "type", "source", "time", "received_at", "data"].contains(&name) || generic;
        if reserved && Annotations::of(field)? != Annotations::default() {
            return Err(format!("field `{name}`: annotations are not allowed here, its form is fixed"));
        }
        match name {
            "id" => must(is_text, Self::Id, "a string"),
            "type" => must(is_text, Self::Type, "a string"),
            "source" => must(is_text, Self::Source, "a string"),
            "received_at" => {
                let fits = matches!(field.schema, Schema::TimestampMillis);
                must(fits, Self::ReceivedAt, "a timestamp-millis")
            }
            "time" => match compiler.field(field, name)?.node {
                TypePlan::Nullable { null, value, inner } if is_milliseconds(&inner) => {
                    Ok(Self::Time { null, value })
                }
                _ => Err("field `time` must be a union of null and timestamp-millis".into()),
            },
            "data" if generic => Ok(Self::Json),
            "content_type" if generic => match compiler.field(field, name)?.node {
                TypePlan::Nullable { null, value, inner } if matches!(*inner, TypePlan::Text) => {
                    Ok(Self::ContentType { null, value })
                }
                _ => Err("field `content_type` must be a union of null and string".into()),
            },
            _ if generic => Err(format!("field `{name}` has no meaning if `data` is a string")),
            "data" => {
                let field = compiler.field(field, name)?;
                let fits = match &field.node {
                    TypePlan::Record(_) => true,
                    TypePlan::Nullable { inner, .. } => matches!(**inner, TypePlan::Record(_)),
                    _ => false,
                };
                must(fits, Self::Data(field), "a record")
            }
            _ => {
                let field = compiler.field(field, name)?;
                // Two fields that read the same text could keep it twice under one pointer.
                if places.data.names().first().is_none_or(|first| *first == *field.key) {
                    return Err(format!("field `{name}` reads what `data` reads"));
                }
                Ok(Self::Body(field))
            }
        }
    }
}

/// Whether the type is that of the envelope's time.
fn is_milliseconds(node: &TypePlan) -> bool {
    matches!(node, TypePlan::Time(Time::Instant(Unit::Milli, TimeFormat::Rfc3339)))
}

/// Writes `additional_fields`, the record's last field.
fn finish(mut walk: EventEncoder<'_, '_>) -> Encoded {
    let (kept, misfits) = (std::mem::take(&mut walk.kept), walk.misfits);
    walk.out
        .reserve(kept.iter().map(|(pointer, raw)| pointer.len() + raw.get().len() + 10).sum::<usize>() + 10);
    walk.block(kept.len());
    for (pointer, raw) in &kept {
        walk.text(pointer);
        walk.text(raw.get());
    }
    walk.end_block();
    let additional = kept.into_iter().map(|(pointer, _)| pointer).collect();
    Encoded { value: walk.out, additional, misfits, drift: walk.drift }
}

fn content_type<'e>(event: &Event<'e>) -> Option<&'e str> {
    event.verified().delivery().headers.get(http::header::CONTENT_TYPE)?.to_str().ok()
}

fn is_text_map(schema: &Schema) -> bool {
    matches!(schema, Schema::Map(map) if matches!(*map.types, Schema::String))
}

/// Whether milliseconds represent the time exactly.
fn is_exact(time: Option<Timestamp>) -> bool {
    time.is_some_and(|time| time.subsec_nanosecond() % 1_000_000 == 0)
}

/// Milliseconds since the Unix epoch, rounded down.
fn milliseconds(time: Timestamp) -> i64 {
    let down = i64::from(time.subsec_nanosecond() % 1_000_000 < 0);
    time.as_millisecond() - down
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod property;
