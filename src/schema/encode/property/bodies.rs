//! Random bodies of a schema.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::schema::{NamesRef, RecordField, RecordSchema, UuidSchema};

use super::oracle::{Json, key};

/// Generates bodies for a schema.
pub(super) struct Bodies<'s> {
    pub(super) rng: &'s mut fastrand::Rng,
    pub(super) names: &'s NamesRef<'s>,
    /// Whether to add values that do not fit, unknown members and excess digits.
    pub(super) noise: bool,
}

impl Bodies<'_> {
    fn chance(&mut self, one_in: u32) -> bool {
        self.noise && self.rng.u32(0..one_in) == 0
    }

    fn value(&mut self, schema: &Schema, field: &RecordField, depth: usize) -> Json {
        if self.chance(12) {
            return self.anything(2);
        }
        let annotation = |name: &str| field.custom_attributes.get(name).and_then(|value| value.as_str());
        match schema {
            Schema::Null => Json::Null,
            Schema::Boolean => Json::Bool(self.rng.bool()),
            Schema::Int | Schema::Long | Schema::Float | Schema::Double if self.chance(2) => self.number(),
            Schema::Int => Json::Number(self.rng.i32(..).to_string()),
            Schema::Long => Json::Number(self.rng.i64(..).to_string()),
            Schema::Float => Json::Number((f32::from(self.rng.i16(..)) / 64.0).to_string()),
            Schema::Double => Json::Number((self.rng.f64() * 1e9).to_string()),
            Schema::String => self.text(),
            Schema::Enum(_) if self.chance(3) => self.text(),
            Schema::Enum(schema) => Json::Text(self.rng.choice(&schema.symbols).unwrap().clone()),
            Schema::Uuid(UuidSchema::String | UuidSchema::Fixed(_)) => {
                let text = uuid::Uuid::from_u128(self.rng.u128(..)).to_string();
                Json::Text(if self.chance(4) { text.to_uppercase() } else { text })
            }
            Schema::Bytes => {
                let size = self.rng.usize(0..6);
                self.bytes(size, annotation("hookstream.bytes"))
            }
            Schema::Fixed(schema) => {
                let more = usize::from(self.chance(8));
                self.bytes(schema.size + more, annotation("hookstream.bytes"))
            }
            Schema::Decimal(schema) => {
                let digits = schema.precision + usize::from(self.chance(4));
                let all: String = (0..digits).map(|_| self.rng.digit(10)).collect();
                let (whole, fraction) = all.split_at(digits.saturating_sub(schema.scale));
                let whole = whole.trim_start_matches('0');
                let whole = if whole.is_empty() { "0" } else { whole };
                let sign = if self.rng.bool() { "-" } else { "" };
                let point = if fraction.is_empty() { "" } else { "." };
                let text = format!("{sign}{whole}{point}{fraction}");
                if annotation("hookstream.decimal") == Some("string") {
                    Json::Text(text)
                } else {
                    Json::Number(text)
                }
            }
            Schema::Date => Json::Text(self.time(1)[..10].to_owned()),
            Schema::TimeMillis => Json::Text(self.time(3)[11..].to_owned()),
            Schema::TimeMicros => Json::Text(self.time(6)[11..].to_owned()),
            Schema::LocalTimestampMillis => Json::Text(self.time(3)),
            Schema::LocalTimestampMicros => Json::Text(self.time(6)),
            Schema::TimestampMillis => self.instant(3, annotation("hookstream.time")),
            Schema::TimestampMicros => self.instant(6, annotation("hookstream.time")),
            Schema::TimestampNanos => self.instant(9, annotation("hookstream.time")),
            Schema::Array(schema) => {
                let count = if depth == 0 { 0 } else { self.rng.usize(0..3) };
                Json::List((0..count).map(|_| self.value(&schema.items, field, depth - 1)).collect())
            }
            Schema::Map(schema) => {
                let count = if depth == 0 { 0 } else { self.rng.usize(0..3) };
                Json::Members(
                    (0..count).map(|_| (self.key(), self.value(&schema.types, field, depth - 1))).collect(),
                )
            }
            Schema::Union(union) => {
                let null = union.variants().iter().any(|schema| matches!(schema, Schema::Null));
                if null && (depth == 0 || self.rng.u8(0..5) == 0) {
                    return Json::Null;
                }
                let schema = self.rng.choice(union.variants()).unwrap();
                self.value(schema, field, depth.saturating_sub(1))
            }
            Schema::Record(record) => self.record(record, depth),
            Schema::Ref { name } => {
                let Schema::Record(record) = self.names[name] else { panic!("no record") };
                self.record(record, depth)
            }
            other => panic!("a type that is not generated: {other:?}"),
        }
    }

    pub(super) fn record(&mut self, record: &RecordSchema, depth: usize) -> Json {
        let mut members = BTreeMap::new();
        if self.chance(3) {
            members.insert(self.key(), self.anything(2));
        }
        for field in &record.fields {
            let union = match &field.schema {
                Schema::Union(union) => union.variants().contains(&Schema::Null),
                schema => *schema == Schema::Null,
            };
            let may_be_missing = union || field.default.is_some();
            if (may_be_missing && self.rng.u8(0..6) == 0) || self.chance(40) {
                continue;
            }
            members.insert(key(field), self.value(&field.schema, field, depth.saturating_sub(1)));
        }
        Json::Members(members)
    }

    fn bytes(&mut self, size: usize, form: Option<&str>) -> Json {
        use base64::Engine as _;
        use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
        let bytes: Vec<u8> = (0..size).map(|_| self.rng.u8(..)).collect();
        Json::Text(match form {
            Some("base64") => STANDARD.encode(bytes),
            Some("base64url") => URL_SAFE_NO_PAD.encode(bytes),
            _ => hex::encode(bytes),
        })
    }

    /// A text without a zone. With noise, sometimes with more digits than the type has.
    fn time(&mut self, digits: usize) -> String {
        let digits = if self.chance(3) { 9 } else { digits };
        let seconds = self.rng.i64(-5_000_000_000..5_000_000_000);
        let at = jiff::Timestamp::new(seconds, self.rng.i32(0..1_000_000_000)).unwrap_or_default();
        let civil = jiff::tz::Offset::UTC.to_datetime(at);
        format!("{civil:.digits$}")
    }

    fn instant(&mut self, digits: usize, form: Option<&str>) -> Json {
        if form == Some("rfc3339") {
            let zone = self.rng.choice(["Z", "+00:00", "-05:30", "+14:00"]).unwrap();
            return Json::Text(self.time(digits) + zone);
        }
        let digits = if self.chance(3) { 9 } else { digits };
        let shift = if form == Some("unix_seconds") { 0 } else { 3 };
        let ticks = self.rng.i64(-4_000_000_000..4_000_000_000) * 10_i64.pow(digits.min(9) as u32)
            + self.rng.i64(0..1000);
        let at = format!("{:0>width$}", ticks.unsigned_abs(), width = digits + 1 - shift);
        let (whole, fraction) = at.split_at(at.len() + shift - digits);
        let point = if fraction.is_empty() { "" } else { "." };
        Json::Number(format!("{}{whole}{point}{fraction}", if ticks < 0 { "-" } else { "" }))
    }

    fn number(&mut self) -> Json {
        let mut digits = |least: usize, most: usize| -> String {
            let count = self.rng.usize(least..=most);
            (0..count).map(|_| self.rng.digit(10)).collect()
        };
        let whole = digits(1, 21);
        let whole = whole.trim_start_matches('0');
        let mut text = if whole.is_empty() { "0".to_owned() } else { whole.to_owned() };
        let fraction = digits(0, 20);
        if !fraction.is_empty() {
            text = format!("{text}.{fraction}");
        }
        match self.rng.u8(0..6) {
            0 => text.push_str(&format!("e{}", self.rng.i32(-25..25))),
            1 => text.push_str("E+400"),
            2 => text.insert(0, '-'),
            _ => {}
        }
        Json::Number(text)
    }

    fn text(&mut self) -> Json {
        let count = self.rng.usize(0..6);
        Json::Text((0..count).map(|_| self.rng.char(..)).collect())
    }

    fn key(&mut self) -> String {
        let odd = ["", "a", "b", "~1", "/", "*", "0", "f1", "f2", "$serde_json::private::RawValue"];
        if self.rng.u8(0..4) == 0 {
            let Json::Text(text) = self.text() else { unreachable!() };
            return text;
        }
        self.rng.choice(odd).unwrap().to_owned()
    }

    fn anything(&mut self, depth: usize) -> Json {
        match self.rng.u8(0..if depth == 0 { 7 } else { 9 }) {
            0 => Json::Null,
            1 => Json::Bool(self.rng.bool()),
            2 | 3 => self.number(),
            4 => self.text(),
            5 => Json::Text(self.time(3) + "Z"),
            6 => Json::Text("A".to_owned()),
            7 => Json::List((0..self.rng.usize(0..3)).map(|_| self.anything(depth - 1)).collect()),
            _ => {
                let count = self.rng.usize(0..3);
                Json::Members((0..count).map(|_| (self.key(), self.anything(depth - 1))).collect())
            }
        }
    }
}
