//! Id, type, time and key of an event: from a verified delivery to an [`Event`].

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::config::{self, Problems, TimeFormat};
use crate::json::{self, Kind, Object, Pointer};
use crate::outcome::{Fault, Reason};
use crate::verify::Verified;

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

/// One event of a verified delivery; slices of its body. No `Debug`: it would show them.
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
    ) -> Self {
        let verified = crate::verify::proof();
        Self { source: "datagrid", id, event_type, time, received_at, root, data, verified }
    }

    /// The delivery it came in.
    pub fn verified(&self) -> &'v Verified<'v> {
        self.verified
    }
}

/// A source's rules for its envelope, compiled once at start.
#[derive(Debug)]
pub struct Envelope {
    places: Places,
    time_format: TimeFormat,
}

impl Envelope {
    /// Compiles the rules; every fault it finds goes to `problems`, under `place`.
    pub fn compile(rules: &config::Envelope, place: &str, problems: &mut Problems) -> Option<Self> {
        let mut pointer = |field: &str, text: &str| {
            let pointer = Pointer::parse(text).filter(|pointer| !pointer.names().is_empty());
            if pointer.is_none() {
                problems.add(format!("{place}.{field}"), "must be a JSON pointer such as \"/id\"");
            }
            pointer
        };
        let id = if rules.id == "digest" { Some(None) } else { pointer("id", &rules.id).map(Some) };
        let event_type = pointer("type", &rules.event_type);
        let time = pointer("time", &rules.time);
        let data = pointer("data", &rules.data);
        let places = Places { id: id?, event_type: event_type?, time: time?, data: data? };
        Some(Self { places, time_format: rules.time_format })
    }

    /// Where the envelope's parts stand.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Opens a verified delivery.
    ///
    /// # Errors
    /// What makes the delivery a dead letter: `json_invalid`, `json_too_deep`, `duplicate_key`,
    /// `id_missing`, `id_invalid`, `type_missing`, `shape_mismatch` (no object).
    pub fn open<'v>(&self, source: &'v str, verified: &'v Verified<'v>) -> Result<Event<'v>, Fault> {
        let delivery = verified.delivery();
        let root = root(&delivery.body)?;
        let id = match &self.places.id {
            Some(pointer) => id_at(pointer, &root)?,
            None => Cow::Owned(digest(verified)),
        };
        let event_type = match self.places.event_type.find(&root)?.filter(|raw| Kind::of(raw) != Kind::Null) {
            None => return Err(Reason::TypeMissing.into()),
            Some(raw) => match json::string(raw) {
                Some(text) if !text.is_empty() => text,
                _ => return Err(Fault::new(Reason::TypeMissing, "it is no text")),
            },
        };
        let time = self.places.time.find(&root)?.and_then(|raw| self.time(raw));
        let data = self.places.data.find(&root)?;
        Ok(Event { source, id, event_type, time, received_at: delivery.received_at, root, data, verified })
    }

    /// The key of a delivery that is no event: its id where one can be read, else the digest.
    pub fn key(&self, verified: &Verified<'_>) -> String {
        let id = self.places.id.as_ref().and_then(|pointer| {
            let root = root(&verified.delivery().body).ok()?;
            id_at(pointer, &root).ok().map(Cow::into_owned)
        });
        id.unwrap_or_else(|| digest(verified))
    }

    fn time(&self, raw: &RawValue) -> Option<Timestamp> {
        match self.time_format {
            // No way through f64: a fraction is read as digits, too.
            TimeFormat::UnixSeconds if Kind::of(raw) == Kind::Number => {
                let (seconds, fraction) = raw.get().split_once('.').unwrap_or((raw.get(), ""));
                let second: i64 = seconds.parse().ok()?;
                let nanosecond = match fraction {
                    "" => 0,
                    digits if digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                        format!("{digits:0<9}").parse::<i32>().ok()?
                    }
                    _ => return None,
                };
                let sign = if seconds.starts_with('-') { -1 } else { 1 };
                Timestamp::new(second, sign * nanosecond).ok()
            }
            // A leap second would come out as the second before it, and look exact.
            TimeFormat::Rfc3339 => json::string(raw).filter(|text| !text.contains(":60"))?.parse().ok(),
            TimeFormat::UnixSeconds => None,
        }
    }
}

fn root(body: &[u8]) -> Result<Object<'_>, Fault> {
    Object::open(json::check(body)?)?
        .ok_or_else(|| Fault::new(Reason::ShapeMismatch, "the body is no object"))
}

fn id_at<'v>(pointer: &Pointer, root: &Object<'v>) -> Result<Cow<'v, str>, Fault> {
    let Some(raw) = pointer.find(root)?.filter(|raw| Kind::of(raw) != Kind::Null) else {
        return Err(Reason::IdMissing.into());
    };
    let invalid = |detail: &'static str| Fault::new(Reason::IdInvalid, detail);
    let id = json::string(raw).ok_or(invalid("it is no text"))?;
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
