//! The schema registry: obtains schema ids, at start and never on the hot path.

mod call;
mod error;

use std::sync::Arc;
use std::time::Duration;

use apache_avro::Schema;
use reqwest::Method;
use schema_registry_converter::async_impl::schema_registry::SrSettings;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

pub use self::call::check_certificates;
use self::call::{Caller, TIMEOUT, builder};
use self::error::Refusal;
pub use self::error::RegistryError;
use super::incompatibility::explain;
use super::{SchemaEntry, shipped};
use crate::client::JsonObject;
use crate::config::{self, Auth, CompatibilityLevel};
use crate::observe::clock::Clocks;

/// How long to wait for a lagging replica of the registry to receive an id.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Limit on the versions of one subject; each costs a call.
const MAX_VERSIONS: usize = 10_000;

/// Confluent's error code for an unknown schema, by id or in a subject.
const NO_SUCH_SCHEMA: u32 = 40403;

/// Confluent's error code for an unknown subject.
const NO_SUCH_SUBJECT: u32 = 40401;

/// The registry's clients carry an id as a signed number of 32 bits.
const MAX_SCHEMA_ID: u32 = i32::MAX.unsigned_abs();

const AN_ID: &str = "an object with an id";

/// The option with which `provision` registers schemas although the configuration forbids it.
pub const AND_REGISTER: &str = " -X registry.auto_register=true";

/// Whether a schema is registered in its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// It is a version of the subject, with this id.
    Registered(u32),
    /// The subject does not exist.
    NoSubject,
    /// The subject has only other schemas.
    Other {
        /// Whether the registry would accept it, by the subject's current level.
        compatible: bool,
        /// The reasons against it: the registry's messages, with the names of the fields.
        why: Vec<String>,
    },
}

#[derive(Deserialize)]
struct Compatibility {
    is_compatible: bool,
    /// The reasons, in Confluent's registry.
    #[serde(default)]
    messages: Vec<String>,
    /// The reason, in Apicurio's registry.
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
pub struct SubjectVersion {
    pub version: u32,
    /// The schema's text in the registry.
    pub schema: String,
}

#[derive(Deserialize)]
struct Set {
    #[serde(rename = "compatibilityLevel")]
    level: String,
}

/// The result of looking up an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// The schema that was expected.
    Same,
    /// Another schema.
    Other,
    /// No schema.
    Missing,
}

/// A Confluent-compatible registry.
#[derive(Clone)]
pub struct Registry {
    caller: Caller,
    settings: SrSettings,
    normalize: bool,
    auto_register: bool,
}

#[derive(Deserialize)]
struct SchemaId {
    id: i64,
}

/// The registry's answer for an id.
#[derive(Deserialize)]
pub(super) struct Registered {
    schema: String,
    /// Avro if it is missing.
    #[serde(rename = "schemaType", default)]
    kind: Option<String>,
}

impl Registry {
    /// Prepares the clients; nothing is called yet.
    ///
    /// # Errors
    /// If the CA file cannot be read.
    pub fn new(loaded: &config::LoadedConfig) -> Result<Self, RegistryError> {
        let caller = Caller::new(loaded)?;
        let mut settings = SrSettings::new_builder(caller.url.clone());
        settings.set_timeout(TIMEOUT);
        match &loaded.registry_auth {
            Auth::None => {}
            Auth::Basic(username, password) => {
                settings.set_basic_authorization(username, Some(password.expose()));
            }
            Auth::Bearer(token) => {
                settings.set_token_authorization(token.expose());
            }
        }
        let settings = settings.build_with(builder(loaded)?).map_err(RegistryError::client)?;
        let rules = &loaded.config.registry;
        let (normalize, auto_register) = (rules.normalize, rules.auto_register);
        Ok(Self { caller, settings, normalize, auto_register })
    }

    /// Reports the registry's time to `clocks`.
    pub fn telling(mut self, clocks: Arc<Clocks>) -> Self {
        self.caller.clocks = clocks;
        self
    }

    /// The URL, including the context if there is one, without a trailing slash. It is safe to show: the
    /// configuration's checks reject a URL with user, password or query.
    pub fn url(&self) -> &str {
        &self.caller.url
    }

    /// The settings for schema_registry_converter's decoder.
    pub fn settings(&self) -> SrSettings {
        self.settings.clone()
    }

    /// Looks up an id and compares its schema in everything that decoding depends on: names, types, logical types.
    ///
    /// An id is missing only if the registry itself reports that: a proxy in front of an unavailable registry may
    /// answer 404, too.
    ///
    /// # Errors
    /// If the registry does not answer as expected.
    pub async fn resolve(&self, id: u32, expected: &Schema) -> Result<Resolved, RegistryError> {
        let found = match self.by_id(id).await? {
            Ok(JsonObject(found)) => found,
            Err(refusal) if refusal.is(NO_SUCH_SCHEMA) => return Ok(Resolved::Missing),
            Err(refusal) => {
                return Err(RegistryError::refused("the registry did not return the schema")(refusal));
            }
        };
        let avro = found.kind.is_none_or(|kind| kind == "AVRO");
        let same = avro && Schema::parse_str(&found.schema).is_ok_and(|found| found == *expected);
        Ok(if same { Resolved::Same } else { Resolved::Other })
    }

    /// The registry's answer for an id. Includes soft-deleted subjects, because their records still exist.
    pub(super) async fn by_id(
        &self,
        id: u32,
    ) -> Result<Result<JsonObject<Registered>, Refusal>, RegistryError> {
        let path = format!("/schemas/ids/{id}?deleted=true");
        self.caller.ask(Method::GET, &path, None, "an object with a schema").await
    }

    /// As [`Self::resolve`], but asks again after [`LOOK_AGAIN`] if the id is missing: a single replica may lag behind.
    ///
    /// # Errors
    /// If the registry does not answer as expected.
    pub async fn resolve_surely(&self, id: u32, expected: &Schema) -> Result<Resolved, RegistryError> {
        match self.resolve(id, expected).await? {
            Resolved::Missing => {
                tokio::time::sleep(LOOK_AGAIN).await;
                self.resolve(id, expected).await
            }
            resolved => Ok(resolved),
        }
    }

    /// Accepts an id that the registry returned for a schema only if the registry also returns that schema for the id.
    /// Every id passes this check.
    async fn prove(
        &self,
        given: JsonObject<SchemaId>,
        subject: &str,
        expected: &Schema,
    ) -> Result<u32, RegistryError> {
        let JsonObject(SchemaId { id: given }) = given;
        let id = u32::try_from(given).ok().filter(|id| is_id(*id));
        let id = id.ok_or_else(|| {
            RegistryError::Implausible(format!(
                "the registry returned the id {given} for {subject}, but ids are from 1 to {MAX_SCHEMA_ID}"
            ))
        })?;
        let resolved = self.resolve_surely(id, expected).await?;
        let shows = match resolved {
            Resolved::Same => return Ok(id),
            Resolved::Other => "another schema",
            Resolved::Missing => "nothing",
        };
        Err(RegistryError::Implausible(format!(
            "the registry returned the id {id} for {subject}, but has {shows} under that id: check [registry] url, and \
             any proxy in between"
        )))
    }

    /// The id of a subject's schema. A schema that is missing is registered if `register` and the configuration allow it.
    ///
    /// It is looked up first: a registry that is read-only at the moment, or a user who may not write, is no obstacle to
    /// a schema that somebody has registered.
    ///
    /// # Errors
    /// If the registry rejects the schema, does not have it, or does not answer.
    pub async fn id(&self, schema: &SchemaEntry, register: bool) -> Result<u32, RegistryError> {
        let SchemaEntry { subject, text, level, .. } = schema;
        let refusal = match self.look_up(subject, text).await? {
            Ok(found) => return self.prove(found, subject, &schema.schema).await,
            Err(refusal) => refusal,
        };
        let missing = refusal.is(NO_SUCH_SUBJECT) || refusal.is(NO_SUCH_SCHEMA);
        if missing && register && self.auto_register {
            return self.register(subject, text, *level).await;
        }
        let setting = if self.auto_register { "" } else { AND_REGISTER };
        Err(RegistryError::refused(format!(
            "the schema of subject {subject} was not found in the registry (`hookstream provision \
             --apply{setting}` registers it)"
        ))(refusal))
    }

    async fn look_up(
        &self,
        subject: &str,
        schema: &str,
    ) -> Result<Result<JsonObject<SchemaId>, Refusal>, RegistryError> {
        let path = format!("/subjects/{subject}{}", self.query(&[]));
        self.caller.ask(Method::POST, &path, Some(request_body(schema)), AN_ID).await
    }

    /// Whether the schema is registered in the subject. Changes nothing.
    ///
    /// # Errors
    /// If the registry does not answer as expected.
    pub async fn listing(&self, subject: &str, schema: &str) -> Result<Listing, RegistryError> {
        match self.look_up(subject, schema).await? {
            Ok(found) => {
                let schema = shipped::parse(schema).map_err(RegistryError::Schema)?;
                return Ok(Listing::Registered(self.prove(found, subject, &schema).await?));
            }
            Err(refusal) if refusal.is(NO_SUCH_SUBJECT) => return Ok(Listing::NoSubject),
            Err(refusal) if refusal.is(NO_SUCH_SCHEMA) => {}
            Err(refusal) => {
                return Err(RegistryError::refused("the registry did not return the schema")(refusal));
            }
        }
        // Without a version, the registry compares with as many versions as the subject's level requires.
        let query = self.query(&["verbose=true"]);
        let path = format!("/compatibility/subjects/{subject}/versions{query}");
        let expected = "an object with is_compatible";
        let found = self.caller.ask(Method::POST, &path, Some(request_body(schema)), expected).await?;
        let JsonObject(Compatibility { is_compatible, mut messages, reason }) =
            found.map_err(RegistryError::refused(format!(
                "the registry did not report whether the schema of {subject} is compatible"
            )))?;
        let mut why = Vec::new();
        if !is_compatible {
            messages.extend(reason);
            let latest = self.latest(subject).await?;
            why = explain(&messages, schema, latest.as_ref().map(|latest| &*latest.schema));
        }
        Ok(Listing::Other { compatible: is_compatible, why })
    }

    /// The compatibility level that is set on the subject itself.
    ///
    /// # Errors
    /// If the registry does not answer as expected.
    pub async fn level(&self, subject: &str) -> Result<Option<String>, RegistryError> {
        let expected = "an object with a compatibilityLevel";
        let found = self.get::<JsonObject<Set>>(&format!("/config/{subject}"), expected).await?;
        let Some(JsonObject(Set { level })) = found else { return Ok(None) };
        let named =
            (1..=40).contains(&level.len()) && level.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        let unnamed =
            || format!("the registry's compatibility level for {subject} is not the name of a level");
        if named { Ok(Some(level)) } else { Err(RegistryError::Implausible(unnamed())) }
    }

    /// Sets the subject's level.
    ///
    /// # Errors
    /// If the registry rejects it, or does not answer.
    pub async fn set_level(&self, subject: &str, level: CompatibilityLevel) -> Result<(), RegistryError> {
        let body = format!(r#"{{"compatibility":"{level}"}}"#);
        let path = format!("/config/{subject}");
        let answer =
            self.caller.ask::<JsonObject<IgnoredAny>>(Method::PUT, &path, Some(body), "an object").await?;
        let what = format!("the registry did not accept the compatibility level of subject {subject}");
        answer.map(drop).map_err(RegistryError::refused(what))
    }

    /// The subject's latest version.
    ///
    /// # Errors
    /// If the registry does not answer as expected.
    pub async fn latest(&self, subject: &str) -> Result<Option<SubjectVersion>, RegistryError> {
        self.version(subject, "latest").await
    }

    /// All versions of a subject, by number; empty if the subject does not exist.
    ///
    /// # Errors
    /// If the registry does not answer as expected.
    pub async fn versions(&self, subject: &str) -> Result<Vec<SubjectVersion>, RegistryError> {
        let path = format!("/subjects/{subject}/versions");
        let numbers = self.get::<Vec<u32>>(&path, "a list of versions").await?.unwrap_or_default();
        if numbers.len() > MAX_VERSIONS {
            return Err(RegistryError::Implausible(format!(
                "the registry lists {} versions of {subject}, and more than {MAX_VERSIONS} are not read",
                numbers.len()
            )));
        }
        let mut versions = Vec::new();
        for number in numbers {
            let version = self.version(subject, &number.to_string()).await?;
            if version.as_ref().is_some_and(|version| version.version != number) {
                return Err(RegistryError::Implausible(format!(
                    "the registry returned another version than {number} of {subject}"
                )));
            }
            versions.extend(version);
        }
        Ok(versions)
    }

    async fn version(&self, subject: &str, number: &str) -> Result<Option<SubjectVersion>, RegistryError> {
        let path = format!("/subjects/{subject}/versions/{number}");
        let found =
            self.get::<JsonObject<SubjectVersion>>(&path, "an object with version and schema").await?;
        Ok(found.map(|JsonObject(version)| version))
    }

    /// The resource at a path; `None` if the registry reports that it does not exist.
    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        expected: &'static str,
    ) -> Result<Option<T>, RegistryError> {
        match self.caller.ask(Method::GET, path, None, expected).await? {
            Ok(found) => Ok(Some(found)),
            Err(refusal) if refusal.is_not_found() => Ok(None),
            Err(refusal) => {
                Err(RegistryError::refused(format!("the registry did not return {path}"))(refusal))
            }
        }
    }

    /// Registers the schema, or finds it if it is already registered. A new subject gets the level; an existing one
    /// keeps its own.
    ///
    /// # Errors
    /// If the registry rejects the schema, or does not answer.
    pub async fn register(
        &self,
        subject: &str,
        schema: &str,
        level: CompatibilityLevel,
    ) -> Result<u32, RegistryError> {
        let path = format!("/subjects/{subject}/versions");
        let new = self.get::<Vec<IgnoredAny>>(&path, "a list of versions").await?.is_none();
        let path = format!("{path}{}", self.query(&[]));
        let registered = self.caller.ask(Method::POST, &path, Some(request_body(schema)), AN_ID).await?;
        let registered = registered.map_err(RegistryError::refused(format!(
            "the registry did not accept the schema of subject {subject}"
        )))?;
        if new {
            self.set_level(subject, level).await?;
        }
        self.prove(registered, subject, &shipped::parse(schema).map_err(RegistryError::Schema)?).await
    }

    /// The query string of a call with a schema.
    fn query(&self, more: &[&'static str]) -> String {
        let parts: Vec<_> = more.iter().copied().chain(self.normalize.then_some("normalize=true")).collect();
        if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
    }
}

/// Whether the id is valid for the registry's clients: a signed 32-bit number of at least 1.
pub(super) fn is_id(id: u32) -> bool {
    (1..=MAX_SCHEMA_ID).contains(&id)
}

/// The body of a request with a schema.
fn request_body(schema: &str) -> String {
    // Serializing a string cannot fail.
    format!(r#"{{"schemaType":"AVRO","schema":{}}}"#, serde_json::to_string(schema).unwrap_or_default())
}
