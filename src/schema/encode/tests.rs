#![allow(clippy::disallowed_types)] // the oracle

use serde_json::{Value, json};

use super::*;
use crate::json::{Object, Pointer, check};
use crate::outcome::Reason;
use crate::schema::{decode, shipped};

mod compiled;
mod kept;
mod types;
mod vectors;

const RECEIVED: i64 = 1_775_847_601_234;

pub(super) fn places(id: Option<&str>, event_type: &str, time: &str, data: &str) -> EventPlaces {
    let pointer = |text| Pointer::parse(text).unwrap();
    let (event_type, time) = (vec![pointer(event_type)], vec![pointer(time)]);
    EventPlaces { id: id.map(pointer).into_iter().collect(), event_type, time, data: pointer(data) }
}

pub(super) fn datagrid() -> EventPlaces {
    places(Some("/id"), "/event_type", "/timestamp", "/data")
}

fn grapevine() -> EventPlaces {
    places(None, "/event", "/timestamp", "/data")
}

fn shipped_schema(source: &str, event_type: &str) -> Schema {
    shipped::parse(&shipped::find(None, source, None, event_type).unwrap().unwrap().text).unwrap()
}

/// A schema with the usual root and these fields in `data`.
pub(super) fn schema(data: &str) -> Schema {
    schema_with(&format!(r#"{{"type":"record","name":"D","fields":[{data}]}}"#), "")
}

fn schema_with(data: &str, more: &str) -> Schema {
    let text = format!(
        r#"{{"type":"record","name":"E","fields":[
        {{"name":"id","type":"string"}},{{"name":"type","type":"string"}},{{"name":"source","type":"string"}},
        {{"name":"time","type":["null",{{"type":"long","logicalType":"timestamp-millis"}}],"default":null}},
        {{"name":"received_at","type":{{"type":"long","logicalType":"timestamp-millis"}}}},{more}
        {{"name":"data","type":{data}}},
        {{"name":"additional_fields","type":{{"type":"map","values":"string"}}}}]}}"#
    );
    shipped::parse(&text).unwrap()
}

/// Encodes a body with a minimal envelope: the type and id as found, the time as given.
pub(super) fn encode(
    schema: &Schema,
    places: &EventPlaces,
    time: Option<&str>,
    body: &str,
) -> Result<Encoded, Fault> {
    let encoder = Encoder::compile(schema, 258, places).unwrap();
    let raw = check(body.as_bytes())?;
    let root = Object::open(raw)?.unwrap();
    let text = |pointer: &Pointer| pointer.find(&root).unwrap().and_then(crate::json::string);
    let data = match places.data.names() {
        [] => Some(raw),
        _ => places.data.find(&root).unwrap(),
    };
    let event = Event::for_test(
        places.id.first().and_then(text).unwrap_or("sha256:0".into()),
        places.event_type.first().and_then(text).unwrap_or("t".into()),
        time.map(|time| time.parse().unwrap()),
        Timestamp::from_millisecond(RECEIVED).unwrap(),
        root,
        data,
        raw.get(),
    );
    encoder.encode(&event)
}

/// The record as apache-avro reads it, in JSON; `additional_fields` separately.
fn read(schema: &Schema, encoded: &Encoded) -> (Value, Value) {
    let (id, avro) = decode::frame(&encoded.value).unwrap();
    assert_eq!(id, 258);
    let mut value: Value = serde_json::from_str(&decode::json(schema, avro).unwrap()).unwrap();
    let additional = value.as_object_mut().unwrap().remove("additional_fields").unwrap();
    let mut pointers: Vec<&str> = encoded.additional.iter().map(String::as_str).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, additional.as_object().unwrap().keys().collect::<Vec<_>>());
    (value, additional)
}

/// `data` and `additional_fields` of an event with this `data`.
fn data(schema: &Schema, data: &str) -> (Value, Value) {
    let body = format!(r#"{{"id":"e","event_type":"t","timestamp":0,"data":{data}}}"#);
    let encoded = encode(schema, &datagrid(), Some("1970-01-01T00:00:00Z"), &body).unwrap();
    let (mut value, additional) = read(schema, &encoded);
    (value["data"].take(), additional)
}

fn fault(schema: &Schema, data: &str) -> (Reason, String) {
    let body = format!(r#"{{"id":"e","event_type":"t","timestamp":0,"data":{data}}}"#);
    let fault = encode(schema, &datagrid(), None, &body).unwrap_err();
    (fault.reason, fault.detail.unwrap_or_default().into_owned())
}

#[test]
fn the_bytes_are_confluents_frame_and_avros() {
    let schema = schema(
        r#"{"name":"n","type":["null","long"]},{"name":"s","type":["string","null"]},
           {"name":"l","type":{"type":"array","items":"int"}},{"name":"m","type":{"type":"map","values":"boolean"}},
           {"name":"d","type":"double"},{"name":"f","type":"float"}"#,
    );
    let body = r#"{"id":"ä","event_type":"t","timestamp":0,"x":[1 ],
        "data":{"n":-65,"s":"ab","l":[0,64],"m":{"k":true},"d":1.5,"f":-2}}"#;
    let encoded = encode(&schema, &datagrid(), Some("1970-01-01T00:00:00.001Z"), body).unwrap();
    let mut expected: Vec<u8> = vec![0, 0, 0, 1, 2, 4];
    expected.extend_from_slice("ä".as_bytes());
    expected.extend_from_slice(b"\x02t\x10datagrid");
    expected.extend_from_slice(&[2, 2]); // time: the union's second branch, 1 ms
    expected.extend_from_slice(b"\xa4\xd1\x9f\x8c\xaf\x67"); // received_at
    expected.extend_from_slice(&[2, 0x81, 1]); // n
    expected.extend_from_slice(b"\x00\x04ab"); // s: the union's first branch
    expected.extend_from_slice(&[4, 0, 0x80, 1, 0]); // l: one block of two, then the end
    expected.extend_from_slice(b"\x02\x02k\x01\x00"); // m
    expected.extend_from_slice(&1.5_f64.to_le_bytes());
    expected.extend_from_slice(&(-2.0_f32).to_le_bytes());
    expected.extend_from_slice(b"\x02\x04/x\x08[1 ]\x00");
    assert_eq!(encoded.value, expected);
    assert_eq!(encoded.additional, ["/x"]);
}

#[test]
fn datagrids_example_needs_no_additional_fields() {
    let schema = shipped_schema("datagrid", "batch_prediction.completed");
    let body = r#"{
      "id": "evt_7f3d8a2c",
      "event_type": "batch_prediction.completed",
      "timestamp": 1775847600,
      "data": {
        "object": "batch_prediction",
        "id": "bpred_abc123",
        "status": "completed",
        "results_url": "/v1/batch-predictions/bpred_abc123/results"
      }
    }"#;
    let encoded = encode(&schema, &datagrid(), Some("2026-04-10T19:00:00Z"), body).unwrap();
    let (value, additional) = read(&schema, &encoded);
    assert_eq!(additional, json!({}));
    assert_eq!(value["id"], "evt_7f3d8a2c");
    assert_eq!(value["type"], "batch_prediction.completed");
    assert_eq!(value["source"], "datagrid");
    assert_eq!(value["time"], "2026-04-10T19:00:00.000Z");
    assert_eq!(value["received_at"], "2026-04-10T19:00:01.234Z");
    assert_eq!(value["data"]["id"], "bpred_abc123");
    assert_eq!(value["data"]["results_url"], "/v1/batch-predictions/bpred_abc123/results");
    assert_eq!(value["data"]["error"], Value::Null);
}

#[test]
fn a_full_batch_prediction_is_typed_throughout() {
    let schema = shipped_schema("datagrid", "batch_prediction.failed");
    let (value, additional) = data(
        &schema,
        r#"{"id":"b","object":"batch_prediction","status":"new-status","model":"m","completion_window":"24h",
        "created_at":"2026-04-10T19:00:00.123456Z","expires_at":"2026-04-11T21:00:00+02:00","failed_at":null,
        "metadata":{"team":"a\"b"},"request_counts":{"total":3,"errored":3.0,"other":1},"results_url":null,
        "error":{"type":"about:blank","title":"t","status":422,"detail":"d"},"priority":"high"}"#,
    );
    assert_eq!(value["created_at"], "2026-04-10T19:00:00.123Z");
    assert_eq!(value["expires_at"], "2026-04-11T19:00:00.000Z");
    assert_eq!(value["metadata"], json!({"team": "a\"b"}));
    assert_eq!(value["request_counts"]["errored"], 3);
    assert_eq!(value["error"]["status"], 422);
    assert_eq!(
        additional,
        json!({"/data/created_at": "\"2026-04-10T19:00:00.123456Z\"", "/data/request_counts/other": "1",
               "/data/priority": "\"high\""})
    );
}

#[test]
fn nulls_of_a_batch_prediction_are_nulls() {
    let schema = shipped_schema("datagrid", "batch_prediction.expired");
    let (value, additional) =
        data(&schema, r#"{"metadata":null,"error":null,"request_counts":{},"new":null}"#);
    assert_eq!(additional, json!({}));
    assert_eq!((&value["metadata"], &value["error"]), (&Value::Null, &Value::Null));
    assert!(value["request_counts"].is_object());
}

#[test]
fn both_spellings_of_knowledge_events_pass() {
    let schema = shipped_schema("datagrid", "knowledge.processing.completed");
    for (scope, counts) in [
        ("private", r#"{"tables":2,"rows":1000}"#),
        ("teamspace", r#"{"completed":10,"failed":0,"total":10}"#),
    ] {
        let (value, additional) = data(
            &schema,
            &format!(
                r#"{{"knowledge_id":"k","teamspace_id":"t","scope":"{scope}","status":"ready","row_counts":{counts}}}"#
            ),
        );
        assert_eq!(additional, json!({}));
        assert_eq!(value["scope"], scope);
        assert_eq!(value["row_counts"], serde_json::from_str::<Value>(counts).unwrap());
    }
}

#[test]
fn grapevines_event_keeps_its_tenant_and_its_finer_time() {
    let schema = shipped_schema("grapevine", "document.changed");
    let body = r#"{"event":"document.changed","timestamp":"2026-01-02T03:04:05.678901Z","tenant_id":"acme",
        "data":{"document_id":"B\u00fcro\u007f.md","source":"github"}}"#;
    let encoded = encode(&schema, &grapevine(), Some("2026-01-02T03:04:05.678901Z"), body).unwrap();
    let (value, additional) = read(&schema, &encoded);
    assert_eq!(additional, json!({"/timestamp": "\"2026-01-02T03:04:05.678901Z\""}));
    assert_eq!(value["tenant_id"], "acme");
    assert_eq!(value["time"], "2026-01-02T03:04:05.678Z");
    assert_eq!(value["data"], json!({"document_id": "Büro\u{7f}.md", "source": "github"}));
}

#[test]
fn the_envelopes_time_is_kept_only_if_milliseconds_are_not_exact() {
    let schema = schema(r#"{"name":"n","type":["null","long"]}"#);
    let kept = |time: Option<&str>, text: &str| {
        let body = format!(r#"{{"id":"e","event_type":"t","timestamp":{text},"data":{{}}}}"#);
        let encoded = encode(&schema, &datagrid(), time, &body).unwrap();
        let (value, additional) = read(&schema, &encoded);
        (value["time"].clone(), additional)
    };
    assert_eq!(kept(Some("1970-01-01T00:00:01Z"), "1"), (json!("1970-01-01T00:00:01.000Z"), json!({})));
    assert_eq!(
        kept(Some("1969-12-31T23:59:59.9999Z"), "-0.0001"),
        (json!("1969-12-31T23:59:59.999Z"), json!({"/timestamp": "-0.0001"}))
    );
    assert_eq!(kept(None, "\"soon\""), (Value::Null, json!({"/timestamp": "\"soon\""})));
    assert_eq!(kept(None, "null"), (Value::Null, json!({})));
}

#[test]
fn numbers_are_read_by_decimal_value_and_kept_if_the_type_loses_digits() {
    let schema = schema(
        r#"{"name":"i","type":["null","int"]},{"name":"l","type":["null","long"]},
           {"name":"d","type":["null","double"]},{"name":"f","type":["null","float"]}"#,
    );
    for (field, text, typed, kept) in [
        ("l", "9007199254740993", json!(9_007_199_254_740_993_i64), false),
        ("l", "1e3", json!(1000), false),
        ("l", "1.50", Value::Null, true),
        ("l", "9223372036854775808", Value::Null, true),
        ("l", "\"1\"", Value::Null, true),
        ("l", "true", Value::Null, true),
        ("i", "2147483647", json!(2_147_483_647), false),
        ("i", "2147483648", Value::Null, true),
        ("i", "-2147483648.0", json!(-2_147_483_648_i64), false),
        ("d", "1.10", json!(1.1), false),
        ("d", "9007199254740993", json!(9_007_199_254_740_992.0), true),
        ("d", "0.1234567890123456789", json!(0.123_456_789_012_345_68), true),
        ("d", "1e400", Value::Null, true),
        ("d", "1e-400", json!(0.0), true),
        ("f", "0.5", json!(0.5), false),
        ("f", "16777217", json!(16_777_216.0), true),
        ("f", "1e39", Value::Null, true),
        ("f", "\"NaN\"", Value::Null, true),
    ] {
        let (value, additional) = data(&schema, &format!(r#"{{"{field}":{text}}}"#));
        assert_eq!(value[field], typed, "{field} {text}");
        let expected = if kept { json!({format!("/data/{field}"): text}) } else { json!({}) };
        assert_eq!(additional, expected, "{field} {text}");
    }
}

#[test]
fn json_kinds_are_never_converted_to_one_another() {
    let schema = schema(
        r#"{"name":"b","type":["null","boolean"]},{"name":"s","type":["null","string"]},
           {"name":"t","type":["null",{"type":"long","logicalType":"timestamp-millis"}]},{"name":"n","type":"null"}"#,
    );
    for (field, text) in [
        ("b", "1"),
        ("b", "\"true\""),
        ("s", "1"),
        ("s", r#""\ud800""#),
        ("t", "1767323045"),
        ("t", "\"2026-01-02\""),
    ] {
        let (value, additional) = data(&schema, &format!(r#"{{"{field}":{text}}}"#));
        assert_eq!(value[field], Value::Null, "{field} {text}");
        assert_eq!(additional, json!({format!("/data/{field}"): text}), "{field} {text}");
    }
    assert_eq!(data(&schema, r#"{"b":false,"s":"\ud83d\ude00","n":null}"#).0["s"], "😀");
    assert_eq!(fault(&schema, r#"{"n":1}"#).1, "at /data/n: expected null, found number");
}

const NESTED: &str = r#"{"name":"box","type":["null",{"type":"record","name":"B","fields":[
    {"name":"n","type":"long"},
    {"name":"items","type":{"type":"array","items":{"type":"record","name":"I","fields":[
        {"name":"k","type":"string"},{"name":"o","type":["null","long"]}]}}}]}]},
    {"name":"after","type":["null","long"]}"#;

#[test]
fn a_misfit_rolls_back_to_the_nearest_nullable_field() {
    let schema = schema(NESTED);
    // Unknown members before the misfit are part of the kept text and not kept again.
    let text = r#"{"n":1,"items":[{"k":"a","x":1,"o":0.5},{"k":2}]}"#;
    let (value, additional) = data(&schema, &format!(r#"{{"box":{text},"after":7}}"#));
    assert_eq!(value, json!({"box": null, "after": 7}));
    assert_eq!(additional, json!({"/data/box": text}));

    let (value, additional) = data(&schema, r#"{"box":{"n":1,"items":[{"k":"a","x":1,"o":0.5}]},"after":7}"#);
    assert_eq!(value["box"]["items"], json!([{"k": "a", "o": null}]));
    assert_eq!(additional, json!({"/data/box/items/0/o": "0.5", "/data/box/items/0/x": "1"}));
}

#[test]
fn a_misfit_without_a_nullable_field_around_it_names_the_place_and_no_payload() {
    let schema = schema(
        r#"{"name":"n","type":"long"},{"name":"m","type":{"type":"map","values":{"type":"array","items":"int"}},
           "default":{}}"#,
    );
    for (text, detail) in [
        ("{}", "at /data/n: expected long, found nothing"),
        (r#"{"n":null}"#, "at /data/n: expected long, found null"),
        (r#"{"n":"hunter2"}"#, "at /data/n: expected long, found string"),
        (r#"{"n":1.5}"#, "at /data/n: expected long, found a number with a fraction or out of range"),
        (r#"{"n":1,"m":{"hunter2":[1,true]}}"#, "at /data/m/*/1: expected int, found boolean"),
        ("[]", "at /data: expected record, found array"),
        ("null", "at /data: expected record, found null"),
    ] {
        assert_eq!(fault(&schema, text), (Reason::ShapeMismatch, detail.to_owned()), "{text}");
    }
    let body = r#"{"id":"e","event_type":"t"}"#;
    let nothing = encode(&schema, &datagrid(), None, body).unwrap_err();
    assert_eq!(nothing.detail.as_deref(), Some("at /data: expected record, found nothing"));
}

#[test]
fn a_duplicate_key_is_a_separate_fault_in_every_object_that_the_schema_opens() {
    let schema = schema(NESTED);
    for text in [
        r#"{"after":1,"after":1}"#,
        r#"{"box":{"n":1,"n":2,"items":[]}}"#,
        r#"{"box":{"n":1,"items":[{"k":"a","\u006b":"a"}]}}"#,
    ] {
        assert_eq!(fault(&schema, text).0, Reason::DuplicateKey, "{text}");
    }
}

#[test]
fn missing_fields_take_their_default_and_nulls_in_maps_are_missing() {
    let schema = schema(
        r#"{"name":"s","type":"string","default":"none"},{"name":"l","type":"long","default":-3},
           {"name":"a","type":{"type":"array","items":"int"},"default":[]},
           {"name":"m","type":{"type":"map","values":"string"},"default":{}},
           {"name":"o","type":{"type":"map","values":["null","string"]},"default":{}}"#,
    );
    let (value, additional) = data(&schema, r#"{"s":null}"#);
    assert_eq!(value, json!({"s": "none", "l": -3, "a": [], "m": {}, "o": {}}));
    assert_eq!(additional, json!({}));
    let (value, additional) = data(&schema, r#"{"m":{"a":null,"b":"c"},"o":{"a":null}}"#);
    assert_eq!((&value["m"], &value["o"]), (&json!({"b": "c"}), &json!({"a": null})));
    assert_eq!(additional, json!({}));
}

#[test]
fn debug_shows_no_payload() {
    let schema = schema(r#"{"name":"n","type":["null","long"]}"#);
    let body = r#"{"id":"e","event_type":"t","hunter2":"hunter2","data":{}}"#;
    let encoded = encode(&schema, &datagrid(), None, body).unwrap();
    assert!(!format!("{encoded:?}").contains("hunter2"));
}

#[test]
fn an_encoder_is_shared_between_tasks() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Encoder>();
}

#[test]
fn the_generic_record_contains_the_complete_event_as_sent() {
    let schema = shipped::parse(&shipped::generic("datagrid", "batch_prediction.new")).unwrap();
    let body = r#"{"id":"e", "event_type":"t","data":{"n":1.10,"n2":[1 ,2]},"more":null}"#;
    let encoded = encode(&schema, &datagrid(), None, body).unwrap();
    assert!(encoded.additional.is_empty());
    let (id, avro) = decode::frame(&encoded.value).unwrap();
    let value: Value = serde_json::from_str(&decode::json(&schema, avro).unwrap()).unwrap();
    assert_eq!(id, 258);
    assert_eq!((&value["id"], &value["type"]), (&json!("e"), &json!("t")));
    assert_eq!((&value["data"], &value["content_type"]), (&json!(body), &Value::Null));
    assert_eq!(value["received_at"], "2026-04-10T19:00:01.234Z");

    let more = shipped::generic("x", "y").replace("content_type", "tenant_id");
    let error = Encoder::compile(&shipped::parse(&more).unwrap(), 1, &datagrid()).unwrap_err();
    assert_eq!(error, ["field `tenant_id` has no meaning if `data` is a string"]);
}
