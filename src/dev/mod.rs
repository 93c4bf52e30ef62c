//! (to come)

pub mod forward;
pub mod registry;
