//! The values that each type accepts, the annotations that change this, and the choice of a union's branch.

use super::*;

/// Checks for each text the typed value, and whether the text was kept.
fn becomes(field: &str, cases: &[(&str, Value, bool)]) {
    let schema = schema(field);
    for (text, typed, kept) in cases {
        let (value, additional) = data(&schema, &format!(r#"{{"x":{text}}}"#));
        assert_eq!(value["x"], *typed, "{text}");
        let expected = if *kept { json!({"/data/x": text}) } else { json!({}) };
        assert_eq!(additional, expected, "{text}");
    }
}

#[test]
fn times_are_parsed_according_to_their_annotation() {
    becomes(
        r#"{"name":"x","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"hookstream.time":"unix_seconds"}"#,
        &[
            ("1775847600", json!("2026-04-10T19:00:00.000Z"), false),
            ("1775847600.25", json!("2026-04-10T19:00:00.250Z"), false),
            ("1.7758476e9", json!("2026-04-10T19:00:00.000Z"), false),
            ("1775847600.0009", json!("2026-04-10T19:00:00.000Z"), true),
            ("1775847600000", Value::Null, true),
            ("\"1775847600\"", Value::Null, true),
            ("\"2026-04-10T19:00:00Z\"", Value::Null, true),
        ],
    );
    becomes(
        r#"{"name":"x","type":["null",{"type":"long","logicalType":"timestamp-micros"}],"hookstream.time":"unix_milliseconds"}"#,
        &[
            ("1775847600123", json!("2026-04-10T19:00:00.123000Z"), false),
            ("-0.001", json!("1969-12-31T23:59:59.999999Z"), false),
            ("-0.0001", json!("1969-12-31T23:59:59.999999Z"), true),
        ],
    );
    becomes(
        r#"{"name":"x","type":["null",{"type":"long","logicalType":"timestamp-nanos"}],"hookstream.time":"rfc3339"}"#,
        &[
            ("\"2026-04-10T19:00:00.123456789Z\"", json!("2026-04-10T19:00:00.123456789Z"), false),
            ("\"2026-04-10T19:00:00.1234567891Z\"", json!("2026-04-10T19:00:00.123456789Z"), true),
            ("\"2500-01-01T00:00:00Z\"", Value::Null, true),
        ],
    );
    // For all that the type holds.
    let within = r#"{"name":"x","hookstream.time":"unix_seconds","type":{"type":"map","values":
        {"type":"array","items":["null",{"type":"long","logicalType":"timestamp-millis"}]}}}"#;
    let (value, _) = data(&schema(within), r#"{"x":{"a":[1,null]}}"#);
    assert_eq!(value["x"], json!({"a": ["1970-01-01T00:00:01.000Z", null]}));
}

#[test]
fn dates_and_local_times_are_text_without_a_zone() {
    let field = |base: &str, logical: &str| {
        format!(r#"{{"name":"x","type":["null",{{"type":"{base}","logicalType":"{logical}"}}]}}"#)
    };
    becomes(
        &field("int", "date"),
        &[
            ("\"2026-02-28\"", json!("2026-02-28"), false),
            ("\"2026-02-29\"", Value::Null, true),
            ("20512", Value::Null, true),
        ],
    );
    becomes(
        &field("int", "time-millis"),
        &[
            ("\"23:59:59.5\"", json!("23:59:59.500"), false),
            ("\"00:00:00.0001\"", json!("00:00:00.000"), true),
            ("\"24:00:00\"", Value::Null, true),
        ],
    );
    becomes(&field("long", "time-micros"), &[("\"03:04:05.678901\"", json!("03:04:05.678901"), false)]);
    becomes(
        &field("long", "local-timestamp-millis"),
        &[
            ("\"2026-04-10T19:00:00\"", json!("2026-04-10T19:00:00.000"), false),
            ("\"2026-04-10T19:00:00Z\"", Value::Null, true),
        ],
    );
}

#[test]
fn a_decimal_is_never_rounded() {
    for decimal in [r#""bytes""#, r#""fixed","name":"F","size":5"#] {
        let field = format!(
            r#"{{"name":"x","type":["null",{{"type":{decimal},"logicalType":"decimal","precision":6,"scale":2}}]}}"#
        );
        becomes(
            &field,
            &[
                ("12.5", serde_json::from_str("12.50").unwrap(), false),
                ("-9999.99", json!(-9999.99), false),
                ("1e3", json!(1000.0), false),
                ("0.010", json!(0.01), false),
                ("12.505", Value::Null, true),
                ("10000", Value::Null, true),
                ("1e400", Value::Null, true),
                ("\"12.50\"", Value::Null, true),
            ],
        );
    }
    becomes(
        r#"{"name":"x","hookstream.decimal":"string","type":["null",{"type":"bytes","logicalType":"decimal","precision":38,"scale":3}]}"#,
        &[
            (
                "\"12345678901234567890123456789012345.678\"",
                json!("12345678901234567890123456789012345.678"),
                false,
            ),
            ("\"-0.5\"", json!("-0.500"), false),
            ("\" 1\"", Value::Null, true),
            ("\"1,5\"", Value::Null, true),
            ("\"\"", Value::Null, true),
            ("1.5", Value::Null, true),
        ],
    );
    let must =
        schema(r#"{"name":"x","type":{"type":"bytes","logicalType":"decimal","precision":6,"scale":2}}"#);
    assert_eq!(
        fault(&must, r#"{"x":0.125}"#).1,
        "at /data/x: expected a decimal(6, 2), found a number with more digits"
    );
}

#[test]
fn bytes_uuids_and_enums_are_parsed_from_text() {
    becomes(
        r#"{"name":"x","type":["null","bytes"],"hookstream.bytes":"base64"}"#,
        &[("\"AP8=\"", json!("AP8="), false), ("\"AP8\"", Value::Null, true), ("\"\"", json!(""), false)],
    );
    becomes(
        r#"{"name":"x","type":["null",{"type":"fixed","name":"F","size":2}],"hookstream.bytes":"hex"}"#,
        &[("\"00ff\"", json!("00ff"), false), ("\"00\"", Value::Null, true), ("\"00FF\"", Value::Null, true)],
    );
    let id = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
    for uuid in [r#""string""#, r#""fixed","name":"U","size":16"#] {
        becomes(
            &format!(r#"{{"name":"x","type":["null",{{"type":{uuid},"logicalType":"uuid"}}]}}"#),
            &[
                (&format!("\"{id}\""), json!(id), false),
                (&format!("\"{}\"", id.to_uppercase()), json!(id), true),
                (&format!("\"{}\"", id.replace('-', "")), Value::Null, true),
                (&format!("\"{{{id}}}\""), Value::Null, true),
            ],
        );
    }
    becomes(
        r#"{"name":"x","type":["null",{"type":"enum","name":"C","symbols":["A","B"]}]}"#,
        &[("\"B\"", json!("B"), false), ("\"C\"", Value::Null, true), ("1", Value::Null, true)],
    );
    becomes(
        r#"{"name":"x","type":{"type":"enum","name":"C","symbols":["A","OTHER"],"default":"OTHER"}}"#,
        &[("\"A\"", json!("A"), false), ("\"C\"", json!("OTHER"), true)],
    );
}

#[test]
fn a_scalar_uses_the_first_branch_that_represents_it_exactly() {
    becomes(
        r#"{"name":"x","type":["int","double","null","boolean",{"type":"long","logicalType":"timestamp-millis"},"string"]}"#,
        &[
            ("1", json!(1), false),
            ("1.5", json!(1.5), false),
            ("3000000000", json!(3_000_000_000.0), false),
            ("0.1234567890123456789", json!(0.123_456_789_012_345_68), true),
            ("1e400", Value::Null, true),
            ("true", json!(true), false),
            ("\"2026-01-01T00:00:00Z\"", json!("2026-01-01T00:00:00.000Z"), false),
            ("\"2026-01-01T00:00:00.0009Z\"", json!("2026-01-01T00:00:00.0009Z"), false),
            ("\"x\"", json!("x"), false),
            ("[]", Value::Null, true),
            ("null", Value::Null, false),
        ],
    );
    let must = schema(r#"{"name":"x","type":["int","string"]}"#);
    for (text, found) in [
        ("1.5", "int, found a number with a fraction or out of range"),
        ("{}", "one of: int, string, found object"),
    ] {
        assert_eq!(fault(&must, &format!(r#"{{"x":{text}}}"#)).1, format!("at /data/x: expected {found}"));
    }
}

const SHAPES: &str = r#"{"name":"x","type":["null",
    {"type":"record","name":"Card","fields":[{"name":"number","type":"string"},{"name":"year","type":["null","int"]}]},
    {"type":"record","name":"Bank","fields":[{"name":"iban","type":"string"},{"name":"year","type":["null","int"]}]},
    {"type":"record","name":"Both","fields":[{"name":"number","type":"string"},{"name":"iban","type":"string"},
        {"name":"bank","type":["null","string"]}]},
    {"type":"record","name":"Count","fields":[{"name":"number","type":"long"}]},
    {"type":"array","items":"long"}"#;

#[test]
fn an_object_uses_the_complete_record_with_most_known_members() {
    let without = schema(&format!("{SHAPES}]}}"));
    let of = |text: &str| data(&without, &format!(r#"{{"x":{text}}}"#));
    assert_eq!(of(r#"{"iban":"i"}"#).0["x"], json!({"iban": "i", "year": null}));
    assert_eq!(of(r#"{"number":"n"}"#).0["x"], json!({"number": "n", "year": null}));
    assert_eq!(of(r#"{"number":"n","iban":"i"}"#).0["x"], json!({"number": "n", "iban": "i", "bank": null}));
    assert_eq!(of(r#"{"number":7}"#).0["x"], json!({"number": 7}));
    let (value, additional) = of(r#"{"iban":"i","number":null,"bank":"b","year":1}"#);
    assert_eq!(value["x"], json!({"iban": "i", "year": 1}));
    assert_eq!(additional, json!({"/data/x/bank": "\"b\""}));
    assert_eq!(of("[1]").0["x"], json!([1]));
    assert_eq!(of(r#"{"year":1}"#), (json!({"x": null}), json!({"/data/x": r#"{"year":1}"#})));

    let with = schema(&format!(r#"{SHAPES},{{"type":"map","values":["null","long"]}}]}}"#));
    assert_eq!(data(&with, r#"{"x":{"a":1,"year":2}}"#).0["x"], json!({"a": 1, "year": 2}));
    assert_eq!(data(&with, r#"{"x":{}}"#).0["x"], json!({}));
}

#[test]
fn a_misfit_is_counted_once_where_it_is_kept() {
    let schema = schema(
        r#"{"name":"n","type":["null","long"]},{"name":"d","type":["null","double"]},
           {"name":"box","type":["null",{"type":"record","name":"B","fields":[
               {"name":"o","type":["null","long"]},{"name":"must","type":"long"}]}]}"#,
    );
    let count = |data: &str| {
        let body = format!(r#"{{"id":"e","event_type":"t","timestamp":0,"data":{data}}}"#);
        encode(&schema, &datagrid(), None, &body).unwrap().misfits
    };
    assert_eq!(count(r#"{"n":1,"d":9007199254740993,"unknown":1}"#), 0);
    assert_eq!(count(r#"{"n":"1","box":{"o":"x","must":1}}"#), 2);
    assert_eq!(count(r#"{"box":{"o":"x","must":null}}"#), 1);
}

#[test]
fn a_key_may_differ_from_the_name_of_its_field() {
    let schema = schema_with(
        r#"{"type":"record","name":"D","fields":[
            {"name":"order_id","type":["null","long"],"hookstream.json":"order-id"},
            {"name":"odd","type":"long","hookstream.json":"a/b","default":5}]}"#,
        r#"{"name":"team","type":["null","string"],"hookstream.json":"team id"},"#,
    );
    let body = r#"{"id":"e","event_type":"t","timestamp":0,"team id":"x","team":1,
        "data":{"order-id":"7","order_id":8,"a/b":9}}"#;
    let (value, additional) = read(&schema, &encode(&schema, &datagrid(), None, body).unwrap());
    assert_eq!((&value["team"], &value["data"]), (&json!("x"), &json!({"order_id": null, "odd": 9})));
    assert_eq!(
        additional,
        json!({"/timestamp": "0", "/team": "1", "/data/order-id": "\"7\"", "/data/order_id": "8"})
    );
    let body = r#"{"id":"e","event_type":"t","data":{"a/b":"x"}}"#;
    let error = encode(&schema, &datagrid(), None, body).unwrap_err();
    assert_eq!(error.detail.as_deref(), Some("at /data/a~1b: expected long, found string"));
}

#[test]
fn defaults_are_parsed_in_the_specifications_encoding() {
    let schema = schema(
        r#"{"name":"b","type":"bytes","hookstream.bytes":"hex","default":"\u0000\u00ff"},
           {"name":"f","type":{"type":"fixed","name":"F","size":2},"hookstream.bytes":"hex","default":"\u00fe0"},
           {"name":"t","type":{"type":"long","logicalType":"timestamp-millis"},"default":1000},
           {"name":"e","type":{"type":"enum","name":"C","symbols":["A","B"]},"default":"B"},
           {"name":"u","type":["string","long"],"default":"none"},
           {"name":"l","type":{"type":"array","items":["null","int"]},"default":[1,null]},
           {"name":"r","type":{"type":"record","name":"R","fields":[
               {"name":"n","type":"long","hookstream.json":"N"},{"name":"o","type":["null","long"],"default":null},
               {"name":"s","type":"string","default":"s"}]},"default":{"n":1}}"#,
    );
    let (value, additional) = data(&schema, "{}");
    assert_eq!(
        value,
        json!({"b": "00ff", "f": "fe30", "t": "1970-01-01T00:00:01.000Z", "e": "B", "u": "none",
               "l": [1, null], "r": {"n": 1, "o": null, "s": "s"}})
    );
    assert_eq!(additional, json!({}));
}
