//! Bodies that are forms with the JSON text in one field.

use bytes::Bytes;

use crate::json;

/// The content type of a form.
pub(super) const KIND: &str = "application/x-www-form-urlencoded";

/// A decoded form.
pub(super) struct FormBody {
    fields: Vec<(String, String)>,
    /// The name of the field with the JSON text, and that text.
    name: String,
    text: String,
}

/// Parses the body as a form if the source has `payload = "form:NAME"`. `None` for JSON, which is sent as JSON, and for
/// anything else, which is sent unchanged: the service decides about it.
pub(super) fn parse(body: &[u8], payload: Option<&str>) -> Option<FormBody> {
    let name = payload?.strip_prefix("form:")?;
    if json::check(body).is_ok() {
        return None;
    }
    let fields: Vec<(String, String)> = form_urlencoded::parse(body).into_owned().collect();
    let text = fields.iter().find(|(field, _)| field == name)?.1.clone();
    Some(FormBody { fields, name: name.to_owned(), text })
}

impl FormBody {
    /// The JSON text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Encodes the form with another JSON text.
    pub(super) fn with(&self, text: &str) -> Bytes {
        let mut made = form_urlencoded::Serializer::new(String::new());
        for (name, value) in &self.fields {
            made.append_pair(name, if *name == self.name { text } else { value });
        }
        made.finish().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded_and_encoded_if_the_source_accepts_them() {
        // urllib.parse.urlencode({"a": "1 &", "payload": '{"t":"a b+\u00fc"}'})
        let body = b"a=1+%26&payload=%7B%22t%22%3A%22a+b%2B%C3%BC%22%7D";
        let form = parse(body, Some("form:payload")).unwrap();
        assert_eq!(form.text(), "{\"t\":\"a b+\u{fc}\"}");
        assert_eq!(form.with(form.text()), &body[..]);
        assert_eq!(form.with("{}"), "a=1+%26&payload=%7B%7D");
        for (body, payload) in [
            (&body[..], None),
            (b"{\"payload\":1}", Some("form:payload")),
            (b"no json", Some("form:payload")),
            (b"other=%7B%7D", Some("form:payload")),
        ] {
            assert!(parse(body, payload).is_none(), "{}", String::from_utf8_lossy(body));
        }
    }
}
