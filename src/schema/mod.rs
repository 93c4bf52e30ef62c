//! Avro: JSON in, framed values out.

pub mod encode;

pub use encode::{Encoded, Encoder, Misfit};
