//! The source of a field: a JSON pointer into the event, or a request header.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use jiff::Timestamp;

use crate::config::TimeFormat;
use crate::json::{self, JsonKind, Object, Pointer};
use crate::outcome::{Fault, Reason};

#[derive(Debug)]
pub(super) enum FieldSelector {
    Pointer(Pointer),
    Header(HeaderName),
}

impl FieldSelector {
    pub(super) fn pointer(&self) -> Option<&Pointer> {
        match self {
            Self::Pointer(pointer) => Some(pointer),
            Self::Header(_) => None,
        }
    }

    /// The text of the field; `None` if it is missing or null. A value that is not text, or a header that does not
    /// appear exactly once in visible ASCII, is the fault `invalid`.
    pub(super) fn text<'v>(
        &self,
        root: &Object<'v>,
        headers: &'v HeaderMap,
        invalid: Reason,
    ) -> Result<Option<Cow<'v, str>>, Fault> {
        match self {
            Self::Header(name) => match header(headers, name) {
                Ok(text) => Ok(text.map(Cow::Borrowed)),
                Err(detail) => Err(Fault::new(invalid, detail)),
            },
            Self::Pointer(pointer) => {
                match pointer.find(root)?.filter(|raw| JsonKind::of(raw) != JsonKind::Null) {
                    None => Ok(None),
                    Some(raw) => json::string(raw).map(Some).ok_or(Fault::new(invalid, "it is not text")),
                }
            }
        }
    }

    /// The text, or the digits of a number as sent, for an event id or a record's key; `None` if it is missing or null.
    /// Other values are `id_invalid`.
    pub(super) fn text_or_digits<'v>(
        &self,
        root: &Object<'v>,
        headers: &'v HeaderMap,
    ) -> Result<Option<Cow<'v, str>>, Fault> {
        if let Self::Pointer(pointer) = self
            && let Some(raw) = pointer.find(root)?
            && JsonKind::of(raw) == JsonKind::Number
        {
            return Ok(Some(Cow::Borrowed(raw.get())));
        }
        self.text(root, headers, Reason::IdInvalid)
    }

    /// The time of the field; `None` also if it is unreadable.
    pub(super) fn time(
        &self,
        root: &Object<'_>,
        headers: &HeaderMap,
        format: TimeFormat,
    ) -> Result<Option<Timestamp>, Fault> {
        let text = match self {
            Self::Header(name) => header(headers, name).ok().flatten().map(Cow::Borrowed),
            Self::Pointer(pointer) => match (pointer.find(root)?, format) {
                (Some(raw), TimeFormat::Rfc3339) => json::string(raw),
                (Some(raw), _) if JsonKind::of(raw) == JsonKind::Number => Some(Cow::Borrowed(raw.get())),
                _ => None,
            },
        };
        Ok(text.and_then(|text| time(format, &text)))
    }
}

/// The value of a header. A repeated header is refused: choosing one value would be a guess. Spaces are allowed, since
/// some providers have them in event types.
fn header<'v>(headers: &'v HeaderMap, name: &HeaderName) -> Result<Option<&'v str>, &'static str> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err("its header appears twice");
    }
    match value.to_str() {
        Ok(text) if !text.contains('\t') => Ok(Some(text)),
        _ => Err("its header is not visible ASCII"),
    }
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
        assert_eq!(with(&[]), Ok(None));
        assert_eq!(with(&[b"Push Hook"]), Ok(Some("Push Hook".to_owned())));
        assert_eq!(with(&[b"a", b"a"]), Err("its header appears twice"));
        for bad in [&b"\xc3\xbc"[..], b"a\tb"] {
            assert_eq!(with(&[bad]), Err("its header is not visible ASCII"));
        }
    }
}
