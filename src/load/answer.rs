//! One request: its answer, or the reason why there is none.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use http::header;
use reqwest::RequestBuilder;

use crate::client::JsonObject;
use crate::http::{DELIVERY_HEADER, DeliveryAnswer};
use crate::observe::error_chain::causes;

/// The limit of an answer, in bytes: far above any of the service. A longer one is cut off.
const MAX_ANSWER: usize = 64 * 1024;

/// An answer, of the service or of another server.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// The service's id of the delivery, which its log line has, too.
    pub delivery: Option<String>,
    /// After how many seconds to try again.
    pub retry_after: Option<String>,
    /// `None` if it is not an answer of the service.
    pub known: Option<DeliveryAnswer<'static>>,
    /// The body as received, up to [`MAX_ANSWER`].
    pub body: Vec<u8>,
    /// From when the delivery was due to the end of the answer.
    pub took: Duration,
}

/// The reason why there is no answer.
#[derive(Debug)]
pub struct NoAnswer {
    /// In one word, for tables.
    pub word: &'static str,
    /// Whether the request may have been read, so that the event may exist nevertheless.
    pub read: bool,
    cause: reqwest::Error,
}

/// Sends a request once. `due` is the time from which its latency counts.
///
/// # Errors
/// There is no complete answer.
pub async fn post(request: RequestBuilder, due: Instant) -> Result<Answer, NoAnswer> {
    let mut response = request.send().await?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            body.truncate(MAX_ANSWER);
            break;
        }
    }
    let text = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    Ok(Answer {
        status: response.status().as_u16(),
        delivery: text(DELIVERY_HEADER),
        retry_after: text(header::RETRY_AFTER.as_str()),
        known: serde_json::from_slice(&body).ok().map(|JsonObject(known)| known),
        body,
        took: due.elapsed(),
    })
}

impl Answer {
    /// The reason, else the outcome; `None` if it is not an answer of the service.
    pub fn word(&self) -> Option<&str> {
        self.known.as_ref().map(|known| known.reason.as_deref().unwrap_or(&known.outcome))
    }

    /// 2xx of the service, which has taken the event; that of another server says nothing of the event. An answer in a
    /// provider's own form, such as that to a handshake, is recognised by its header.
    pub fn is_success(&self) -> bool {
        let ours = self.known.is_some() || self.delivery.is_some();
        ours && (200..300).contains(&self.status)
    }
}

impl From<reqwest::Error> for NoAnswer {
    fn from(error: reqwest::Error) -> Self {
        let refused = causes(&error).any(|cause| {
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

/// The word, and the root cause if that says more.
impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.word.replace('_', " "))?;
        match causes(&self.cause).last() {
            Some(root) if self.word != "connection_refused" && self.word != "timed_out" => {
                write!(f, ": {root}")
            }
            _ => Ok(()),
        }
    }
}

impl Error for NoAnswer {}

#[cfg(test)]
mod tests {
    use super::*;

    impl Answer {
        pub(crate) fn of_test(status: u16, body: &str, took: Duration) -> Self {
            Self {
                status,
                delivery: Some("0193".to_owned()),
                retry_after: None,
                known: serde_json::from_str(body).ok().map(|JsonObject(known)| known),
                body: body.into(),
                took,
            }
        }
    }

    async fn no_answer(address: std::net::SocketAddr) -> NoAnswer {
        let client = crate::client::builder().no_proxy().timeout(Duration::from_millis(200)).build().unwrap();
        post(client.post(format!("http://{address}/")).body("{}"), Instant::now()).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_missing_answer_has_a_reason() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let error = no_answer(address).await;
        assert_eq!((error.word, error.read, &*error.to_string()), ("timed_out", true, "timed out"));
        drop(listener);
        let error = no_answer(address).await;
        let expected = ("connection_refused", false, "connection refused");
        assert_eq!((error.word, error.read, &*error.to_string()), expected);
    }
}
