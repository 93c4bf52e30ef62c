//! `[source.NAME]`: who may deliver, under which rules.

use std::time::Duration;

use serde::Deserialize;

use super::{
    Challenge, CompatibilityLevel, Envelope, Handshake, Networks, SecretEntry, Signature, de, secret_ref,
};

/// `[source.NAME]`, its preset merged in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The provider whose rules and schemas are taken where the source says nothing itself.
    #[serde(default)]
    pub preset: Option<String>,
    /// The provider's page about its webhooks.
    #[serde(default)]
    pub docs: Option<String>,
    /// `false` turns the source off: its URL answers 404, its secrets are not read.
    #[serde(default = "yes", deserialize_with = "de::boolean")]
    pub enabled: bool,
    /// The secrets that may sign, tried in this order.
    #[serde(default, deserialize_with = "secret_ref::entries")]
    pub secrets: Vec<SecretEntry>,
    /// Whether the key of a record says what the secret that signed it is bound to. Without it, whoever has one
    /// tenant's secret can take another tenant's key.
    #[serde(default = "yes", deserialize_with = "de::boolean")]
    pub binding_in_key: bool,
    /// How long after the complete request head the answer is due.
    #[serde(deserialize_with = "de::duration", default = "four_seconds")]
    pub ack_deadline: Duration,
    /// Event types with a topic each; those without a schema get the generic record.
    #[serde(default, deserialize_with = "de::list")]
    pub types: Vec<String>,
    /// What becomes of other event types.
    #[serde(default, deserialize_with = "de::choice")]
    pub unmapped: Unmapped,
    /// The addresses that may call; without it, any.
    #[serde(default)]
    pub allow: Option<Networks>,
    /// Verified deliveries per second; past it, 503. Without it, there is no such bound.
    #[serde(default, deserialize_with = "de::some_number")]
    pub rate_limit: Option<u32>,
    /// Verified deliveries in flight of this source; past it, 503. Without it, half of
    /// `http.max_in_flight`, or all where no other source is on.
    #[serde(default, deserialize_with = "de::some_number")]
    pub max_in_flight: Option<usize>,
    /// Dead letters per second; past it, 503.
    #[serde(deserialize_with = "de::number", default = "hundred")]
    pub dead_letter_rate: u32,
    /// What becomes of a delivery whose signed time is too far from now.
    #[serde(default, deserialize_with = "de::choice")]
    pub stale: Stale,
    /// How far that may be, before or after.
    #[serde(deserialize_with = "de::duration", default = "five_minutes")]
    pub tolerance: Duration,
    /// What a new version of its schemas must be able to do: the level of their subjects.
    #[serde(default = "strictest", deserialize_with = "de::choice")]
    pub compatibility: CompatibilityLevel,
    /// How a delivery is signed.
    pub signature: Signature,
    /// Where the event's own fields stand.
    pub envelope: Envelope,
    /// Signed deliveries that are no events, but are to be answered.
    #[serde(default)]
    pub handshake: Vec<Handshake>,
    /// A GET that is to be answered with what its query holds.
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
    /// To the source's dead letters, as `type_unknown`.
    #[default]
    DeadLetter,
    /// Published on `<source>.unmapped` as a generic record.
    Generic,
}

/// `stale = "reject"`. Where the signed time is the event's and a retry keeps it, only `accept`
/// loses nothing: after an outage of ours, every retry is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stale {
    /// Age is not judged.
    #[default]
    Accept,
    /// To the source's dead letters, as `stale`.
    DeadLetter,
    /// 401, as `stale_rejected`: fits where each attempt is signed anew.
    Reject,
}
