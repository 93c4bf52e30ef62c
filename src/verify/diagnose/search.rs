//! Tries other secrets and other bytes until one makes a signature that the request claims.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::super::scheme::{Claim, HeaderFormat};
use super::super::{HeaderNames, SchemeVerifier, SignatureError, SigningKey};
use super::labels::labels;
use super::{Cause, Other, recoded, reserialize, time};
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

/// The number of headers that are examined for a signature beside the one that the rules read.
const MAX_HEADERS: usize = 64;

/// The search for the cause of one refusal.
struct CauseSearch<'a> {
    verifier: &'a SchemeVerifier,
    delivery: &'a Delivery,
    /// The body in each form of the rules.
    bodies: Vec<Cow<'a, [u8]>>,
    budget: HashBudget,
    /// The number of other forms of the body that were tried.
    tried: usize,
}

impl SchemeVerifier {
    /// The cause of a signature that is missing, cannot be read or matches no secret. The cheap tries come first, and the
    /// first match is the cause.
    pub(super) fn search(&self, delivery: &Delivery, others: &[Other<'_>], budget: usize) -> Cause {
        let (bodies, budget) = (self.bodies(&delivery.body), HashBudget::new(budget));
        let mut search = CauseSearch { verifier: self, delivery, bodies, budget, tried: 0 };
        let claim = self.claim(delivery);
        let read = claim.as_ref().ok();
        read.and_then(|claim| search.removed(claim))
            .or_else(|| search.other_source(read, others))
            .or_else(|| search.other_header())
            .or_else(|| search.other_body(read?))
            .unwrap_or_else(|| match &claim {
                Ok(_) => search.no_match(others),
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
                "find out whether the sender or something on the way, such as a proxy, adds the header a second time",
            ),
            SignatureError::HeaderNotAscii(_)
            | SignatureError::TimeMissing(_)
            | SignatureError::TimeRepeated(_)
            | SignatureError::TimeMalformed(_)
            | SignatureError::AmbiguousSeparator
            | SignatureError::Challenge => Cause::shown(
                "header_unreadable",
                format!("a header cannot be read by the source's rules: {error}"),
                "compare the header with what the provider sends, and the rules below source.NAME.signature with its \
                 page; if they agree, look for what rewrites headers on the way",
            ),
            SignatureError::NoSignature => self.not_listed(headers, error),
            SignatureError::PrefixMissing
            | SignatureError::TooManySignatures(_)
            | SignatureError::Undecodable { .. } => Cause::shown(
                "encoding",
                format!("the signature cannot be read: {error}; expected is {}", self.scheme.expected()),
                "compare the rules below source.NAME.signature with the provider's page",
            ),
        }
    }

    /// The list of signatures has none under the key or version of the rules.
    fn not_listed(&self, headers: &HeaderMap, error: &SignatureError) -> Cause {
        let labels = labels(&self.scheme, headers);
        let has = match &*labels.join("`, `") {
            "" => String::new(),
            labels => format!(", which has `{labels}`"),
        };
        let text = format!("{error}{has}; expected is {}", self.scheme.expected());
        let next = match &self.scheme.layout {
            // Standard Webhooks: an ed25519 signature.
            HeaderFormat::Versions { version } if version == "v1" && labels.contains(&"v1a") => {
                "have the provider sign with a shared secret (`v1`): `v1a` is made with a private key, and hookstream \
                 does not verify such signatures"
            }
            _ => "compare the rules below source.NAME.signature with the provider's page",
        };
        Cause::shown("encoding", text, next)
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

    /// A right signature in a header that the rules do not read.
    fn other_header(&mut self) -> Option<Cause> {
        let verifier = self.verifier;
        let read = |name: &HeaderName| verifier.scheme.header.iter().any(|read| read == name);
        let others = self.delivery.headers.keys().filter(|name| !read(name)).take(MAX_HEADERS);
        let (name, key) = others.into_iter().find_map(|name| {
            let claim = verifier.scheme.claim_in(&HeaderNames::from(name.clone()), &self.delivery.headers);
            Some((name, self.maker(&claim.ok()?, &verifier.keys)?))
        })?;
        let (header, secret) = (&verifier.scheme.header, &key.name);
        let what = if verifier.is_token() { "token" } else { "signature" };
        let text = format!("the {what} in {name} is that of secret {secret}, but the rules read {header}");
        Some(Cause::shown(
            "other_header",
            text,
            "name that header in source.NAME.signature.header if the provider documents it; otherwise look for what \
             renames headers on the way",
        ))
    }

    /// The right secret over other bytes: the same JSON in another spelling, or the body before a gateway recoded it.
    fn other_body(&mut self, claim: &Claim<'_>) -> Option<Cause> {
        let Self { verifier, delivery, budget, tried, .. } = self;
        if verifier.is_token() {
            return None;
        }
        // Removed secrets are not tried: they would not explain this better.
        let searched = reserialize::search(&delivery.body, |text| {
            if !budget.take(text.len(), verifier.keys.len()) {
                return ControlFlow::Break(None);
            }
            match verifier.keys.iter().find(|key| verifier.matches(claim, text, key)) {
                Some(key) => ControlFlow::Break(Some(key)),
                None => ControlFlow::Continue(()),
            }
        });
        *tried = searched.tried;
        let (form, key) = searched.found?;
        let text = format!("secret {} signed this body {form}, not the bytes that were received", key.name);
        Some(match form == recoded::DECODED {
            true => Cause::shown(
                "content_encoding",
                text,
                "set content_encoding = \"signed_decoded\" if the provider compresses what it has signed; if a proxy \
                 compresses it, have the proxy pass it on as it is",
            ),
            false => Cause::shown(
                "body_changed",
                text,
                "have every proxy, gateway and function before hookstream pass the body on byte for byte: it must not \
                 parse the JSON and serialize it again; if none does, the sender signs another text than it sends: see \
                 signature.forms",
            ),
        })
    }

    /// Says what was tried, and asserts no cause: a wrong secret looks the same as a body whose content was changed.
    fn no_match(&self, others: &[Other<'_>]) -> Cause {
        let Self { verifier, delivery, budget, tried, .. } = self;
        if verifier.is_token() {
            let text = "the token is none of the configured secrets";
            let next = "compare the provider's token with the configured secret";
            return Cause::guessed("wrong_secret", text, next);
        }
        let next = "compare the provider's secret with the configured one, then the rules below source.NAME.signature \
                    with the provider's page; if both agree, compare the body with the one that was sent";
        if delivery.body.is_empty() {
            return Cause::guessed(
                "body_empty",
                "no configured secret signed an empty body, and the body is empty",
                "if the provider sent a body, look for what read it on the way without passing it on, such as a \
                 function or middleware; otherwise compare the provider's secret with the configured one",
            );
        }
        let mut text =
            "cause not found: no secret of this source made the signature, neither over the body as \
                        received nor over "
                .to_owned();
        text += &match tried {
            1 => "1 other form of it".to_owned(),
            _ => format!("{tried} other forms of it (white space, escapes, order of members, encodings)"),
        };
        if !verifier.removed.is_empty() {
            text += "; nor did one that a reload removed";
        }
        if !others.is_empty() {
            text += "; nor did one of another source";
        }
        if budget.exceeded {
            text += "; the body is so long that not all could be tried";
        }
        Cause::guessed("not_found", text, next)
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
