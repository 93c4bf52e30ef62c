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
//! those of each header that the source's rules read, as received, in the order in which the dead
//! letter has them: none for a token, which no record may hold. Each part says its length, and the
//! body is the last, so that no two deliveries have the same text.

use hmac::{Hmac, KeyInit, Mac};
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

impl Verified<'_> {
    /// The seal, in hex.
    pub fn seal(&self) -> String {
        let mut mac = self.key.seal.clone();
        let mut part = |part: &[u8]| {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        };
        part(self.delivery.received_at.to_string().as_bytes());
        part(self.form.label().as_bytes());
        for name in self.headers() {
            part(name.as_str().as_bytes());
            part(self.delivery.headers.get(name).map_or(&b""[..], |value| value.as_bytes()));
        }
        part(&self.delivery.body);
        hex::encode(mac.finalize().into_bytes())
    }
}
