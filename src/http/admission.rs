//! What decides about a request before its body is verified, from the request alone: the service and `explain` use it.

use std::sync::Arc;

use http::{HeaderMap, Method, Uri};

use crate::delivery::Delivery;
use crate::envelope::HandshakeAnswer;
use crate::outcome::{Fault, Reason};
use crate::sources::{Source, Sources};

/// The path of a source is this and its name.
const HOOKS: &str = "/hooks/";

/// The number of a path's characters that a fault shows: anybody can send any path.
const SHOWN: usize = 80;

/// The source that a request is for.
pub fn source<'s>(sources: &'s Sources, uri: &Uri) -> Option<&'s Arc<Source>> {
    sources.get(uri.path().strip_prefix(HOOKS)?)
}

/// Why a request is for no source: its path, and the right one if its last part is a source's name.
pub fn unknown_source(sources: &Sources, uri: &Uri) -> Fault {
    let path = uri.path();
    let shown: String = path.chars().take(SHOWN).flat_map(char::escape_default).collect();
    let cut = if path.chars().nth(SHOWN).is_some() { "…" } else { "" };
    let name = path.split('/').rfind(|part| !part.is_empty()).map(str::to_ascii_lowercase);
    let meant = name.and_then(|name| sources.get(&name));
    let meant = meant.map(|source| format!("; the source {0} is at {HOOKS}{0}", source.name));
    Fault::new(Reason::SourceUnknown, format!("the path is {shown}{cut}{}", meant.unwrap_or_default()))
}

/// The answer to a GET or HEAD by which a provider checks the endpoint.
pub fn challenge(
    source: &Source,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Option<HandshakeAnswer> {
    source.handshakes.challenge(method, uri, headers, &|text, encoding| source.keyed(text, encoding))
}

/// The answer to a POST by which a provider checks the endpoint, and which was refused as a delivery. One with a signature,
/// right or wrong, is never a challenge.
pub fn posted_challenge(source: &Source, delivery: &Delivery) -> Option<HandshakeAnswer> {
    if source.verifier.claims_signature(&delivery.headers) {
        return None;
    }
    source.handshakes.posted_challenge(delivery, &|text, encoding| source.keyed(text, encoding))
}

/// Deliveries are sent by POST.
///
/// # Errors
/// `method_not_allowed`
pub fn check_method(method: &Method) -> Result<(), Fault> {
    if method == Method::POST { Ok(()) } else { Err(Reason::MethodNotAllowed.into()) }
}

/// A body may have up to `max` bytes.
///
/// # Errors
/// `body_too_large`
pub fn check_declared(bytes: u64, max: usize) -> Result<(), Fault> {
    if bytes <= max as u64 {
        return Ok(());
    }
    Err(Fault::new(Reason::BodyTooLarge, format!("declared {bytes} bytes, the limit is {max}")))
}
