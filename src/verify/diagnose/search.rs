//! Tries other secrets and other bytes until one makes a signature that the request claims.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::super::scheme::Claim;
use super::super::{SchemeVerifier, SignatureError, SigningKey};
use super::{Cause, Other, reserialize, time};
use crate::delivery::Delivery;

/// The cost of a try in addition to the bytes that it hashes.
const TRY: usize = 1024;

/// The bytes that a search may still hash.
pub(in crate::verify) struct HashBudget {
    left: usize,
    /// Whether not every try was allowed.
    exceeded: bool,
}

impl HashBudget {
    pub(in crate::verify) fn new(bytes: usize) -> Self {
        Self { left: bytes, exceeded: false }
    }

    /// Takes the cost of `tries` over a text of this length; false if it is too much.
    pub(in crate::verify) fn take(&mut self, bytes: usize, tries: usize) -> bool {
        let left = self.left.checked_sub((bytes + TRY).saturating_mul(tries));
        self.exceeded |= left.is_none();
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

/// The search for the cause of one refusal.
struct CauseSearch<'a> {
    verifier: &'a SchemeVerifier,
    delivery: &'a Delivery,
    /// The body in each form of the rules.
    bodies: Vec<Cow<'a, [u8]>>,
    budget: HashBudget,
}

impl SchemeVerifier {
    /// The cause of a signature that is missing, cannot be read or matches no secret. The cheap tries come first, and the
    /// first match is the cause.
    pub(super) fn search(&self, delivery: &Delivery, others: &[Other<'_>], budget: usize) -> Cause {
        let (bodies, budget) = (self.bodies(&delivery.body), HashBudget::new(budget));
        let mut search = CauseSearch { verifier: self, delivery, bodies, budget };
        let claim = self.claim(delivery);
        let read = claim.as_ref().ok();
        read.and_then(|claim| search.removed(claim))
            .or_else(|| search.other_source(read, others))
            .or_else(|| search.reserialized_body(read?))
            .unwrap_or_else(|| match &claim {
                Ok(_) => search.no_match(),
                Err(error) => self.unreadable(&delivery.headers, error),
            })
    }

    /// The body in each form of the rules.
    pub(in crate::verify) fn bodies<'d>(&self, body: &'d [u8]) -> Vec<Cow<'d, [u8]>> {
        self.scheme.forms.iter().filter_map(|form| self.signed(body, *form)).collect()
    }

    /// The request's headers cannot be read by the rules.
    fn unreadable(&self, headers: &HeaderMap, error: &SignatureError) -> Cause {
        match error {
            SignatureError::HeaderMissing(_) => {
                let alike = if self.scheme.header.of(headers).is_some() { None } else { alike(headers) };
                let more = alike.map(|other| format!("; there is {other}, which the rules do not read"));
                Cause::shown(
                    "header_missing",
                    format!("the request has {error}{}", more.unwrap_or_default()),
                    "check that the provider signs (its settings may have no secret yet), and that no proxy drops \
                     the header",
                )
            }
            SignatureError::HeaderRepeated(_) => Cause::shown(
                "header_twice",
                format!("{error}: which value counts would be a guess"),
                "look for what adds the header a second time on the way, such as a proxy",
            ),
            SignatureError::HeaderNotAscii(_)
            | SignatureError::TimeMissing(_)
            | SignatureError::TimeRepeated(_)
            | SignatureError::TimeMalformed
            | SignatureError::AmbiguousSeparator => Cause::shown(
                "header_unreadable",
                format!("a header cannot be read by the source's rules: {error}"),
                "compare the header with what the provider sends, and the rules below source.NAME.signature with its \
                 page; if they agree, look for what rewrites headers on the way",
            ),
            SignatureError::PrefixMissing
            | SignatureError::NoSignature
            | SignatureError::TooManySignatures(_)
            | SignatureError::Undecodable { .. } => Cause::shown(
                "encoding",
                format!("the signature cannot be read: {error}; expected is {}", self.scheme.expected()),
                "compare the rules below source.NAME.signature with the provider's page",
            ),
        }
    }
}

impl CauseSearch<'_> {
    /// The first of `keys` that made a claimed signature over the body, whatever its binding.
    fn maker<'k>(&mut self, claim: &Claim<'_>, keys: &'k [Arc<SigningKey>]) -> Option<&'k SigningKey> {
        let Self { verifier, bodies, budget, .. } = self;
        bodies.iter().find_map(|body| {
            let allowed = budget.take(body.len(), keys.len());
            keys.iter().find(|key| allowed && verifier.matches(claim, body, key)).map(|key| &**key)
        })
    }

    fn removed(&mut self, claim: &Claim<'_>) -> Option<Cause> {
        // If two removed secrets have the same name, the last one removed.
        let mut newest_first = self.verifier.removed.iter().rev();
        let old = newest_first.find(|old| self.maker(claim, std::slice::from_ref(&old.key)).is_some())?;
        let (name, at) = (&old.key.name, time(old.at));
        let text = match self.verifier.keys.iter().any(|key| key.name == *name) {
            true => format!("the body matches the former secret {name}, replaced by the reload at {at}"),
            false => format!("the body matches secret {name}, removed by the reload at {at}"),
        };
        let next = "restore the old secret next to the new one until the sender has switched";
        Some(Cause::shown("secret_removed", text, next))
    }

    /// A delivery for another source, or one signed with another source's secret.
    fn other_source(&mut self, claim: Option<&Claim<'_>>, others: &[Other<'_>]) -> Option<Cause> {
        others.iter().find_map(|Other { source, verifier }| {
            let mut schemes = verifier.schemes.iter();
            if let Some(key) =
                claim.and_then(|claim| schemes.find_map(|other| self.maker(claim, &other.keys)))
            {
                return Some(Cause::other_secret(source, &key.name));
            }
            let tries = verifier.schemes.iter().map(|scheme| scheme.keys.len() * scheme.scheme.forms.len());
            let allowed = self.budget.take(self.delivery.body.len(), tries.sum());
            let verified = allowed.then(|| verifier.verify(self.delivery).ok())??;
            let text = format!(
                "this is a delivery of the source {source}: it verifies by its rules, with secret {}",
                verified.secret()
            );
            Some(Cause::shown("other_source", text, format!("have the provider call /hooks/{source}")))
        })
    }

    /// The right secret over other bytes with the same JSON.
    fn reserialized_body(&mut self, claim: &Claim<'_>) -> Option<Cause> {
        let Self { verifier, delivery, budget, .. } = self;
        if verifier.is_token() {
            return None;
        }
        // Removed secrets are not tried: they would not explain this better.
        let (spelling, key) = reserialize::search(&delivery.body, |text| {
            let allowed = budget.take(text.len(), verifier.keys.len());
            verifier.keys.iter().find(|key| allowed && verifier.matches(claim, text, key))
        })?;
        let text = format!("the body was changed on the way: secret {} signed it {spelling}", key.name);
        Some(Cause::shown(
            "body_changed",
            text,
            "have every proxy, gateway and function before hookstream pass the body on byte for byte: it must \
             not parse the JSON and serialize it again",
        ))
    }

    fn no_match(&self) -> Cause {
        let cut = if self.budget.exceeded { "; the body is so long that not all could be tried" } else { "" };
        if self.verifier.is_token() {
            let text = format!("the token is none of the configured secrets{cut}");
            let next = "compare the provider's token with the configured secret";
            return Cause::guessed("wrong_secret", text, next);
        }
        let spellings = match crate::json::check(&self.delivery.body) {
            Ok(_) => format!("over the body in none of up to {} spellings", reserialize::COUNT),
            Err(_) => "over the body as received; it is not JSON, so no other spelling was tried".to_owned(),
        };
        let text =
            format!("most likely a wrong secret: no configured secret made this signature, {spellings}{cut}");
        Cause::guessed(
            "wrong_secret",
            text,
            "compare the provider's secret with the configured one; if they are the same, the content of the body \
             was changed on the way",
        )
    }
}

impl Cause {
    /// The secret of another source.
    pub(in crate::verify) fn other_secret(source: &str, name: &str) -> Self {
        let text = format!("the body matches secret {name} of the source {source}");
        let next = format!(
            "have the provider call /hooks/{source}, or give it the secret of the source that it calls"
        );
        Self::shown("other_source_secret", text, next)
    }
}

/// A header whose name suggests a signature. The sender chooses the name, so a long one is not shown.
fn alike(headers: &HeaderMap) -> Option<&HeaderName> {
    let words = ["signature", "hmac", "token", "digest"];
    headers.keys().find(|name| {
        let name = name.as_str();
        name.len() <= 64 && words.iter().any(|word| name.contains(word))
    })
}
