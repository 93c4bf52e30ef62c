//! Who signed these bytes? This room alone makes a [`Verified`].

mod binding;
mod digest;
mod scheme;
mod seal;
mod sign;
mod spare;
mod template;

pub mod canonical;
pub mod diagnose;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hmac::Hmac;
use http::{HeaderName, HeaderValue};
use jiff::SignedDuration;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use binding::{Binding, Bodies};
use diagnose::Removed;
use digest::{Digest, Mac};
pub use scheme::Claim;
use scheme::{Layout, Scheme};
pub use seal::{Seal, Unsealable};
use spare::Spare;

use crate::config::{self, Binds, Form, Problems, Secret, SecretFormat, Window};
use crate::delivery::Delivery;
use crate::outcome::{Fault, Reason};

/// Evidence that a secret of the source signed a delivery. Its fields are private and only
/// [`Verifier::verify`] makes one, and [`Verifier::unseal`] from what one has sealed, so that no event
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
    key: &'d Key,
    form: Form,
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

    /// The form of the body that was signed.
    pub fn form(&self) -> Form {
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
struct Key {
    name: Arc<str>,
    window: Window,
    /// The first key of the same secret: bound to several texts, it stands there several times.
    first: usize,
    /// What the body must say for it to count.
    binding: Option<Binding>,
    mac: Mac,
    /// Derived from the secret, for the seal of dead letters.
    seal: Hmac<Sha256>,
    /// What the header of a token holds, for [`Verifier::sign`].
    token: Option<HeaderValue>,
    /// For [`diagnose`] alone.
    spare: Arc<Spare>,
}

impl Key {
    /// HMAC takes a key of any length, so only a token can be none: when no header can hold it.
    fn new(scheme: &Scheme, format: SecretFormat, secret: &Secret, first: usize) -> Option<Self> {
        let (mac, token) = match &scheme.layout {
            Layout::Token { prefix } => {
                let value = [prefix.as_bytes(), secret.expose()].concat();
                let mut value =
                    HeaderValue::from_bytes(&value).ok().filter(|value| value.to_str().is_ok())?;
                value.set_sensitive(true);
                (Mac::Token(digest::token(secret.expose())), Some(value))
            }
            _ => (Mac::new(scheme.written.hash, secret.expose())?, None),
        };
        let seal = seal::derive(secret.expose())?;
        let binding = secret.binds.as_ref().map(Binding::compile);
        let hash = token.is_none().then_some(scheme.written.hash);
        let spare = Arc::new(Spare::new(format, secret.expose(), hash)?);
        let (name, window) = (secret.name.clone(), secret.window);
        Some(Self { name, window, first, binding, mac, seal, token, spare })
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.name)
    }
}

/// A source's rules and secrets, compiled once at start.
#[derive(Debug)]
pub struct Verifier {
    scheme: Scheme,
    keys: Vec<Key>,
    /// The first place of the secret that matched last. It is tried first: most deliveries are signed by one secret,
    /// and each other costs a hash of the body. Keys of one secret stay in their order, so that a retry finds the
    /// same of them, and with it gets the same key in Kafka.
    last: AtomicUsize,
    bodies: Option<Bodies>,
    /// For [`diagnose`] alone: they verify nothing.
    removed: Vec<Removed>,
}

impl Verifier {
    /// Compiles the rules; every fault it finds goes to `problems`, under `place`.
    pub fn compile(
        rules: &config::Signature,
        secrets: &[Secret],
        place: &str,
        problems: &mut Problems,
    ) -> Option<Self> {
        let scheme = Scheme::compile(rules, place, problems)?;
        let mut keys = Vec::with_capacity(secrets.len());
        for (index, secret) in secrets.iter().enumerate() {
            let same = |other: &Secret| other.expose() == secret.expose();
            let first = secrets.iter().position(same).unwrap_or(index);
            match Key::new(&scheme, rules.secret_format, secret, first) {
                Some(key) => keys.push(key),
                None => problems.add(
                    place,
                    format!(
                        "the token {} has characters that no HTTP header can hold; give another",
                        secret.name
                    ),
                ),
            }
        }
        Some(Self { scheme, keys, last: AtomicUsize::new(0), bodies: None, removed: Vec::new() })
    }

    /// The same, for bodies that are read by these rules. Without them no bound secret verifies
    /// anything.
    pub fn reading(self, rules: &config::Envelope) -> Self {
        Self { bodies: Some(Bodies::new(rules)), ..self }
    }

    /// Finds the secret that signed the delivery: each form of the body, the raw one first,
    /// with each secret, the one that matched last first. The work is bounded: at most
    /// [`scheme::MAX_SIGNATURES`] are compared. Secrets that are outside their time at the receipt
    /// come last, and only they have the canonical form made once more. One that is bound counts
    /// only for a body that names whom it is for; of several that made the signature, any that does
    /// will do.
    ///
    /// # Errors
    /// `signature_missing`, `signature_malformed`, `signature_mismatch`; the detail counts what
    /// was tried, or names the secret whose binding the body does not keep. `secret_expired` where only
    /// a secret outside its time has made the signature.
    pub fn verify<'d>(&'d self, delivery: &'d Delivery) -> Result<Verified<'d>, Fault> {
        let claim = self.claim(delivery)?;
        let now = delivery.received_at;
        let mut broken = None;
        let found = self.find(delivery, &claim, |key| key.window.contains(now), &mut broken);
        if let Some((key, form, signed)) = found {
            let age = self.scheme.age(&claim, now);
            return Ok(Verified { delivery, key, form, signed, scheme: &self.scheme, age });
        }
        if let Some((key, ..)) = self.find(delivery, &claim, |key| !key.window.contains(now), &mut broken) {
            let when = match key.window {
                Window { not_before: Some(from), .. } if now < from => format!("counts from {from} on"),
                Window { not_after: Some(until), .. } => format!("counted until {until}"),
                Window { .. } => String::from("does not count now"),
            };
            return Err(Fault::new(Reason::SecretExpired, format!("the secret {} {when}", key.name)));
        }
        let why = broken.unwrap_or_else(|| self.tried(delivery.body.len()));
        Err(Fault::new(Reason::SignatureMismatch, why))
    }

    /// The first of the secrets that are `wanted` which made one of the signatures and whose binding
    /// holds; `broken` tells of the first whose does not.
    fn find<'d>(
        &'d self,
        delivery: &'d Delivery,
        claim: &Claim<'_>,
        wanted: impl Fn(&Key) -> bool,
        broken: &mut Option<String>,
    ) -> Option<(&'d Key, Form, Cow<'d, [u8]>)> {
        if !self.keys.iter().any(&wanted) {
            return None;
        }
        for &form in &self.scheme.forms {
            let Some(signed) = self.signed(delivery, form) else { continue };
            let last = self.last.load(Ordering::Relaxed);
            let others = self.keys.iter().filter(|key| key.first != last);
            let mut keys = self.keys.iter().filter(|key| key.first == last).chain(others);
            let mut counts = |key: &Key| {
                let Some(binding) = &key.binding else { return true };
                let why = binding.holds(delivery, self.bodies.as_ref()).err();
                let counts = why.is_none();
                if let (Some(why), None) = (why, &broken) {
                    *broken = Some(format!("the secret {} made it, but {why}", key.name));
                }
                counts
            };
            let found = keys.find(|key| wanted(key) && self.matches(claim, &signed, key) && counts(key));
            if let Some(key) = found {
                if key.first != last {
                    self.last.store(key.first, Ordering::Relaxed);
                }
                return Some((key, form, signed));
            }
        }
        None
    }

    /// What the delivery claims: its signatures and the signed time.
    pub fn claim<'d>(&self, delivery: &'d Delivery) -> Result<Claim<'d>, Fault> {
        self.scheme.claim(&delivery.headers)
    }

    /// The signed form of the body; `None` where it does not exist or is the raw body again.
    fn signed<'d>(&self, delivery: &'d Delivery, form: Form) -> Option<Cow<'d, [u8]>> {
        match form {
            Form::Raw => Some(Cow::Borrowed(&delivery.body)),
            Form::JsonCompactAscii => match canonical::json_compact_ascii(&delivery.body) {
                Ok(Cow::Borrowed(_)) if self.scheme.forms.contains(&Form::Raw) => None,
                Ok(signed) => Some(signed),
                Err(_) => None,
            },
        }
    }

    /// Whether one of the claimed signatures is this secret's. Every signature is compared, in
    /// constant time, so that the time tells nothing about which byte or which part differs.
    fn matches(&self, claim: &Claim<'_>, signed: &[u8], key: &Key) -> bool {
        let right = self.scheme.digest(&key.mac, claim, signed);
        let one = |found: Choice, signature: &Digest| found | signature.ct_eq(&right);
        claim.signatures().iter().fold(Choice::from(0), one).into()
    }

    fn tried(&self, bytes: usize) -> String {
        let secrets = match self.keys.len() {
            1 => String::from("1 secret"),
            n => format!("{n} secrets"),
        };
        if matches!(self.scheme.layout, Layout::Token { .. }) {
            return format!("{secrets} tried");
        }
        let forms = if self.scheme.forms.contains(&Form::JsonCompactAscii) {
            "raw and canonical body"
        } else {
            "raw body"
        };
        format!("{secrets} tried, {forms}, {bytes} bytes")
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::proof;
