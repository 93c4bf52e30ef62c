//! `[kafka.properties]`: any property of librdkafka, except those that durability depends on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::errors::ConfigErrors;
use super::layers::SettingLocation;
use super::secret::SecretText;
use super::secret_ref::SecretRef;
use super::tree::{ConfigNode, Leaf, NodeKind};

/// A value of `[kafka.properties]`. `Debug` hides the text: it may be a secret under an unknown name.
#[derive(Clone, PartialEq, Eq)]
pub enum Property {
    /// Passed through unchanged.
    Text(String),
    /// A reference whose secret is read at start.
    Secret(SecretRef),
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text"),
            Self::Secret(reference) => reference.fmt(f),
        }
    }
}

impl Property {
    /// The file that librdkafka opens for a property of this name, if the property names a file.
    pub(super) fn file(&self, name: &str) -> Option<&Path> {
        let Self::Text(text) = self else { return None };
        let names_a_file =
            name.ends_with(".location") || name == "sasl.kerberos.keytab" || NO_REFERENCES.contains(&name);
        // With `probe`, librdkafka searches the usual locations of a system's certificate authorities.
        (names_a_file && text != "probe").then_some(Path::new(text))
    }
}

impl<'de> Deserialize<'de> for Property {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrReference;
        impl<'de> Visitor<'de> for TextOrReference {
            type Value = Property;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a number, true or false, or a reference to a secret")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Property, E> {
                Ok(Property::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Property, A::Error> {
                SecretRef::deserialize(MapAccessDeserializer::new(map)).map(Property::Secret)
            }
        }
        deserializer.deserialize_any(TextOrReference)
    }
}

/// The properties of a client, with their secrets read. `Debug` shows names only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    values: BTreeMap<String, SecretText>,
    /// The names of those that were given by reference.
    references: BTreeSet<String>,
}

impl Properties {
    pub(super) fn insert(&mut self, name: &str, property: &Property, value: SecretText) {
        self.values.insert(name.to_owned(), value);
        if matches!(property, Property::Secret(_)) {
            self.references.insert(name.to_owned());
        }
    }

    /// Names and values, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.expose()))
    }

    /// The value of a property, by its Java name if librdkafka has such an alias: `linger.ms`, `sasl.mechanism`,
    /// `compression.type`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(SecretText::expose)
    }

    /// A text of librdkafka without the secrets that it may quote. Whatever was given by reference is one: it may refer to
    /// the right secret from the wrong property.
    pub fn redact(&self, text: &str) -> String {
        let holds_secret = |name: &str| self.references.contains(name) || name == "sasl.oauthbearer.config";
        let secrets = self.iter().filter(|(name, value)| holds_secret(name) && !value.is_empty());
        let mut secrets: Vec<&str> = secrets.map(|(_, value)| value).collect();
        // A secret that is a part of another must not hide that one's rest from the search.
        secrets.sort_unstable_by_key(|value| Reverse(value.len()));
        secrets.iter().fold(text.to_owned(), |text, value| text.replace(value, "(secret)"))
    }
}

/// librdkafka's aliases that may be set. Each is stored under its second name, so that a higher layer, or one of
/// hookstream's defaults, replaces the same property and does not add its alias.
const ALIASES: [(&str, &str); 6] = [
    ("sasl.mechanisms", "sasl.mechanism"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("compression.codec", "compression.type"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
    ("sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.id"),
    ("sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.secret"),
];

/// Properties whose name ends like a reference. Written without quotes, `sasl.oauthbearer.assertion.file = "/path"` is
/// a table with the key `file`, but not a reference to a secret.
const NO_REFERENCES: [&str; 3] = [
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
];

const DURABLE: &str = "2xx means acknowledged by all in-sync replicas; there is no setting for it";
const ORDERED: &str = "the idempotent producer requires its value; there is no setting for it";
const CLOCK: &str = "it follows from the ack deadline; set `ack_deadline` in [source.NAME]";
const BOUNDED: &str = "it follows from the limit on deliveries in flight; set `http.max_in_flight`";

/// Properties that durability depends on, with their aliases and what to use instead. Checked against CONFIGURATION.md
/// of librdkafka 2.12.
const RESERVED: [(&str, &str); 29] = [
    ("acks", DURABLE),
    ("request.required.acks", DURABLE),
    ("enable.idempotence", DURABLE),
    ("enable.gapless.guarantee", DURABLE),
    ("delivery.report.only.error", DURABLE),
    ("transactional.id", DURABLE),
    ("transaction.timeout.ms", DURABLE),
    ("retries", ORDERED),
    ("message.send.max.retries", ORDERED),
    ("max.in.flight", ORDERED),
    ("max.in.flight.requests.per.connection", ORDERED),
    ("queuing.strategy", ORDERED),
    ("message.timeout.ms", CLOCK),
    ("delivery.timeout.ms", CLOCK),
    ("request.timeout.ms", CLOCK),
    ("topic.metadata.propagation.max.ms", CLOCK),
    ("queue.buffering.max.messages", BOUNDED),
    ("queue.buffering.max.kbytes", BOUNDED),
    ("message.max.bytes", "it follows the body limit; set `http.max_body`"),
    (
        "allow.auto.create.topics",
        "topics are created with the settings in `[kafka.topics]`, not with the brokers' defaults; set `provision.on_start`",
    ),
    ("bootstrap.servers", "set `kafka.bootstrap_servers`"),
    ("metadata.broker.list", "set `kafka.bootstrap_servers`"),
    ("partitioner", "it is murmur2_random, to match the Java clients; there is no setting for it"),
    ("msg_order_cmp", "it is set in code only"),
    ("enabled_events", "it is set in code only"),
    ("opaque", "it is set in code only"),
    ("default_topic_conf", "it is set in code only"),
    ("log.queue", "librdkafka logs through hookstream's log; set HOOKSTREAM_LOG"),
    ("produce.offset.report", "the response contains the offset; there is no setting for it"),
];

fn reserved(name: &str) -> Option<&'static str> {
    if name == "test" || name.starts_with("test.") {
        return Some("it creates an in-memory cluster; use `hookstream dev`");
    }
    if name.ends_with("_cb") {
        return Some("it is set in code only");
    }
    RESERVED.iter().find(|(reserved, _)| *reserved == name).map(|(_, instead)| *instead)
}

fn is_secret(name: &str) -> bool {
    const ENDS: [&str; 7] =
        ["password", "passphrase", "secret", "key.pem", "token", "api.key", "keystore.pem"];
    ENDS.iter().any(|end| name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// Turns one layer's `kafka.properties` into one flat table of dotted names, however they were written, and removes
/// properties that may not be set. `place` returns the location of a line of that layer.
pub(super) fn flatten(
    root: &mut ConfigNode,
    problems: &mut ConfigErrors,
    place: impl Fn(usize) -> SettingLocation,
) {
    let Some(properties) = root.get_mut(&["kafka", "properties"]) else { return };
    // Anything but a table is rejected when the layers are read.
    if properties.table().is_none() {
        return;
    }
    let mut found = Vec::new();
    collect(String::new(), std::mem::take(properties), &mut found);
    let mut flat: BTreeMap<String, ConfigNode> = BTreeMap::new();
    for (written, node) in found {
        let mut refuse = |message: String| {
            problems.add_at(place(node.line), format!("kafka.properties.{written}"), message)
        };
        let name = ALIASES.iter().find(|(alias, _)| *alias == written).map_or(&*written, |(_, name)| name);
        if let Some(instead) = reserved(&written) {
            refuse(format!("may not be set: {instead}"));
        } else if is_secret(name) && !node.is_reference() {
            refuse("is a secret and must be a reference: { env = \"NAME\" } or { file = \"/path\" }".into());
        } else if name.split('.').any(str::is_empty) {
            refuse("is not a property name; separate its words with single dots".into());
        } else if flat.contains_key(name) {
            refuse(format!("is set twice, or also by its alias `{name}`; keep one"));
        } else {
            flat.insert(name.to_owned(), node);
        }
    }
    properties.kind = NodeKind::Table(flat);
}

fn collect(name: String, node: ConfigNode, found: &mut Vec<(String, ConfigNode)>) {
    let line = node.line;
    let ends_like_reference =
        NO_REFERENCES.iter().any(|property| property.strip_suffix(".file") == Some(&name));
    let reference = node.is_reference() && !name.is_empty() && !ends_like_reference;
    match node.kind {
        NodeKind::Table(table) if !reference => {
            for (key, child) in table {
                let name = if name.is_empty() { key } else { format!("{name}.{key}") };
                collect(name, child, found);
            }
        }
        NodeKind::Leaf(leaf) => {
            found.push((name, ConfigNode { line, kind: NodeKind::Leaf(Leaf::Text(leaf.into_text())) }));
        }
        kind => found.push((name, ConfigNode { line, kind })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_removed_from_librdkafkas_texts() {
        let (text, secret) = (Property::Text(String::new()), Property::Secret(SecretRef::Env("A".into())));
        let mut properties = Properties::default();
        for (name, property, value) in [
            ("sasl.password", &secret, "hunter2-hunter2"),
            ("sasl.mechanism", &text, "GSSAPI"),
            ("group.protocol", &secret, "hunter2"),
            ("client.rack", &secret, "hunter2-hunter2-of-another-place"),
        ] {
            properties.insert(name, property, SecretText::new(value));
        }
        let text =
            properties.redact("GSSAPI with hunter2-hunter2-of-another-place, hunter2 or hunter2-hunter2");
        assert_eq!(text, "GSSAPI with (secret), (secret) or (secret)");
    }

    #[test]
    fn secret_properties_are_recognised_by_the_end_of_their_name() {
        for name in [
            "sasl.password",
            "ssl.key.password",
            "ssl.keystore.password",
            "ssl.key.pem",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "sasl.oauthbearer.assertion.private.key.pem",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["sasl.username", "ssl.ca.pem", "ssl.certificate.pem", "ssl.key.location", "client.id"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
