//! Reads the signatures of a request more leniently than any rule does, to find out what the sender meant.
//!
//! Nothing here accepts a delivery.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;

use super::super::diagnose::is_label;
use super::super::digest::{self, Digest};
use super::super::header_names::HeaderNames;
use super::super::scheme::{BETWEEN, HeaderFormat, MAX_SIGNATURES, Scheme};
use super::super::template::Values;
use crate::config::{Encoding, Hash};

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, ANY_PADDING);
const BASE64URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, ANY_PADDING);

/// The length of the longest text of a digest: 64 bytes in hex.
const LONGEST: usize = 128;

/// One possible signature in the request.
pub(super) struct Reading {
    pub(super) digest: Digest,
    /// The hash, by the length of the digest; `None` for a token.
    pub(super) hash: Option<Hash>,
    /// How it differs from the rules; empty if it does not.
    pub(super) odd: String,
}

/// A text that may be a signature, and how its position differs from the rules.
type SignatureCandidate<'d> = (&'d str, Option<String>);

/// All possible signatures, from every value of the header.
pub(super) fn readings(scheme: &Scheme, headers: &HeaderMap) -> Vec<Reading> {
    let all = scheme.header.of(headers).into_iter().flat_map(|name| headers.get_all(name));
    let found = all.filter_map(|value| value.to_str().ok()).flat_map(|value| texts(&scheme.layout, value));
    let readings = found.filter_map(|(text, odd)| match &scheme.layout {
        HeaderFormat::Token { .. } => {
            Some(Reading { digest: digest::token(text.as_bytes()), hash: None, odd: odd.unwrap_or_default() })
        }
        _ => reading(scheme, text, odd),
    });
    readings.take(2 * MAX_SIGNATURES).collect()
}

fn reading(scheme: &Scheme, text: &str, place: Option<String>) -> Option<Reading> {
    let (bytes, encoding) = decode(text)?;
    let hash = match bytes.len() {
        20 => Hash::Sha1,
        32 => Hash::Sha256,
        64 => Hash::Sha512,
        _ => return None,
    };
    let wanted = scheme.written;
    let format = if hash != wanted.hash {
        let (made, expected) = (digest::hash_name(hash), digest::hash_name(wanted.hash));
        Some(format!("it is an HMAC with {made}, the rules expect {expected}"))
    } else if wanted.read(text).is_none() {
        let (written, expected) = (name(encoding), name(wanted.encoding));
        Some(format!("it is written in {written}, the rules expect {expected}"))
    } else {
        None
    };
    let odd: Vec<String> = place.into_iter().chain(format).collect();
    Some(Reading { digest: digest::padded(&bytes), hash: Some(hash), odd: odd.join("; ") })
}

fn decode(text: &str) -> Option<(Vec<u8>, Encoding)> {
    if text.len() > LONGEST {
        return None;
    }
    if let Ok(bytes) = hex::decode(text) {
        return Some((bytes, Encoding::Hex));
    }
    let base64 = BASE64.decode(text).map(|bytes| (bytes, Encoding::Base64));
    base64.or_else(|_| BASE64URL.decode(text).map(|bytes| (bytes, Encoding::Base64url))).ok()
}

/// The texts in a header value that may be signatures.
fn texts<'d>(layout: &HeaderFormat, value: &'d str) -> Vec<SignatureCandidate<'d>> {
    let value = value.trim();
    match layout {
        HeaderFormat::Plain { prefix } | HeaderFormat::Token { prefix } => {
            let missing = || Some(format!("the prefix `{prefix}` is not before it"));
            let as_ruled = value.strip_prefix(prefix.as_str());
            let inner = value.split_once(['=', ' ']).filter(|(before, _)| is_label(before));
            let inner = inner.map(|(before, text)| match prefix.is_empty() {
                true => (text.trim(), Some(format!("`{before}` is before it, the rules have no prefix"))),
                false => (text.trim(), missing()),
            });
            let first = as_ruled.map_or_else(|| (value, missing()), |text| (text, None));
            std::iter::once(first).chain(inner).collect()
        }
        HeaderFormat::List { signature, .. } => parts(value, BETWEEN, '=', signature),
        HeaderFormat::Versions { version } => parts(value, &[' '], ',', version),
    }
}

/// The whole value, in case it is not a list, and the parts of the list.
fn parts<'d>(value: &'d str, between: &[char], within: char, wanted: &str) -> Vec<SignatureCandidate<'d>> {
    let parts = value.split(between).take(4 * MAX_SIGNATURES);
    let parts = parts.filter_map(|part| part.trim().split_once(within)).filter(|(key, _)| is_label(key));
    let found = parts.map(|(key, text)| {
        (text, (key != wanted).then(|| format!("it is under `{key}`, the rules read `{wanted}`")))
    });
    let whole = (value, Some(format!("it is alone, the rules read it under `{wanted}`")));
    std::iter::once(whole).chain(found).collect()
}

/// The signed values other than the body, unchecked; `None` if one is missing.
pub(super) fn values<'d>(scheme: &Scheme, headers: &'d HeaderMap) -> Option<Values<'d>> {
    let first = |names: &HeaderNames| headers.get(names.of(headers)?).and_then(|value| value.to_str().ok());
    let listed = || match &scheme.layout {
        HeaderFormat::List { timestamp: Some(key), .. } => {
            let parts = first(&scheme.header)?.split(BETWEEN);
            let mut parts = parts.filter_map(|part| part.split_once('='));
            parts.find(|(found, _)| found == key).map(|(_, time)| time)
        }
        _ => None,
    };
    let timestamp = match &scheme.timestamp_header {
        Some(name) => first(name),
        None => listed(),
    };
    if scheme.template.has_time() && timestamp.is_none() {
        return None;
    }
    let others = scheme.template.headers.iter().map(first).collect::<Option<_>>()?;
    Some(Values { timestamp: timestamp.unwrap_or_default(), headers: others })
}

fn name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Hex => "hex",
        Encoding::Base64 => "base64",
        Encoding::Base64url => "base64url",
    }
}

/// The length and alphabet of a text in the place of a signature, never the text itself.
fn shape(text: &str) -> String {
    let length = text.len();
    match decode(text) {
        _ if text.is_empty() => "nothing".to_owned(),
        Some((bytes, Encoding::Hex)) => format!("{length} hex digits ({} bytes)", bytes.len()),
        Some((bytes, encoding)) => {
            format!("{length} characters of {} ({} bytes)", name(encoding), bytes.len())
        }
        None => format!("{length} characters, neither hex nor base64 of a signature's length"),
    }
}

/// The shapes of the possible signatures in the first value of the header.
pub(super) fn shapes(scheme: &Scheme, headers: &HeaderMap) -> Vec<String> {
    let token = matches!(scheme.layout, HeaderFormat::Token { .. });
    let shape = |text: &str| if token { format!("{} characters", text.len()) } else { shape(text) };
    let name = scheme.header.of(headers);
    let Some(value) = name.and_then(|name| headers.get(name)?.to_str().ok()) else {
        return Vec::new();
    };
    let found = texts(&scheme.layout, value);
    let as_ruled: Vec<String> =
        found.iter().filter(|(_, odd)| odd.is_none()).map(|(text, _)| shape(text)).collect();
    if !as_ruled.is_empty() {
        return as_ruled.into_iter().take(MAX_SIGNATURES).collect();
    }
    found.iter().take(1).map(|(text, _)| shape(text)).collect()
}
