//! What `additional_fields` keeps.

use super::*;

#[test]
fn unknown_members_keep_their_text_under_escaped_pointers() {
    let schema = schema(r#"{"name":"n","type":["null","long"]}"#);
    let body = r#"{"id":"e","event_type":"t","timestamp":0,"type":"mine","additional_fields":{"a" : 1.10},
        "received_at":null,"data":{"a/b~c":[1e0 ],"":0,"ü\n":{"n":null}}}"#;
    let encoded = encode(&schema, &datagrid(), Some("1970-01-01T00:00:00Z"), body).unwrap();
    let (value, additional) = read(&schema, &encoded);
    assert_eq!(value["type"], "t");
    assert_eq!(
        additional,
        json!({"/type": "\"mine\"", "/additional_fields": "{\"a\" : 1.10}", "/data/a~1b~0c": "[1e0 ]",
               "/data/": "0", "/data/ü\n": "{\"n\":null}"})
    );
}

#[test]
fn the_shapes_of_unknown_members_show_where_a_field_is_missing() {
    let record =
        |name: &str, fields: &str| format!(r#"{{"type":"record","name":"{name}","fields":[{fields}]}}"#);
    let n = r#"{"name":"n","type":"long"}"#;
    let schema = schema(&format!(
        r#"{{"name":"list","type":{{"type":"array","items":{}}}}},
           {{"name":"by_key","type":{{"type":"map","values":{}}}}},
           {{"name":"box","type":["null",{}],"default":null}},{{"name":"d","type":["null","double"]}}"#,
        record("L", n),
        record("M", n),
        record("B", n)
    ));
    let shapes = |data: &str| {
        let body =
            format!(r#"{{"id":"e","event_type":"t","timestamp":0,"a/b":1,"none":null,"data":{data}}}"#);
        let encoded = encode(&schema, &datagrid(), Some("1970-01-01T00:00:00Z"), &body).unwrap();
        (encoded.drift, encoded.additional.len())
    };
    let (drift, kept) = shapes(
        r#"{"list":[{"n":1,"x":1},{"n":2,"x":2}],"by_key":{"k":{"n":1,"y":{"deep":1}}},"box":{"n":1,"z":1},"d":1e400}"#,
    );
    assert_eq!(drift, ["/data/list/*/x", "/data/list/*/x", "/data/by_key/*/y", "/data/box/z", "/a~1b"]);
    assert_eq!(kept, 6, "the double has a field: no drift");
    // Members of a record that did not fit are not reported separately.
    let (drift, kept) = shapes(r#"{"list":[],"by_key":{},"box":{"z":1,"n":"x"}}"#);
    assert_eq!((drift, kept), (vec!["/a~1b".to_owned()], 2));
    // A time finer than milliseconds and a numeric id are kept, but each has its field.
    let body = r#"{"id":7,"event_type":"t","timestamp":"2026-01-02T03:04:05.678901Z","data":{"list":[],"by_key":{}}}"#;
    let encoded = encode(&schema, &datagrid(), Some("2026-01-02T03:04:05.678901Z"), body).unwrap();
    assert_eq!(
        (encoded.drift.len(), encoded.additional),
        (0, vec!["/id".to_owned(), "/timestamp".to_owned()])
    );
}

#[test]
fn members_beside_a_deep_place_are_kept_one_by_one() {
    let schema = schema(r#"{"name":"n","type":["null","long"]}"#);
    let deep = places(Some("/meta/id"), "/event/type", "/meta/at/time", "/event/body");
    let body = r#"{"meta":{"id":"e","at":{"time":0,"zone":"x"},"other":{"id":1}},
        "event":{"type":"t","body":{"n":1,"id":2},"user":null,"team":[]}}"#;
    let encoded = encode(&schema, &deep, Some("1970-01-01T00:00:00Z"), body).unwrap();
    let (value, additional) = read(&schema, &encoded);
    assert_eq!((&value["id"], &value["type"], &value["data"]), (&json!("e"), &json!("t"), &json!({"n": 1})));
    assert_eq!(
        additional,
        json!({"/meta/at/zone": "\"x\"", "/meta/other": "{\"id\":1}", "/event/team": "[]",
               "/event/body/id": "2"})
    );

    // A value on the path that is not an object, or has no members, is kept unchanged.
    let body = r#"{"meta":{"id":"e","at":{"time":null}},"event":{"type":"t","body":{}}}"#;
    let (_, additional) = read(&schema, &encode(&schema, &deep, None, body).unwrap());
    assert_eq!(additional, json!({"/meta/at": "{\"time\":null}"}));
    let body = r#"{"meta":{"id":"e","at":7},"event":{"type":"t","body":{}}}"#;
    let (_, additional) = read(&schema, &encode(&schema, &deep, None, body).unwrap());
    assert_eq!(additional, json!({"/meta/at": "7"}));
}

#[test]
fn places_inside_the_data_are_not_kept_either() {
    let schema = schema(r#"{"name":"n","type":["null","long"]}"#);
    let within = places(Some("/event_id"), "/event/type", "/event/ts", "/event");
    let body = r#"{"event_id":"e","event":{"type":"t","ts":1,"n":2,"x":3}}"#;
    let (value, additional) =
        read(&schema, &encode(&schema, &within, Some("1970-01-01T00:00:01Z"), body).unwrap());
    assert_eq!((&value["data"], additional), (&json!({"n": 2}), json!({"/event/x": "3"})));

    let whole = places(Some("/id"), "/action", "/at", "");
    let body = r#"{"id":"e","action":"t","n":2,"x":3}"#;
    let (value, additional) = read(&schema, &encode(&schema, &whole, None, body).unwrap());
    assert_eq!((&value["data"], additional), (&json!({"n": 2}), json!({"/x": "3"})));
}

#[test]
fn an_id_that_was_not_a_string_is_kept_as_sent() {
    let schema = schema(r#"{"name":"n","type":["null","long"]}"#);
    let body = r#"{"id":17,"event_type":"t","data":{}}"#;
    let (_, additional) = read(&schema, &encode(&schema, &datagrid(), None, body).unwrap());
    assert_eq!(additional, json!({"/id": "17"}));
}

#[test]
fn kept_text_is_limited() {
    let schema = schema(
        r#"{"name":"m","type":["null",{"type":"map","values":{"type":"record","name":"V","fields":[]}}]}"#,
    );
    let members: Vec<String> = (0..10_000).map(|i| format!("\"{i}\":0")).collect();
    let text = format!(r#"{{"m":{{"{}":{{{}}}}}}}"#, "k".repeat(10_000), members.join(","));
    let (reason, detail) = fault(&schema, &text);
    assert_eq!(reason, Reason::ShapeMismatch);
    assert_eq!(detail, "additional_fields past 8388608 bytes");
}
