//! What `hookstream explain` tells of a delivery: each step of the verification, and of a refusal also the causes that need
//! the text of the secrets or a lenient reading of the headers. The running service has neither at hand.

mod key_mistakes;
mod lenient_parse;
mod steps;

use std::collections::BTreeMap;

use serde::Serialize;
use subtle::ConstantTimeEq as _;

use super::diagnose::{Cause, HashBudget, Other, first_shown};
use super::digest::{self, Signer};
use super::{SchemeVerifier, Verifier};
use crate::config::Secret;
use crate::delivery::Delivery;
use crate::outcome::{Fault, Reason};
use lenient_parse::Reading;

/// The bytes that one search may hash: about a second.
const BUDGET: usize = 1024 * 1024 * 1024;

/// The configured secrets, of which a verifier has the key schedules only.
pub struct ConfiguredSecrets<'a> {
    /// The delivery's source.
    pub source: &'a str,
    /// The secrets of all sources.
    pub all: &'a BTreeMap<String, Vec<Secret>>,
}

/// The findings step by step, and the likely cause of a refusal.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// Whether the delivery was accepted.
    pub valid: bool,
    /// The label of the refusal's reason, as in log and metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The detail of the refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// In the order in which the verifier works.
    pub steps: Vec<DiagnosisStep>,
    /// The likely cause of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// One step of the verification.
#[derive(Debug, Serialize)]
pub struct DiagnosisStep {
    /// `header`, `signature`, `time`, `signed` or `secrets`.
    pub step: &'static str,
    /// `false` if this step explains the refusal; `None` if it was not reached.
    pub ok: Option<bool>,
    /// What was found and what was expected.
    pub text: String,
}

impl Verifier {
    /// Examines a delivery step by step: by the scheme that accepts it, or whose check came furthest. `refusal` is the
    /// fault from [`Verifier::verify`] or about the age; `None` for an accepted delivery.
    pub fn explain(
        &self,
        delivery: &Delivery,
        refusal: Option<&Fault>,
        secrets: &ConfiguredSecrets<'_>,
        others: &[Other<'_>],
    ) -> Diagnosis {
        let schemes = self.furthest(delivery);
        let cause = |scheme: &&SchemeVerifier| {
            let fault = refusal?;
            let misused = match fault.reason {
                Reason::SignatureMissing | Reason::SignatureMalformed | Reason::SignatureMismatch => {
                    scheme.misused_secret(delivery, secrets)
                }
                _ => None,
            };
            misused.or_else(|| scheme.cause(delivery, fault, others, BUDGET))
        };
        Diagnosis {
            valid: refusal.is_none(),
            reason: refusal.map(|fault| fault.reason.info().label),
            detail: refusal.and_then(|fault| fault.detail.as_deref().map(str::to_owned)),
            steps: schemes.first().map(|scheme| scheme.steps(delivery, refusal)).unwrap_or_default(),
            cause: first_shown(schemes.iter().filter_map(cause)),
        }
    }
}

impl SchemeVerifier {
    /// A configured secret that made the signature, but not as the rules say: in another place or format, over another
    /// text, from another spelling of the secret, or for another source.
    fn misused_secret(&self, delivery: &Delivery, secrets: &ConfiguredSecrets<'_>) -> Option<Cause> {
        let scheme = &self.scheme;
        let values = lenient_parse::values(scheme, &delivery.headers)?;
        let readings = lenient_parse::readings(scheme, &delivery.headers);
        let bodies = self.bodies(&delivery.body);
        let mut budget = HashBudget::new(BUDGET);
        let mut reading_of = |key: &[u8], body_alone: bool| -> Option<&Reading> {
            let made = |reading: &&Reading, body: &[u8]| {
                let digest = match reading.hash.map(|hash| Signer::new(hash, key)) {
                    None => digest::token(key),
                    Some(signer) if body_alone => signer?.digest(std::iter::once(body)),
                    Some(signer) => signer?.digest(scheme.template.pieces(&values, body)),
                };
                bool::from(reading.digest.ct_eq(&digest)).then_some(())
            };
            bodies.iter().find_map(|body| {
                let allowed = budget.take(body.len(), readings.len());
                readings.iter().find(|reading| allowed && made(reading, body).is_some())
            })
        };

        let own = secrets.all.get(secrets.source).map(Vec::as_slice).unwrap_or_default();
        let own = || own.iter().filter_map(|secret| Some((secret, secret.key(self.index)?)));
        for (secret, key) in own() {
            let Some(Reading { odd, .. }) = reading_of(key, false) else { continue };
            // Otherwise something else than the signature is wrong, such as a repeated header.
            return (!odd.is_empty()).then(|| {
                Cause::shown(
                    "encoding",
                    format!("the signature is that of secret {}, but {odd}", secret.name),
                    "correct the rules below source.NAME.signature (header, prefix, encoding, hash) if the provider \
                     documents it so; otherwise look for what rewrites the header on the way",
                )
            });
        }
        if !self.is_token()
            && !scheme.template.is_body()
            && let Some((secret, _)) = own().find(|(_, key)| reading_of(key, true).is_some())
        {
            return Some(Cause::shown(
                "signed_text",
                format!(
                    "the signature is that of secret {} over the body alone; by the rules more than the body is signed",
                    secret.name
                ),
                "have the sender sign what the provider documents, or set signature.signed = \"{body}\" if only the \
                 body is signed",
            ));
        }
        for (secret, key) in own() {
            let mistakes = key_mistakes::of(self.secret_format, key);
            if let Some(mistake) = mistakes.iter().find(|other| reading_of(&other.key, false).is_some()) {
                let text = format!("the signature is that of secret {}, but {}", secret.name, mistake.what);
                return Some(Cause::shown(mistake.kind, text, mistake.next));
            }
        }
        let others = secrets.all.iter().filter(|(source, _)| *source != secrets.source);
        let mut others = others.flat_map(|(source, all)| all.iter().map(move |secret| (source, secret)));
        let (source, secret) =
            others.find(|(_, secret)| secret.keys().any(|key| reading_of(key, false).is_some()))?;
        Some(Cause::other_secret(source, &secret.name))
    }
}
