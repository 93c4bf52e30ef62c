//! Tries keys and texts until one makes a signature that the request has.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use subtle::ConstantTimeEq as _;

use super::super::alternate_keys::{AlternateKeys, KeyMistake};
use super::super::digest::Signer;
use super::super::template::Values;
use super::super::{SignatureError, Verifier};
use super::lenient_parse::{self, Reading};
use super::{Cause, Other, reserialize, time};
use crate::config::{BodyForm, Hash, SecretFormat};
use crate::delivery::Delivery;

/// The cost of a try in addition to the bytes that it hashes.
const TRY: usize = 1024;

/// What to do about a header that came more than once.
const REPEATED: &str = "look for what adds the header a second time on the way, such as a proxy";

/// What to do about a header that cannot be read by the rules.
const COMPARE: &str = "compare the header with what the provider sends, and the rules below source.NAME.signature with \
    its page; if they agree, look for what rewrites headers on the way";

/// The search for the cause of one refusal.
struct CauseSearch<'a> {
    verifier: &'a Verifier,
    delivery: &'a Delivery,
    readings: Vec<Reading>,
    /// `None` if a signed value is missing.
    values: Option<Values<'a>>,
    budget: usize,
    /// Whether the budget did not allow every try.
    cut: bool,
}

/// The text that a key is tried over.
#[derive(Clone, Copy)]
enum SignedText<'b> {
    /// The text of the rules with this body.
    Rules(&'b [u8]),
    /// Only the body.
    Body(&'b [u8]),
}

impl Verifier {
    /// The cause of a signature that is missing, cannot be read or matches no secret. The cheap tries come first, and the
    /// first match is the cause.
    pub(super) fn search(&self, delivery: &Delivery, others: &[Other<'_>], budget: usize) -> Cause {
        let mut search = CauseSearch {
            verifier: self,
            delivery,
            readings: lenient_parse::readings(&self.scheme, &delivery.headers),
            values: lenient_parse::values(&self.scheme, &delivery.headers),
            budget,
            cut: false,
        };
        let found = search
            .misplaced_signature()
            .or_else(|| search.body_alone())
            .or_else(|| search.misread())
            .or_else(|| search.removed())
            .or_else(|| search.other_source(others))
            .or_else(|| search.reserialized_body());
        found.unwrap_or_else(|| search.unknown())
    }

    /// The hash of the rules; `None` for a token.
    fn hash(&self) -> Option<Hash> {
        (!self.is_token()).then_some(self.scheme.written.hash)
    }
}

impl<'a> CauseSearch<'a> {
    /// The index of the reading that this secret made, with whatever hash.
    fn hit(&mut self, spare: &AlternateKeys, over: SignedText<'_>) -> Option<usize> {
        let mut hashes = Vec::with_capacity(1);
        for reading in &self.readings {
            if !hashes.contains(&reading.hash) {
                hashes.push(reading.hash);
            }
        }
        hashes.into_iter().find_map(|hash| self.hit_with(hash, spare.mac(hash), over))
    }

    fn hit_with(&mut self, hash: Option<Hash>, mac: &Signer, over: SignedText<'_>) -> Option<usize> {
        if !self.readings.iter().any(|reading| reading.hash == hash) {
            return None;
        }
        let (SignedText::Rules(body) | SignedText::Body(body)) = over;
        let cost = if hash.is_some() { body.len() + TRY } else { TRY };
        if cost > self.budget {
            self.cut = true;
            return None;
        }
        self.budget -= cost;
        let made = match over {
            SignedText::Body(body) => mac.digest(std::iter::once(body)),
            SignedText::Rules(body) => {
                mac.digest(self.verifier.scheme.template.pieces(self.values.as_ref()?, body))
            }
        };
        let is = |reading: &Reading| reading.hash == hash && bool::from(reading.digest.ct_eq(&made));
        self.readings.iter().position(is)
    }

    /// The body in each form of the rules.
    fn forms(&self) -> Vec<std::borrow::Cow<'a, [u8]>> {
        let forms: &[BodyForm] = &self.verifier.scheme.forms;
        forms.iter().filter_map(|form| self.verifier.signed(&self.delivery.body, *form)).collect()
    }

    /// The right signature, but in another place or format than the rules expect.
    fn misplaced_signature(&mut self) -> Option<Cause> {
        let verifier = self.verifier;
        for form in self.forms() {
            for key in &verifier.keys {
                let Some(at) = self.hit(&key.spare, SignedText::Rules(&form)) else { continue };
                let name = &key.name;
                let odd = self.readings.get(at).map(|reading| reading.odd.join("; ")).unwrap_or_default();
                if !odd.is_empty() {
                    let text = format!("the signature is that of secret {name}, but {odd}");
                    return Some(Cause::shown(
                        "encoding",
                        text,
                        "correct the rules below source.NAME.signature (header, prefix, encoding, hash) if the \
                         provider documents it so; otherwise look for what rewrites the header on the way",
                    ));
                }
                let error = verifier.claim(self.delivery).err();
                let (kind, next) = match &error {
                    Some(SignatureError::HeaderRepeated(_)) => ("header_twice", REPEATED),
                    Some(SignatureError::TimeRepeated(_)) => ("header_unreadable", COMPARE),
                    _ => ("header_unreadable", "look for what adds or rewrites headers on the way"),
                };
                let why =
                    error.map_or_else(|| String::from("a header cannot be read"), |error| error.to_string());
                let text = format!("the signature is that of secret {name}, but {why}");
                return Some(Cause::shown(kind, text, next));
            }
        }
        None
    }

    fn body_alone(&mut self) -> Option<Cause> {
        let verifier = self.verifier;
        if verifier.is_token() || verifier.scheme.template.is_body() {
            return None;
        }
        for form in self.forms() {
            for key in &verifier.keys {
                if self.hit(&key.spare, SignedText::Body(&form)).is_some() {
                    let text = format!(
                        "the signature is that of secret {} over the body alone; by the rules more than the body is signed",
                        key.name
                    );
                    return Some(Cause::shown(
                        "signed_text",
                        text,
                        "have the sender sign what the provider documents, or set signature.signed = \"{body}\" \
                         if only the body is signed",
                    ));
                }
            }
        }
        None
    }

    /// The right secret, decoded to another key.
    fn misread(&mut self) -> Option<Cause> {
        let verifier = self.verifier;
        let forms = self.forms();
        for key in &verifier.keys {
            for (how, mac) in &key.spare.misread {
                for form in &forms {
                    if self.hit_with(verifier.hash(), mac, SignedText::Rules(form)).is_some() {
                        return Some(misread(*how, &key.name));
                    }
                }
            }
        }
        None
    }

    fn removed(&mut self) -> Option<Cause> {
        let verifier = self.verifier;
        let forms = self.forms();
        // If two removed secrets have the same name, the last one removed.
        for old in verifier.removed.iter().rev() {
            for form in &forms {
                if self.hit(&old.spare, SignedText::Rules(form)).is_none() {
                    continue;
                }
                let (name, at) = (&old.name, time(old.at));
                let replaced = verifier.keys.iter().any(|key| key.name == *name);
                let text = if replaced {
                    format!("the body matches the former secret {name}, replaced by the reload at {at}")
                } else {
                    format!("the body matches secret {name}, removed by the reload at {at}")
                };
                return Some(Cause::shown(
                    "secret_removed",
                    text,
                    "restore the old secret next to the new one until the sender has switched",
                ));
            }
        }
        None
    }

    /// A delivery for another source, or one signed with another source's secret.
    fn other_source(&mut self, others: &[Other<'_>]) -> Option<Cause> {
        let bytes = self.delivery.body.len();
        let forms = self.forms();
        for Other { source, verifier } in others {
            let keys = verifier.keys.len().max(1);
            let cost = verifier.scheme.forms.len().saturating_mul(keys).saturating_mul(bytes + TRY);
            if cost > self.budget {
                self.cut = true;
                continue;
            }
            self.budget -= cost;
            for key in &verifier.keys {
                for form in &forms {
                    if self.hit(&key.spare, SignedText::Rules(form)).is_some() {
                        let text = format!("the body matches secret {} of the source {source}", key.name);
                        let next = format!(
                            "have the provider call /hooks/{source}, or give it the secret of the source that it calls"
                        );
                        return Some(Cause::shown("other_source_secret", text, next));
                    }
                }
            }
            if let Ok(verified) = verifier.verify(self.delivery) {
                let secret = verified.secret();
                let text = format!(
                    "this is a delivery of the source {source}: it verifies by its rules, with secret {secret}"
                );
                let next = format!("have the provider call /hooks/{source}");
                return Some(Cause::shown("other_source", text, next));
            }
        }
        None
    }

    /// The right secret over other bytes with the same JSON.
    fn reserialized_body(&mut self) -> Option<Cause> {
        let verifier = self.verifier;
        if verifier.is_token() || self.readings.is_empty() || self.values.is_none() {
            return None;
        }
        let body = &self.delivery.body;
        let mut secret: Option<Arc<str>> = None;
        // Removed secrets are not tried: they would not explain this better.
        let name = reserialize::search(body, |text| {
            let found =
                verifier.keys.iter().find(|key| self.hit(&key.spare, SignedText::Rules(text)).is_some());
            secret = found.map(|key| key.name.clone());
            secret.is_some()
        })?;
        let text = format!(
            "the body was changed on the way: secret {} signed it {name}",
            secret.as_deref().unwrap_or_default()
        );
        Some(Cause::shown(
            "body_changed",
            text,
            "have every proxy, gateway and function before hookstream pass the body on byte for byte: it must \
             not parse the JSON and serialize it again",
        ))
    }

    /// Nothing matched: the cause as far as the request itself shows it.
    fn unknown(&self) -> Cause {
        let headers = &self.delivery.headers;
        let scheme = &self.verifier.scheme;
        let Err(error) = self.verifier.claim(self.delivery) else { return self.no_match() };
        match &error {
            SignatureError::HeaderMissing(_) => {
                let alike = if scheme.header.of(headers).is_some() { None } else { alike(headers) };
                let more = match alike {
                    Some(other) => format!("; there is {other}, which the rules do not read"),
                    None => String::new(),
                };
                Cause::shown(
                    "header_missing",
                    format!("the request has {error}{more}"),
                    "check that the provider signs (its settings may have no secret yet), and that no proxy drops \
                     the header",
                )
            }
            SignatureError::HeaderRepeated(_) => Cause::shown(
                "header_twice",
                format!("{error}: which value counts would be a guess"),
                REPEATED,
            ),
            SignatureError::HeaderNotAscii(_)
            | SignatureError::TimeMissing(_)
            | SignatureError::TimeRepeated(_)
            | SignatureError::TimeMalformed
            | SignatureError::AmbiguousSeparator => Cause::shown(
                "header_unreadable",
                format!("a header cannot be read by the source's rules: {error}"),
                COMPARE,
            ),
            SignatureError::PrefixMissing
            | SignatureError::NoSignature
            | SignatureError::TooManySignatures(_)
            | SignatureError::Undecodable { .. } => Cause::shown(
                "encoding",
                format!("the signature cannot be read: {error}; expected is {}", self.verifier.expected()),
                "compare the rules below source.NAME.signature with the provider's page",
            ),
        }
    }

    fn no_match(&self) -> Cause {
        let cut = if self.cut { "; the body is so long that not all could be tried" } else { "" };
        if self.verifier.is_token() {
            let text = format!("the token is none of the configured secrets{cut}");
            return Cause::guessed(
                "wrong_secret",
                text,
                "compare the provider's token with the configured secret",
            );
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

fn misread(how: KeyMistake, name: &str) -> Cause {
    let kind = match how {
        KeyMistake::LineEnd | KeyMistake::Blank | KeyMistake::Quoted => "secret_whitespace",
        KeyMistake::As(_) | KeyMistake::WithoutPrefix => "secret_format",
    };
    let (what, next) = match how {
        KeyMistake::LineEnd => (
            "the provider's ends with a line end".to_owned(),
            "set the secret at the provider again, without the line end",
        ),
        KeyMistake::Blank => (
            "the one configured here has white space around it".to_owned(),
            "write the secret without white space: `printf %s` instead of `echo`, no second newline in its file",
        ),
        KeyMistake::Quoted => (
            "the one configured here has quotes around it".to_owned(),
            "write the secret without quotes: some env files leave them",
        ),
        KeyMistake::As(format) => (
            format!("the provider takes its text as {}", format_name(format)),
            "set signature.secret_format to what the provider documents",
        ),
        KeyMistake::WithoutPrefix => (
            "the provider signs with the text after `whsec_`, without decoding it".to_owned(),
            "configure the secret without `whsec_`, with signature.secret_format = \"text\"",
        ),
    };
    Cause::shown(kind, format!("the signature is that of secret {name}, but {what}"), next)
}

fn format_name(format: SecretFormat) -> &'static str {
    match format {
        SecretFormat::Text => "plain text (secret_format = \"text\")",
        SecretFormat::Base64 => "base64 (secret_format = \"base64\")",
        SecretFormat::Whsec => "`whsec_` and base64 (secret_format = \"whsec\")",
        SecretFormat::Hex => "hex (secret_format = \"hex\")",
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
