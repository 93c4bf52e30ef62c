//! What a schema must be.

use super::*;

#[test]
fn a_named_type_may_be_used_again_but_not_within_itself() {
    let twice = schema(
        r#"{"name":"a","type":["null",{"type":"record","name":"P","fields":[{"name":"n","type":"long"}]}]},
           {"name":"b","type":["null","P"]}"#,
    );
    let (value, _) = data(&twice, r#"{"a":{"n":1},"b":{"n":2}}"#);
    assert_eq!(value, json!({"a": {"n": 1}, "b": {"n": 2}}));
    let within = schema(
        r#"{"name":"a","type":["null",{"type":"record","name":"P","fields":[{"name":"p","type":["null","P"]}]}]}"#,
    );
    let error = Encoder::compile(&within, 1, &datagrid()).unwrap_err();
    assert_eq!(error, "field `data.a.p`: the recursive type `P` is not supported yet");
}

#[test]
fn what_cannot_be_encoded_is_told_when_the_schema_is_compiled() {
    for (data, problem) in [
        (r#"{"name":"x","type":"bytes"}"#, "field `data.x`: the type bytes is not supported yet"),
        (
            r#"{"name":"x","type":{"type":"enum","name":"C","symbols":["A"]}}"#,
            "field `data.x`: the type enum is not supported yet",
        ),
        (
            r#"{"name":"x","type":["null","long","string"]}"#,
            "field `data.x`: a union other than null and one type is not supported yet",
        ),
        (
            r#"{"name":"x","type":{"type":"int","logicalType":"date"}}"#,
            "field `data.x`: the type date is not supported yet",
        ),
    ] {
        assert_eq!(Encoder::compile(&schema(data), 1, &datagrid()).unwrap_err(), problem);
    }
    for (text, problem) in [
        ("\"string\"", "the schema is the type string, not a record"),
        (r#"{"type":"record","name":"E","fields":[]}"#, "field `id` is missing from the root record"),
    ] {
        let schema = shipped::parse(text).unwrap();
        assert_eq!(Encoder::compile(&schema, 1, &datagrid()).unwrap_err(), problem);
    }
    let text = schema_with("\"string\"", "");
    assert_eq!(Encoder::compile(&text, 1, &datagrid()).unwrap_err(), "field `data` must be a record");
    let twice = schema_with(
        r#"{"type":"record","name":"D","fields":[]}"#,
        r#"{"name":"event","type":["null","string"]},"#,
    );
    let deep = places(None, "/type", "/time", "/event/body");
    assert_eq!(Encoder::compile(&twice, 1, &deep).unwrap_err(), "field `event` reads what `data` reads");
    assert!(Encoder::compile(&twice, 1, &datagrid()).is_ok());
}

#[test]
fn additional_fields_stands_last() {
    let schema = shipped::parse(
        r#"{"type":"record","name":"E","fields":[
        {"name":"additional_fields","type":{"type":"map","values":"string"}},
        {"name":"id","type":"string"},{"name":"type","type":"string"},{"name":"source","type":"string"},
        {"name":"time","type":["null",{"type":"long","logicalType":"timestamp-millis"}]},
        {"name":"received_at","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"data","type":{"type":"record","name":"D","fields":[]}}]}"#,
    )
    .unwrap();
    let error = Encoder::compile(&schema, 1, &datagrid()).unwrap_err();
    assert_eq!(error, "field `additional_fields` must be a map of strings and the last field");
}
