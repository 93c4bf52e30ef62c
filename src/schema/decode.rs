//! Framed Avro back to JSON text, for people: tail, dev, tests. Not on the hot path.
#![allow(clippy::disallowed_types)] // the one reader of apache-avro's values

use std::fmt::Write as _;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;

/// Splits Confluent's frame: schema id and Avro. `None` where it is no such frame.
pub fn frame(value: &[u8]) -> Option<(u32, &[u8])> {
    match value {
        [0, a, b, c, d, avro @ ..] => Some((u32::from_be_bytes([*a, *b, *c, *d]), avro)),
        _ => None,
    }
}

/// Decodes Avro (without its frame) to one line of JSON: fields in the schema's order, times as
/// RFC 3339, a map's keys sorted. `None` where the bytes are not the schema's or bytes are left;
/// why is not said, since the library's errors may hold the payload.
pub fn json(schema: &Schema, avro: &[u8]) -> Option<String> {
    let value = value(schema, avro)?;
    let mut out = String::with_capacity(avro.len() * 2);
    write(&value, &mut out)?;
    Some(out)
}

/// Decodes with the writer's schema alone; all bytes must be used.
pub(super) fn value(schema: &Schema, mut avro: &[u8]) -> Option<Value> {
    let value = GenericDatumReader::builder(schema).build().ok()?.read_value(&mut avro).ok()?;
    avro.is_empty().then_some(value)
}

fn write(value: &Value, out: &mut String) -> Option<()> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Boolean(value) => write!(out, "{value}").ok()?,
        Value::Int(value) => write!(out, "{value}").ok()?,
        Value::Long(value) => write!(out, "{value}").ok()?,
        Value::Float(value) => out.push_str(&serde_json::to_string(value).ok()?),
        Value::Double(value) => out.push_str(&serde_json::to_string(value).ok()?),
        Value::String(text) | Value::Enum(_, text) => out.push_str(&serde_json::to_string(text).ok()?),
        Value::TimestampMillis(milliseconds) => match jiff::Timestamp::from_millisecond(*milliseconds) {
            Ok(time) => write!(out, "\"{time:.3}\"").ok()?,
            Err(_) => write!(out, "{milliseconds}").ok()?,
        },
        Value::Union(_, value) => write(value, out)?,
        Value::Array(items) => {
            list(out, ['[', ']'], items.iter(), write)?;
        }
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            list(out, ['{', '}'], entries.into_iter(), |(key, value), out| member(key, value, out))?;
        }
        Value::Record(fields) => {
            list(out, ['{', '}'], fields.iter(), |(key, value), out| member(key, value, out))?;
        }
        // Schemas that are not ours may use more: said by name, not guessed.
        other => write!(out, "\"<{:?}>\"", apache_avro::types::ValueKind::from(other)).ok()?,
    }
    Some(())
}

fn member(key: &str, value: &Value, out: &mut String) -> Option<()> {
    out.push_str(&serde_json::to_string(key).ok()?);
    out.push(':');
    write(value, out)
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
