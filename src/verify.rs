//! Signature verification. Only this room makes a [`Verified`].

mod binding;
mod challenge;
mod digest;
mod header_names;
mod scheme;
mod scheme_verifier;
mod seal;
mod search;
mod sign;
mod signature_error;
mod signed_time;
mod template;

pub mod canonical;
pub mod diagnose;
pub mod explain;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::SignedDuration;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use binding::{Binding, EventLocator};
pub use challenge::is_challenge;
use digest::Signer;
pub use header_names::HeaderNames;
use scheme::{HeaderFormat, Scheme};
use scheme_verifier::SchemeVerifier;
pub use seal::{Seal, UnsealError};
pub use search::{Cost, SecretSearch};
pub use signature_error::SignatureError;

use crate::config::{self, Binds, BodyForm, ConfigErrors, Secret, SignatureKind, ValidityWindow};
use crate::delivery::Delivery;
use crate::outcome::Fault;

/// Proof that a secret of the source signed a delivery. Its fields are private, and only [`Verifier::verify`], a finished
/// [`SecretSearch`] and [`Verifier::unseal`] make one, so that no event and no record can exist without it:
///
/// ```compile_fail
/// # fn forge(delivery: &hookstream::delivery::Delivery) {
/// let forged = hookstream::verify::Verified { delivery };
/// # }
/// ```
pub struct Verified<'d> {
    delivery: &'d Delivery,
    key: &'d SigningKey,
    form: BodyForm,
    signed: Cow<'d, [u8]>,
    digest: OnceLock<[u8; 32]>,
    /// What the body decodes to, if it is to be decoded. Only a verified body is.
    decoded: Option<Result<Cow<'d, [u8]>, Fault>>,
    scheme: &'d Scheme,
    age: Option<SignedDuration>,
}

impl std::fmt::Debug for Verified<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { delivery, key, form, age, .. } = self;
        let mut shown = f.debug_struct("Verified");
        shown.field("delivery", &delivery.id).field("key", key).field("form", form).field("age", age);
        shown.finish_non_exhaustive()
    }
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

    /// The body in the form that was signed; of a compressed body, what it decodes to. Digests of the event use it, so
    /// that a retry keeps its key although its white space differs, or although it was compressed anew.
    pub fn signed(&self) -> &[u8] {
        match &self.decoded {
            Some(Ok(decoded)) => decoded,
            _ => &self.signed,
        }
    }

    /// What the provider sent: the body, decoded if it is compressed.
    ///
    /// # Errors
    /// `body_too_large`; `json_invalid` if it cannot be decoded.
    pub fn content(&self) -> Result<&[u8], Fault> {
        match &self.decoded {
            None => Ok(&self.delivery.body),
            Some(Ok(decoded)) => Ok(decoded),
            Some(Err(fault)) => Err(fault.clone()),
        }
    }

    /// The bytes of the body, and of what it decodes to.
    pub fn bytes(&self) -> usize {
        let decoded = self.decoded.as_ref().and_then(|decoded| decoded.as_ref().ok());
        self.delivery.body.len() + decoded.map_or(0, |decoded| decoded.len())
    }

    /// The SHA-256 of [`Self::signed`], computed when first needed: the ids or keys of all events of a delivery may have it.
    pub fn digest(&self) -> &[u8; 32] {
        self.digest.get_or_init(|| Sha256::digest(self.signed()).into())
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
    /// Whether other keys have the same secret.
    is_shared: bool,
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
    fn new(scheme: &Scheme, secret: &Secret, key: &[u8], first: usize) -> Option<Self> {
        let (mac, token) = match &scheme.layout {
            HeaderFormat::Token { prefix } => {
                let encoded = Zeroizing::new(BASE64_STANDARD.encode(key));
                let key = if scheme.kind == SignatureKind::Basic { encoded.as_bytes() } else { key };
                let value = Zeroizing::new([prefix.as_bytes(), key].concat());
                let mut value =
                    HeaderValue::from_bytes(&value).ok().filter(|value| value.to_str().is_ok())?;
                value.set_sensitive(true);
                (Signer::Token(digest::token(key).into()), Some(value))
            }
            _ => (Signer::new(scheme.written.hash, key)?, None),
        };
        let seal = seal::derive(key)?;
        let binding = secret.binds.as_ref().map(Binding::compile);
        let (name, window) = (secret.name.clone(), secret.window);
        Some(Self { name, window, first, is_shared: false, binding, mac, seal, token })
    }

    /// The same key without the text of a token and without a binding: it names the maker of a signature, and signs
    /// and verifies nothing.
    fn for_naming(&self) -> Self {
        let (name, window, first) = (self.name.clone(), self.window, self.first);
        let (mac, seal) = (self.mac.clone(), self.seal.clone());
        Self { name, window, first, is_shared: false, binding: None, mac, seal, token: None }
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

/// The limit of a source's schemes: it bounds the work for a refused request.
const MAX_SCHEMES: usize = 4;

/// A source's signature schemes and secrets, compiled at start and at each reload. A delivery must satisfy one of the
/// schemes completely, with its headers, its signature and the binding of the secret: nothing of two schemes adds up.
#[derive(Debug)]
pub struct Verifier {
    /// In the order in which they are tried.
    schemes: Vec<SchemeVerifier>,
}

impl Verifier {
    /// Compiles the rules. Adds every problem to `problems`, under `place`.
    pub fn compile(
        rules: &[config::Signature],
        secrets: &[Secret],
        place: &str,
        problems: &mut ConfigErrors,
    ) -> Option<Self> {
        if rules.len() > MAX_SCHEMES {
            problems.add(place, format!("has more than {MAX_SCHEMES} schemes"));
            return None;
        }
        let place_of = |index| if rules.len() > 1 { format!("{place}.{index}") } else { place.to_owned() };
        let compiled = rules.iter().enumerate();
        let compiled = compiled.map(|(index, rules)| Scheme::compile(rules, &place_of(index), problems));
        let compiled = compiled.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>()?;
        // A delivery of one scheme may have the token of another.
        let tokens: Vec<HeaderName> = compiled.iter().flat_map(Scheme::token_headers).cloned().collect();
        let schemes = compiled.into_iter().zip(rules).enumerate().map(|(index, (scheme, rules))| {
            let scheme = Scheme { tokens: tokens.clone(), ..scheme };
            SchemeVerifier::new(scheme, rules.secret_format, index, secrets, &place_of(index), problems)
        });
        let mut schemes: Vec<_> = schemes.collect();
        // A scheme for which there is no secret verifies nothing, and its faults would hide those of the others.
        if schemes.iter().any(|scheme| !scheme.keys.is_empty()) {
            schemes.retain(|scheme| !scheme.keys.is_empty());
        }
        Some(Self { schemes })
    }

    /// Decodes verified bodies that are compressed, to at most `max` bytes.
    pub fn decoding(self, max: usize) -> Self {
        let with = |scheme| SchemeVerifier { max_decoded: Some(max), ..scheme };
        Self { schemes: self.schemes.into_iter().map(with).collect() }
    }

    /// Whether a request has the signature's header of any of the schemes, whatever is in it.
    pub fn claims_signature(&self, headers: &HeaderMap) -> bool {
        self.schemes.iter().any(|scheme| scheme.scheme.header.of(headers).is_some())
    }

    /// From now on refuses deliveries whose signed text has the form of a challenge.
    pub fn signing_challenges(self) -> Self {
        let with = |scheme| SchemeVerifier { signs_challenges: true, ..scheme };
        Self { schemes: self.schemes.into_iter().map(with).collect() }
    }

    /// Adds the envelope's rules, which locate the events in a body. Without them a bound secret verifies nothing.
    pub fn with_envelope(self, rules: &config::EnvelopeConfig) -> Self {
        let with = |scheme| SchemeVerifier { bodies: Some(EventLocator::new(rules)), ..scheme };
        Self { schemes: self.schemes.into_iter().map(with).collect() }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::proof;
