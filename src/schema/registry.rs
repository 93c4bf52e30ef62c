//! The schema registry: ids for schemas, at start and never on the hot path.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use apache_avro::Schema;
use reqwest::{Method, RequestBuilder, StatusCode};
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_id};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, SchemaType};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::Loaded;
use super::reasons::explain;
use crate::config::{self, Auth, Level};

/// The bound of each call.
const TIMEOUT: Duration = Duration::from_secs(10);

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Confluent's code for a schema that the registry does not know, by its id or in a subject.
const NO_SUCH_SCHEMA: u32 = 40403;

/// Confluent's code for a subject that the registry does not know.
const NO_SUCH_SUBJECT: u32 = 40401;

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
pub struct Version {
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
    /// With the context, if there is one.
    url: String,
    auth: Auth,
    client: reqwest::Client,
    settings: SrSettings,
    normalize: bool,
    auto_register: bool,
}

/// What the registry said instead of yes.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    /// Confluent's code and words. Without them it may not be the registry that has answered.
    words: Option<Words>,
}

#[derive(Debug, Deserialize)]
struct Words {
    error_code: u32,
    message: String,
}

impl Refusal {
    fn is(&self, code: u32) -> bool {
        self.words.as_ref().is_some_and(|words| words.error_code == code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.words {
            Some(words) => write!(f, "{} (code {})", words.message, words.error_code),
            None => write!(f, "it answered {}", self.status),
        }
    }
}

impl std::error::Error for Refusal {}

#[derive(Deserialize)]
struct Id {
    id: u32,
}

impl Registry {
    /// Prepares the clients; nothing is called yet.
    ///
    /// # Errors
    /// When the CA file cannot be read.
    pub fn new(loaded: &config::Loaded) -> anyhow::Result<Self> {
        let rules = &loaded.config.registry;
        let mut url = rules.url.trim_end_matches('/').to_owned();
        // All that stands below is the context's, the ids among it: a qualified subject, `:.context:name`,
        // would leave `/schemas/ids` in the default one.
        if let Some(context) = &rules.context {
            url.push_str("/contexts/");
            url.push_str(context);
        }
        let auth = loaded.registry_auth.clone();
        let mut settings = SrSettings::new_builder(url.clone());
        settings.set_timeout(TIMEOUT);
        match &auth {
            Auth::None => {}
            Auth::Basic(username, password) => {
                settings.set_basic_authorization(username, Some(password.expose()));
            }
            Auth::Bearer(token) => {
                settings.set_token_authorization(token.expose());
            }
        }
        let settings = settings.build_with(client(loaded)?).context("the registry's client")?;
        let client = client(loaded)?.timeout(TIMEOUT).build().context("the registry's client")?;
        let (normalize, auto_register) = (rules.normalize, rules.auto_register);
        Ok(Self { url, auth, client, settings, normalize, auto_register })
    }

    /// Where it is, with the context if there is one, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
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
        let found = match get_schema_by_id(id, &self.settings).await {
            Ok(found) => found,
            Err(error) if error_code(&error) == Some(NO_SUCH_SCHEMA) => return Ok(Resolved::Missing),
            Err(error) => {
                let refused = error_code(&error).is_some();
                let did = if refused { "does not show its schemas" } else { "does not answer" };
                return Err(error).with_context(|| format!("the registry {did}"));
            }
        };
        let same = found.schema_type == SchemaType::Avro
            && Schema::parse_str(&found.schema).is_ok_and(|found| found == *expected);
        Ok(if same { Resolved::Same } else { Resolved::Other })
    }

    /// The id of a subject's schema: registered where `register` and the configuration allow it, else
    /// looked up.
    ///
    /// # Errors
    /// When the registry does not take it or has not got it, or does not answer.
    pub async fn id(&self, schema: &Loaded, register: bool) -> anyhow::Result<u32> {
        let Loaded { subject, text, level, .. } = schema;
        if register && self.auto_register {
            return self.register(subject, text, *level).await;
        }
        let path = format!("/subjects/{subject}{}", self.query(&[]));
        let found = self.ask::<Id>(Method::POST, &path, Some(asked(text)?)).await?;
        let setting = if self.auto_register { "" } else { AND_REGISTER };
        let found = found.with_context(|| {
            format!(
                "the schema of subject {subject} was not found in the registry (`hookstream provision \
                 --apply{setting}` registers it)"
            )
        })?;
        Ok(found.id)
    }

    /// Where the schema stands in the subject; nothing is changed.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn listing(&self, subject: &str, schema: &str) -> anyhow::Result<Listing> {
        let body = asked(schema)?;
        let path = format!("/subjects/{subject}{}", self.query(&[]));
        match self.ask::<Id>(Method::POST, &path, Some(body.clone())).await? {
            Ok(found) => return Ok(Listing::Registered(found.id)),
            Err(refusal) if refusal.is(NO_SUCH_SUBJECT) => return Ok(Listing::NoSubject),
            Err(refusal) if refusal.is(NO_SUCH_SCHEMA) => {}
            Err(refusal) => return Err(refusal).context("the registry does not show its schemas"),
        }
        // Without a version: as many as the subject's level looks at.
        let query = self.query(&["verbose=true"]);
        let path = format!("/compatibility/subjects/{subject}/versions{query}");
        let found = self.ask::<Compatibility>(Method::POST, &path, Some(body)).await?;
        let Compatibility { is_compatible, mut messages, reason } =
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
        let found = self.get::<Set>(&format!("/config/{subject}")).await?;
        Ok(found.map(|found| found.level))
    }

    /// Sets the subject's level.
    ///
    /// # Errors
    /// When the registry refuses it, or does not answer.
    pub async fn set_level(&self, subject: &str, level: Level) -> anyhow::Result<()> {
        let body = format!(r#"{{"compatibility":"{level}"}}"#);
        let answer = self.ask::<IgnoredAny>(Method::PUT, &format!("/config/{subject}"), Some(body)).await?;
        answer
            .with_context(|| format!("the registry did not take the compatibility of subject {subject}"))?;
        Ok(())
    }

    /// The subject's last version.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn latest(&self, subject: &str) -> anyhow::Result<Option<Version>> {
        self.get(&format!("/subjects/{subject}/versions/latest")).await
    }

    /// All versions of a subject, by number; none where there is no subject.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn versions(&self, subject: &str) -> anyhow::Result<Vec<Version>> {
        let numbers = self.get::<Vec<u32>>(&format!("/subjects/{subject}/versions")).await?;
        let mut versions = Vec::new();
        for number in numbers.unwrap_or_default() {
            versions.extend(self.get(&format!("/subjects/{subject}/versions/{number}")).await?);
        }
        Ok(versions)
    }

    /// What stands at a path; `None` for 404.
    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Option<T>> {
        match self.ask(Method::GET, path, None).await? {
            Ok(found) => Ok(Some(found)),
            Err(refusal) if refusal.status == StatusCode::NOT_FOUND => Ok(None),
            Err(refusal) => Err(refusal).with_context(|| format!("the registry does not show {path}")),
        }
    }

    /// Registers the schema, or finds it where it is registered already. A new subject gets the level; one
    /// that is there keeps its own.
    ///
    /// # Errors
    /// When the registry refuses the schema, or does not answer.
    pub async fn register(&self, subject: &str, schema: &str, level: Level) -> anyhow::Result<u32> {
        let path = format!("/subjects/{subject}/versions");
        let new = self.get::<IgnoredAny>(&path).await?.is_none();
        let path = format!("{path}{}", self.query(&[]));
        let registered = self.ask::<Id>(Method::POST, &path, Some(asked(schema)?)).await?;
        let registered = registered
            .with_context(|| format!("the registry did not take the schema of subject {subject}"))?;
        if new {
            self.set_level(subject, level).await?;
        }
        Ok(registered.id)
    }

    /// The query of a call that names a schema.
    fn query(&self, more: &[&'static str]) -> String {
        let parts: Vec<_> = more.iter().copied().chain(self.normalize.then_some("normalize=true")).collect();
        if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
    }

    /// One call. schema_registry_converter has no call for levels, none that normalizes, and none that says
    /// why a schema does not fit: so all but the look-up of an id is asked here.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> anyhow::Result<Result<T, Refusal>> {
        let mut request = self.authorised(self.client.request(method, format!("{}{path}", self.url)));
        if let Some(body) = body {
            request = request.header("content-type", MEDIA_TYPE).body(body);
        }
        let response = request.send().await.context("the registry does not answer")?;
        let status = response.status();
        if !status.is_success() {
            return Ok(Err(Refusal { status, words: response.json().await.ok() }));
        }
        let found = response.json().await;
        found.map(Ok).with_context(|| format!("the registry's answer to {path} is not understood"))
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.auth {
            Auth::None => request,
            Auth::Basic(username, password) => request.basic_auth(username, Some(password.expose())),
            Auth::Bearer(token) => request.bearer_auth(token.expose()),
        }
    }
}

/// The body that asks for a schema.
fn asked(schema: &str) -> anyhow::Result<String> {
    Ok(format!(r#"{{"schemaType":"AVRO","schema":{}}}"#, serde_json::to_string(schema)?))
}

/// Whether the registry, or what stands before it, has answered at all, if only to say no.
pub fn answered(error: &anyhow::Error) -> bool {
    let code = || error.downcast_ref::<SRCError>().and_then(error_code);
    error.downcast_ref::<Refusal>().is_some() || code().is_some()
}

fn error_code(error: &SRCError) -> Option<u32> {
    std::error::Error::source(error)?.downcast_ref::<RawError>().map(|error| error.error_code)
}

fn client(loaded: &config::Loaded) -> anyhow::Result<reqwest::ClientBuilder> {
    let rules = &loaded.config.registry;
    let mut builder = reqwest::Client::builder();
    if let Some(pem) = &loaded.registry_identity {
        let identity = reqwest::Identity::from_pem(pem.expose().as_bytes());
        builder = builder.identity(identity.context("registry.client_cert and registry.client_key")?);
    }
    let Some(path) = &rules.ca_file else {
        // The system's certificates are not needed, and a bare container has none.
        return Ok(if rules.url.starts_with("http://") { builder.tls_certs_only([]) } else { builder });
    };
    let pem = std::fs::read(path).with_context(|| format!("registry.ca_file {}", path.display()))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem)
        .with_context(|| format!("registry.ca_file {} holds no PEM certificates", path.display()))?;
    Ok(builder.tls_certs_merge(certificates))
}
