//! What comes that a schema has no field for, seen from the topics: the shapes of it, and the schema
//! that would take it. Pure: topics, files and the registry are the commands' matter.

mod edit;
mod fields;
mod infer;
mod observe;
mod propose;
mod shape;
mod table;
mod tree;

pub use edit::insert;
pub(super) use fields::type_of;
pub use fields::{Fields, SchemaPath};
pub use infer::infer;
pub use observe::Observer;
pub use propose::{LeftOut, Proposal, ProposedField, ProposedType, propose};
pub use shape::{JsonType, NameBudget, ObservedShape};
pub use table::{DriftTable, FieldState, PointerStats};
