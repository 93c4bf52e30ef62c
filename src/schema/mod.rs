//! Avro: JSON in, framed values out; and the schemas that come with the binary.

pub mod decode;
pub mod encode;
mod instant;
mod number;
mod places;
mod plan;
pub mod shipped;
mod walk;

pub use encode::{Encoded, Encoder, Misfit};
