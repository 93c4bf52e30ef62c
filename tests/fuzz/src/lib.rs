//! The fuzz targets and their invariants, one function per target. `tests/it/fuzz.rs` runs the same functions on the
//! corpora and on seeded mutations.

pub mod canonical;
pub mod capture;
pub mod config;
pub mod envelope;
pub mod forwarded;
mod json;
pub mod letter;
pub mod pins;
pub mod signature;
pub mod wire;

use bytes::Bytes;
use hookstream::delivery::{Delivery, DeliveryId};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use jiff::Timestamp;

/// The current time of signers and verifiers.
const NOW: i64 = 1_775_847_600;

/// Parses `NAME: value` lines, an empty line, and the body; without an empty line, everything is the body. `alias` may
/// translate a name.
fn request(data: &[u8], alias: impl Fn(&str) -> Option<HeaderName>) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let Some(end) = data.windows(2).position(|pair| pair == b"\n\n") else { return (headers, data) };
    for line in data[..end].split(|&byte| byte == b'\n').take(32) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let name = str::from_utf8(&line[..colon]).ok();
        let name = name.and_then(|name| alias(name).or_else(|| HeaderName::try_from(name).ok()));
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Some(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (headers, &data[end + 2..])
}

fn delivery(headers: HeaderMap, body: &[u8]) -> Delivery {
    Delivery {
        id: DeliveryId::new(),
        uri: Uri::from_static("/"),
        headers,
        body: Bytes::copy_from_slice(body),
        received_at: Timestamp::from_second(NOW).unwrap(),
    }
}
