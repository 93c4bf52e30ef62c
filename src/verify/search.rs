//! The search for the secret that signed a delivery: the order in which secrets and forms of the body are tried, and the
//! cost.
//!
//! Anybody can cause a search, at the price of the bytes that they send. So each form is computed once, the pair of secret
//! and form that matched last comes first, and every step adds to [`Progress::work`], which the caller limits.

use std::borrow::Cow;
use std::cmp::Ordering as Compared;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use jiff::SignedDuration;
use subtle::{Choice, ConstantTimeEq};

use super::digest::Digest;
use super::scheme::{Claim, Scheme};
use super::scheme_verifier::{KeyForm, SchemeVerifier};
use super::{MAX_SCHEMES, SigningKey, Verified, Verifier, canonical};
use crate::config::{BodyForm, ValidityWindow};
use crate::delivery::Delivery;
use crate::outcome::{Fault, Reason};

/// The cost of one try in addition to its text, in bytes of hashing: an HMAC hashes two more blocks and the padding.
const TRY: u64 = 256;

/// The number of bytes that are hashed in the time it takes to write one byte of the canonical form.
const WRITING: u64 = 2;

/// The canonical form is at most this many times as long as the body.
const LONGEST: u64 = 6;

/// The maximum cost of a search, in bytes of hashing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// To try the secret and the form that matched last.
    pub likely: u64,
    /// To try every secret over every form.
    pub all: u64,
}

/// The canonical form of one body, computed when first needed.
#[derive(Default)]
enum Canonical {
    #[default]
    Unmade,
    /// The body has none.
    Nothing,
    /// The body itself.
    Same,
    Made(Vec<u8>),
}

/// What a compressed body decodes to, or why it cannot be decoded.
type DecodedBody = Result<Vec<u8>, Fault>;

/// The progress of the search over one delivery.
#[derive(Default)]
pub(super) struct Progress {
    canonical: Canonical,
    /// What the body decodes to, once a secret has made the signature; `None` if it is not to be decoded.
    decoded: OnceLock<Option<Box<DecodedBody>>>,
    /// The pair that was tried first in each scheme, without a match.
    likely: [Option<KeyForm>; MAX_SCHEMES],
    /// Whether a secret made a signature over a form of the body, by scheme: only of secrets with several keys, whose
    /// digest is the same.
    made: HashMap<(usize, KeyForm), bool>,
    /// Why the binding of the first matching secret does not hold.
    pub(super) broken: Option<String>,
    /// Bytes of hashing so far.
    work: u64,
}

impl Progress {
    /// The body in this form; `None` if there is nothing to try: the body has no such form, or it is the raw body, which
    /// the scheme tries anyway.
    fn text<'t>(&'t mut self, body: &'t [u8], form: BodyForm, scheme: &Scheme) -> Option<&'t [u8]> {
        if form == BodyForm::Raw {
            return Some(body);
        }
        if matches!(self.canonical, Canonical::Unmade) {
            self.canonical = match canonical::json_compact_ascii(body) {
                Err(_) => Canonical::Nothing,
                Ok(Cow::Borrowed(_)) => Canonical::Same,
                Ok(Cow::Owned(text)) => Canonical::Made(text),
            };
            let written = if let Canonical::Made(text) = &self.canonical { text.len() } else { body.len() };
            self.work += WRITING * written as u64;
        }
        match &self.canonical {
            Canonical::Made(text) => Some(text),
            Canonical::Same => (!scheme.forms.contains(&BodyForm::Raw)).then_some(body),
            Canonical::Unmade | Canonical::Nothing => None,
        }
    }

    fn decoded(&self, delivery: &Delivery, max: Option<usize>) -> Option<&DecodedBody> {
        self.decoded.get_or_init(|| delivery.decoded(max?).map(Box::new)).as_deref()
    }

    /// The body, decoded if it is compressed. Called for a body only after a secret has made its signature.
    fn content<'c>(&'c self, delivery: &'c Delivery, max: Option<usize>) -> Result<&'c [u8], Fault> {
        match self.decoded(delivery, max) {
            None => Ok(&delivery.body),
            Some(Ok(decoded)) => Ok(decoded),
            Some(Err(fault)) => Err(fault.clone()),
        }
    }

    /// The body in the form that matched.
    fn into_signed(self, body: &[u8], form: BodyForm) -> Cow<'_, [u8]> {
        match self.canonical {
            Canonical::Made(text) if form == BodyForm::JsonCompactAscii => Cow::Owned(text),
            _ => Cow::Borrowed(body),
        }
    }
}

/// A delivery and the search for its secret, in one owned value, so that another thread can continue it. Only the verifier
/// can mark the secret as found.
pub struct SecretSearch {
    delivery: Delivery,
    progress: Progress,
    found: Option<SecretMatch>,
}

struct SecretMatch {
    scheme: Arc<Scheme>,
    key: Arc<SigningKey>,
    form: BodyForm,
    age: Option<SignedDuration>,
    /// The limit of a decoded body, if it is to be decoded.
    max_decoded: Option<usize>,
}

impl SecretSearch {
    /// A search that has tried nothing yet.
    pub fn new(delivery: Delivery) -> Self {
        Self { delivery, progress: Progress::default(), found: None }
    }

    /// A search over a body that was decoded for it, which has cost as much as hashing `work` bytes.
    pub fn after(delivery: Delivery, work: u64) -> Self {
        Self { delivery, progress: Progress { work, ..Progress::default() }, found: None }
    }

    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Ends the search and returns the delivery.
    pub fn into_delivery(self) -> Delivery {
        self.delivery
    }

    /// The cost so far, in bytes of hashing.
    pub fn work(&self) -> u64 {
        self.progress.work
    }

    /// Whether the secret was found and the body is still to be decoded, which may take milliseconds.
    pub fn is_encoded(&self) -> bool {
        let decodes = self.found.as_ref().is_some_and(|found| found.max_decoded.is_some());
        decodes && self.progress.decoded.get().is_none() && self.delivery.is_encoded()
    }

    /// Decodes the body of a delivery whose secret was found, and returns the bytes that this takes until the search is
    /// dropped. [`Self::verified`] would do it, too, on the thread that calls it. If it fails, the proof has the fault.
    pub fn decode(&self) -> usize {
        let Some(found) = &self.found else { return 0 };
        let decoded = self.progress.decoded(&self.delivery, found.max_decoded);
        decoded.and_then(|decoded| decoded.as_ref().ok()).map_or(0, Vec::len)
    }

    /// The proof; `None` until the secret is found.
    pub fn verified(&self) -> Option<Verified<'_>> {
        let SecretMatch { scheme, key, form, age, max_decoded } = self.found.as_ref()?;
        let decoded = self.progress.decoded(&self.delivery, *max_decoded);
        let decoded = decoded.map(|decoded| match decoded {
            Ok(decoded) => Ok(Cow::Borrowed(decoded.as_slice())),
            Err(fault) => Err(fault.clone()),
        });
        let signed = match &self.progress.canonical {
            Canonical::Made(text) if *form == BodyForm::JsonCompactAscii => text,
            _ => &*self.delivery.body,
        };
        let (delivery, signed, digest) = (&self.delivery, Cow::Borrowed(signed), OnceLock::new());
        Some(Verified { delivery, key, form: *form, signed, decoded, digest, scheme, age: *age })
    }
}

impl Verifier {
    /// Finds the secret that signed the delivery, scheme by scheme. Tries the pair of secret and form that matched last,
    /// then each form of the body, the raw one first, with each secret; secrets outside their validity window at the
    /// receipt come last. The work is bounded: at most [`super::scheme::MAX_SIGNATURES`] are compared, and each form is
    /// computed once. A bound secret matches only a body that its binding accepts; if several secrets match, any whose
    /// binding holds will do.
    ///
    /// # Errors
    /// `signature_missing`, `signature_malformed`, `signature_mismatch`; the detail counts what was tried, or names the
    /// secret whose binding does not hold. `secret_expired` if only a secret outside its window made the signature. Of
    /// several schemes, the fault of the one that came furthest.
    pub fn verify<'d>(&'d self, delivery: &'d Delivery) -> Result<Verified<'d>, Fault> {
        let (mut progress, mut why) = (Progress::default(), None);
        for scheme in &self.schemes {
            match scheme.verify(delivery, &mut progress) {
                Ok((key, form, age)) => {
                    progress.decoded(delivery, scheme.max_decoded);
                    let decoded = progress.decoded.take().flatten();
                    let decoded = decoded.map(|decoded| decoded.map(Cow::Owned));
                    let signed = progress.into_signed(&delivery.body, form);
                    let (digest, scheme) = (OnceLock::new(), &scheme.scheme);
                    return Ok(Verified { delivery, key, form, signed, decoded, digest, scheme, age });
                }
                Err(fault) => why = Some(furthest(why, fault)),
            }
        }
        Err(why.unwrap_or_else(|| Reason::SignatureMissing.into()))
    }

    /// Tries only the pair that matched last, in the first scheme that the delivery claims. Returns whether it made the
    /// signature. A later scheme is not tried, since [`Self::all`] might still find a secret in this one: a delivery with
    /// signatures of two schemes has the same verdict whatever matched last. The price is a complete search for those of
    /// which only the second is right.
    ///
    /// # Errors
    /// `signature_missing`, `signature_malformed` if the delivery has a signature of none of the schemes.
    pub fn likely(&self, search: &mut SecretSearch) -> Result<bool, Fault> {
        let SecretSearch { delivery, progress, found } = search;
        let mut why = None;
        for scheme in &self.schemes {
            match scheme.claim(delivery) {
                Ok(claim) => {
                    let age = scheme.scheme.age(&claim, delivery.received_at);
                    let likely = scheme.try_likely(delivery, &claim, progress);
                    *found = likely.map(|(key, form)| scheme.found(key, form, age));
                    return Ok(found.is_some());
                }
                Err(error) => why = Some(furthest(why, error.into())),
            }
        }
        Err(why.unwrap_or_else(|| Reason::SignatureMissing.into()))
    }

    /// Tries every remaining pair, until `until`.
    ///
    /// # Errors
    /// As [`Verifier::verify`]; `overloaded` if the time ran out.
    pub fn all(&self, search: &mut SecretSearch, until: Option<Instant>) -> Result<(), Fault> {
        let SecretSearch { delivery, progress, found } = search;
        let mut why = None;
        for scheme in &self.schemes {
            match scheme.find_secret(delivery, progress, until) {
                Ok((key, form, age)) => {
                    *found = Some(scheme.found(key, form, age));
                    return Ok(());
                }
                Err(fault) if fault.reason == Reason::Overloaded => return Err(fault),
                Err(fault) => why = Some(furthest(why, fault)),
            }
        }
        Err(why.unwrap_or_else(|| Reason::SignatureMissing.into()))
    }

    /// The maximum cost of a search over a body of this length.
    pub fn cost(&self, bytes: usize) -> Cost {
        let add =
            |sum: Cost, scheme: Cost| Cost { likely: sum.likely + scheme.likely, all: sum.all + scheme.all };
        self.schemes.iter().map(|scheme| scheme.cost(bytes)).fold(Cost { likely: 0, all: 0 }, add)
    }
}

/// How far the check came that ended with this fault.
pub(super) fn rank(fault: &Fault) -> u8 {
    match fault.reason {
        Reason::SecretExpired => 3,
        Reason::SignatureMismatch => 2,
        Reason::SignatureMalformed => 1,
        _ => 0,
    }
}

/// Of the faults of two schemes, that of the one that came further; both, if they came equally far.
fn furthest(before: Option<Fault>, fault: Fault) -> Fault {
    let Some(before) = before else { return fault };
    match rank(&before).cmp(&rank(&fault)) {
        Compared::Greater => before,
        Compared::Less => fault,
        Compared::Equal => {
            let details: Vec<_> = [before.detail, fault.detail].into_iter().flatten().collect();
            Fault::new(fault.reason, details.join("; "))
        }
    }
}

/// # Errors
/// `overloaded` if `until` has passed.
fn in_time(until: Option<Instant>) -> Result<(), Fault> {
    match until.is_some_and(|until| Instant::now() >= until) {
        true => Err(Fault::new(Reason::Overloaded, "the search for the secret took too long")),
        false => Ok(()),
    }
}

impl SchemeVerifier {
    pub(super) fn verify<'v>(
        &'v self,
        delivery: &Delivery,
        progress: &mut Progress,
    ) -> Result<(&'v Arc<SigningKey>, BodyForm, Option<SignedDuration>), Fault> {
        self.find_secret(delivery, progress, None)
    }

    /// Tries the pair that matched last, unless that has been done, and then the others.
    fn find_secret<'v>(
        &'v self,
        delivery: &Delivery,
        progress: &mut Progress,
        until: Option<Instant>,
    ) -> Result<(&'v Arc<SigningKey>, BodyForm, Option<SignedDuration>), Fault> {
        let claim = self.claim(delivery)?;
        let tried = progress.likely.get(self.index).copied().flatten().is_some();
        in_time(until)?;
        let likely = if tried { None } else { self.try_likely(delivery, &claim, progress) };
        let (key, form) = match likely {
            Some(found) => found,
            None => self.try_all(delivery, &claim, progress, until)?,
        };
        Ok((key, form, self.scheme.age(&claim, delivery.received_at)))
    }

    fn found(&self, key: &Arc<SigningKey>, form: BodyForm, age: Option<SignedDuration>) -> SecretMatch {
        let (scheme, key) = (self.scheme.clone(), key.clone());
        SecretMatch { scheme, key, form, age, max_decoded: self.max_decoded }
    }

    fn cost(&self, bytes: usize) -> Cost {
        let (raw, last) = (bytes as u64, self.last.get());
        let likely_keys = self.keys.iter().filter(|key| key.first == last.place);
        let looks = raw * likely_keys.filter(|key| key.binding.is_some()).count() as u64;
        let all_looks = raw * self.most_looks as u64;
        if self.is_token() {
            return Cost { likely: TRY + looks, all: TRY * self.secrets as u64 + all_looks };
        }
        let written = LONGEST * raw;
        let of = |form: &BodyForm| match form {
            BodyForm::Raw => (0, raw + TRY),
            BodyForm::JsonCompactAscii => (WRITING * written, written + TRY),
        };
        let (make, hash) = of(&last.form);
        let hashes = self.scheme.forms.iter().map(of).map(|(make, hash)| make + self.secrets as u64 * hash);
        Cost { likely: make + hash + looks, all: hashes.sum::<u64>() + all_looks }
    }

    fn try_likely<'v>(
        &'v self,
        delivery: &Delivery,
        claim: &Claim<'_>,
        progress: &mut Progress,
    ) -> Option<(&'v Arc<SigningKey>, BodyForm)> {
        let KeyForm { place, form } = self.last.get();
        if !self.scheme.forms.contains(&form) {
            return None;
        }
        if let Some(likely) = progress.likely.get_mut(self.index) {
            *likely = Some(KeyForm { place, form });
        }
        let inside = |key: &&Arc<SigningKey>| key.first == place && key.window.contains(delivery.received_at);
        let mut keys = self.keys.iter().filter(inside);
        keys.find(|key| self.made(delivery, claim, key, form, progress)).map(|key| (key, form))
    }

    fn try_all<'v>(
        &'v self,
        delivery: &Delivery,
        claim: &Claim<'_>,
        progress: &mut Progress,
        until: Option<Instant>,
    ) -> Result<(&'v Arc<SigningKey>, BodyForm), Fault> {
        let now = delivery.received_at;
        let inside = |key: &SigningKey| key.window.contains(now);
        if let Some(pair) = self.find(delivery, claim, inside, progress, until)? {
            let key = self.keys.get(pair.place).ok_or_else(|| self.none(delivery, progress))?;
            self.last.set(KeyForm { place: key.first, form: pair.form });
            return Ok((key, pair.form));
        }
        let outside = |key: &SigningKey| !key.window.contains(now);
        let expired = self.find(delivery, claim, outside, progress, until)?;
        let Some(key) = expired.and_then(|pair| self.keys.get(pair.place)) else {
            return Err(self.none(delivery, progress));
        };
        let when = match key.window {
            ValidityWindow { not_before: Some(from), .. } if now < from => format!("is valid from {from}"),
            ValidityWindow { not_after: Some(until), .. } => format!("was valid until {until}"),
            ValidityWindow { .. } => String::from("is not valid now"),
        };
        Err(Fault::new(Reason::SecretExpired, format!("the secret {} {when}", key.name)))
    }

    /// The first of the `wanted` secrets that made one of the signatures and whose binding holds.
    ///
    /// # Errors
    /// `overloaded` if `until` passed before all were tried.
    pub(super) fn find(
        &self,
        delivery: &Delivery,
        claim: &Claim<'_>,
        wanted: impl Fn(&SigningKey) -> bool,
        progress: &mut Progress,
        until: Option<Instant>,
    ) -> Result<Option<KeyForm>, Fault> {
        for &form in &self.scheme.forms {
            for (place, key) in self.keys.iter().enumerate() {
                let likely = progress.likely.get(self.index).copied().flatten();
                let tried = likely == Some(KeyForm { place: key.first, form });
                // The first try skipped a secret outside its validity window.
                if !wanted(key) || (tried && key.window.contains(delivery.received_at)) {
                    continue;
                }
                in_time(until)?;
                if self.made(delivery, claim, key, form, progress) {
                    return Ok(Some(KeyForm { place, form }));
                }
            }
        }
        Ok(None)
    }

    /// Whether this secret made one of the signatures over this form of the body, and its binding holds.
    fn made(
        &self,
        delivery: &Delivery,
        claim: &Claim<'_>,
        key: &SigningKey,
        form: BodyForm,
        progress: &mut Progress,
    ) -> bool {
        let pair = (self.index, KeyForm { place: key.first, form });
        let known = if key.is_shared { progress.made.get(&pair).copied() } else { None };
        let matches = known.or_else(|| {
            let text = progress.text(&delivery.body, form, &self.scheme)?;
            let hashed = if self.is_token() { 0 } else { text.len() as u64 };
            let matches = self.matches(claim, text, key);
            progress.work += hashed + TRY;
            if key.is_shared {
                progress.made.insert(pair, matches);
            }
            Some(matches)
        });
        if matches != Some(true) {
            return false;
        }
        let Some(binding) = &key.binding else { return true };
        progress.work += delivery.body.len() as u64;
        let content = progress.content(delivery, self.max_decoded);
        let why = binding.check(delivery, content, self.bodies.as_ref()).err();
        let holds = why.is_none();
        if let (Some(why), None) = (why, &progress.broken) {
            progress.broken = Some(format!("the secret {} made it, but {why}", key.name));
        }
        holds
    }

    /// Whether one of the claimed signatures is this secret's. Compares every signature in constant time, so that the time
    /// reveals neither the byte nor the signature that differs.
    pub(super) fn matches(&self, claim: &Claim<'_>, signed: &[u8], key: &SigningKey) -> bool {
        let right = self.scheme.digest(&key.mac, claim, signed);
        let one = |found: Choice, signature: &Digest| found | signature.ct_eq(&right);
        claim.signatures().iter().fold(Choice::from(0), one).into()
    }

    /// The detail of a refusal: no secret made the signature.
    fn none(&self, delivery: &Delivery, progress: &mut Progress) -> Fault {
        let why = progress.broken.take().unwrap_or_else(|| self.tried(delivery.body.len()));
        Fault::new(Reason::SignatureMismatch, why)
    }

    fn tried(&self, bytes: usize) -> String {
        let secrets = match self.keys.len() {
            1 => String::from("1 secret"),
            n => format!("{n} secrets"),
        };
        if self.is_token() {
            return format!("{secrets} tried");
        }
        let forms = if self.scheme.forms.contains(&BodyForm::JsonCompactAscii) {
            "raw and canonical body"
        } else {
            "raw body"
        };
        format!("{secrets} tried, {forms}, {bytes} bytes")
    }
}
