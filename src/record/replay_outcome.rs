//! The outcome of a replayed dead letter, and the identity of a record.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The place of a record, written as `topic/partition/offset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordId {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
}

impl RecordId {
    /// Parses the text of `Display`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.rsplitn(3, '/');
        let (offset, partition) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { topic: parts.next()?.into(), partition, offset })
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// The value of a record in `dead_letter.<source>.replayed`, as JSON text. The key is the dead letter's [`RecordId`]. Never
/// null, so that it is not a tombstone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayOutcome<'a> {
    /// [`Self::PUBLISHED`], [`Self::HANDLED`] or [`Self::FAILED`].
    pub outcome: Cow<'a, str>,
    /// The label of the reason why it failed again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'a, str>>,
    /// The topic of the first record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<Cow<'a, str>>,
    /// The partition of the first record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// The offset of the first record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// RFC 3339.
    pub at: Cow<'a, str>,
}

impl ReplayOutcome<'_> {
    /// All records were acknowledged.
    pub const PUBLISHED: &'static str = "published";
    /// It is a handshake by today's rules: there is nothing to publish.
    pub const HANDLED: &'static str = "handled";
    /// It is not an event by today's rules, or Kafka refuses it.
    pub const FAILED: &'static str = "failed";

    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.outcome == Self::PUBLISHED || self.outcome == Self::HANDLED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_back_as_it_is_shown() {
        let place = RecordId { topic: "dead_letter.a".into(), partition: 3, offset: 41 };
        assert_eq!(place.to_string(), "dead_letter.a/3/41");
        assert_eq!(RecordId::parse("dead_letter.a/3/41"), Some(place));
        for bad in ["", "a", "a/3", "a/x/41", "a/3/x", "3/41"] {
            assert_eq!(RecordId::parse(bad), None, "{bad}");
        }
    }
}
