//! Decodes an encoding with apache-avro and compares it with what was sent. It uses only the schema, and shares only
//! the raw slices of json.rs with the encoder.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::schema::{Name, NamesRef, RecordField, ResolvedSchema};
use apache_avro::types::Value;
use base64::Engine as _;
use serde_json::value::RawValue;

use super::super::tests::{datagrid, encode};
use crate::json::{JsonKind, Object, check, elements, string};
use crate::outcome::Fault;
use crate::schema::decode;

/// A field whose name ends like this has a default: the record may contain a value that the body lacks.
pub(super) const WITH_DEFAULT: &str = "_d";

/// JSON with numbers as text, and with typed values.
#[derive(Clone, Debug)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Typed(Typed),
    List(Vec<Json>),
    Members(BTreeMap<String, Json>),
}

/// The value of a logical type.
#[derive(Clone, Debug)]
pub(super) enum Typed {
    /// Nanoseconds since the epoch, and the body's time format.
    Instant(i128, String),
    /// The same, for a text without a zone.
    Local(i128),
    Date(i32),
    /// Nanoseconds since midnight.
    OfDay(i128),
    /// The unscaled value, the scale, and whether the body has it in a string.
    Decimal(i128, usize, bool),
}

impl Json {
    pub(super) fn parse(raw: &RawValue) -> Self {
        match JsonKind::of(raw) {
            JsonKind::Null => Self::Null,
            JsonKind::Boolean => Self::Bool(raw.get() == "true"),
            JsonKind::Number => Self::Number(raw.get().to_owned()),
            // An unpaired surrogate has no text and is compared as written.
            JsonKind::String => {
                Self::Text(string(raw).map_or_else(|| raw.get().to_owned(), |text| text.into_owned()))
            }
            JsonKind::Array => Self::List(elements(raw).unwrap().into_iter().map(Self::parse).collect()),
            JsonKind::Object => {
                let object = Object::open(raw).unwrap().unwrap();
                let member = |(key, value): &(std::borrow::Cow<'_, str>, &RawValue)| {
                    (key.to_string(), Self::parse(value))
                };
                Self::Members(object.members().iter().map(member).collect())
            }
        }
    }

    pub(super) fn print(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(&value.to_string()),
            Self::Number(text) => out.push_str(text),
            Self::Text(text) => out.push_str(&serde_json::to_string(text).unwrap()),
            Self::Typed(_) => unreachable!("never generated"),
            Self::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { " ," });
                    item.print(out);
                }
                out.push(']');
            }
            Self::Members(members) => {
                out.push('{');
                for (at, (key, value)) in members.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { ", " });
                    out.push_str(&serde_json::to_string(key).unwrap());
                    out.push(':');
                    value.print(out);
                }
                out.push('}');
            }
        }
    }

    /// Inserts a text of `additional_fields` at its pointer.
    fn put(&mut self, pointer: &str, value: Self) -> Result<(), String> {
        let names = pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~"));
        let mut at = self;
        for name in names {
            at = match at {
                Self::Members(members) => members.entry(name).or_insert(Self::Null),
                Self::List(items) => {
                    name.parse().ok().and_then(|at: usize| items.get_mut(at)).ok_or(pointer)?
                }
                other => return Err(format!("{pointer} leads into {other:?}")),
            };
        }
        *at = value;
        Ok(())
    }

    /// Whether both are equal by value: null as missing, numbers by decimal value, times by instant. `self` is the
    /// decoded value.
    pub(super) fn same(&self, sent: &Self) -> bool {
        match (self, sent) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => decimal(a) == decimal(b),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Typed(typed), sent) => typed.equals_sent(sent) == Some(true),
            (Self::List(a), Self::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Self::Members(read), Self::Members(sent)) => {
                let sent = present(sent);
                let mut read = present(read);
                read.retain(|name, _| sent.contains_key(name) || !name.ends_with(WITH_DEFAULT));
                read.len() == sent.len() && read.iter().zip(&sent).all(|(a, b)| a.0 == b.0 && a.1.same(b.1))
            }
            _ => false,
        }
    }
}

impl Typed {
    /// Whether the body's value is the same, by jiff's parsers and `decimal`.
    fn equals_sent(&self, sent: &Json) -> Option<bool> {
        Some(match (self, sent) {
            (Self::Instant(at, form), Json::Text(text)) if form == "rfc3339" => {
                text.parse::<jiff::Timestamp>().ok()?.as_nanosecond() == *at
            }
            (Self::Instant(at, form), Json::Number(text)) => {
                let power = if form == "unix_seconds" { 9 } else { 6 };
                form != "rfc3339" && decimal(&format!("{at}e-{power}")) == decimal(text)
            }
            (Self::Local(at), Json::Text(text)) => {
                let civil: jiff::civil::DateTime = text.parse().ok()?;
                civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_nanosecond() == *at
            }
            (Self::Date(days), Json::Text(text)) => {
                let epoch = jiff::civil::date(1970, 1, 1);
                text.parse::<jiff::civil::Date>().ok()?.since(epoch).ok()?.get_days() == *days
            }
            (Self::OfDay(at), Json::Text(text)) => {
                let time: jiff::civil::Time = text.parse().ok()?;
                let midnight = jiff::civil::Time::midnight();
                time.duration_since(midnight).as_nanos() == *at
            }
            (Self::Decimal(value, scale, false), Json::Number(text))
            | (Self::Decimal(value, scale, true), Json::Text(text)) => {
                decimal(&format!("{value}e-{scale}")) == decimal(text)
            }
            _ => false,
        })
    }
}

fn present(members: &BTreeMap<String, Json>) -> BTreeMap<&String, &Json> {
    members.iter().filter(|(_, value)| !matches!(value, Json::Null)).collect()
}

/// Sign, digits, exponent: parsed by hand and with strings, unlike in number.rs.
fn decimal(text: &str) -> (bool, String, i128) {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let mut exponent: i128 = exponent.parse().unwrap();
    let negative = mantissa.starts_with('-');
    let (whole, fraction) = mantissa.trim_start_matches('-').split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{}{fraction}", whole.trim_start_matches('-'));
    exponent -= fraction.len() as i128;
    while digits.ends_with('0') {
        digits.pop();
        exponent += 1;
    }
    let digits = digits.trim_start_matches('0').to_owned();
    if digits.is_empty() { (false, digits, 0) } else { (negative, digits, exponent) }
}

/// Converts values by their schema.
struct Reader<'s>(&'s NamesRef<'s>);

impl Reader<'_> {
    fn read(&self, value: Value, schema: &Schema, field: &RecordField) -> Json {
        let annotation = |name: &str| field.custom_attributes.get(name).and_then(|value| value.as_str());
        let instant = |ticks: i64, nanoseconds: i128| {
            let form = annotation("hookstream.time").unwrap_or("rfc3339").to_owned();
            Json::Typed(Typed::Instant(i128::from(ticks) * nanoseconds, form))
        };
        let local =
            |ticks: i64, nanoseconds: i128| Json::Typed(Typed::Local(i128::from(ticks) * nanoseconds));
        match value {
            Value::Null => Json::Null,
            Value::Boolean(value) => Json::Bool(value),
            Value::Int(value) => Json::Number(value.to_string()),
            Value::Long(value) => Json::Number(value.to_string()),
            Value::Float(value) => Json::Number(value.to_string()),
            Value::Double(value) => Json::Number(value.to_string()),
            Value::String(text) | Value::Enum(_, text) => Json::Text(text),
            Value::Uuid(uuid) => Json::Text(uuid.to_string()),
            Value::TimestampMillis(ticks) => instant(ticks, 1_000_000),
            Value::TimestampMicros(ticks) => instant(ticks, 1_000),
            Value::TimestampNanos(ticks) => instant(ticks, 1),
            Value::LocalTimestampMillis(ticks) => local(ticks, 1_000_000),
            Value::LocalTimestampMicros(ticks) => local(ticks, 1_000),
            Value::LocalTimestampNanos(ticks) => local(ticks, 1),
            Value::TimeMillis(ticks) => Json::Typed(Typed::OfDay(i128::from(ticks) * 1_000_000)),
            Value::TimeMicros(ticks) => Json::Typed(Typed::OfDay(i128::from(ticks) * 1_000)),
            Value::Date(days) => Json::Typed(Typed::Date(days)),
            Value::Bytes(bytes) | Value::Fixed(_, bytes) => {
                Json::Text(match annotation("hookstream.bytes") {
                    Some("hex") => hex::encode(bytes),
                    Some("base64url") => base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes),
                    _ => base64::engine::general_purpose::STANDARD.encode(bytes),
                })
            }
            Value::Decimal(decimal) => {
                let Schema::Decimal(schema) = self.real(schema) else { panic!("no decimal") };
                let bytes = Vec::<u8>::try_from(&decimal).unwrap();
                let negative = bytes[0] >= 0x80;
                let value = bytes.iter().fold(if negative { -1 } else { 0 }, |value: i128, byte| {
                    value.wrapping_mul(256).wrapping_add(i128::from(*byte))
                });
                let in_text = annotation("hookstream.decimal") == Some("string");
                Json::Typed(Typed::Decimal(value, schema.scale, in_text))
            }
            Value::Union(choice, value) => {
                let Schema::Union(union) = schema else { panic!("no union") };
                self.read(*value, &union.variants()[choice as usize], field)
            }
            Value::Array(items) => {
                let Schema::Array(schema) = schema else { panic!("no array") };
                Json::List(items.into_iter().map(|item| self.read(item, &schema.items, field)).collect())
            }
            Value::Map(entries) => {
                let Schema::Map(schema) = schema else { panic!("no map") };
                let entries = entries.into_iter();
                Json::Members(
                    entries.map(|(key, value)| (key, self.read(value, &schema.types, field))).collect(),
                )
            }
            Value::Record(fields) => {
                let Schema::Record(record) = self.real(schema) else { panic!("no record") };
                let fields = fields.into_iter().zip(&record.fields);
                Json::Members(
                    fields
                        .map(|((_, value), field)| (key(field), self.read(value, &field.schema, field)))
                        .collect(),
                )
            }
            other => panic!("a type that is not generated: {other:?}"),
        }
    }

    fn real<'a>(&'a self, schema: &'a Schema) -> &'a Schema {
        match schema {
            Schema::Ref { name } => self.0.get::<Name>(name).unwrap(),
            schema => schema,
        }
    }
}

/// The member that a field reads.
pub(super) fn key(field: &RecordField) -> String {
    let other = field.custom_attributes.get("hookstream.json").and_then(|value| value.as_str());
    other.unwrap_or(&field.name).to_owned()
}

/// Encodes a body and decodes it with apache-avro: `data` and `additional_fields`.
pub(super) fn decoded(schema: &Schema, body: &str) -> Result<(Json, BTreeMap<String, Json>), Fault> {
    let encoded = encode(schema, &datagrid(), Some("1970-01-01T00:00:00Z"), body)?;
    let (_, avro) = decode::frame(&encoded.value).unwrap();
    assert!(decode::json(schema, avro).is_some(), "it can be printed");
    let Value::Record(fields) = decode::value(schema, avro).expect("apache-avro decodes it") else {
        panic!("no record")
    };
    let mut fields: BTreeMap<String, Value> = fields.into_iter().collect();
    let Some(Value::Map(additional)) = fields.remove("additional_fields") else { panic!("no map") };
    let additional = additional.into_iter().map(|(pointer, text)| match text {
        Value::String(text) => (pointer, Json::parse(check(text.as_bytes()).unwrap())),
        other => panic!("no text: {other:?}"),
    });
    let Schema::Record(root) = schema else { panic!("no record") };
    let field = root.fields.iter().find(|field| field.name == "data").unwrap();
    let names = ResolvedSchema::new(schema).unwrap();
    let data = Reader(names.get_names()).read(fields.remove("data").unwrap(), &field.schema, field);
    Ok((data, additional.collect()))
}

/// Rebuilds the body: the envelope's fields as each test here sends them, `data`, and the kept values.
pub(super) fn together(data: Json, additional: &BTreeMap<String, Json>) -> Result<Json, String> {
    let mut again = Json::Members(BTreeMap::from([
        ("data".to_owned(), data),
        ("id".to_owned(), Json::Text("e".into())),
        ("event_type".to_owned(), Json::Text("t".into())),
        ("timestamp".to_owned(), Json::Number("0".into())),
    ]));
    for (pointer, value) in additional {
        // A value that was kept by a rollback occurs only once.
        let below = format!("{pointer}/");
        if additional.keys().any(|other| other.starts_with(&below)) {
            return Err(format!("{pointer} is kept, and so is something below it"));
        }
        again.put(pointer, value.clone())?;
    }
    Ok(again)
}
