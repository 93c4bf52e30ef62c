//! (to come)

pub mod embedded;
