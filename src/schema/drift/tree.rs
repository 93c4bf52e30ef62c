//! Prints part of a schema in the format of `schemas/`: short lists and objects on one line, records and their fields
//! with a line for each member. `serde_json`'s printer would sort the members.

use super::propose::{ProposedField, ProposedType};

/// JSON with its members in the order given.
pub(super) enum JsonPrinter {
    Text(String),
    Null,
    List(Vec<JsonPrinter>),
    Object(Vec<(&'static str, JsonPrinter)>),
}

/// The layout of the text.
pub(super) struct PrintLayout<'t> {
    /// The indentation of one level; `None` to write everything on one line.
    pub(super) unit: Option<&'t str>,
    /// The file's line end.
    pub(super) end: &'t str,
}

impl JsonPrinter {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Whether it is written on several lines: fields, and everything that contains fields.
    fn is_tall(&self) -> bool {
        match self {
            Self::Text(_) | Self::Null => false,
            Self::List(items) => items.iter().any(Self::is_tall),
            Self::Object(members) => members.iter().any(|(name, value)| {
                matches!(*name, "default" | "fields") || (*name != "doc" && value.is_tall())
            }),
        }
    }

    /// Writes the text; `indent` is the indentation of the line on which it begins.
    pub(super) fn write(&self, out: &mut String, layout: &PrintLayout<'_>, indent: &str) {
        let unit = layout.unit.filter(|_| self.is_tall());
        let deeper = format!("{indent}{}", unit.unwrap_or_default());
        let (open, close, count) = match self {
            Self::Null => return out.push_str("null"),
            Self::Text(text) => return out.push_str(&quoted(text)),
            Self::List(items) => ('[', ']', items.len()),
            Self::Object(members) => ('{', '}', members.len()),
        };
        out.push(open);
        for at in 0..count {
            match (unit, at) {
                (Some(_), 0) => out.extend([layout.end, &deeper]),
                (Some(_), _) => out.extend([",", layout.end, &deeper]),
                (None, 0) => {}
                (None, _) => out.push_str(", "),
            }
            match self {
                Self::List(items) => {
                    items.iter().skip(at).take(1).for_each(|item| item.write(out, layout, &deeper))
                }
                Self::Object(members) => members.iter().skip(at).take(1).for_each(|(name, value)| {
                    out.extend([&quoted(name), ": "]);
                    value.write(out, layout, &deeper);
                }),
                Self::Text(_) | Self::Null => {}
            }
        }
        if unit.is_some() {
            out.extend([layout.end, indent]);
        }
        out.push(close);
    }
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    // Serializing a string cannot fail.
    serde_json::to_string(text).unwrap_or_default()
}

/// A nullable field with default null.
pub(super) fn field(field: &ProposedField, namespace: &str, doc: &str) -> JsonPrinter {
    let mut members = vec![("name", JsonPrinter::text(&field.name))];
    if field.name != field.key {
        members.push(("hookstream.json", JsonPrinter::text(&field.key)));
    }
    members.push((
        "type",
        JsonPrinter::List(vec![JsonPrinter::text("null"), type_of(&field.is, namespace, doc)]),
    ));
    members.push(("default", JsonPrinter::Null));
    members.push(("doc", JsonPrinter::text(doc)));
    JsonPrinter::Object(members)
}

pub(super) fn type_of(is: &ProposedType, namespace: &str, doc: &str) -> JsonPrinter {
    match is {
        ProposedType::Boolean => JsonPrinter::text("boolean"),
        ProposedType::Long => JsonPrinter::text("long"),
        ProposedType::Double => JsonPrinter::text("double"),
        ProposedType::String => JsonPrinter::text("string"),
        ProposedType::Array { items, nullable } => {
            let items = type_of(items, namespace, doc);
            let items =
                if *nullable { JsonPrinter::List(vec![JsonPrinter::text("null"), items]) } else { items };
            JsonPrinter::Object(vec![("type", JsonPrinter::text("array")), ("items", items)])
        }
        ProposedType::Record { name, fields } => {
            let mut members = vec![("type", JsonPrinter::text("record")), ("name", JsonPrinter::text(name))];
            if !namespace.is_empty() {
                members.push(("namespace", JsonPrinter::text(namespace)));
            }
            members.push(("doc", JsonPrinter::text(doc)));
            let fields = fields.iter().map(|one| field(one, namespace, doc)).collect();
            members.push(("fields", JsonPrinter::List(fields)));
            JsonPrinter::Object(members)
        }
    }
}
