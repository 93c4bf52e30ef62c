//! `[[source.NAME.handshake]]` and `[source.NAME.challenge]`: requests with which a provider checks the endpoint.

use serde::Deserialize;

use super::de;

/// `[[source.NAME.handshake]]`: a signed delivery that is not an event.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handshake {
    /// The condition that distinguishes it from events.
    pub when: When,
    /// What the response contains as plain text; unset, the response is the usual JSON.
    #[serde(default)]
    pub answer: Option<HandshakeAnswer>,
}

/// `when = { pointer = "/type", equals = "url_verification" }`, or with `header`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// JSON pointer into the body; excludes `header`.
    #[serde(default)]
    pub pointer: Option<String>,
    /// Name of a header of the request, signed or not, or several names; excludes `pointer`.
    #[serde(default, deserialize_with = "de::list")]
    pub header: Vec<String>,
    /// The text that must be there.
    pub equals: String,
}

/// `answer = { pointer = "/challenge" }`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandshakeAnswer {
    /// JSON pointer to a string in the body.
    pub pointer: String,
}

/// `[source.NAME.challenge]`: a GET request, which has no signature.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// The query parameter whose value is returned.
    pub query: String,
}
