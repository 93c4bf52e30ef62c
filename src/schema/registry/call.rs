//! One call of the registry, and what its answer must be. schema_registry_converter has no call for levels,
//! none that normalizes, none that says why a schema does not fit, and takes any answer by its shape: so all
//! but what `schema/decode` looks up is asked here.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Url};
use serde::de::DeserializeOwned;

use super::error::{Refusal, RegistryError, Words};
use crate::client::{self, AnswerError, JsonObject, printable};
use crate::config::{self, Auth, ConfigErrors};
use crate::files;
use crate::observe::clock::Clocks;

/// The bound of each call.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

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

impl Caller {
    pub(super) fn new(loaded: &config::LoadedConfig) -> Result<Self, RegistryError> {
        let rules = &loaded.config.registry;
        // All that stands below is the context's, the ids among it: a qualified subject, `:.context:name`,
        // would leave `/schemas/ids` in the default one.
        let context = rules.context.as_ref().map(|context| format!("/contexts/{context}"));
        let url = format!("{}{}", rules.url.trim_end_matches('/'), context.as_deref().unwrap_or_default());
        let client = builder(loaded)?.timeout(TIMEOUT).build().map_err(RegistryError::client)?;
        Ok(Self { url, context, auth: loaded.registry_auth.clone(), client, clocks: Arc::default() })
    }

    /// One call. `expected` says for people what the answer must be; for a struct, `T` is a [`JsonObject`].
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        expected: &'static str,
    ) -> Result<Result<T, Refusal>, RegistryError> {
        let call = format!("{method} {path}");
        let mut request = self.authorised(self.client.request(method, format!("{}{path}", self.url)));
        if let Some(body) = body {
            request = request.header("content-type", MEDIA_TYPE).body(body);
        }
        let answer = match client::send(request).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.unanswered(error, call, path)),
        };
        self.clocks.learn_date(&answer.headers);
        let status = answer.status;
        if !status.is_success() {
            let words = answer.json::<JsonObject<Words>>("").ok().map(|JsonObject(words)| words);
            return Ok(Err(Refusal { status, words }));
        }
        answer.json(expected).map(Ok).map_err(|cause| RegistryError::NotUnderstood { call, cause })
    }

    /// Why there is no answer. If the registry redirects, names the URL to set.
    fn unanswered(&self, error: AnswerError, call: String, path: &str) -> RegistryError {
        match error {
            AnswerError::Redirect(redirect) => {
                let url = redirect.target.as_ref().map(|target| self.base(target, path));
                let url = url.unwrap_or_else(|| "the registry itself".to_owned());
                RegistryError::Elsewhere { url, redirect }
            }
            missing @ AnswerError::Missing(_) => RegistryError::NoAnswer(missing),
            cause => RegistryError::NotUnderstood { call, cause },
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

/// A builder of the registry's client, with the certificates of the configuration.
pub(super) fn builder(loaded: &config::LoadedConfig) -> Result<reqwest::ClientBuilder, RegistryError> {
    let mut builder = client::builder();
    let unusable = |setting| move |why| RegistryError::Certificates { setting, why };
    if let Some(identity) = identity(loaded).map_err(unusable(IDENTITY))? {
        builder = builder.identity(identity);
    }
    match authorities(loaded).map_err(unusable(CA_FILE))? {
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
