//! `[source.NAME]`: a provider that may deliver, and its rules.

use std::time::Duration;

use serde::Deserialize;

use super::{
    Challenge, CompatibilityLevel, EnvelopeConfig, Handshake, Networks, SecretEntry, Signature, de,
    secret_ref, signature,
};

/// `[source.NAME]`, with its preset merged in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The provider whose rules and schemas apply where the source sets none of its own.
    #[serde(default)]
    pub preset: Option<String>,
    /// The provider's documentation of its webhooks.
    #[serde(default)]
    pub docs: Option<String>,
    /// `false` disables the source: its URL answers 404, its secrets are not read.
    #[serde(default = "yes", deserialize_with = "de::boolean")]
    pub enabled: bool,
    /// The secrets that deliveries may be signed with, tried in this order.
    #[serde(default, deserialize_with = "secret_ref::entries")]
    pub secrets: Vec<SecretEntry>,
    /// Whether the record's key contains the binding of the secret that signed the delivery. Without it, anyone who
    /// holds one tenant's secret can take over another tenant's key.
    #[serde(default = "yes", deserialize_with = "de::boolean")]
    pub binding_in_key: bool,
    /// What the signature of a compressed body covers.
    #[serde(default, deserialize_with = "de::choice")]
    pub content_encoding: ContentEncoding,
    /// The time limit for the response, counted from the complete request head.
    #[serde(deserialize_with = "de::duration", default = "four_seconds")]
    pub ack_deadline: Duration,
    /// Event types, each with its own topic; types without a schema use the generic record.
    #[serde(default, deserialize_with = "de::list")]
    pub types: Vec<String>,
    /// What happens to other event types.
    #[serde(default, deserialize_with = "de::choice")]
    pub unmapped: Unmapped,
    /// The addresses that may call; unset, any address may.
    #[serde(default)]
    pub allow: Option<Networks>,
    /// Verified deliveries per second; beyond it, 503. Unset, there is no limit.
    #[serde(default, deserialize_with = "de::some_number")]
    pub rate_limit: Option<u32>,
    /// Verified deliveries of this source in flight; beyond it, 503. The default is half of `http.max_in_flight`, or
    /// all of it if no other source is enabled.
    #[serde(default, deserialize_with = "de::some_number")]
    pub max_in_flight: Option<usize>,
    /// Dead letters per second; beyond it, 503.
    #[serde(deserialize_with = "de::number", default = "hundred")]
    pub dead_letter_rate: u32,
    /// What happens to a delivery whose signed timestamp is too far from now.
    #[serde(default, deserialize_with = "de::choice")]
    pub stale: Stale,
    /// How far the signed timestamp may be from now, in either direction.
    #[serde(deserialize_with = "de::duration", default = "five_minutes")]
    pub tolerance: Duration,
    /// The compatibility level of the subjects of the source's schemas.
    #[serde(default = "strictest", deserialize_with = "de::choice")]
    pub compatibility: CompatibilityLevel,
    /// How a delivery is signed: one scheme or several, of which it must satisfy one completely.
    #[serde(deserialize_with = "signature::schemes")]
    pub signature: Vec<Signature>,
    /// Where the event's own fields are.
    pub envelope: EnvelopeConfig,
    /// Signed deliveries that are not events, but need an answer.
    #[serde(default)]
    pub handshake: Vec<Handshake>,
    /// A GET request that is answered with a parameter of its query.
    #[serde(default)]
    pub challenge: Option<Challenge>,
}

fn yes() -> bool {
    true
}

fn strictest() -> CompatibilityLevel {
    CompatibilityLevel::FullTransitive
}

fn four_seconds() -> Duration {
    Duration::from_secs(4)
}

fn five_minutes() -> Duration {
    Duration::from_secs(5 * 60)
}

fn hundred() -> u32 {
    100
}

/// `unmapped = "dead_letter"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unmapped {
    /// Publish to the source's dead letters, as `type_unknown`.
    #[default]
    DeadLetter,
    /// Publish to `<source>.unmapped` as a generic record.
    Generic,
}

/// `content_encoding = "signed_encoded"`. The default decodes nothing: what the signature covers differs from provider to
/// provider, and only its documentation tells. It refuses nothing either: a body that is verified as sent is a dead letter
/// then, which a replay decodes once the setting is there, and some senders write a character set into the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentEncoding {
    /// The body is taken as it was sent.
    #[default]
    AsSent,
    /// The signature covers the body as sent, which is decoded after it has been verified.
    SignedEncoded,
    /// The signature covers the decoded body.
    SignedDecoded,
}

/// `stale = "reject"`. If the signed timestamp is the event's time and a retry keeps it, only `accept` loses nothing:
/// after an outage of hookstream, every retry is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stale {
    /// Ignore the age.
    #[default]
    Accept,
    /// Publish to the source's dead letters, as `stale`.
    DeadLetter,
    /// Answer 401, as `stale_rejected`: suitable if the provider signs each attempt anew.
    Reject,
}
