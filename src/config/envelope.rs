//! `[source.NAME.envelope]`: where an event's own fields are.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::de;

/// `[source.NAME.envelope]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeConfig {
    /// The event id, unique among the source's events.
    pub id: FirstOf<EventIdRule>,
    #[serde(rename = "type")]
    pub event_type: FirstOf<TextPart>,
    /// The type of an event that has none; unset, such an event becomes a dead letter.
    #[serde(default)]
    pub default_type: Option<String>,
    /// Event type as sent -> the event type in `types` that it is routed as. The record contains the type as sent.
    #[serde(default)]
    pub aliases: BTreeMap<String, String>,
    /// Event type -> the record's key, if it is not the event id: so that all events of one document are in one
    /// partition, in order. The event type's topic must not be compacted then.
    #[serde(default)]
    pub keys: BTreeMap<String, FirstOf<TextPart>>,
    /// The event's time; unset, the record has none.
    #[serde(default)]
    pub time: Option<FirstOf<TextPart>>,
    /// The format of the time, or several to try in this order; required with `time`.
    #[serde(default, deserialize_with = "de::list")]
    pub time_format: Vec<TimeFormat>,
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

/// A place, or a list of places: the first that is present in the delivery counts. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstOf<T>(pub Vec<T>);

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
        parts: Vec<FirstOf<TextPart>>,
        /// The text between two parts.
        separator: String,
    },
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

impl fmt::Display for FirstOf<TextPart> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { " or " })?;
            match part {
                TextPart::Pointer(pointer) => f.write_str(pointer)?,
                TextPart::Header { name, .. } => write!(f, "the header {name}")?,
            }
        }
        Ok(())
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

/// All keys of a place's table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceTable {
    #[serde(default, deserialize_with = "de::list")]
    header: Vec<String>,
    #[serde(default, deserialize_with = "de::boolean")]
    unsigned: bool,
    #[serde(default)]
    join: Option<Vec<FirstOf<TextPart>>>,
    #[serde(default)]
    separator: Option<String>,
}

/// A kind of place, as it is written.
trait Place: Sized {
    fn from_text(text: &str) -> Self;

    /// Several names of a header are several places.
    fn from_table(table: PlaceTable) -> Result<Vec<Self>, &'static str>;
}

impl Place for TextPart {
    fn from_text(text: &str) -> Self {
        Self::Pointer(text.to_owned())
    }

    fn from_table(table: PlaceTable) -> Result<Vec<Self>, &'static str> {
        match table {
            PlaceTable { header, unsigned, join: None, separator: None } if !header.is_empty() => {
                Ok(header.into_iter().map(|name| Self::Header { name, unsigned }).collect())
            }
            PlaceTable { join: Some(_), .. } => Err("`join` is for the id only"),
            _ => Err("expected { header = \"NAME\" }"),
        }
    }
}

impl Place for EventIdRule {
    fn from_text(text: &str) -> Self {
        if text == "digest" { Self::Digest } else { Self::Part(TextPart::from_text(text)) }
    }

    fn from_table(table: PlaceTable) -> Result<Vec<Self>, &'static str> {
        match table {
            PlaceTable { header, unsigned: false, join: Some(parts), separator } if header.is_empty() => {
                let separator = separator.unwrap_or_else(|| ":".to_owned());
                Ok(vec![Self::Join { parts, separator }])
            }
            PlaceTable { ref header, join: None, separator: None, .. } if !header.is_empty() => {
                Ok(TextPart::from_table(table)?.into_iter().map(Self::Part).collect())
            }
            _ => Err("expected { header = \"NAME\" }, or { join = [...], separator = \":\" }"),
        }
    }
}

struct PlacesVisitor<T>(PhantomData<T>);

impl<'de, T: Place> Visitor<'de> for PlacesVisitor<T> {
    type Value = FirstOf<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON pointer such as \"/id\", or { header = \"NAME\" }, or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(FirstOf(vec![T::from_text(text)]))
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Self::Value, A::Error> {
        let table = PlaceTable::deserialize(MapAccessDeserializer::new(table))?;
        T::from_table(table).map(FirstOf).map_err(A::Error::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut places = Vec::new();
        while let Some(FirstOf(place)) = list.next_element()? {
            places.extend(place);
        }
        if places.is_empty() {
            Err(A::Error::custom("is an empty list; name a place"))
        } else {
            Ok(FirstOf(places))
        }
    }
}

impl<'de, T: Place> Deserialize<'de> for FirstOf<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlacesVisitor(PhantomData))
    }
}
