//! `/status` on the operator's port: what the service knows of itself, for people and for
//! `hookstream status`. Each part is a struct of its own beside who keeps it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::refusals::Refusal;

/// The body of `/status`.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Of this program.
    pub version: &'static str,
    /// When the process started, in RFC 3339.
    pub started: String,
    /// Each source that is on, by its name.
    pub sources: BTreeMap<String, Source>,
}

/// One source.
#[derive(Debug, Serialize)]
pub struct Source {
    /// Answered 401, one entry for each reason, the last one first.
    pub refusals: Vec<Refusal>,
}
