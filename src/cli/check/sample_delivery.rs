//! Sends each source a made-up delivery in memory, signed by the source's own rules: rules that contradict each other
//! compile, but refuse every delivery.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use jiff::{Timestamp, Unit};

use crate::cli::sample;
use crate::config::{BodyForm, EventIdRule, FirstOf, LoadedConfig, SourceConfig, TextPart, TimeFormat};
use crate::decide::{Decision, decide};
use crate::delivery::{Delivery, DeliveryId};
use crate::outcome::{Fault, Reason};
use crate::sources::{Source, Sources};

/// One problem for each source whose rules refuse their own delivery. Each scheme signs one, of the source's first event
/// type. Sources with bound secrets are left out: which of them signs depends on the tenant.
pub(super) fn problems(loaded: &LoadedConfig, sources: &Sources) -> Vec<String> {
    let checked = loaded.config.source.iter().filter_map(|(name, rules)| {
        let secrets = loaded.secrets.get(name)?;
        if secrets.iter().any(|secret| secret.binds.is_some()) {
            return None;
        }
        problem(sources.get(name)?, rules)
    });
    checked.collect()
}

fn problem(source: &Source, rules: &SourceConfig) -> Option<String> {
    let name = &source.name;
    let now = Timestamp::now();
    let Sample { body, headers, judged } = Sample::new(rules, now);
    let unsignable = |fault: Fault| {
        format!(
            "source.{name}.signature: no delivery can verify: a delivery that is signed by these rules is refused ({fault}); \
             compare them with the provider's documentation"
        )
    };
    for signed in source.verifier.sign_by_each(&body, now, &headers) {
        let headers = match signed {
            Ok(headers) => headers,
            Err(fault) => return Some(unsignable(fault)),
        };
        let (id, uri, body) = (DeliveryId::new(), Uri::from_static("/"), body.clone());
        let delivery = Delivery { id, uri, headers, body, received_at: now };
        let verified = match source.verifier.verify(&delivery) {
            Ok(verified) => verified,
            Err(fault) => return Some(unsignable(fault)),
        };
        match decide(source, &verified, None, || Ok(())).decision {
            // A schema may need more fields than a made-up body has, so only the places themselves are judged.
            Decision::DeadLetter { why, .. }
                if judged
                    && matches!(why.reason, Reason::IdMissing | Reason::IdInvalid | Reason::TypeMissing) =>
            {
                return Some(format!(
                    "source.{name}.envelope: every event would be a dead letter: one that has a value at each of these places \
                     is refused ({why}); correct the places"
                ));
            }
            _ => {}
        }
    }
    None
}

/// A made-up delivery without its signature.
struct Sample {
    body: Bytes,
    headers: HeaderMap,
    /// Whether the body has a value at a place of each rule. If it has not, another body may have.
    judged: bool,
}

impl Sample {
    /// A body and headers with a value at one of each rule's places. The values have no character that a rule is likely
    /// to separate values by.
    fn new(rules: &SourceConfig, now: Timestamp) -> Self {
        let envelope = &rules.envelope;
        let event_type = rules.types.first().or(envelope.default_type.as_ref());
        let event_type = event_type.map_or("created", String::as_str);
        let route = envelope.aliases.get(event_type).map_or(event_type, String::as_str);
        let mut sample = SampleValues { event: Node::default(), headers: HeaderMap::new(), judged: true };
        // First, since an event needs no time: a rule whose place is in the way replaces it.
        let now = now.round(Unit::Second).unwrap_or(now);
        if let Some(places) = &envelope.time {
            let time = match envelope.time_format.first().copied().unwrap_or(TimeFormat::Rfc3339) {
                TimeFormat::Rfc3339 => now.to_string(),
                TimeFormat::UnixSeconds => now.as_second().to_string(),
                TimeFormat::UnixMilliseconds => now.as_millisecond().to_string(),
            };
            let json = if time.parse::<i64>().is_ok() { time.clone() } else { quoted(&time) };
            sample.put(places, &time, json);
        }
        sample.judged = true;
        for part in id_parts(&envelope.id.0) {
            sample.put(&part, "evt1", quoted("evt1"));
        }
        if let Some(key) = envelope.keys.get(route) {
            sample.put(key, "key1", quoted("key1"));
        }
        // Last: an id may be joined from the same place.
        sample.put(&envelope.event_type, event_type, quoted(event_type));
        let SampleValues { event, mut headers, judged } = sample;
        for scheme in &rules.signature {
            let signed = scheme.signed.iter().flat_map(|signed| signed.split("{header:").skip(1));
            let signed = signed.filter_map(|rest| rest.split_once('}')).map(|(name, _)| name);
            for name in signed.chain(scheme.id_header.first().map(String::as_str)) {
                if !headers.contains_key(name) {
                    insert(&mut headers, name, "signed");
                }
            }
        }
        let mut text = event.to_string();
        if let Some(pointer) = &envelope.split {
            text = sample::alone(&text, pointer);
        }
        // A canonical form is one of JSON; the source takes that, too.
        let raw = rules.signature.iter().all(|scheme| scheme.forms.last() == Some(&BodyForm::Raw));
        let field = envelope.payload.as_deref().and_then(|payload| payload.strip_prefix("form:"));
        if let Some(field) = field.filter(|_| raw) {
            text = form_urlencoded::Serializer::new(String::new()).append_pair(field, &text).finish();
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, form);
        }
        Self { body: text.into(), headers, judged }
    }
}

/// The values of a delivery that is being made.
struct SampleValues {
    event: Node,
    headers: HeaderMap,
    judged: bool,
}

impl SampleValues {
    /// Puts a value at the first of the places that no other value is in the way of.
    fn put(&mut self, places: &FirstOf<TextPart>, text: &str, json: String) {
        let free = |part: &&TextPart| part.pointer().is_none_or(|pointer| self.event.is_free(pointer));
        let part = places.0.iter().find(free);
        // The first place counts whatever is there, unless there are others, for which other values could make room.
        self.judged &= part.is_some() || places.0.len() == 1;
        match part.or(places.0.first()) {
            Some(TextPart::Pointer(pointer)) => self.event.put(pointer, json),
            Some(TextPart::Header { name, .. }) => insert(&mut self.headers, name, text),
            None => {}
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

fn insert(headers: &mut HeaderMap, name: &str, text: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(text)) {
        headers.insert(name, value);
    }
}

/// The places of each part of the id: of a joined id several, else one with all that come before a digest.
fn id_parts(rules: &[EventIdRule]) -> Vec<FirstOf<TextPart>> {
    if let Some(EventIdRule::Join { parts, .. }) = rules.first() {
        return parts.clone();
    }
    let places = rules.iter().map_while(|rule| match rule {
        EventIdRule::Part(part) => Some(part.clone()),
        EventIdRule::Join { .. } | EventIdRule::Digest => None,
    });
    let places: Vec<_> = places.collect();
    if places.is_empty() { Vec::new() } else { vec![FirstOf(places)] }
}

/// A JSON value that is made place by place.
enum Node {
    Object(BTreeMap<String, Node>),
    Json(String),
}

impl Default for Node {
    fn default() -> Self {
        Self::Object(BTreeMap::new())
    }
}

impl Node {
    /// Whether a value could be put at this JSON pointer without replacing another.
    fn is_free(&self, pointer: &str) -> bool {
        match (self, step(pointer)) {
            (Self::Object(members), None) => members.is_empty(),
            (Self::Object(members), Some((name, rest))) => {
                members.get(&name).is_none_or(|member| member.is_free(rest))
            }
            (Self::Json(_), _) => false,
        }
    }

    /// Puts a value at a JSON pointer. A value that is in the way is replaced, as no body could have both.
    fn put(&mut self, pointer: &str, json: String) {
        let Some((name, rest)) = step(pointer) else {
            *self = Self::Json(json);
            return;
        };
        if matches!(self, Self::Json(_)) {
            *self = Self::default();
        }
        if let Self::Object(members) = self {
            members.entry(name).or_default().put(rest, json);
        }
    }
}

/// The first name of a JSON pointer, and the rest; `None` for the empty pointer.
fn step(pointer: &str) -> Option<(String, &str)> {
    let path = pointer.strip_prefix('/')?;
    let name = path.split('/').next().unwrap_or_default();
    Some((name.replace("~1", "/").replace("~0", "~"), path.get(name.len()..).unwrap_or_default()))
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let members = match self {
            Self::Json(json) => return f.write_str(json),
            Self::Object(members) => members,
        };
        f.write_str("{")?;
        for (index, (name, member)) in members.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let name = serde_json::to_string(name).unwrap_or_default();
            write!(f, "{comma}{name}:{member}")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app;
    use crate::cli::providers::{block, facts};
    use crate::config::{self, Environment, Overrides, Secrets};

    /// The problems of a source `own`, or of all presets.
    fn found(toml: &str) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        let overrides =
            Overrides { file: Some(file.path().to_owned()), secrets: Secrets::OrDev, ..Overrides::default() };
        let loaded = config::load(&overrides, &Environment::default()).unwrap();
        let (sources, _) = app::compile(&loaded).unwrap();
        problems(&loaded, &sources)
    }

    #[test]
    fn every_preset_accepts_what_it_signs() {
        let blocks = config::presets().map(|(name, _)| block(&facts(name).unwrap(), name) + "\n");
        let all: String = blocks.collect();
        assert!(all.matches("preset = ").count() >= 10);
        assert_eq!(found(&all), [""; 0]);
    }

    const OWN: &str = "[source.own]\nunmapped = \"generic\"\nenvelope = { id = \"/id\", type = \"/type\" }\n";

    #[test]
    fn w6_rules_that_can_never_accept_are_named() {
        for (rules, expected) in [
            // The time is the complete signature header, which is never digits.
            (
                format!("{OWN}signature = {{ header = \"Paddle-Signature\", signature_key = \"h1\", timestamp_header = \"Paddle-Signature\", signed = \"{{timestamp}}:{{body}}\" }}\n"),
                "source.own.signature: no delivery can verify",
            ),
            (
                "[source.own]\nunmapped = \"generic\"\nenvelope = { id = \"/event\", type = \"/event/type\" }\nsignature = { header = \"X-Signature\", signed = \"{body}\" }\n".to_owned(),
                "source.own.envelope: every event would be a dead letter",
            ),
        ] {
            let found = found(&rules);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{rules}: {found:?}");
        }
    }

    #[test]
    fn rules_of_every_kind_accept_what_they_sign() {
        for rules in [
            "signature = { header = \"S\", signed = \"{body}\", prefix = \"sha256=\" }",
            "signature = { header = \"S\", signature_key = \"v1\", timestamp_key = \"t\", signed = \"{timestamp}.{body}\" }",
            "signature = { header = \"S\", timestamp_header = \"T\", signed = \"{timestamp}.{header:X-Extra}.{body}\" }",
            "signature = { header = \"S\", kind = \"token\" }",
            "signature = { header = \"S\", signed = \"{body}\" }\nenvelope.keys = { a = \"/deep/key\" }\ntypes = [\"a\"]\nenvelope.split = \"/events\"",
            "signature = { header = \"S\", signed = \"{body}\" }\nenvelope.payload = \"form:payload\"",
            // A form whose canonical form the rules also name: only JSON has one.
            "signature = { header = \"S\", signed = \"{body}\", forms = [\"raw\", \"json_compact_ascii\"] }\nenvelope.payload = \"form:payload\"",
            // A signed header that is also the place of the type.
            "signature = { header = \"S\", signed = \"{header:X-Topic}.{body}\" }\nenvelope.type = { header = \"X-Topic\" }\ntypes = []",
            "signature = { header = \"S\", signed = \"{timestamp}.{body}\", timestamp_header = \"X-Time\" }\nenvelope.time = { header = \"X-Time\" }\nenvelope.time_format = \"unix_seconds\"",
            // A PHP class name, whose backslashes JSON escapes.
            "signature = { header = \"S\", signed = \"{body}\", forms = [\"json_compact_ascii\"] }\ntypes = ['App\\Order\\Created']",
            "signature = { header = \"S\", signed = \"{body}\" }\ntypes = [\"a.b\"]\nenvelope.aliases = { old = \"a.b\" }\nenvelope.keys = { \"a.b\" = \"/key\" }",
            "signature = { header = \"S\", signed = \"{body}\" }\nenvelope.id = { join = [\"/a\", \"/b\"], separator = \"_\" }",
            "signature = { header = \"S\", signed = \"{body}\" }\nenvelope.id = [\"/a/id\", \"/b\", \"digest\"]",
            // Either place of the type leaves room for the id.
            "signature = { header = \"S\", signed = \"{body}\" }\nenvelope.id = \"/event\"\nenvelope.type = [\"/event/type\", \"/type\"]",
        ] {
            let defaults =
                "[source.own]\nunmapped = \"generic\"\nenvelope.id = \"/id\"\nenvelope.type = \"/type\"\n";
            // A rule replaces the default of its setting.
            let named = |line: &str| {
                line.split_once(" = ").is_some_and(|(name, _)| rules.contains(&format!("{name} = ")))
            };
            let kept: String =
                defaults.lines().filter(|line| !named(line)).map(|line| format!("{line}\n")).collect();
            assert_eq!(found(&format!("{kept}{rules}\n")), [""; 0], "{rules}");
        }
    }
}
