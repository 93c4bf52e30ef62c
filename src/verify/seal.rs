//! The seal of a dead letter: proof that its body and headers came from a verified delivery.
//!
//! Whoever may write to the dead letters' topic must not be able to mint a verified delivery, and
//! no clock may make a sealed one stale. So the seal is an HMAC under a key that is derived from
//! the secret that matched:
//!
//! ```text
//! key  = HMAC-SHA256(secret, "hookstream dead letter seal v1")
//! seal = HMAC-SHA256(key, part(received_at) part(form) { part(name) part(value) } part(body))
//! part(x) = length of x as 8 bytes, big-endian, then x
//! ```
//!
//! `received_at` is the RFC 3339 text of the header, `form` the signed form's name, name and value
//! those of each header that the rules of signature and envelope read, as received, in the order in which the dead
//! letter has them: none for a token, which no record may hold. Each part says its length, and the
//! body is the last, so that no two deliveries have the same text.

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue};
use sha2::Sha256;

use super::Verified;
use crate::config::Form;

const LABEL: &[u8] = b"hookstream dead letter seal v1";

/// The key of the seals, whichever hash the provider signs with.
pub(super) fn derive(secret: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(LABEL);
    Hmac::new_from_slice(&mac.finalize().into_bytes()).ok()
}

impl Form {
    /// The form's name in the configuration and in the dead letter's header.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::JsonCompactAscii => "json_compact_ascii",
        }
    }
}

impl<'d> Verified<'d> {
    /// The request headers that a dead letter keeps: those that the signature's rules read, then
    /// `more`, each where it stands once, in visible text. Never a token.
    pub fn kept(&self, more: &'d [HeaderName]) -> Vec<(&'d str, &'d str)> {
        let others = more.iter().filter(|name| !self.headers().contains(name));
        let kept = self.headers().iter().chain(others).filter_map(|name| {
            // No rule takes one that stands twice, nor would every reader of the record.
            let mut values = self.delivery.headers.get_all(name).iter();
            match (values.next().map(HeaderValue::to_str), values.next()) {
                (Some(Ok(value)), None) => Some((name.as_str(), value)),
                _ => None,
            }
        });
        kept.collect()
    }

    /// The seal over the delivery and the headers that are kept of it, in hex.
    pub fn seal(&self, kept: &[(&str, &str)]) -> String {
        let mut mac = self.key.seal.clone();
        let mut part = |part: &[u8]| {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        };
        part(self.delivery.received_at.to_string().as_bytes());
        part(self.form.label().as_bytes());
        for (name, value) in kept {
            part(name.as_bytes());
            part(value.as_bytes());
        }
        part(&self.delivery.body);
        hex::encode(mac.finalize().into_bytes())
    }
}
