//! Random events of a schema, with noise: apache-avro decodes each encoding, and the result together with
//! `additional_fields` must equal the body. The comparison shares only the raw slices of json.rs with the encoder.
#![allow(clippy::disallowed_types)] // the oracle

use std::collections::BTreeMap;

use super::tests::schema;
use super::*;
use crate::json::check;
use crate::schema::shipped;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

mod bodies;
mod oracle;
mod pairs;
mod schemas;

use oracle::{Json, decoded};

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
    // Digits just below the millisecond, where mistakes are most likely.
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

/// A value of `schema`. With noise, sometimes any other value, and unknown members; without, one that the type
/// represents exactly.
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
        other => panic!("a type that is not generated: {other:?}"),
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

/// Every type, below nullable fields and below others.
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

/// A value for `data`, which is always an object: anything else is not an event.
fn record_value(schema: &Schema, noise: bool) -> BoxedStrategy<Json> {
    match data_of(schema) {
        Schema::Record(record) => record_of(record, noise),
        other => panic!("no record: {other:?}"),
    }
}

#[test]
fn typed_fields_and_additional_fields_together_are_the_body() {
    for_events(true, |schema, body| {
        let (data, additional) = decoded(schema, body).unwrap();
        let again = oracle::together(data, &additional).map_err(TestCaseError::fail)?;
        let sent = Json::parse(check(body.as_bytes()).unwrap());
        prop_assert!(again.same(&sent), "sent {body}\nread {again:?}");
        Ok(())
    });
}

#[test]
fn exact_values_are_typed_and_leave_no_additional_fields() {
    for_events(false, |schema, body| {
        let (_, additional) = decoded(schema, body).unwrap();
        prop_assert!(additional.is_empty(), "sent {body}\nkept {additional:?}");
        Ok(())
    });
}
