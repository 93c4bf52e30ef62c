//! Sends each source a made-up delivery in memory, signed by the source's own rules: rules that contradict each other
//! compile, but refuse every delivery.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use jiff::Timestamp;

use crate::cli::sample;
use crate::config::{EventIdRule, LoadedConfig, SourceConfig, TextPart, TimeFormat};
use crate::decide::{Decision, decide};
use crate::delivery::{Delivery, DeliveryId};
use crate::outcome::{Fault, Reason};
use crate::sources::{Source, Sources};

/// One problem for each source whose rules refuse their own delivery.
pub(super) fn problems(loaded: &LoadedConfig, sources: &Sources) -> Vec<String> {
    let checked = loaded.config.source.iter().filter_map(|(name, rules)| {
        // Without a secret that is valid now there is nothing to sign with; a binding needs the tenant's own body.
        let secrets = loaded.secrets.get(name)?;
        let signs = secrets.iter().any(|secret| secret.window.contains(Timestamp::now()));
        if !signs || secrets.iter().any(|secret| secret.binds.is_some()) {
            return None;
        }
        problem(sources.get(name)?, rules)
    });
    checked.collect()
}

fn problem(source: &Source, rules: &SourceConfig) -> Option<String> {
    let name = &source.name;
    let now = Timestamp::now();
    let (body, mut headers) = unsigned(rules, now);
    let unsignable = |fault: Fault| {
        format!(
            "source.{name}.signature: no delivery can verify: a delivery that is signed by these rules is refused ({fault}); \
             compare them with the provider's documentation"
        )
    };
    if let Err(fault) = source.verifier.sign(&body, now, &mut headers) {
        return Some(unsignable(fault));
    }
    let delivery =
        Delivery { id: DeliveryId::new(), uri: Uri::from_static("/"), headers, body, received_at: now };
    let verified = match source.verifier.verify(&delivery) {
        Ok(verified) => verified,
        Err(fault) => return Some(unsignable(fault)),
    };
    match decide(source, &verified, None, || Ok(())).decision {
        // A schema may need more fields than a made-up body has, so only the places themselves are judged.
        Decision::DeadLetter { why, .. }
            if matches!(why.reason, Reason::IdMissing | Reason::IdInvalid | Reason::TypeMissing) =>
        {
            Some(format!(
                "source.{name}.envelope: every event would be a dead letter: one that has a value at each of these places is \
                 refused ({why}); correct the places"
            ))
        }
        _ => None,
    }
}

/// A body and headers with a value at the first of each rule's places.
fn unsigned(rules: &SourceConfig, now: Timestamp) -> (Bytes, HeaderMap) {
    let envelope = &rules.envelope;
    let event_type = rules.types.first().or(envelope.default_type.as_ref());
    let event_type = event_type.map_or("example.created", String::as_str);
    let mut event = Node::default();
    let mut headers = HeaderMap::new();
    let mut put = |part: Option<&TextPart>, text: &str, json: String| match part {
        Some(TextPart::Pointer(pointer)) => event.put(pointer, json),
        Some(TextPart::Header { name, .. }) => insert(&mut headers, name, text),
        None => {}
    };
    let quoted = |text: &str| format!("\"{text}\"");
    for part in id_parts(envelope.id.0.first()) {
        put(Some(part), "evt_1", quoted("evt_1"));
    }
    if let Some(key) = envelope.keys.get(event_type) {
        put(key.0.first(), "key_1", quoted("key_1"));
    }
    let format = envelope.time_format.first().copied().unwrap_or(TimeFormat::Rfc3339);
    let (time, json) = match format {
        TimeFormat::Rfc3339 => (now.to_string(), quoted(&now.to_string())),
        TimeFormat::UnixSeconds => (now.as_second().to_string(), now.as_second().to_string()),
        TimeFormat::UnixMilliseconds => (now.as_millisecond().to_string(), now.as_millisecond().to_string()),
    };
    put(envelope.time.as_ref().and_then(|time| time.0.first()), &time, json);
    // Last: an id may be joined from the same place.
    put(envelope.event_type.0.first(), event_type, quoted(event_type));
    let signed = rules.signature.iter().filter_map(|scheme| scheme.signed.as_deref());
    for signed in signed.flat_map(|signed| signed.split("{header:").skip(1)) {
        let name = signed.split(['}', '|']).next().unwrap_or_default();
        if !headers.contains_key(name) {
            insert(&mut headers, name, "signed");
        }
    }
    let mut text = event.to_string();
    if let Some(pointer) = &envelope.split {
        text = sample::alone(&text, pointer);
    }
    if let Some(field) = envelope.payload.as_deref().and_then(|payload| payload.strip_prefix("form:")) {
        text = form_urlencoded::Serializer::new(String::new()).append_pair(field, &text).finish();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    }
    (text.into(), headers)
}

fn insert(headers: &mut HeaderMap, name: &str, text: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(text)) {
        headers.insert(name, value);
    }
}

fn id_parts(rule: Option<&EventIdRule>) -> Vec<&TextPart> {
    match rule {
        None | Some(EventIdRule::Digest) => Vec::new(),
        Some(EventIdRule::Part(part)) => vec![part],
        Some(EventIdRule::Join { parts, .. }) => parts.iter().filter_map(|part| part.0.first()).collect(),
    }
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
    /// Puts a value at a JSON pointer. A value that is in the way is replaced, as no body could have both.
    fn put(&mut self, pointer: &str, json: String) {
        let Some((name, rest)) = pointer.strip_prefix('/').map(|path| match path.split_once('/') {
            Some((name, _)) => (name, path.get(name.len()..).unwrap_or_default()),
            None => (path, ""),
        }) else {
            *self = Self::Json(json);
            return;
        };
        if matches!(self, Self::Json(_)) {
            *self = Self::default();
        }
        if let Self::Object(members) = self {
            let name = name.replace("~1", "/").replace("~0", "~");
            members.entry(name).or_default().put(rest, json);
        }
    }
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
        let tables = config::presets().map(|(name, _)| format!("[source.{name}]\npreset = \"{name}\"\n"));
        let all: String = tables.collect();
        assert!(all.matches("preset").count() >= 10);
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
        ] {
            assert_eq!(
                found(&format!(
                    "[source.own]\nunmapped = \"generic\"\nenvelope.id = \"/id\"\nenvelope.type = \"/type\"\n{rules}\n"
                )),
                [""; 0],
                "{rules}"
            );
        }
    }
}
