//! The schema registry: ids for schemas, at start and never on the hot path.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use apache_avro::Schema;
use reqwest::{Method, RequestBuilder, StatusCode};
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_id, perform_sr_call, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, SchemaType, SrCall, SuppliedSchema};
use serde::Deserialize;

use super::reasons::explain;
use crate::config::Auth;

/// The bound of each call.
const TIMEOUT: Duration = Duration::from_secs(10);

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Confluent's code for a schema that the registry does not know, by its id or in a subject.
const NO_SUCH_SCHEMA: u32 = 40403;

/// Confluent's code for a subject that the registry does not know.
const NO_SUCH_SUBJECT: u32 = 40401;

/// The compatibility level of our subjects: BACKWARD would let us drop a field that old readers need.
pub const COMPATIBILITY: &str = "FULL_TRANSITIVE";

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
    schema: String,
}

#[derive(Deserialize)]
struct Level {
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
    url: String,
    auth: Auth,
    client: reqwest::Client,
    settings: SrSettings,
}

impl Registry {
    /// Prepares the clients; nothing is called yet. `ca_file` is a PEM file with an authority
    /// that the system does not know.
    ///
    /// # Errors
    /// When the CA file cannot be read.
    pub fn new(url: &str, auth: Auth, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
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
        let settings = settings.build_with(client(&url, ca_file)?).context("the registry's client")?;
        let client = client(&url, ca_file)?.timeout(TIMEOUT).build().context("the registry's client")?;
        Ok(Self { url, auth, client, settings })
    }

    /// Where it is, without a slash at the end.
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

    /// The id of a schema that stands under the subject.
    ///
    /// # Errors
    /// When it does not stand there, or the registry does not answer.
    pub async fn find(&self, subject: &str, schema: &str) -> anyhow::Result<u32> {
        let body = asked(schema)?;
        let found = perform_sr_call(&self.settings, SrCall::PostForVersion(subject, &body))
            .await
            .with_context(|| format!("the schema of subject {subject} was not found in the registry"))?;
        found.id.with_context(|| format!("the registry gave no id for subject {subject}"))
    }

    /// Where the schema stands in the subject; nothing is changed.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn listing(&self, subject: &str, schema: &str) -> anyhow::Result<Listing> {
        let body = asked(schema)?;
        match perform_sr_call(&self.settings, SrCall::PostForVersion(subject, &body)).await {
            Ok(found) => {
                let id =
                    found.id.with_context(|| format!("the registry gave no id for subject {subject}"))?;
                return Ok(Listing::Registered(id));
            }
            Err(error) => match error_code(&error) {
                Some(NO_SUCH_SUBJECT) => return Ok(Listing::NoSubject),
                Some(NO_SUCH_SCHEMA) => {}
                Some(_) => return Err(error).context("the registry does not show its schemas"),
                None => return Err(error).context("the registry does not answer"),
            },
        }
        // Without a version: as many as the subject's level looks at.
        let url = format!("{}/compatibility/subjects/{subject}/versions?verbose=true", self.url);
        let request = self.authorised(self.client.post(url)).header("content-type", MEDIA_TYPE).body(body);
        let answer = request.send().await.context("the registry does not answer")?;
        let status = answer.status();
        anyhow::ensure!(
            status.is_success(),
            "the registry answered {status} to whether {subject} may change"
        );
        let Compatibility { is_compatible, mut messages, reason } =
            answer.json().await.context("the registry does not say whether a schema is compatible")?;
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
        let found = self.get::<Level>(&format!("/config/{subject}")).await?;
        Ok(found.map(|found| found.level))
    }

    /// Sets the subject's level to [`COMPATIBILITY`].
    ///
    /// # Errors
    /// When the registry refuses it, or does not answer.
    pub async fn set_level(&self, subject: &str) -> anyhow::Result<()> {
        let level = format!(r#"{{"compatibility":"{COMPATIBILITY}"}}"#);
        let status = self.call(Method::PUT, &format!("/config/{subject}"), Some(level)).await?;
        anyhow::ensure!(
            status.is_success(),
            "the registry did not take the compatibility of subject {subject}: {status}"
        );
        Ok(())
    }

    /// The subject's last version.
    ///
    /// # Errors
    /// When the registry does not say.
    pub async fn latest(&self, subject: &str) -> anyhow::Result<Option<Version>> {
        self.get(&format!("/subjects/{subject}/versions/latest")).await
    }

    /// What stands at a path; `None` for 404.
    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<Option<T>> {
        let request = self.authorised(self.client.get(format!("{}{path}", self.url)));
        let response = request.send().await.context("the registry does not answer")?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        anyhow::ensure!(status.is_success(), "the registry answered {status} to {path}");
        let found = response.json().await;
        found.map(Some).with_context(|| format!("the registry's answer to {path} is not understood"))
    }

    /// Registers the schema, or finds it where it is registered already. A new subject gets the
    /// level [`COMPATIBILITY`]. An existing subject keeps its own.
    ///
    /// # Errors
    /// When the registry refuses the schema, or does not answer.
    pub async fn register(&self, subject: &str, schema: &str) -> anyhow::Result<u32> {
        let new = self.call(Method::GET, &format!("/subjects/{subject}/versions"), None).await?
            == StatusCode::NOT_FOUND;
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        let registered = post_schema(&self.settings, subject.to_owned(), supplied)
            .await
            .with_context(|| format!("the registry did not take the schema of subject {subject}"))?;
        if new {
            self.set_level(subject).await?;
        }
        Ok(registered.id)
    }

    /// One call of those that schema_registry_converter has not.
    async fn call(&self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<StatusCode> {
        let mut request = self.authorised(self.client.request(method, format!("{}{path}", self.url)));
        if let Some(body) = body {
            request = request.header("content-type", MEDIA_TYPE).body(body);
        }
        let response = request.send().await.context("the registry does not answer")?;
        let status = response.status();
        anyhow::ensure!(
            status.is_success() || status == StatusCode::NOT_FOUND,
            "the registry answered {status} to {path}"
        );
        Ok(status)
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

fn error_code(error: &SRCError) -> Option<u32> {
    std::error::Error::source(error)?.downcast_ref::<RawError>().map(|error| error.error_code)
}

fn client(url: &str, ca_file: Option<&Path>) -> anyhow::Result<reqwest::ClientBuilder> {
    let builder = reqwest::Client::builder();
    let Some(path) = ca_file else {
        // The system's certificates are not needed, and a bare container has none.
        return Ok(if url.starts_with("http://") { builder.tls_certs_only([]) } else { builder });
    };
    let pem = std::fs::read(path).with_context(|| format!("registry.ca_file {}", path.display()))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem)
        .with_context(|| format!("registry.ca_file {} holds no PEM certificates", path.display()))?;
    Ok(builder.tls_certs_merge(certificates))
}
