//! The exporter's HTTP client and its checks of a collector's answer. opentelemetry-otlp accepts any 2xx, even that
//! of a login page, and does not report which spans the collector rejected.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use reqwest::RequestBuilder;
use serde::de::IgnoredAny;

use crate::client::{self, AnswerError, HttpAnswer, JsonObject};

/// The last answer in hookstream's words, because the collector's text may quote what it received.
pub(super) type LastAnswer = Arc<Mutex<Result<usize, String>>>;

/// Sends spans. The exporter sees only the status of a valid answer.
pub(super) struct CollectorClient {
    pub(super) client: reqwest::Client,
    /// The number of spans that the collector rejected, or why none is known to be accepted.
    pub(super) last: LastAnswer,
}

impl fmt::Debug for CollectorClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.client.fmt(f)
    }
}

type Answered<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for CollectorClient {
    fn send_bytes<'s, 'a>(&'s self, request: Request<Bytes>) -> Answered<'a>
    where
        's: 'a,
        Self: 'a,
    {
        Box::pin(self.send(request))
    }
}

impl CollectorClient {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = RequestBuilder::from_parts(self.client.clone(), request.try_into()?);
        let answer = match client::send(request).await {
            Ok(answer) => answer,
            Err(error) => {
                self.store_answer(Err(error.to_string()));
                return match error {
                    // A retry may succeed.
                    AnswerError::Missing(_) | AnswerError::Incomplete(_) => Err(error.into()),
                    _ => not_retried(),
                };
            }
        };
        if !answer.status.is_success() {
            self.store_answer(Err(format!("it answers {}", answer.status)));
            let mut response = Response::new(Bytes::new());
            (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
            return Ok(response);
        }
        let rejected = rejected_spans(&answer);
        let counts = rejected.is_ok();
        self.store_answer(rejected.map_err(|error| error.to_string()));
        if counts { Ok(Response::new(Bytes::new())) } else { not_retried() }
    }

    fn store_answer(&self, last: Result<usize, String>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}

/// The number of spans that the collector reports as rejected.
fn rejected_spans(answer: &HttpAnswer) -> Result<usize, AnswerError> {
    match ExportTraceServiceResponse::decode(&*answer.body) {
        Ok(response) if !answer.is_html() => {
            let rejected = response.partial_success.map_or(0, |partial| partial.rejected_spans);
            Ok(usize::try_from(rejected).unwrap_or_default())
        }
        // Some collectors answer in JSON, whatever the request's format.
        _ => answer.json::<JsonObject<IgnoredAny>>("an OTLP answer").map(|_| 0),
    }
}

/// An answer that the exporter does not retry, because the result would be the same.
fn not_retried() -> Result<Response<Bytes>, HttpError> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::EXPECTATION_FAILED;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn k1_rejected_spans_are_counted_and_an_answer_of_something_else_counts_for_nothing() {
        let rejected = |body: Vec<u8>| {
            let (status, headers) = (StatusCode::OK, http::HeaderMap::new());
            super::rejected_spans(&HttpAnswer { status, headers, body }).map_err(|error| error.to_string())
        };
        for (rejected_spans, expected) in [(3, 3), (0, 0), (-1, 0)] {
            let error_message = "planted".to_owned();
            let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message });
            let body = ExportTraceServiceResponse { partial_success }.encode_to_vec();
            assert_eq!(rejected(body), Ok(expected));
        }
        for body in ["", "{}", "{\"partialSuccess\": {}}"] {
            assert_eq!(rejected(body.into()), Ok(0), "{body}");
        }
        for body in ["<html>planted", "[1]", "planted", "{\"planted\""] {
            let message = rejected(body.into()).unwrap_err();
            assert!(message.contains("expected an OTLP answer") && !message.contains("planted"), "{message}");
        }
    }
}
