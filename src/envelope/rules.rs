//! Compiles the configured rules of an envelope.

use std::collections::HashMap;

use http::{HeaderName, header};

use super::field_selector::{FieldPlace, FieldSelector};
use super::{Envelope, EventPlaces, Id, Key};
use crate::config::{self, ConfigErrors, EventIdRule, FirstOf, TextPart, TimeFormat};
use crate::json::Pointer;
use crate::names;

/// Whether the signature covers this header: the signed text includes its value. Of a signed header with several names,
/// the first that the request has is signed: any other is covered only if the rule tries the names `before` it first.
fn covers(signature: &config::Signature, header: &HeaderName, before: &[HeaderName]) -> bool {
    let Some(signed) = &signature.signed else { return false };
    let covered = |names: &[String]| {
        let is = |name: &&String| name.eq_ignore_ascii_case(header.as_str());
        let tried = |name: &String| before.iter().any(|tried| name.eq_ignore_ascii_case(tried.as_str()));
        names.iter().find(is).is_some() && names.iter().take_while(|name| !is(name)).all(tried)
    };
    let mut named = signed.split("{header:").skip(1).filter_map(|rest| rest.split_once('}'));
    signature.kind == config::SignatureKind::Hmac
        && (signed.contains("{id}") && covered(&signature.id_header)
            || signed.contains("{timestamp}") && covered(&signature.timestamp_header)
            || named.any(|(name, _)| covered(&[name.to_owned()])))
}

/// The state of compiling an envelope.
struct RuleCompiler<'a> {
    schemes: &'a [config::Signature],
    place: &'a str,
    problems: &'a mut ConfigErrors,
    headers: Vec<HeaderName>,
    unsigned: Vec<&'static str>,
    unsigned_headers: Vec<String>,
}

impl Envelope {
    /// Compiles the rules and reports every problem under `place`. A header is covered if each of the `schemes` covers it:
    /// then keys do not depend on the scheme of a delivery.
    pub fn compile(
        rules: &config::EnvelopeConfig,
        schemes: &[config::Signature],
        place: &str,
        problems: &mut ConfigErrors,
    ) -> Option<Self> {
        let before = problems.len();
        let mut compiler = RuleCompiler {
            schemes,
            place,
            problems,
            // It shows whether the body is a form, and generic records contain it.
            headers: vec![header::CONTENT_TYPE],
            unsigned: Vec::new(),
            unsigned_headers: Vec::new(),
        };
        let id = compiler.id(&rules.id);
        let event_type = compiler.places("type", &rules.event_type);
        let time = rules.time.as_ref().map(|time| compiler.places("time", time));
        let data = Pointer::parse(&rules.data);
        if data.is_none() {
            compiler
                .problem("data", "must be a JSON pointer such as \"/data\", or empty for the complete body");
        }
        if rules.default_type.as_ref().is_some_and(String::is_empty) {
            compiler.problem("default_type", "is empty; name an event type, or remove it");
        }
        if rules.aliases.iter().any(|(sent, routed)| sent.is_empty() || routed.is_empty()) {
            compiler.problem("aliases", "contains an empty event type");
        }
        let form = rules.payload.as_deref().map(|payload| payload.strip_prefix("form:").unwrap_or_default());
        if form.is_some_and(str::is_empty) {
            compiler.problem("payload", "must be \"form:\" and the name of the form's field");
        }
        let split = rules.split.as_deref().map(Pointer::parse);
        if split == Some(None) {
            compiler.problem(
                "split",
                "must be a JSON pointer such as \"/events\", or empty for the complete body",
            );
        }
        let keys = compiler.keys(rules);
        let RuleCompiler { headers, unsigned, unsigned_headers, .. } = compiler;
        let formats = &rules.time_format;
        if rules.time.is_some() && formats.is_empty() {
            problems.add(place, "lacks `time_format`; add it");
        }
        if [TimeFormat::UnixSeconds, TimeFormat::UnixMilliseconds].iter().all(|unit| formats.contains(unit)) {
            problems.add(format!("{place}.time_format"), "names two units of one number; keep one of them");
        }
        if problems.len() > before {
            return None;
        }
        let (id, event_type, time) = (id?, event_type?, time.flatten());
        let places = EventPlaces {
            id: id.iter().flat_map(Id::pointers).cloned().collect(),
            event_type: event_type.pointers().cloned().collect(),
            time: time.iter().flat_map(FieldSelector::pointers).cloned().collect(),
            data: data?,
        };
        Some(Self {
            id,
            event_type,
            default_type: rules.default_type.clone(),
            untyped: false,
            aliases: rules.aliases.clone().into_iter().collect(),
            time,
            time_formats: formats.clone(),
            split: split.flatten(),
            form: form.map(str::to_owned),
            places,
            keys,
            headers,
            key_with_binding: false,
            key_with_body: unsigned.iter().any(|field| matches!(*field, "id" | "type")),
            unsigned_headers,
            unsigned: (!unsigned.is_empty()).then(|| unsigned.join(",").into()),
        })
    }
}

impl RuleCompiler<'_> {
    fn problem(&mut self, field: &str, message: impl Into<String>) {
        self.problems.add(format!("{}.{field}", self.place), message);
    }

    fn id(&mut self, rules: &FirstOf<EventIdRule>) -> Option<Vec<Id>> {
        let before_last = rules.0.iter().rev().skip(1);
        if before_last.clone().any(|rule| *rule == EventIdRule::Digest) {
            self.problem("id", "has a place after \"digest\", which is always present; put \"digest\" last");
        }
        let mut before = Vec::new();
        let rules: Vec<_> = rules.0.iter().map(|rule| self.id_rule(rule, &mut before)).collect();
        rules.into_iter().collect()
    }

    /// `before` has the headers that are missing if this rule is tried.
    fn id_rule(&mut self, rule: &EventIdRule, before: &mut Vec<HeaderName>) -> Option<Id> {
        match rule {
            EventIdRule::Digest => Some(Id::Digest),
            EventIdRule::Part(part) => Some(Id::Part(FieldSelector(vec![self.part("id", part, before)?]))),
            EventIdRule::Join { parts, separator } => {
                let places: Vec<_> = parts.iter().filter_map(|part| self.places("id", part)).collect();
                if parts.len() < 2 {
                    self.problem("id", "joins fewer than two parts; use a single part, or add one");
                }
                if separator.is_empty() || separator.chars().any(char::is_control) {
                    self.problem("id", "needs a separator, so that different parts give different ids");
                }
                Some(Id::Join { parts: places, separator: separator.clone() })
            }
        }
    }

    /// Compiles the keys by type. An unsigned key concerns only records of its type.
    fn keys(&mut self, rules: &config::EnvelopeConfig) -> HashMap<String, Key> {
        let common = self.unsigned.clone();
        let mut keys = HashMap::new();
        for (event_type, parts) in &rules.keys {
            let Some(place) = self.places("keys", parts) else { continue };
            let unsigned = (self.unsigned.len() > common.len()).then(|| self.unsigned.join(",").into());
            self.unsigned.clone_from(&common);
            keys.insert(event_type.clone(), Key { place, unsigned });
        }
        keys
    }

    fn places(&mut self, setting: &'static str, parts: &FirstOf<TextPart>) -> Option<FieldSelector> {
        let mut before = Vec::new();
        let places: Vec<_> = parts.0.iter().map(|part| self.part(setting, part, &mut before)).collect();
        places.into_iter().collect::<Option<_>>().map(FieldSelector)
    }

    /// Adds the part to `before` if it is a header.
    fn part(
        &mut self,
        setting: &'static str,
        part: &TextPart,
        before: &mut Vec<HeaderName>,
    ) -> Option<FieldPlace> {
        let field = if setting == "keys" { "key" } else { setting };
        match part {
            TextPart::Pointer(text) => {
                let pointer = Pointer::parse(text).filter(|pointer| !pointer.names().is_empty());
                if pointer.is_none() {
                    self.problem(setting, format!("must be a JSON pointer such as \"/{field}\""));
                }
                pointer.map(FieldPlace::Pointer)
            }
            TextPart::Header { name, unsigned } => {
                let Ok(header) = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()) else {
                    self.problem(setting, "is not a valid HTTP header name");
                    return None;
                };
                if header.as_str().starts_with(names::HEADER_PREFIX) {
                    self.problem(setting, "reads one of hookstream's own headers; name the provider's");
                }
                if config::CREDENTIALS.contains(&header.as_str()) {
                    self.problem(setting, "reads a header with credentials, which no dead letter may store");
                }
                let mut carriers = self.schemes.iter().flat_map(|scheme| &scheme.header);
                if carriers.any(|name| header.as_str().eq_ignore_ascii_case(name)) {
                    self.problem(
                        setting,
                        "reads the signature header or the token itself; choose another header",
                    );
                }
                if !self.schemes.iter().all(|scheme| covers(scheme, &header, before)) {
                    if !unsigned {
                        let message = format!(
                            "reads the header {header}, which the signature does not cover: \
                             set `unsigned = true` to accept that"
                        );
                        self.problem(setting, message);
                    }
                    if !self.unsigned.contains(&field) {
                        self.unsigned.push(field);
                    }
                    if !self.unsigned_headers.contains(name) {
                        self.unsigned_headers.push(name.clone());
                    }
                }
                if !self.headers.contains(&header) {
                    self.headers.push(header.clone());
                }
                before.push(header.clone());
                Some(FieldPlace::Header(header))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_covered_if_the_signed_text_includes_it() {
        let rules = |signed: &str, more: &str| {
            let text = format!("header = \"x-sig\"\nsigned = \"{signed}\"\n{more}");
            toml::from_str::<config::Signature>(&text).unwrap()
        };
        let covered = |rules: &config::Signature, name: &str| {
            covers(rules, &HeaderName::from_bytes(name.as_bytes()).unwrap(), &[])
        };
        let id = "id_header = \"Webhook-Id\"";
        assert!(covered(&rules("{id}.{body}", id), "webhook-id"));
        assert!(!covered(&rules("{body}", id), "webhook-id"), "configured, but not signed");
        assert!(covered(&rules("{timestamp}.{body}", "timestamp_header = \"X-Time\""), "x-time"));
        assert!(covered(&rules("{header:X-Type}.{body}", ""), "x-type"));
        assert!(!covered(&rules("{header:X-Type}.{body}", ""), "x-typ"));
        let token =
            toml::from_str("kind = \"token\"\nheader = \"x-token\"\nid_header = \"webhook-id\"").unwrap();
        assert!(!covered(&token, "webhook-id"), "a token covers nothing");
    }

    /// Otherwise somebody could add the other header, which nobody signed, to a captured delivery.
    #[test]
    fn w3b_of_a_signed_header_s_names_only_the_one_that_is_read_is_covered() {
        let text = "header = \"x-sig\"\nsigned = \"{id}.{body}\"\nid_header = [\"a\", \"b\"]";
        let rules: config::Signature = toml::from_str(text).unwrap();
        let [a, b] = ["a", "b"].map(HeaderName::from_static);
        assert!(covers(&rules, &a, &[]));
        assert!(!covers(&rules, &b, &[]));
        assert!(covers(&rules, &b, std::slice::from_ref(&a)));
        assert!(covers(&rules, &a, std::slice::from_ref(&b)), "if b is missing, a is still the first");
    }
}
