//! One call of the registry, and what its answer must be. schema_registry_converter has no call for levels,
//! none that normalizes, none that says why a schema does not fit, and takes any answer by its shape: so all
//! but what `schema/decode` looks up is asked here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::{self, AnswerError, JsonObject, printable};
use crate::config::{self, Auth, ConfigErrors};
use crate::files;
use crate::observe::clock::Clocks;

/// The bound of each call.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Of the registry's own words, in characters.
const MAX_SAID: usize = 500;

/// Asks a registry.
#[derive(Clone)]
pub(super) struct Caller {
    /// With the context, if there is one, without a slash at the end.
    pub(super) url: String,
    context: Option<String>,
    auth: Auth,
    client: reqwest::Client,
    /// Told what time it is there.
    pub(super) clocks: Arc<Clocks>,
}

/// What the registry said instead of yes.
#[derive(Debug)]
pub(in crate::schema) struct RegistryError {
    pub(in crate::schema) status: StatusCode,
    /// Confluent's code and words. Without them it may not be the registry that has answered.
    words: Option<Words>,
}

#[derive(Debug, Deserialize)]
struct Words {
    error_code: u32,
    message: String,
}

impl RegistryError {
    pub(super) fn is(&self, code: u32) -> bool {
        self.words.as_ref().is_some_and(|words| words.error_code == code)
    }

    /// That there is no such thing, and in the registry's own words: a proxy before a registry that is out
    /// may answer 404, too.
    pub(in crate::schema) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && self.words.is_some()
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Words { error_code, message }) = &self.words else {
            return write!(f, "it answered {}", self.status);
        };
        let message: String = message.chars().filter(|c| !c.is_control()).take(MAX_SAID).collect();
        write!(f, "{message} (code {error_code})")
    }
}

impl std::error::Error for RegistryError {}

impl Caller {
    pub(super) fn new(loaded: &config::LoadedConfig) -> anyhow::Result<Self> {
        let rules = &loaded.config.registry;
        // All that stands below is the context's, the ids among it: a qualified subject, `:.context:name`,
        // would leave `/schemas/ids` in the default one.
        let context = rules.context.as_ref().map(|context| format!("/contexts/{context}"));
        let url = format!("{}{}", rules.url.trim_end_matches('/'), context.as_deref().unwrap_or_default());
        let client = builder(loaded)?.timeout(TIMEOUT).build().context("the registry's client")?;
        Ok(Self { url, context, auth: loaded.registry_auth.clone(), client, clocks: Arc::default() })
    }

    /// One call. `expected` says for people what the answer must be; for a struct, `T` is a [`JsonObject`].
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        expected: &'static str,
    ) -> anyhow::Result<Result<T, RegistryError>> {
        let call = format!("{method} {path}");
        let mut request = self.authorised(self.client.request(method, format!("{}{path}", self.url)));
        if let Some(body) = body {
            request = request.header("content-type", MEDIA_TYPE).body(body);
        }
        let answer = client::send(request).await.map_err(|error| self.unanswered(error, &call, path))?;
        self.clocks.learn_date(&answer.headers);
        let status = answer.status;
        if !status.is_success() {
            let words = answer.json::<JsonObject<Words>>("").ok().map(|JsonObject(words)| words);
            return Ok(Err(RegistryError { status, words }));
        }
        answer.json(expected).map(Ok).with_context(|| not_understood(&call))
    }

    /// Why there is no answer, and where a redirect is to be mended.
    fn unanswered(&self, error: AnswerError, call: &str, path: &str) -> anyhow::Error {
        match error {
            AnswerError::Redirect(redirect) => {
                let advice = redirect.target.as_ref().map(|target| self.base(target, path));
                let advice = advice.unwrap_or_else(|| "the registry itself".to_owned());
                let elsewhere = format!("the registry is elsewhere; set [registry] url to {advice}");
                anyhow::Error::new(redirect).context(elsewhere)
            }
            missing @ AnswerError::Missing(_) => {
                anyhow::Error::new(missing).context("the registry does not answer")
            }
            other => anyhow::Error::new(other).context(not_understood(call)),
        }
    }

    /// The registry's base URL, where `target` is that of a call.
    fn base(&self, target: &Url, path: &str) -> String {
        let target = printable(target);
        let path = path.split('?').next().unwrap_or_default();
        let base = target.strip_suffix(path).unwrap_or(&target);
        let base = self.context.as_ref().and_then(|context| base.strip_suffix(context)).unwrap_or(base);
        base.to_owned()
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.auth {
            Auth::None => request,
            Auth::Basic(username, password) => request.basic_auth(username, Some(password.expose())),
            Auth::Bearer(token) => request.bearer_auth(token.expose()),
        }
    }
}

fn not_understood(call: &str) -> String {
    format!("the registry's answer to {call} is not understood")
}

/// Whether the registry itself has said no, or is not there at all: what else answers in its place, and a
/// registry that is silent, will not do better with the next question.
pub fn answered(error: &anyhow::Error) -> bool {
    error.downcast_ref::<RegistryError>().is_some()
}

/// A builder of the registry's client, with the certificates of the configuration.
pub(super) fn builder(loaded: &config::LoadedConfig) -> anyhow::Result<reqwest::ClientBuilder> {
    let mut builder = client::builder();
    if let Some(identity) = identity(loaded).map_err(|why| anyhow::anyhow!("{IDENTITY}: {why}"))? {
        builder = builder.identity(identity);
    }
    match authorities(loaded).map_err(|why| anyhow::anyhow!("{CA_FILE}: {why}"))? {
        Some(authorities) => Ok(builder.tls_certs_merge(authorities)),
        None => Ok(client::without_certificates_for_http(builder, &loaded.config.registry.url)),
    }
}

const CA_FILE: &str = "registry.ca_file";
const IDENTITY: &str = "registry.client_cert";

/// Adds a problem for each file of certificates or keys that the registry's client could not use.
pub fn check_certificates(loaded: &config::LoadedConfig, problems: &mut ConfigErrors) {
    if let Err(why) = identity(loaded) {
        problems.add(IDENTITY, why);
    }
    if let Err(why) = authorities(loaded) {
        problems.add(CA_FILE, why);
    }
}

fn identity(loaded: &config::LoadedConfig) -> Result<Option<reqwest::Identity>, String> {
    let Some(pem) = &loaded.registry_identity else { return Ok(None) };
    let identity = reqwest::Identity::from_pem(pem.expose().as_bytes());
    identity.map(Some).map_err(|_| {
        "certificate and key are not a pair in PEM: client_cert needs the certificate chain, client_key its private key"
            .to_owned()
    })
}

fn authorities(loaded: &config::LoadedConfig) -> Result<Option<Vec<reqwest::Certificate>>, String> {
    let Some(path) = &loaded.config.registry.ca_file else { return Ok(None) };
    let path_text = path.display();
    let pem =
        files::read(path, files::MAX_PEM).map_err(|error| format!("cannot read {path_text}: {error}"))?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(Some(found)),
        _ => Err(format!("{path_text} holds no certificates in PEM")),
    }
}
