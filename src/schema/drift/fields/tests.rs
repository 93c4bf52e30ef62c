use super::*;
use crate::schema::shipped;

fn places(data: &str) -> EventPlaces {
    let part = |text| vec![Pointer::parse(text).unwrap()];
    EventPlaces {
        id: part("/id"),
        event_type: part("/type"),
        time: part("/at"),
        data: Pointer::parse(data).unwrap(),
    }
}

const SCHEMA: &str = r#"{"type":"record","name":"R","namespace":"a","fields":[
    {"name":"id","type":"string"},{"name":"type","type":"string"},{"name":"source","type":"string"},
    {"name":"time","type":["null",{"type":"long","logicalType":"timestamp-millis"}]},
    {"name":"received_at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"tenant","type":["null","string"],"default":null},
    {"name":"data","type":{"type":"record","name":"D","fields":[
        {"name":"n","type":["null","long"],"default":null},
        {"name":"order_no","type":["null","long"],"default":null,"hookstream.json":"order-no"},
        {"name":"items","type":["null",{"type":"array","items":
            {"type":"record","name":"I","fields":[{"name":"x","type":["null","int"]},{"name":"up","type":["null","I"]}]}}]},
        {"name":"labels","type":["null",{"type":"map","values":["null","string"]}]},
        {"name":"by","type":["null",{"type":"record","name":"U1","fields":[{"name":"u","type":"int"}]},
            {"type":"record","name":"U2","fields":[{"name":"v","type":"int"}]}]}]}},
    {"name":"additional_fields","type":{"type":"map","values":"string"}}]}"#;

#[test]
fn each_pointer_is_a_field_or_belongs_to_a_record() {
    let (schema, places) = (shipped::parse(SCHEMA).unwrap(), places("/body/data"));
    let fields = Fields::new(&schema, &places).unwrap();
    let field = |pointer: &str, path: &[&str], is: &str| {
        let path = path.iter().map(|name| (*name).to_owned()).collect();
        SchemaPath::Field { pointer: pointer.into(), path, is: is.into() }
    };
    let new = |pointer: &str, home: Option<&str>, names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        SchemaPath::New { pointer: pointer.into(), home: home.map(Into::into), names }
    };
    for (pointer, place) in [
        ("/body/data/n", field("/body/data/n", &["data", "n"], "long")),
        ("/body/data/order-no", field("/body/data/order-no", &["data", "order_no"], "long")),
        ("/body/data", field("/body/data", &["data"], "record")),
        ("/body/data/items/49/x", field("/body/data/items/*/x", &["data", "items", "49", "x"], "int")),
        ("/body/data/labels/jo~1hn", field("/body/data/labels/*", &["data", "labels", "jo/hn"], "string")),
        ("/at", field("/at", &["time"], "timestamp-millis")),
        ("/tenant", field("/tenant", &["tenant"], "string")),
        ("/body/data/order_no", new("/body/data/order_no", Some("a.D"), &["order_no"])),
        ("/body/data/items/7/new", new("/body/data/items/*/new", Some("a.I"), &["new"])),
        ("/body/data/items/7/up/up/new", new("/body/data/items/*/up/up/new", Some("a.I"), &["new"])),
        ("/body/data/a~1b", new("/body/data/a~1b", Some("a.D"), &["a/b"])),
        ("/body/data/by/w", new("/body/data/by/w", None, &["w"])),
        ("/source", new("/source", Some("a.R"), &["source"])),
        ("/meta/more", new("/meta/more", Some("a.R"), &["meta", "more"])),
        ("/body/else", new("/body/else", None, &["body", "else"])),
    ] {
        assert_eq!(fields.find(pointer), Some(place), "{pointer}");
    }
    assert_eq!(fields.find("no pointer"), None);
}
