//! The fields that an event leaves to `additional_fields`.

use crate::schema::Encoded;

/// The unmapped fields of one event, counted once it is durable.
#[derive(Debug)]
pub struct UnmappedFields {
    /// One of the source's `types`, or the name for all others.
    pub event_type: String,
    /// The number of values that did not fit their fields.
    pub misfits: usize,
    /// See [`Encoded::drift`].
    pub drift: Vec<String>,
}

impl UnmappedFields {
    /// Takes the fields from an encoding; `None` if there is nothing to count, which is the rule.
    pub fn from_encoded(event_type: &str, encoded: &mut Encoded) -> Option<Self> {
        let (misfits, drift) = (encoded.misfits, std::mem::take(&mut encoded.drift));
        let any = misfits > 0 || !drift.is_empty();
        any.then(|| Self { event_type: event_type.to_owned(), misfits, drift })
    }
}
