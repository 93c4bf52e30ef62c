//! Proposes fields for observed members. A member with mixed or unclear types gets none, because a type cannot be
//! changed once it is registered.

use std::collections::BTreeSet;

use serde::Serialize;

use super::shape::{JsonType, ObservedShape};
use crate::json::push_pointer;
use crate::names;

/// A proposed Avro type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProposedType {
    /// `boolean`
    Boolean,
    /// `long`
    Long,
    /// `double`: a number that it cannot represent exactly also stays in `additional_fields`.
    Double,
    /// `string`
    String,
    Array {
        /// The type of the elements.
        items: Box<ProposedType>,
        /// Whether an element was null.
        nullable: bool,
    },
    Record {
        /// The record's name, without the namespace.
        name: String,
        /// The fields, each nullable.
        fields: Vec<ProposedField>,
    },
}

/// A nullable field with default null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposedField {
    /// The field's name in Avro.
    pub name: String,
    /// The member's key in JSON.
    pub key: String,
    /// The type apart from null.
    pub is: ProposedType,
}

/// A member that gets no field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its pointer, with `*` for array indexes.
    pub pointer: String,
    /// The reason, as half a sentence.
    pub why: String,
}

/// The proposed fields of one record.
#[derive(Debug, Default)]
pub struct Proposal {
    /// In the order in which they were first seen.
    pub fields: Vec<ProposedField>,
    /// The members that get no field and stay in `additional_fields`.
    pub left_out: Vec<LeftOut>,
    /// Pointers of text fields whose every value was an RFC 3339 time: the user may prefer a timestamp type.
    pub times: Vec<String>,
}

/// Proposes fields for the members of `shape`. `pointer` is the record's place in the body, `home` its name, `taken`
/// the names of its existing fields, and `used` the names of all records of the schema, to which new ones are added.
pub fn propose(
    shape: &ObservedShape,
    pointer: &str,
    home: &str,
    taken: &[&str],
    used: &mut BTreeSet<String>,
) -> Proposal {
    let mut proposal = Proposal::default();
    let mut proposer = Proposer { used, left_out: &mut proposal.left_out, times: &mut proposal.times };
    // Records within `BatchPredictionData` are named `BatchPrediction...`.
    let base = home.strip_suffix("Data").filter(|base| !base.is_empty()).unwrap_or(home);
    proposal.fields = proposer.fields(shape, pointer, base, taken);
    proposal
}

struct Proposer<'m> {
    used: &'m mut BTreeSet<String>,
    left_out: &'m mut Vec<LeftOut>,
    times: &'m mut Vec<String>,
}

impl Proposer<'_> {
    fn fields(
        &mut self,
        shape: &ObservedShape,
        pointer: &str,
        base: &str,
        taken: &[&str],
    ) -> Vec<ProposedField> {
        let mut names: BTreeSet<String> = taken.iter().map(|name| (*name).to_owned()).collect();
        let mut fields = Vec::with_capacity(shape.members.len());
        for (key, member) in &shape.members {
            let mut at = pointer.to_owned();
            push_pointer(&mut at, key);
            let name = unused(&avro_name(key), &names);
            let left_before = self.left_out.len();
            match self.type_of(member, &at, &format!("{base}.{name}")) {
                Ok(is) => {
                    names.insert(name.clone());
                    if is == ProposedType::String && member.is_time() {
                        self.times.push(at);
                    }
                    fields.push(ProposedField { name, key: key.clone(), is });
                }
                Err(why) => {
                    // This reason covers everything below.
                    self.left_out.truncate(left_before);
                    self.left_out.push(LeftOut { pointer: at, why });
                }
            }
        }
        fields
    }

    fn type_of(&mut self, shape: &ObservedShape, at: &str, path: &str) -> Result<ProposedType, String> {
        let types: Vec<JsonType> =
            shape.types.iter().copied().filter(|seen| *seen != JsonType::Null).collect();
        Ok(match types.as_slice() {
            [] => return Err("only null was seen".into()),
            [JsonType::Boolean] => ProposedType::Boolean,
            [JsonType::Integer] => ProposedType::Long,
            [JsonType::Integer, JsonType::Number] | [JsonType::Number] => ProposedType::Double,
            [JsonType::Huge] | [JsonType::Integer, JsonType::Huge] => {
                return Err("the integers have more than 64 bits; consider a decimal".into());
            }
            [JsonType::String] => ProposedType::String,
            [JsonType::Array] => {
                let Some(items) = &shape.items else { return Err("only empty arrays were seen".into()) };
                let nullable = items.types.contains(&JsonType::Null);
                let items = self.type_of(items, &format!("{at}/*"), path);
                let items = Box::new(items.map_err(|why| format!("of the elements: {why}"))?);
                ProposedType::Array { items, nullable }
            }
            [JsonType::Object] => {
                if let Some(why) = shape.unclear {
                    return Err(why.into());
                }
                let name = unused(&names::avro_record(path), self.used);
                let fields = self.fields(shape, at, &name, &[]);
                if fields.is_empty() {
                    return Err("no member of the objects has a clear type".into());
                }
                self.used.insert(name.clone());
                ProposedType::Record { name, fields }
            }
            _ => return Err(format!("the types differ: {}", shape.description())),
        })
    }
}

/// The key, with `_` for each character that an Avro name cannot contain.
fn avro_name(key: &str) -> String {
    let mut name: String =
        key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        name.insert(0, '_');
    }
    name
}

/// The name, followed by a number if it is taken.
fn unused(name: &str, taken: &BTreeSet<String>) -> String {
    let mut free = name.to_owned();
    for n in 2_usize.. {
        if !taken.contains(&free) {
            break;
        }
        free = format!("{name}_{n}");
    }
    free
}

#[cfg(test)]
mod tests {
    use super::super::shape::tests::shape;
    use super::*;

    fn proposed(texts: &[&str]) -> Proposal {
        let mut used = BTreeSet::from(["BatchPredictionError".to_owned()]);
        propose(&shape(texts), "/data", "BatchPredictionData", &["id", "order_no"], &mut used)
    }

    fn one(text: &str) -> Result<ProposedType, String> {
        let mut proposal = proposed(&[text]);
        match proposal.fields.pop() {
            Some(field) => Ok(field.is),
            None => Err(proposal.left_out.pop().unwrap().why),
        }
    }

    #[test]
    fn each_clear_type_gets_a_field() {
        let array = |items, nullable| ProposedType::Array { items: Box::new(items), nullable };
        for (text, is) in [
            ("\"x\"", ProposedType::String),
            ("true", ProposedType::Boolean),
            ("1.0", ProposedType::Long),
            ("1.5", ProposedType::Double),
            ("[1, 0.5]", array(ProposedType::Double, false)),
            ("[\"a\", null]", array(ProposedType::String, true)),
            ("[[1]]", array(array(ProposedType::Long, false), false)),
        ] {
            assert_eq!(one(&format!("{{\"a\":{text}}}")), Ok(is), "{text}");
        }
    }

    #[test]
    fn a_member_with_mixed_or_unclear_types_gets_a_reason_instead() {
        for (text, why) in [
            ("null", "only null was seen"),
            ("[]", "only empty arrays were seen"),
            ("[1, \"a\"]", "of the elements: the types differ: integer, string"),
            ("[[]]", "of the elements: only empty arrays were seen"),
            ("{}", "no member of the objects has a clear type"),
            ("{\"b\":null}", "no member of the objects has a clear type"),
            ("18446744073709551616", "the integers have more than 64 bits; consider a decimal"),
            ("{\"b\":1,\"b\":2}", "an object has a duplicate key"),
        ] {
            assert_eq!(one(&format!("{{\"a\":{text}}}")), Err(why.to_owned()), "{text}");
        }
        let mixed = proposed(&["{\"a\":1}", "{\"a\":\"1\"}"]);
        assert_eq!(mixed.left_out[0].why, "the types differ: integer, string");
    }

    #[test]
    fn objects_become_records_and_their_unclear_members_are_listed() {
        let Proposal { fields, left_out, times } = proposed(&[
            r#"{"error":{"code":7,"at":"2026-01-02T03:04:05Z","odd":[]}}"#,
            r#"{"error":{"code":8,"steps":[{"n":1,"m":null}]}}"#,
        ]);
        let [ProposedField { name, key, is: ProposedType::Record { name: record, fields } }] =
            fields.as_slice()
        else {
            panic!("{fields:?}")
        };
        assert_eq!((name.as_str(), key.as_str()), ("error", "error"));
        assert_eq!(record, "BatchPredictionError_2", "the schema has a record with that name");
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["code", "at", "steps"]);
        let left: Vec<&str> = left_out.iter().map(|left| left.pointer.as_str()).collect();
        assert_eq!(left, ["/data/error/odd", "/data/error/steps/*/m"]);
        assert_eq!(times, ["/data/error/at"]);
    }

    #[test]
    fn keys_that_are_not_valid_names_get_an_unused_one() {
        let proposal = proposed(&[r#"{"order-no":1,"2fa":true,"id":"","":"x","größe":1,"a b":1,"a-b":1}"#]);
        let names: Vec<_> = proposal.fields.iter().map(|f| (f.key.as_str(), f.name.as_str())).collect();
        assert_eq!(
            names,
            [
                ("order-no", "order_no_2"),
                ("2fa", "_2fa"),
                ("id", "id_2"),
                ("", "_"),
                ("größe", "gr__e"),
                ("a b", "a_b"),
                ("a-b", "a_b_2")
            ]
        );
    }
}
