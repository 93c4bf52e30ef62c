//! Extracts id, type, time and key of events from a verified delivery: [`Event`].

mod handshake;
mod key;
mod field_selector;
mod rules;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::config::TimeFormat;
use crate::json::{self, JsonKind, Object, Pointer};
use crate::names;
use crate::outcome::{Fault, Reason};
use crate::verify::Verified;
use field_selector::{EventField, FieldSelector};
pub use handshake::{AnswerBody, HandshakeAnswer, Handshakes};
pub use key::{with_binding, without_binding};

/// The limit of an event id, in bytes of UTF-8: it is the record's key and appears in headers.
pub const MAX_ID: usize = 1024;

/// The limit of events in one delivery: each is a record, and all share one deadline.
pub const MAX_EVENTS: usize = 1_000;

/// Hex digits of the body's digest in a key whose id or type is not signed.
pub const KEY_DIGITS: usize = 16;

/// Where the envelope's fields are in the body. The encoder omits from `additional_fields` what the record's id, type and
/// time hold exactly: not the value of a later place, nor a time that milliseconds cannot represent.
#[derive(Clone, Debug)]
pub struct EventPlaces {
    /// The members that may be the id, in order of preference; empty if none is.
    pub id: Vec<Pointer>,
    /// The members that may be the event type.
    pub event_type: Vec<Pointer>,
    /// The members that may be the event's time.
    pub time: Vec<Pointer>,
    /// The value that the schema's `data` describes; an empty pointer for the complete body.
    pub data: Pointer,
}

/// One event of a verified delivery, as slices of its body. No `Debug`, which would show them.
pub struct Event<'v> {
    pub source: &'v str,
    pub id: Cow<'v, str>,
    /// The event type as sent, or the default type.
    pub event_type: Cow<'v, str>,
    /// The event's time; `None` if it is missing or unreadable.
    pub time: Option<Timestamp>,
    /// Which of [`EventPlaces::time`] it was read from; `None` for a header.
    pub time_place: Option<usize>,
    /// When the delivery's request head was complete.
    pub received_at: Timestamp,
    /// The members of the body's root object.
    pub root: Object<'v>,
    /// The value that `EventPlaces::data` points to.
    pub data: Option<&'v RawValue>,
    /// The complete JSON text of the event, as sent.
    pub text: &'v str,
    envelope: Option<&'v Envelope>,
    /// The proof: only a verified delivery can become an event.
    verified: &'v Verified<'v>,
}

impl<'v> Event<'v> {
    /// An event of an arbitrary delivery.
    #[cfg(test)]
    pub(crate) fn for_test(
        id: Cow<'v, str>,
        event_type: Cow<'v, str>,
        time: Option<Timestamp>,
        received_at: Timestamp,
        root: Object<'v>,
        data: Option<&'v RawValue>,
        text: &'v str,
    ) -> Self {
        let verified = crate::verify::proof();
        Self {
            source: "datagrid",
            id,
            event_type,
            time,
            time_place: Some(0),
            received_at,
            root,
            data,
            text,
            envelope: None,
            verified,
        }
    }

    /// The delivery that contains the event.
    pub fn verified(&self) -> &'v Verified<'v> {
        self.verified
    }

    /// The event type that selects the topic: the sent type, or the target of its alias.
    pub fn route(&self) -> &str {
        let alias = self.envelope.and_then(|envelope| envelope.aliases.get(self.event_type.as_ref()));
        alias.map_or(&*self.event_type, String::as_str)
    }

    /// The record's key: the event id, or the value configured for the event's type, prefixed by the secret's binding.
    ///
    /// # Errors
    /// `id_missing` and `id_invalid` if the type's own key is missing or invalid: without a key, or with a substitute,
    /// the record would lose its order.
    pub fn key(&self) -> Result<Cow<'_, str>, Fault> {
        let Some(envelope) = self.envelope else { return Ok(Cow::Borrowed(&self.id)) };
        let Some(key) = envelope.type_key(self.route()) else {
            return Ok(envelope.key_of(&self.id, self.verified));
        };
        let headers = &self.verified.delivery().headers;
        let read = match key.place.text(&self.root, headers, EventField::Id) {
            Ok(Some(text)) => Ok(text),
            Ok(None) => Err(key.place.missing(&self.root, EventField::Id)),
            Err(fault) => Err(fault),
        };
        let text = read.map_err(|fault| fault.at("the key of its type"))?;
        Ok(envelope.with_binding(text, self.verified))
    }

    /// Where the event type is, for messages.
    pub fn type_place(&self) -> Cow<'static, str> {
        let Some(envelope) = self.envelope else { return Cow::Borrowed("the event type") };
        match envelope.event_type.place(&self.root, &self.verified.delivery().headers) {
            Some(place) => Cow::Owned(format!("the event type at {place}")),
            None => Cow::Borrowed("the default event type"),
        }
    }

    /// The fields that the signature does not cover, comma-separated; `None` if it covers all.
    pub fn unsigned(&self) -> Option<&str> {
        let envelope = self.envelope?;
        let type_unsigned = envelope.type_key(self.route()).and_then(|key| key.unsigned.as_deref());
        type_unsigned.or(envelope.unsigned.as_deref())
    }
}

/// The key of one event type's records, if it is not the event id. No digest of the body is added if it is unsigned:
/// its topic does not compact, so no record replaces another.
#[derive(Debug)]
struct Key {
    place: FieldSelector,
    /// All unsigned fields of such a record; `None` if the key is signed.
    unsigned: Option<Box<str>>,
}

/// A source's rules for its envelope, compiled once at start.
#[derive(Debug)]
pub struct Envelope {
    /// In order of preference.
    id: Vec<Id>,
    event_type: FieldSelector,
    default_type: Option<String>,
    /// Whether an event without a type is an event of the type [`names::UNMAPPED`].
    untyped: bool,
    aliases: HashMap<String, String>,
    time: Option<FieldSelector>,
    /// Tried in this order.
    time_formats: Vec<TimeFormat>,
    form: Option<String>,
    split: Option<Pointer>,
    places: EventPlaces,
    /// By event type, if the key is not the event id.
    keys: HashMap<String, Key>,
    headers: Vec<HeaderName>,
    unsigned: Option<Box<str>>,
    /// The headers without a signature, as the rules write them.
    unsigned_headers: Vec<String>,
    /// Whether the key includes the body's digest. If id or type are not signed, somebody who captured a delivery can
    /// send it again under another id or type. With the digest in the key, it cannot replace a genuine event.
    key_with_body: bool,
    /// Whether the source has bound secrets whose keys include the binding.
    key_with_binding: bool,
}

/// The text of an event within its delivery.
struct Text<'v> {
    text: &'v str,
    /// The same text as a raw value, if available.
    raw: Option<&'v RawValue>,
    /// Its index in a delivery that is split.
    index: Option<usize>,
}

/// The origin of the event id.
#[derive(Debug)]
enum Id {
    Digest,
    Part(FieldSelector),
    Join { parts: Vec<FieldSelector>, separator: String },
}

impl Envelope {
    /// Where the envelope's fields are.
    pub fn places(&self) -> &EventPlaces {
        &self.places
    }

    /// The headers that are read although the signature does not cover them, as the rules write them.
    pub fn unsigned_headers(&self) -> &[String] {
        &self.unsigned_headers
    }

    /// The request headers that the rules read.
    pub fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// Whether a delivery may contain several events.
    pub fn splits(&self) -> bool {
        self.split.is_some()
    }

    /// Whether records of this event type have a key other than the event id: then many share one key.
    pub fn has_own_key(&self, event_type: &str) -> bool {
        self.type_key(event_type).is_some()
    }

    fn type_key(&self, event_type: &str) -> Option<&Key> {
        if self.keys.is_empty() { None } else { self.keys.get(event_type) }
    }

    /// The JSON text of a verified delivery, not yet parsed: the body, or a field of the form in the body, after the body
    /// was decoded if it is compressed.
    ///
    /// # Errors
    /// `json_invalid` for a form that lacks the field, has it twice, or is not UTF-8, and for a body that cannot be
    /// decoded; `body_too_large`.
    pub fn payload<'v>(&self, verified: &'v Verified<'_>) -> Result<Cow<'v, [u8]>, Fault> {
        verified.delivery().payload(verified.content()?, self.form.as_deref())
    }

    /// Opens a verified delivery's [`Envelope::payload`]: its one event, or the 1 to [`MAX_EVENTS`] events of a
    /// delivery that is split.
    ///
    /// # Errors
    /// Faults that make the complete delivery a dead letter: `json_invalid`, `json_too_deep`, `duplicate_key`,
    /// `id_missing`, `id_invalid`, `type_missing`, `shape_mismatch` (not an object; too many events). And `no_events` for
    /// an empty list, which needs only an answer.
    pub fn extract_events<'v>(
        &'v self,
        source: &'v str,
        verified: &'v Verified<'v>,
        payload: &'v [u8],
    ) -> Result<Vec<Event<'v>>, Fault> {
        let Some(split) = &self.split else {
            let opened = json::object(payload).map_err(in_root)?;
            let Some((text, root)) = opened else { return Err(not_an_object(json::check(payload)?)) };
            return Ok(vec![self.event(source, verified, Text { text, raw: None, index: None }, root)?]);
        };
        let body = json::check(payload)?;
        let misfit = |detail: String| Fault::new(Reason::ShapeMismatch, detail);
        let array = if split.names().is_empty() { Some(body) } else { split.find(&root(body)?)? };
        let events = array.and_then(json::elements).ok_or_else(|| {
            let found = array.map_or("nothing", |raw| JsonKind::of(raw).name());
            misfit(format!("at {}: expected an array of events, found {found}", shown(split)))
        })?;
        match events.len() {
            0 => Err(Reason::NoEvents.into()),
            n if n > MAX_EVENTS => {
                Err(misfit(format!("at {}: {n} events, more than {MAX_EVENTS}", shown(split))))
            }
            _ => {
                let events = events.into_iter().enumerate();
                let event = |(index, raw): (usize, &'v RawValue)| {
                    let text = Text { text: raw.get(), raw: Some(raw), index: Some(index) };
                    let event = root(raw).and_then(|root| self.event(source, verified, text, root));
                    event.map_err(|fault| fault.at(format_args!("event {}", index + 1)))
                };
                events.map(event).collect()
            }
        }
    }

    fn event<'v>(
        &'v self,
        source: &'v str,
        verified: &'v Verified<'v>,
        Text { text, raw, index }: Text<'v>,
        root: Object<'v>,
    ) -> Result<Event<'v>, Fault> {
        let delivery = verified.delivery();
        let id = self.id(&root, verified, index)?;
        let event_type = self.event_type(&root, &delivery.headers)?;
        let read = match &self.time {
            Some(place) => place.time(&root, &delivery.headers, &self.time_formats)?,
            None => None,
        };
        let (time, time_place) = read.map_or((None, None), |(time, place)| (Some(time), place));
        let data = if self.places.data.names().is_empty() {
            Some(raw.map_or_else(|| json::check(text.as_bytes()), Ok)?)
        } else {
            self.places.data.find(&root)?
        };
        let received_at = delivery.received_at;
        let envelope = Some(self);
        Ok(Event {
            source,
            id,
            event_type,
            time,
            time_place,
            received_at,
            root,
            data,
            text,
            envelope,
            verified,
        })
    }

    /// The id of a delivery if it is readable, else the digest; always the digest if the delivery is split.
    pub fn id_or_digest(&self, verified: &Verified<'_>) -> String {
        let read = || {
            let payload = self.payload(verified)?;
            let Some((_, root)) = json::object(&payload)? else { return Ok(None) };
            self.id(&root, verified, None).map(|id| Some(id.into_owned()))
        };
        if self.split.is_some() {
            return digest(verified);
        }
        read().unwrap_or(None).unwrap_or_else(|| digest(verified))
    }

    /// The key of a delivery that is not an event.
    pub fn key(&self, verified: &Verified<'_>) -> String {
        self.key_of(&self.id_or_digest(verified), verified).into_owned()
    }

    /// Takes an event without a type as one of the type [`names::UNMAPPED`], for a source that publishes unmapped types.
    pub fn with_untyped(self, untyped: bool) -> Self {
        Self { untyped, ..self }
    }

    /// Includes the secrets' bindings in the keys, for a source with bound secrets.
    pub fn separating(self, bindings: bool) -> Self {
        Self { key_with_binding: bindings, ..self }
    }

    fn with_binding<'k>(&self, key: Cow<'k, str>, verified: &Verified<'_>) -> Cow<'k, str> {
        if self.key_with_binding { key::with_binding(verified.bound_to(), key) } else { key }
    }

    fn key_of<'k>(&self, id: &'k str, verified: &Verified<'_>) -> Cow<'k, str> {
        if !self.key_with_body {
            return self.with_binding(Cow::Borrowed(id), verified);
        }
        let mut digits = hex::encode(verified.digest());
        digits.truncate(KEY_DIGITS);
        self.with_binding(Cow::Owned(format!("{id}:{digits}")), verified)
    }

    /// The first id that is present.
    fn id<'v>(
        &self,
        root: &Object<'v>,
        verified: &'v Verified<'v>,
        index: Option<usize>,
    ) -> Result<Cow<'v, str>, Fault> {
        for rule in &self.id {
            if let Some(id) = rule.read(root, verified, index)? {
                return Ok(id);
            }
        }
        let headers = &verified.delivery().headers;
        let missing: Vec<String> = self.id.iter().filter_map(|rule| rule.missing(root, headers)).collect();
        Err(Fault::new(Reason::IdMissing, missing.join("; ")))
    }

    fn event_type<'v>(&self, root: &Object<'v>, headers: &'v HeaderMap) -> Result<Cow<'v, str>, Fault> {
        let fault = match (self.event_type.text(root, headers, EventField::Type), &self.default_type) {
            (Ok(Some(text)), _) => return Ok(text),
            (Ok(None), Some(default)) => return Ok(Cow::Owned(default.clone())),
            (Ok(None), None) => self.event_type.missing(root, EventField::Type),
            (Err(fault), _) => fault,
        };
        // A duplicate key is no lack of a type.
        if self.untyped && fault.reason == Reason::TypeMissing {
            return Ok(Cow::Borrowed(names::UNMAPPED));
        }
        Err(fault)
    }
}

impl Id {
    /// The members of the body that are the id, not only a part of it.
    fn pointers(&self) -> impl Iterator<Item = &Pointer> {
        let place = match self {
            Self::Part(place) => Some(place),
            Self::Digest | Self::Join { .. } => None,
        };
        place.into_iter().flat_map(FieldSelector::pointers)
    }

    /// `None` if it is missing, or one of its parts.
    fn read<'v>(
        &self,
        root: &Object<'v>,
        verified: &'v Verified<'v>,
        index: Option<usize>,
    ) -> Result<Option<Cow<'v, str>>, Fault> {
        let headers = &verified.delivery().headers;
        match self {
            Self::Digest => Ok(Some(Cow::Owned(match index {
                // All events came in one body; a retry sends them in the same order.
                Some(index) => format!("{}:{index}", digest(verified)),
                None => digest(verified),
            }))),
            Self::Part(place) => place.text(root, headers, EventField::Id),
            Self::Join { parts, separator } => {
                let mut read = Vec::with_capacity(parts.len());
                for (index, place) in parts.iter().enumerate() {
                    let part = place
                        .text(root, headers, EventField::Id)
                        .map_err(|fault| fault.at(part_name(index)))?;
                    let Some(part) = part else { return Ok(None) };
                    read.push(part);
                }
                let joined = read.join(separator.as_str());
                // Otherwise `a:b` and `c` would give the same id as `a` and `b:c`, and one event would be lost.
                let split = joined.splitn(read.len(), separator.as_str());
                if let Some(index) = split.zip(&read).position(|(found, part)| found != *part) {
                    let place = parts.get(index).and_then(|place| place.place(root, headers));
                    let place = place.map(|place| format!(" at {place}")).unwrap_or_default();
                    let detail = format!("{}{place}: it contains the separator", part_name(index));
                    return Err(Fault::new(Reason::IdInvalid, detail));
                }
                valid(Cow::Owned(joined)).map(Some).map_err(|fault| fault.at("the joined id"))
            }
        }
    }

    /// The place of an id, or of its part, that is missing.
    fn missing(&self, root: &Object<'_>, headers: &HeaderMap) -> Option<String> {
        let describe = |place: &FieldSelector| place.missing(root, EventField::Id).detail;
        match self {
            Self::Digest => None,
            Self::Part(place) => describe(place).map(Cow::into_owned),
            Self::Join { parts, .. } => parts.iter().enumerate().find_map(|(index, place)| {
                let missing = place.place(root, headers).is_none();
                let place = describe(place).filter(|_| missing)?;
                Some(format!("{}: {place}", part_name(index)))
            }),
        }
    }
}

/// The name of a part of a joined id, counted from 1.
fn part_name(index: usize) -> String {
    format!("part {}", index + 1)
}

fn root(body: &RawValue) -> Result<Object<'_>, Fault> {
    Object::open(body).map_err(in_root)?.ok_or_else(|| not_an_object(body))
}

fn in_root(fault: Fault) -> Fault {
    fault.or_detail(|| String::from("in the root object"))
}

fn not_an_object(body: &RawValue) -> Fault {
    let found = JsonKind::of(body).name();
    Fault::new(Reason::ShapeMismatch, format!("expected an object as the event, found {found}"))
}

/// A pointer for messages.
fn shown(pointer: &Pointer) -> String {
    if pointer.names().is_empty() { String::from("the root") } else { pointer.to_string() }
}

fn valid(id: Cow<'_, str>) -> Result<Cow<'_, str>, Fault> {
    let invalid = |detail: &'static str| Fault::new(Reason::IdInvalid, detail);
    match id.len() {
        0 => Err(invalid("it is empty")),
        n if n > MAX_ID => Err(invalid("it is longer than 1,024 bytes")),
        _ if id.chars().any(char::is_control) => Err(invalid("it contains a control character")),
        _ => Ok(id),
    }
}

/// `sha256:` and the hex digest of the signed body.
fn digest(verified: &Verified<'_>) -> String {
    format!("sha256:{}", hex::encode(verified.digest()))
}
