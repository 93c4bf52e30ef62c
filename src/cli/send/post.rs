//! One delivery on its way: the request, the answer, or why there is none.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http::header;
use reqwest::Url;
use serde_json::value::RawValue;

use super::generator::SignedRequest;
use crate::cli::is_loopback;
use crate::client::{self, JsonObject};
use crate::http::{DELIVERY_HEADER, DeliveryAnswer};
use crate::json::{self, Object};

/// Far above any answer of the service's; a stranger's page is cut here.
const MAX_ANSWER: usize = 64 * 1024;

/// Posts to one URL.
pub(super) struct SendClient {
    client: reqwest::Client,
    url: Url,
}

/// What came back.
#[derive(Debug)]
pub(super) struct SendAnswer {
    pub(super) status: u16,
    /// The service's name for the delivery: its log line has it, too.
    pub(super) delivery: Option<String>,
    /// After how many seconds to try again.
    pub(super) retry_after: Option<String>,
    /// `None` where it is no answer of the service's.
    pub(super) known: Option<DeliveryAnswer<'static>>,
    body: Vec<u8>,
    pub(super) took: Duration,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct SendError {
    /// In one word, for tables.
    pub(super) word: &'static str,
    /// Whether the request may have been read, so that the event may exist all the same.
    pub(super) read: bool,
    cause: reqwest::Error,
}

impl SendClient {
    /// A client with up to `connections` kept open.
    ///
    /// # Errors
    /// No TLS to be had.
    pub(super) fn new(url: &Url, timeout: Duration, connections: usize) -> anyhow::Result<Self> {
        let mut builder = client::builder()
            .user_agent(concat!("hookstream-send/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .pool_max_idle_per_host(connections)
            // Below the whole, so that a connection that never came about is told as such.
            .connect_timeout(timeout * 9 / 10)
            .timeout(timeout);
        if is_loopback(url) {
            builder = builder.no_proxy();
        }
        let builder = client::without_certificates_for_http(builder, url.as_str());
        let client = builder.build().context("cannot make an HTTP client")?;
        Ok(Self { client, url: url.clone() })
    }

    /// Posts it once. `begin` is the instant from which the answer's time counts.
    pub(super) async fn post(&self, signed: SignedRequest, begin: Instant) -> Result<SendAnswer, SendError> {
        let request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .headers(signed.headers)
            .body(signed.body);
        let mut response = request.send().await.map_err(SendError::from)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(SendError::from)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                body.truncate(MAX_ANSWER);
                break;
            }
        }
        let text = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        Ok(SendAnswer {
            status: response.status().as_u16(),
            delivery: text(DELIVERY_HEADER),
            retry_after: text(header::RETRY_AFTER.as_str()),
            known: serde_json::from_slice(&body).ok().map(|JsonObject(known)| known),
            body,
            took: begin.elapsed(),
        })
    }
}

impl SendAnswer {
    /// The reason, else the outcome; `None` where it is no answer of the service's.
    pub(super) fn word(&self) -> Option<&str> {
        self.known.as_ref().map(|known| known.reason.as_deref().unwrap_or(&known.outcome))
    }

    /// 2xx of the service's: it has taken the event. That of a stranger says nothing of one. An answer in a
    /// provider's own form, such as that of a handshake, is known by its header.
    pub(super) fn is_success(&self) -> bool {
        let ours = self.known.is_some() || self.delivery.is_some();
        ours && (200..300).contains(&self.status)
    }

    /// The service's answer as one JSON line, with the status, the time and the delivery's name
    /// before what it said; a stranger's answer as text.
    pub(super) fn json(&self) -> String {
        let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
        let ms = self.took.as_secs_f64() * 1000.0;
        let mut line = format!("{{\"status\":{},\"ms\":{ms:.3}", self.status);
        let mut push = |name: &str, raw: &str| {
            line.push_str(&format!(",{}:{raw}", quoted(name)));
        };
        if let Some(delivery) = &self.delivery {
            push("delivery", &quoted(delivery));
        }
        let root = json::check(&self.body).ok().and_then(|raw: &RawValue| Object::open(raw).ok()?);
        match (&self.known, root) {
            (Some(_), Some(root)) => {
                for (name, raw) in root.members() {
                    push(name, raw.get());
                }
            }
            _ => push("body", &quoted(&String::from_utf8_lossy(&self.body))),
        }
        line.push('}');
        // Between JSON's tokens a line end is white space, and within them there is none.
        line.replace(['\n', '\r'], " ")
    }

    /// A stranger's answer, its first line as far as it is readable.
    pub(super) fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("(empty)");
        match line.char_indices().nth(100) {
            Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
            None => line.to_owned(),
        }
    }
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        let refused = chain(&error).any(|cause| {
            let cause = cause.downcast_ref::<io::Error>();
            cause.is_some_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
        });
        let word = match () {
            () if refused => "connection_refused",
            () if error.is_timeout() => "timed_out",
            () if error.is_connect() => "not_connected",
            () => "connection_lost",
        };
        Self { word, read: !error.is_connect(), cause: error.without_url() }
    }
}

/// The word, then the causes that say more than the one above them.
impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.word.replace('_', " "))?;
        match chain(&self.cause).last() {
            Some(root) if self.word != "connection_refused" && self.word != "timed_out" => {
                write!(f, ": {root}")
            }
            _ => Ok(()),
        }
    }
}

impl Error for SendError {}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'e (dyn Error + 'static) = *error;
        error.source()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    impl SendAnswer {
        pub(in crate::cli::send) fn of_test(status: u16, body: &str, took: Duration) -> Self {
            Self {
                status,
                delivery: Some("0193".to_owned()),
                retry_after: None,
                known: serde_json::from_str(body).ok().map(|JsonObject(known)| known),
                body: body.as_bytes().to_vec(),
                took,
            }
        }
    }

    fn answer(body: &str) -> SendAnswer {
        SendAnswer::of_test(200, body, Duration::from_micros(1500))
    }

    #[test]
    fn the_service_s_answer_is_kept_whole_with_fields_that_we_do_not_know() {
        let answer = answer("{\"outcome\":\"published\",\n \"offset\":7, \"later\":{\"a\":[1.10]}}\n");
        assert_eq!(
            answer.json(),
            r#"{"status":200,"ms":1.500,"delivery":"0193","outcome":"published","offset":7,"later":{"a":[1.10]}}"#
        );
        assert_eq!(answer.known.unwrap().offset, Some(7));
    }

    #[test]
    fn a_stranger_s_answer_is_text() {
        let page = answer("<html>\n<h1>\"Bad\" gateway</h1>");
        assert_eq!(
            page.json(),
            r#"{"status":200,"ms":1.500,"delivery":"0193","body":"<html>\n<h1>\"Bad\" gateway</h1>"}"#
        );
        assert_eq!(page.excerpt(), "<html>");
        assert_eq!(answer("").excerpt(), "(empty)");
        assert_eq!(answer(&"ü".repeat(101)).excerpt(), format!("{}…", "ü".repeat(100)));
    }

    #[tokio::test]
    async fn nobody_listening_is_a_refused_connection() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let url = Url::parse(&format!("http://{address}/")).unwrap();
        let error = post(&url, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(
            (error.word, error.read, error.to_string().as_str()),
            ("connection_refused", false, "connection refused")
        );
    }

    #[tokio::test]
    async fn a_service_that_never_answers_is_left_in_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let error = post(&url, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!((error.word, error.read), ("timed_out", true));
    }

    async fn post(url: &Url, timeout: Duration) -> Result<SendAnswer, SendError> {
        let signed = SignedRequest { body: "{}".into(), headers: http::HeaderMap::new() };
        SendClient::new(url, timeout, 1).unwrap().post(signed, Instant::now()).await
    }
}
