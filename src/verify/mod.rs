//! (to come)

pub mod canonical;
