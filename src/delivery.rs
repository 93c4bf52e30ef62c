//! A received delivery and its deadline: plain data.

mod content_coding;
mod payload;

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Uri};
use jiff::Timestamp;
use uuid::Uuid;

pub use content_coding::ContentCoding;

/// Identifies one delivery in the answer's `Hookstream-Delivery` header, the log line, the record's headers and the
/// dead letter. A UUID of version 7, so that ids sort by time of arrival.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliveryId(Uuid);

impl DeliveryId {
    /// Creates a new id.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Parses an id from its text form.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl Default for DeliveryId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A received delivery, complete and not yet verified. `Debug` hides headers and body: both may contain secrets or
/// payloads, which must never be logged.
#[derive(Clone)]
pub struct Delivery {
    /// Assigned by the service when the request head is complete.
    pub id: DeliveryId,
    /// The URI of the request line.
    pub uri: Uri,
    /// The headers as received, not yet verified.
    pub headers: HeaderMap,
    /// The exact bytes of the body; of a compressed body whose decoded bytes are signed, those.
    pub body: Bytes,
    /// When the request head was complete; the timestamp of the Kafka record.
    pub received_at: Timestamp,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id)
            .field("body_bytes", &self.body.len())
            .field("received_at", &self.received_at)
            .finish_non_exhaustive()
    }
}

/// The deadlines for Kafka's acknowledgement and for the answer. Both count from the complete request head, so that a
/// slow body shortens the service's own time and never exceeds the provider's time-out.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// The deadline for Kafka: after it, a record without an acknowledgement is answered as unavailable.
    pub kafka: Instant,
    /// The deadline for the answer.
    pub answer: Instant,
}

impl Deadline {
    /// The part of Kafka's time reserved for writing the answer if there is no spool to fall back on.
    pub const ANSWER: Duration = Duration::from_millis(200);

    /// Computes the deadlines of a delivery whose head was complete at `start`. `reserve` is subtracted from Kafka's
    /// time for the steps after it.
    pub fn new(start: Instant, ack_deadline: Duration, reserve: Duration) -> Self {
        Self { kafka: start + ack_deadline.saturating_sub(reserve), answer: start + ack_deadline }
    }
}
