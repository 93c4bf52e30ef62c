//! The state of the embedded registry: schemas by id, versions by subject, compatibility levels. It is synchronous
//! and has no HTTP code; the parent module adds HTTP.
#![expect(
    clippy::disallowed_types,
    reason = "schemas are compared as JSON values; no payload reaches this module"
)]

use std::collections::{BTreeMap, HashMap};

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

    fn no_version(wanted: Wanted) -> Self {
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
pub(super) enum Wanted {
    Latest,
    Number(u32),
}

impl Wanted {
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

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// One version of a subject. A deleted version retains its number, and its schema remains readable by id.
struct StoredVersion {
    number: u32,
    id: u32,
    deleted: bool,
}

/// The complete state.
#[derive(Default)]
pub(super) struct RegistryStore {
    /// The schema of id N is at index N - 1. Never removed, because records in topics contain these ids.
    schemas: Vec<Posted>,
    ids: HashMap<Value, u32>,
    subjects: BTreeMap<String, Vec<StoredVersion>>,
    level: CompatibilityLevel,
    levels: BTreeMap<String, CompatibilityLevel>,
}

impl RegistryStore {
    /// Registers the schema under the subject and returns its new or existing id.
    pub(super) fn register(&mut self, subject: &str, posted: Posted) -> Result<u32, RegistryRefusal> {
        let existing = self.ids.get(&posted.key).copied();
        if existing.is_some_and(|id| self.live(subject, false).any(|version| version.id == id)) {
            return existing.ok_or_else(RegistryRefusal::no_schema);
        }
        let level = self.level_of(subject).unwrap_or(self.level);
        let faults = self.faults_against_all(subject, level, &posted.schema);
        if !faults.is_empty() {
            let details = faults.join("; ");
            let message = format!(
                "Schema being registered is incompatible with an earlier schema for subject \
                 \"{subject}\" ({level}), details: {details}"
            );
            return Err(RegistryRefusal::new(409, message));
        }
        let id = existing.unwrap_or_else(|| {
            let id = u32::try_from(self.schemas.len() + 1).unwrap_or(u32::MAX);
            self.ids.insert(posted.key.clone(), id);
            self.schemas.push(posted);
            id
        });
        let versions = self.subjects.entry(subject.to_owned()).or_default();
        let number = versions.last().map_or(0, |last| last.number) + 1;
        versions.push(StoredVersion { number, id, deleted: false });
        Ok(id)
    }

    /// The version of the subject that has this schema.
    pub(super) fn look_up(
        &self,
        subject: &str,
        key: &Value,
        deleted: bool,
    ) -> Result<Value, RegistryRefusal> {
        self.require_subject(subject, deleted)?;
        let id = self.ids.get(key).ok_or_else(RegistryRefusal::no_schema)?;
        let found = self.live(subject, deleted).find(|version| version.id == *id);
        self.describe(subject, found.ok_or_else(RegistryRefusal::no_schema)?)
    }

    /// A version as `{subject, version, id, schema}`.
    pub(super) fn version(
        &self,
        subject: &str,
        wanted: Wanted,
        deleted: bool,
    ) -> Result<Value, RegistryRefusal> {
        self.require_subject(subject, deleted)?;
        let found = self.find(subject, wanted, deleted).ok_or_else(|| RegistryRefusal::no_version(wanted))?;
        self.describe(subject, found)
    }

    pub(super) fn versions(&self, subject: &str, deleted: bool) -> Result<Vec<u32>, RegistryRefusal> {
        self.require_subject(subject, deleted)?;
        Ok(self.live(subject, deleted).map(|version| version.number).collect())
    }

    pub(super) fn subjects(&self, deleted: bool) -> Vec<&str> {
        let names = self.subjects.keys().map(String::as_str);
        names.filter(|name| self.live(name, deleted).next().is_some()).collect()
    }

    /// The text of a schema.
    pub(super) fn text(&self, id: u32) -> Result<&str, RegistryRefusal> {
        self.schema(id).map(|posted| posted.text.as_str()).ok_or_else(RegistryRefusal::no_schema)
    }

    /// The subjects and versions that use a schema, as `[{subject, version}]`.
    pub(super) fn uses(&self, id: u32, deleted: bool) -> Result<Vec<(&str, u32)>, RegistryRefusal> {
        self.text(id)?;
        let names = self.subjects.keys().map(String::as_str);
        let uses = names.flat_map(|name| {
            let versions = self.live(name, deleted).filter(|version| version.id == id);
            versions.map(move |version| (name, version.number))
        });
        Ok(uses.collect())
    }

    /// Deletes a subject: first soft-deleted, then removed with `permanent`. Returns its versions.
    pub(super) fn delete(&mut self, subject: &str, permanent: bool) -> Result<Vec<u32>, RegistryRefusal> {
        let versions = self.subjects.get_mut(subject).ok_or_else(|| RegistryRefusal::no_subject(subject))?;
        let live = versions.iter().filter(|version| !version.deleted).map(|version| version.number);
        let live: Vec<u32> = live.collect();
        match (permanent, live.is_empty()) {
            (true, false) => Err(RegistryRefusal::new(
                40405,
                format!("Subject '{subject}' was not deleted first before permanent"),
            )),
            (true, true) => {
                let numbers = versions.iter().map(|version| version.number).collect();
                self.subjects.remove(subject);
                Ok(numbers)
            }
            (false, true) => {
                Err(RegistryRefusal::new(40404, format!("Subject '{subject}' was soft deleted.")))
            }
            (false, false) => {
                versions.iter_mut().for_each(|version| version.deleted = true);
                self.levels.remove(subject);
                Ok(live)
            }
        }
    }

    pub(super) fn level(&self) -> CompatibilityLevel {
        self.level
    }

    pub(super) fn set_level(&mut self, level: CompatibilityLevel) {
        self.level = level;
    }

    pub(super) fn level_of(&self, subject: &str) -> Option<CompatibilityLevel> {
        self.levels.get(subject).copied()
    }

    pub(super) fn set_level_of(&mut self, subject: &str, level: CompatibilityLevel) {
        self.levels.insert(subject.to_owned(), level);
    }

    /// Removes the subject's own level and returns it.
    pub(super) fn clear_level_of(&mut self, subject: &str) -> Result<CompatibilityLevel, RegistryRefusal> {
        self.levels.remove(subject).ok_or_else(|| RegistryRefusal::no_subject(subject))
    }

    /// Why the schema is incompatible with one version. Empty if the latest version is requested but does not exist.
    pub(super) fn faults_against(
        &self,
        subject: &str,
        wanted: Wanted,
        schema: &Schema,
    ) -> Result<Vec<String>, RegistryRefusal> {
        let level = self.level_of(subject).unwrap_or(self.level);
        match (self.find(subject, wanted, false), wanted) {
            (Some(old), _) => Ok(self.faults_between(level, schema, old)),
            (None, Wanted::Latest) => Ok(Vec::new()),
            (None, Wanted::Number(_)) => {
                self.require_subject(subject, false)?;
                Err(RegistryRefusal::no_version(wanted))
            }
        }
    }

    /// Why the schema is incompatible as the subject's next version.
    pub(super) fn faults_against_all(
        &self,
        subject: &str,
        level: CompatibilityLevel,
        schema: &Schema,
    ) -> Vec<String> {
        let mut earlier: Vec<&StoredVersion> = self.live(subject, false).collect();
        if !level.transitive() {
            earlier.drain(..earlier.len().saturating_sub(1));
        }
        earlier.iter().rev().flat_map(|old| self.faults_between(level, schema, old)).collect()
    }

    fn faults_between(&self, level: CompatibilityLevel, schema: &Schema, old: &StoredVersion) -> Vec<String> {
        let Some(earlier) = self.schema(old.id) else { return Vec::new() };
        let number = old.number;
        let faults = faults(level, schema, &earlier.schema);
        faults.into_iter().map(|fault| format!("version {number}: {fault}")).collect()
    }

    fn schema(&self, id: u32) -> Option<&Posted> {
        self.schemas.get(usize::try_from(id).ok()?.checked_sub(1)?)
    }

    fn live(&self, subject: &str, deleted: bool) -> impl Iterator<Item = &StoredVersion> {
        let versions = self.subjects.get(subject).map(Vec::as_slice).unwrap_or_default();
        versions.iter().filter(move |version| deleted || !version.deleted)
    }

    fn require_subject(&self, subject: &str, deleted: bool) -> Result<(), RegistryRefusal> {
        self.live(subject, deleted).next().map(|_| ()).ok_or_else(|| RegistryRefusal::no_subject(subject))
    }

    fn find(&self, subject: &str, wanted: Wanted, deleted: bool) -> Option<&StoredVersion> {
        match wanted {
            Wanted::Latest => self.live(subject, deleted).last(),
            Wanted::Number(number) => self.live(subject, deleted).find(|version| version.number == number),
        }
    }

    fn describe(&self, subject: &str, version: &StoredVersion) -> Result<Value, RegistryRefusal> {
        let text = self.text(version.id)?;
        Ok(json!({"subject": subject, "version": version.number, "id": version.id, "schema": text}))
    }
}
