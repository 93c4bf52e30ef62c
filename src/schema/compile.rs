//! Compiles apache-avro's schema to the plan.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{
    DecimalSchema, EnumSchema, FixedSchema, InnerDecimalSchema, Name, RecordField, RecordSchema, UnionSchema,
    UuidSchema,
};

use super::annotation::{Annotations, DecimalForm};
use super::plan::{Branch, DecimalPlan, Enum, FieldPlan, RecordPlan, Time, TypePlan, Union};
use super::timestamp::Unit;
use crate::config::TimeFormat;

mod default;

/// The index of a branch must fit one byte.
const MAX_BRANCHES: usize = 64;

/// Digits that always fit an i128.
const MAX_PRECISION: usize = 38;

/// Compiles the types of one schema.
#[derive(Default)]
pub(super) struct PlanCompiler<'s> {
    /// `None` while the record is being compiled, which a use within itself can see.
    pub(super) records: Vec<Option<RecordPlan>>,
    /// Faults of record fields, each with the field's path.
    pub(super) faults: Vec<String>,
    places: HashMap<&'s Name, usize>,
    named: HashMap<&'s Name, &'s Schema>,
}

impl<'s> PlanCompiler<'s> {
    /// Compiles a field; `at` is its path in errors.
    pub(super) fn field(&mut self, field: &'s RecordField, at: &str) -> Result<FieldPlan, String> {
        let place = |fault: String| format!("field `{at}`: {fault}");
        let annotations = Annotations::of(field).map_err(place)?;
        let node = self.node(&field.schema, &annotations, at)?;
        used(&annotations, &node).map_err(place)?;
        let default = match &field.default {
            // A missing nullable field is null, whatever its default is: the value shows what was sent.
            Some(default) if !node.takes_null() => {
                let bytes = default::encode(&node, &default.to_string(), &self.records)
                    .ok_or_else(|| place("its default is not a value of its type".to_owned()))?;
                Some(bytes.into_boxed_slice())
            }
            _ => None,
        };
        let name: Box<str> = field.name.as_str().into();
        let key = annotations.json.map_or_else(|| name.clone(), Box::from);
        Ok(FieldPlan { name, key, node, default })
    }

    fn node(
        &mut self,
        schema: &'s Schema,
        annotations: &Annotations<'_>,
        at: &str,
    ) -> Result<TypePlan, String> {
        let place = |fault: String| format!("field `{at}`: {fault}");
        let instant =
            |unit| TypePlan::Time(Time::Instant(unit, annotations.time.unwrap_or(TimeFormat::Rfc3339)));
        let form = || {
            annotations.bytes.ok_or_else(|| {
                place(format!(
                    "{} needs the annotation `hookstream.bytes`: base64, base64url or hex (this also applies to a \
                     decimal whose precision or scale is missing or wrong)",
                    kind(schema)
                ))
            })
        };
        if let Some(name) = schema.name()
            && !matches!(schema, Schema::Ref { .. } | Schema::Record(_))
        {
            self.named.insert(name, schema);
        }
        Ok(match schema {
            Schema::Null => TypePlan::Null,
            Schema::Boolean => TypePlan::Boolean,
            Schema::Int => TypePlan::Int,
            Schema::Long => TypePlan::Long,
            Schema::Float => TypePlan::Float,
            Schema::Double => TypePlan::Double,
            Schema::String => TypePlan::Text,
            Schema::Bytes => TypePlan::Bytes(form()?),
            Schema::Fixed(FixedSchema { size, .. }) => TypePlan::Fixed { size: *size, form: form()? },
            Schema::Uuid(UuidSchema::String) => TypePlan::Uuid { fixed: false },
            Schema::Uuid(UuidSchema::Fixed(_)) => TypePlan::Uuid { fixed: true },
            Schema::TimestampMillis => instant(Unit::Milli),
            Schema::TimestampMicros => instant(Unit::Micro),
            Schema::TimestampNanos => instant(Unit::Nano),
            Schema::LocalTimestampMillis => TypePlan::Time(Time::Local(Unit::Milli)),
            Schema::LocalTimestampMicros => TypePlan::Time(Time::Local(Unit::Micro)),
            Schema::LocalTimestampNanos => TypePlan::Time(Time::Local(Unit::Nano)),
            Schema::TimeMillis => TypePlan::Time(Time::OfDay(Unit::Milli)),
            Schema::TimeMicros => TypePlan::Time(Time::OfDay(Unit::Micro)),
            Schema::Date => TypePlan::Time(Time::Date),
            Schema::Decimal(schema) => TypePlan::Decimal(decimal(schema, annotations).map_err(place)?),
            Schema::Enum(schema) => TypePlan::Enum(Box::new(enumeration(schema))),
            Schema::Array(array) => TypePlan::Array(Box::new(self.node(&array.items, annotations, at)?)),
            Schema::Map(map) => TypePlan::Map(Box::new(self.node(&map.types, annotations, at)?)),
            Schema::Record(record) => TypePlan::Record(self.record(record, at)),
            Schema::Union(union) => self.union(union, annotations, at)?,
            Schema::Ref { name } => match (self.places.get(name), self.named.get(name).copied()) {
                (Some(place), _) => TypePlan::Record(*place),
                // Compiled again, because this field's annotations apply to it.
                (None, Some(schema)) => self.node(schema, annotations, at)?,
                (None, None) => return Err(place(format!("the name `{name}` is not defined"))),
            },
            other => return Err(place(format!("{} is not supported", kind(other)))),
        })
    }

    fn union(
        &mut self,
        union: &'s UnionSchema,
        annotations: &Annotations<'_>,
        at: &str,
    ) -> Result<TypePlan, String> {
        if union.variants().is_empty() || union.variants().len() > MAX_BRANCHES {
            return Err(format!("field `{at}`: a union must have 1 to {MAX_BRANCHES} types"));
        }
        let (mut null, mut branches) = (None, Vec::new());
        for (choice, schema) in (0..).step_by(2).zip(union.variants()) {
            match self.node(schema, annotations, at)? {
                TypePlan::Null => null = Some(choice),
                node => branches.push(Branch { choice, node }),
            }
        }
        if let (Some(null), true) = (null, branches.len() == 1)
            && let Some(Branch { choice, node }) = branches.pop()
        {
            return Ok(TypePlan::Nullable { null, value: choice, inner: Box::new(node) });
        }
        Ok(TypePlan::Union(Union { null, branches }))
    }

    /// Compiles a record. Faults of its fields are collected, so that all of them are reported.
    fn record(&mut self, schema: &'s RecordSchema, at: &str) -> usize {
        let place = self.records.len();
        self.records.push(None);
        self.places.insert(&schema.name, place);
        let mut fields: Vec<FieldPlan> = Vec::with_capacity(schema.fields.len());
        for field in &schema.fields {
            let at = format!("{at}.{}", field.name);
            match self.field(field, &at) {
                Ok(field) => match fields.iter().find(|other| other.key == field.key) {
                    Some(other) => {
                        self.faults.push(format!("field `{at}` reads what `{}` reads", other.name))
                    }
                    None => fields.push(field),
                },
                Err(fault) => self.faults.push(fault),
            }
        }
        if let Some(record) = self.records.get_mut(place) {
            *record = Some(RecordPlan { fields });
        }
        place
    }
}

/// Rejects an annotation without effect, which would hide a mistake.
fn used(annotations: &Annotations<'_>, node: &TypePlan) -> Result<(), String> {
    let unused = |name: &str, kind: &str| Err(format!("`hookstream.{name}` has no effect here: no {kind}"));
    if annotations.time.is_some() && !holds(node, &|node| matches!(node, TypePlan::Time(Time::Instant(..)))) {
        return unused("time", "timestamp-millis, -micros or -nanos");
    }
    if annotations.bytes.is_some()
        && !holds(node, &|node| matches!(node, TypePlan::Bytes(_) | TypePlan::Fixed { .. }))
    {
        return unused("bytes", "bytes and no fixed");
    }
    if annotations.decimal.is_some() && !holds(node, &|node| matches!(node, TypePlan::Decimal(_))) {
        return unused("decimal", "decimal");
    }
    Ok(())
}

/// Whether a type contains one that matches, without descending into records, whose fields have their own annotations.
fn holds(node: &TypePlan, is: &dyn Fn(&TypePlan) -> bool) -> bool {
    match node {
        TypePlan::Array(inner) | TypePlan::Map(inner) | TypePlan::Nullable { inner, .. } => holds(inner, is),
        TypePlan::Union(union) => union.branches.iter().any(|branch| holds(&branch.node, is)),
        node => is(node),
    }
}

fn decimal(schema: &DecimalSchema, annotations: &Annotations<'_>) -> Result<DecimalPlan, String> {
    let DecimalSchema { precision, scale, inner } = schema;
    let small = |number: &usize| u8::try_from(*number).ok().filter(|_| *number <= MAX_PRECISION);
    let (Some(precision), Some(scale)) = (small(precision), small(scale)) else {
        return Err(format!("a decimal of more than {MAX_PRECISION} digits is not supported"));
    };
    let size = match inner {
        InnerDecimalSchema::Bytes => None,
        InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
    };
    if let Some(size @ 0..16) = size
        && 10_i128.pow(precision.into()) > 1_i128 << (8 * size).saturating_sub(1)
    {
        return Err(format!("{size} bytes cannot hold every decimal of {precision} digits"));
    }
    Ok(DecimalPlan { precision, scale, size, form: annotations.decimal.unwrap_or(DecimalForm::Number) })
}

fn enumeration(schema: &EnumSchema) -> Enum {
    let default = schema.default.as_ref();
    let default = default.and_then(|default| schema.symbols.iter().position(|symbol| symbol == default));
    Enum { symbols: schema.symbols.clone(), default }
}

/// The type's name, without the rest of the schema.
pub(super) fn kind(schema: &Schema) -> String {
    format!("the type {:?}", apache_avro::schema::SchemaKind::from(schema)).to_lowercase()
}
