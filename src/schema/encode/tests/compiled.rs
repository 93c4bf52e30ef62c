//! The requirements on a schema.

use super::*;

/// The faults of a schema, one per line.
fn faults(schema: &Schema) -> String {
    Encoder::compile(schema, 1, &datagrid()).unwrap_err().join("\n")
}

#[test]
fn a_named_type_may_be_used_again_and_within_itself() {
    let twice = schema(
        r#"{"name":"a","type":["null",{"type":"record","name":"P","fields":[{"name":"n","type":"long"}]}]},
           {"name":"b","type":["null","P"]},
           {"name":"c","type":{"type":"enum","name":"C","symbols":["X","Y"]}},{"name":"d","type":"C"},
           {"name":"e","type":{"type":"fixed","name":"F","size":1},"hookstream.bytes":"hex"},
           {"name":"f","type":"F","hookstream.bytes":"base64"}"#,
    );
    let (value, _) = data(&twice, r#"{"a":{"n":1},"b":{"n":2},"c":"X","d":"Y","e":"ff","f":"/w=="}"#);
    assert_eq!(value, json!({"a": {"n": 1}, "b": {"n": 2}, "c": "X", "d": "Y", "e": "ff", "f": "/w=="}));
    let within = schema(
        r#"{"name":"a","type":{"type":"record","name":"P","fields":[
            {"name":"n","type":"long"},{"name":"p","type":["null","P"]}]}}"#,
    );
    let (value, additional) = data(&within, r#"{"a":{"n":1,"p":{"n":2,"p":{"n":"3"},"x":4}}}"#);
    assert_eq!(value, json!({"a": {"n": 1, "p": {"n": 2, "p": null}}}));
    assert_eq!(additional, json!({"/data/a/p/p": "{\"n\":\"3\"}", "/data/a/p/x": "4"}));
}

#[test]
fn unsupported_schemas_are_rejected_when_compiled() {
    for (data, problem) in [
        (
            r#"{"name":"x","type":{"type":"fixed","name":"F","size":12,"logicalType":"duration"}}"#,
            "field `data.x`: the type duration is not supported",
        ),
        (r#"{"name":"x","type":[]}"#, "field `data.x`: a union must have 1 to 64 types"),
        (
            r#"{"name":"x","type":{"type":"bytes","logicalType":"decimal","precision":39,"scale":0}}"#,
            "field `data.x`: a decimal of more than 38 digits is not supported",
        ),
        (
            r#"{"name":"x","type":{"type":"fixed","name":"F","size":2,"logicalType":"decimal","precision":5,"scale":0}}"#,
            "field `data.x`: 2 bytes cannot hold every decimal of 5 digits",
        ),
        (
            r#"{"name":"x","type":"string","hookstream.tiem":"unix_seconds"}"#,
            "field `data.x`: unknown annotation `hookstream.tiem`; expected hookstream.json, .time, .bytes or .decimal",
        ),
        (
            r#"{"name":"x","type":{"type":"long","logicalType":"timestamp-millis"},"hookstream.time":"seconds"}"#,
            "field `data.x`: `hookstream.time` must be rfc3339, unix_seconds or unix_milliseconds",
        ),
        (
            r#"{"name":"x","type":"long","hookstream.time":"unix_seconds"}"#,
            "field `data.x`: `hookstream.time` has no effect here: no timestamp-millis, -micros or -nanos",
        ),
        (
            r#"{"name":"x","type":["null","long"],"hookstream.bytes":"hex"},{"name":"y","type":"long","hookstream.decimal":"string"}"#,
            "field `data.x`: `hookstream.bytes` has no effect here: no bytes and no fixed\n\
             field `data.y`: `hookstream.decimal` has no effect here: no decimal",
        ),
        (
            r#"{"name":"x","type":"long"},{"name":"y","type":"long","hookstream.json":"x"}"#,
            "field `data.y` reads what `x` reads",
        ),
    ] {
        assert_eq!(faults(&schema(data)), problem);
    }
    let bytes = faults(&schema(r#"{"name":"x","type":["null","bytes"]}"#));
    assert!(
        bytes.starts_with("field `data.x`: the type bytes needs the annotation `hookstream.bytes`"),
        "{bytes}"
    );
    for (text, problem) in [
        ("\"string\"", "the schema is the type string, not a record"),
        (
            r#"{"type":"record","name":"E","fields":[{"name":"id","type":"string"},{"name":"data","type":"string"}]}"#,
            "field `type` is missing from the root record\nfield `source` is missing from the root record\n\
             field `time` is missing from the root record\nfield `received_at` is missing from the root record",
        ),
    ] {
        assert_eq!(faults(&shipped::parse(text).unwrap()), problem);
    }
    assert_eq!(faults(&schema_with("\"string\"", "")), "field `data` must be a record");
}

#[test]
fn two_fields_of_the_root_never_read_the_same_member() {
    let twice = schema_with(
        r#"{"type":"record","name":"D","fields":[]}"#,
        r#"{"name":"event","type":["null","string"]},{"name":"other","type":["null","string"],"hookstream.json":"a-b"},"#,
    );
    let deep = |data| places(None, "/type", "/time", data);
    let error = Encoder::compile(&twice, 1, &deep("/event/body")).unwrap_err();
    assert_eq!(error, ["field `event` reads what `data` reads"]);
    let error = Encoder::compile(&twice, 1, &deep("/a-b/body")).unwrap_err();
    assert_eq!(error, ["field `other` reads what `data` reads"]);
    assert!(Encoder::compile(&twice, 1, &datagrid()).is_ok());
    let same = schema_with(
        r#"{"type":"record","name":"D","fields":[]}"#,
        r#"{"name":"event","type":["null","string"]},{"name":"other","type":["null","string"],"hookstream.json":"event"},"#,
    );
    assert_eq!(faults(&same), "field `other` reads what another field reads");
}

#[test]
fn additional_fields_must_be_last() {
    let schema = shipped::parse(
        r#"{"type":"record","name":"E","fields":[
        {"name":"additional_fields","type":{"type":"map","values":"string"}},
        {"name":"id","type":"string"},{"name":"type","type":"string"},{"name":"source","type":"string"},
        {"name":"time","type":["null",{"type":"long","logicalType":"timestamp-millis"}]},
        {"name":"received_at","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"data","type":{"type":"record","name":"D","fields":[]}}]}"#,
    )
    .unwrap();
    assert_eq!(faults(&schema), "field `additional_fields` must be a map of strings and the last field");
}
