//! What is no problem and still worth a word: the one place of these sentences, for the log of `serve`,
//! for `check` and for `send`. Each names its source and says what to do.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::{SignedDuration, Timestamp};

use super::secret::{SHORT, Secret, ValidityWindow};
use super::{Config, Networks, Property, SourceConfig};
use crate::files::{self, Readers};

/// From so long before its end on, a secret is spoken of: time enough for a provider's settings.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

pub(super) fn sha1(source: &str) -> String {
    format!(
        "source {source}: its signatures are made with SHA-1; set signature.hash if the provider has better"
    )
}

/// `why` is half a sentence.
pub(super) fn dev_instead(source: &str, why: &str) -> String {
    format!("source {source}: {why}; the public dev secret is used instead")
}

pub(super) fn short(source: &str, secret: &Secret) -> Option<String> {
    let (name, bytes) = (&secret.name, secret.expose().len());
    (bytes < SHORT).then(|| {
        format!("source {source}: the secret {name} has only {bytes} bytes; below {SHORT} it can be guessed")
    })
}

/// Who has a bound secret that is also there unbound may sign for everybody.
pub(super) fn undone(source: &str, secrets: &[Secret]) -> Vec<String> {
    let bound = secrets.iter().filter(|secret| secret.binds.is_some());
    let undone = bound.filter_map(|secret| {
        let same = |other: &&Secret| other.binds.is_none() && other.expose() == secret.expose();
        let (bound, free) = (&secret.name, &secrets.iter().find(same)?.name);
        Some(format!(
            "source {source}: the secrets {bound} and {free} are the same, and {free} is bound to nothing: who has it \
             signs for everybody; bind both, or give each its own"
        ))
    });
    undone.collect()
}

/// Of a source whose tenants can take each other's keys.
pub(super) fn keys_unbound(source: &str, rules: &SourceConfig, secrets: &[Secret]) -> Option<String> {
    let bound = secrets.iter().find(|secret| secret.binds.is_some())?;
    (!rules.binding_in_key).then(|| {
        format!(
            "source {source}: binding_in_key is false, so whoever has the bound secret {} can send another tenant's event id \
             and take that record's key; set it to true once the consumers know such keys (docs/secrets.md, A secret for each tenant)",
            bound.name
        )
    })
}

/// What is to be said of when secrets count.
pub(super) struct Times {
    pub(super) warnings: Vec<String>,
    /// Where none counts: the source refuses everything.
    pub(super) refusing: Option<String>,
}

pub(super) fn times(source: &str, secrets: &[Secret], now: Timestamp) -> Times {
    if !secrets.is_empty() && secrets.iter().all(|secret| !secret.window.contains(now)) {
        let each: Vec<_> = secrets.iter().map(|secret| outside(secret, now)).collect();
        let each = each.join(", ");
        let refusing = format!(
            "source {source}: no secret counts now, so every delivery is refused with 401: {each}; give it one that counts"
        );
        return Times { warnings: Vec::new(), refusing: Some(refusing) };
    }
    let warnings = secrets.iter().filter_map(|secret| {
        let name = &secret.name;
        Some(match secret.window {
            window if window.contains(now) => {
                let until = window.not_after.filter(|until| until.duration_since(now) < SOON)?;
                let next = secrets.iter().find(|other| {
                    // One that signs for another tenant takes nobody's place.
                    other.binds == secret.binds
                        && other.window.contains(until)
                        && other.window.not_after.is_none_or(|end| end > until)
                });
                let next = match next {
                    Some(next) => format!("switch the provider to {} before", next.name),
                    None => String::from("put the next one beside it (docs/secrets.md, Rotate a secret)"),
                };
                let left = left(until.duration_since(now));
                format!("source {source}: the secret {name} counts until {until} only, {left}; {next}")
            }
            ValidityWindow { not_before: Some(from), .. } if now < from => {
                format!("source {source}: the secret {}, and is refused before", outside(secret, now))
            }
            _ => format!(
                "source {source}: the secret {} and is refused since; take it away",
                outside(secret, now)
            ),
        })
    });
    Times { warnings: warnings.collect(), refusing: None }
}

fn outside(secret: &Secret, now: Timestamp) -> String {
    let name = &secret.name;
    match secret.window {
        ValidityWindow { not_before: Some(from), .. } if now < from => {
            format!("{name} counts from {from} on")
        }
        ValidityWindow { not_after: Some(until), .. } => format!("{name} counted until {until}"),
        ValidityWindow { .. } => format!("{name} does not count"),
    }
}

/// In whole days, so that a service says it once a day.
fn left(left: SignedDuration) -> String {
    match left.as_hours() / 24 {
        0 => String::from("less than a day more"),
        1 => String::from("1 more day"),
        days => format!("{days} more days"),
    }
}

/// Files of keys and secrets that others on this machine may read. Of a private key, others are its group, too; of the
/// rest everybody, since a group is how people share a secret on purpose.
pub(super) fn exposed(config: &Config) -> Vec<String> {
    let tls = [("http.tls.key", &config.http.tls), ("admin.tls.key", &config.admin.tls)];
    let keys = tls.into_iter().filter_map(|(place, tls)| Some((place, tls.as_ref()?.key.as_path())));
    let registry = config.registry.client_key.as_deref().map(|key| ("registry.client_key", key));
    let name = "ssl.key.location";
    let kafka = config.kafka.properties.get(name).and_then(|property| property.file(name));
    let kafka = kafka.map(|key| ("kafka.properties.ssl.key.location", key));
    let mut warnings = Vec::new();
    for (place, key) in keys.chain(registry).chain(kafka) {
        let (who, chmod) = match files::readers(key) {
            Some(Readers::Everybody) => (String::from("everybody on this machine"), chmod("o=", &[key])),
            Some(Readers::Group(group)) => (format!("the group {group}"), chmod("g=", &[key])),
            None => continue,
        };
        warnings.push(format!("{place}: {who} may read the private key; {chmod}"));
    }
    for (place, secrets) in secret_files(config) {
        let open: Vec<&Path> = secrets.iter().map(PathBuf::as_path).filter(|file| open(file)).collect();
        if !open.is_empty() {
            let what = if open.len() == 1 { "the secret" } else { "the secrets" };
            warnings
                .push(format!("{place}: everybody on this machine may read {what}; {}", chmod("o=", &open)));
        }
    }
    warnings
}

fn open(file: &Path) -> bool {
    files::readers(file) == Some(Readers::Everybody)
}

/// What to do about it, for a dozen files at most.
fn chmod(mode: &str, files: &[&Path]) -> String {
    let shown: Vec<_> = files.iter().take(12).map(|file| file.display().to_string()).collect();
    let more = if files.len() > shown.len() { " ..." } else { "" };
    format!(
        "chmod {mode} {}{more}, or defaultMode 0440 and an fsGroup where Kubernetes mounts it",
        shown.join(" ")
    )
}

/// The files that secrets are read from, each with its setting; a directory's are one.
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

/// No caller has an address of these: multicast, reserved, unspecified.
const NOBODY: [IpNet; 5] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128)),
];

/// Settings that judge callers by their address, and cannot do what they look like.
pub(super) fn callers(config: &Config) -> Vec<String> {
    let http = &config.http;
    let all = |networks: &Networks| networks.iter().find(|network| network.prefix_len() == 0).copied();
    // A port on a loopback address has callers of that address only: all else is a proxy's to tell.
    let only = http.listen.parse().map(|listen: SocketAddr| listen.ip().to_canonical()).ok();
    let only = only.filter(|ip| ip.is_loopback() && !http.trusted_proxies.contains(*ip));
    let mut warnings = Vec::new();
    if let Some(network) = all(&http.trusted_proxies) {
        warnings.push(format!(
            "http.trusted_proxies holds {network}: who reaches the port may claim any address; name the proxies alone"
        ));
    }
    if let (Some(ip), Some(_)) = (only, http.unverified_rate_per_address) {
        warnings.push(format!(
            "http.unverified_rate_per_address: all callers of http.listen have the address {ip}, so one may use it up \
             for the others; name the proxy in http.trusted_proxies"
        ));
    }
    for (name, source) in &config.source {
        let Some(allow) = &source.allow else { continue };
        if let Some(network) = all(allow) {
            warnings.push(format!(
                "source {name}: allow holds {network}, every address of its kind; leave the list out if anybody may call"
            ));
        }
        let nobody = allow.iter().filter(|network| NOBODY.iter().any(|none| none.contains(*network)));
        warnings.extend(nobody.map(|network| {
            format!("source {name}: allow holds {network}, which is no caller's address; take it out")
        }));
        if let Some(ip) = only.filter(|ip| !allow.contains(*ip)) {
            warnings.push(format!(
                "source {name}: all callers of http.listen have the address {ip}, which is not in allow, so every \
                 delivery is refused with 403; name the proxy in http.trusted_proxies"
            ));
        }
    }
    warnings
}
