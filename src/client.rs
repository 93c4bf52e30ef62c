//! What all our HTTP clients share: none follows a redirect, each answer is read within bounds and counts only
//! as what it must be, and no URL is shown with what may be secret in it.
//!
//! A registry behind a redirect has shown why: a POST became a GET, whose answer, the list `[1]`, was read as
//! an object with the id 1, since serde takes an array for a struct.

use std::fmt;

use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{ClientBuilder, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Of an answer, in bytes: far above any that is meant for us.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// Of a URL that an answer names, in characters.
const MAX_SHOWN: usize = 300;

/// Each client of ours begins here.
pub fn builder() -> ClientBuilder {
    // It could lead elsewhere with our token, and makes a GET of a POST.
    reqwest::Client::builder().redirect(redirect::Policy::none())
}

/// A URL fit for log, error and page: without user, password, query and fragment, where secrets stand.
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

/// An answer, read to its end.
#[derive(Debug)]
pub struct HttpAnswer {
    /// Any but that of a redirect.
    pub status: StatusCode,
    /// As sent.
    pub headers: HeaderMap,
    /// Likewise; at most [`MAX_ANSWER`].
    pub body: Vec<u8>,
}

/// Why an answer does not count. None of its content is shown, which may hold anything.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// There is none: nobody listens, or it took too long.
    #[error(transparent)]
    Missing(reqwest::Error),
    /// Another address is to be asked; nobody does.
    #[error(transparent)]
    Redirect(#[from] Redirect),
    /// It began, and did not come to its end.
    #[error("the answer broke off")]
    Incomplete(#[source] reqwest::Error),
    /// It is longer than we read.
    #[error("the answer is longer than {} MiB", MAX_ANSWER / (1024 * 1024))]
    TooLarge,
    /// It is something else.
    #[error("{found} came, and {expected} was expected{hint}")]
    Unexpected {
        /// What it is.
        found: String,
        /// What it had to be.
        expected: &'static str,
        /// What may be the cause.
        hint: &'static str,
    },
}

/// An answer that names another address.
#[derive(Debug)]
pub struct Redirect {
    status: StatusCode,
    /// Where to, if it is a web address.
    pub target: Option<Url>,
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it redirects ({})", self.status)?;
        if let Some(target) = &self.target {
            write!(f, " to {}", printable(target))?;
        }
        f.write_str(", and no redirect is followed")
    }
}

impl std::error::Error for Redirect {}

/// Sends a request and reads the answer. The client's time-out bounds both together.
///
/// # Errors
/// No whole answer within its bounds, or a redirect.
pub async fn send(request: RequestBuilder) -> Result<HttpAnswer, AnswerError> {
    let response = request.send().await.map_err(|error| AnswerError::Missing(error.without_url()))?;
    read(response).await
}

/// Reads an answer to its end, unless it is a redirect or too long.
///
/// # Errors
/// These, and one that breaks off.
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

fn target(response: &Response) -> Option<Url> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let target = response.url().join(location).ok()?;
    (matches!(target.scheme(), "http" | "https") && target.has_host()).then_some(target)
}

impl HttpAnswer {
    /// The JSON that it must be. For a struct, `T` is a [`JsonObject`]. `expected` says it for people, such as
    /// "an object with an id".
    ///
    /// # Errors
    /// It is something else.
    pub fn json<T: DeserializeOwned>(&self, expected: &'static str) -> Result<T, AnswerError> {
        let parsed = if self.is_html() { None } else { serde_json::from_slice(&self.body).ok() };
        parsed.ok_or_else(|| self.unexpected(expected))
    }

    /// Says what it is where `expected` had to be.
    pub fn unexpected(&self, expected: &'static str) -> AnswerError {
        let hint = match self.is_html() {
            true => "; a proxy or a login page may stand before it",
            false => "",
        };
        AnswerError::Unexpected { found: self.kind(), expected, hint }
    }

    /// Whether it is a page for people, whatever its status says.
    pub fn is_html(&self) -> bool {
        self.content_type().starts_with("text/html") || self.first() == Some(&b'<')
    }

    /// In lower case; empty without.
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
            _ if valid() => "a JSON scalar",
            _ => "something that is not JSON",
        };
        let status = self.status;
        match self.content_type().chars().take(60).filter(|c| c.is_ascii_graphic()).collect::<String>() {
            none if none.is_empty() => format!("{kind} ({status}, without a content type)"),
            content_type => format!("{kind} ({status}, {content_type})"),
        }
    }
}

/// What came as a JSON object: serde alone would take an array for a struct, too, by the order of its fields.
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
        assert_eq!(serde_json::from_str::<Id>("[1]").unwrap(), Id { id: 1 }, "what serde alone makes of it");
        assert_eq!(
            refused("application/json", "[1]"),
            "a JSON array (200 OK, application/json) came, and an object with an id was expected"
        );
        let found = answer("application/json", " {\"id\": 1, \"more\": [2]}").json::<JsonObject<Id>>("");
        assert_eq!(found.unwrap().0, Id { id: 1 });
    }

    #[test]
    fn what_came_instead_is_named_without_a_word_of_it() {
        for (content_type, body, expected) in [
            (
                "text/html; charset=utf-8",
                "<h1>planted</h1>",
                "an HTML page (200 OK, text/html;charset=utf-8)",
            ),
            ("", " <!doctype html>planted", "an HTML page (200 OK, without a content type)"),
            ("text/html", "{\"id\": 1}", "an HTML page (200 OK, text/html)"),
            ("image/png", "\u{1}planted", "something that is not JSON (200 OK, image/png)"),
            ("application/json", "", "an empty answer (200 OK, application/json)"),
            ("application/json", "{\"id\": \"planted\"}", "another JSON object (200 OK, application/json)"),
            ("application/json", "{\"id\": 1", "broken JSON (200 OK, application/json)"),
            ("application/json", "7", "a JSON scalar (200 OK, application/json)"),
        ] {
            let said = refused(content_type, body);
            assert!(said.starts_with(&format!("{expected} came, and")), "{said}");
            assert!(!said.contains("planted"), "{said}");
        }
        assert!(refused("text/html", "x").ends_with("; a proxy or a login page may stand before it"));
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
