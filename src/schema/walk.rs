//! The walk: encodes raw slices of the body as Avro bytes, following a plan.
//!
//! A value that does not fit ends the walk up to the nearest nullable field. There the written bytes are discarded,
//! null is written, and the field's complete text is kept in `additional_fields`.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::places::{EnvelopeField, EnvelopeTree, ValuePath};
use super::plan::{FieldPlan, RecordPlan, RecordPlans, TypePlan, Union};
use crate::json::{self, JsonKind, Object};
use crate::outcome::{Fault, Reason};

mod scalar;
mod union;

/// Limit on the bytes that one event may keep in `additional_fields`, with the pointers. Each pointer repeats the path
/// from the root, so the result could be far larger than the body; the limit is far above what any topic accepts.
const MAX_KEPT: usize = 8 << 20;

/// Why an event does not fit its schema. Contains no payload: the pointer has `*` for every name that the body chose.
#[derive(Debug)]
pub(super) struct TypeMismatch {
    /// The value's pointer from the body's root.
    pub(super) pointer: String,
    /// What the schema requires.
    pub(super) expected: Cow<'static, str>,
    /// What the body contains.
    pub(super) found: &'static str,
}

impl From<TypeMismatch> for Fault {
    fn from(misfit: TypeMismatch) -> Self {
        let TypeMismatch { pointer, expected, found } = misfit;
        Self::new(Reason::ShapeMismatch, format!("at {pointer}: expected {expected}, found {found}"))
    }
}

/// Why a value was not written.
pub(super) enum WalkError {
    /// It does not fit its type; a nullable field handles this.
    Misfit(TypeMismatch),
    /// The event cannot be used.
    Fault(Fault),
}

impl From<Fault> for WalkError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The values that the envelope read from the body, compared with the unknown members at its places.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EnvelopeValues<'e> {
    pub(super) id: &'e str,
    pub(super) event_type: &'e str,
    /// Which of the time's places was read, if milliseconds represent the time exactly.
    pub(super) time: Option<usize>,
}

/// The state of encoding one event.
pub(super) struct EventEncoder<'e, 'd> {
    pub(super) out: Vec<u8>,
    /// Pointer and text for `additional_fields`.
    pub(super) kept: Vec<(String, &'d RawValue)>,
    /// How many of the kept values did not fit their field.
    pub(super) misfits: usize,
    /// The shapes of the kept values that no field reads.
    pub(super) drift: Vec<String>,
    envelope: EnvelopeValues<'e>,
    records: &'e RecordPlans,
    budget: usize,
}

/// A state of the encoder that a rollback restores.
struct Checkpoint {
    bytes: usize,
    kept: usize,
    misfits: usize,
    drift: usize,
    budget: usize,
}

impl<'e, 'd> EventEncoder<'e, 'd> {
    pub(super) const fn new(out: Vec<u8>, envelope: EnvelopeValues<'e>, records: &'e RecordPlans) -> Self {
        Self { out, kept: Vec::new(), misfits: 0, drift: Vec::new(), envelope, records, budget: MAX_KEPT }
    }

    /// An encoder for a value outside an event.
    pub(super) const fn plain(records: &'e RecordPlans) -> Self {
        Self::new(Vec::new(), EnvelopeValues { id: "", event_type: "", time: None }, records)
    }

    const fn mark(&self) -> Checkpoint {
        let (bytes, kept) = (self.out.len(), self.kept.len());
        Checkpoint { bytes, kept, misfits: self.misfits, drift: self.drift.len(), budget: self.budget }
    }

    fn rollback(&mut self, mark: &Checkpoint) {
        self.out.truncate(mark.bytes);
        self.kept.truncate(mark.kept);
        self.drift.truncate(mark.drift);
        (self.misfits, self.budget) = (mark.misfits, mark.budget);
    }

    /// Writes a field's value; both `None` and null mean that it is missing.
    pub(super) fn field(
        &mut self,
        field: &FieldPlan,
        raw: Option<&'d RawValue>,
        at: &ValuePath<'_>,
        spot: Option<&EnvelopeTree>,
    ) -> Result<(), WalkError> {
        if let Some(raw) = raw.filter(|raw| JsonKind::of(raw) != JsonKind::Null) {
            return self.value(&field.node, raw, at, spot);
        }
        match (&field.node, &field.default) {
            (TypePlan::Null, _) => {}
            (TypePlan::Nullable { null, .. }, _) => self.out.push(*null),
            (TypePlan::Union(Union { null: Some(null), .. }), _) => self.out.push(*null),
            (_, Some(default)) => self.out.extend_from_slice(default),
            (node, None) => {
                return Err(misfit(at, node, if raw.is_some() { "null" } else { "nothing" }));
            }
        }
        Ok(())
    }

    fn value(
        &mut self,
        node: &TypePlan,
        raw: &'d RawValue,
        at: &ValuePath<'_>,
        spot: Option<&EnvelopeTree>,
    ) -> Result<(), WalkError> {
        match (node, JsonKind::of(raw)) {
            (
                TypePlan::Nullable { null, .. } | TypePlan::Union(Union { null: Some(null), .. }),
                JsonKind::Null,
            ) => {
                self.out.push(*null);
            }
            (TypePlan::Nullable { null, value, inner }, _) => {
                let mark = self.mark();
                self.out.push(*value);
                let done = self.value(inner, raw, at, spot);
                return self.or_null(done, *null, &mark, raw, at);
            }
            (TypePlan::Union(union), _) => {
                let mark = self.mark();
                let done = self.union(node, union, raw, at, spot);
                return match union.null {
                    Some(null) => self.or_null(done, null, &mark, raw, at),
                    None => done,
                };
            }
            (TypePlan::Array(items), kind) => {
                let elements = json::elements(raw).ok_or_else(|| misfit(at, node, kind.name()))?;
                self.array(items, &elements, at)?;
            }
            (TypePlan::Map(values), kind) => {
                let object = opened(raw, at)?.ok_or_else(|| misfit(at, node, kind.name()))?;
                self.map(values, &object, at, spot)?;
            }
            (TypePlan::Record(place), kind) => {
                let object = opened(raw, at)?.ok_or_else(|| misfit(at, node, kind.name()))?;
                self.record(*place, &object, at, spot)?;
            }
            (node, _) => {
                if !self.scalar(node, raw, at)? {
                    self.keep(raw, at)?;
                }
            }
        }
        Ok(())
    }

    /// On a misfit, rolls back to `mark`, writes null and keeps the value's complete text.
    fn or_null(
        &mut self,
        done: Result<(), WalkError>,
        null: u8,
        mark: &Checkpoint,
        raw: &'d RawValue,
        at: &ValuePath<'_>,
    ) -> Result<(), WalkError> {
        let Err(WalkError::Misfit(_)) = done else { return done };
        self.rollback(mark);
        self.out.push(null);
        self.misfits += 1;
        self.keep(raw, at)
    }

    fn array(
        &mut self,
        items: &TypePlan,
        elements: &[&'d RawValue],
        at: &ValuePath<'_>,
    ) -> Result<(), WalkError> {
        self.block(elements.len());
        for (index, element) in elements.iter().enumerate() {
            self.value(items, element, &at.index(index), None)?;
        }
        self.end_block();
        Ok(())
    }

    fn map(
        &mut self,
        values: &TypePlan,
        object: &Object<'d>,
        at: &ValuePath<'_>,
        spot: Option<&EnvelopeTree>,
    ) -> Result<(), WalkError> {
        // Null counts as missing: such an entry is omitted if the type has no null. Treating it as a misfit would cost
        // the consumer the complete map for one empty value.
        let present = |value: &RawValue| values.takes_null() || JsonKind::of(value) != JsonKind::Null;
        let count = object.members().iter().filter(|(_, value)| present(value)).count();
        self.block(count);
        for (key, value) in object.members() {
            if present(value) {
                self.text(key);
                self.value(values, value, &at.key(key), spot.and_then(|spot| spot.below(key)))?;
            }
        }
        self.end_block();
        Ok(())
    }

    fn record(
        &mut self,
        place: usize,
        object: &Object<'d>,
        at: &ValuePath<'_>,
        spot: Option<&EnvelopeTree>,
    ) -> Result<(), WalkError> {
        let records = self.records;
        // Cannot be missing: every index in a plan refers to one of its records.
        let empty = RecordPlan { fields: Vec::new() };
        let record = records.get(place).and_then(Option::as_ref).unwrap_or(&empty);
        let below = |name: &str| spot.and_then(|spot| spot.below(name));
        let members = object.members();
        let (mut next, mut read) = (0, 0);
        for field in &record.fields {
            let found = position(members, next, &field.key);
            let value = found.and_then(|at| members.get(at)).map(|(_, value)| *value);
            if let Some(at) = found {
                (next, read) = (at + 1, read + 1);
            }
            self.field(field, value, &at.field(&field.key), below(&field.key))?;
        }
        if read == members.len() {
            return Ok(());
        }
        for (key, value) in members {
            if !record.knows(key) {
                self.unknown(value, &at.unknown(key), below(key))?;
            }
        }
        Ok(())
    }

    /// Handles a member that no field of the schema reads. If the envelope reads it, the envelope's field contains the
    /// value; if the envelope reads below it, the remaining members are kept.
    pub(super) fn unknown(
        &mut self,
        raw: &'d RawValue,
        at: &ValuePath<'_>,
        spot: Option<&EnvelopeTree>,
    ) -> Result<(), WalkError> {
        let Some(spot) = spot else { return self.keep_unknown(raw, at) };
        let covered = match spot.field {
            Some(EnvelopeField::Data) => true,
            Some(EnvelopeField::Time(place)) => self.envelope.time == Some(place),
            Some(EnvelopeField::Alternative) => false,
            // A number is kept as sent: the record's text does not say that it was one.
            Some(EnvelopeField::Id) => json::string(raw).is_some_and(|text| text == self.envelope.id),
            Some(EnvelopeField::Type) => {
                json::string(raw).is_some_and(|text| text == self.envelope.event_type)
            }
            None => {
                let Some(object) = opened(raw, at)? else { return self.keep_unknown(raw, at) };
                for (key, value) in object.members() {
                    self.unknown(value, &at.unknown(key), spot.below(key))?;
                }
                // An object without members would leave no trace.
                object.members().iter().any(|(_, value)| JsonKind::of(value) != JsonKind::Null)
            }
        };
        match (covered, spot.field) {
            (true, _) => Ok(()),
            // The envelope has a field for it, but the field does not contain the exact value.
            (false, Some(_)) => self.keep(raw, at),
            (false, None) => self.keep_unknown(raw, at),
        }
    }

    /// Keeps a member that no field reads, and records its shape.
    fn keep_unknown(&mut self, raw: &'d RawValue, at: &ValuePath<'_>) -> Result<(), WalkError> {
        if JsonKind::of(raw) != JsonKind::Null {
            self.drift.push(at.shape());
        }
        self.keep(raw, at)
    }

    /// Keeps a text for `additional_fields`; null counts as missing.
    fn keep(&mut self, raw: &'d RawValue, at: &ValuePath<'_>) -> Result<(), WalkError> {
        if JsonKind::of(raw) == JsonKind::Null {
            return Ok(());
        }
        // hookstream does not open the value. A duplicate key in it could be read differently by different readers.
        if matches!(JsonKind::of(raw), JsonKind::Object | JsonKind::Array) {
            json::unique(raw.get()).map_err(|fault| fault.at(format_args!("below {}", at.masked())))?;
        }
        let size = at.size() + raw.get().len();
        self.budget = self.budget.checked_sub(size).ok_or_else(|| {
            Fault::new(Reason::ShapeMismatch, format!("additional_fields past {MAX_KEPT} bytes"))
        })?;
        self.kept.push((at.pointer(), raw));
        Ok(())
    }

    /// Writes a long: zigzag, 7 bits per byte, the lowest first. An int is written the same way.
    pub(super) fn long(&mut self, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while rest > 0x7f {
            self.out.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        self.out.push(rest.to_le_bytes()[0]);
    }

    /// Writes a string: its length, then its bytes.
    pub(super) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Writes the length, then the bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.index(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    /// Writes an index or a length.
    pub(super) fn index(&mut self, index: usize) {
        // Lossless: no length in memory exceeds isize::MAX.
        self.long(i64::try_from(index).unwrap_or(i64::MAX));
    }

    /// Begins the single block of an array or map; an empty one has only its end marker.
    pub(super) fn block(&mut self, count: usize) {
        if count > 0 {
            self.index(count);
        }
    }

    /// Writes the end marker of an array or map.
    pub(super) fn end_block(&mut self) {
        self.out.push(0);
    }
}

/// The index of the member `name`. The search starts at `from`: providers and schemas both follow the documented order
/// of the fields, so most are found at once.
fn position(members: &[(Cow<'_, str>, &RawValue)], from: usize, name: &str) -> Option<usize> {
    let (before, after) = members.split_at_checked(from)?;
    let is = |(key, _): &(Cow<'_, str>, &RawValue)| key == name;
    after.iter().position(is).map(|at| from + at).or_else(|| before.iter().position(is))
}

/// Opens an object of the body.
fn opened<'d>(raw: &'d RawValue, at: &ValuePath<'_>) -> Result<Option<Object<'d>>, Fault> {
    Object::open(raw).map_err(|fault| fault.or_detail(|| format!("in the object at {}", at.masked())))
}

fn misfit(at: &ValuePath<'_>, node: &TypePlan, found: &'static str) -> WalkError {
    WalkError::Misfit(TypeMismatch { pointer: at.masked(), expected: node.expects(), found })
}
