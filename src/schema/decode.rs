//! Framed Avro back to JSON text, for people: tail, dev, tests. Not on the hot path.
#![allow(clippy::disallowed_types)] // the one reader of apache-avro's values

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{NamesRef, ResolvedSchema};
use apache_avro::types::Value;
use jiff::SignedDuration;
use jiff::civil::DateTime;
use reqwest::StatusCode;
use schema_registry_converter::async_impl::avro::AvroDecoder;
use schema_registry_converter::avro_common::AvroSchema;

use super::Registry;
use super::annotation::{Annotations, BytesForm, DecimalForm};
use super::registry::RegistryError;

/// How long a registry that does not answer is left alone, so that a hundred records do not wait
/// a hundred times.
const PAUSE: Duration = Duration::from_secs(10);

/// What stands in a record's value.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Avro, as one line of JSON.
    Avro {
        /// The id of the schema it was written with.
        schema_id: u32,
        /// See [`json`].
        json: String,
    },
    /// A frame that could not be decoded.
    Unreadable {
        /// The id in the frame.
        schema_id: u32,
        /// Why not.
        why: DecodeError,
    },
    /// No frame.
    Raw,
}

/// Why a frame cannot be decoded. The text quotes neither the schema nor the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The registry cannot be reached, or does not answer in time.
    #[error("the registry does not answer")]
    NoAnswer,
    /// The registry itself answers that it has no schema of this id.
    #[error("the registry does not know it")]
    NotFound,
    /// The registry, or a proxy before it, answers with another status than success.
    #[error("the registry answers {0}")]
    Refused(StatusCode),
    /// The registry's URL redirects, and no client follows.
    #[error("the registry's URL redirects")]
    Redirected,
    /// The answer is not an Avro schema.
    #[error("the registry's answer is no Avro schema")]
    NotAvro,
    /// The value's bytes do not fit the schema that they name.
    #[error("the value is not what its schema says")]
    ValueMismatch,
}

/// How long to ask the registry for the cause of a failed lookup. The lookup itself has had its own time.
const CAUSE_WITHIN: Duration = Duration::from_secs(5);

/// Decodes framed values with the registry's schemas, each fetched once.
pub struct Decoder {
    schemas: AvroDecoder,
    registry: Registry,
    failed: HashMap<u32, (Instant, DecodeError)>,
    nulls: bool,
}

impl Decoder {
    /// Nothing is fetched yet. Without `nulls`, fields of records that are null are left out: most
    /// of a provider's are, and people read better without.
    pub fn new(registry: &Registry, nulls: bool) -> Self {
        let schemas = AvroDecoder::new(registry.settings());
        Self { schemas, registry: registry.clone(), failed: HashMap::new(), nulls }
    }

    /// Decodes a record's value. Waits for the registry where the schema is not known yet.
    pub async fn decode(&mut self, value: &[u8]) -> Decoded {
        let (schema, avro) = match self.writer(value).await {
            Ok(found) => found,
            Err(other) => return other,
        };
        match line(&schema.parsed, avro, self.nulls) {
            Some(json) => Decoded::Avro { schema_id: schema.id, json },
            None => Decoded::Unreadable { schema_id: schema.id, why: DecodeError::ValueMismatch },
        }
    }

    /// The schema that a record's value was written with, and its Avro.
    ///
    /// # Errors
    /// What [`Self::decode`] gives where there is no frame or no schema.
    pub async fn writer<'v>(&mut self, value: &'v [u8]) -> Result<(Arc<AvroSchema>, &'v [u8]), Decoded> {
        let Some((schema_id, avro)) = frame(value) else { return Err(Decoded::Raw) };
        match self.schema(schema_id).await {
            Ok(schema) => Ok((schema, avro)),
            Err(why) => Err(Decoded::Unreadable { schema_id, why }),
        }
    }

    async fn schema(&mut self, id: u32) -> Result<Arc<AvroSchema>, DecodeError> {
        match self.failed.get(&id) {
            Some((at, DecodeError::NoAnswer)) if at.elapsed() >= PAUSE => {}
            Some((_, why)) => return Err(*why),
            None => {}
        }
        let error = match self.schemas.get_schema(id).await {
            Ok(schema) => return Ok(schema),
            Err(error) => error,
        };
        // The library has the cause only as text, which may also quote the schema.
        let why = if error.retriable {
            DecodeError::NoAnswer
        } else {
            let cause = tokio::time::timeout(CAUSE_WITHIN, self.cause(id));
            cause.await.unwrap_or(DecodeError::NoAnswer)
        };
        self.failed.insert(id, (Instant::now(), why));
        Err(why)
    }

    /// Why the registry returned no schema for the id.
    async fn cause(&self, id: u32) -> DecodeError {
        match self.registry.by_id(id).await {
            Ok(Ok(_)) => DecodeError::NotAvro,
            Ok(Err(refusal)) if refusal.is_not_found() => DecodeError::NotFound,
            Ok(Err(refusal)) => DecodeError::Refused(refusal.status),
            Err(RegistryError::Elsewhere { .. }) => DecodeError::Redirected,
            Err(RegistryError::NoAnswer(_)) => DecodeError::NoAnswer,
            Err(_) => DecodeError::NotAvro,
        }
    }
}

/// Splits Confluent's frame: schema id and Avro. `None` where it is no such frame.
pub fn frame(value: &[u8]) -> Option<(u32, &[u8])> {
    match value {
        [0, a, b, c, d, avro @ ..] => Some((u32::from_be_bytes([*a, *b, *c, *d]), avro)),
        _ => None,
    }
}

/// Decodes Avro (without its frame) to one line of JSON: fields in the schema's order under their
/// names, times as RFC 3339, bytes and decimals as their annotations say (else base64, and a number),
/// a map's keys sorted. `None` where the bytes are not the schema's or bytes are left; why is not
/// said, since the library's errors may hold the payload.
pub fn json(schema: &Schema, avro: &[u8]) -> Option<String> {
    line(schema, avro, true)
}

fn line(schema: &Schema, avro: &[u8], nulls: bool) -> Option<String> {
    let value = value(schema, avro)?;
    let mut out = String::with_capacity(avro.len() * 2);
    let names = ResolvedSchema::new(schema).ok()?;
    Print { names: names.get_names(), nulls }.value(&value, schema, &Annotations::default(), &mut out)?;
    Some(out)
}

/// Decodes with the writer's schema alone; all bytes must be used.
pub(super) fn value(schema: &Schema, mut avro: &[u8]) -> Option<Value> {
    let value = GenericDatumReader::builder(schema).build().ok()?.read_value(&mut avro).ok()?;
    avro.is_empty().then_some(value)
}

/// Writes values as JSON.
struct Print<'s> {
    names: &'s NamesRef<'s>,
    nulls: bool,
}

impl Print<'_> {
    fn value(&self, value: &Value, schema: &Schema, forms: &Annotations<'_>, out: &mut String) -> Option<()> {
        match (value, schema) {
            (value, Schema::Ref { name }) => self.value(value, self.names.get(name)?, forms, out)?,
            (Value::Union(choice, value), Schema::Union(union)) => {
                let branch = union.variants().get(usize::try_from(*choice).ok()?)?;
                self.value(value, branch, forms, out)?;
            }
            (Value::Array(items), Schema::Array(schema)) => {
                let item = |item, out: &mut String| self.value(item, &schema.items, forms, out);
                list(out, ['[', ']'], items.iter(), item)?;
            }
            (Value::Map(entries), Schema::Map(schema)) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                list(out, ['{', '}'], entries.into_iter(), |(key, value), out| {
                    self.member(key, value, &schema.types, forms, out)
                })?;
            }
            (Value::Record(values), Schema::Record(record)) => {
                let fields = values.iter().zip(&record.fields);
                let fields = fields.filter(|((_, value), _)| self.nulls || !is_null(value));
                list(out, ['{', '}'], fields, |((key, value), field), out| {
                    // What another's schema says in our names counts only where it means something.
                    let forms = Annotations::of(field).unwrap_or_default();
                    self.member(key, value, &field.schema, &forms, out)
                })?;
            }
            (Value::Decimal(decimal), Schema::Decimal(schema)) => {
                let quote = if forms.decimal == Some(DecimalForm::String) { "\"" } else { "" };
                let number = decimal_text(&Vec::<u8>::try_from(decimal).ok()?, schema.scale)?;
                write!(out, "{quote}{number}{quote}").ok()?;
            }
            (Value::Bytes(bytes) | Value::Fixed(_, bytes), _) => {
                let form = forms.bytes.unwrap_or(BytesForm::Base64);
                write!(out, "\"{}\"", form.write(bytes)).ok()?;
            }
            (value, _) => scalar(value, out)?,
        }
        Some(())
    }

    fn member(
        &self,
        key: &str,
        value: &Value,
        schema: &Schema,
        forms: &Annotations<'_>,
        out: &mut String,
    ) -> Option<()> {
        out.push_str(&serde_json::to_string(key).ok()?);
        out.push(':');
        self.value(value, schema, forms, out)
    }
}

fn scalar(value: &Value, out: &mut String) -> Option<()> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Boolean(value) => write!(out, "{value}").ok()?,
        Value::Int(value) => write!(out, "{value}").ok()?,
        Value::Long(value) => write!(out, "{value}").ok()?,
        Value::Float(value) => out.push_str(&serde_json::to_string(value).ok()?),
        Value::Double(value) => out.push_str(&serde_json::to_string(value).ok()?),
        Value::String(text) | Value::Enum(_, text) => out.push_str(&serde_json::to_string(text).ok()?),
        Value::Uuid(uuid) => write!(out, "\"{uuid}\"").ok()?,
        Value::TimestampMillis(ticks) => time(*ticks, 3, "Z", out)?,
        Value::TimestampMicros(ticks) => time(*ticks, 6, "Z", out)?,
        Value::TimestampNanos(ticks) => time(*ticks, 9, "Z", out)?,
        Value::LocalTimestampMillis(ticks) => time(*ticks, 3, "", out)?,
        Value::LocalTimestampMicros(ticks) => time(*ticks, 6, "", out)?,
        Value::LocalTimestampNanos(ticks) => time(*ticks, 9, "", out)?,
        Value::TimeMillis(ticks) => of_day(i64::from(*ticks), 3, out)?,
        Value::TimeMicros(ticks) => of_day(*ticks, 6, out)?,
        Value::Date(days) => match since_epoch(i128::from(*days) * 86_400_000_000_000) {
            Some(midnight) => write!(out, "\"{}\"", midnight.date()).ok()?,
            None => write!(out, "{days}").ok()?,
        },
        // Schemas that are not ours may use more: said by name, not guessed.
        other => write!(out, "\"<{:?}>\"", apache_avro::types::ValueKind::from(other)).ok()?,
    }
    Some(())
}

/// `ticks` of which a second has 10^`digits`, as RFC 3339; as they are where no year is theirs.
fn time(ticks: i64, digits: u8, zone: &str, out: &mut String) -> Option<()> {
    let nanoseconds = i128::from(ticks) * 10_i128.pow(u32::from(9 - digits));
    match since_epoch(nanoseconds) {
        Some(civil) => write!(out, "\"{civil:.*}{zone}\"", usize::from(digits)).ok(),
        None => write!(out, "{ticks}").ok(),
    }
}

fn since_epoch(nanoseconds: i128) -> Option<DateTime> {
    let span = SignedDuration::try_from_nanos_i128(nanoseconds)?;
    DateTime::constant(1970, 1, 1, 0, 0, 0, 0).checked_add(span).ok()
}

fn of_day(ticks: i64, digits: u8, out: &mut String) -> Option<()> {
    let second = 10_i64.pow(u32::from(digits));
    let (seconds, width) = (ticks.div_euclid(second), usize::from(digits));
    let (hour, minute) = (seconds.div_euclid(3600), seconds.div_euclid(60) % 60);
    write!(out, "\"{hour:02}:{minute:02}:{:02}.{:0width$}\"", seconds % 60, ticks.rem_euclid(second)).ok()
}

/// A decimal's two's complement as a JSON number. `None` past 16 bytes that tell something.
fn decimal_text(bytes: &[u8], scale: usize) -> Option<String> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let sign = if negative { 0xff } else { 0 };
    let (more, low) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut all = [sign; 16];
    all.get_mut(16 - low.len()..)?.copy_from_slice(low);
    let value = i128::from_be_bytes(all);
    if more.iter().any(|byte| *byte != sign) || (value < 0) != negative {
        return None;
    }
    let (minus, digits) = (if negative { "-" } else { "" }, value.unsigned_abs().to_string());
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    Some(if scale == 0 { format!("{minus}{whole}") } else { format!("{minus}{whole}.{fraction}") })
}

fn is_null(value: &Value) -> bool {
    match value {
        Value::Union(_, value) => is_null(value),
        value => *value == Value::Null,
    }
}

fn list<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: impl Iterator<Item = T>,
    mut one: impl FnMut(T, &mut String) -> Option<()>,
) -> Option<()> {
    out.push(open);
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(',');
        }
        one(item, out)?;
    }
    out.push(close);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[
        {"name":"z","type":"string"},
        {"name":"a","type":["null",{"type":"long","logicalType":"timestamp-millis"}]},
        {"name":"m","type":{"type":"map","values":"int"}},
        {"name":"l","type":{"type":"array","items":"boolean"}},
        {"name":"d","type":"double"}]}"#;

    #[test]
    fn a_value_becomes_a_line_of_json_in_the_schemas_order() {
        let schema = Schema::parse_str(SCHEMA).unwrap();
        let mut avro = b"\x04\"\n\x02\x0a\x04\x02b\x02\x02a\x03\x00\x04\x01\x00\x00".to_vec();
        avro.extend_from_slice(&0.5_f64.to_le_bytes());
        assert_eq!(
            json(&schema, &avro).unwrap(),
            r#"{"z":"\"\n","a":"1970-01-01T00:00:00.005Z","m":{"a":-2,"b":1},"l":[true,false],"d":0.5}"#
        );
        assert_eq!(json(&schema, &avro[..avro.len() - 1]), None, "cut short");
        let brief = line(&schema, b"\x00\x00\x00\x00\0\0\0\0\0\0\0\0", false).unwrap();
        assert_eq!(brief, r#"{"z":"","m":{},"l":[],"d":0.0}"#, "nulls left out");
        avro.push(0);
        assert_eq!(json(&schema, &avro), None, "a byte left over");
    }

    #[test]
    fn the_frame_is_a_zero_and_an_id() {
        assert_eq!(frame(b"\x00\x00\x00\x01\x02rest"), Some((258, &b"rest"[..])));
        assert_eq!(frame(b"\x01\x00\x00\x01\x02rest"), None);
        assert_eq!(frame(b"\x00\x00\x00\x01"), None);
    }
}
