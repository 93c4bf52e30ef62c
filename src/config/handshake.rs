//! `[[source.NAME.handshake]]` and `[source.NAME.challenge]`: what a provider sends to see whether
//! somebody is there.

use serde::Deserialize;

/// `[[source.NAME.handshake]]`: a signed delivery that is no event.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handshake {
    /// What tells it from events.
    pub when: When,
    /// What is sent back as plain text; without it, the usual JSON.
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
    /// Name of a header of the request, signed or not; excludes `pointer`.
    #[serde(default)]
    pub header: Option<String>,
    /// The text that stands there.
    pub equals: String,
}

/// `answer = { pointer = "/challenge" }`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandshakeAnswer {
    /// JSON pointer to a text of the body.
    pub pointer: String,
}

/// `[source.NAME.challenge]`: a GET that nobody can sign.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// The parameter of the query whose value is sent back.
    pub query: String,
}
