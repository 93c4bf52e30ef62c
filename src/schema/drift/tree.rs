//! Prints part of a schema in the format of `schemas/`: short lists and objects on one line, records and their fields
//! with a line for each member. `serde_json`'s printer would put every member on its own line.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::propose::{ProposedField, ProposedType};
use crate::json::{self, JsonKind, Object};

/// The layout of the text.
pub(super) struct PrintLayout<'t> {
    /// The indentation of one level; `None` to write everything on one line.
    pub(super) unit: Option<&'t str>,
    /// The file's line end.
    pub(super) end: &'t str,
}

impl PrintLayout<'_> {
    /// Adds JSON to `out` in this layout; `indent` is the indentation of the line on which it begins.
    pub(super) fn print(&self, json: &str, out: &mut String, indent: &str) {
        match serde_json::from_str(json) {
            Ok(raw) => self.write(raw, out, indent),
            Err(_) => out.push_str(json),
        }
    }

    fn write(&self, raw: &RawValue, out: &mut String, indent: &str) {
        let unit = self.unit.filter(|_| is_tall(raw));
        let deeper = format!("{indent}{}", unit.unwrap_or_default());
        let (open, close) = match JsonKind::of(raw) {
            JsonKind::Array => ('[', ']'),
            JsonKind::Object => ('{', '}'),
            _ => return out.push_str(raw.get()),
        };
        out.push(open);
        for (at, (name, value)) in parts(raw).into_iter().enumerate() {
            match (unit, at) {
                (Some(_), 0) => out.extend([self.end, &deeper]),
                (Some(_), _) => out.extend([",", self.end, &deeper]),
                (None, 0) => {}
                (None, _) => out.push_str(", "),
            }
            if let Some(name) = name {
                out.extend([&quoted(&name), ": "]);
            }
            self.write(value, out, &deeper);
        }
        if unit.is_some() {
            out.extend([self.end, indent]);
        }
        out.push(close);
    }
}

/// The elements of an array, or the members of an object.
fn parts(raw: &RawValue) -> Vec<(Option<Cow<'_, str>>, &RawValue)> {
    if let Some(elements) = json::elements(raw) {
        return elements.into_iter().map(|element| (None, element)).collect();
    }
    let object = Object::open(raw).ok().flatten();
    object.iter().flat_map(Object::members).map(|(name, value)| (Some(name.clone()), *value)).collect()
}

/// Whether it is written on several lines: fields, and everything that contains fields.
fn is_tall(raw: &RawValue) -> bool {
    parts(raw).into_iter().any(|(name, value)| match name.as_deref() {
        Some("default" | "fields") => true,
        Some("doc") => false,
        _ => is_tall(value),
    })
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    // Serializing a string cannot fail.
    serde_json::to_string(text).unwrap_or_default()
}

/// A nullable field with default null, as JSON.
pub(super) fn field(ProposedField { name, key, is }: &ProposedField, namespace: &str, doc: &str) -> String {
    let key = if name == key { String::new() } else { format!(r#""hookstream.json":{},"#, quoted(key)) };
    let (name, is, doc) = (quoted(name), type_of(is, namespace, doc), quoted(doc));
    format!(r#"{{"name":{name},{key}"type":["null",{is}],"default":null,"doc":{doc}}}"#)
}

/// A type, as JSON.
pub(super) fn type_of(is: &ProposedType, namespace: &str, doc: &str) -> String {
    match is {
        ProposedType::Boolean => quoted("boolean"),
        ProposedType::Long => quoted("long"),
        ProposedType::Double => quoted("double"),
        ProposedType::String => quoted("string"),
        ProposedType::Array { items, nullable } => {
            let items = type_of(items, namespace, doc);
            let items = if *nullable { format!(r#"["null",{items}]"#) } else { items };
            format!(r#"{{"type":"array","items":{items}}}"#)
        }
        ProposedType::Record { name, fields } => {
            let fields: Vec<String> = fields.iter().map(|one| field(one, namespace, doc)).collect();
            let namespace = match namespace {
                "" => String::new(),
                namespace => format!(r#""namespace":{},"#, quoted(namespace)),
            };
            let (name, doc, fields) = (quoted(name), quoted(doc), fields.join(","));
            format!(r#"{{"type":"record","name":{name},{namespace}"doc":{doc},"fields":[{fields}]}}"#)
        }
    }
}
