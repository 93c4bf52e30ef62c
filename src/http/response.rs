//! Answers: a delivery's result as the sender sees it, and the operator's port as JSON.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::delivery::DeliveryId;
use crate::envelope::AnswerBody;
use crate::outcome::Outcome;
use crate::pipeline::DeliveryResult;

/// The answer's header with the delivery's id, which the log line and the record have too.
pub const DELIVERY_HEADER: &str = "hookstream-delivery";

/// After this time the sender should retry; sent in seconds.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The JSON body of the answer to a delivery. A client takes it as a [`crate::client::JsonObject`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveryAnswer<'a> {
    /// The outcome's label.
    pub outcome: Cow<'a, str>,
    /// The event id, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    /// The reason's label; `unauthorized` for every 401.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'a, str>>,
    /// The topic of the record, which may be a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<Cow<'a, str>>,
    /// The record's partition, once Kafka has acknowledged it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// The record's offset, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
}

pub(super) fn status(ended: &DeliveryResult) -> StatusCode {
    match &ended.result {
        Ok(()) if ended.outcome() == Outcome::Spooled => StatusCode::ACCEPTED,
        Ok(()) => StatusCode::OK,
        Err(fault) => fault.reason.info().status,
    }
}

/// Builds the answer. `last` asks the client to open a new connection for its next delivery.
pub(super) fn answer(id: DeliveryId, ended: &DeliveryResult, last: bool) -> Response {
    let status = status(ended);
    let reason = ended.result.as_ref().err().map(|fault| match status {
        // One text for every 401: naming the check that failed would help only a forger.
        StatusCode::UNAUTHORIZED => "unauthorized",
        _ => fault.reason.info().label,
    });
    let body = DeliveryAnswer {
        outcome: ended.outcome().label().into(),
        id: ended.event.as_ref().map(|event| event.id.as_str().into()),
        reason: reason.map(Cow::from),
        topic: ended.stored.as_ref().map(|stored| (&*stored.topic).into()),
        partition: ended.ack().map(|ack| ack.partition),
        offset: ended.ack().map(|ack| ack.offset),
    };
    let mut response = match ended.answer.as_ref().and_then(|answer| answer.body.as_ref()) {
        Some(AnswerBody::Text(text)) => given(status, "text/plain; charset=utf-8", text),
        Some(AnswerBody::Json(text)) => given(status, "application/json", text),
        None => json(status, &body),
    };
    let headers = response.headers_mut();
    for (name, value) in ended.answer.iter().flat_map(|answer| &answer.headers) {
        headers.insert(name.clone(), value.clone());
    }
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        headers.insert(DELIVERY_HEADER, id);
    }
    if ended.outcome() == Outcome::Unavailable {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER.as_secs().into());
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    if last {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A text from an unknown sender: headers keep browsers from rendering it as a page.
fn given(status: StatusCode, content_type: &'static str, text: &str) -> Response {
    let mut response = Response::new(Body::from(text.to_owned()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The body of a refusal on the operator's port.
#[derive(Serialize, Deserialize)]
pub struct AdminErrorBody<'a> {
    /// Why.
    pub error: Cow<'a, str>,
}

/// Refuses a request on the operator's port.
pub(super) fn refuse(status: StatusCode, error: &str) -> Response {
    json(status, &AdminErrorBody { error: error.into() })
}

pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Plain structs of text and numbers: serializing them cannot fail.
    let mut text = serde_json::to_vec(body).unwrap_or_default();
    text.push(b'\n');
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
