//! A JSON text as a tree that keeps the digits of numbers, and equality by value.

use std::collections::BTreeMap;

use hookstream::json::{JsonKind, Object, Pointer, elements, string};
use jiff::Timestamp;
use serde_json::value::RawValue;

#[derive(Clone, Debug)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Members(BTreeMap<String, Json>),
}

impl Json {
    /// `None` for a duplicate key, or half a surrogate pair as a value.
    pub fn read(raw: &RawValue) -> Option<Self> {
        Some(match JsonKind::of(raw) {
            JsonKind::Null => Self::Null,
            JsonKind::Boolean => Self::Bool(raw.get() == "true"),
            JsonKind::Number => Self::Number(raw.get().to_owned()),
            JsonKind::String => Self::Text(string(raw)?.into_owned()),
            JsonKind::Array => Self::List(elements(raw)?.into_iter().map(Self::read).collect::<Option<_>>()?),
            JsonKind::Object => {
                let object = Object::open(raw).ok()??;
                let members = object.members().iter();
                Self::Members(
                    members
                        .map(|(key, raw)| Some((key.to_string(), Self::read(raw)?)))
                        .collect::<Option<_>>()?,
                )
            }
        })
    }

    pub fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Members(members) => members.get(name),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn at(&self, pointer: &Pointer) -> Option<&Self> {
        pointer.names().iter().try_fold(self, |at, name| at.member(name))
    }

    /// Puts a value at the pointer, and creates missing objects on the way.
    pub fn put(&mut self, pointer: &Pointer, value: Self) {
        let mut at = self;
        for name in pointer.names() {
            if matches!(at, Self::Null) {
                *at = Self::Members(BTreeMap::new());
            }
            at = match at {
                Self::Members(members) => members.entry(name.clone()).or_insert(Self::Null),
                Self::List(items) => &mut items[name.parse::<usize>().unwrap()],
                other => panic!("{pointer:?} leads into {other:?}"),
            };
        }
        *at = value;
    }

    /// Equality by value: null equals missing, numbers compare as decimals, times as instants.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a == b || decimal(a).is_some_and(|a| Some(a) == decimal(b)),
            (Self::Text(a), Self::Text(b)) => a == b || instant(a).is_some_and(|a| Some(a) == instant(b)),
            (Self::List(a), Self::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Self::Members(a), Self::Members(b)) => {
                let (a, b) = (present(a), present(b));
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && a.1.same(b.1))
            }
            _ => false,
        }
    }
}

fn present(members: &BTreeMap<String, Json>) -> Vec<(&String, &Json)> {
    members.iter().filter(|(_, value)| !matches!(value, Json::Null)).collect()
}

fn instant(text: &str) -> Option<i128> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_nanosecond)
}

/// Sign, digits without leading and trailing zeros, exponent; `None` if the exponent is too large.
fn decimal(text: &str) -> Option<(bool, String, i128)> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let mut exponent: i128 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    exponent = exponent.checked_sub(i128::try_from(fraction.len()).ok()?)?;
    let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
    let shorter = digits.trim_end_matches('0');
    exponent = exponent.checked_add(i128::try_from(digits.len() - shorter.len()).ok()?)?;
    let shorter = shorter.trim_start_matches('0').to_owned();
    match shorter.is_empty() {
        true => Some((false, shorter, 0)),
        false => Some((whole.starts_with('-'), shorter, exponent)),
    }
}
