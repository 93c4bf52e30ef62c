//! The JSON text of a delivery: its content, or a field of the form in it.

use std::borrow::Cow;

use http::{HeaderMap, header};

use super::Delivery;
use crate::outcome::{Fault, Reason};

const FORM: &str = "application/x-www-form-urlencoded";

/// RFC 8259, section 8.1: a reader may ignore it. The signature covers it like every other byte of the body.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

impl Delivery {
    /// The JSON text, not yet parsed: `content`, which is the decoded body, or its field `field` if it is a form. A byte
    /// order mark before it is left out. What begins like a JSON object or array is never a form: no signature covers the
    /// Content-Type, and whoever sends a captured delivery again as a form could otherwise choose which part of a JSON
    /// string becomes the event. Programs that write forms encode both characters.
    ///
    /// # Errors
    /// `json_invalid` for a form that does not have exactly one such field, or that is not UTF-8.
    pub fn payload<'c>(&self, content: &'c [u8], field: Option<&str>) -> Result<Cow<'c, [u8]>, Fault> {
        text(content, &self.headers, field).map(without_mark)
    }
}

fn without_mark(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)),
        Cow::Owned(mut text) => {
            if text.starts_with(BYTE_ORDER_MARK) {
                text.drain(..BYTE_ORDER_MARK.len());
            }
            Cow::Owned(text)
        }
    }
}

fn text<'b>(body: &'b [u8], headers: &HeaderMap, field: Option<&str>) -> Result<Cow<'b, [u8]>, Fault> {
    let Some(field) = field.filter(|_| is_form(headers) && !begins_as_json(body)) else {
        return Ok(Cow::Borrowed(body));
    };
    // The form parser would replace invalid UTF-8 with U+FFFD. Separators are ASCII, so the form is valid UTF-8 exactly
    // if each part is.
    if percent_encoding::percent_decode(body).decode_utf8().is_err() {
        return Err(Fault::new(Reason::JsonInvalid, "the form is not UTF-8"));
    }
    let mut found = form_urlencoded::parse(body).filter(|(name, _)| name == field);
    match (found.next(), found.next()) {
        (Some((_, Cow::Borrowed(text))), None) => Ok(Cow::Borrowed(text.as_bytes())),
        (Some((_, Cow::Owned(text))), None) => Ok(Cow::Owned(text.into_bytes())),
        (None, _) => Err(Fault::new(Reason::JsonInvalid, format!("the form has no field `{field}`"))),
        (Some(_), Some(_)) => {
            Err(Fault::new(Reason::JsonInvalid, format!("the form has the field `{field}` twice")))
        }
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let Some(Ok(kind)) = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str()) else { return false };
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(FORM))
}

fn begins_as_json(body: &[u8]) -> bool {
    let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    matches!(text.trim_ascii_start().first(), Some(b'{' | b'['))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, body: &[u8], field: Option<&str>) -> Result<String, String> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
        let text = text(body, &headers, field);
        text.map(|text| String::from_utf8(text.into_owned()).unwrap()).map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_field_of_a_form_is_decoded_as_python_encodes_it() {
        // urllib.parse.urlencode({"a": "1", "payload": '{"t":"a b+ü\ufffd&=%"}'})
        let body = b"a=1&payload=%7B%22t%22%3A%22a+b%2B%C3%BC%EF%BF%BD%26%3D%25%22%7D";
        let json = "{\"t\":\"a b+\u{fc}\u{fffd}&=%\"}";
        for kind in [FORM, "Application/X-WWW-Form-Urlencoded; charset=utf-8"] {
            assert_eq!(read(kind, body, Some("payload")).unwrap(), json);
        }
        let raw = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(read("application/json", body, Some("payload")).unwrap(), raw);
        assert_eq!(read(FORM, body, None).unwrap(), raw);
    }

    /// No signature covers the Content-Type: whoever sends a captured delivery again can choose it.
    #[test]
    fn a_json_body_is_never_a_form() {
        let object = r#"{"note":"&payload={}&"}"#;
        for body in
            [object, "[\"&payload={}\"]", "\u{feff}{\"&payload={}\":1}", "\u{feff}\r\n\t {\"&payload={}\":1}"]
        {
            assert_eq!(read(FORM, body.as_bytes(), Some("payload")).unwrap(), body);
        }
        assert_eq!(read(FORM, b"%7B=1&payload={}", Some("payload")).unwrap(), "{}");
    }

    #[test]
    fn a_form_without_exactly_one_text_is_refused() {
        for (body, why) in [
            (&b""[..], "json_invalid: the form has no field `payload`"),
            (b"payload=1&x=2&payload=1", "json_invalid: the form has the field `payload` twice"),
            (b"payload=%ff", "json_invalid: the form is not UTF-8"),
            (b"payload=\xc3%28", "json_invalid: the form is not UTF-8"),
        ] {
            assert_eq!(read(FORM, body, Some("payload")).unwrap_err(), why);
        }
    }
}
