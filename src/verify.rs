//! Who signed these bytes? This room alone makes a [`Verified`].

mod binding;
mod digest;
mod scheme;
mod seal;
mod search;
mod sign;
mod signature_error;
mod alternate_keys;
mod template;

pub mod canonical;
pub mod diagnose;

use std::borrow::Cow;
use std::sync::Arc;

use hmac::Hmac;
use http::{HeaderName, HeaderValue};
use jiff::SignedDuration;
use sha2::Sha256;

use alternate_keys::AlternateKeys;
use binding::{Binding, EventLocator};
use diagnose::Removed;
use digest::Signer;
pub use scheme::Claim;
use scheme::{HeaderFormat, Scheme};
pub use seal::{Seal, UnsealError};
use search::Last;
pub use search::{Cost, SecretSearch};
pub use signature_error::SignatureError;

use crate::config::{self, Binds, BodyForm, ConfigErrors, Secret, SecretFormat, ValidityWindow};
use crate::delivery::Delivery;

/// Evidence that a secret of the source signed a delivery. Its fields are private and only
/// [`Verifier::verify`] and a finished [`Search`] make one, and [`Verifier::unseal`] from what one has sealed, so that no event
/// and no record can exist without:
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
    /// What arrived.
    pub fn delivery(&self) -> &'d Delivery {
        self.delivery
    }

    /// The name of the secret that matched.
    pub fn secret(&self) -> &str {
        &self.key.name
    }

    /// What that secret is bound to, if it is.
    pub fn bound_to(&self) -> Option<&'d Binds> {
        self.key.binding.as_ref().map(Binding::rules)
    }

    /// The same, to keep.
    pub fn secret_name(&self) -> Arc<str> {
        self.key.name.clone()
    }

    /// The form of the body that was signed.
    pub fn form(&self) -> BodyForm {
        self.form
    }

    /// The signed body, in the form that was signed: what a digest of the event runs over, so
    /// that a retry with other white space keeps its key.
    pub fn signed(&self) -> &[u8] {
        &self.signed
    }

    /// How long before its receipt it was signed; negative where the signed time lies ahead. `None`
    /// where no time is signed, and of one that was unsealed.
    pub fn age(&self) -> Option<SignedDuration> {
        self.age
    }

    /// The request headers that the source's rules read: signature, time, id and what else is
    /// signed. Never that of a token.
    pub fn headers(&self) -> &'d [HeaderName] {
        &self.scheme.headers
    }
}

/// A secret with its key schedule done. The secret itself is not kept, but for a token.
struct SigningKey {
    name: Arc<str>,
    window: ValidityWindow,
    /// The first key of the same secret: bound to several texts, it stands there several times.
    first: usize,
    /// What the body must say for it to count.
    binding: Option<Binding>,
    mac: Signer,
    /// Derived from the secret, for the seal of dead letters.
    seal: Hmac<Sha256>,
    /// What the header of a token holds, for [`Verifier::sign`].
    token: Option<HeaderValue>,
    /// For [`diagnose`] alone.
    spare: Arc<AlternateKeys>,
}

impl SigningKey {
    /// HMAC takes a key of any length, so only a token can be none: when no header can hold it.
    fn new(scheme: &Scheme, format: SecretFormat, secret: &Secret, first: usize) -> Option<Self> {
        let (mac, token) = match &scheme.layout {
            HeaderFormat::Token { prefix } => {
                let value = [prefix.as_bytes(), secret.expose()].concat();
                let mut value =
                    HeaderValue::from_bytes(&value).ok().filter(|value| value.to_str().is_ok())?;
                value.set_sensitive(true);
                (Signer::Token(digest::token(secret.expose())), Some(value))
            }
            _ => (Signer::new(scheme.written.hash, secret.expose())?, None),
        };
        let seal = seal::derive(secret.expose())?;
        let binding = secret.binds.as_ref().map(Binding::compile);
        let hash = token.is_none().then_some(scheme.written.hash);
        let spare = Arc::new(AlternateKeys::new(format, secret.expose(), hash)?);
        let (name, window) = (secret.name.clone(), secret.window);
        Some(Self { name, window, first, binding, mac, seal, token, spare })
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.name)
    }
}

/// A source's rules and secrets, compiled once at start.
#[derive(Debug)]
pub struct Verifier {
    scheme: Arc<Scheme>,
    keys: Vec<Arc<SigningKey>>,
    /// What matched last. It is tried first: most deliveries are signed by one secret, over one form, and each
    /// other pair costs a hash of the body. Keys of one secret stay in their order, so that a retry finds the same of
    /// them, and with it gets the same key in Kafka.
    last: Last,
    bodies: Option<EventLocator>,
    /// For [`diagnose`] alone: they verify nothing.
    removed: Vec<Removed>,
}

impl Verifier {
    /// Compiles the rules; every fault it finds goes to `problems`, under `place`.
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
            match SigningKey::new(&scheme, rules.secret_format, secret, first) {
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

    /// The same, for bodies that are read by these rules. Without them no bound secret verifies
    /// anything.
    pub fn with_envelope(self, rules: &config::Envelope) -> Self {
        Self { bodies: Some(EventLocator::new(rules)), ..self }
    }

    /// Whether the secret itself stands in the request.
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

    /// The signed form of the body; `None` where it does not exist or is the raw body again.
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
