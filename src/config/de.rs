//! Fields that may be written as text, converted by the field's own type: the environment and `-X` provide text only,
//! and a type is never guessed from the text.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum TextOr<T> {
    Plain(T),
    Text(String),
}

fn text_or<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, String>,
    expected: &str,
) -> Result<T, D::Error> {
    match TextOr::deserialize(deserializer) {
        Ok(TextOr::Plain(value)) => Ok(value),
        Ok(TextOr::Text(text)) => {
            parse(text.trim()).map_err(|_| D::Error::custom(format!("expected {expected}")))
        }
        Err(_) => Err(D::Error::custom(format!("expected {expected}"))),
    }
}

fn from_str<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// A whole number.
pub(super) fn number<'de, D: Deserializer<'de>, T: Deserialize<'de> + FromStr<Err: Display>>(
    deserializer: D,
) -> Result<T, D::Error> {
    text_or(deserializer, from_str, "a whole number")
}

/// A share, such as `0.5`.
pub(super) fn part<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    text_or(deserializer, from_str, "a number")
}

/// A whole number, for an optional setting.
pub(super) fn some_number<'de, D: Deserializer<'de>, T: Deserialize<'de> + FromStr<Err: Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    number(deserializer).map(Some)
}

/// `true` or `false`.
pub(super) fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    text_or(deserializer, from_str, "true or false")
}

/// A size in bytes: a number, or text such as `900 KiB`.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let parse = |text: &str| {
        let size: bytesize::ByteSize = text.parse()?;
        usize::try_from(size.as_u64()).map_err(|error| error.to_string())
    };
    text_or(deserializer, parse, "a size such as \"900 KiB\"")
}

/// A duration: text such as `4s`, `250ms`, `30d`. A number alone is rejected, because its unit would be unclear.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let expected = || D::Error::custom("expected a duration with its unit, such as \"4s\"");
    let text = String::deserialize(deserializer).map_err(|_| expected())?;
    humantime::parse_duration(text.trim()).map_err(|_| expected())
}

/// One of an enum's names. It is read as text first, because figment accepts a number as a variant's index.
pub(super) fn choice<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Word::deserialize(deserializer).map(|Word(choice)| choice)
}

/// One of an enum's names, for an optional setting.
pub(super) fn some_choice<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    choice(deserializer).map(Some)
}

/// A list of words: an array, or comma-separated text.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_any(ListVisitor(PhantomData))
}

/// A value that is written as one text.
struct Word<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::deserialize(IntoDeserializer::<D::Error>::into_deserializer(text)).map(Self)
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list, or comma-separated text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(|word| T::deserialize(IntoDeserializer::<E>::into_deserializer(word.to_owned()))).collect()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut words = Vec::new();
        while let Some(Word(word)) = list.next_element()? {
            words.push(word);
        }
        Ok(words)
    }
}
