//! The seal of a dead letter: proof that its body and headers came from a verified delivery.
//!
//! A writer to the dead letters' topic must not be able to forge a verified delivery, and a sealed one must not become
//! stale. So the seal is an HMAC under a key that is derived from the secret that matched:
//!
//! ```text
//! key  = HMAC-SHA256(secret, "hookstream dead letter seal v1")
//! seal = HMAC-SHA256(key, part(received_at) part(form) { part(name) part(value) } part(body))
//! part(x) = length of x as 8 bytes, big-endian, then x
//! ```
//!
//! `received_at` is the RFC 3339 text of the record's header, `form` is the name of the signed form, and `name` and `value`
//! are the stored request headers, as received, in the dead letter's order; none whose name looks like a credential's, unless
//! a rule reads it. Each part is prefixed with its length and the body is last, so that no two deliveries have the same text.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::binding::Binding;
use super::{SigningKey, Verified, Verifier, canonical};
use crate::config::BodyForm;
use crate::delivery::Delivery;
use crate::names;

const LABEL: &[u8] = b"hookstream dead letter seal v1";

/// The key of the seals. Always SHA-256, whatever hash the provider signs with.
pub(super) fn derive(secret: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(LABEL);
    let key = Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()));
    Hmac::new_from_slice(&*key).ok()
}

impl BodyForm {
    /// The form's name in the configuration and in the dead letter's header.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::JsonCompactAscii => "json_compact_ascii",
        }
    }

    /// The form of this name.
    pub fn of_label(label: &str) -> Option<Self> {
        [Self::Raw, Self::JsonCompactAscii].into_iter().find(|form| form.label() == label)
    }
}

/// The claims of a dead letter about its body. They prove nothing until [`Verifier::unseal`] has checked them.
pub struct Seal {
    /// The form of the body that was signed.
    pub form: BodyForm,
    /// The stored request headers, in order.
    pub kept: Vec<(String, String)>,
    /// The seal itself.
    pub tag: Vec<u8>,
    /// The name of the secret that matched.
    pub secret: String,
}

/// Why a dead letter cannot be unsealed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnsealError {
    /// The source does not have the secret that the letter names: it was removed, or the name is invented.
    SecretRemoved(String),
    /// The source has that secret, but the seal is not that secret's over this content.
    Forged,
    /// The secret of this name made the seal, but its binding does not match the delivery any more.
    Bound(String),
}

impl<'d> Verified<'d> {
    /// The request headers that a dead letter stores: those that the signature's rules read, those in `read`, and then all
    /// others, up to [`MAX_OTHERS`] bytes: a corrected rule may read a header that today's rules do not. A header that is
    /// not visible text is left out, and so is a repeated one, unless it is in `read`: a replay must find it as the first
    /// attempt did. Never a token, nor, unless it is read, a header that [`is_withheld`].
    pub fn kept(&self, read: &'d [HeaderName]) -> Vec<(&'d str, &'d str)> {
        let read = self.headers().iter().chain(read.iter().filter(|name| !self.headers().contains(name)));
        let is_token = |name: &HeaderName| self.scheme.tokens.contains(name);
        let read: Vec<&'d HeaderName> = read.filter(|name| !is_token(name)).collect();
        let mut kept: Vec<_> = read.iter().flat_map(|name| self.all(name)).collect();
        let others = self.delivery.headers.keys();
        let others = others.filter(|name| !read.contains(name) && !is_token(name) && !is_withheld(name));
        let mut left = MAX_OTHERS;
        for (name, value) in others.filter_map(|name| self.single(name)) {
            if let Some(rest) = left.checked_sub(name.len() + value.len()) {
                left = rest;
                kept.push((name, value));
            }
        }
        kept
    }

    /// All values of a header; none if one of them is not visible text.
    fn all(&self, name: &'d HeaderName) -> impl Iterator<Item = (&'d str, &'d str)> {
        let values = || self.delivery.headers.get_all(name).iter().map(HeaderValue::to_str);
        let are_text = values().all(|value| value.is_ok());
        let texts = values().filter(move |_| are_text).flatten();
        texts.map(|value| (name.as_str(), value))
    }

    /// A header that occurs once: no rule accepts a repeated one, and not every reader of the record would.
    fn single(&self, name: &'d HeaderName) -> Option<(&'d str, &'d str)> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// The seal over the delivery and its stored headers, in hex.
    pub fn seal(&self, kept: &[(&str, &str)]) -> String {
        hex::encode(sealed(&self.key.seal, self.delivery, self.form, kept).finalize().into_bytes())
    }
}

/// The maximum size in bytes of the stored names and values of headers that no rule reads.
pub(super) const MAX_OTHERS: usize = 16 * 1024;

/// Whether a header that no rule reads stays out of dead letters: its name looks like a credential's, it frames the
/// request, or it has a name that hookstream gives its own headers.
fn is_withheld(name: &HeaderName) -> bool {
    // Framing belongs to the connection: the body is stored without it.
    const FRAMING: [&str; 3] = ["connection", "content-length", "transfer-encoding"];
    let name = name.as_str();
    name == "traceparent"
        || name.starts_with(names::HEADER_PREFIX)
        || FRAMING.contains(&name)
        || looks_like_credential(name)
}

/// Nothing else tells a credential from an id, so this leaves out too much (`x-author`) rather than too little.
pub(super) fn looks_like_credential(name: &str) -> bool {
    const CREDENTIALS: [&str; 11] = [
        "auth",
        "cookie",
        "token",
        "secret",
        "pass",
        "credential",
        "session",
        "jwt",
        "bearer",
        "oidc",
        "assertion",
    ];
    // What stands before `-key` in the name of an id; `x-event-key` is Bitbucket's event type.
    const IDS: [&str; 6] = ["idempotency", "event", "message", "partition", "routing", "deduplication"];
    let segments = || name.split(['-', '_']);
    let is_key = |segment: &str| segment.ends_with("key") || segment.ends_with("keys");
    CREDENTIALS.iter().any(|credential| name.contains(credential))
        || segments()
            .zip(std::iter::once("").chain(segments()))
            .any(|(segment, before)| is_key(segment) && !IDS.contains(&before))
}

fn sealed<T: AsRef<str>>(
    key: &Hmac<Sha256>,
    delivery: &Delivery,
    form: BodyForm,
    kept: &[(T, T)],
) -> Hmac<Sha256> {
    let mut mac = key.clone();
    let mut part = |part: &[u8]| {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    };
    part(delivery.received_at.to_string().as_bytes());
    part(form.label().as_bytes());
    for (name, value) in kept {
        part(name.as_ref().as_bytes());
        part(value.as_ref().as_bytes());
    }
    part(&delivery.body);
    mac
}

impl Verifier {
    /// Verifies the delivery of a dead letter: one of the secrets must have sealed it. The seal names the sealed headers,
    /// so the rules may have changed since. The secret's validity window does not matter, since the secret was valid at
    /// the receipt: a removed secret can be restored with a `not_after` in the past, which unseals and verifies nothing
    /// new. Its binding does matter. The age is unknown.
    ///
    /// # Errors
    /// See [`UnsealError`].
    pub fn unseal<'d>(&'d self, delivery: &'d Delivery, seal: &Seal) -> Result<Verified<'d>, UnsealError> {
        let made = |key: &Arc<SigningKey>| {
            sealed(&key.seal, delivery, seal.form, &seal.kept).verify_slice(&seal.tag).is_ok()
        };
        let mut bound = None;
        let keys = || self.schemes.iter().flat_map(|scheme| scheme.keys.iter().map(move |key| (scheme, key)));
        for (scheme, key) in keys().filter(|(_, key)| made(key)) {
            let decoded = scheme.max_decoded.and_then(|max| delivery.decoded(max));
            let content = match &decoded {
                None => Ok(&*delivery.body),
                Some(Ok(decoded)) => Ok(decoded.as_slice()),
                Some(Err(fault)) => Err(fault.clone()),
            };
            let holds =
                |binding: &Binding| binding.check(delivery, content.clone(), scheme.bodies.as_ref()).is_ok();
            if !key.binding.as_ref().is_none_or(holds) {
                bound = Some(UnsealError::Bound(key.name.to_string()));
                continue;
            }
            let signed = match seal.form {
                BodyForm::Raw => Cow::Borrowed(&*delivery.body),
                BodyForm::JsonCompactAscii => {
                    canonical::json_compact_ascii(&delivery.body).map_err(|_| UnsealError::Forged)?
                }
            };
            let decoded = decoded.map(|decoded| decoded.map(Cow::Owned));
            let (digest, scheme) = (OnceLock::new(), &scheme.scheme);
            return Ok(Verified {
                delivery,
                key,
                form: seal.form,
                signed,
                decoded,
                digest,
                scheme,
                age: None,
            });
        }
        let known = keys().any(|(_, key)| *key.name == *seal.secret);
        Err(bound.unwrap_or_else(|| match known {
            true => UnsealError::Forged,
            false => UnsealError::SecretRemoved(seal.secret.clone()),
        }))
    }
}
