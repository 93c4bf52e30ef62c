//! The decision about a verified delivery: records for Kafka, a dead letter, or only an answer.
//!
//! [`decide`] does no I/O and is the only way from a verified delivery to its records, so that `explain` and `replay`
//! show what the service would do.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use crate::envelope::{Event, HandshakeAnswer};
use crate::names;
use crate::outcome::{Fault, Outcome, Reason};
use crate::record::Record;
use crate::sources::{Source, UnmappedFields};
use crate::verify::Verified;

/// An event type is shown up to this many characters, the limit of a topic's name.
const MAX_SHOWN_TYPE: usize = names::MAX_TOPIC;

/// A decision and what it is about.
pub struct Decided<P> {
    /// The first event, if the body could be read that far.
    pub event: Option<EventRef>,
    pub decision: Decision,
    /// What `admit` gave; hold it until the records are durable. `None` for a handshake and for a refused delivery.
    pub permit: Option<P>,
}

/// What to do with a verified delivery.
pub enum Decision {
    /// Answer, and publish nothing: the delivery has no event.
    Handled {
        /// What it is instead.
        why: Fault,
        /// What the provider wants as the answer to a handshake.
        answer: Option<HandshakeAnswer>,
    },
    /// Publish the records of one event or several.
    Publish(EncodedRecords),
    /// Write a dead letter: the delivery is authentic but not an event.
    DeadLetter {
        /// The topic that the event would have gone to, if its type is known.
        intended_topic: Option<Arc<str>>,
        /// Why it is not published.
        why: Fault,
    },
    /// Answer 503: the cause is here, and the sender should retry. Or 413: decoded, the body is larger than any that is
    /// accepted without compression.
    Unavailable(Fault),
}

/// The records of one delivery.
pub struct EncodedRecords {
    /// The topic of the first record.
    pub topic: Arc<str>,
    /// At least one.
    pub records: Vec<Record>,
    /// For each event with members that its schema has no field for, those members; usually empty.
    pub unmapped: Vec<UnmappedFields>,
}

/// The id and type of an event, for answer and log.
#[derive(Debug, Clone)]
pub struct EventRef {
    pub id: String,
    /// The event type, cut if it is longer than any topic's name.
    pub event_type: String,
    /// The number of events in the delivery, if its source splits deliveries.
    pub events: Option<usize>,
}

impl Decision {
    fn dead_letter(intended_topic: Option<Arc<str>>, why: Fault) -> Self {
        Self::DeadLetter { intended_topic, why }
    }

    /// The decision about a delivery whose events cannot be extracted.
    fn without_events(why: Fault) -> Self {
        match why.reason.info().outcome {
            Outcome::Handled => Self::Handled { why, answer: None },
            Outcome::Refused => Self::Unavailable(why),
            _ => Self::dead_letter(None, why),
        }
    }
}

/// Decides about one verified delivery. `stale` is the fault to apply if its signature is too old. `admit` runs once
/// the delivery is known not to be a handshake and before its events are extracted: rate limits and places in flight
/// are not spent on handshakes, and a delivery that is over a limit costs no encoding.
pub fn decide<P>(
    source: &Source,
    verified: &Verified<'_>,
    stale: Option<Fault>,
    admit: impl FnOnce() -> Result<P, Fault>,
) -> Decided<P> {
    let payload = source.envelope.payload(verified);
    if let Some(answer) = source.handshakes.answer(verified, payload.as_deref().unwrap_or_default()) {
        let decision = Decision::Handled { why: Reason::Handshake.into(), answer: Some(answer) };
        return Decided { event: None, decision, permit: None };
    }
    let permit = match admit() {
        Ok(permit) => permit,
        Err(why) => return Decided { event: None, decision: Decision::Unavailable(why), permit: None },
    };
    let (event, decision) = decide_events(source, verified, payload);
    let decision = match (stale, decision) {
        // The age decides last: a dead letter names the first fault of the body, and its topic.
        (Some(why), Decision::Publish(EncodedRecords { topic, .. })) => {
            Decision::dead_letter(Some(topic), why)
        }
        (_, decision) => decision,
    };
    Decided { event, decision, permit: Some(permit) }
}

/// Why a body cannot be read. If its head says that it is compressed, that is the likely cause, but not a certain one.
fn unread(source: &Source, verified: &Verified<'_>, why: Fault) -> Fault {
    if why.reason != Reason::JsonInvalid || !source.reads_compressed(verified.delivery()) {
        return why;
    }
    let detail = why.detail.as_deref().unwrap_or(why.reason.info().text);
    let hint = "by its Content-Encoding it is compressed: set content_encoding, and replay the dead letter";
    Fault::new(why.reason, format!("{detail}; {hint}"))
}

/// Extracts and encodes the events of a delivery's JSON text.
fn decide_events(
    source: &Source,
    verified: &Verified<'_>,
    payload: Result<Cow<'_, [u8]>, Fault>,
) -> (Option<EventRef>, Decision) {
    let payload = match payload {
        Ok(payload) => payload,
        Err(why) => return (None, Decision::without_events(unread(source, verified, why))),
    };
    let events = match source.envelope.extract_events(&source.name, verified, &payload) {
        Ok(events) => events,
        Err(why) => return (None, Decision::without_events(unread(source, verified, why))),
    };
    let event = events.first().map(|event| {
        // An unknown type is arbitrary text of the body, and this goes to the log.
        let end = event.event_type.char_indices().nth(MAX_SHOWN_TYPE).map(|(end, _)| end);
        let event_type =
            end.and_then(|end| event.event_type.get(..end)).unwrap_or(&event.event_type).to_owned();
        let count = source.envelope.splits().then_some(events.len());
        EventRef { id: event.id.as_ref().into(), event_type, events: count }
    });
    (event, encode(source, &events))
}

/// All or nothing: the first event that cannot be encoded decides for the whole delivery.
fn encode(source: &Source, events: &[Event<'_>]) -> Decision {
    let (mut first, mut records, mut unmapped) = (None, Vec::with_capacity(events.len()), Vec::new());
    for event in events {
        let Some(route) = source.route(event.route()) else {
            let detail = format!("{} is not among the source's `types`", event.type_place());
            return Decision::dead_letter(None, Fault::new(Reason::TypeUnknown, detail));
        };
        let encoder = match route.encoder() {
            Ok(encoder) => encoder,
            Err(why) => return Decision::Unavailable(why),
        };
        let record = encoder.encode(event).and_then(|mut encoded| {
            unmapped.extend(UnmappedFields::from_encoded(event.route(), &mut encoded));
            Record::event(&route.topic, event, encoded)
        });
        match record {
            Ok(record) => records.push(record),
            Err(why) => return Decision::dead_letter(Some(route.topic.clone()), why),
        }
        first.get_or_insert(&route.topic);
    }
    match first {
        Some(topic) => Decision::Publish(EncodedRecords { topic: topic.clone(), records, unmapped }),
        None => Decision::without_events(Reason::NoEvents.into()),
    }
}
