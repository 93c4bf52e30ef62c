//! What the service answers to a captured request, by the service's own code.

use http::{Method, StatusCode};
use serde::Serialize;

use super::becomes;
use crate::config::Http;
use crate::delivery::Delivery;
use crate::http::admission;
use crate::outcome::{Fault, Reason};
use crate::sources::{Source, Sources};

/// The number of header lines that the service reads.
const MAX_LINES: usize = 100;

/// The service's answer to a request, if Kafka and the registry are available.
#[derive(Serialize)]
pub(super) struct ServiceAnswer {
    pub(super) status: u16,
    /// `None` for a request that HTTP itself rejects: it is no delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
}

impl ServiceAnswer {
    pub(super) fn accepts(&self) -> bool {
        self.status < 400
    }
}

impl From<Fault> for ServiceAnswer {
    fn from(fault: Fault) -> Self {
        let row = fault.reason.info();
        let detail = fault.detail.map(Into::into);
        Self {
            status: row.status.as_u16(),
            outcome: Some(row.outcome.label()),
            reason: Some(row.label),
            detail,
        }
    }
}

/// The answer, and whether it is about the delivery as one of `examined`: false if the request is refused before its
/// signature is verified, is no delivery, or is for another source.
pub(super) fn of(
    sources: &Sources,
    examined: &Source,
    limits: &Http,
    method: &Method,
    delivery: &Delivery,
) -> (ServiceAnswer, bool) {
    let source = match admit(sources, limits, method, delivery) {
        Ok(source) => source,
        Err(answer) => return (answer, false),
    };
    let answer = match (source.authenticate(delivery), becomes(source, delivery)) {
        (Err(_), _) if admission::posted_challenge(source, delivery).is_some() => {
            Fault::from(Reason::Handshake).into()
        }
        (Err(fault), _) => fault.into(),
        (Ok(_), Some(decision)) => {
            let fault = decision.reason.and_then(Reason::from_label);
            ServiceAnswer {
                status: fault.map_or(StatusCode::OK, |reason| reason.info().status).as_u16(),
                outcome: Some(decision.outcome),
                reason: decision.reason,
                detail: decision.detail,
            }
        }
        (Ok(_), None) => Fault::from(Reason::SignatureMismatch).into(),
    };
    (answer, source.name == examined.name)
}

/// The limits of a head, which hyper checks: a head of this size or with these lines never becomes a request.
fn check_head(limits: &Http, method: &Method, delivery: &Delivery) -> Result<(), ServiceAnswer> {
    const REST: usize = "  HTTP/1.1\r\n\r\n".len();
    let Delivery { uri, headers, .. } = delivery;
    let lines = headers.iter().map(|(name, value)| name.as_str().len() + ": \r\n".len() + value.len());
    let target = uri.path_and_query().map_or(1, |target| target.as_str().len());
    let bytes = lines.sum::<usize>() + method.as_str().len() + target + REST;
    let detail = match (headers.len(), bytes) {
        (lines, _) if lines > MAX_LINES => {
            format!("the head has {lines} header lines, the limit is {MAX_LINES}")
        }
        (_, bytes) if bytes > limits.max_head => {
            format!("the head has {bytes} bytes, http.max_head is {}", limits.max_head)
        }
        _ => return Ok(()),
    };
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16();
    Err(ServiceAnswer { status, outcome: None, reason: None, detail: Some(detail) })
}

/// What the service does before it verifies a signature.
fn admit<'s>(
    sources: &'s Sources,
    limits: &Http,
    method: &Method,
    delivery: &Delivery,
) -> Result<&'s Source, ServiceAnswer> {
    let uri = &delivery.uri;
    check_head(limits, method, delivery)?;
    let source = admission::source(sources, uri).ok_or_else(|| admission::unknown_source(sources, uri))?;
    if admission::challenge(source, method, uri, &delivery.headers).is_some() {
        return Err(Fault::from(Reason::Handshake).into());
    }
    admission::check_method(method)?;
    source.accepts_coding(&delivery.headers)?;
    admission::check_declared(delivery.body.len() as u64, limits.max_body)?;
    Ok(source)
}
