//! The HTTP client of the exporter, and what a collector's answer must be. opentelemetry-otlp alone takes any 2xx
//! for a yes, that of a login page, too, and tells nobody what a collector has left out.

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

/// What the last answer was, in our words: the collector's may quote what they were sent.
pub(super) type LastAnswer = Arc<Mutex<Result<usize, String>>>;

/// Sends spans. Of an answer that counts, the exporter sees the status.
pub(super) struct CollectorClient {
    pub(super) client: reqwest::Client,
    /// How many spans the collector has left out, or why none is known to be taken.
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
                self.tell(Err(sentence(&error)));
                return match error {
                    // Another try may bring it.
                    AnswerError::Missing(_) | AnswerError::Incomplete(_) => Err(error.into()),
                    _ => refused(),
                };
            }
        };
        if !answer.status.is_success() {
            self.tell(Err(format!("it answers {}", answer.status)));
            let mut response = Response::new(Bytes::new());
            (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
            return Ok(response);
        }
        let left_out = left_out(&answer);
        let counts = left_out.is_ok();
        self.tell(left_out.map_err(|error| sentence(&error)));
        if counts { Ok(Response::new(Bytes::new())) } else { refused() }
    }

    fn tell(&self, last: Result<usize, String>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}

/// How many spans the collector says that it has not taken.
fn left_out(answer: &HttpAnswer) -> Result<usize, AnswerError> {
    match ExportTraceServiceResponse::decode(&*answer.body) {
        Ok(response) if !answer.is_html() => {
            let left_out = response.partial_success.map_or(0, |partial| partial.rejected_spans);
            Ok(usize::try_from(left_out).unwrap_or_default())
        }
        // Some answer in JSON, whatever they are asked in.
        _ => answer.json::<JsonObject<IgnoredAny>>("an OTLP answer").map(|_| 0),
    }
}

/// What the exporter does not try again: the same would come.
fn refused() -> Result<Response<Bytes>, HttpError> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::EXPECTATION_FAILED;
    Ok(response)
}

/// An error with its first cause.
fn sentence(error: &AnswerError) -> String {
    let first = std::iter::successors(std::error::Error::source(error), |cause| cause.source()).last();
    match first {
        Some(first) => format!("{error}: {first}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn k1_what_a_collector_leaves_out_is_known_and_what_is_no_answer_of_one_is_none() {
        let left_out = |body: Vec<u8>| {
            let (status, headers) = (StatusCode::OK, http::HeaderMap::new());
            super::left_out(&HttpAnswer { status, headers, body }).map_err(|error| error.to_string())
        };
        for (rejected_spans, expected) in [(3, 3), (0, 0), (-1, 0)] {
            let error_message = "planted".to_owned();
            let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message });
            let body = ExportTraceServiceResponse { partial_success }.encode_to_vec();
            assert_eq!(left_out(body), Ok(expected));
        }
        for body in ["", "{}", "{\"partialSuccess\": {}}"] {
            assert_eq!(left_out(body.into()), Ok(0), "{body}");
        }
        for body in ["<html>planted", "[1]", "planted", "{\"planted\""] {
            let said = left_out(body.into()).unwrap_err();
            assert!(said.contains("an OTLP answer was expected") && !said.contains("planted"), "{said}");
        }
    }
}
