//! Random events of a schema, with noise: apache-avro decodes each encoding, and what it reads
//! together with `additional_fields` is the body again. The comparison shares no code with the
//! encoder but the raw slices of json.rs.
#![allow(clippy::disallowed_types)] // the oracle

use std::collections::BTreeMap;

use apache_avro::types::Value;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::value::RawValue;

use super::tests::{datagrid, encode, schema};
use super::*;
use crate::json::{Kind, Object, check, elements, string};
use crate::schema::{decode, shipped};

/// JSON with its numbers as text; `At` is a time that was typed.
#[derive(Clone, Debug)]
enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    At(i64),
    List(Vec<Json>),
    Members(BTreeMap<String, Json>),
}

impl Json {
    fn parse(raw: &RawValue) -> Self {
        match Kind::of(raw) {
            Kind::Null => Self::Null,
            Kind::Boolean => Self::Bool(raw.get() == "true"),
            Kind::Number => Self::Number(raw.get().to_owned()),
            Kind::String => Self::Text(string(raw).unwrap().into_owned()),
            Kind::Array => Self::List(elements(raw).unwrap().into_iter().map(Self::parse).collect()),
            Kind::Object => Self::Members(
                Object::open(raw)
                    .unwrap()
                    .unwrap()
                    .members()
                    .iter()
                    .map(|(key, value)| (key.to_string(), Self::parse(value)))
                    .collect(),
            ),
        }
    }

    fn print(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(&value.to_string()),
            Self::Number(text) => out.push_str(text),
            Self::Text(text) => out.push_str(&serde_json::to_string(text).unwrap()),
            Self::At(_) => unreachable!("never generated"),
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

    fn decoded(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Boolean(value) => Self::Bool(value),
            Value::Int(value) => Self::Number(value.to_string()),
            Value::Long(value) => Self::Number(value.to_string()),
            Value::Float(value) => Self::Number(value.to_string()),
            Value::Double(value) => Self::Number(value.to_string()),
            Value::String(text) => Self::Text(text),
            Value::TimestampMillis(value) => Self::At(value),
            Value::Union(_, value) => Self::decoded(*value),
            Value::Array(items) => Self::List(items.into_iter().map(Self::decoded).collect()),
            Value::Map(entries) => {
                Self::Members(entries.into_iter().map(|(key, value)| (key, Self::decoded(value))).collect())
            }
            Value::Record(fields) => {
                Self::Members(fields.into_iter().map(|(key, value)| (key, Self::decoded(value))).collect())
            }
            other => panic!("no type of ours: {other:?}"),
        }
    }

    /// Puts a text of `additional_fields` where its pointer says.
    fn put(&mut self, pointer: &str, value: Self) {
        let names: Vec<String> =
            pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~")).collect();
        let mut at = self;
        for name in names {
            at = match at {
                Self::Members(members) => members.entry(name).or_insert(Self::Null),
                Self::List(items) => &mut items[name.parse::<usize>().unwrap()],
                other => panic!("{pointer} leads into {other:?}"),
            };
        }
        *at = value;
    }

    /// Equal by value: null as missing, numbers by decimal value, times by instant.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => decimal(a) == decimal(b),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::At(at), Self::Text(text)) => {
                let time: Timestamp = text.parse().unwrap();
                time.as_nanosecond() == i128::from(*at) * 1_000_000
            }
            (Self::List(a), Self::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Self::Members(a), Self::Members(b)) => {
                let (a, b) = (present(a), present(b));
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && a.1.same(b.1))
            }
            _ => false,
        }
    }
}

fn present(members: &BTreeMap<String, Json>) -> Vec<(&String, &Json)> {
    members.iter().filter(|(_, value)| !matches!(value, Json::Null)).collect()
}

/// Sign, digits, exponent: by hand and with strings, unlike number.rs.
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

fn numbers() -> impl Strategy<Value = String> {
    let digits = |low, high| proptest::string::string_regex(&format!("[0-9]{{{low},{high}}}")).unwrap();
    let whole = prop_oneof![Just("0".to_owned()), ("[1-9]", digits(0, 21)).prop_map(|(a, b)| a + &b)];
    let fraction = prop_oneof![3 => Just(String::new()), 2 => digits(1, 20).prop_map(|d| format!(".{d}"))];
    let exponent = prop_oneof![
        4 => Just(String::new()),
        3 => (-25_i32..25).prop_map(|e| format!("e{e}")),
        1 => prop_oneof![Just("E+400"), Just("e-400"), Just("e99999999999999999999")].prop_map(str::to_owned),
    ];
    ("-?", whole, fraction, exponent)
        .prop_map(|(sign, whole, fraction, exponent)| format!("{sign}{whole}{fraction}{exponent}"))
}

fn keys() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[a-c]",
        "[~/0-1*]{1,3}",
        Just("source".to_owned()),
        Just("$serde_json::private::RawValue".to_owned()),
        any::<String>(),
    ]
}

fn times(exact: bool) -> BoxedStrategy<Json> {
    // Nanoseconds of the last digit: just past the millisecond is where mistakes hide.
    let units: &[i64] = if exact { &[1_000_000] } else { &[1, 1_000, 100_000, 1_000_000] };
    let unit = proptest::sample::select(units);
    (unit, -60_000_000_000_i64..4_000_000_000_000, 0_i64..1_000_000, -23_i32..24, 0_i32..60)
        .prop_map(|(unit, milliseconds, finer, hours, minutes)| {
            let nanoseconds = i128::from(milliseconds) * 1_000_000 + i128::from(finer / unit * unit);
            let time = Timestamp::from_nanosecond(nanoseconds).unwrap();
            let offset =
                jiff::tz::Offset::from_seconds(hours * 3600 + hours.signum() * minutes * 60).unwrap();
            Json::Text(time.display_with_offset(offset).to_string())
        })
        .boxed()
}

fn anything() -> BoxedStrategy<Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        numbers().prop_map(Json::Number),
        any::<String>().prop_map(Json::Text),
        times(false),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Json::List),
            btree_map(keys(), inner, 0..3).prop_map(Json::Members)
        ]
    })
    .boxed()
}

/// A value of `schema`. With noise, any other now and then, and unknown members; without, one
/// that the type holds exactly.
fn of(schema: &Schema, noise: bool) -> BoxedStrategy<Json> {
    let fitting = match schema {
        Schema::Null => Just(Json::Null).boxed(),
        Schema::Boolean => any::<bool>().prop_map(Json::Bool).boxed(),
        Schema::Int => any::<i32>().prop_map(|value| Json::Number(value.to_string())).boxed(),
        Schema::Long => {
            let value = prop_oneof![Just(i64::MIN), Just(i64::MAX), -200_i64..200, any::<i64>()];
            value.prop_map(|value| Json::Number(value.to_string())).boxed()
        }
        Schema::Float => {
            proptest::num::f32::NORMAL.prop_map(|value| Json::Number(format!("{value:e}"))).boxed()
        }
        Schema::Double => {
            proptest::num::f64::NORMAL.prop_map(|value| Json::Number(value.to_string())).boxed()
        }
        Schema::String => any::<String>().prop_map(Json::Text).boxed(),
        Schema::TimestampMillis => times(!noise),
        Schema::Array(array) => vec(of(&array.items, noise), 0..4).prop_map(Json::List).boxed(),
        Schema::Map(map) => btree_map(keys(), of(&map.types, noise), 0..4).prop_map(Json::Members).boxed(),
        Schema::Union(union) => {
            let value = union.variants().iter().find(|schema| !matches!(schema, Schema::Null)).unwrap();
            prop_oneof![1 => Just(Json::Null), 4 => of(value, noise)].boxed()
        }
        Schema::Record(record) => record_of(record, noise),
        other => panic!("no type of ours: {other:?}"),
    };
    match (noise, schema) {
        (false, _) => fitting,
        (true, Schema::Int | Schema::Long | Schema::Float | Schema::Double) => {
            prop_oneof![6 => fitting, 6 => numbers().prop_map(Json::Number), 1 => anything()].boxed()
        }
        (true, _) => prop_oneof![12 => fitting, 1 => anything()].boxed(),
    }
}

fn record_of(record: &apache_avro::schema::RecordSchema, noise: bool) -> BoxedStrategy<Json> {
    let mut members = Just(BTreeMap::new()).boxed();
    for field in &record.fields {
        let (name, needed) = (field.name.clone(), !noise && !field.is_nullable());
        let value = prop_oneof![4 => of(&field.schema, noise).prop_map(Some), 1 => Just(None)]
            .prop_filter("needed", move |value| !needed || value.is_some());
        members = (members, value)
            .prop_map(move |(mut members, value)| {
                members.extend(value.map(|value| (name.clone(), value)));
                members
            })
            .boxed();
    }
    let unknown = btree_map(keys(), anything(), if noise { 0..3 } else { 0..1 });
    (members, unknown)
        .prop_map(|(members, mut all)| {
            all.extend(members);
            Json::Members(all)
        })
        .boxed()
}

/// The type of `data`.
fn data_of(schema: &Schema) -> &Schema {
    let Schema::Record(root) = schema else { panic!("no record") };
    &root.fields.iter().find(|field| field.name == "data").unwrap().schema
}

/// Every type, below fields that may be null and below ones that may not.
fn every_type() -> Schema {
    schema(
        r#"{"name":"b","type":["null","boolean"]},{"name":"i","type":["int","null"]},
        {"name":"l","type":["null","long"]},{"name":"f","type":["null","float"]},
        {"name":"d","type":["null","double"]},{"name":"s","type":["null","string"]},
        {"name":"t","type":["null",{"type":"long","logicalType":"timestamp-millis"}]},
        {"name":"longs","type":["null",{"type":"array","items":"long"}]},
        {"name":"maybes","type":["null",{"type":"array","items":["null","double"]}]},
        {"name":"times","type":["null",{"type":"map","values":{"type":"long","logicalType":"timestamp-millis"}}]},
        {"name":"box","type":["null",{"type":"record","name":"B","fields":[
            {"name":"n","type":"long"},{"name":"o","type":["null","int"]},
            {"name":"items","type":{"type":"array","items":{"type":"record","name":"I","fields":[
                {"name":"k","type":"string"},{"name":"d","type":["null","double"]},
                {"name":"m","type":["null",{"type":"map","values":{"type":"record","name":"V","fields":[
                    {"name":"f","type":"float"},{"name":"s","type":["string","null"]}]}}]}]}}}]}]}"#,
    )
}

fn schemas() -> Vec<Schema> {
    let shipped = [("datagrid", "batch_prediction.failed"), ("datagrid", "knowledge.processing.completed")];
    let shipped = shipped.map(|(source, event_type)| {
        shipped::parse(&shipped::find(None, source, None, event_type).unwrap().unwrap().text).unwrap()
    });
    std::iter::once(every_type()).chain(shipped).collect()
}

/// Runs `property` on bodies with a generated `data`; the seed is fixed and printed.
fn for_events(noise: bool, property: impl Fn(&Schema, &str) -> Result<(), TestCaseError>) {
    const SEED: u64 = 20_261_122;
    println!("seed {SEED}");
    for schema in schemas() {
        let config = Config {
            cases: 400,
            rng_seed: RngSeed::Fixed(SEED),
            failure_persistence: None,
            max_shrink_iters: 4000,
            ..Config::default()
        };
        let rest = btree_map("[f-h~/]{1,2}", anything(), if noise { 0..2 } else { 0..1 });
        let events = (record_value(&schema, noise), rest);
        let result = TestRunner::new(config).run(&events, |(data, mut body)| {
            body.insert("data".into(), data);
            body.insert("id".into(), Json::Text("e".into()));
            body.insert("event_type".into(), Json::Text("t".into()));
            body.insert("timestamp".into(), Json::Number("0".into()));
            let mut text = String::new();
            Json::Members(body).print(&mut text);
            property(&schema, &text)
        });
        if let Err(error) = result {
            panic!("{error}");
        }
    }
}

/// `data` itself is always an object: anything else is no event.
fn record_value(schema: &Schema, noise: bool) -> BoxedStrategy<Json> {
    match data_of(schema) {
        Schema::Record(record) => record_of(record, noise),
        other => panic!("no record: {other:?}"),
    }
}

/// What apache-avro reads: `data` and `additional_fields`.
fn decoded(schema: &Schema, body: &str) -> (Json, BTreeMap<String, Json>) {
    let encoded = encode(schema, &datagrid(), Some("1970-01-01T00:00:00Z"), body).unwrap();
    let (_, avro) = decode::frame(&encoded.value).unwrap();
    let Value::Record(fields) = decode::value(schema, avro).expect("apache-avro decodes it") else {
        panic!("no record")
    };
    let mut fields: BTreeMap<String, Value> = fields.into_iter().collect();
    let Some(Value::Map(additional)) = fields.remove("additional_fields") else { panic!("no map") };
    let additional = additional.into_iter().map(|(pointer, text)| match text {
        Value::String(text) => (pointer, Json::parse(check(text.as_bytes()).unwrap())),
        other => panic!("no text: {other:?}"),
    });
    (Json::decoded(fields.remove("data").unwrap()), additional.collect())
}

#[test]
fn typed_fields_and_additional_fields_together_are_the_body() {
    for_events(true, |schema, body| {
        let (data, additional) = decoded(schema, body);
        let mut again = Json::Members(BTreeMap::from([
            ("data".to_owned(), data),
            ("id".to_owned(), Json::Text("e".into())),
            ("event_type".to_owned(), Json::Text("t".into())),
            ("timestamp".to_owned(), Json::Number("0".into())),
        ]));
        for (pointer, value) in additional.clone() {
            // What a roll back keeps whole stands there once.
            let below = format!("{pointer}/");
            prop_assert!(!additional.keys().any(|other| other.starts_with(&below)), "sent {body}\n{pointer}");
            again.put(&pointer, value);
        }
        let sent = Json::parse(check(body.as_bytes()).unwrap());
        prop_assert!(again.same(&sent), "sent {body}\nread {again:?}");
        Ok(())
    });
}

#[test]
fn what_fits_exactly_is_typed_and_leaves_no_rest() {
    for_events(false, |schema, body| {
        let (_, additional) = decoded(schema, body);
        prop_assert!(additional.is_empty(), "sent {body}\nkept {additional:?}");
        Ok(())
    });
}
