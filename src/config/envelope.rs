//! `[source.NAME.envelope]`: where an event's own fields stand.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::de;

/// `[source.NAME.envelope]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The event id: what tells this event from every other one of the source.
    pub id: EventIdRule,
    /// The event type.
    #[serde(rename = "type")]
    pub event_type: TextPart,
    /// The type of an event that names none; without it, that is a dead letter.
    #[serde(default)]
    pub default_type: Option<String>,
    /// Event type as sent -> the one of `types` that it is routed as. The record keeps the sent one.
    #[serde(default)]
    pub aliases: BTreeMap<String, String>,
    /// Event type -> the record's key, where that is not the event id: so that all events of one
    /// document stand in one partition, in order. The type's topic must not compact then.
    #[serde(default)]
    pub keys: BTreeMap<String, TextPart>,
    /// The event's time; without it, the record has none.
    #[serde(default)]
    pub time: Option<TextPart>,
    /// How the time is written; goes with `time`.
    #[serde(default, deserialize_with = "de::some_choice")]
    pub time_format: Option<TimeFormat>,
    /// `form:NAME`: where the body is a form, its field NAME is the JSON text. Without it, the body
    /// is, whatever its content type.
    #[serde(default)]
    pub payload: Option<String>,
    /// JSON pointer to an array of events, empty where the body is that array. Each event is then opened
    /// by the other rules, from its own root.
    #[serde(default)]
    pub split: Option<String>,
    /// JSON pointer to the part that the schema's `data` types; empty for the whole body.
    #[serde(default)]
    pub data: String,
}

/// Where one text stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextPart {
    /// `"/id"`: a JSON pointer into the body.
    Pointer(String),
    /// `{ header = "X-GitHub-Event", unsigned = true }`: a header of the request.
    Header {
        /// Its name.
        name: String,
        /// Says that one knows: the signature does not cover it.
        unsigned: bool,
    },
}

/// Where the event id comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventIdRule {
    /// `"digest"`: `sha256:` and the hex digest of the signed body.
    Digest,
    /// One text.
    Part(TextPart),
    /// `{ join = ["/a", "/b"], separator = ":" }`: several.
    Join {
        /// In this order.
        parts: Vec<TextPart>,
        /// Between two of them.
        separator: String,
    },
}

impl EventIdRule {
    /// The pointer, where the id is a single one.
    pub fn pointer(&self) -> Option<&str> {
        match self {
            Self::Part(part) => part.pointer(),
            Self::Digest | Self::Join { .. } => None,
        }
    }
}

impl TextPart {
    /// The pointer, where it is one.
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

/// What may stand in the table of a rule.
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
            _ => Err(D::Error::custom("`join` is for the id alone")),
        }
    }
}
