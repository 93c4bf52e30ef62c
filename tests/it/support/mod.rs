//! Shared by all tests: the stack, a service on it, a provider that signs deliveries, and readers of topics.

pub mod broker;
pub mod clock;
pub mod collector;
pub mod groups;
pub mod hostile;
pub mod kafka;
pub mod process;
pub mod raw;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use hookstream::app::{App, Listeners};
use hookstream::config::{self, Environment, Overrides};
use hookstream::http::DeliveryReport;
use hookstream::kafka::embedded::Embedded;
use hookstream::names;
use reqwest::{Response, StatusCode};
use serde_json::Value;
use sha2::Sha256;
use tempfile::NamedTempFile;
use uuid::Uuid;

/// The secret of every source in these tests.
pub const SECRET: &str = "wh_integration-test-secret";

/// The timeout of every wait; far longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// An address of the stack.
pub fn stack(name: &str) -> String {
    let name = format!("HOOKSTREAM_TEST_{name}");
    std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set: run this with ./tests/run"))
}

/// A name that no other test uses.
pub fn unique(prefix: &str) -> String {
    let id = Uuid::now_v7().simple().to_string();
    format!("{prefix}-{}", &id[id.len() - 10..])
}

/// Polls until `condition` is true, and fails after [`PATIENCE`]. `what` is what the test waits for.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        let mut pause = tokio::time::interval(Duration::from_millis(10));
        while !condition().await {
            pause.tick().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("timed out after {PATIENCE:?} waiting for {what}"));
}

/// The set-up of a service.
pub struct Setup {
    pub preset: &'static str,
    pub source: String,
    pub kafka: String,
    pub registry: String,
    /// The source's `secrets`.
    pub secrets: String,
    /// Further lines in `[source.NAME]`.
    pub rules: String,
    /// Further tables.
    pub tables: String,
    /// The address that `[http]` listens on.
    pub listen: String,
    /// Further lines in `[http]`.
    pub http: String,
    /// Further lines in `[admin]`.
    pub admin: String,
    /// Further environment variables.
    pub environment: BTreeMap<String, String>,
}

impl Setup {
    pub fn new(preset: &'static str) -> Self {
        Self {
            preset,
            source: unique(preset),
            kafka: stack("KAFKA"),
            registry: stack("REGISTRY"),
            secrets: String::from("[{ env = \"TEST_SECRET\" }]"),
            rules: String::new(),
            tables: String::new(),
            listen: String::from("127.0.0.1:0"),
            http: String::new(),
            admin: String::new(),
            environment: BTreeMap::new(),
        }
    }

    /// The configuration file's text.
    pub fn toml(&self) -> String {
        let Self { preset, source, kafka, registry, secrets, rules, tables, listen, http, admin, .. } = self;
        format!(
            r#"
            [http]
            listen = "{listen}"
            drain_delay = "0s"
            {http}
            [admin]
            listen = "127.0.0.1:0"
            {admin}
            [kafka]
            bootstrap_servers = "{kafka}"
            [kafka.topics]
            partitions = 3
            [registry]
            url = "{registry}"
            [source.{source}]
            preset = "{preset}"
            secrets = {secrets}
            {rules}
            {tables}
            "#
        )
    }

    /// Starts the application on free ports, and returns before it is ready.
    pub async fn start(self) -> Service {
        self.try_start().await.unwrap()
    }

    /// Like [`Self::start`] for a start that may fail.
    pub async fn try_start(self) -> anyhow::Result<Service> {
        let file = NamedTempFile::with_suffix(".toml").unwrap();
        std::fs::write(file.path(), self.toml()).unwrap();
        let overrides = Overrides { file: Some(file.path().to_owned()), ..Overrides::default() };
        let variables =
            self.environment.into_iter().chain([(String::from("TEST_SECRET"), String::from(SECRET))]);
        let loaded = config::load(&overrides, &variables.collect::<Environment>()).unwrap();
        let listeners = Listeners::bind(&loaded.config).await.unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let watch = {
            let lines = lines.clone();
            move |line: &DeliveryReport<'_>| {
                lines.lock().unwrap().push(format!("{} {:?}", line.status, line.ended))
            }
        };
        let app = App::start(loaded, listeners, Arc::new(watch)).await?;
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap();
        Ok(Service { app, source: self.source, file, client, lines })
    }

    /// Like [`Self::start`], and waits until the service is ready.
    pub async fn ready(self) -> Service {
        let service = self.start().await;
        service.wait_ready().await;
        service
    }
}

/// A running service.
pub struct Service {
    pub app: App,
    pub source: String,
    /// Its configuration file.
    pub file: NamedTempFile,
    pub client: reqwest::Client,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Service {
    pub async fn datagrid() -> Self {
        Setup::new("datagrid").ready().await
    }

    pub async fn grapevine() -> Self {
        Setup::new("grapevine").ready().await
    }

    pub async fn wait_ready(&self) {
        let ready = tokio::time::timeout(PATIENCE, self.app.health.ready()).await;
        ready.unwrap_or_else(|_| panic!("not ready: {:?}", self.app.health.readiness()));
    }

    pub fn hooks(&self) -> SocketAddr {
        self.app.hooks
    }

    pub fn url(&self) -> String {
        format!("http://{}/hooks/{}", self.app.hooks, self.source)
    }

    pub fn topic(&self, event_type: &str) -> String {
        format!("{}.{event_type}", self.source)
    }

    pub fn dead_letters(&self) -> String {
        format!("dead_letter.{}", self.source)
    }

    pub async fn post(&self, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answer {
        let mut request = self.client.post(self.url()).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::read(request.send().await.unwrap()).await
    }

    /// Posts a delivery with Datagrid's signature.
    pub async fn datagrid_post(&self, body: impl Into<Vec<u8>>) -> Answer {
        let body = body.into();
        self.post(&[("Datagrid-Signature", &datagrid(&body))], body).await
    }

    /// The log lines of all deliveries so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The value of a metric with its labels; `None` if it is absent.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        metric(&self.admin("/metrics").await.1, name)
    }

    pub async fn admin(&self, path: &str) -> (StatusCode, String) {
        let response = self.client.get(format!("http://{}{path}", self.app.admin)).send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }
}

/// The value of a metric with its labels in the text of `/metrics`; `None` if it is absent.
pub fn metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// An HTTP answer with its body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub async fn read(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"));
        assert!(headers.contains_key("hookstream-delivery"), "every answer has its delivery's id");
        Self { status, headers, body }
    }

    /// Checks status, outcome and reason.
    pub fn is(&self, status: u16, outcome: &str, reason: Option<&str>) {
        let (found, why) = (self.body["outcome"].as_str().unwrap(), self.body["reason"].as_str());
        assert_eq!((self.status, found, why), (status, outcome, reason), "{self:?}");
        assert_eq!(self.headers.contains_key("retry-after"), status == 503, "{self:?}");
    }
}

/// HMAC-SHA256 in hex.
pub fn hmac(text: &[u8]) -> String {
    hmac_with(SECRET, text)
}

/// Like [`hmac`] with another secret.
pub fn hmac_with(secret: &str, text: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text);
    hex::encode(mac.finalize().into_bytes())
}

/// Datagrid's signature header for a body, at the time of the example in its documentation.
pub fn datagrid(body: &[u8]) -> String {
    let signed = [b"1775847600.", body].concat();
    format!("t=1775847600,v1={}", hmac(&signed))
}

/// Grapevine's signature header for a canonical text, which the caller writes out.
pub fn grapevine(canonical: &str) -> String {
    format!("sha256={}", hmac(canonical.as_bytes()))
}

/// The example in Datagrid's documentation with another id and status.
pub fn batch(id: &str) -> String {
    format!(
        r#"{{"id":"{id}","event_type":"batch_prediction.completed","timestamp":1775847600,"data":{{"object":"batch_prediction","id":"bpred_abc123","status":"completed","results_url":"/v1/batch-predictions/bpred_abc123/results"}}}}"#
    )
}

/// A service on an in-memory Kafka that can be made to fail, with the real registry and further `rules` for its source.
pub async fn on_embedded(rules: &str) -> (Service, Embedded) {
    on_embedded_with(|setup| setup.rules.push_str(rules)).await
}

/// Like [`on_embedded`] with any change of the set-up.
pub async fn on_embedded_with(change: impl FnOnce(&mut Setup)) -> (Service, Embedded) {
    let embedded = Embedded::start().unwrap();
    let mut setup = Setup::new("datagrid");
    setup.kafka = embedded.bootstrap_servers();
    setup.rules = String::from("types = [\"batch_prediction.completed\"]\n");
    change(&mut setup);
    embedded.create_topic(&names::topic(&setup.source, "batch_prediction.completed"), 3).unwrap();
    embedded.create_topic(&names::dead_letter_topic(&setup.source), 3).unwrap();
    (setup.ready().await, embedded)
}
