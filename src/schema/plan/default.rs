//! A field's default, which the specification writes in a JSON of its own: times as their numbers,
//! bytes as the characters U+0000 to U+00FF, members by the fields' names.

use serde_json::value::RawValue;

use super::{Node, Record, Records};
use crate::json::{self, Kind, Object};
use crate::schema::number;
use crate::schema::walk::Walk;

/// The default as Avro. `None` where it is no value of the type, or of a record that is still being
/// compiled.
pub(super) fn encode(node: &Node, text: &str, records: &Records) -> Option<Vec<u8>> {
    let mut walk = Walk::plain(records);
    value(&mut walk, node, json::check(text.as_bytes()).ok()?, records)?;
    Some(walk.out)
}

fn value(walk: &mut Walk<'_, '_>, node: &Node, raw: &RawValue, records: &Records) -> Option<()> {
    let kind = Kind::of(raw);
    match node {
        Node::Null => return (kind == Kind::Null).then_some(()),
        Node::Boolean if kind == Kind::Boolean => walk.out.push(u8::from(raw.get() == "true")),
        Node::Int => walk.long(i32::try_from(number(raw)?).ok()?.into()),
        Node::Long | Node::Time(_) => walk.long(number(raw)?),
        Node::Float if kind == Kind::Number => {
            walk.out.extend_from_slice(&number::float(raw.get())?.0.to_le_bytes());
        }
        Node::Double if kind == Kind::Number => {
            walk.out.extend_from_slice(&number::double(raw.get())?.0.to_le_bytes());
        }
        Node::Text | Node::Uuid { fixed: false } => walk.text(&json::string(raw)?),
        Node::Bytes(_) => walk.bytes(&bytes(raw)?),
        Node::Decimal(decimal) => match decimal.size {
            None => walk.bytes(&bytes(raw)?),
            Some(size) => fixed(walk, raw, size)?,
        },
        Node::Fixed { size, .. } => fixed(walk, raw, *size)?,
        Node::Uuid { fixed: true } => fixed(walk, raw, 16)?,
        Node::Enum(schema) => {
            let text = json::string(raw)?;
            walk.index(schema.symbols.iter().position(|symbol| *symbol == *text)?);
        }
        Node::Array(items) => {
            let elements = json::elements(raw)?;
            walk.block(elements.len());
            elements.into_iter().try_for_each(|element| value(walk, items, element, records))?;
            walk.end_block();
        }
        Node::Map(values) => {
            let object = Object::open(raw).ok()??;
            walk.block(object.members().len());
            for (key, member) in object.members() {
                walk.text(key);
                value(walk, values, member, records)?;
            }
            walk.end_block();
        }
        Node::Record(place) => {
            record(walk, records.get(*place)?.as_ref()?, &Object::open(raw).ok()??, records)?;
        }
        Node::Nullable { null, .. } if kind == Kind::Null => walk.out.push(*null),
        Node::Nullable { value: choice, inner, .. } => {
            walk.out.push(*choice);
            value(walk, inner, raw, records)?;
        }
        Node::Union(union) => match union.null {
            Some(null) if kind == Kind::Null => walk.out.push(null),
            _ => {
                let start = walk.out.len();
                return union.branches.iter().find_map(|branch| {
                    walk.out.truncate(start);
                    walk.out.push(branch.choice);
                    value(walk, &branch.node, raw, records)
                });
            }
        },
        _ => return None,
    }
    Some(())
}

fn record(walk: &mut Walk<'_, '_>, record: &Record, object: &Object<'_>, records: &Records) -> Option<()> {
    for field in &record.fields {
        match (object.get(&field.name), &field.default) {
            (Some(raw), _) => value(walk, &field.node, raw, records)?,
            (None, Some(default)) => walk.out.extend_from_slice(default),
            (None, None) => match &field.node {
                Node::Nullable { null, .. } => walk.out.push(*null),
                Node::Union(union) => walk.out.push(union.null?),
                _ => return None,
            },
        }
    }
    Some(())
}

fn fixed(walk: &mut Walk<'_, '_>, raw: &RawValue, size: usize) -> Option<()> {
    let bytes = bytes(raw).filter(|bytes| bytes.len() == size)?;
    walk.out.extend_from_slice(&bytes);
    Some(())
}

fn number(raw: &RawValue) -> Option<i64> {
    if Kind::of(raw) == Kind::Number { number::integer(raw.get()) } else { None }
}

fn bytes(raw: &RawValue) -> Option<Vec<u8>> {
    json::string(raw)?.chars().map(|c| u8::try_from(c).ok()).collect()
}
