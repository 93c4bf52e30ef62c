//! The steps of the verification, and what each one found.

use http::HeaderMap;

use super::super::diagnose::{span, time};
use super::super::header_names::HeaderNames;
use super::super::scheme::HeaderFormat;
use super::super::search::Progress;
use super::super::{SchemeVerifier, SignatureError, SigningKey};
use super::{DiagnosisStep, lenient_parse};
use crate::config::{BodyForm, ValidityWindow};
use crate::delivery::Delivery;
use crate::outcome::{Fault, Reason};

/// The number of secrets that are named; the rest are counted.
const NAMED: usize = 8;

impl SchemeVerifier {
    pub(super) fn steps(&self, delivery: &Delivery, refusal: Option<&Fault>) -> Vec<DiagnosisStep> {
        let scheme = &self.scheme;
        let mut names = vec![&scheme.header];
        for name in scheme.timestamp_header.iter().chain(&scheme.template.headers) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut steps: Vec<DiagnosisStep> =
            names.into_iter().map(|names| header(names, &delivery.headers)).collect();
        if scheme.header.of(&delivery.headers).is_some() {
            steps.push(self.signature_step(delivery));
        }
        steps.extend(self.time_step(delivery, refusal));
        steps.push(self.signed_step(delivery));
        steps.push(self.secrets_step(delivery, refusal));
        steps
    }

    fn signature_step(&self, delivery: &Delivery) -> DiagnosisStep {
        let expected = self.scheme.expected();
        let found = lenient_parse::shapes(&self.scheme, &delivery.headers).join(", ");
        match self.claim(delivery) {
            // A missing header has a step of its own.
            Err(error) if !matches!(error, SignatureError::HeaderMissing(_)) => DiagnosisStep {
                step: "signature",
                ok: Some(false),
                text: format!("expected {expected}; found {found}: {error}"),
            },
            _ => DiagnosisStep {
                step: "signature",
                ok: Some(true),
                text: format!("{found}; expected {expected}"),
            },
        }
    }

    /// `None` if no time is signed.
    fn time_step(&self, delivery: &Delivery, refusal: Option<&Fault>) -> Option<DiagnosisStep> {
        if !self.scheme.template.has_time() {
            return None;
        }
        let step = |ok, text: String| Some(DiagnosisStep { step: "time", ok: Some(ok), text });
        if let Err(SignatureError::TimeRepeated(_)) = self.claim(delivery) {
            return step(false, "there is more than one signed time".to_owned());
        }
        let Some(values) = lenient_parse::values(&self.scheme, &delivery.headers) else {
            return step(false, "no signed time was found".to_owned());
        };
        if let Err(error) = self.scheme.check_time(values.timestamp) {
            return step(false, error.to_string());
        }
        let now = delivery.received_at;
        let age = self.scheme.time.age(values.timestamp, now)?;
        let far = span(age.unsigned_abs().as_secs());
        let side = if age.is_negative() { "after" } else { "before" };
        let at = now.checked_sub(age).map_or_else(|_| "a time that is out of range".to_owned(), time);
        let stale = refusal.filter(|fault| fault.reason == Reason::StaleRejected);
        let more = stale.and_then(|fault| fault.detail.as_deref()).map(|detail| format!(": {detail}"));
        step(stale.is_none(), format!("signed at {at}, {far} {side} its receipt{}", more.unwrap_or_default()))
    }

    fn signed_step(&self, delivery: &Delivery) -> DiagnosisStep {
        let body = delivery.body.len();
        let step = |ok, text| DiagnosisStep { step: "signed", ok: Some(ok), text };
        if matches!(self.scheme.layout, HeaderFormat::Token { .. }) {
            return step(true, format!("nothing: a token only identifies the sender; {body} bytes of body"));
        }
        let Some(values) = lenient_parse::values(&self.scheme, &delivery.headers) else {
            return step(false, format!("a signed value besides the body is missing; {body} bytes of body"));
        };
        let mut text = self.scheme.template.describe(&values, body);
        for form in &self.scheme.forms {
            let form = match (form, self.signed(&delivery.body, *form)) {
                (BodyForm::Raw, _) => "; as received".to_owned(),
                (form, Some(signed)) => format!("; as {}: {} bytes", form.label(), signed.len()),
                (form, None) if crate::json::check(&delivery.body).is_ok() => {
                    format!("; {} is identical", form.label())
                }
                (form, None) => format!("; {} does not exist, the body is not JSON", form.label()),
            };
            text.push_str(&form);
        }
        step(true, text)
    }

    fn secrets_step(&self, delivery: &Delivery, refusal: Option<&Fault>) -> DiagnosisStep {
        let now = delivery.received_at;
        let mut names: Vec<String> = self.keys.iter().take(NAMED).map(|key| named(key, now)).collect();
        if self.keys.len() > NAMED {
            names.push(format!("{} more", self.keys.len() - NAMED));
        }
        let names = names.join(", ");
        let (ok, text) = match refusal {
            None => match self.verify(delivery, &mut Progress::default()) {
                Ok((key, form, _)) => {
                    (Some(true), format!("{} made it, over the {} body", key.name, form.label()))
                }
                Err(fault) => (Some(false), fault.to_string()),
            },
            Some(fault) => match fault.reason {
                Reason::SignatureMissing | Reason::SignatureMalformed => {
                    (None, format!("not tried: {names}"))
                }
                Reason::SignatureMismatch => match self.broken(delivery) {
                    Some(why) => (Some(false), why),
                    None => (Some(false), format!("none of these made it: {names}")),
                },
                Reason::SecretExpired => {
                    (Some(false), fault.detail.as_deref().unwrap_or_default().to_owned())
                }
                _ => (Some(true), format!("one of these made it: {names}")),
            },
        };
        DiagnosisStep { step: "secrets", ok, text }
    }
}

fn named(key: &SigningKey, now: jiff::Timestamp) -> String {
    match key.window {
        ValidityWindow { not_before: Some(from), .. } if now < from => {
            format!("{} (valid from {})", key.name, time(from))
        }
        ValidityWindow { not_after: Some(until), .. } if now > until => {
            format!("{} (valid until {})", key.name, time(until))
        }
        ValidityWindow { .. } => key.name.to_string(),
    }
}

fn header(names: &HeaderNames, headers: &HeaderMap) -> DiagnosisStep {
    let Some(name) = names.of(headers) else {
        return DiagnosisStep { step: "header", ok: Some(false), text: format!("{names}: missing") };
    };
    let (ok, text) = match (headers.get(name), headers.get_all(name).iter().count()) {
        (None, _) => (false, format!("{name}: missing")),
        (Some(value), 1) if value.to_str().is_ok() => {
            (true, format!("{name}: once, {} characters", value.len()))
        }
        (Some(_), 1) => (false, format!("{name}: not ASCII")),
        (Some(_), n) => (false, format!("{name}: {n} times, must occur once")),
    };
    DiagnosisStep { step: "header", ok: Some(ok), text }
}
