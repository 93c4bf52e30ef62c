//! (to come)

pub mod output;
