//! The choice of a union's branch.
//!
//! An object or an array is encoded only once, in the branch chosen by its shape. With several attempts, a body could
//! double the cost of a recursive schema with each level.

use serde_json::value::RawValue;

use super::{EventEncoder, WalkError, misfit, opened};
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
                let Some(object) = opened(raw, at)? else { return Err(misfit(at, node, kind.name())) };
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
            // A union has at most one array.
            JsonKind::Array => union.branches.iter().find(|branch| branch.node.takes(kind)),
            _ => return self.closest(node, union, raw, at),
        };
        let branch = branch.ok_or_else(|| misfit(at, node, kind.name()))?;
        self.out.push(branch.choice);
        self.value(&branch.node, raw, at, spot)
    }

    /// Uses the first branch that represents the value exactly; else the first that accepts it, and keeps the value.
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

/// Chooses among the records whose required fields are all present the one with most known members, the first one of
/// equals. If no record knows any member of the object, chooses the map, if the union has one.
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

/// Whether all required fields of the record are present, and how many of its fields have a value of a suitable type.
fn shape(record: &RecordPlan, object: &Object<'_>) -> (bool, usize) {
    let (mut complete, mut known) = (true, 0);
    for field in &record.fields {
        let kind = object.get(&field.key).map_or(JsonKind::Null, JsonKind::of);
        if kind != JsonKind::Null && field.node.takes(kind) {
            known += 1;
        } else {
            // In a nullable field, a misfit becomes null.
            complete &= field.node.takes_null() || (kind == JsonKind::Null && field.may_be_missing());
        }
    }
    (complete, known)
}
