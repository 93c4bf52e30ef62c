//! The words of a signature list that may be shown.

use http::HeaderMap;

use super::super::scheme::{BETWEEN, HeaderFormat, Scheme};

/// The number of labels that are shown.
const SHOWN: usize = 4;

/// Whether a text may be shown: it is a short word, so it is not part of a signature.
pub(in crate::verify) fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 12
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// The keys or versions in the list of the signature header.
pub(super) fn labels<'d>(scheme: &Scheme, headers: &'d HeaderMap) -> Vec<&'d str> {
    let within = match &scheme.layout {
        HeaderFormat::List { .. } => '=',
        HeaderFormat::Versions { .. } => ',',
        HeaderFormat::Plain { .. } | HeaderFormat::Token { .. } => return Vec::new(),
    };
    let between: &[char] = if within == ',' { &[' '] } else { BETWEEN };
    let value = scheme.header.of(headers).and_then(|name| headers.get(name)?.to_str().ok());
    let parts = value.unwrap_or_default().split(between);
    let found = parts.filter_map(|part| part.split_once(within)).map(|(label, _)| label);
    let mut labels = Vec::new();
    for label in found.filter(|label| is_label(label)) {
        if labels.len() < SHOWN && !labels.contains(&label) {
            labels.push(label);
        }
    }
    labels
}
