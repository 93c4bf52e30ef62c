//! Reading a body within bounds of size and time.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use tokio::time::timeout_at;

use super::Limits;
use crate::outcome::{Fault, Reason};
use crate::quota::{Held, InUse};

/// What is set aside for a body before its bytes are there, whatever length it declares.
const TRUSTED: usize = 16 * 1024;

/// Refuses a body that declares itself too large.
pub(super) fn declared(headers: &HeaderMap, max: usize) -> Result<(), Fault> {
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > max as u64 => {
            Err(Fault::new(Reason::BodyTooLarge, format!("declared {length} bytes, the limit is {max}")))
        }
        _ => Ok(()),
    }
}

/// A complete body.
pub(super) struct Charged {
    pub(super) bytes: Bytes,
    /// What it counts for among all bodies, until dropped.
    pub(super) charge: Held,
}

/// The complete body, charged chunk by chunk as it arrives: a declared length costs nothing. One that comes in a
/// single piece is not copied.
///
/// # Errors
/// `body_too_large` by count, whatever was declared; `body_too_slow`; `body_incomplete`;
/// `overloaded` past `max_body_bytes`.
pub(super) async fn read(
    mut body: Body,
    limits: &Limits,
    until: Instant,
    in_use: &Arc<InUse>,
) -> Result<Charged, Fault> {
    let max = limits.max_body;
    let past = || Fault::new(Reason::Overloaded, "max_body_bytes of all bodies");
    let mut charge = in_use.take(0, limits.max_body_bytes).ok_or_else(past)?;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        // Mostly it is there; a timer that need not wait costs something, too.
        let frame = match body.frame().now_or_never() {
            Some(frame) => Ok(frame),
            None => timeout_at(until.into(), body.frame()).await,
        };
        let frame = match frame {
            Err(_) => {
                return Err(Fault::new(
                    Reason::BodyTooSlow,
                    format!("{} bytes came in time", first.len() + all.len()),
                ));
            }
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(Reason::BodyIncomplete.into()),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + all.len() + data.len() > max {
            return Err(Fault::new(Reason::BodyTooLarge, format!("more than {max} bytes")));
        }
        if !charge.grow(data.len(), limits.max_body_bytes) {
            return Err(past());
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.reserve(TRUSTED.max(2 * first.len()).min(max));
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
    }
    let bytes = if all.is_empty() { first } else { all.freeze() };
    Ok(Charged { bytes, charge })
}
