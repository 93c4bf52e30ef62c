//! The JSON types that were observed at a place and below it. Never a value.

use serde_json::value::RawValue;

use crate::json::{self, JsonKind, Object};
use crate::schema::number;
use crate::schema::timestamp::{self, Unit};

/// An object with more distinct names than this is most likely a map, whose names are data.
const MAX_MEMBERS: usize = 200;

/// Limit on the names and pointers of one event type, in bytes. The sender chooses them.
const MAX_NAMES: usize = 1 << 20;

/// The remaining budget for names, in bytes.
#[derive(Debug)]
pub struct NameBudget(usize);

impl Default for NameBudget {
    fn default() -> Self {
        Self(MAX_NAMES)
    }
}

impl NameBudget {
    /// Uses budget for a name; false if not enough is left.
    pub fn take(&mut self, name: &str) -> bool {
        let left = self.0.checked_sub(name.len());
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

/// A JSON type, numbers by their value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JsonType {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean,
    /// A number that fits a long, such as `1`, `1.0` and `1e3`.
    Integer,
    /// An integer that does not fit a long.
    Huge,
    /// Any other number.
    Number,
    /// Text.
    String,
    /// `[...]`
    Array,
    /// `{...}`
    Object,
}

impl JsonType {
    fn from_raw(raw: &RawValue) -> Self {
        match JsonKind::of(raw) {
            JsonKind::Null => Self::Null,
            JsonKind::Boolean => Self::Boolean,
            JsonKind::Number if number::integer(raw.get()).is_some() => Self::Integer,
            // Exceeds a long in any spelling. From 10^38 on, it is not distinguished from a fraction; it is a double
            // anyway.
            JsonKind::Number if number::unscaled(raw.get(), 0).is_some() => Self::Huge,
            JsonKind::Number => Self::Number,
            JsonKind::String => Self::String,
            JsonKind::Array => Self::Array,
            JsonKind::Object => Self::Object,
        }
    }

    /// The name for display.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Huge => "integer of more than 64 bits",
            Self::Number => "number",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// What was observed at a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedShape {
    /// Sorted, each once.
    pub(super) types: Vec<JsonType>,
    /// The shape of the elements of its arrays.
    pub(super) items: Option<Box<ObservedShape>>,
    /// The members of its objects, in the order in which they were first seen.
    pub(super) members: Vec<(String, ObservedShape)>,
    /// Why the members are incomplete.
    pub(super) unclear: Option<&'static str>,
    /// Whether a text was not a time.
    other_text: bool,
}

impl ObservedShape {
    /// Adds a value, whose depth must not exceed [`json::MAX_DEPTH`].
    pub fn see(&mut self, raw: &RawValue, budget: &mut NameBudget) {
        let seen = JsonType::from_raw(raw);
        self.add(seen);
        match seen {
            JsonType::String => {
                let time =
                    json::string(raw).is_some_and(|text| timestamp::rfc3339(&text, Unit::Milli).is_some());
                self.other_text |= !time;
            }
            JsonType::Array => {
                for element in json::elements(raw).unwrap_or_default() {
                    self.items.get_or_insert_default().see(element, budget);
                }
            }
            JsonType::Object => match Object::open(raw) {
                Ok(object) => {
                    for (key, value) in object.iter().flat_map(Object::members) {
                        if let Some(member) = self.member(key, budget) {
                            member.see(value, budget);
                        }
                    }
                }
                Err(_) => self.unclear = Some("an object has a duplicate key"),
            },
            _ => {}
        }
    }

    /// Adds the observations of another shape.
    pub fn merge(&mut self, other: &Self) {
        other.types.iter().for_each(|seen| self.add(*seen));
        self.unclear = self.unclear.or(other.unclear);
        self.other_text |= other.other_text;
        if let Some(items) = &other.items {
            self.items.get_or_insert_default().merge(items);
        }
        // Each name was already counted against a budget.
        let mut budget = NameBudget::default();
        for (name, shape) in &other.members {
            if let Some(member) = self.member(name, &mut budget) {
                member.merge(shape);
            }
        }
    }

    /// Adds the observations of another shape below, in objects with these names.
    pub fn merge_at(&mut self, names: &[String], other: &Self) {
        let Some((first, rest)) = names.split_first() else { return self.merge(other) };
        self.add(JsonType::Object);
        if let Some(member) = self.member(first, &mut NameBudget::default()) {
            member.merge_at(rest, other);
        }
    }

    /// Removes and returns the member with this name.
    pub fn take(&mut self, name: &str) -> Option<Self> {
        let at = self.members.iter().position(|(known, _)| known == name)?;
        Some(self.members.remove(at).1)
    }

    /// Whether every text was an RFC 3339 time with an offset.
    pub fn is_time(&self) -> bool {
        self.types.contains(&JsonType::String) && !self.other_text
    }

    /// The observed types, each once.
    pub fn types(&self) -> &[JsonType] {
        &self.types
    }

    /// A description for display: `string`, `integer, string`, `array of string`.
    pub fn description(&self) -> String {
        let describe = |seen: &JsonType| match (seen, &self.items) {
            (JsonType::Array, Some(items)) => {
                format!("array of {}", items.description().replace(", ", " or "))
            }
            (JsonType::Array, None) => "empty array".to_owned(),
            (seen, _) => seen.name().to_owned(),
        };
        self.types.iter().map(describe).collect::<Vec<_>>().join(", ")
    }

    fn add(&mut self, seen: JsonType) {
        if let Err(at) = self.types.binary_search(&seen) {
            self.types.insert(at, seen);
        }
    }

    fn member(&mut self, name: &str, budget: &mut NameBudget) -> Option<&mut Self> {
        let at = match self.members.iter().position(|(known, _)| known == name) {
            Some(at) => at,
            None if self.members.len() < MAX_MEMBERS && budget.take(name) => {
                self.members.push((name.to_owned(), Self::default()));
                self.members.len() - 1
            }
            None => {
                self.unclear = Some("it has very many names, which look like data, as in a map");
                return None;
            }
        };
        self.members.get_mut(at).map(|(_, shape)| shape)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The shape of these values.
    pub(in super::super) fn shape(texts: &[&str]) -> ObservedShape {
        let (mut shape, mut budget) = (ObservedShape::default(), NameBudget::default());
        texts.iter().for_each(|text| shape.see(json::check(text.as_bytes()).unwrap(), &mut budget));
        shape
    }

    #[test]
    fn types_are_described_once_and_numbers_by_value() {
        for (texts, expected) in [
            (&["\"a\"", "\"b\""][..], "string"),
            (&["1", "1.0", "-2e3", "9223372036854775807"], "integer"),
            (&["9223372036854775808"], "integer of more than 64 bits"),
            (&["0.5", "7", "1e400"], "integer, number"),
            (&["\"1\"", "1", "null"], "null, integer, string"),
            (&["[]"], "empty array"),
            (&["[]", "[\"a\", 1]"], "array of integer or string"),
            (&["[[true]]", "{}"], "array of array of boolean, object"),
        ] {
            assert_eq!(shape(texts).description(), expected, "{texts:?}");
        }
    }

    #[test]
    fn members_are_merged_recursively_and_keep_their_order() {
        let both = shape(&[r#"{"z":1,"a":{"b":[{"c":"x"}]}}"#, r#"{"a":{"b":[{"d":1}]}}"#]);
        let mut merged = shape(&[r#"{"z":1,"a":{"b":[{"c":"x"}]}}"#]);
        merged.merge(&shape(&[r#"{"a":{"b":[{"d":1}]}}"#]));
        assert_eq!(merged, both);
        let names: Vec<&str> = both.members.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["z", "a"]);
        let mut below = ObservedShape::default();
        below.merge_at(&["a".into(), "b".into()], &shape(&["1"]));
        assert_eq!(below, shape(&[r#"{"a":{"b":1}}"#]));
    }

    #[test]
    fn times_are_distinguished_from_other_text() {
        assert!(
            shape(&["\"2026-01-02T03:04:05.678901Z\"", "\"2026-01-02T03:04:05+01:00\"", "null"]).is_time()
        );
        for other in ["\"2026-01-02\"", "\"soon\"", "\"\""] {
            assert!(!shape(&["\"2026-01-02T03:04:05Z\"", other]).is_time(), "{other}");
        }
        assert!(!shape(&["1"]).is_time());
    }

    #[test]
    fn names_that_a_body_chooses_are_limited() {
        let many: Vec<String> = (0..300).map(|n| format!("\"k{n}\":1")).collect();
        let map = shape(&[&format!("{{{}}}", many.join(","))]);
        assert_eq!(map.members.len(), MAX_MEMBERS);
        assert!(map.unclear.is_some());

        let long = format!("{{\"{}\":1}}", "x".repeat(MAX_NAMES + 1));
        let long = shape(&[&long]);
        assert!(long.members.is_empty() && long.unclear.is_some());
    }
}
