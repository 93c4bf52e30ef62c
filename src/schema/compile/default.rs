//! A field's default. The specification has its own JSON encoding for defaults: times are numbers, bytes are the
//! characters U+0000 to U+00FF, and members have the fields' names.

use serde_json::value::RawValue;

use crate::json::{self, JsonKind, Object};
use crate::schema::number;
use crate::schema::plan::{RecordPlan, RecordPlans, TypePlan};
use crate::schema::walk::EventEncoder;

/// The default in Avro encoding. `None` if it is not a value of the type, or if the type contains a record that is
/// still being compiled.
pub(super) fn encode(node: &TypePlan, text: &str, records: &RecordPlans) -> Option<Vec<u8>> {
    let mut walk = EventEncoder::plain(records);
    value(&mut walk, node, json::check(text.as_bytes()).ok()?, records)?;
    Some(walk.out)
}

fn value(
    walk: &mut EventEncoder<'_, '_>,
    node: &TypePlan,
    raw: &RawValue,
    records: &RecordPlans,
) -> Option<()> {
    let kind = JsonKind::of(raw);
    match node {
        TypePlan::Null => return (kind == JsonKind::Null).then_some(()),
        TypePlan::Boolean if kind == JsonKind::Boolean => walk.out.push(u8::from(raw.get() == "true")),
        TypePlan::Int => walk.long(i32::try_from(number(raw)?).ok()?.into()),
        TypePlan::Long | TypePlan::Time(_) => walk.long(number(raw)?),
        TypePlan::Float if kind == JsonKind::Number => {
            walk.out.extend_from_slice(&number::float(raw.get())?.0.to_le_bytes());
        }
        TypePlan::Double if kind == JsonKind::Number => {
            walk.out.extend_from_slice(&number::double(raw.get())?.0.to_le_bytes());
        }
        TypePlan::Text | TypePlan::Uuid { fixed: false } => walk.text(&json::string(raw)?),
        TypePlan::Bytes(_) => walk.bytes(&bytes(raw)?),
        TypePlan::Decimal(decimal) => match decimal.size {
            None => walk.bytes(&bytes(raw)?),
            Some(size) => fixed(walk, raw, size)?,
        },
        TypePlan::Fixed { size, .. } => fixed(walk, raw, *size)?,
        TypePlan::Uuid { fixed: true } => fixed(walk, raw, 16)?,
        TypePlan::Enum(schema) => {
            let text = json::string(raw)?;
            walk.index(schema.symbols.iter().position(|symbol| *symbol == *text)?);
        }
        TypePlan::Array(items) => {
            let elements = json::elements(raw)?;
            walk.block(elements.len());
            elements.into_iter().try_for_each(|element| value(walk, items, element, records))?;
            walk.end_block();
        }
        TypePlan::Map(values) => {
            let object = Object::open(raw).ok()??;
            walk.block(object.members().len());
            for (key, member) in object.members() {
                walk.text(key);
                value(walk, values, member, records)?;
            }
            walk.end_block();
        }
        TypePlan::Record(place) => {
            record(walk, records.get(*place)?.as_ref()?, &Object::open(raw).ok()??, records)?;
        }
        TypePlan::Nullable { null, .. } if kind == JsonKind::Null => walk.out.push(*null),
        TypePlan::Nullable { value: choice, inner, .. } => {
            walk.out.push(*choice);
            value(walk, inner, raw, records)?;
        }
        TypePlan::Union(union) => match union.null {
            Some(null) if kind == JsonKind::Null => walk.out.push(null),
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

fn record(
    walk: &mut EventEncoder<'_, '_>,
    record: &RecordPlan,
    object: &Object<'_>,
    records: &RecordPlans,
) -> Option<()> {
    for field in &record.fields {
        match (object.get(&field.name), &field.default) {
            (Some(raw), _) => value(walk, &field.node, raw, records)?,
            (None, Some(default)) => walk.out.extend_from_slice(default),
            (None, None) => match &field.node {
                TypePlan::Nullable { null, .. } => walk.out.push(*null),
                TypePlan::Union(union) => walk.out.push(union.null?),
                _ => return None,
            },
        }
    }
    Some(())
}

fn fixed(walk: &mut EventEncoder<'_, '_>, raw: &RawValue, size: usize) -> Option<()> {
    let bytes = bytes(raw).filter(|bytes| bytes.len() == size)?;
    walk.out.extend_from_slice(&bytes);
    Some(())
}

fn number(raw: &RawValue) -> Option<i64> {
    if JsonKind::of(raw) == JsonKind::Number { number::integer(raw.get()) } else { None }
}

fn bytes(raw: &RawValue) -> Option<Vec<u8>> {
    json::string(raw)?.chars().map(|c| u8::try_from(c).ok()).collect()
}
