//! Id, type, time and key of an event: from a verified delivery to an [`Event`].

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
use sha2::{Digest, Sha256};

use crate::config::TimeFormat;
use crate::json::{self, Object, Pointer};
use crate::outcome::{Fault, Reason};
use crate::verify::Verified;
use field_selector::FieldSelector;
pub use handshake::Handshakes;
pub use key::{with_binding, without_binding};

/// The bound of an event id, in bytes of UTF-8: it is the record's key and stands in headers.
pub const MAX_ID: usize = 1024;

/// The bound of events in one delivery: each is a record, and all share one deadline.
pub const MAX_EVENTS: usize = 1_000;

/// Hex digits of the body's digest in a key whose id or type is not signed.
const KEY_DIGITS: usize = 16;

/// Where the parts that the envelope speaks for stand in the body. The encoder leaves them out
/// of `additional_fields`, except a time that milliseconds cannot give back.
#[derive(Clone, Debug)]
pub struct Places {
    /// `None` where no single member of the body is the id.
    pub id: Option<Pointer>,
    /// The event type; `None` where it comes from a header.
    pub event_type: Option<Pointer>,
    /// The event's time; `None` where there is none, or it comes from a header.
    pub time: Option<Pointer>,
    /// The part that the schema's `data` types; of no names for the whole body.
    pub data: Pointer,
}

/// One event of a verified delivery; slices of its body. No `Debug`: it would show them.
pub struct Event<'v> {
    /// The source's name.
    pub source: &'v str,
    /// The event id.
    pub id: Cow<'v, str>,
    /// The event type as sent, or the default one.
    pub event_type: Cow<'v, str>,
    /// `None` where it is missing or cannot be read.
    pub time: Option<Timestamp>,
    /// When the delivery's head was complete.
    pub received_at: Timestamp,
    /// The members of the body's root object.
    pub root: Object<'v>,
    /// What `Places::data` points to.
    pub data: Option<&'v RawValue>,
    /// All of the event, as sent.
    pub text: &'v str,
    envelope: Option<&'v Envelope>,
    /// The proof. Nothing but a verified delivery can become an event.
    verified: &'v Verified<'v>,
}

impl<'v> Event<'v> {
    /// An event of a delivery that stands for any.
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
            received_at,
            root,
            data,
            text,
            envelope: None,
            verified,
        }
    }

    /// The delivery it came in.
    pub fn verified(&self) -> &'v Verified<'v> {
        self.verified
    }

    /// The event type that decides on the topic: the sent one, or what it is an alias of.
    pub fn route(&self) -> &str {
        let alias = self.envelope.and_then(|envelope| envelope.aliases.get(self.event_type.as_ref()));
        alias.map_or(&*self.event_type, String::as_str)
    }

    /// The record's key: the event id, or what the event's type has in its place, behind what the secret is bound to.
    ///
    /// # Errors
    /// `id_missing` and `id_invalid` where the type's own key is so: a record without a key, or with one
    /// that stands for it, would leave its order.
    pub fn key(&self) -> Result<Cow<'_, str>, Fault> {
        let Some(envelope) = self.envelope else { return Ok(Cow::Borrowed(&self.id)) };
        let Some(key) = envelope.own_key(self.route()) else {
            return Ok(envelope.key_of(&self.id, self.verified));
        };
        let found = key.place.key(&self.root, &self.verified.delivery().headers);
        let text = found.and_then(|text| valid(text.ok_or(Reason::IdMissing)?));
        text.map(|text| envelope.with_binding(text, self.verified)).map_err(|Fault { reason, detail }| {
            match detail {
                Some(detail) => Fault::new(reason, format!("the key: {detail}")),
                None => Fault::new(reason, "the key of its type"),
            }
        })
    }

    /// The fields that the signature does not cover, with commas between; `None` where it covers all.
    pub fn unsigned(&self) -> Option<&str> {
        let envelope = self.envelope?;
        let of_key = envelope.own_key(self.route()).and_then(|key| key.unsigned.as_deref());
        of_key.or(envelope.unsigned.as_deref())
    }
}

/// What keys the records of one event type in the place of the event id. No digest of the body is
/// added where it is unsigned: its topic does not compact, so that no record takes another's place.
#[derive(Debug)]
struct Key {
    place: FieldSelector,
    /// All that is unsigned in such a record; `None` where the key is signed.
    unsigned: Option<Box<str>>,
}

/// A source's rules for its envelope, compiled once at start.
#[derive(Debug)]
pub struct Envelope {
    id: Id,
    event_type: FieldSelector,
    default_type: Option<String>,
    aliases: HashMap<String, String>,
    time: Option<FieldSelector>,
    time_format: TimeFormat,
    form: Option<String>,
    split: Option<Pointer>,
    places: Places,
    /// By event type, where it is not the event id.
    keys: HashMap<String, Key>,
    headers: Vec<HeaderName>,
    unsigned: Option<Box<str>>,
    /// Their headers, as the rules write them.
    unsigned_headers: Vec<String>,
    /// Whoever captured a delivery can send it again under another id, or as another type, where
    /// these are not signed. With the body's digest in the key it cannot take the place of a genuine
    /// event.
    key_with_body: bool,
    /// Whether the source has bound secrets and separates their keys.
    key_with_binding: bool,
}

/// An event as it stands in its delivery.
struct Text<'v> {
    text: &'v str,
    /// The same, where it is at hand.
    raw: Option<&'v RawValue>,
    /// Its place in a delivery that is split.
    index: Option<usize>,
}

/// Where the event id comes from.
#[derive(Debug)]
enum Id {
    Digest,
    Part(FieldSelector),
    Join { parts: Vec<FieldSelector>, separator: String },
}

impl Envelope {
    /// Where the envelope's parts stand.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The headers that are read although no signature covers them, as the rules write them.
    pub fn unsigned_headers(&self) -> &[String] {
        &self.unsigned_headers
    }

    /// The request headers that the rules read.
    pub fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// Whether a delivery may hold several events.
    pub fn splits(&self) -> bool {
        self.split.is_some()
    }

    /// Whether the records of this event type have another key than the event id: then many have the same.
    pub fn has_own_key(&self, event_type: &str) -> bool {
        self.own_key(event_type).is_some()
    }

    fn own_key(&self, event_type: &str) -> Option<&Key> {
        if self.keys.is_empty() { None } else { self.keys.get(event_type) }
    }

    /// The JSON text of a verified delivery, not yet looked at: its body, or a field of the form that
    /// the body is.
    ///
    /// # Errors
    /// `json_invalid` for a form that has no such field, has it twice, or is not UTF-8.
    pub fn payload<'v>(&self, verified: &Verified<'v>) -> Result<Cow<'v, [u8]>, Fault> {
        verified.delivery().payload(self.form.as_deref())
    }

    /// Opens a verified delivery's [`Envelope::payload`]: its one event, or the 1 to [`MAX_EVENTS`] of
    /// a delivery that is split.
    ///
    /// # Errors
    /// What makes the whole delivery a dead letter: `json_invalid`, `json_too_deep`, `duplicate_key`,
    /// `id_missing`, `id_invalid`, `type_missing`, `shape_mismatch` (no object; no event, or too many).
    pub fn extract_events<'v>(
        &'v self,
        source: &'v str,
        verified: &'v Verified<'v>,
        payload: &'v [u8],
    ) -> Result<Vec<Event<'v>>, Fault> {
        let Some(split) = &self.split else {
            let (text, root) = json::object(payload)?.ok_or_else(no_object)?;
            return Ok(vec![self.event(source, verified, Text { text, raw: None, index: None }, root)?]);
        };
        let whole = json::check(payload)?;
        let misfit = |detail: &'static str| Fault::new(Reason::ShapeMismatch, detail);
        let array = if split.names().is_empty() { Some(whole) } else { split.find(&root(whole)?)? };
        let events = array.and_then(json::elements).ok_or_else(|| misfit("no array of events"))?;
        match events.len() {
            0 => Err(misfit("an array of no events")),
            n if n > MAX_EVENTS => Err(misfit("more than 1,000 events")),
            _ => {
                let events = events.into_iter().enumerate();
                let event = |(index, raw): (usize, &'v RawValue)| {
                    self.event(
                        source,
                        verified,
                        Text { text: raw.get(), raw: Some(raw), index: Some(index) },
                        root(raw)?,
                    )
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
        let time = match &self.time {
            Some(place) => place.time(&root, &delivery.headers, self.time_format)?,
            None => None,
        };
        let data = if self.places.data.names().is_empty() {
            Some(raw.map_or_else(|| json::check(text.as_bytes()), Ok)?)
        } else {
            self.places.data.find(&root)?
        };
        let received_at = delivery.received_at;
        let envelope = Some(self);
        Ok(Event { source, id, event_type, time, received_at, root, data, text, envelope, verified })
    }

    /// The id of a delivery where one can be read, else the digest; that too where several events are in it.
    pub fn id_or_digest(&self, verified: &Verified<'_>) -> String {
        let read = || {
            let payload = self.payload(verified)?;
            let (_, root) = json::object(&payload)?.ok_or_else(no_object)?;
            self.id(&root, verified, None).map(Cow::into_owned)
        };
        if self.split.is_some() {
            return digest(verified);
        }
        read().unwrap_or_else(|_: Fault| digest(verified))
    }

    /// The key of a delivery that is no event.
    pub fn key(&self, verified: &Verified<'_>) -> String {
        self.key_of(&self.id_or_digest(verified), verified).into_owned()
    }

    /// The same with keys that say what their secret is bound to: for a source that has such secrets.
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
        let mut digits = hex::encode(Sha256::digest(verified.signed()));
        digits.truncate(KEY_DIGITS);
        self.with_binding(Cow::Owned(format!("{id}:{digits}")), verified)
    }

    fn id<'v>(
        &self,
        root: &Object<'v>,
        verified: &'v Verified<'v>,
        index: Option<usize>,
    ) -> Result<Cow<'v, str>, Fault> {
        let headers = &verified.delivery().headers;
        let text = |place: &FieldSelector| match place.text(root, headers, Reason::IdInvalid)? {
            Some(text) => valid(text),
            None => Err(Reason::IdMissing.into()),
        };
        match &self.id {
            Id::Digest => Ok(Cow::Owned(match index {
                // All of them came in one body; a retry brings them in the same order.
                Some(index) => format!("{}:{index}", digest(verified)),
                None => digest(verified),
            })),
            Id::Part(place) => text(place),
            Id::Join { parts, separator } => {
                let parts = parts.iter().map(text).collect::<Result<Vec<_>, _>>()?;
                let joined = parts.join(separator.as_str());
                // Else `a:b` and `c` would be the event `a` and `b:c`, and one be lost under its key.
                if !joined.splitn(parts.len(), separator.as_str()).eq(parts.iter().map(Cow::as_ref)) {
                    return Err(Fault::new(Reason::IdInvalid, "a part holds the separator"));
                }
                valid(Cow::Owned(joined))
            }
        }
    }

    fn event_type<'v>(&self, root: &Object<'v>, headers: &'v HeaderMap) -> Result<Cow<'v, str>, Fault> {
        match (self.event_type.text(root, headers, Reason::TypeMissing)?, &self.default_type) {
            (Some(text), _) if text.is_empty() => Err(Fault::new(Reason::TypeMissing, "it is empty")),
            (Some(text), _) => Ok(text),
            (None, Some(default)) => Ok(Cow::Owned(default.clone())),
            (None, None) => Err(Reason::TypeMissing.into()),
        }
    }
}

fn root(body: &RawValue) -> Result<Object<'_>, Fault> {
    Object::open(body)?.ok_or_else(no_object)
}

fn no_object() -> Fault {
    Fault::new(Reason::ShapeMismatch, "the event is no object")
}

fn valid(id: Cow<'_, str>) -> Result<Cow<'_, str>, Fault> {
    let invalid = |detail: &'static str| Fault::new(Reason::IdInvalid, detail);
    match id.len() {
        0 => Err(invalid("it is empty")),
        n if n > MAX_ID => Err(invalid("it is longer than 1,024 bytes")),
        _ if id.chars().any(char::is_control) => Err(invalid("it holds a control character")),
        _ => Ok(id),
    }
}

/// `sha256:` and the hex digest of the signed body.
fn digest(verified: &Verified<'_>) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(verified.signed())))
}
