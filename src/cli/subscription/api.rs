//! A client for Datagrid's webhook API, as its documentation and its client library define it.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::{Deserialize, Serialize};

use crate::cli::is_loopback;
use crate::cli::output::escape_controls;
use crate::client::{self, AnswerError, HttpAnswer, JsonObject};
use crate::config::SecretText;

/// The variable with the API key.
const KEY: &str = "DATAGRID_API_KEY";

/// The variable with another address, with or without `/v1` at its end: the documentation has it without, the client
/// library with.
const ADDRESS: &str = "DATAGRID_API_URL";

/// The default address.
const DEFAULT: &str = "https://api.datagrid.com";

const NO_SECRET: &str = "Datagrid's answer contains no secret: find the webhook with `list` and delete it";

/// The maximum length of quoted API messages, in characters.
const MAX_MESSAGE: usize = 300;

/// The maximum number of pages of a list; each costs a request.
const MAX_PAGES: usize = 1_000;

/// A webhook subscription as the API returns it, without its secret.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Webhook {
    /// The API's id of the webhook.
    pub(super) id: String,
    /// The URL to which Datagrid posts deliveries.
    pub(super) url: String,
    /// The subscribed event types.
    pub(super) events: Vec<String>,
    /// False while it is paused.
    pub(super) enabled: bool,
    /// The time of creation, ISO 8601 as received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<String>,
    /// The time of the last change, ISO 8601 as received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) updated_at: Option<String>,
}

/// The body of a request that creates a webhook.
#[derive(Serialize)]
pub(super) struct CreateRequest<'a> {
    /// The URL for deliveries; https.
    pub(super) url: &'a str,
    /// The event types to subscribe to.
    pub(super) events: &'a [String],
}

#[derive(Deserialize)]
struct Page {
    data: Vec<JsonObject<Webhook>>,
    #[serde(default)]
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct SecretJson {
    secret: String,
}

/// The API client. Each request ends within the timeout; none is retried.
pub(super) struct Api {
    base: Url,
    key: SecretText,
    client: reqwest::Client,
}

impl Api {
    /// Reads address and key from the environment. Sends no request.
    ///
    /// # Errors
    /// The key is missing, or the address would send it unencrypted.
    pub(super) fn new(timeout: Duration) -> anyhow::Result<Self> {
        let key = std::env::var(KEY).ok().filter(|key| !key.trim().is_empty());
        let key = key.with_context(|| format!("{KEY} is not set: set it to an API key of your teamspace"))?;
        let address = std::env::var(ADDRESS).ok().filter(|address| !address.is_empty());
        let base = base(address.as_deref().unwrap_or(DEFAULT))?;
        let mut builder = client::builder()
            .user_agent(concat!("hookstream/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(timeout * 9 / 10)
            .timeout(timeout);
        builder = match base.scheme() {
            // Only for loopback addresses: no proxy may see the key.
            "http" => client::without_certificates_for_http(builder.no_proxy(), base.as_str()),
            _ => builder.https_only(true),
        };
        let client = builder.build().context("cannot create an HTTP client")?;
        Ok(Self { base, key: SecretText::new(key.trim()), client })
    }

    /// Creates a webhook. Returns its secret, which the API shows only here, and the webhook if the answer could be
    /// read. If there is no answer, the webhook may exist nevertheless.
    pub(super) async fn create(
        &self,
        body: &CreateRequest<'_>,
    ) -> anyhow::Result<(SecretText, anyhow::Result<Webhook>)> {
        let request = self.request(Method::POST, None)?.json(body);
        let sent = self.send(request).await;
        let answer = sent.context("whether the webhook was created is unknown: check with `list`")?;
        ensure!(answer.status.is_success(), self.refusal(&answer));
        let found = answer.json::<JsonObject<SecretJson>>("a webhook's secret");
        let found = found.map(|JsonObject(found)| found.secret);
        let found = found.context(NO_SECRET)?;
        ensure!(!found.is_empty(), NO_SECRET);
        Ok((SecretText::new(found), webhook(&answer)))
    }

    /// All webhooks, not only those of one source: the API has no sources.
    pub(super) async fn list(&self) -> anyhow::Result<Vec<Webhook>> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        for _ in 0..MAX_PAGES {
            let mut url = self.url(None);
            if let Some(cursor) = &cursor {
                url.query_pairs_mut().append_pair("cursor", cursor);
            }
            let answer = self.send(self.request_to(Method::GET, url)?).await?;
            ensure!(answer.status.is_success(), self.refusal(&answer));
            let page = answer.json::<JsonObject<Page>>("a list of webhooks");
            let JsonObject(page) =
                page.with_context(|| format!("the answer of {} is not a list of webhooks", self.base))?;
            all.extend(page.data.into_iter().map(|JsonObject(webhook)| webhook));
            let next = page.next_cursor.filter(|next| !next.is_empty());
            if next.is_none() {
                return Ok(all);
            }
            ensure!(next != cursor, "Datagrid's list of webhooks does not end");
            cursor = next;
        }
        bail!("Datagrid's list of webhooks does not end")
    }

    /// Deletes a webhook. One that does not exist is not an error.
    pub(super) async fn delete(&self, id: &str) -> anyhow::Result<()> {
        let answer = self.send(self.request(Method::DELETE, Some(id))?).await?;
        let gone = answer.status == StatusCode::NOT_FOUND;
        ensure!(answer.status.is_success() || gone, self.refusal(&answer));
        // An HTML page comes from a proxy and proves nothing about the webhook.
        ensure!(!answer.is_html(), answer.unexpected("Datagrid's answer"));
        Ok(())
    }

    fn url(&self, id: Option<&str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.push("webhooks").extend(id);
        }
        url
    }

    fn request(&self, method: Method, id: Option<&str>) -> anyhow::Result<RequestBuilder> {
        self.request_to(method, self.url(id))
    }

    fn request_to(&self, method: Method, url: Url) -> anyhow::Result<RequestBuilder> {
        let bearer = HeaderValue::try_from(format!("Bearer {}", self.key.expose())).ok();
        let mut bearer =
            bearer.with_context(|| format!("{KEY} has characters that an HTTP header cannot carry"))?;
        bearer.set_sensitive(true);
        Ok(self.client.request(method, url).header(AUTHORIZATION, bearer))
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<HttpAnswer> {
        let base = &self.base;
        client::send(request).await.map_err(|error| {
            let message = match error {
                AnswerError::Missing(_) => format!("no answer from {base}; check {ADDRESS}"),
                AnswerError::Redirect(_) => format!("Datagrid is not at {base}; check {ADDRESS}"),
                _ => format!("the answer of {base} cannot be read"),
            };
            anyhow::Error::new(error).context(message)
        })
    }

    /// The API's refusal with its message and, if known, what to do.
    fn refusal(&self, answer: &HttpAnswer) -> anyhow::Error {
        let (status, body) = (answer.status, &answer.body);
        let mut text = format!("Datagrid answers {status}");
        // The message may repeat the refused key.
        let message = error_message(body).map(|message| message.replace(self.key.expose(), "[the key]"));
        if let Some(message) = message.as_deref().map(plain).filter(|message| !message.is_empty()) {
            text.push_str(&format!(": {message}"));
        }
        let next = match status {
            StatusCode::UNAUTHORIZED => "check DATAGRID_API_KEY",
            StatusCode::FORBIDDEN => "this key has no permission: use a key of the right teamspace",
            StatusCode::TOO_MANY_REQUESTS => "try again later",
            _ if status.is_server_error() => "try again later",
            _ => return anyhow::Error::msg(text),
        };
        anyhow::anyhow!("{text}; {next}")
    }
}

/// Parses the address and adds `/v1`.
fn base(address: &str) -> anyhow::Result<Url> {
    let url = Url::parse(address.trim()).ok().filter(Url::has_host);
    let mut url = url.with_context(|| format!("{ADDRESS} expects an address such as {DEFAULT}"))?;
    let plain = url.username().is_empty() && url.password().is_none();
    ensure!(plain, "{ADDRESS} contains a user or a password: remove them, the key belongs in {KEY}");
    let safe = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
    ensure!(safe, "{ADDRESS} must begin with https://: otherwise the key would be sent unencrypted");
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&if path.ends_with("/v1") { path } else { format!("{path}/v1") });
    Ok(url)
}

fn webhook(answer: &HttpAnswer) -> anyhow::Result<Webhook> {
    let found =
        answer.json::<JsonObject<Webhook>>("a webhook").context("Datagrid's answer is not a webhook")?;
    Ok(found.0)
}

/// The message in an error body, under any of the usual names. Anything else may be a secret, or a proxy's page.
#[expect(clippy::disallowed_types, reason = "an error of the API, no payload")]
fn error_message(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let usual = ["/detail", "/message", "/error/message", "/error", "/title"];
    usual.iter().find_map(|at| body.pointer(at)?.as_str()).map(str::to_owned)
}

/// Makes text fit for one line of a terminal.
fn plain(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE + 1).collect();
    let cut = match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    };
    escape_controls(cut.trim()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_may_have_v1_and_must_be_encrypted() {
        for (address, expected) in [
            ("https://api.datagrid.com", "https://api.datagrid.com/v1"),
            ("https://api.datagrid.com/v1/", "https://api.datagrid.com/v1"),
            ("https://proxy.example/datagrid/?x=1#y", "https://proxy.example/datagrid/v1"),
            ("http://127.0.0.1:9", "http://127.0.0.1:9/v1"),
            ("http://[::1]:9/v1", "http://[::1]:9/v1"),
        ] {
            assert_eq!(base(address).unwrap().as_str(), expected);
        }
        for address in ["http://api.datagrid.com", "ftp://127.0.0.1", "api.datagrid.com", "https://u:p@x", ""]
        {
            let error = base(address).unwrap_err().to_string();
            assert!(error.contains(ADDRESS) && !error.contains("u:p"), "{address}: {error}");
        }
    }

    #[test]
    fn messages_of_the_api_are_extracted_truncated_and_escaped() {
        for (body, expected) in [
            (r#"{"detail":"no","title":"Bad"}"#, Some("no")),
            (r#"{"error":{"message":"url must be https","code":7}}"#, Some("url must be https")),
            (r#"{"error":"unauthorized"}"#, Some("unauthorized")),
            (r#"{"title":"Not Found","detail":[1]}"#, Some("Not Found")),
            ("<html>a proxy</html>", None),
            (r#"{"secret":"s"}"#, None),
            ("", None),
        ] {
            assert_eq!(error_message(body.as_bytes()).as_deref(), expected, "{body}");
        }
        assert_eq!(plain("a\u{1b}[31m\r\nb\u{202e}"), r"a[31mb\u{202e}");
        let long = plain(&"é".repeat(5_000));
        assert_eq!((long.chars().count(), long.ends_with("...")), (MAX_MESSAGE + 3, true));
    }
}
