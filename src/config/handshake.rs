//! `[[source.NAME.handshake]]` and `[source.NAME.challenge]`: requests with which a provider checks the endpoint, and their
//! answers.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Encoding, de};

/// `[[source.NAME.handshake]]`: a signed delivery that is not an event.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handshake {
    /// The condition that distinguishes it from events.
    pub when: When,
    /// The answer; unset, the usual JSON.
    #[serde(default)]
    pub answer: Option<AnswerConfig>,
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
    /// The text that must be there; of a number, its digits.
    pub equals: String,
}

/// `answer = { pointer = "/challenge" }`: what the provider wants to read. One of `pointer`, `text` and `json`, or none;
/// headers may come in addition.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerConfig {
    /// JSON pointer to a string in the body, which is the answer as plain text.
    #[serde(default)]
    pub pointer: Option<String>,
    /// The plain text of the answer.
    #[serde(default)]
    pub text: Option<String>,
    /// The members of a JSON object.
    #[serde(default)]
    pub json: BTreeMap<String, AnswerValue>,
    /// Headers of the answer.
    #[serde(default)]
    pub headers: BTreeMap<String, AnswerValue>,
}

/// A value of an answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum AnswerValue {
    /// A whole number.
    Number(i64),
    /// A fixed text.
    Text(String),
    /// A value of the request.
    Taken(TakenValue),
}

/// `{ query = "crc_token", hmac = "base64", prefix = "sha256=" }`: a value of the request, or its HMAC.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakenValue {
    /// JSON pointer into the body.
    #[serde(default)]
    pub pointer: Option<String>,
    /// Name of a header.
    #[serde(default)]
    pub header: Option<String>,
    /// Name of a query parameter.
    #[serde(default)]
    pub query: Option<String>,
    /// Instead of the value, its HMAC with the source's secret, in this encoding.
    #[serde(default, deserialize_with = "de::some_choice")]
    pub hmac: Option<Encoding>,
    /// The text before it.
    #[serde(default)]
    pub prefix: String,
}

/// `[source.NAME.challenge]`: a request without a signature. At most one of `query`, `header` and `pointer`, which must
/// be in the request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// The request's method.
    #[serde(default, deserialize_with = "de::choice")]
    pub method: ChallengeMethod,
    /// A query parameter.
    #[serde(default)]
    pub query: Option<String>,
    /// A header.
    #[serde(default)]
    pub header: Option<String>,
    /// JSON pointer to a string in the body of a POST.
    #[serde(default)]
    pub pointer: Option<String>,
    /// The answer; unset, the value as plain text.
    #[serde(default)]
    pub answer: Option<AnswerConfig>,
}

/// The method of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ChallengeMethod {
    /// GET
    #[default]
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
}
