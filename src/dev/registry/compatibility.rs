//! Confluent's compatibility levels, judged by apache-avro.
//!
//! Its verdict "partly" (some written values can be read, others not) counts as a fault, as the
//! Java registry has it. Its price: a named type that is written out in one schema and referred to
//! at the same place of the other is a fault, too, even where the types are equal.

use std::fmt;

use apache_avro::Schema;
use apache_avro::error::CompatibilityError;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

/// What a new version must be able to do. `Transitive`: towards each earlier version, else
/// towards the latest only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Level {
    None,
    #[default]
    Backward,
    BackwardTransitive,
    Forward,
    ForwardTransitive,
    Full,
    FullTransitive,
}

impl Level {
    const ALL: [Self; 7] = [
        Self::None,
        Self::Backward,
        Self::BackwardTransitive,
        Self::Forward,
        Self::ForwardTransitive,
        Self::Full,
        Self::FullTransitive,
    ];

    /// The level of this name, in either case.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(name))
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Backward => "BACKWARD",
            Self::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Self::Forward => "FORWARD",
            Self::ForwardTransitive => "FORWARD_TRANSITIVE",
            Self::Full => "FULL",
            Self::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    pub(super) const fn transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }

    /// A reader of the new schema must read the old records.
    const fn backward(self) -> bool {
        matches!(self, Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive)
    }

    /// A reader of the old schema must read the new records.
    const fn forward(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What speaks against `new` beside `old`, for a person; empty when nothing does.
pub(super) fn faults(level: Level, new: &Schema, old: &Schema) -> Vec<String> {
    let mut faults = Vec::new();
    if level.backward() {
        faults
            .extend(fault(old, new).map(|why| format!("the new schema cannot read the old records: {why}")));
    }
    if level.forward() {
        faults
            .extend(fault(new, old).map(|why| format!("the old schema cannot read the new records: {why}")));
    }
    faults
}

fn fault(writer: &Schema, reader: &Schema) -> Option<String> {
    match SchemaCompatibility::can_read(writer, reader) {
        Ok(Compatibility::Full) => None,
        Ok(Compatibility::Partial) => {
            Some("a type of a union, or a symbol of an enum, is missing in what reads it".to_owned())
        }
        Err(error) => Some(words(&error)),
    }
}

/// apache-avro's words; its mismatch of types prints whole schemas over many lines.
fn words(error: &CompatibilityError) -> String {
    match error {
        CompatibilityError::FieldTypeMismatch(field, inner) => format!("field '{field}': {}", words(inner)),
        CompatibilityError::MissingDefaultValue(field) => {
            format!("field '{field}' is missing in what was written and has no default in what reads it")
        }
        CompatibilityError::WrongType { .. } => "the types differ".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &str) -> Schema {
        Schema::parse_str(&format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)).unwrap()
    }

    fn refusing(new: &Schema, old: &Schema) -> Vec<&'static str> {
        let refusing = Level::ALL.into_iter().filter(|level| !faults(*level, new, old).is_empty());
        refusing.map(Level::as_str).collect()
    }

    const FULL: [&str; 2] = ["FULL", "FULL_TRANSITIVE"];

    #[test]
    fn each_level_refuses_what_its_readers_could_not_read() {
        let one = record(r#"{"name":"a","type":"string"}"#);
        let required = record(r#"{"name":"a","type":"string"},{"name":"b","type":"string"}"#);
        let optional =
            record(r#"{"name":"a","type":"string"},{"name":"b","type":["null","string"],"default":null}"#);
        assert_eq!(refusing(&required, &one), [&["BACKWARD", "BACKWARD_TRANSITIVE"], &FULL[..]].concat());
        assert_eq!(refusing(&one, &required), [&["FORWARD", "FORWARD_TRANSITIVE"], &FULL[..]].concat());
        assert!(refusing(&optional, &one).is_empty());
        assert!(refusing(&one, &optional).is_empty());
    }

    #[test]
    fn a_type_that_only_some_readers_know_is_a_fault_of_one_direction() {
        let narrow = record(r#"{"name":"a","type":["null","string"]}"#);
        let wide = record(r#"{"name":"a","type":["null","string","long"]}"#);
        assert_eq!(refusing(&wide, &narrow), [&["FORWARD", "FORWARD_TRANSITIVE"], &FULL[..]].concat());
    }

    #[test]
    fn a_fault_names_the_field_and_stays_on_one_line() {
        let text = record(r#"{"name":"a","type":"string"}"#);
        let nested = record(
            r#"{"name":"a","type":{"type":"record","name":"N","fields":[{"name":"b","type":"int"}]}}"#,
        );
        let faults = faults(Level::Backward, &nested, &text);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("field 'a'") && !faults[0].contains('\n'), "{faults:?}");
    }
}
