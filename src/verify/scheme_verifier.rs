//! One of a source's signature schemes, with the secrets that are for it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;

use super::binding::EventLocator;
use super::challenge::is_of_token;
use super::scheme::{Claim, HeaderFormat, MAX_SIGNATURES, Scheme};
use super::{SignatureError, SigningKey, canonical};
use crate::config::{BodyForm, ConfigErrors, Secret, SecretFormat};
use crate::delivery::Delivery;

/// A scheme and its secrets.
#[derive(Debug)]
pub(super) struct SchemeVerifier {
    /// Its index among the source's schemes.
    pub(super) index: usize,
    pub(super) scheme: Arc<Scheme>,
    /// How the provider writes its secrets.
    pub(super) secret_format: SecretFormat,
    pub(super) keys: Vec<Arc<SigningKey>>,
    /// The number of different secrets among the keys.
    pub(super) secrets: usize,
    /// The largest number of bindings that one delivery can be compared with, each by a pass over its body: those of the
    /// secrets that can have made its signatures.
    pub(super) most_looks: usize,
    /// The pair of secret and body form that matched last, which is tried first: most deliveries are signed with one
    /// secret over one form, and each other pair costs a hash of the body. The keys of one secret are always tried in
    /// the same order, so that a retry matches the same binding and gets the same key in Kafka.
    pub(super) last: Last,
    pub(super) bodies: Option<EventLocator>,
    /// Whether anybody can have a challenge signed with these secrets.
    pub(super) signs_challenges: bool,
    /// The limit of a decoded body; `None` for a source whose bodies are not decoded.
    pub(super) max_decoded: Option<usize>,
    /// Used by [`super::diagnose`] only: these secrets verify nothing.
    pub(super) removed: Vec<Removed>,
}

/// A secret that a reload removed. It verifies nothing.
#[derive(Clone)]
pub(super) struct Removed {
    pub(super) key: Arc<SigningKey>,
    pub(super) at: Timestamp,
}

impl std::fmt::Debug for Removed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Removed({} at {})", self.key.name, self.at)
    }
}

/// A key and a form of the body. For a secret with several keys, `place` is the first one after a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct KeyForm {
    pub(super) place: usize,
    pub(super) form: BodyForm,
}

/// The pair that matched last, in one atomic word.
#[derive(Debug, Default)]
pub(super) struct Last(AtomicUsize);

impl Last {
    pub(super) fn get(&self) -> KeyForm {
        let word = self.0.load(Ordering::Relaxed);
        let form = if word & 1 == 0 { BodyForm::Raw } else { BodyForm::JsonCompactAscii };
        KeyForm { place: word >> 1, form }
    }

    pub(super) fn set(&self, pair: KeyForm) {
        if self.get() != pair {
            let word = pair.place << 1 | usize::from(pair.form == BodyForm::JsonCompactAscii);
            self.0.store(word, Ordering::Relaxed);
        }
    }
}

impl SchemeVerifier {
    /// The scheme with those of the source's secrets that are for it.
    pub(super) fn new(
        scheme: Scheme,
        secret_format: SecretFormat,
        index: usize,
        secrets: &[Secret],
        place: &str,
        problems: &mut ConfigErrors,
    ) -> Self {
        let mut keys: Vec<SigningKey> = Vec::with_capacity(secrets.len());
        let mut known: Vec<&[u8]> = Vec::with_capacity(secrets.len());
        for secret in secrets {
            let Some(bytes) = secret.key(index) else { continue };
            let first = known.iter().position(|other| *other == bytes).unwrap_or(known.len());
            match SigningKey::new(&scheme, secret, bytes, first) {
                Some(key) => {
                    keys.push(key);
                    known.push(bytes);
                }
                None => problems.add(
                    place,
                    format!(
                        "the token {} has characters that no HTTP header can hold; give another",
                        secret.name
                    ),
                ),
            }
        }
        // By secret: its keys, and those of them that are bound.
        let mut uses: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for key in &keys {
            let (all, bound) = uses.entry(key.first).or_default();
            (*all, *bound) = (*all + 1, *bound + usize::from(key.binding.is_some()));
        }
        for key in &mut keys {
            key.is_shared = uses.get(&key.first).is_some_and(|(all, _)| *all > 1);
        }
        let mut bound: Vec<usize> = uses.values().map(|(_, bound)| *bound).collect();
        bound.sort_unstable_by_key(|bound| Reverse(*bound));
        let signatures = match scheme.layout {
            HeaderFormat::Plain { .. } | HeaderFormat::Token { .. } => 1,
            HeaderFormat::List { .. } | HeaderFormat::Versions { .. } => MAX_SIGNATURES,
        };
        // Each signature can be that of one secret over one form.
        let most_looks = bound.iter().take(signatures).sum::<usize>() * signatures.min(scheme.forms.len());
        let keys = keys.into_iter().map(Arc::new).collect();
        let (scheme, last) = (Arc::new(scheme), Last::default());
        let (secrets, removed) = (uses.len(), Vec::new());
        let (bodies, max_decoded, signs_challenges) = (None, None, false);
        Self {
            index,
            scheme,
            secret_format,
            keys,
            secrets,
            most_looks,
            last,
            bodies,
            signs_challenges,
            max_decoded,
            removed,
        }
    }

    /// Whether the request contains the secret itself instead of a signature.
    pub(super) fn is_token(&self) -> bool {
        self.scheme.is_token()
    }

    /// The signatures and the signed time that the delivery claims.
    ///
    /// # Errors
    /// When one of the headers that carry them is missing or cannot be read.
    pub(super) fn claim<'d>(&self, delivery: &'d Delivery) -> Result<Claim<'d>, SignatureError> {
        let claim = self.scheme.claim(&delivery.headers)?;
        if self.signs_challenges && self.scheme.template.is_of(claim.values(), &delivery.body, is_of_token) {
            return Err(SignatureError::Challenge);
        }
        Ok(claim)
    }

    /// The body in this form; `None` if the body has no such form, or if the form equals a raw body that is tried anyway.
    pub(super) fn signed<'d>(&self, body: &'d [u8], form: BodyForm) -> Option<Cow<'d, [u8]>> {
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
