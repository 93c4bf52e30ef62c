//! `/status` on the operator's port: what the service knows of itself, for people and for
//! `hookstream status`, which reads these types too. Each part is a struct of its own beside who keeps it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::health::Readiness;
use super::refusals::RefusalSummary;
use super::traffic;

/// The body of `/status`. Times are in RFC 3339.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Of this program.
    pub version: Cow<'static, str>,
    /// When the process started.
    pub started: Timestamp,
    /// When this was written.
    pub now: Timestamp,
    /// As `/readyz` has it.
    #[serde(flatten)]
    pub readiness: Readiness,
    /// What is in force; null where no deliveries are taken.
    pub config: Option<InForce>,
    /// Deliveries between their complete body and their end.
    pub in_flight: usize,
    /// Null without one.
    pub spool: Option<SpoolStatus>,
    /// Each source that is on, by its name.
    pub sources: BTreeMap<String, SourceStatus>,
}

/// A configuration in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InForce {
    /// Eight hex digits that differ where settings, schemas or this program's version do; secrets are
    /// no part of it.
    pub hash: String,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// Since when.
    pub loaded: Timestamp,
}

/// What is in force now; swapped by a reload.
pub type CurrentConfig = ArcSwap<InForce>;

#[derive(Debug, Serialize, Deserialize)]
pub struct SourceStatus {
    /// What its deliveries came to lately.
    #[serde(flatten)]
    pub traffic: traffic::TrafficSnapshot,
    /// What its signature, or its caller's address, kept out: one entry for each reason, the last one first.
    pub refusals: Vec<RefusalSummary>,
    /// Its secrets, in the order of the configuration.
    pub secrets: Vec<SecretStatus>,
}

/// What came with a secret, since the start of the process.
#[derive(Debug, Serialize, Deserialize)]
pub struct SecretStatus {
    pub name: String,
    /// The variable or the file that it was read from.
    pub from: Option<String>,
    /// The receipt of the last delivery that it signed.
    pub last_match: Option<Timestamp>,
    /// Deliveries of the last hour, short by up to ten minutes.
    pub last_hour: u64,
    /// Of the last 24 hours, likewise.
    pub last_day: u64,
    /// It has matched before, none came for an hour, and another one of the source has since.
    pub safe_to_remove: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Rows on their way to Kafka.
    pub live: u64,
    /// Rows that wait for a person.
    pub parked: u64,
    /// Bytes of all rows.
    pub bytes: u64,
    /// When the oldest live row was received.
    pub oldest: Option<Timestamp>,
    /// Damage that was found, until its report is taken out of the spool's directory.
    pub damage: Vec<Damage>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Damage {
    /// When it was found.
    pub at: Timestamp,
    /// What was found.
    pub cause: String,
    /// Rows that were kept.
    pub kept: u64,
    /// Acknowledged rows that are lost for certain.
    pub lost_at_least: u64,
    /// No more than so many are; null where nobody knows.
    pub lost_at_most: Option<u64>,
    /// What the names of the files that were set aside begin with.
    pub aside: PathBuf,
}
