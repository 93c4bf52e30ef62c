//! Infers a first schema from samples.

use std::collections::BTreeSet;

use super::edit::{is_named, offset};
use super::fields::RESERVED;
use super::propose::{LeftOut, Proposal, ProposedType, propose};
use super::shape::ObservedShape;
use super::tree::{self, PrintLayout};
use crate::envelope::EventPlaces;
use crate::json::{self, Object, Pointer};
use crate::names;
use crate::schema::shipped;

const NOT_YET: &str = "Not described yet.";
const DATA: &str = "The event's data, as the provider sent it.";
const ADDITIONAL: &str = "JSON pointer from the root of the delivery's body -> JSON text as sent, for each member that this schema does not know and each value that its field cannot hold exactly. Empty if the other fields hold everything.";

/// Infers a schema for event bodies of this shape, in the format of `schemas/`: the envelope's fields as in the generic
/// schema, the provider's fields nullable, with placeholder docs. Members that the envelope reads (`places`) get no
/// additional field. Also returns the members that get no field, and the text fields that may be times.
///
/// # Errors
/// Half a sentence if `data` was not an object.
pub fn infer(
    mut body: ObservedShape,
    source: &str,
    event_type: &str,
    places: &EventPlaces,
) -> Result<(String, Vec<LeftOut>, Vec<String>), String> {
    for places in [&places.id, &places.event_type, &places.time] {
        // Of several places, the envelope reads the first that is there.
        if let Some(place) = places.iter().find(|place| is_at(&body, place.names())) {
            drop_at(&mut body, place.names());
        }
    }
    let (name, namespace) = (names::avro_record(event_type), names::avro_namespace(source));
    let mut used = BTreeSet::from([name.clone(), format!("{name}Data")]);
    let pointer = places.data.to_string();
    let data = take_at(&mut body, &places.data);
    let data = data.filter(|data| !data.members.is_empty());
    let data = data.ok_or_else(|| format!("no sample has an object with members at {}", at(&pointer)))?;
    if let Some(why) = data.unclear {
        return Err(format!("at {}: {why}", at(&pointer)));
    }
    let Proposal { fields, mut left_out, mut times } =
        propose(&data, &pointer, &format!("{name}Data"), &[], &mut used);
    // No field of the root may read the first name on the path to `data`.
    let beside = match places.data.names().first() {
        Some(first) => {
            body.take(first);
            propose(&body, "", &name, &RESERVED, &mut used)
        }
        None => Proposal::default(),
    };
    left_out.extend(beside.left_out);
    times.extend(beside.times);

    let record = ProposedType::Record { name: format!("{name}Data"), fields };
    let fields = beside.fields.iter().map(|field| tree::field(field, &namespace, NOT_YET));
    let (record, doc) = (tree::type_of(&record, &namespace, NOT_YET), tree::quoted(DATA));
    let data = format!(r#"{{"name":"data","type":{record},"doc":{doc}}}"#);
    let mut text = head(source, event_type).ok_or("the generic schema has no data")?;
    let layout = PrintLayout { unit: Some("  "), end: "\n" };
    for field in fields.chain([data]) {
        layout.print(&field, &mut text, "    ");
        text.push_str(",\n    ");
    }
    let doc = tree::quoted(ADDITIONAL);
    text.push_str(&format!(
        r#"{{
      "name": "additional_fields",
      "type": {{"type": "map", "values": "string"}},
      "doc": {doc}
    }}
  ]
}}
"#
    ));
    Ok((text, left_out, times))
}

fn at(pointer: &str) -> String {
    if pointer.is_empty() { "the root".into() } else { pointer.into() }
}

/// The generic schema up to the start of `data`, with a placeholder doc.
fn head(source: &str, event_type: &str) -> Option<String> {
    let text = shipped::generic(source, event_type);
    let root = Object::open(json::check(text.as_bytes()).ok()?).ok()??;
    let doc = root.get("doc")?;
    let fields = json::elements(root.get("fields")?)?;
    let data = fields.into_iter().find(|field| is_named(field, "data"))?;
    let head = text.get(..offset(&text, data))?;
    let (before, behind) =
        (head.get(..offset(&text, doc))?, head.get(offset(&text, doc) + doc.get().len()..)?);
    Some([before, &tree::quoted(NOT_YET), behind].concat())
}

/// Removes and returns the shape at a pointer; for the empty pointer, the complete shape.
fn take_at(shape: &mut ObservedShape, pointer: &Pointer) -> Option<ObservedShape> {
    let Some((last, way)) = pointer.names().split_last() else { return Some(std::mem::take(shape)) };
    let mut shape = shape;
    for name in way {
        shape = &mut shape.members.iter_mut().find(|(known, _)| known == name)?.1;
    }
    shape.take(last)
}

/// Whether the shape has a member at a path.
fn is_at(shape: &ObservedShape, names: &[String]) -> bool {
    let Some((first, rest)) = names.split_first() else { return true };
    shape.members.iter().find(|(known, _)| known == first).is_some_and(|(_, below)| is_at(below, rest))
}

/// Removes the shape at a path, and each object on the path that becomes empty.
fn drop_at(shape: &mut ObservedShape, names: &[String]) {
    match names {
        [] => {}
        [last] => {
            shape.take(last);
        }
        [first, rest @ ..] => {
            let Some((_, below)) = shape.members.iter_mut().find(|(known, _)| known == first) else { return };
            drop_at(below, rest);
            if below.members.is_empty() && below.unclear.is_none() {
                shape.take(first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;

    use super::super::shape::tests::shape;
    use super::*;
    use crate::schema::Encoder;

    fn places(id: &str, data: &str) -> EventPlaces {
        let part = |text| Pointer::parse(text).into_iter().collect();
        let data = Pointer::parse(data).unwrap();
        EventPlaces { id: part(id), event_type: part("/type"), time: part("/at"), data }
    }

    fn inferred(bodies: &[&str], places: &EventPlaces) -> (String, Vec<LeftOut>, Vec<String>) {
        let (text, left_out, times) = infer(shape(bodies), "my-shop", "order.paid", places).unwrap();
        let schema = shipped::parse(&text).unwrap();
        Encoder::compile(&schema, 0, places).unwrap();
        let Schema::Record(record) = &schema else { panic!() };
        assert_eq!(record.name.fullname(None), names::avro_name("my-shop", "order.paid"));
        (text, left_out, times)
    }

    #[test]
    fn the_envelope_has_its_fields_and_all_others_are_nullable() {
        let places = places("/id", "/data");
        let (text, left_out, times) = inferred(
            &[
                r#"{"id":"evt_1","type":"order.paid","at":"x","shop":"a","data":{"id":1,"paid":"2026-01-02T03:04:05Z"}}"#,
                r#"{"id":"evt_2","type":"order.paid","data":{"id":2,"tags":[],"to":{"zip-code":"1"}}}"#,
            ],
            &places,
        );
        let expected = r#"    {
      "name": "shop",
      "type": ["null", "string"],
      "default": null,
      "doc": "Not described yet."
    },
    {
      "name": "data",
      "type": {
        "type": "record",
        "name": "OrderPaidData",
        "namespace": "hookstream.my_shop",
        "doc": "Not described yet.",
        "fields": [
          {
            "name": "id",
            "type": ["null", "long"],
            "default": null,
            "doc": "Not described yet."
          },
"#;
        assert!(text.contains(expected), "{text}");
        for name in ["zip_code", "OrderPaidTo", "additional_fields", "received_at"] {
            assert!(text.contains(&format!("\"name\": \"{name}\"")), "{name}: {text}");
        }
        assert!(!text.contains("\"at\"") && !text.contains("type of its own"), "{text}");
        assert_eq!(
            left_out,
            [LeftOut { pointer: "/data/tags".into(), why: "only empty arrays were seen".into() }]
        );
        assert_eq!(times, ["/data/paid"]);
    }

    #[test]
    fn the_body_itself_may_be_the_data_and_an_object_with_only_the_id_gets_no_field() {
        let (text, left_out, _) =
            inferred(&[r#"{"meta":{"id":"evt_1"},"type":"x","n":1}"#], &places("/meta/id", ""));
        assert!(text.contains("\"name\": \"n\"") && !text.contains("\"meta\""), "{text}");
        assert_eq!(left_out, []);
        let (text, ..) = inferred(&[r#"{"meta":{"id":"evt_1","try":2},"n":1}"#], &places("/meta/id", ""));
        assert!(text.contains("\"name\": \"try\""), "{text}");
    }

    #[test]
    fn samples_without_data_are_an_error() {
        for body in [r#"{"id":"x"}"#, r#"{"data":7}"#, r#"{"data":{}}"#] {
            let error = infer(shape(&[body]), "a", "b", &places("/id", "/data")).unwrap_err();
            assert_eq!(error, "no sample has an object with members at /data", "{body}");
        }
    }
}
