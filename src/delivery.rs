//! What arrived over HTTP, and how long we may take to answer it: plain data.

mod payload;

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Uri};
use jiff::Timestamp;
use uuid::Uuid;

/// Names one delivery in the answer's `Hookstream-Delivery` header, the log line, the record's
/// headers and the dead letter. A UUID of version 7, so that ids sort by time of arrival.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliveryId(Uuid);

impl DeliveryId {
    /// A fresh id.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// One that was given before, as it is shown.
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

/// What arrived, complete and unproven. `Debug` hides headers and body: both may hold what a
/// log must never show.
#[derive(Clone)]
pub struct Delivery {
    /// Given by us at the complete request head.
    pub id: DeliveryId,
    /// As in the request line.
    pub uri: Uri,
    /// As received, not yet judged.
    pub headers: HeaderMap,
    /// Exactly the bytes of the body.
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

/// When Kafka's share of the time ends and when the answer is due. Both count from the
/// complete request head, so that a slow body eats into our own share and never into the
/// provider's patience.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// Past this, a record that is not acknowledged is answered as unavailable.
    pub kafka: Instant,
    /// Past this, no answer may be outstanding.
    pub answer: Instant,
}

impl Deadline {
    /// What is kept back from Kafka's share to write the answer, where there is no spool to turn to.
    pub const ANSWER: Duration = Duration::from_millis(200);

    /// The deadline of a delivery whose head was complete at `start`. `reserve` is kept back from
    /// Kafka's share for what comes after it.
    pub fn new(start: Instant, ack_deadline: Duration, reserve: Duration) -> Self {
        Self { kafka: start + ack_deadline.saturating_sub(reserve), answer: start + ack_deadline }
    }
}
