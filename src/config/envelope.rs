//! `[source.NAME.envelope]`: where an event's own fields are.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::de;

/// `[source.NAME.envelope]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeConfig {
    /// The event id, unique among the source's events.
    pub id: EventIdRule,
    #[serde(rename = "type")]
    pub event_type: TextPart,
    /// The type of an event that has none; unset, such an event becomes a dead letter.
    #[serde(default)]
    pub default_type: Option<String>,
    /// Event type as sent -> the event type in `types` that it is routed as. The record contains the type as sent.
    #[serde(default)]
    pub aliases: BTreeMap<String, String>,
    /// Event type -> the record's key, if it is not the event id: so that all events of one document are in one
    /// partition, in order. The event type's topic must not be compacted then.
    #[serde(default)]
    pub keys: BTreeMap<String, TextPart>,
    /// The event's time; unset, the record has none.
    #[serde(default)]
    pub time: Option<TextPart>,
    /// The format of the time; required with `time`.
    #[serde(default, deserialize_with = "de::some_choice")]
    pub time_format: Option<TimeFormat>,
    /// `form:NAME`: if the body is a form, its field NAME is the JSON text. Unset, the body is the JSON text, whatever
    /// its content type.
    #[serde(default)]
    pub payload: Option<String>,
    /// JSON pointer to an array of events; empty if the body is that array. The other rules then apply to each event,
    /// with the event as their root.
    #[serde(default)]
    pub split: Option<String>,
    /// JSON pointer to the part that the schema's `data` describes; empty for the complete body.
    #[serde(default)]
    pub data: String,
}

/// Where a text of the event is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextPart {
    /// `"/id"`: a JSON pointer into the body.
    Pointer(String),
    /// `{ header = "X-GitHub-Event", unsigned = true }`: a header of the request.
    Header {
        /// The header's name.
        name: String,
        /// The user's confirmation that the signature does not cover the header.
        unsigned: bool,
    },
}

/// How the event id is obtained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventIdRule {
    /// `"digest"`: `sha256:` and the hex digest of the signed body.
    Digest,
    /// A single text.
    Part(TextPart),
    /// `{ join = ["/a", "/b"], separator = ":" }`: several texts.
    Join {
        /// The texts, in this order.
        parts: Vec<TextPart>,
        /// The text between two parts.
        separator: String,
    },
}

impl EventIdRule {
    /// The pointer, if the id is a single one.
    pub fn pointer(&self) -> Option<&str> {
        match self {
            Self::Part(part) => part.pointer(),
            Self::Digest | Self::Join { .. } => None,
        }
    }
}

impl TextPart {
    /// The pointer, if the text is in the body.
    pub fn pointer(&self) -> Option<&str> {
        match self {
            Self::Pointer(pointer) => Some(pointer),
            Self::Header { .. } => None,
        }
    }
}

impl fmt::Display for TextPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointer(pointer) => f.write_str(pointer),
            Self::Header { name, .. } => write!(f, "the header {name}"),
        }
    }
}

/// How a provider writes the time of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// A number of seconds since 1970.
    UnixSeconds,
    /// A number of milliseconds since 1970.
    UnixMilliseconds,
    /// A string such as `2026-01-02T03:04:05.678901Z`.
    Rfc3339,
}

/// All keys of a rule's table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    #[serde(default)]
    header: Option<String>,
    #[serde(default, deserialize_with = "de::boolean")]
    unsigned: bool,
    #[serde(default)]
    join: Option<Vec<TextPart>>,
    #[serde(default)]
    separator: Option<String>,
}

impl RuleTable {
    fn id(self) -> Result<EventIdRule, &'static str> {
        match self {
            Self { header: Some(name), unsigned, join: None, separator: None } => {
                Ok(EventIdRule::Part(TextPart::Header { name, unsigned }))
            }
            Self { header: None, unsigned: false, join: Some(parts), separator } => {
                Ok(EventIdRule::Join { parts, separator: separator.unwrap_or_else(|| ":".to_owned()) })
            }
            _ => Err("expected { header = \"NAME\" }, or { join = [...], separator = \":\" }"),
        }
    }
}

struct RuleVisitor;

impl<'de> Visitor<'de> for RuleVisitor {
    type Value = EventIdRule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON pointer such as \"/id\", or { header = \"NAME\" }")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<EventIdRule, E> {
        Ok(EventIdRule::Part(TextPart::Pointer(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<EventIdRule, A::Error> {
        RuleTable::deserialize(MapAccessDeserializer::new(table))?.id().map_err(A::Error::custom)
    }
}

impl<'de> Deserialize<'de> for EventIdRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(RuleVisitor)? {
            Self::Part(TextPart::Pointer(word)) if word == "digest" => Ok(Self::Digest),
            id => Ok(id),
        }
    }
}

impl<'de> Deserialize<'de> for TextPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(RuleVisitor)? {
            EventIdRule::Part(part) => Ok(part),
            _ => Err(D::Error::custom("`join` is for the id only")),
        }
    }
}
