//! What the events of a delivery leave to `additional_fields`.

use crate::schema::Encoded;

/// Of one event, to be counted once it is durable.
#[derive(Debug)]
pub struct UnmappedFields {
    /// One of the source's `types`, or what stands for all others.
    pub event_type: String,
    /// How many values did not fit their fields.
    pub misfits: usize,
    /// See [`Encoded::drift`].
    pub drift: Vec<String>,
}

impl UnmappedFields {
    /// Takes it out of an encoding; `None` where there is nothing to count, which is the rule.
    pub fn from_encoded(event_type: &str, encoded: &mut Encoded) -> Option<Self> {
        let (misfits, drift) = (encoded.misfits, std::mem::take(&mut encoded.drift));
        let any = misfits > 0 || !drift.is_empty();
        any.then(|| Self { event_type: event_type.to_owned(), misfits, drift })
    }
}
