//! Which branch of a union a value takes.
//!
//! By its shape alone: there is one try of what holds other values. With several, a body could make a
//! recursive schema cost twice as much with each of its levels.

use serde_json::value::RawValue;

use super::{EventEncoder, WalkError, misfit};
use crate::json::{JsonKind, Object};
use crate::schema::places::{EnvelopeTree, ValuePath};
use crate::schema::plan::{Branch, RecordPlan, RecordPlans, TypePlan, Union};

impl<'d> EventEncoder<'_, 'd> {
    /// Writes a value that is not null into its branch.
    pub(super) fn union(
        &mut self,
        node: &TypePlan,
        union: &Union,
        raw: &'d RawValue,
        at: &ValuePath<'_>,
        spot: Option<&EnvelopeTree>,
    ) -> Result<(), WalkError> {
        let kind = JsonKind::of(raw);
        let branch = match kind {
            JsonKind::Object => {
                let Some(object) = Object::open(raw)? else { return Err(misfit(at, node, kind.name())) };
                return match by_members(union, &object, self.records) {
                    Some(Branch { choice, node: TypePlan::Record(place) }) => {
                        self.out.push(*choice);
                        self.record(*place, &object, at, spot)
                    }
                    Some(Branch { choice, node: TypePlan::Map(values) }) => {
                        self.out.push(*choice);
                        self.map(values, &object, at, spot)
                    }
                    _ => Err(misfit(at, node, kind.name())),
                };
            }
            // A union has one array at most.
            JsonKind::Array => union.branches.iter().find(|branch| branch.node.takes(kind)),
            _ => return self.closest(node, union, raw, at),
        };
        let branch = branch.ok_or_else(|| misfit(at, node, kind.name()))?;
        self.out.push(branch.choice);
        self.value(&branch.node, raw, at, spot)
    }

    /// The first that gives the value back; else the first that takes it at all, and it is kept.
    fn closest(
        &mut self,
        node: &TypePlan,
        union: &Union,
        raw: &'d RawValue,
        at: &ValuePath<'_>,
    ) -> Result<(), WalkError> {
        let mark = self.mark();
        let takes = |branch: &&Branch| branch.node.takes(JsonKind::of(raw));
        let (mut near, mut why) = (None, None);
        for branch in union.branches.iter().filter(takes) {
            self.out.push(branch.choice);
            match self.scalar(&branch.node, raw, at) {
                Ok(true) => return Ok(()),
                Ok(false) => near = near.or(Some(branch)),
                Err(WalkError::Misfit(_)) if why.is_some() => {
                    why = Some(misfit(at, node, JsonKind::of(raw).name()))
                }
                Err(WalkError::Misfit(misfit)) => why = Some(WalkError::Misfit(misfit)),
                Err(fault) => return Err(fault),
            }
            self.rollback(&mark);
        }
        let Some(branch) = near else {
            return Err(why.unwrap_or_else(|| misfit(at, node, JsonKind::of(raw).name())));
        };
        self.out.push(branch.choice);
        self.scalar(&branch.node, raw, at)?;
        self.keep(raw, at)
    }
}

/// Among the records those that find all they need, of them the one that knows most members, of
/// equals the first. An object of which no record knows a member is the map, if there is one.
fn by_members<'u>(union: &'u Union, object: &Object<'_>, records: &RecordPlans) -> Option<&'u Branch> {
    let map = union.branches.iter().find(|branch| matches!(branch.node, TypePlan::Map(_)));
    let mut best: Option<((bool, usize), &Branch)> = None;
    for branch in &union.branches {
        let TypePlan::Record(place) = branch.node else { continue };
        let Some(Some(record)) = records.get(place) else { continue };
        let shape = shape(record, object);
        if best.is_none_or(|(best, _)| shape > best) {
            best = Some((shape, branch));
        }
    }
    match (best, map) {
        (Some(((true, 1..), record)), _) | (Some((_, record)), None) => Some(record),
        (_, map) => map,
    }
}

/// Whether all that the record needs is there, and how many of its fields find what they can take.
fn shape(record: &RecordPlan, object: &Object<'_>) -> (bool, usize) {
    let (mut complete, mut known) = (true, 0);
    for field in &record.fields {
        let kind = object.get(&field.key).map_or(JsonKind::Null, JsonKind::of);
        if kind != JsonKind::Null && field.node.takes(kind) {
            known += 1;
        } else {
            // What may be null takes a misfit as null.
            complete &= field.node.takes_null() || (kind == JsonKind::Null && field.may_be_missing());
        }
    }
    (complete, known)
}
