//! Records: topic, key, value, timestamp and headers.

mod dead_letter;
mod replay_outcome;

pub mod headers;

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderName;
use jiff::Timestamp;

use crate::envelope::Event;
use crate::outcome::Fault;
use crate::schema::Encoded;
use crate::verify::Verified;
pub use dead_letter::DeadLetter;
pub use replay_outcome::{RecordId, ReplayOutcome};

/// The value of a dead letter whose body is empty: a record without a value would be a tombstone.
const EMPTY_BODY: &[u8] = br#"{"hookstream":"the delivery had an empty body"}"#;

/// Name and text. Constants are borrowed, not copied.
pub type Header = (Cow<'static, str>, Cow<'static, str>);

/// In the order in which they are written.
pub type Headers = Vec<Header>;

/// The length up to which a sender's `traceparent` is passed on; version 00 has 55 characters.
const MAX_TRACEPARENT: usize = 128;

/// A complete record. Only a [`Verified`] delivery can become one, except for [`Record::from_spool`]: the spool only ever
/// held complete records.
#[derive(Clone)]
pub struct Record {
    topic: Arc<str>,
    key: String,
    value: Vec<u8>,
    timestamp: Timestamp,
    headers: Headers,
}

/// The parts of a record, as a row of the spool stores them.
pub struct RecordParts {
    pub topic: Arc<str>,
    /// See [`Record::key`].
    pub key: String,
    /// Never empty.
    pub value: Vec<u8>,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// In order.
    pub headers: Headers,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("topic", &self.topic)
            .field("value_bytes", &self.value.len())
            .finish_non_exhaustive()
    }
}

impl Record {
    /// The record of an event, with the attributes of the CloudEvents Kafka binding (1.0, binary content mode) as headers.
    ///
    /// # Errors
    /// See [`Event::key`].
    pub fn event(topic: &Arc<str>, event: &Event<'_>, encoded: Encoded) -> Result<Self, Fault> {
        let key = event.key()?.into_owned();
        let mut headers: Headers = Vec::with_capacity(10);
        headers.push((headers::CE_SPECVERSION.into(), "1.0".into()));
        headers.push((headers::CE_ID.into(), event.id.to_string().into()));
        headers.push((headers::CE_SOURCE.into(), format!("/hooks/{}", event.source).into()));
        headers.push((headers::CE_TYPE.into(), event.event_type.to_string().into()));
        if let Some(time) = event.time {
            headers.push((headers::CE_TIME.into(), time.to_string().into()));
        }
        headers.push((headers::CONTENT_TYPE.into(), headers::AVRO.into()));
        provenance(&mut headers, event.verified());
        if let Some(fields) = event.unsigned() {
            headers.push((headers::UNSIGNED.into(), fields.to_owned().into()));
        }
        Ok(Self { topic: topic.clone(), key, value: encoded.value, timestamp: event.received_at, headers })
    }

    /// The dead letter of a delivery that is authentic but not an event: its raw body, and everything that a replay needs.
    /// `original_topic` is the topic that the event would have gone to, if known; `read` are the request headers that the
    /// envelope's rules read, which are stored whatever their names.
    pub fn dead_letter<'d>(
        topic: &Arc<str>,
        key: String,
        original_topic: Option<&str>,
        verified: &Verified<'d>,
        read: &'d [HeaderName],
        why: &Fault,
    ) -> Self {
        let delivery = verified.delivery();
        let mut headers: Headers = Vec::with_capacity(10);
        headers.push((headers::REASON.into(), why.reason.info().label.into()));
        if let Some(detail) = &why.detail {
            headers.push((headers::DETAIL.into(), detail.to_string().into()));
        }
        if let Some(original) = original_topic {
            headers.push((headers::ORIGINAL_TOPIC.into(), original.to_owned().into()));
        }
        let kept = verified.kept(read);
        let kept_headers =
            kept.iter().map(|(name, value)| ((*name).to_owned().into(), (*value).to_owned().into()));
        headers.extend(kept_headers);
        headers.push((headers::FORM.into(), verified.form().label().into()));
        headers.push((headers::SEAL.into(), verified.seal(&kept).into()));
        provenance(&mut headers, verified);
        let value = if delivery.body.is_empty() { EMPTY_BODY } else { &delivery.body };
        Self { topic: topic.clone(), key, value: value.to_vec(), timestamp: delivery.received_at, headers }
    }

    /// Marks the record as made from the dead letter at `place`.
    pub fn replayed(mut self, place: &RecordId) -> Self {
        self.headers.push((headers::REPLAYED.into(), place.to_string().into()));
        self
    }

    /// The outcome of a replayed dead letter, for the topic of outcomes. The key is the dead letter's place, so that
    /// compaction retains the last outcome.
    ///
    /// # Errors
    /// The outcome cannot be written as JSON.
    pub fn outcome(
        topic: &Arc<str>,
        verified: &Verified<'_>,
        place: &RecordId,
        replayed: &ReplayOutcome,
    ) -> serde_json::Result<Self> {
        let headers = vec![(headers::DELIVERY_ID.into(), verified.delivery().id.to_string().into())];
        let (key, value) = (place.to_string(), serde_json::to_vec(replayed)?);
        Ok(Self { topic: topic.clone(), key, value, timestamp: Timestamp::now(), headers })
    }

    /// Replaces the sender's `traceparent` with that of hookstream's span below it.
    pub fn traced(mut self, traceparent: &str) -> Self {
        // The sender's is directly before this header, if there was one (see `provenance`). An earlier header of the
        // same name is covered by a dead letter's seal.
        let at = self.headers.iter().rposition(|(name, _)| name == headers::DELIVERY_ID).unwrap_or_default();
        let value = traceparent.to_owned().into();
        match at.checked_sub(1).and_then(|before| self.headers.get_mut(before)) {
            Some((name, sent)) if name == headers::TRACEPARENT => *sent = value,
            _ => self.headers.insert(at, (headers::TRACEPARENT.into(), value)),
        }
        self
    }

    /// Restores a record from the spool. Its delivery was verified before the row was written, and the row has neither body
    /// nor signature to verify again. Anybody who can write the spool's file could also write to Kafka with the service's
    /// rights. `None` if the parts cannot have been a record: an empty value, or a timestamp out of range.
    pub fn from_spool(parts: RecordParts) -> Option<Self> {
        let RecordParts { topic, key, value, timestamp_ms, headers } = parts;
        let timestamp = Timestamp::from_millisecond(timestamp_ms).ok()?;
        (!value.is_empty()).then_some(Self { topic, key, value, timestamp, headers })
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The event id, or the digest that replaces it, followed by a digest of the body if the id is not signed. Or the key
    /// that is configured for the event's type.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Never empty: no delivery may become a tombstone.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// The time of receipt, in milliseconds since 1970. Not the timestamp that Kafka assigns.
    pub fn timestamp_ms(&self) -> i64 {
        self.timestamp.as_millisecond()
    }

    /// The comma-separated fields of the event that the signature does not cover.
    pub fn unsigned(&self) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == headers::UNSIGNED).map(|(_, fields)| &**fields)
    }

    /// The headers. Text is UTF-8, times are RFC 3339.
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }
}

/// Adds the headers that every record has.
fn provenance(headers: &mut Headers, verified: &Verified<'_>) {
    let delivery = verified.delivery();
    let traceparent = delivery.headers.get(headers::TRACEPARENT).and_then(|value| value.to_str().ok());
    if let Some(traceparent) = traceparent.filter(|text| text.len() <= MAX_TRACEPARENT) {
        headers.push((headers::TRACEPARENT.into(), traceparent.to_owned().into()));
    }
    headers.push((headers::DELIVERY_ID.into(), delivery.id.to_string().into()));
    headers.push((headers::RECEIVED_AT.into(), delivery.received_at.to_string().into()));
    headers.push((headers::SECRET.into(), verified.secret().to_owned().into()));
}
