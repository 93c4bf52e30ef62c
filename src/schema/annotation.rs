//! `hookstream.*` annotations on a field of a schema: how the provider writes the field's value.
//!
//! An annotation applies to everything in the field's type, except the fields of a nested record. Readers and
//! registries ignore it.

use apache_avro::schema::RecordField;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::config::TimeFormat;

const PREFIX: &str = "hookstream.";

/// The annotations of one field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Annotations<'s> {
    /// The key in JSON, if it is not the field's name.
    pub(super) json: Option<&'s str>,
    pub(super) time: Option<TimeFormat>,
    pub(super) bytes: Option<BytesForm>,
    pub(super) decimal: Option<DecimalForm>,
}

/// The text encoding of bytes in JSON. Each form has exactly one text for the same bytes, so that the sent text can be
/// restored from the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BytesForm {
    /// RFC 4648 section 4, with padding.
    Base64,
    /// RFC 4648 section 5, without padding.
    Base64Url,
    /// Lower-case hex.
    Hex,
}

/// The form of a decimal in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecimalForm {
    Number,
    /// A number's text in a string, as is common for money.
    String,
}

impl<'s> Annotations<'s> {
    /// # Errors
    /// One sentence that names an annotation that is unknown or has an invalid value.
    pub(super) fn of(field: &'s RecordField) -> Result<Self, String> {
        let mut all = Self::default();
        for (name, value) in &field.custom_attributes {
            let Some(annotation) = name.strip_prefix(PREFIX) else { continue };
            let text = value.as_str().unwrap_or_default();
            let known = match annotation {
                "json" => put(&mut all.json, value.as_str(), "a string"),
                "time" => put(&mut all.time, time(text), "rfc3339, unix_seconds or unix_milliseconds"),
                "bytes" => put(&mut all.bytes, BytesForm::of(text), "base64, base64url or hex"),
                "decimal" => put(&mut all.decimal, decimal(text), "number or string"),
                _ => {
                    return Err(format!(
                        "unknown annotation `{name}`; expected hookstream.json, .time, .bytes or .decimal"
                    ));
                }
            };
            known.map_err(|wanted| format!("`{name}` must be {wanted}"))?;
        }
        Ok(all)
    }
}

fn put<T>(into: &mut Option<T>, value: Option<T>, wanted: &'static str) -> Result<(), &'static str> {
    *into = value;
    if into.is_some() { Ok(()) } else { Err(wanted) }
}

fn time(text: &str) -> Option<TimeFormat> {
    match text {
        "rfc3339" => Some(TimeFormat::Rfc3339),
        "unix_seconds" => Some(TimeFormat::UnixSeconds),
        "unix_milliseconds" => Some(TimeFormat::UnixMilliseconds),
        _ => None,
    }
}

fn decimal(text: &str) -> Option<DecimalForm> {
    match text {
        "number" => Some(DecimalForm::Number),
        "string" => Some(DecimalForm::String),
        _ => None,
    }
}

impl BytesForm {
    fn of(text: &str) -> Option<Self> {
        match text {
            "base64" => Some(Self::Base64),
            "base64url" => Some(Self::Base64Url),
            "hex" => Some(Self::Hex),
            _ => None,
        }
    }

    pub(super) const fn expects(self) -> &'static str {
        match self {
            Self::Base64 => "base64 with padding",
            Self::Base64Url => "base64url without padding",
            Self::Hex => "hex in lower case",
        }
    }

    /// The bytes of a text. `None` if it is not the one text of those bytes.
    pub(super) fn read(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Base64 => STANDARD.decode(text).ok(),
            Self::Base64Url => URL_SAFE_NO_PAD.decode(text).ok(),
            Self::Hex if text.bytes().any(|byte| byte.is_ascii_uppercase()) => None,
            Self::Hex => hex::decode(text).ok(),
        }
    }

    /// The text of bytes.
    pub(super) fn write(self, bytes: &[u8]) -> String {
        match self {
            Self::Base64 => STANDARD.encode(bytes),
            Self::Base64Url => URL_SAFE_NO_PAD.encode(bytes),
            Self::Hex => hex::encode(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_text() {
        for (form, text, bytes) in [
            (BytesForm::Base64, "AP+/", &[0, 0xff, 0xbf][..]),
            (BytesForm::Base64, "/w==", &[0xff]),
            (BytesForm::Base64Url, "_w", &[0xff]),
            (BytesForm::Hex, "00ff", &[0, 0xff]),
            (BytesForm::Hex, "", &[]),
        ] {
            assert_eq!(form.read(text).as_deref(), Some(bytes), "{text}");
            assert_eq!(form.write(bytes), text);
        }
        for (form, text) in [
            (BytesForm::Base64, "/w"),
            (BytesForm::Base64, "/x=="),
            (BytesForm::Base64, "_w=="),
            (BytesForm::Base64, "/w==\n"),
            (BytesForm::Base64Url, "_w=="),
            (BytesForm::Base64Url, "/w"),
            (BytesForm::Hex, "0"),
            (BytesForm::Hex, "FF"),
        ] {
            assert_eq!(form.read(text), None, "{form:?} {text}");
        }
    }
}
