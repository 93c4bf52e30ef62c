//! From an event's raw JSON to Confluent's wire format, in one walk over the compiled schema.

use std::borrow::Cow;

use crate::envelope::{Event, Places};

/// A framed value: 0x00, the schema id big-endian, Avro.
#[derive(Debug)]
pub struct Encoded {
    /// The record's value.
    pub value: Vec<u8>,
    /// Pointers of what went to `additional_fields`.
    pub additional: Vec<String>,
}

/// Why an event does not fit its schema. No payload inside.
#[derive(Debug)]
pub struct Misfit {
    /// Where, from the body's root.
    pub pointer: String,
    /// What the schema asks for.
    pub expected: Cow<'static, str>,
    /// What stands there.
    pub found: &'static str,
}

/// A schema compiled to a plan, with the id the registry gave it.
#[derive(Debug)]
pub struct Encoder {}

impl Encoder {
    /// Compiles `schema`.
    pub fn compile(_schema: &apache_avro::Schema, _id: u32, _places: &Places) -> Result<Self, String> {
        Err(String::new())
    }

    /// Encodes one event.
    pub fn encode(&self, _event: &Event<'_>) -> Result<Encoded, Misfit> {
        Ok(Encoded { value: Vec::new(), additional: Vec::new() })
    }
}
