//! Warnings about a valid configuration. All of these sentences are here, for the log of `serve`, for `check` and for
//! `send`. Each names its source and its remedy.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::{SignedDuration, Timestamp};

use super::secret::{SHORT, Secret, ValidityWindow};
use super::{Config, Networks, Property, SourceConfig};
use crate::files::{self, Readers};

/// A secret that expires within this time gets a warning: enough time to change the provider's settings.
const EXPIRES_SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

pub(super) fn sha1(source: &str) -> String {
    format!(
        "source {source}: signatures use SHA-1; set signature.hash if the provider supports a stronger hash"
    )
}

/// `why` is the first half of the sentence.
pub(super) fn dev_instead(source: &str, why: &str) -> String {
    format!("source {source}: {why}; the public dev secret is used instead")
}

pub(super) fn short(source: &str, secret: &Secret) -> Option<String> {
    // The easiest to guess: of several schemes, each decodes a key of its own.
    let (name, bytes) = (&secret.name, secret.keys().map(<[u8]>::len).min()?);
    (bytes < SHORT).then(|| {
        format!("source {source}: the secret {name} has only {bytes} bytes; a secret below {SHORT} bytes can be guessed")
    })
}

/// Bound secrets whose value is also configured unbound: whoever holds one can sign for every tenant.
pub(super) fn undone(source: &str, secrets: &[Secret]) -> Vec<String> {
    let bound = secrets.iter().filter(|secret| secret.binds.is_some());
    let undone = bound.filter_map(|secret| {
        let same = |other: &&Secret| other.binds.is_none() && other.expose() == secret.expose();
        let (bound, free) = (&secret.name, &secrets.iter().find(same)?.name);
        Some(format!(
            "source {source}: the secrets {bound} and {free} have the same value, and {free} is not bound: anyone who \
             holds it can sign for every tenant; bind both, or use different values"
        ))
    });
    undone.collect()
}

/// For a source whose tenants can take over each other's keys.
pub(super) fn keys_unbound(source: &str, rules: &SourceConfig, secrets: &[Secret]) -> Option<String> {
    let bound = secrets.iter().find(|secret| secret.binds.is_some())?;
    (!rules.binding_in_key).then(|| {
        format!(
            "source {source}: binding_in_key is false, so anyone who holds the bound secret {} can send another tenant's event id \
             and take over that record's key; set it to true once the consumers can read such keys (docs/secrets.md, A secret for each tenant)",
            bound.name
        )
    })
}

/// Warnings about the validity windows of secrets.
pub(super) struct Times {
    pub(super) warnings: Vec<String>,
    /// Set if no secret is valid: the source refuses every delivery.
    pub(super) refusing: Option<String>,
}

pub(super) fn times(source: &str, secrets: &[Secret], now: Timestamp) -> Times {
    if !secrets.is_empty() && secrets.iter().all(|secret| !secret.window.contains(now)) {
        let each: Vec<_> = secrets.iter().map(|secret| outside(secret, now)).collect();
        let each = each.join(", ");
        let refusing = format!(
            "source {source}: no secret is valid now, so every delivery is refused with 401: {each}; add a valid secret"
        );
        return Times { warnings: Vec::new(), refusing: Some(refusing) };
    }
    let warnings = secrets.iter().filter_map(|secret| {
        let name = &secret.name;
        Some(match secret.window {
            window if window.contains(now) => {
                let until = window.not_after.filter(|until| until.duration_since(now) < EXPIRES_SOON)?;
                let next = secrets.iter().find(|other| {
                    // A secret with another binding, or of another scheme, cannot replace this one.
                    other.binds == secret.binds
                        && other.shares_scheme(secret)
                        && other.window.contains(until)
                        && other.window.not_after.is_none_or(|end| end > until)
                });
                let next = match next {
                    Some(next) => format!("switch the provider to {} before then", next.name),
                    None => String::from("add its successor (docs/secrets.md, Rotate a secret)"),
                };
                let left = remaining(until.duration_since(now));
                format!("source {source}: the secret {name} expires at {until}, in {left}; {next}")
            }
            ValidityWindow { not_before: Some(from), .. } if now < from => {
                format!("source {source}: the secret {}, and is refused until then", outside(secret, now))
            }
            _ => format!("source {source}: the secret {} and is refused; remove it", outside(secret, now)),
        })
    });
    Times { warnings: warnings.collect(), refusing: None }
}

fn outside(secret: &Secret, now: Timestamp) -> String {
    let name = &secret.name;
    match secret.window {
        ValidityWindow { not_before: Some(from), .. } if now < from => {
            format!("{name} is valid from {from}")
        }
        ValidityWindow { not_after: Some(until), .. } => format!("{name} expired at {until}"),
        ValidityWindow { .. } => format!("{name} is not valid"),
    }
}

/// In whole days, so that the text, and with it the log line, changes only once a day.
fn remaining(left: SignedDuration) -> String {
    match left.as_hours() / 24 {
        0 => String::from("less than a day"),
        1 => String::from("1 day"),
        days => format!("{days} days"),
    }
}

/// Key and secret files that other users can read. For a private key, that includes its group; for the other files only
/// a mode that lets every user read, because a group is the usual way to share a secret on purpose.
pub(super) fn exposed(config: &Config) -> Vec<String> {
    let tls = [("http.tls.key", &config.http.tls), ("admin.tls.key", &config.admin.tls)];
    let keys = tls.into_iter().filter_map(|(place, tls)| Some((place, tls.as_ref()?.key.as_path())));
    let registry = config.registry.client_key.as_deref().map(|key| ("registry.client_key", key));
    let name = "ssl.key.location";
    let kafka = config.kafka.properties.get(name).and_then(|property| property.file(name));
    let kafka = kafka.map(|key| ("kafka.properties.ssl.key.location", key));
    let mut warnings = Vec::new();
    for (place, key) in keys.chain(registry).chain(kafka) {
        let (readers, chmod) = match files::readers(key) {
            Some(Readers::Everybody) => (String::from("every user on this machine"), chmod("o=", &[key])),
            Some(Readers::Group(group)) => (format!("the group {group}"), chmod("g=", &[key])),
            None => continue,
        };
        warnings.push(format!("{place}: {readers} can read the private key; {chmod}"));
    }
    for (place, secrets) in secret_files(config) {
        let open: Vec<&Path> = secrets.iter().map(PathBuf::as_path).filter(|file| open(file)).collect();
        if !open.is_empty() {
            let secrets = if open.len() == 1 { "the secret" } else { "the secrets" };
            warnings.push(format!(
                "{place}: every user on this machine can read {secrets}; {}",
                chmod("o=", &open)
            ));
        }
    }
    warnings
}

fn open(file: &Path) -> bool {
    files::readers(file) == Some(Readers::Everybody)
}

/// The remedy, for at most a dozen files.
fn chmod(mode: &str, files: &[&Path]) -> String {
    let shown: Vec<_> = files.iter().take(12).map(|file| file.display().to_string()).collect();
    let more = if files.len() > shown.len() { " ..." } else { "" };
    format!(
        "chmod {mode} {}{more}, or defaultMode 0440 and an fsGroup if Kubernetes mounts the file",
        shown.join(" ")
    )
}

/// The files that secrets are read from, by setting. A directory is one setting with several files.
fn secret_files(config: &Config) -> Vec<(String, Vec<PathBuf>)> {
    let sources = config.source.iter().filter(|(_, source)| source.enabled);
    let entries = sources.flat_map(|(name, source)| {
        let entries = source.secrets.iter().enumerate();
        entries.map(move |(index, entry)| (format!("source.{name}.secrets.{index}"), &entry.reference))
    });
    let properties = config.kafka.properties.iter().filter_map(|(name, property)| match property {
        Property::Secret(reference) => Some((format!("kafka.properties.{name}"), reference)),
        Property::Text(_) => None,
    });
    let registry = &config.registry;
    let single = [
        ("registry.basic_auth.password", registry.basic_auth.as_ref().map(|basic| &basic.password)),
        ("registry.bearer", registry.bearer.as_ref()),
        ("admin.bearer", config.admin.bearer.as_ref()),
    ];
    let single = single.into_iter().filter_map(|(place, reference)| Some((place.to_owned(), reference?)));
    let headers = config.traces.headers.iter();
    let headers = headers.map(|(name, reference)| (format!("traces.headers.{name}"), reference));
    let all = entries.chain(properties).chain(single).chain(headers);
    all.map(|(place, reference)| (place, reference.files())).collect()
}

/// No client has an address in these networks: multicast, reserved, unspecified.
const UNUSABLE: [IpNet; 5] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128)),
];

/// Settings that depend on the client's address, but cannot have the effect that the user expects.
pub(super) fn callers(config: &Config) -> Vec<String> {
    let http = &config.http;
    let all = |networks: &Networks| networks.iter().find(|network| network.prefix_len() == 0).copied();
    // All clients of a listener on a loopback address have that address, unless a trusted proxy reports another one.
    let only = http.listen.parse().map(|listen: SocketAddr| listen.ip().to_canonical()).ok();
    let only = only.filter(|ip| ip.is_loopback() && !http.trusted_proxies.contains(*ip));
    let mut warnings = Vec::new();
    if let Some(network) = all(&http.trusted_proxies) {
        warnings.push(format!(
            "http.trusted_proxies contains {network}: any client can claim any address; list only the proxies"
        ));
    }
    if let (Some(ip), Some(_)) = (only, http.unverified_rate_per_address) {
        warnings.push(format!(
            "http.unverified_rate_per_address: all clients of http.listen have the address {ip}, so one can use it up \
             for the others; add the proxy to http.trusted_proxies"
        ));
    }
    for (name, source) in &config.source {
        let Some(allow) = &source.allow else { continue };
        if let Some(network) = all(allow) {
            warnings.push(format!(
                "source {name}: allow contains {network}, every address of its family; remove allow to accept any client"
            ));
        }
        let unusable =
            allow.iter().filter(|network| UNUSABLE.iter().any(|unusable| unusable.contains(*network)));
        warnings.extend(unusable.map(|network| {
            format!("source {name}: allow contains {network}, which no client can have; remove it")
        }));
        if let Some(ip) = only.filter(|ip| !allow.contains(*ip)) {
            warnings.push(format!(
                "source {name}: all clients of http.listen have the address {ip}, which is not in allow, so every \
                 delivery is refused with 403; add the proxy to http.trusted_proxies"
            ));
        }
    }
    warnings
}
