//! The state of the embedded registry: schemas by id, versions by subject, compatibility levels. It is synchronous
//! and has no HTTP code; the parent module adds HTTP.
#![expect(
    clippy::disallowed_types,
    reason = "schemas are compared as JSON values; no payload reaches this module"
)]

use std::collections::BTreeMap;

use apache_avro::Schema;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::config::CompatibilityLevel;
use crate::schema::compatibility::faults;

/// A refusal with Confluent's error code.
#[derive(Debug)]
pub(super) struct RegistryRefusal {
    /// The HTTP status.
    pub(super) status: StatusCode,
    /// Confluent's `error_code`.
    pub(super) code: u32,
    /// A message for people. It may quote schemas and names, which are not secret.
    pub(super) message: String,
}

impl RegistryRefusal {
    /// Confluent's codes begin with the HTTP status: 40401 is sent with 404.
    pub(super) fn new(code: u32, message: impl Into<String>) -> Self {
        let status = u16::try_from(if code > 999 { code / 100 } else { code });
        let status = status.ok().and_then(|status| StatusCode::from_u16(status).ok());
        Self { status: status.unwrap_or(StatusCode::BAD_REQUEST), code, message: message.into() }
    }

    fn no_subject(subject: &str) -> Self {
        Self::new(40401, format!("Subject '{subject}' not found."))
    }

    fn no_version(wanted: RequestedVersion) -> Self {
        Self::new(40402, format!("Version {wanted} not found."))
    }

    fn no_schema() -> Self {
        Self::new(40403, "Schema not found")
    }
}

/// A schema as a client sent it, parsed.
pub(super) struct Posted {
    /// The text, returned unchanged.
    pub(super) text: String,
    /// The parsed text: schemas are the same if these are equal. Spacing and the order of attributes do not matter,
    /// `doc` does.
    pub(super) key: Value,
    pub(super) schema: Schema,
}

/// A version in a URL.
#[derive(Clone, Copy)]
pub(super) enum RequestedVersion {
    Latest,
    Number(u32),
}

impl RequestedVersion {
    pub(super) fn parse(text: &str) -> Result<Self, RegistryRefusal> {
        match text.parse() {
            _ if text == "latest" || text == "-1" => Ok(Self::Latest),
            Ok(number @ 1..=0x7fff_ffff) => Ok(Self::Number(number)),
            _ => Err(RegistryRefusal::new(
                42202,
                "The specified version is not a valid version id. Allowed values are between [1, 2^31-1] \
                 and the string \"latest\"",
            )),
        }
    }
}

impl std::fmt::Display for RequestedVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// The complete state. Nothing is ever removed, because records in topics contain the ids.
#[derive(Default)]
pub(super) struct RegistryStore {
    /// The schema of id N is at index N - 1.
    schemas: Vec<Posted>,
    /// The ids of a subject's versions: version N is at index N - 1.
    subjects: BTreeMap<String, Vec<u32>>,
    /// The levels of subjects that have their own.
    pub(super) levels: BTreeMap<String, CompatibilityLevel>,
}

impl RegistryStore {
    /// Registers the schema under the subject and returns its new or existing id.
    pub(super) fn register(&mut self, subject: &str, posted: Posted) -> Result<u32, RegistryRefusal> {
        let existing = self.id_of(&posted.key);
        let registered = |id: &u32| self.subjects.get(subject).is_some_and(|versions| versions.contains(id));
        if let Some(id) = existing.filter(registered) {
            return Ok(id);
        }
        let faults = self.faults(subject, &posted.schema);
        if !faults.is_empty() {
            let (level, details) = (self.level_of(subject), faults.join("; "));
            let message = format!(
                "Schema being registered is incompatible with an earlier schema for subject \
                 \"{subject}\" ({level}), details: {details}"
            );
            return Err(RegistryRefusal::new(409, message));
        }
        let id = existing.unwrap_or_else(|| {
            self.schemas.push(posted);
            number(self.schemas.len())
        });
        self.subjects.entry(subject.to_owned()).or_default().push(id);
        Ok(id)
    }

    /// The version of the subject that has this schema.
    pub(super) fn look_up(&self, subject: &str, key: &Value) -> Result<Value, RegistryRefusal> {
        let versions = self.versions(subject)?;
        let found = self.id_of(key).and_then(|id| versions.iter().position(|version| *version == id));
        let at = found.ok_or_else(RegistryRefusal::no_schema)?;
        self.version(subject, RequestedVersion::Number(number(at + 1)))
    }

    /// A version as `{subject, version, id, schema}`.
    pub(super) fn version(&self, subject: &str, wanted: RequestedVersion) -> Result<Value, RegistryRefusal> {
        let versions = self.versions(subject)?;
        let version = match wanted {
            RequestedVersion::Latest => number(versions.len()),
            RequestedVersion::Number(number) => number,
        };
        let id = at(versions, version).ok_or_else(|| RegistryRefusal::no_version(wanted))?;
        Ok(json!({"subject": subject, "version": version, "id": id, "schema": self.text(*id)?}))
    }

    /// The ids of the subject's versions.
    pub(super) fn versions(&self, subject: &str) -> Result<&[u32], RegistryRefusal> {
        let versions = self.subjects.get(subject).map(Vec::as_slice);
        versions.ok_or_else(|| RegistryRefusal::no_subject(subject))
    }

    pub(super) fn subjects(&self) -> Vec<&str> {
        self.subjects.keys().map(String::as_str).collect()
    }

    /// The text of a schema.
    pub(super) fn text(&self, id: u32) -> Result<&str, RegistryRefusal> {
        at(&self.schemas, id).map(|posted| posted.text.as_str()).ok_or_else(RegistryRefusal::no_schema)
    }

    /// Why the schema is incompatible as the subject's next version.
    pub(super) fn faults(&self, subject: &str, schema: &Schema) -> Vec<String> {
        let level = self.level_of(subject);
        let versions = self.subjects.get(subject).map(Vec::as_slice).unwrap_or_default();
        let compared = if level.transitive() { versions.len() } else { 1 };
        let earlier = versions.iter().enumerate().rev().take(compared);
        let faults = earlier.flat_map(|(index, id)| {
            let old = at(&self.schemas, *id).map(|old| faults(level, schema, &old.schema));
            old.unwrap_or_default().into_iter().map(move |fault| format!("version {}: {fault}", index + 1))
        });
        faults.collect()
    }

    fn level_of(&self, subject: &str) -> CompatibilityLevel {
        self.levels.get(subject).copied().unwrap_or_default()
    }

    fn id_of(&self, key: &Value) -> Option<u32> {
        self.schemas.iter().position(|posted| posted.key == *key).map(|at| number(at + 1))
    }
}

/// The element with this number, counted from 1.
fn at<T>(all: &[T], number: u32) -> Option<&T> {
    all.get(usize::try_from(number).ok()?.checked_sub(1)?)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
