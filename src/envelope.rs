//! Id, type, time and key of an event: from a verified delivery to an [`Event`].

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::json::{Object, Pointer};

/// The bound of an event id, in bytes of UTF-8: it is the record's key and stands in headers.
pub const MAX_ID: usize = 1024;

/// Where the parts that the envelope speaks for stand in the body. The encoder leaves them out
/// of `additional_fields`, except a time that milliseconds cannot give back.
#[derive(Clone, Debug)]
pub struct Places {
    /// `None` where the id is a digest.
    pub id: Option<Pointer>,
    /// The event type.
    pub event_type: Pointer,
    /// The event's time.
    pub time: Pointer,
    /// The part that the schema's `data` types.
    pub data: Pointer,
}

/// One event of a verified delivery; slices of its body.
#[derive(Debug)]
pub struct Event<'v> {
    /// The source's name.
    pub source: &'v str,
    /// The event id; the record's key.
    pub id: Cow<'v, str>,
    /// The event type as sent.
    pub event_type: Cow<'v, str>,
    /// `None` where it is missing or cannot be read.
    pub time: Option<Timestamp>,
    /// When the delivery's head was complete.
    pub received_at: Timestamp,
    /// The members of the body's root object.
    pub root: Object<'v>,
    /// What `Places::data` points to.
    pub data: Option<&'v RawValue>,
}
