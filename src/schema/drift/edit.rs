//! Adds fields to a schema's text. The rest of the text, including order, spaces and line ends, does not change.

use serde_json::value::RawValue;

use super::propose::ProposedField;
use super::tree::{self, PrintLayout};
use crate::json::{self, JsonKind, Object};

/// Returns the text with `fields` added to the record with the full name `home`: after its last field, or, in the root,
/// before `additional_fields`, which must be last. They are formatted like their neighbours: each on several lines, or
/// on one.
///
/// # Errors
/// Half a sentence if the text has no such record, or a duplicate key.
pub fn insert(text: &str, home: &str, fields: &[ProposedField], doc: &str) -> Result<String, String> {
    let twice = |_| "one of its objects has a duplicate key".to_owned();
    let root = json::check(text.as_bytes()).map_err(|fault| format!("it is not JSON: {fault}"))?;
    let list = find(root, home, "").map_err(twice)?;
    let list = list.ok_or_else(|| format!("it has no record {home}"))?;
    let elements = json::elements(list).unwrap_or_default();
    let namespace = home.rsplit_once('.').map_or("", |(namespace, _)| namespace);
    let start = offset(text, list);

    let lead =
        elements.first().and_then(|first| text.get(start + 1..offset(text, first))).unwrap_or_default();
    let indent = lead.rsplit_once('\n').map(|(_, indent)| indent);
    // A field without a nested record shows best how fields are formatted here.
    let plain = elements.iter().rev().find(|element| !element.get().contains("\"fields\""));
    let tall = indent.is_some() && plain.is_none_or(|field| field.get().contains('\n'));
    let above = text.get(..start).unwrap_or_default().rsplit('\n').next().unwrap_or_default();
    let above: &str = above.get(..above.len() - above.trim_start().len()).unwrap_or_default();
    let unit = indent.and_then(|indent| indent.strip_prefix(above)).filter(|unit| !unit.is_empty());
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let layout = PrintLayout { unit: tall.then_some(unit.unwrap_or("  ")), end };

    let separator = indent.map_or_else(|| ", ".to_owned(), |indent| format!(",{end}{indent}"));
    let mut added = String::new();
    for field in fields {
        if !added.is_empty() {
            added.push_str(&separator);
        }
        layout.print(&tree::field(field, namespace, doc), &mut added, indent.unwrap_or_default());
    }
    let (at, added) = match elements.last() {
        None => (start + 1, added),
        Some(last) if is_named(last, "additional_fields") => (offset(text, last), added + &separator),
        Some(last) => (offset(text, last) + last.get().len(), separator + &added),
    };
    let (before, behind) = text.split_at_checked(at).unwrap_or((text, ""));
    Ok([before, &added, behind].concat())
}

/// The offset of a slice in the text.
pub(super) fn offset(text: &str, slice: &RawValue) -> usize {
    (slice.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

/// The `fields` of the record with this full name; `namespace` is the enclosing namespace.
fn find<'t>(
    raw: &'t RawValue,
    home: &str,
    namespace: &str,
) -> Result<Option<&'t RawValue>, crate::outcome::Fault> {
    let inside = match JsonKind::of(raw) {
        JsonKind::Array => json::elements(raw).unwrap_or_default(),
        JsonKind::Object => Vec::new(),
        _ => return Ok(None),
    };
    for element in inside {
        if let Some(found) = find(element, home, namespace)? {
            return Ok(Some(found));
        }
    }
    let Some(object) = Object::open(raw)? else { return Ok(None) };
    let text = |name: &str| object.get(name).and_then(json::string);
    let (fields, name) = (object.get("fields"), text("name").unwrap_or_default());
    // A field also has a name, but no namespace and no fields.
    let own = text("namespace");
    let namespace = match (fields, name.rsplit_once('.')) {
        (None, _) => namespace,
        (Some(_), Some((namespace, _))) => namespace,
        (Some(_), None) => own.as_deref().unwrap_or(namespace),
    };
    let short = name.rsplit('.').next().unwrap_or_default();
    let is_home = home.strip_suffix(short).is_some_and(|rest| rest.trim_end_matches('.') == namespace);
    if fields.is_some() && is_home {
        return Ok(fields);
    }
    for part in ["type", "items", "values", "fields"].into_iter().filter_map(|part| object.get(part)) {
        if let Some(found) = find(part, home, namespace)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether a field has this name.
pub(super) fn is_named(field: &RawValue, name: &str) -> bool {
    let object = Object::open(field).ok().flatten();
    object.and_then(|object| object.get("name").and_then(json::string)).is_some_and(|found| found == name)
}

#[cfg(test)]
mod tests {
    use super::super::propose::ProposedType;
    use super::*;
    use crate::schema::shipped;

    const DOC: &str = "Seen since 2026-11-20; not described yet.";

    fn field(key: &str, name: &str, is: ProposedType) -> ProposedField {
        ProposedField { name: name.into(), key: key.into(), is }
    }

    fn lines_added(before: &str, after: &str) -> Vec<String> {
        let mut rest = before.lines().peekable();
        let mut added = Vec::new();
        for line in after.lines() {
            if rest.peek().is_some_and(|next| *next == line || format!("{next},") == line) {
                rest.next();
            } else {
                added.push(line.to_owned());
            }
        }
        assert_eq!(rest.next(), None, "only lines are added");
        added
    }

    #[test]
    fn fields_are_added_to_a_nested_record_in_the_usual_format() {
        let text = include_str!("../../../schemas/datagrid/batch_prediction.avsc");
        let inner = ProposedType::Record {
            name: "BatchPredictionErrorSource".into(),
            fields: vec![field("retry-after", "retry_after", ProposedType::Double)],
        };
        let fields = [
            field(
                "tags",
                "tags",
                ProposedType::Array { items: Box::new(ProposedType::String), nullable: false },
            ),
            field("source", "source", inner),
        ];
        let after = insert(text, "hookstream.datagrid.BatchPredictionError", &fields, DOC).unwrap();
        shipped::parse(&after).unwrap();
        let added = lines_added(text, &after).join("\n");
        let expected = r#"                  },
                  {
                    "name": "tags",
                    "type": ["null", {"type": "array", "items": "string"}],
                    "default": null,
                    "doc": "Seen since 2026-11-20; not described yet."
                  },
                  {
                    "name": "source",
                    "type": [
                      "null",
                      {
                        "type": "record",
                        "name": "BatchPredictionErrorSource",
                        "namespace": "hookstream.datagrid",
                        "doc": "Seen since 2026-11-20; not described yet.",
                        "fields": [
                          {
                            "name": "retry_after",
                            "hookstream.json": "retry-after",
                            "type": ["null", "double"],
                            "default": null,
                            "doc": "Seen since 2026-11-20; not described yet."
                          }
                        ]
                      }
                    ],
                    "default": null,
                    "doc": "Seen since 2026-11-20; not described yet.""#;
        assert!(after.contains(expected), "{added}");
        assert_eq!(added.lines().count(), expected.lines().count(), "{added}");
    }

    #[test]
    fn fields_of_the_root_are_added_before_additional_fields() {
        let text = include_str!("../../../schemas/grapevine/document.changed.avsc");
        let fields = [field("region", "region", ProposedType::String)];
        let after = insert(text, "hookstream.grapevine.DocumentChanged", &fields, DOC).unwrap();
        assert!(lines_added(text, &after).contains(&"      \"name\": \"region\",".to_owned()));
        let (before, behind) = after.split_once("\"region\"").unwrap();
        assert!(before.contains("\"data\"") && behind.contains("\"additional_fields\""));
    }

    #[test]
    fn other_layouts_are_preserved() {
        let is = || vec![field("b", "b", ProposedType::Long)];
        let one = r#"{"type":"record","name":"a.R","fields":[{"name":"x","type":"int"}]}"#;
        assert_eq!(
            insert(one, "a.R", &is(), "D.").unwrap(),
            r#"{"type":"record","name":"a.R","fields":[{"name":"x","type":"int"}, {"name": "b", "type": ["null", "long"], "default": null, "doc": "D."}]}"#
        );
        let lines = "{\"type\":\"record\",\"name\":\"R\",\"fields\":[\r\n\t{\"name\":\"x\",\"type\":\"int\"}\r\n]}\r\n";
        assert_eq!(
            insert(lines, "R", &is(), "D.").unwrap(),
            "{\"type\":\"record\",\"name\":\"R\",\"fields\":[\r\n\t{\"name\":\"x\",\"type\":\"int\"},\r\n\t{\"name\": \"b\", \"type\": [\"null\", \"long\"], \"default\": null, \"doc\": \"D.\"}\r\n]}\r\n"
        );
        let empty = r#"{"type":"record","name":"R","fields":[]}"#;
        assert!(insert(empty, "R", &is(), "D.").unwrap().contains("\"fields\":[{\"name\": \"b\""));
    }

    #[test]
    fn a_record_is_found_by_its_full_name_with_an_inherited_namespace_too() {
        let text = r#"{"type":"record","name":"R","namespace":"a","fields":[
            {"name":"x","type":["null",{"type":"array","items":{"type":"map","values":
                {"type":"record","name":"In","fields":[{"name":"R","type":"int"}]}}}]},
            {"name":"y","type":{"type":"record","name":"b.In","fields":[{"name":"z","type":"int"}]}}]}"#;
        let added = |home: &str| {
            let after = insert(text, home, &[field("new", "new", ProposedType::Long)], "D.");
            after.map(|after| after.find("\"new\"").unwrap())
        };
        let (inner, other, root) = (added("a.In").unwrap(), added("b.In").unwrap(), added("a.R").unwrap());
        assert!(inner < other && other < root, "{inner} {other} {root}");
        assert_eq!(added("c.In").unwrap_err(), "it has no record c.In");
    }
}
