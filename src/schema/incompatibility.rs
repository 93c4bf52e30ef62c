//! Why a registry rejects a schema, by field: the messages of Confluent and Apicurio contain pointers such as
//! `/fields/5/type/1`, which are hard to read.
#![expect(clippy::disallowed_types, reason = "schemas are looked up by pointer; no payload comes here")]

use serde_json::Value;

/// The registry's reasons, each with the name of its field. The pointer may refer to either schema: if the names
/// differ, both are given.
pub(super) fn explain(reasons: &[String], ours: &str, registered: Option<&str>) -> Vec<String> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (ours, theirs) = (parse(ours), registered.map(parse).unwrap_or_default());
    // Confluent's last message is the complete old schema.
    let reasons = reasons.iter().filter(|reason| !reason.starts_with("{oldSchema:"));
    let each = reasons.flat_map(|reason| split(reason)).map(|reason| {
        let Some(place) = place(&reason) else { return reason };
        match (field(&ours, place), field(&theirs, place)) {
            (None, None) => reason,
            (None, Some(name)) => format!("field {name} of the registered schema: {reason}"),
            (Some(name), Some(other)) if name != other => {
                format!("field {name}, or {other} of the registered schema: {reason}")
            }
            (Some(name), _) => format!("field {name}: {reason}"),
        }
    });
    each.collect()
}

/// Splits Apicurio's single text, `... Causes: CAUSE at PLACE, CAUSE at PLACE`.
fn split(reason: &str) -> Vec<String> {
    let Some((_, causes)) = reason.split_once(" Causes: ") else { return vec![reason.to_owned()] };
    let mut split: Vec<String> = Vec::new();
    let mut complete = true;
    for part in causes.split(", ") {
        match split.last_mut() {
            Some(last) if !complete => {
                last.push_str(", ");
                last.push_str(part);
            }
            _ => split.push(part.to_owned()),
        }
        complete = part.rsplit(' ').next().is_some_and(|word| word.starts_with('/'));
    }
    split
}

/// The first pointer in a text.
fn place(reason: &str) -> Option<&str> {
    let rest = reason.get(reason.find("/fields/")?..)?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '/').unwrap_or(rest.len());
    rest.get(..end)
}

/// The names of the fields on the path to a place, joined with dots.
fn field(schema: &Value, place: &str) -> Option<String> {
    let ends = place.match_indices('/').map(|(at, _)| at).chain([place.len()]);
    let names = ends.filter_map(|end| {
        let node = schema.pointer(place.get(..end)?)?;
        let (parent, _) = place.get(..end)?.rsplit_once('/')?;
        if parent.ends_with("/fields") { node.get("name")?.as_str() } else { None }
    });
    let names: Vec<&str> = names.collect();
    (!names.is_empty()).then(|| names.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"string"},
        {"name":"data","type":{"type":"record","name":"D","fields":[{"name":"status","type":["null","string"]}]}}]}"#;
    const THEIRS: &str = r#"{"type":"record","name":"R","fields":[{"name":"key","type":"string"}]}"#;

    fn explained(reason: &str, registered: Option<&str>) -> Vec<String> {
        explain(&[reason.to_owned()], OURS, registered)
    }

    /// The wording of Apicurio 3, with other pointers.
    #[test]
    fn apicurios_text_is_split_into_a_line_for_each_field() {
        let reason = "Incompatible artifact: a [AVRO], num of incompatible diffs: {2}, list of diff types: [x at \
                      /fields/0/type, y] Causes: reader type: A, not compatible at /fields/0/type, reader union \
                      lacking writer type: INT at /fields/1/type/fields/0/type/1";
        let lines = [
            "field id: reader type: A, not compatible at /fields/0/type",
            "field data.status: reader union lacking writer type: INT at /fields/1/type/fields/0/type/1",
        ];
        assert_eq!(explained(reason, None), lines);
    }

    #[test]
    fn confluents_messages_get_field_names_and_its_copy_of_the_schema_is_omitted() {
        let message = "{errorType:'MISSING_UNION_BRANCH', description:'The new schema is missing a type inside a \
                       union field at path '/fields/1/type/fields/0/type/1' in the old schema'}";
        let old_schema = format!("{{oldSchema: '{THEIRS}'}}");
        let explained = explain(&[message.to_owned(), old_schema], OURS, Some(OURS));
        assert_eq!(explained, [format!("field data.status: {message}")]);
    }

    #[test]
    fn both_names_are_given_if_the_schemas_differ_and_unknown_messages_are_unchanged() {
        let line = explained("no default at /fields/0", Some(THEIRS));
        assert_eq!(line, ["field id, or key of the registered schema: no default at /fields/0"]);
        for reason in
            ["an unknown message", "at /fields/99999999999999999999/x", "at /fields/", "at /fields/ü", ""]
        {
            assert_eq!(explained(reason, Some("no schema")), [reason]);
        }
    }
}
