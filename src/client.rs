//! The base of hookstream's HTTP clients: none follows a redirect, each answer is read within limits and must have the
//! expected form, and no URL is shown with parts that may be secret.
//!
//! A registry behind a redirect showed why: the POST became a GET, whose answer, the list `[1]`, was read as an object
//! with the id 1, since serde accepts an array for a struct.

use std::fmt;

use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{ClientBuilder, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The limit of an answer, in bytes: far above any that hookstream expects.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// The limit of a URL that is shown, in characters.
const MAX_SHOWN: usize = 300;

/// The builder of every HTTP client.
pub fn builder() -> ClientBuilder {
    // A redirect could lead elsewhere with the token, and turns a POST into a GET.
    reqwest::Client::builder().redirect(redirect::Policy::none())
}

/// Does not load the system's certificates if `url` is plain HTTP: they are not needed, and a bare container has none.
pub fn without_certificates_for_http(builder: ClientBuilder, url: &str) -> ClientBuilder {
    if url.starts_with("http://") { builder.tls_certs_only([]) } else { builder }
}

/// A URL for logs, errors and pages: without user, password, query and fragment, which may contain secrets.
pub fn printable(url: &Url) -> String {
    let mut url = url.clone();
    let _ = (url.set_username(""), url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    let mut text = url.to_string();
    if let Some((end, _)) = text.char_indices().nth(MAX_SHOWN) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// A completely read answer.
#[derive(Debug)]
pub struct HttpAnswer {
    /// Any status except a redirect.
    pub status: StatusCode,
    /// The headers as received.
    pub headers: HeaderMap,
    /// The body as received; at most [`MAX_ANSWER`].
    pub body: Vec<u8>,
}

/// Why an answer is not usable. The error contains nothing of the answer's content, which may be anything.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// No answer: nothing listens there, or the request timed out.
    #[error("{}", innermost(.0))]
    Missing(reqwest::Error),
    /// A redirect to another address, which is not followed.
    #[error(transparent)]
    Redirect(#[from] Redirect),
    /// The connection ended before the answer was complete.
    #[error("the answer is incomplete: {}", innermost(.0))]
    Incomplete(reqwest::Error),
    /// The answer is longer than [`MAX_ANSWER`].
    #[error("the answer is longer than {} MiB", MAX_ANSWER / (1024 * 1024))]
    TooLarge,
    /// The answer has another form.
    #[error("received {found}, expected {expected}{hint}")]
    Unexpected {
        /// The form of the answer.
        found: String,
        /// The form that was expected.
        expected: &'static str,
        /// A possible cause.
        hint: &'static str,
    },
}

/// The innermost cause. The ones above it ("error sending request: client error (Connect)") add nothing for an operator.
fn innermost(error: &reqwest::Error) -> &dyn std::error::Error {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost
}

/// An answer that redirects to another address.
#[derive(Debug)]
pub struct Redirect {
    status: StatusCode,
    /// The target, if it is an HTTP URL. Boxed, because each error about an answer would be as large.
    pub target: Option<Box<Url>>,
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it redirects ({})", self.status)?;
        if let Some(target) = &self.target {
            write!(f, " to {}", printable(target))?;
        }
        f.write_str(", and redirects are not followed")
    }
}

impl std::error::Error for Redirect {}

/// Sends a request and reads the answer. The client's time-out covers both.
///
/// # Errors
/// No complete answer within the limits, or a redirect.
pub async fn send(request: RequestBuilder) -> Result<HttpAnswer, AnswerError> {
    let response = request.send().await.map_err(|error| AnswerError::Missing(error.without_url()))?;
    read(response).await
}

/// Reads an answer completely, unless it is a redirect or too long.
///
/// # Errors
/// A redirect, a longer answer than [`MAX_ANSWER`], or an incomplete one.
pub async fn read(mut response: Response) -> Result<HttpAnswer, AnswerError> {
    let status = response.status();
    if status.is_redirection() {
        return Err(Redirect { status, target: target(&response) }.into());
    }
    let headers = std::mem::take(response.headers_mut());
    let mut body = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|error| AnswerError::Incomplete(error.without_url()))?
    {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(AnswerError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(HttpAnswer { status, headers, body })
}

fn target(response: &Response) -> Option<Box<Url>> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let target = response.url().join(location).ok()?;
    (matches!(target.scheme(), "http" | "https") && target.has_host()).then_some(target).map(Box::new)
}

impl HttpAnswer {
    /// Parses the answer as JSON. For a struct, `T` is a [`JsonObject`]. `expected` describes the form to people, such
    /// as "an object with an id".
    ///
    /// # Errors
    /// [`AnswerError::Unexpected`] if the answer has another form.
    pub fn json<T: DeserializeOwned>(&self, expected: &'static str) -> Result<T, AnswerError> {
        let parsed = if self.is_html() { None } else { serde_json::from_slice(&self.body).ok() };
        parsed.ok_or_else(|| self.unexpected(expected))
    }

    /// The error that describes this answer if `expected` was required.
    pub fn unexpected(&self, expected: &'static str) -> AnswerError {
        let hint = match self.is_html() {
            true => "; there may be a proxy or a login page in between",
            false => "",
        };
        AnswerError::Unexpected { found: self.kind(), expected, hint }
    }

    /// Whether the answer is an HTML page, whatever its content type.
    pub fn is_html(&self) -> bool {
        self.content_type().starts_with("text/html") || self.first() == Some(&b'<')
    }

    /// The content type in lower case; empty if the answer has none.
    fn content_type(&self) -> String {
        let sent = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        sent.unwrap_or_default().to_ascii_lowercase()
    }

    fn first(&self) -> Option<&u8> {
        self.body.trim_ascii_start().first()
    }

    fn kind(&self) -> String {
        let valid = || serde_json::from_slice::<serde::de::IgnoredAny>(&self.body).is_ok();
        let kind = match self.first() {
            None => "an empty answer",
            _ if self.is_html() => "an HTML page",
            Some(b'{') if valid() => "another JSON object",
            Some(b'[') if valid() => "a JSON array",
            Some(b'{' | b'[') => "broken JSON",
            _ if valid() => "a single JSON value",
            _ => "something that is not JSON",
        };
        let status = self.status;
        match self.content_type().chars().take(60).filter(|c| c.is_ascii_graphic()).collect::<String>() {
            none if none.is_empty() => format!("{kind} ({status}, no content type)"),
            content_type => format!("{kind} ({status}, {content_type})"),
        }
    }
}

/// A value that must be a JSON object: serde alone also accepts an array for a struct, by the order of the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonObject<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for JsonObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct JsonObjectVisitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for JsonObjectVisitor<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }
        deserializer.deserialize_map(JsonObjectVisitor(std::marker::PhantomData)).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Id {
        id: i64,
    }

    fn answer(content_type: &str, body: &str) -> HttpAnswer {
        let headers = match content_type {
            "" => HeaderMap::new(),
            _ => [(CONTENT_TYPE, content_type.parse().unwrap())].into_iter().collect(),
        };
        HttpAnswer { status: StatusCode::OK, headers, body: body.into() }
    }

    fn refused(content_type: &str, body: &str) -> String {
        let found = answer(content_type, body).json::<JsonObject<Id>>("an object with an id");
        found.unwrap_err().to_string()
    }

    #[test]
    fn k1_an_array_is_no_object() {
        assert_eq!(serde_json::from_str::<Id>("[1]").unwrap(), Id { id: 1 }, "serde alone accepts an array");
        assert_eq!(
            refused("application/json", "[1]"),
            "received a JSON array (200 OK, application/json), expected an object with an id"
        );
        let found = answer("application/json", " {\"id\": 1, \"more\": [2]}").json::<JsonObject<Id>>("");
        assert_eq!(found.unwrap().0, Id { id: 1 });
    }

    #[test]
    fn an_unexpected_answer_is_described_without_its_content() {
        for (content_type, body, expected) in [
            (
                "text/html; charset=utf-8",
                "<h1>planted</h1>",
                "an HTML page (200 OK, text/html;charset=utf-8)",
            ),
            ("", " <!doctype html>planted", "an HTML page (200 OK, no content type)"),
            ("text/html", "{\"id\": 1}", "an HTML page (200 OK, text/html)"),
            ("image/png", "\u{1}planted", "something that is not JSON (200 OK, image/png)"),
            ("application/json", "", "an empty answer (200 OK, application/json)"),
            ("application/json", "{\"id\": \"planted\"}", "another JSON object (200 OK, application/json)"),
            ("application/json", "{\"id\": 1", "broken JSON (200 OK, application/json)"),
            ("application/json", "7", "a single JSON value (200 OK, application/json)"),
        ] {
            let message = refused(content_type, body);
            assert!(message.starts_with(&format!("received {expected}, expected")), "{message}");
            assert!(!message.contains("planted"), "{message}");
        }
        assert!(refused("text/html", "x").ends_with("; there may be a proxy or a login page in between"));
    }

    #[test]
    fn c7_a_url_is_shown_without_what_may_be_secret() {
        let shown = |url: &str| printable(&Url::parse(url).unwrap());
        assert_eq!(
            shown("https://user:planted@host:8081/a/b?token=planted#planted"),
            "https://host:8081/a/b"
        );
        assert_eq!(shown("http://127.0.0.1:9/"), "http://127.0.0.1:9/");
        assert_eq!(shown(&format!("http://a/{}", "x".repeat(5_000))).len(), MAX_SHOWN + 3);
    }
}
