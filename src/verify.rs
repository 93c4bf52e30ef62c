//! Signature verification. Only this room makes a [`Verified`].

mod binding;
mod digest;
mod header_names;
mod scheme;
mod seal;
mod search;
mod sign;
mod signature_error;
mod template;

pub mod canonical;
pub mod diagnose;
pub mod explain;

use std::borrow::Cow;
use std::sync::Arc;

use hmac::{Hmac, Mac as _};
use http::{HeaderName, HeaderValue};
use jiff::SignedDuration;
use sha2::Sha256;
use zeroize::Zeroizing;

use binding::{Binding, EventLocator};
use diagnose::Removed;
use digest::Signer;
pub use header_names::HeaderNames;
pub use scheme::Claim;
use scheme::{HeaderFormat, Scheme};
pub use seal::{Seal, UnsealError};
use search::Last;
pub use search::{Cost, SecretSearch};
pub use signature_error::SignatureError;

use crate::config::{self, Binds, BodyForm, ConfigErrors, Secret, ValidityWindow};
use crate::delivery::Delivery;

/// Proof that a secret of the source signed a delivery. Its fields are private, and only [`Verifier::verify`], a finished
/// [`SecretSearch`] and [`Verifier::unseal`] make one, so that no event and no record can exist without it:
///
/// ```compile_fail
/// # fn forge(delivery: &hookstream::delivery::Delivery) {
/// let forged = hookstream::verify::Verified { delivery };
/// # }
/// ```
#[derive(Debug)]
pub struct Verified<'d> {
    delivery: &'d Delivery,
    key: &'d SigningKey,
    form: BodyForm,
    signed: Cow<'d, [u8]>,
    scheme: &'d Scheme,
    age: Option<SignedDuration>,
}

impl<'d> Verified<'d> {
    /// The delivery that was verified.
    pub fn delivery(&self) -> &'d Delivery {
        self.delivery
    }

    /// The name of the secret that matched.
    pub fn secret(&self) -> &str {
        &self.key.name
    }

    /// The binding of that secret, if it has one.
    pub fn bound_to(&self) -> Option<&'d Binds> {
        self.key.binding.as_ref().map(Binding::rules)
    }

    /// The name of the secret that matched, shared.
    pub fn secret_name(&self) -> Arc<str> {
        self.key.name.clone()
    }

    /// The form of the body that was signed.
    pub fn form(&self) -> BodyForm {
        self.form
    }

    /// The body in the form that was signed. Digests of the event use it, so that a retry with different white space
    /// keeps its key.
    pub fn signed(&self) -> &[u8] {
        &self.signed
    }

    /// The time from signing to receipt; negative if the signed time is in the future. `None` if no time is signed, and
    /// for an unsealed dead letter.
    pub fn age(&self) -> Option<SignedDuration> {
        self.age
    }

    /// The request headers that the source's rules read: signature, time, id and other signed headers. Never the header
    /// of a token.
    pub fn headers(&self) -> &'d [HeaderName] {
        &self.scheme.headers
    }
}

/// A secret with its key schedule computed. Only a token is stored as text.
struct SigningKey {
    name: Arc<str>,
    window: ValidityWindow,
    /// The index of the first key with the same secret: a secret with several bindings has a key for each.
    first: usize,
    /// The binding that the body must match.
    binding: Option<Binding>,
    mac: Signer,
    /// Derived from the secret, to seal dead letters.
    seal: Hmac<Sha256>,
    /// The header value of a token, for [`Verifier::sign`].
    token: Option<HeaderValue>,
}

impl SigningKey {
    /// `None` only for a token that no header can hold: HMAC takes a key of any length.
    fn new(scheme: &Scheme, secret: &Secret, first: usize) -> Option<Self> {
        let (mac, token) = match &scheme.layout {
            HeaderFormat::Token { prefix } => {
                let value = Zeroizing::new([prefix.as_bytes(), secret.expose()].concat());
                let mut value =
                    HeaderValue::from_bytes(&value).ok().filter(|value| value.to_str().is_ok())?;
                value.set_sensitive(true);
                (Signer::Token(digest::token(secret.expose()).into()), Some(value))
            }
            _ => (Signer::new(scheme.written.hash, secret.expose())?, None),
        };
        let seal = seal::derive(secret.expose())?;
        let binding = secret.binds.as_ref().map(Binding::compile);
        let (name, window) = (secret.name.clone(), secret.window);
        Some(Self { name, window, first, binding, mac, seal, token })
    }

    /// The same key without the text of a token and without a binding: it names the maker of a signature, and signs
    /// and verifies nothing.
    fn for_naming(&self) -> Self {
        let (name, window, first) = (self.name.clone(), self.window, self.first);
        let (mac, seal) = (self.mac.clone(), self.seal.clone());
        Self { name, window, first, binding: None, mac, seal, token: None }
    }

    /// Whether both have the same secret, whatever it is used for: equal seals prove it.
    fn is_same(&self, other: &Self) -> bool {
        self.seal.clone().finalize() == other.seal.clone().finalize()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.name)
    }
}

/// A source's signature rules and secrets, compiled at start and at each reload.
#[derive(Debug)]
pub struct Verifier {
    scheme: Arc<Scheme>,
    keys: Vec<Arc<SigningKey>>,
    /// The pair of secret and body form that matched last, which is tried first: most deliveries are signed with one
    /// secret over one form, and each other pair costs a hash of the body. The keys of one secret are always tried in
    /// the same order, so that a retry matches the same binding and gets the same key in Kafka.
    last: Last,
    bodies: Option<EventLocator>,
    /// Used by [`diagnose`] only: these secrets verify nothing.
    removed: Vec<Removed>,
}

impl Verifier {
    /// Compiles the rules. Adds every problem to `problems`, under `place`.
    pub fn compile(
        rules: &config::Signature,
        secrets: &[Secret],
        place: &str,
        problems: &mut ConfigErrors,
    ) -> Option<Self> {
        let scheme = Scheme::compile(rules, place, problems)?;
        let mut keys = Vec::with_capacity(secrets.len());
        for (index, secret) in secrets.iter().enumerate() {
            let same = |other: &Secret| other.expose() == secret.expose();
            let first = secrets.iter().position(same).unwrap_or(index);
            match SigningKey::new(&scheme, secret, first) {
                Some(key) => keys.push(Arc::new(key)),
                None => problems.add(
                    place,
                    format!(
                        "the token {} has characters that no HTTP header can hold; give another",
                        secret.name
                    ),
                ),
            }
        }
        Some(Self {
            scheme: Arc::new(scheme),
            keys,
            last: Last::default(),
            bodies: None,
            removed: Vec::new(),
        })
    }

    /// Adds the envelope's rules, which locate the events in a body. Without them a bound secret verifies nothing.
    pub fn with_envelope(self, rules: &config::EnvelopeConfig) -> Self {
        Self { bodies: Some(EventLocator::new(rules)), ..self }
    }

    /// Whether the request contains the secret itself instead of a signature.
    fn is_token(&self) -> bool {
        matches!(self.scheme.layout, HeaderFormat::Token { .. })
    }

    /// The signatures and the signed time that the delivery claims.
    ///
    /// # Errors
    /// When one of the headers that carry them is missing or cannot be read.
    pub fn claim<'d>(&self, delivery: &'d Delivery) -> Result<Claim<'d>, SignatureError> {
        self.scheme.claim(&delivery.headers)
    }

    /// The body in this form; `None` if the body has no such form, or if the form equals a raw body that is tried anyway.
    fn signed<'d>(&self, body: &'d [u8], form: BodyForm) -> Option<Cow<'d, [u8]>> {
        match form {
            BodyForm::Raw => Some(Cow::Borrowed(body)),
            BodyForm::JsonCompactAscii => match canonical::json_compact_ascii(body) {
                Ok(Cow::Borrowed(_)) if self.scheme.forms.contains(&BodyForm::Raw) => None,
                Ok(signed) => Some(signed),
                Err(_) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::proof;
