//! The walk: a plan on one side, raw slices of the body on the other, Avro bytes out.
//!
//! A value that does not fit stops the walk up to the nearest field that may be null; there the
//! bytes are cut back, null is written and the whole of the field's text is kept.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::encode::TypeMismatch;
use super::places::{EnvelopeField, EnvelopeTree, ValuePath};
use super::plan::{FieldPlan, RecordPlan, RecordPlans, TypePlan, Union};
use crate::json::{self, JsonKind, Object};
use crate::outcome::{Fault, Reason};

mod scalar;
mod union;

/// Bound on the bytes that one event may keep with their pointers. Pointers repeat their way, so
/// a body could grow far past itself; the bound is far past what any topic takes.
const MAX_KEPT: usize = 8 << 20;

/// Why a value was not written.
pub(super) enum WalkError {
    /// It does not fit; a field that may be null catches this.
    Misfit(TypeMismatch),
    /// The event is of no use at all.
    Fault(Fault),
}

impl From<Fault> for WalkError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What the envelope took out of the body, for the unknown members that stand at its places.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EnvelopeValues<'e> {
    pub(super) id: &'e str,
    pub(super) event_type: &'e str,
    /// Whether milliseconds say all that the body's time says.
    pub(super) time: bool,
}

/// One event's encoding as it grows.
pub(super) struct EventEncoder<'e, 'd> {
    pub(super) out: Vec<u8>,
    /// Pointer and text for `additional_fields`.
    pub(super) kept: Vec<(String, &'d RawValue)>,
    /// How many of them are there because they do not fit.
    pub(super) misfits: usize,
    /// The shapes of those that no field reads.
    pub(super) drift: Vec<String>,
    spoken: EnvelopeValues<'e>,
    records: &'e RecordPlans,
    budget: usize,
}

/// A place to come back to.
struct Checkpoint {
    bytes: usize,
    kept: usize,
    misfits: usize,
    drift: usize,
    budget: usize,
}

impl<'e, 'd> EventEncoder<'e, 'd> {
    pub(super) const fn new(out: Vec<u8>, spoken: EnvelopeValues<'e>, records: &'e RecordPlans) -> Self {
        Self { out, kept: Vec::new(), misfits: 0, drift: Vec::new(), spoken, records, budget: MAX_KEPT }
    }

    /// For a value without an event.
    pub(super) const fn plain(records: &'e RecordPlans) -> Self {
        Self::new(Vec::new(), EnvelopeValues { id: "", event_type: "", time: false }, records)
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

    /// Writes a field's value; `None` and null both mean that it is missing.
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
                let object = Object::open(raw)?.ok_or_else(|| misfit(at, node, kind.name()))?;
                self.map(values, &object, at, spot)?;
            }
            (TypePlan::Record(place), kind) => {
                let object = Object::open(raw)?.ok_or_else(|| misfit(at, node, kind.name()))?;
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

    /// Cuts a misfit back to `mark`: null is written and all of the value's text is kept.
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
        // Null as missing: such an entry is left out where the type cannot hold it. Refusing it
        // would cost the consumer the whole map for one empty value.
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
        // Every place of a plan is one of its records.
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

    /// A member that no field of the schema reads. Where the envelope reads it, its value is told
    /// by the envelope's field; where the envelope reads below it, the rest of it is kept.
    pub(super) fn unknown(
        &mut self,
        raw: &'d RawValue,
        at: &ValuePath<'_>,
        spot: Option<&EnvelopeTree>,
    ) -> Result<(), WalkError> {
        let Some(spot) = spot else { return self.keep_unknown(raw, at) };
        let told = match spot.what {
            Some(EnvelopeField::Data) => true,
            Some(EnvelopeField::Time) => self.spoken.time,
            Some(EnvelopeField::Id) => json::string(raw).is_some_and(|text| text == self.spoken.id),
            Some(EnvelopeField::Type) => json::string(raw).is_some_and(|text| text == self.spoken.event_type),
            None => {
                let Some(object) = Object::open(raw)? else { return self.keep_unknown(raw, at) };
                for (key, value) in object.members() {
                    self.unknown(value, &at.unknown(key), spot.below(key))?;
                }
                // An object of nothing leaves no member behind that tells of it.
                object.members().iter().any(|(_, value)| JsonKind::of(value) != JsonKind::Null)
            }
        };
        match (told, spot.what) {
            (true, _) => Ok(()),
            // The envelope has a field for it, which does not say all of it.
            (false, Some(_)) => self.keep(raw, at),
            (false, None) => self.keep_unknown(raw, at),
        }
    }

    /// Keeps a member that no field reads, and notes its shape.
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
        // Nobody here opens it, and its readers must not see different values.
        if matches!(JsonKind::of(raw), JsonKind::Object | JsonKind::Array) {
            json::unique(raw.get())?;
        }
        let size = at.size() + raw.get().len();
        self.budget = self.budget.checked_sub(size).ok_or_else(|| {
            Fault::new(Reason::ShapeMismatch, format!("additional_fields past {MAX_KEPT} bytes"))
        })?;
        self.kept.push((at.pointer(), raw));
        Ok(())
    }

    /// A long, zigzag, 7 bits a byte, the lowest first. An int is written alike.
    pub(super) fn long(&mut self, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while rest > 0x7f {
            self.out.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        self.out.push(rest.to_le_bytes()[0]);
    }

    /// A string: its bytes behind their number.
    pub(super) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Bytes behind their number.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.index(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    /// A small number: an enum's symbol, a length.
    pub(super) fn index(&mut self, index: usize) {
        // Nothing in this process is longer than isize::MAX.
        self.long(i64::try_from(index).unwrap_or(i64::MAX));
    }

    /// Begins the one block of an array or map; an empty one is its end alone.
    pub(super) fn block(&mut self, count: usize) {
        if count > 0 {
            self.index(count);
        }
    }

    /// Ends an array or map.
    pub(super) fn end_block(&mut self) {
        self.out.push(0);
    }
}

/// Where the member `name` stands. Looks on from `from`, since providers write fields in their
/// documented order and so do schemas: most are found at once.
fn position(members: &[(Cow<'_, str>, &RawValue)], from: usize, name: &str) -> Option<usize> {
    let (before, after) = members.split_at_checked(from)?;
    let is = |(key, _): &(Cow<'_, str>, &RawValue)| key == name;
    after.iter().position(is).map(|at| from + at).or_else(|| before.iter().position(is))
}

fn misfit(at: &ValuePath<'_>, node: &TypePlan, found: &'static str) -> WalkError {
    WalkError::Misfit(TypeMismatch { pointer: at.masked(), expected: node.expects(), found })
}
