//! The schema registry: ids for schemas, at start and never on the hot path.

mod call;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use apache_avro::Schema;
use reqwest::Method;
use schema_registry_converter::async_impl::schema_registry::SrSettings;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

pub use self::call::answered;
use self::call::{Caller, RegistryError, TIMEOUT, builder};
use super::incompatibility::explain;
use super::{SchemaEntry, shipped};
use crate::client::JsonObject;
use crate::config::{self, Auth, CompatibilityLevel};
use crate::observe::clock::Clocks;

/// How long a replica of the registry that lags behind gets to know an id.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Of one subject; each costs a call.
const MAX_VERSIONS: usize = 10_000;

/// Confluent's code for a schema that the registry does not know, by its id or in a subject.
const NO_SUCH_SCHEMA: u32 = 40403;

/// Confluent's code for a subject that the registry does not know.
const NO_SUCH_SUBJECT: u32 = 40401;

const AN_ID: &str = "an object with an id";

/// What lets `provision` register all the same, where the configuration forbids it.
pub const AND_REGISTER: &str = " -X registry.auto_register=true";

/// Where a schema stands in its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// It is a version of it.
    Registered(u32),
    /// There is no such subject.
    NoSubject,
    /// The subject has other schemas only.
    Other {
        /// Whether the registry would take it beside them, by the level of now.
        compatible: bool,
        /// What speaks against it: the registry's words, with the names of the fields.
        why: Vec<String>,
    },
}

#[derive(Deserialize)]
struct Compatibility {
    is_compatible: bool,
    /// Confluent's.
    #[serde(default)]
    messages: Vec<String>,
    /// Apicurio's.
    #[serde(default)]
    reason: Option<String>,
}

/// A version of a subject.
#[derive(Deserialize)]
pub struct SubjectVersion {
    /// Its number.
    pub version: u32,
    /// As the registry has it.
    pub schema: String,
}

#[derive(Deserialize)]
struct Set {
    #[serde(rename = "compatibilityLevel")]
    level: String,
}

/// What the registry has under an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// The schema that was expected.
    Same,
    /// Another one.
    Other,
    /// None.
    Missing,
}

/// A Confluent-compatible registry.
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

/// What stands under an id.
#[derive(Deserialize)]
struct Registered {
    schema: String,
    /// Avro where nothing is said.
    #[serde(rename = "schemaType", default)]
    kind: Option<String>,
}

impl Registry {
    /// Prepares the clients; nothing is called yet.
    ///
    /// # Errors
    /// When the CA file cannot be read.
    pub fn new(loaded: &config::LoadedConfig) -> anyhow::Result<Self> {
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
        let settings = settings.build_with(builder(loaded)?).context("the registry's client")?;
        let rules = &loaded.config.registry;
        let (normalize, auto_register) = (rules.normalize, rules.auto_register);
        Ok(Self { caller, settings, normalize, auto_register })
    }

    /// The same, which tells `clocks` what time it is there.
    pub fn telling(mut self, clocks: Arc<Clocks>) -> Self {
        self.caller.clocks = clocks;
        self
    }

    /// Where it is, with the context if there is one, without a slash at the end. Fit to be shown: the
    /// configuration's check takes no URL with user, password or query.
    pub fn url(&self) -> &str {
        &self.caller.url
    }

    /// What schema_registry_converter's decoder needs.
    pub fn settings(&self) -> SrSettings {
        self.settings.clone()
    }

    /// What stands under an id, compared by what decoding depends on: names, types, logical types.
    ///
    /// Missing is only what the registry itself calls so: a proxy before a registry that is out may
    /// answer 404, too.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn resolve(&self, id: u32, expected: &Schema) -> anyhow::Result<Resolved> {
        // Soft-deleted subjects, too: their records are still there.
        let path = format!("/schemas/ids/{id}?deleted=true");
        let asked =
            self.caller.ask::<JsonObject<Registered>>(Method::GET, &path, None, "an object with a schema");
        let found = match asked.await? {
            Ok(JsonObject(found)) => found,
            Err(refusal) if refusal.is(NO_SUCH_SCHEMA) => return Ok(Resolved::Missing),
            Err(refusal) => return Err(refusal).context("the registry does not show its schemas"),
        };
        let avro = found.kind.is_none_or(|kind| kind == "AVRO");
        let same = avro && Schema::parse_str(&found.schema).is_ok_and(|found| found == *expected);
        Ok(if same { Resolved::Same } else { Resolved::Other })
    }

    /// The same, and where the id is missing once more after [`LOOK_AGAIN`]: one replica's word is not enough.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn resolve_surely(&self, id: u32, expected: &Schema) -> anyhow::Result<Resolved> {
        match self.resolve(id, expected).await? {
            Resolved::Missing => {
                tokio::time::sleep(LOOK_AGAIN).await;
                self.resolve(id, expected).await
            }
            resolved => Ok(resolved),
        }
    }

    /// An id that the registry gave for a schema of ours, once it also gives that schema for the id. Nothing
    /// else makes an id.
    async fn prove(
        &self,
        given: JsonObject<SchemaId>,
        subject: &str,
        expected: &Schema,
    ) -> anyhow::Result<u32> {
        let JsonObject(SchemaId { id: given }) = given;
        let id = u32::try_from(given).ok().filter(|id| is_id(*id));
        let id = id.with_context(|| {
            format!("the registry gives {subject} the id {given}, and ids are from 1 to {}", i32::MAX)
        })?;
        let resolved = self.resolve_surely(id, expected).await?;
        let shows = match resolved {
            Resolved::Same => return Ok(id),
            Resolved::Other => "another schema",
            Resolved::Missing => "nothing",
        };
        anyhow::bail!(
            "the registry gives {subject} the id {id}, but shows {shows} under it: look at [registry] url, and at \
             what stands between"
        )
    }

    /// The id of a subject's schema: registered where `register` and the configuration allow it, else
    /// looked up.
    ///
    /// # Errors
    /// When the registry does not take it or has not got it, or does not answer.
    pub async fn id(&self, schema: &SchemaEntry, register: bool) -> anyhow::Result<u32> {
        let SchemaEntry { subject, text, level, .. } = schema;
        if register && self.auto_register {
            return self.register(subject, text, *level).await;
        }
        let found = self.look_up(subject, text).await?;
        let setting = if self.auto_register { "" } else { AND_REGISTER };
        let found = found.with_context(|| {
            format!(
                "the schema of subject {subject} was not found in the registry (`hookstream provision \
                 --apply{setting}` registers it)"
            )
        })?;
        self.prove(found, subject, &schema.schema).await
    }

    async fn look_up(
        &self,
        subject: &str,
        schema: &str,
    ) -> anyhow::Result<Result<JsonObject<SchemaId>, RegistryError>> {
        let path = format!("/subjects/{subject}{}", self.query(&[]));
        self.caller.ask(Method::POST, &path, Some(asked(schema)?), AN_ID).await
    }

    /// Where the schema stands in the subject; nothing is changed.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn listing(&self, subject: &str, schema: &str) -> anyhow::Result<Listing> {
        match self.look_up(subject, schema).await? {
            Ok(found) => {
                let schema = shipped::parse(schema).map_err(anyhow::Error::msg)?;
                return Ok(Listing::Registered(self.prove(found, subject, &schema).await?));
            }
            Err(refusal) if refusal.is(NO_SUCH_SUBJECT) => return Ok(Listing::NoSubject),
            Err(refusal) if refusal.is(NO_SUCH_SCHEMA) => {}
            Err(refusal) => return Err(refusal).context("the registry does not show its schemas"),
        }
        // Without a version: as many as the subject's level looks at.
        let query = self.query(&["verbose=true"]);
        let path = format!("/compatibility/subjects/{subject}/versions{query}");
        let expected = "an object with is_compatible";
        let found = self.caller.ask(Method::POST, &path, Some(asked(schema)?), expected).await?;
        let JsonObject(Compatibility { is_compatible, mut messages, reason }) =
            found.with_context(|| format!("the registry does not say whether {subject} may change"))?;
        let mut why = Vec::new();
        if !is_compatible {
            messages.extend(reason);
            let latest = self.latest(subject).await?;
            why = explain(&messages, schema, latest.as_ref().map(|latest| &*latest.schema));
        }
        Ok(Listing::Other { compatible: is_compatible, why })
    }

    /// The compatibility level that was set on the subject itself.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn level(&self, subject: &str) -> anyhow::Result<Option<String>> {
        let expected = "an object with a compatibilityLevel";
        let found = self.get::<JsonObject<Set>>(&format!("/config/{subject}"), expected).await?;
        let Some(JsonObject(Set { level })) = found else { return Ok(None) };
        let named =
            (1..=40).contains(&level.len()) && level.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        anyhow::ensure!(named, "the registry has a compatibility for {subject} that is no name of a level");
        Ok(Some(level))
    }

    /// Sets the subject's level.
    ///
    /// # Errors
    /// When the registry refuses it, or does not answer.
    pub async fn set_level(&self, subject: &str, level: CompatibilityLevel) -> anyhow::Result<()> {
        let body = format!(r#"{{"compatibility":"{level}"}}"#);
        let path = format!("/config/{subject}");
        let answer =
            self.caller.ask::<JsonObject<IgnoredAny>>(Method::PUT, &path, Some(body), "an object").await?;
        answer
            .with_context(|| format!("the registry did not take the compatibility of subject {subject}"))?;
        Ok(())
    }

    /// The subject's last version.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn latest(&self, subject: &str) -> anyhow::Result<Option<SubjectVersion>> {
        self.version(subject, "latest").await
    }

    /// All versions of a subject, by number; none where there is no subject.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn versions(&self, subject: &str) -> anyhow::Result<Vec<SubjectVersion>> {
        let path = format!("/subjects/{subject}/versions");
        let numbers = self.get::<Vec<u32>>(&path, "a list of versions").await?.unwrap_or_default();
        anyhow::ensure!(
            numbers.len() <= MAX_VERSIONS,
            "the registry says that {subject} has {} versions, and more than {MAX_VERSIONS} are not read",
            numbers.len()
        );
        let mut versions = Vec::new();
        for number in numbers {
            let version = self.version(subject, &number.to_string()).await?;
            anyhow::ensure!(
                version.as_ref().is_none_or(|version| version.version == number),
                "the registry was asked for version {number} of {subject}, and answers with another one"
            );
            versions.extend(version);
        }
        Ok(versions)
    }

    async fn version(&self, subject: &str, number: &str) -> anyhow::Result<Option<SubjectVersion>> {
        let path = format!("/subjects/{subject}/versions/{number}");
        let found =
            self.get::<JsonObject<SubjectVersion>>(&path, "an object with version and schema").await?;
        Ok(found.map(|JsonObject(version)| version))
    }

    /// What stands at a path; `None` where the registry says that there is nothing.
    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        expected: &'static str,
    ) -> anyhow::Result<Option<T>> {
        match self.caller.ask(Method::GET, path, None, expected).await? {
            Ok(found) => Ok(Some(found)),
            Err(refusal) if refusal.is_not_found() => Ok(None),
            Err(refusal) => Err(refusal).with_context(|| format!("the registry does not show {path}")),
        }
    }

    /// Registers the schema, or finds it where it is registered already. A new subject gets the level; one
    /// that is there keeps its own.
    ///
    /// # Errors
    /// When the registry refuses the schema, or does not answer.
    pub async fn register(
        &self,
        subject: &str,
        schema: &str,
        level: CompatibilityLevel,
    ) -> anyhow::Result<u32> {
        let path = format!("/subjects/{subject}/versions");
        let new = self.get::<Vec<IgnoredAny>>(&path, "a list of versions").await?.is_none();
        let path = format!("{path}{}", self.query(&[]));
        let registered = self.caller.ask(Method::POST, &path, Some(asked(schema)?), AN_ID).await?;
        let registered = registered
            .with_context(|| format!("the registry did not take the schema of subject {subject}"))?;
        if new {
            self.set_level(subject, level).await?;
        }
        self.prove(registered, subject, &shipped::parse(schema).map_err(anyhow::Error::msg)?).await
    }

    /// The query of a call that names a schema.
    fn query(&self, more: &[&'static str]) -> String {
        let parts: Vec<_> = more.iter().copied().chain(self.normalize.then_some("normalize=true")).collect();
        if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
    }
}

/// Whether the registry's clients can carry such an id: it is a signed number of 32 bits, from 1.
pub(super) fn is_id(id: u32) -> bool {
    id > 0 && i32::try_from(id).is_ok()
}

/// The body that asks for a schema.
fn asked(schema: &str) -> anyhow::Result<String> {
    Ok(format!(r#"{{"schemaType":"AVRO","schema":{}}}"#, serde_json::to_string(schema)?))
}
