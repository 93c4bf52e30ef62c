//! Datagrid's webhooks, by its API: as its page and its client library have it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::cli::is_loopback;
use crate::cli::output::escape_controls;
use crate::client::{self, AnswerError, HttpAnswer, JsonObject};
use crate::config::SecretText;

/// Where the key stands.
const KEY: &str = "DATAGRID_API_KEY";

/// Where another address stands, with `/v1` at its end or without: the page's example has it
/// without, the client library's base with.
const ADDRESS: &str = "DATAGRID_API_URL";

/// The address without that.
const DEFAULT: &str = "https://api.datagrid.com";

const NO_SECRET: &str = "Datagrid's answer holds no secret: see the list, and delete the webhook";

/// Of the API's own words, in characters.
const MAX_SAID: usize = 300;

/// Pages of a list; each cursor costs a call.
const MAX_PAGES: usize = 1_000;

/// A subscription as the API shows it: never with its secret.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Webhook {
    /// The API's name for it.
    pub(super) id: String,
    /// Deliveries are posted there.
    pub(super) url: String,
    /// Event types.
    pub(super) events: Vec<String>,
    /// False while it is paused.
    pub(super) enabled: bool,
    /// ISO 8601, as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<String>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) updated_at: Option<String>,
}

/// What is asked for.
#[derive(Serialize)]
pub(super) struct CreateRequest<'a> {
    /// Where to deliver; https.
    pub(super) url: &'a str,
    /// Event types.
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

#[derive(Serialize)]
struct SetEnabled {
    enabled: bool,
}

/// The API, with a key. Each call ends within the time-out; none is tried again.
pub(super) struct Api {
    base: Url,
    key: SecretText,
    client: reqwest::Client,
}

impl Api {
    /// Reads address and key from the environment. Nothing is called yet.
    ///
    /// # Errors
    /// When there is no key, or the address would carry it in the clear.
    pub(super) fn new(timeout: Duration) -> anyhow::Result<Self> {
        let key = std::env::var(KEY).ok().filter(|key| !key.trim().is_empty());
        let key = key.with_context(|| format!("{KEY} is not set; give it an API key of your teamspace"))?;
        let address = std::env::var(ADDRESS).ok().filter(|address| !address.is_empty());
        let base = base(address.as_deref().unwrap_or(DEFAULT))?;
        let mut builder = client::builder()
            .user_agent(concat!("hookstream/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(timeout * 9 / 10)
            .timeout(timeout);
        builder = match base.scheme() {
            // Loopback alone: no proxy may see the key, and no certificate is needed.
            "http" => builder.no_proxy().tls_certs_only([]),
            _ => builder.https_only(true),
        };
        let client = builder.build().context("cannot make an HTTP client")?;
        Ok(Self { base, key: SecretText::new(key.trim()), client })
    }

    /// Makes a subscription: its secret, which is shown this once, and the webhook, if we could read
    /// it. Without an answer it may have been made all the same.
    pub(super) async fn create(
        &self,
        wish: &CreateRequest<'_>,
    ) -> anyhow::Result<(SecretText, anyhow::Result<Webhook>)> {
        let request = self.request(Method::POST, None)?.json(wish);
        let sent = self.send(request).await;
        let answer = sent.context("whether the webhook was made is unknown: see the list")?;
        ensure!(answer.status.is_success(), self.refusal(&answer));
        let found = answer.json::<JsonObject<SecretJson>>("a webhook's secret");
        let found = found.map(|JsonObject(found)| found.secret);
        let found = found.context(NO_SECRET)?;
        ensure!(!found.is_empty(), NO_SECRET);
        Ok((SecretText::new(found), webhook(&answer)))
    }

    /// All subscriptions, of every source: the API knows none.
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
                page.with_context(|| format!("the answer of {} is no list of webhooks", self.base))?;
            all.extend(page.data.into_iter().map(|JsonObject(webhook)| webhook));
            let next = page.next_cursor.filter(|next| !next.is_empty());
            if next.is_none() {
                return Ok(all);
            }
            ensure!(next != cursor, "Datagrid's list of webhooks does not come to an end");
            cursor = next;
        }
        bail!("Datagrid's list of webhooks does not come to an end")
    }

    /// One subscription, if there is such a one.
    pub(super) async fn get(&self, id: &str) -> anyhow::Result<Option<Webhook>> {
        let answer = self.send(self.request(Method::GET, Some(id))?).await?;
        if self.is_gone(&answer) {
            return Ok(None);
        }
        ensure!(answer.status.is_success(), self.refusal(&answer));
        let webhook = webhook(&answer)?;
        ensure!(webhook.id == id, "Datagrid answers with another webhook than {id}");
        Ok(Some(webhook))
    }

    /// Pauses or resumes it.
    pub(super) async fn switch(&self, id: &str, enabled: bool) -> anyhow::Result<Webhook> {
        let request = self.request(Method::PATCH, Some(id))?.json(&SetEnabled { enabled });
        let answer = self.send(request).await?;
        ensure!(answer.status.is_success(), self.refusal(&answer));
        let webhook = webhook(&answer)?;
        ensure!(webhook.id == id, "Datagrid answers with another webhook than {id}");
        ensure!(webhook.enabled == enabled, "Datagrid took the change of {id}, but shows it unchanged");
        Ok(webhook)
    }

    /// Deletes it. One that is gone already is no error.
    pub(super) async fn delete(&self, id: &str) -> anyhow::Result<()> {
        let answer = self.send(self.request(Method::DELETE, Some(id))?).await?;
        ensure!(answer.status.is_success() || self.is_gone(&answer), self.refusal(&answer));
        // A page for people says nothing of a webhook.
        ensure!(!answer.is_html(), answer.unexpected("Datagrid's word"));
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
        let mut bearer = bearer.with_context(|| format!("{KEY} holds what no HTTP header can"))?;
        bearer.set_sensitive(true);
        Ok(self.client.request(method, url).header(AUTHORIZATION, bearer))
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<HttpAnswer> {
        let base = &self.base;
        client::send(request).await.map_err(|error| {
            let what = match error {
                AnswerError::Missing(_) => format!("no answer from {base}; is {ADDRESS} right?"),
                AnswerError::Redirect(_) => format!("Datagrid is not at {base}; check {ADDRESS}"),
                _ => format!("the answer of {base} cannot be read"),
            };
            anyhow::Error::new(error).context(what)
        })
    }

    /// That there is no such webhook, by the API: a proxy's page says nothing of one.
    fn is_gone(&self, answer: &HttpAnswer) -> bool {
        answer.status == StatusCode::NOT_FOUND && !answer.is_html()
    }

    /// The API's refusal in its own words, and what to do where we know.
    fn refusal(&self, answer: &HttpAnswer) -> anyhow::Error {
        let (status, body) = (answer.status, &answer.body);
        let mut text = format!("Datagrid answers {status}");
        // It may show us the key that it did not like.
        let said = said(body, 0).map(|said| said.replace(self.key.expose(), "[the key]"));
        if let Some(said) = said.as_deref().map(plain).filter(|said| !said.is_empty()) {
            text.push_str(&format!(": {said}"));
        }
        let next = match status {
            StatusCode::UNAUTHORIZED => "check DATAGRID_API_KEY",
            StatusCode::FORBIDDEN => "this key may not do that: take one of the right teamspace",
            StatusCode::TOO_MANY_REQUESTS => "wait a while",
            _ if status.is_server_error() => "try again later",
            _ => return anyhow::Error::msg(text),
        };
        anyhow::anyhow!("{text}; {next}")
    }
}

/// The address with its `/v1`.
fn base(address: &str) -> anyhow::Result<Url> {
    let url = Url::parse(address.trim()).ok().filter(Url::has_host);
    let mut url = url.with_context(|| format!("{ADDRESS} expects an address such as {DEFAULT}"))?;
    let plain = url.username().is_empty() && url.password().is_none();
    ensure!(plain, "{ADDRESS} holds a user or a password; take them out: the key stands in {KEY}");
    let safe = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
    ensure!(safe, "{ADDRESS} must begin with https://: the key would cross the network in the clear");
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&if path.ends_with("/v1") { path } else { format!("{path}/v1") });
    Ok(url)
}

fn webhook(answer: &HttpAnswer) -> anyhow::Result<Webhook> {
    let found = answer.json::<JsonObject<Webhook>>("a webhook").context("Datagrid's answer is no webhook")?;
    Ok(found.0)
}

/// The message of an error, wherever APIs put one.
fn said(body: &[u8], depth: u8) -> Option<String> {
    let Ok(members) = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(body) else {
        let text = std::str::from_utf8(body).ok()?.trim();
        // No page of a proxy, and nothing of a structure that we do not know.
        return (depth == 0 && !text.starts_with(['<', '[', '{'])).then(|| text.to_owned());
    };
    ["detail", "message", "error", "title"].iter().find_map(|name| {
        let member = members.get(*name)?.get();
        let text = serde_json::from_str::<String>(member).ok().filter(|text| !text.trim().is_empty());
        text.or_else(|| if depth < 2 { said(member.as_bytes(), depth + 1) } else { None })
    })
}

/// Fit for one line of a terminal.
fn plain(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(MAX_SAID + 1).collect();
    let cut = match text.char_indices().nth(MAX_SAID) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    };
    escape_controls(cut.trim()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_may_have_its_v1_or_not_and_carries_no_key_in_the_clear() {
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
    fn the_api_s_own_words_are_found_cut_and_made_harmless() {
        for (body, expected) in [
            (r#"{"detail":"no","title":"Bad"}"#, Some("no")),
            (r#"{"error":{"message":"url must be https","code":7}}"#, Some("url must be https")),
            (r#"{"error":"unauthorized"}"#, Some("unauthorized")),
            (r#"{"title":"Not Found","detail":[1]}"#, Some("Not Found")),
            ("plain words\n", Some("plain words")),
            ("<html>a proxy</html>", None),
            (r#"{"secret":"s"}"#, None),
            (r#"{"error":{"error":{"error":{"error":"too deep"}}}}"#, None),
            ("", Some("")),
        ] {
            assert_eq!(said(body.as_bytes(), 0).as_deref(), expected, "{body}");
        }
        assert_eq!(plain("a\u{1b}[31m\r\nb\u{202e}"), r"a[31mb\u{202e}");
        let long = plain(&"é".repeat(5_000));
        assert_eq!((long.chars().count(), long.ends_with("...")), (MAX_SAID + 3, true));
    }
}
