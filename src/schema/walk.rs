//! The walk: a plan on one side, raw slices of the body on the other, Avro bytes out.
//!
//! A value that does not fit stops the walk up to the nearest field that may be null; there the
//! bytes are cut back, null is written and the whole of the field's text is kept.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::encode::Misfit;
use super::places::{Path, Spot, What};
use super::plan::{Field, Node, Record, Records, Union};
use crate::json::{self, Kind, Object};
use crate::outcome::{Fault, Reason};

mod scalar;
mod union;

/// Bound on the bytes that one event may keep with their pointers. Pointers repeat their way, so
/// a body could grow far past itself; the bound is far past what any topic takes.
const MAX_KEPT: usize = 8 << 20;

/// Why a value was not written.
pub(super) enum Stop {
    /// It does not fit; a field that may be null catches this.
    Misfit(Misfit),
    /// The event is of no use at all.
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What the envelope took out of the body, for the unknown members that stand at its places.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spoken<'e> {
    pub(super) id: &'e str,
    pub(super) event_type: &'e str,
    /// Whether milliseconds say all that the body's time says.
    pub(super) time: bool,
}

/// One event's encoding as it grows.
pub(super) struct Walk<'e, 'd> {
    pub(super) out: Vec<u8>,
    /// Pointer and text for `additional_fields`.
    pub(super) kept: Vec<(String, &'d RawValue)>,
    /// How many of them are there because they do not fit.
    pub(super) misfits: usize,
    /// The shapes of those that no field reads.
    pub(super) drift: Vec<String>,
    spoken: Spoken<'e>,
    records: &'e Records,
    budget: usize,
}

/// A place to come back to.
struct Mark {
    bytes: usize,
    kept: usize,
    misfits: usize,
    drift: usize,
    budget: usize,
}

impl<'e, 'd> Walk<'e, 'd> {
    pub(super) const fn new(out: Vec<u8>, spoken: Spoken<'e>, records: &'e Records) -> Self {
        Self { out, kept: Vec::new(), misfits: 0, drift: Vec::new(), spoken, records, budget: MAX_KEPT }
    }

    /// For a value without an event.
    pub(super) const fn plain(records: &'e Records) -> Self {
        Self::new(Vec::new(), Spoken { id: "", event_type: "", time: false }, records)
    }

    const fn mark(&self) -> Mark {
        let (bytes, kept) = (self.out.len(), self.kept.len());
        Mark { bytes, kept, misfits: self.misfits, drift: self.drift.len(), budget: self.budget }
    }

    fn back_to(&mut self, mark: &Mark) {
        self.out.truncate(mark.bytes);
        self.kept.truncate(mark.kept);
        self.drift.truncate(mark.drift);
        (self.misfits, self.budget) = (mark.misfits, mark.budget);
    }

    /// Writes a field's value; `None` and null both mean that it is missing.
    pub(super) fn field(
        &mut self,
        field: &Field,
        raw: Option<&'d RawValue>,
        at: &Path<'_>,
        spot: Option<&Spot>,
    ) -> Result<(), Stop> {
        if let Some(raw) = raw.filter(|raw| Kind::of(raw) != Kind::Null) {
            return self.value(&field.node, raw, at, spot);
        }
        match (&field.node, &field.default) {
            (Node::Null, _) => {}
            (Node::Nullable { null, .. }, _) => self.out.push(*null),
            (Node::Union(Union { null: Some(null), .. }), _) => self.out.push(*null),
            (_, Some(default)) => self.out.extend_from_slice(default),
            (node, None) => {
                return Err(misfit(at, node, if raw.is_some() { "null" } else { "nothing" }));
            }
        }
        Ok(())
    }

    fn value(
        &mut self,
        node: &Node,
        raw: &'d RawValue,
        at: &Path<'_>,
        spot: Option<&Spot>,
    ) -> Result<(), Stop> {
        match (node, Kind::of(raw)) {
            (Node::Nullable { null, .. } | Node::Union(Union { null: Some(null), .. }), Kind::Null) => {
                self.out.push(*null);
            }
            (Node::Nullable { null, value, inner }, _) => {
                let mark = self.mark();
                self.out.push(*value);
                let done = self.value(inner, raw, at, spot);
                return self.or_null(done, *null, &mark, raw, at);
            }
            (Node::Union(union), _) => {
                let mark = self.mark();
                let done = self.union(node, union, raw, at, spot);
                return match union.null {
                    Some(null) => self.or_null(done, null, &mark, raw, at),
                    None => done,
                };
            }
            (Node::Array(items), kind) => {
                let elements = json::elements(raw).ok_or_else(|| misfit(at, node, kind.name()))?;
                self.array(items, &elements, at)?;
            }
            (Node::Map(values), kind) => {
                let object = Object::open(raw)?.ok_or_else(|| misfit(at, node, kind.name()))?;
                self.map(values, &object, at, spot)?;
            }
            (Node::Record(place), kind) => {
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
        done: Result<(), Stop>,
        null: u8,
        mark: &Mark,
        raw: &'d RawValue,
        at: &Path<'_>,
    ) -> Result<(), Stop> {
        let Err(Stop::Misfit(_)) = done else { return done };
        self.back_to(mark);
        self.out.push(null);
        self.misfits += 1;
        self.keep(raw, at)
    }

    fn array(&mut self, items: &Node, elements: &[&'d RawValue], at: &Path<'_>) -> Result<(), Stop> {
        self.block(elements.len());
        for (index, element) in elements.iter().enumerate() {
            self.value(items, element, &at.index(index), None)?;
        }
        self.end_block();
        Ok(())
    }

    fn map(
        &mut self,
        values: &Node,
        object: &Object<'d>,
        at: &Path<'_>,
        spot: Option<&Spot>,
    ) -> Result<(), Stop> {
        // Null as missing: such an entry is left out where the type cannot hold it. Refusing it
        // would cost the consumer the whole map for one empty value.
        let present = |value: &RawValue| values.takes_null() || Kind::of(value) != Kind::Null;
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
        at: &Path<'_>,
        spot: Option<&Spot>,
    ) -> Result<(), Stop> {
        let records = self.records;
        // Every place of a plan is one of its records.
        let empty = Record { fields: Vec::new() };
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
        at: &Path<'_>,
        spot: Option<&Spot>,
    ) -> Result<(), Stop> {
        let Some(spot) = spot else { return self.keep_unknown(raw, at) };
        let told = match spot.what {
            Some(What::Data) => true,
            Some(What::Time) => self.spoken.time,
            Some(What::Id) => json::string(raw).is_some_and(|text| text == self.spoken.id),
            Some(What::Type) => json::string(raw).is_some_and(|text| text == self.spoken.event_type),
            None => {
                let Some(object) = Object::open(raw)? else { return self.keep_unknown(raw, at) };
                for (key, value) in object.members() {
                    self.unknown(value, &at.unknown(key), spot.below(key))?;
                }
                // An object of nothing leaves no member behind that tells of it.
                object.members().iter().any(|(_, value)| Kind::of(value) != Kind::Null)
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
    fn keep_unknown(&mut self, raw: &'d RawValue, at: &Path<'_>) -> Result<(), Stop> {
        if Kind::of(raw) != Kind::Null {
            self.drift.push(at.shape());
        }
        self.keep(raw, at)
    }

    /// Keeps a text for `additional_fields`; null counts as missing.
    fn keep(&mut self, raw: &'d RawValue, at: &Path<'_>) -> Result<(), Stop> {
        if Kind::of(raw) == Kind::Null {
            return Ok(());
        }
        // Nobody here opens it, and its readers must not see different values.
        if matches!(Kind::of(raw), Kind::Object | Kind::Array) {
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

fn misfit(at: &Path<'_>, node: &Node, found: &'static str) -> Stop {
    Stop::Misfit(Misfit { pointer: at.masked(), expected: node.expects(), found })
}
