//! The JSON types that stood at one place, and below it. Never a value.

use serde_json::value::RawValue;

use crate::json::{self, JsonKind, Object};
use crate::schema::number;
use crate::schema::timestamp::{self, Unit};

/// An object with more different names than this is most likely a map, whose names are data.
const MAX_MEMBERS: usize = 200;

/// Names and pointers that one event type may take, in bytes. They are chosen by who sends.
const MAX_NAMES: usize = 1 << 20;

/// What is left of the room for names.
#[derive(Debug)]
pub struct NameBudget(usize);

impl Default for NameBudget {
    fn default() -> Self {
        Self(MAX_NAMES)
    }
}

impl NameBudget {
    /// Room for one more name; false where there is none.
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
    /// A number that a long holds, such as `1`, `1.0` and `1e3`.
    Integer,
    /// An integer past a long.
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
    fn of(raw: &RawValue) -> Self {
        match JsonKind::of(raw) {
            JsonKind::Null => Self::Null,
            JsonKind::Boolean => Self::Boolean,
            JsonKind::Number if number::integer(raw.get()).is_some() => Self::Integer,
            // Past a long in any spelling; 10^38 and on is not told from a fraction, and is a double anyway.
            JsonKind::Number if number::unscaled(raw.get(), 0).is_some() => Self::Huge,
            JsonKind::Number => Self::Number,
            JsonKind::String => Self::String,
            JsonKind::Array => Self::Array,
            JsonKind::Object => Self::Object,
        }
    }

    /// For people.
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

/// What was seen at a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedShape {
    /// Sorted, each once.
    pub(super) types: Vec<JsonType>,
    /// What the elements of its arrays are.
    pub(super) items: Option<Box<ObservedShape>>,
    /// The members of its objects, as they came first.
    pub(super) members: Vec<(String, ObservedShape)>,
    /// Why the members are not all there is.
    pub(super) unclear: Option<&'static str>,
    /// Text that is no time.
    other_text: bool,
}

impl ObservedShape {
    /// Adds a value, which nests no deeper than [`json::MAX_DEPTH`].
    pub fn see(&mut self, raw: &RawValue, budget: &mut NameBudget) {
        let seen = JsonType::of(raw);
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
                Err(_) => self.unclear = Some("a key stands twice in it"),
            },
            _ => {}
        }
    }

    /// Adds what another one has seen.
    pub fn merge(&mut self, other: &Self) {
        other.types.iter().for_each(|seen| self.add(*seen));
        self.unclear = self.unclear.or(other.unclear);
        self.other_text |= other.other_text;
        if let Some(items) = &other.items {
            self.items.get_or_insert_default().merge(items);
        }
        // Each was counted against a budget before.
        let mut budget = NameBudget::default();
        for (name, shape) in &other.members {
            if let Some(member) = self.member(name, &mut budget) {
                member.merge(shape);
            }
        }
    }

    /// The same for what stands below, in objects of these names.
    pub fn merge_at(&mut self, names: &[String], other: &Self) {
        let Some((first, rest)) = names.split_first() else { return self.merge(other) };
        self.add(JsonType::Object);
        if let Some(member) = self.member(first, &mut NameBudget::default()) {
            member.merge_at(rest, other);
        }
    }

    /// The member of this name, taken out.
    pub fn take(&mut self, name: &str) -> Option<Self> {
        let at = self.members.iter().position(|(known, _)| known == name)?;
        Some(self.members.remove(at).1)
    }

    /// Whether every value was text that is an RFC 3339 time with its offset.
    pub fn is_time(&self) -> bool {
        self.types.contains(&JsonType::String) && !self.other_text
    }

    /// The types that were seen, each once.
    pub fn types(&self) -> &[JsonType] {
        &self.types
    }

    /// For people: `string`, `integer, string`, `array of string`.
    pub fn told(&self) -> String {
        let told = |seen: &JsonType| match (seen, &self.items) {
            (JsonType::Array, Some(items)) => format!("array of {}", items.told().replace(", ", " or ")),
            (JsonType::Array, None) => "empty array".to_owned(),
            (seen, _) => seen.name().to_owned(),
        };
        self.types.iter().map(told).collect::<Vec<_>>().join(", ")
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
                self.unclear = Some("it has very many names: they look like data, as a map's");
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
    fn types_are_told_once_and_numbers_by_their_value() {
        for (texts, told) in [
            (&["\"a\"", "\"b\""][..], "string"),
            (&["1", "1.0", "-2e3", "9223372036854775807"], "integer"),
            (&["9223372036854775808"], "integer of more than 64 bits"),
            (&["0.5", "7", "1e400"], "integer, number"),
            (&["\"1\"", "1", "null"], "null, integer, string"),
            (&["[]"], "empty array"),
            (&["[]", "[\"a\", 1]"], "array of integer or string"),
            (&["[[true]]", "{}"], "array of array of boolean, object"),
        ] {
            assert_eq!(shape(texts).told(), told, "{texts:?}");
        }
    }

    #[test]
    fn members_are_merged_below_and_kept_in_their_order() {
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
    fn times_are_told_from_other_text() {
        assert!(
            shape(&["\"2026-01-02T03:04:05.678901Z\"", "\"2026-01-02T03:04:05+01:00\"", "null"]).is_time()
        );
        for other in ["\"2026-01-02\"", "\"soon\"", "\"\""] {
            assert!(!shape(&["\"2026-01-02T03:04:05Z\"", other]).is_time(), "{other}");
        }
        assert!(!shape(&["1"]).is_time());
    }

    #[test]
    fn names_that_a_body_chooses_have_a_bound() {
        let many: Vec<String> = (0..300).map(|n| format!("\"k{n}\":1")).collect();
        let map = shape(&[&format!("{{{}}}", many.join(","))]);
        assert_eq!(map.members.len(), MAX_MEMBERS);
        assert!(map.unclear.is_some());

        let long = format!("{{\"{}\":1}}", "x".repeat(MAX_NAMES + 1));
        let long = shape(&[&long]);
        assert!(long.members.is_empty() && long.unclear.is_some());
    }
}
