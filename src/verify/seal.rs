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

use std::borrow::Cow;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue};
use sha2::Sha256;

use super::{Verified, Verifier, canonical};
use crate::config::BodyForm;
use crate::delivery::Delivery;

const LABEL: &[u8] = b"hookstream dead letter seal v1";

/// The key of the seals, whichever hash the provider signs with.
pub(super) fn derive(secret: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(LABEL);
    Hmac::new_from_slice(&mac.finalize().into_bytes()).ok()
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

/// What a dead letter says beside its body; proof of nothing until [`Verifier::unseal`] has looked at it.
pub struct Seal {
    /// The form of the body that was signed.
    pub form: BodyForm,
    /// The request headers that were kept, in their order.
    pub kept: Vec<(String, String)>,
    /// The seal itself.
    pub tag: Vec<u8>,
    /// The name of the secret that matched.
    pub secret: String,
}

/// Why a dead letter is not taken for a verified delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnsealError {
    /// The secret that it names, which the source does not have (any more), or somebody made it up.
    SecretRemoved(String),
    /// The source has that secret, and it did not make the seal over what stands there now.
    Forged,
    /// The secret of this name made the seal, and is bound to other deliveries by now.
    Bound(String),
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
        hex::encode(sealed(&self.key.seal, self.delivery, self.form, kept).finalize().into_bytes())
    }
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
    /// Takes a delivery that a dead letter holds for verified, if one of the secrets sealed it. Which
    /// headers are sealed the seal itself says, so that rules may have changed since. Nor does it matter
    /// whether the secret still counts: it did at the receipt, and one that was removed can be put back
    /// with a `not_after` in the past, to unseal and no more. What it is bound to matters. The age is unknown.
    ///
    /// # Errors
    /// [`Unsealable`].
    pub fn unseal<'d>(&'d self, delivery: &'d Delivery, seal: &Seal) -> Result<Verified<'d>, UnsealError> {
        let made = |key: &&Arc<super::SigningKey>| {
            sealed(&key.seal, delivery, seal.form, &seal.kept).verify_slice(&seal.tag).is_ok()
        };
        let mut bound = None;
        for key in self.keys.iter().filter(made) {
            let holds = |binding: &super::Binding| binding.check(delivery, self.bodies.as_ref()).is_ok();
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
            return Ok(Verified { delivery, key, form: seal.form, signed, scheme: &self.scheme, age: None });
        }
        let known = self.keys.iter().any(|key| *key.name == *seal.secret);
        Err(bound.unwrap_or_else(|| match known {
            true => UnsealError::Forged,
            false => UnsealError::SecretRemoved(seal.secret.clone()),
        }))
    }
}
