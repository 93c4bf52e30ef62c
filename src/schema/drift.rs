//! Schema drift: members for which a schema has no field, as found in the topics; their shapes, and the fields that
//! would hold them. Pure functions: the commands read topics, files and the registry.

mod edit;
mod fields;
mod infer;
mod observe;
mod propose;
mod shape;
mod table;
mod tree;

pub use edit::insert;
pub use fields::{Fields, SchemaPath};
pub(super) use fields::{RESERVED, key, type_of};
pub use infer::infer;
pub use observe::Observer;
pub use propose::{LeftOut, Proposal, ProposedField, ProposedType, propose};
pub use shape::{JsonType, NameBudget, ObservedShape};
pub use table::{DriftTable, FieldState, PointerStats};
