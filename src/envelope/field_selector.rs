//! The places of a field: JSON pointers into the event and request headers, in order of preference.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::valid;
use crate::config::TimeFormat;
use crate::json::{self, JsonKind, Object, Pointer};
use crate::outcome::{Fault, Reason};

/// The places of a field. The first that is present counts, whatever is there; null counts as missing.
#[derive(Debug)]
pub(super) struct FieldSelector(pub(super) Vec<FieldPlace>);

/// A place of a field.
#[derive(Debug)]
pub(super) enum FieldPlace {
    Pointer(Pointer),
    Header(HeaderName),
}

/// What a field is read for.
#[derive(Debug, Clone, Copy)]
pub(super) enum EventField {
    /// An event id, or a record's key: text, or the digits of a number as sent.
    Id,
    /// An event type, or the mark of a handshake: text.
    Type,
}

impl EventField {
    const fn expected(self) -> &'static str {
        match self {
            Self::Id => "text or a number",
            Self::Type => "text",
        }
    }

    const fn missing(self) -> Reason {
        match self {
            Self::Id => Reason::IdMissing,
            Self::Type => Reason::TypeMissing,
        }
    }

    const fn invalid(self) -> Reason {
        match self {
            Self::Id => Reason::IdInvalid,
            Self::Type => Reason::TypeMissing,
        }
    }
}

/// What is at a place.
enum FieldValue<'v> {
    Body(&'v RawValue),
    /// The text, or why it cannot be read.
    Header(Result<&'v str, &'static str>),
}

impl fmt::Display for FieldPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointer(pointer) => pointer.fmt(f),
            Self::Header(name) => write!(f, "the header {name}"),
        }
    }
}

impl FieldSelector {
    pub(super) fn pointers(&self) -> impl Iterator<Item = &Pointer> {
        self.0.iter().filter_map(|place| match place {
            FieldPlace::Pointer(pointer) => Some(pointer),
            FieldPlace::Header(_) => None,
        })
    }

    /// The first place that is present, with its index and what is there.
    fn find<'s, 'v>(
        &'s self,
        root: &Object<'v>,
        headers: &'v HeaderMap,
    ) -> Result<Option<(usize, &'s FieldPlace, FieldValue<'v>)>, Fault> {
        for (index, place) in self.0.iter().enumerate() {
            let value = match place {
                FieldPlace::Pointer(pointer) => {
                    let raw = pointer.find(root)?.filter(|raw| JsonKind::of(raw) != JsonKind::Null);
                    raw.map(FieldValue::Body)
                }
                FieldPlace::Header(name) => header(headers, name).map(FieldValue::Header),
            };
            if let Some(value) = value {
                return Ok(Some((index, place, value)));
            }
        }
        Ok(None)
    }

    /// The place that is present.
    pub(super) fn place(&self, root: &Object<'_>, headers: &HeaderMap) -> Option<&FieldPlace> {
        self.find(root, headers).ok()?.map(|(_, place, _)| place)
    }

    /// The text of the field, never empty; `None` if it is missing.
    ///
    /// # Errors
    /// A value that is not what is wanted, or a header that does not appear exactly once in visible ASCII. The detail
    /// names the place and the kinds, never the value.
    pub(super) fn text<'v>(
        &self,
        root: &Object<'v>,
        headers: &'v HeaderMap,
        field: EventField,
    ) -> Result<Option<Cow<'v, str>>, Fault> {
        let Some((_, place, value)) = self.find(root, headers)? else { return Ok(None) };
        let invalid = |detail: Cow<'static, str>| Fault::new(field.invalid(), detail);
        let text = match value {
            FieldValue::Header(text) => text.map(Cow::Borrowed).map_err(|why| invalid(why.into())),
            FieldValue::Body(raw) => match (field, JsonKind::of(raw)) {
                (EventField::Id, JsonKind::Number) => Ok(Cow::Borrowed(raw.get())),
                (_, JsonKind::String) => {
                    json::string(raw).ok_or_else(|| invalid("half a surrogate pair".into()))
                }
                (_, kind) => {
                    let detail = format!("expected {}, found {}", field.expected(), kind.name());
                    Err(invalid(detail.into()))
                }
            },
        };
        let text = text.and_then(|text| match field {
            EventField::Id => valid(text),
            EventField::Type if text.is_empty() => Err(invalid("it is empty".into())),
            EventField::Type => Ok(text),
        });
        text.map(Some).map_err(|fault| fault.at(format_args!("at {place}")))
    }

    /// The fault of a field that is at none of its places.
    pub(super) fn missing(&self, root: &Object<'_>, field: EventField) -> Fault {
        let places: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        let null = |pointer: &Pointer| matches!(pointer.find(root), Ok(Some(_)));
        let found = if self.pointers().any(null) { "null" } else { "nothing" };
        let (places, expected) = (places.join(" or "), field.expected());
        Fault::new(field.missing(), format!("at {places}: expected {expected}, found {found}"))
    }

    /// The time of the field in one of these formats, and the index of its pointer if it is in the body; `None` also if
    /// it is unreadable.
    pub(super) fn time(
        &self,
        root: &Object<'_>,
        headers: &HeaderMap,
        formats: &[TimeFormat],
    ) -> Result<Option<(Timestamp, Option<usize>)>, Fault> {
        let Some((index, _, value)) = self.find(root, headers)? else { return Ok(None) };
        let number = |raw: &RawValue| JsonKind::of(raw) == JsonKind::Number;
        let read = |format: &TimeFormat| match (&value, format) {
            (FieldValue::Header(text), _) => time(*format, text.ok()?),
            (FieldValue::Body(raw), TimeFormat::Rfc3339) => time(*format, &json::string(raw)?),
            (FieldValue::Body(raw), _) => number(raw).then(|| time(*format, raw.get()))?,
        };
        let pointer = matches!(value, FieldValue::Body(_));
        let before = self.0.iter().take(index).filter(|place| matches!(place, FieldPlace::Pointer(_)));
        Ok(formats.iter().find_map(read).map(|time| (time, pointer.then(|| before.count()))))
    }
}

/// The value of a header, if it is present. A repeated header is refused: choosing one value would be a guess. Spaces are
/// allowed, since some providers have them in event types.
fn header<'v>(headers: &'v HeaderMap, name: &HeaderName) -> Option<Result<&'v str, &'static str>> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return Some(Err("it appears twice"));
    }
    Some(match value.to_str() {
        Ok(text) if !text.contains('\t') => Ok(text),
        _ => Err("it is not visible ASCII"),
    })
}

fn time(format: TimeFormat, text: &str) -> Option<Timestamp> {
    match format {
        TimeFormat::UnixSeconds => unix(text, 9),
        TimeFormat::UnixMilliseconds => unix(text, 6),
        // jiff would parse a leap second as the second before it, which would look exact.
        TimeFormat::Rfc3339 => text.parse().ok().filter(|_| !text.contains(":60")),
    }
}

/// Parses a number in units of 10^(`digits` - 9) seconds. It is not parsed as f64: fractions are read by their digits,
/// too, and one beyond nanoseconds is refused.
fn unix(text: &str, digits: usize) -> Option<Timestamp> {
    let (written, fraction) = text.split_once('.').unwrap_or((text, ""));
    let unsigned = written.strip_prefix('-').unwrap_or(written);
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if unsigned.is_empty() || fraction.len() > digits || !all_digits(unsigned) || !all_digits(fraction) {
        return None;
    }
    // No timestamp needs more than an i64.
    let units = i128::from(unsigned.parse::<i64>().ok()?);
    let decimals = fraction.bytes().chain(std::iter::repeat(b'0')).take(digits);
    let size = decimals.fold(units, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    let nanoseconds = if written.starts_with('-') { -size } else { size };
    Timestamp::from_nanosecond(nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_by_their_digits() {
        use TimeFormat::{Rfc3339, UnixMilliseconds, UnixSeconds};
        // The right column was computed with Python's datetime and decimal.
        let rows = [
            (UnixSeconds, "1775847600", Some("2026-04-10T19:00:00Z")),
            (UnixSeconds, "1775847600.5", Some("2026-04-10T19:00:00.5Z")),
            (UnixSeconds, "-0.25", Some("1969-12-31T23:59:59.75Z")),
            (UnixSeconds, "0.000000001", Some("1970-01-01T00:00:00.000000001Z")),
            (UnixSeconds, "0.0000000001", None),
            (UnixMilliseconds, "1775847600123", Some("2026-04-10T19:00:00.123Z")),
            (UnixMilliseconds, "1775847600123.4567", Some("2026-04-10T19:00:00.1234567Z")),
            (UnixMilliseconds, "-1", Some("1969-12-31T23:59:59.999Z")),
            (UnixSeconds, "1.7e9", None),
            (UnixSeconds, "+1", None),
            (UnixSeconds, "", None),
            (UnixSeconds, "-", None),
            (UnixSeconds, "99999999999999999999999999999999999999999", None),
            (Rfc3339, "2026-04-10T21:00:00+02:00", Some("2026-04-10T19:00:00Z")),
            (Rfc3339, "2016-12-31T23:59:60Z", None),
            (Rfc3339, "1775847600", None),
        ];
        for (format, text, expected) in rows {
            assert_eq!(time(format, text), expected.map(|text| text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_header_counts_once_and_in_visible_ascii() {
        let name = HeaderName::from_static("x-id");
        let with = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&name, http::HeaderValue::from_bytes(value).unwrap());
            }
            header(&headers, &name).map(|text| text.map(str::to_owned))
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[b"Push Hook"]), Some(Ok("Push Hook".to_owned())));
        assert_eq!(with(&[b"a", b"a"]), Some(Err("it appears twice")));
        for bad in [&b"\xc3\xbc"[..], b"a\tb"] {
            assert_eq!(with(&[bad]), Some(Err("it is not visible ASCII")));
        }
    }
}
