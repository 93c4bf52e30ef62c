//! Checks that no field's own type can make: ranges, formats, and settings that contradict each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{
    Config, ConfigErrors, Http, LagConfig, Networks, RegistryConfig, Signature, SourceConfig, Stale, Topics,
    TracesConfig, Unmapped,
};
use crate::names;

/// The upper limit of every timeout.
const HOUR: Duration = Duration::from_secs(3600);

/// The range of every rate limit, per second.
const RATES: RangeInclusive<u32> = 1..=1_000_000;

/// Adds a problem for each violated check.
pub(super) fn all(config: &Config, problems: &mut ConfigErrors) {
    listen(config, problems);
    hosts(config, problems);
    http(&config.http, problems);
    topics(&config.kafka.topics, problems);
    registry(&config.registry, problems);
    brokers(&config.kafka.bootstrap_servers, problems);
    if !(config.spool.source_share > 0.0 && config.spool.source_share <= 1.0) {
        problems.add("spool.source_share", "expected a number above 0 and at most 1");
    }
    if tracing_subscriber::EnvFilter::try_new(&config.log.filter).is_err() {
        problems.add(
            "log.filter",
            "expected a level (error, warn, info, debug, trace, off) or TARGET=LEVEL, several separated by commas",
        );
    }
    lag(&config.lag, problems);
    traces(&config.traces, problems);
    for (name, source) in &config.source {
        self::source(name, source, &config.http, problems);
    }
    collisions(config, problems);
}

/// Only hosts and ports are allowed. The text is logged and shown in errors unchanged, so it must not contain
/// credentials; and librdkafka accepts a protocol, but drops the broker if it differs from `security.protocol`.
fn brokers(servers: &str, problems: &mut ConfigErrors) {
    // librdkafka's default port is 9092.
    let is_host_and_port = |server: &str| {
        let (host, port) = server.rsplit_once(':').unwrap_or((server, "9092"));
        let named =
            !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
        named && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    let is_broker = |server: &str| server.parse::<SocketAddr>().is_ok() || is_host_and_port(server);
    let Some(wrong) = servers.split(',').map(str::trim).find(|server| !is_broker(server)) else { return };
    let message = match wrong.contains("://") {
        true => {
            "expected host:port, several separated by commas, not a URL; set security.protocol in [kafka.properties]"
        }
        false => "expected host:port, several separated by commas",
    };
    problems.add("kafka.bootstrap_servers", message);
}

/// `address:port` or `host:port`.
fn is_listen(address: &str) -> bool {
    let host_port = || {
        let (host, port) = address.rsplit_once(':')?;
        let named = !host.is_empty() && !host.contains([':', '/', ' ']);
        (named && port.parse::<u16>().is_ok()).then_some(())
    };
    address.parse::<SocketAddr>().is_ok() || host_port().is_some()
}

fn listen(config: &Config, problems: &mut ConfigErrors) {
    for (key, address) in [("http.listen", &config.http.listen), ("admin.listen", &config.admin.listen)] {
        if !is_listen(address) {
            problems.add(key, "expected address:port, such as \"127.0.0.1:8080\" or \"[::]:8080\"");
        }
    }
    if config.http.listen == config.admin.listen && !config.http.listen.ends_with(":0") {
        problems.add("admin.listen", "equals http.listen; give the operator's port its own address");
    }
}

/// Names only: a port or a scheme would match nothing.
fn hosts(config: &Config, problems: &mut ConfigErrors) {
    let is_name = |host: &str| {
        let name = host.strip_prefix("*.").unwrap_or(host);
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    for (index, host) in config.admin.hosts.iter().enumerate() {
        if !is_name(host) {
            let message = "expected a name without a port, such as \"ops.example.com\" or \"*.example.com\"";
            problems.add(format!("admin.hosts.{index}"), message);
        }
    }
}

/// Limits that other rooms rely on: hyper panics on a head buffer below 8 KiB, tokio panics on more permits than its
/// semaphore supports, and an instant overflows on a very long duration.
fn http(http: &Http, problems: &mut ConfigErrors) {
    const KIB: usize = 1024;
    let sizes = [
        ("http.max_body", http.max_body, KIB, 256 * KIB * KIB, "1 KiB to 256 MiB"),
        ("http.max_head", http.max_head, 8 * KIB, KIB * KIB, "8 KiB to 1 MiB"),
        (
            "http.unverified_work_per_address",
            http.unverified_work_per_address,
            KIB * KIB,
            KIB * KIB * KIB * KIB,
            "1 MiB to 1 TiB",
        ),
        ("http.max_connections", http.max_connections, 1, 10_000_000, "1 to 10000000"),
        ("http.max_in_flight", http.max_in_flight, 1, 10_000_000, "1 to 10000000"),
        (
            "http.max_requests_per_connection",
            http.max_requests_per_connection as usize,
            1,
            10_000_000,
            "1 to 10000000",
        ),
    ];
    for (key, number, min, max, range) in sizes {
        if !(min..=max).contains(&number) {
            problems.add(key, format!("expected {range}"));
        }
    }
    if http.max_body_bytes < http.max_body {
        problems.add_between(
            ["http.max_body_bytes", "http.max_body"],
            "max_body_bytes, the limit for all bodies together, is less than max_body: a body of that size could never be accepted; \
             raise it, or lower max_body",
        );
    }
    if http.max_connections_per_address == Some(0) {
        problems.add(
            "http.max_connections_per_address",
            "expected at least 1; the default is an eighth of http.max_connections, but at least 256",
        );
    }
    if http.unverified_rate_per_address.is_some_and(|rate| !RATES.contains(&rate)) {
        problems.add(
            "http.unverified_rate_per_address",
            "expected 1 to 1000000 per second; without the setting there is no limit",
        );
    }
    let times = [
        ("http.head_timeout", http.head_timeout, Duration::from_millis(1)),
        ("http.idle_timeout", http.idle_timeout, Duration::from_millis(1)),
        ("http.body_timeout", http.body_timeout, Duration::from_millis(1)),
        ("http.max_connection_age", http.max_connection_age, Duration::from_secs(1)),
        ("http.drain_delay", http.drain_delay, Duration::ZERO),
        ("http.shutdown_timeout", http.shutdown_timeout, Duration::ZERO),
    ];
    for (key, time, min) in times {
        self::time(key, time, min, problems);
    }
}

fn time(key: &str, time: Duration, min: Duration, problems: &mut ConfigErrors) {
    if !(min..=HOUR).contains(&time) {
        problems.add(key, format!("expected {} to 1h", humantime::format_duration(min)));
    }
}

fn topics(topics: &Topics, problems: &mut ConfigErrors) {
    let numbers = [
        ("kafka.topics.partitions", topics.partitions, i32::MAX as u32),
        ("kafka.topics.replication", topics.replication, i16::MAX as u32),
        ("kafka.topics.min_insync_replicas", topics.min_insync_replicas, i16::MAX as u32),
    ];
    for (key, number, max) in numbers {
        if number == 0 || number > max {
            problems.add(key, format!("expected 1 to {max}"));
        }
    }
    if topics.replication < topics.min_insync_replicas {
        problems.add_between(
            ["kafka.topics.min_insync_replicas", "kafka.topics.replication"],
            "min_insync_replicas is more than replication: no record could be acknowledged; \
             lower it, or raise replication",
        );
    }
    // Kafka stores it as signed milliseconds.
    if topics.retention < Duration::from_secs(1) || i64::try_from(topics.retention.as_millis()).is_err() {
        problems.add(
            "kafka.topics.retention",
            "expected at least 1s, and at most what Kafka can represent in milliseconds",
        );
    }
}

fn registry(registry: &RegistryConfig, problems: &mut ConfigErrors) {
    match reqwest::Url::parse(&registry.url) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            if !url.username().is_empty() || url.password().is_some() {
                problems.add(
                    "registry.url",
                    "contains a user name or password; remove them and set registry.basic_auth, with the password by reference",
                );
            }
            if url.query().is_some() || url.fragment().is_some() {
                problems.add(
                    "registry.url",
                    "has a query or a fragment; remove it, and set registry.bearer if it is a token",
                );
            }
        }
        _ => problems.add("registry.url", "expected a URL with http:// or https://"),
    }
    if registry.client_cert.is_some() && registry.url.starts_with("http://") {
        let message = "needs an https:// URL: over http://, the registry never asks for the certificate";
        problems.add_between(["registry.client_cert", "registry.url"], message);
    }
    let is_context = |context: &str| {
        let rest = context.strip_prefix('.').unwrap_or_default();
        !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    if registry.context.as_deref().is_some_and(|context| !is_context(context)) {
        let message = "expected a dot and a name, such as \".tenant\"; omit it for the default context";
        problems.add("registry.context", message);
    }
    if registry.bearer.is_some() && registry.basic_auth.is_some() {
        problems.add("registry.bearer", "cannot be combined with registry.basic_auth; keep one of them");
    }
}

fn lag(lag: &LagConfig, problems: &mut ConfigErrors) {
    time("lag.interval", lag.interval, Duration::from_secs(1), problems);
    for (index, group) in lag.groups.iter().enumerate() {
        if group.trim().is_empty() {
            problems.add(format!("lag.groups.{index}"), "is an empty group name; remove it");
        } else if group.contains('\0') {
            problems.add(
                format!("lag.groups.{index}"),
                "contains a NUL character, which no group name can; remove it",
            );
        }
    }
}

fn traces(traces: &TracesConfig, problems: &mut ConfigErrors) {
    if !(0.0..=1.0).contains(&traces.sample) {
        problems.add("traces.sample", "expected a number from 0 to 1");
    }
    let Some(endpoint) = &traces.endpoint else { return };
    let mistake = match reqwest::Url::parse(endpoint) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") || !url.has_host() => None,
        Ok(url) if !url.username().is_empty() || url.password().is_some() => Some(
            "contains a user name or password; remove them and set traces.headers, with authorization by reference",
        ),
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            Some("has a query or a fragment; remove it")
        }
        Ok(url) if url.path().trim_end_matches('/').ends_with("/v1/traces") => {
            Some("ends in /v1/traces, which hookstream appends; remove it")
        }
        Ok(_) => return,
        Err(_) => None,
    };
    let form = "expected the collector's base URL, such as \"http://127.0.0.1:4318\"";
    problems.add("traces.endpoint", mistake.unwrap_or(form));
}

fn source(name: &str, source: &SourceConfig, http: &Http, problems: &mut ConfigErrors) {
    let deadline = format!("source.{name}.ack_deadline");
    time(&deadline, source.ack_deadline, Duration::from_millis(1), problems);
    if http.body_timeout >= source.ack_deadline {
        let message = format!(
            "the ack_deadline of {name} is not longer than http.body_timeout: a slow body would leave no time for Kafka; \
             raise it, or lower http.body_timeout"
        );
        problems.add_between([&deadline, "http.body_timeout"], message);
    }
    if source.dead_letter_rate == 0 {
        let message = "expected at least 1: with 0, the provider would retry an authentic but unusable delivery forever";
        problems.add(format!("source.{name}.dead_letter_rate"), message);
    }
    if source.rate_limit.is_some_and(|rate| !RATES.contains(&rate)) {
        let message = "expected 1 to 1000000 per second; without the setting there is no limit";
        problems.add(format!("source.{name}.rate_limit"), message);
    }
    let allow = format!("source.{name}.allow");
    if source.allow.as_ref().is_some_and(Networks::is_empty) && !problems.contains_key_or_below(&allow) {
        problems.add(
            allow,
            "is empty, so no client could call; list networks, or remove it to accept any client",
        );
    }
    let tolerance = format!("source.{name}.tolerance");
    time(&tolerance, source.tolerance, Duration::from_secs(1), problems);
    let timed = |scheme: &Signature| scheme.timestamp_key.is_some() || !scheme.timestamp_header.is_empty();
    if source.stale != Stale::Accept && !source.signature.iter().any(timed) {
        let message = "needs a signed timestamp, and the signature has none; set \"accept\"";
        problems.add(format!("source.{name}.stale"), message);
    }
    if source.max_in_flight.is_some_and(|max| !(1..=http.max_in_flight).contains(&max)) {
        let message = format!("expected 1 to {}, which is http.max_in_flight", http.max_in_flight);
        problems.add_between([&format!("source.{name}.max_in_flight"), "http.max_in_flight"], message);
    }
    let key = format!("source.{name}.types");
    if source.types.is_empty() && source.unmapped == Unmapped::DeadLetter {
        problems.add(key.as_str(), "is empty; name at least one event type, or set unmapped = \"generic\"");
    }
    routed(name, source, problems);
    for (index, event_type) in source.types.iter().enumerate() {
        let key = format!("{key}.{index}");
        if event_type.trim().is_empty() {
            problems.add(key, "is an empty event type; remove it");
        } else if names::topic(name, event_type).len() > names::MAX_TOPIC {
            let max = names::MAX_TOPIC;
            problems.add(
                key,
                format!("gives a topic name of more than {max} characters; shorten the source name"),
            );
        }
    }
}

/// The target of an alias or a default must have a topic. An event type with its own key rule must have a topic of its
/// own.
fn routed(name: &str, source: &SourceConfig, problems: &mut ConfigErrors) {
    let envelope = &source.envelope;
    if envelope.keys.keys().any(|event_type| !source.types.contains(event_type)) {
        let message = "names an event type that is not in `types`; add it there, or correct it";
        problems.add(format!("source.{name}.envelope.keys"), message);
    }
    if source.unmapped == Unmapped::Generic {
        return;
    }
    let default = envelope.default_type.iter().filter(|default| !envelope.aliases.contains_key(*default));
    let default = default.map(|target| ("default_type", target));
    for (field, target) in default.chain(envelope.aliases.values().map(|target| ("aliases", target))) {
        if !source.types.contains(target) {
            let message = "names an event type that is not in `types`; add it there, or correct it";
            problems.add(format!("source.{name}.envelope.{field}"), message);
        }
    }
}

/// No two event types of any sources may share a topic, or have topics that Kafka treats as equal.
fn collisions(config: &Config, problems: &mut ConfigErrors) {
    let mut taken: BTreeMap<String, (String, String)> = BTreeMap::new();
    for (name, source) in &config.source {
        let key = format!("source.{name}");
        let typed = source.types.iter().map(|event_type| {
            (format!("{key}.types"), names::topic(name, event_type), format!("{name}'s `{event_type}`"))
        });
        let unmapped = (source.unmapped == Unmapped::Generic).then(|| {
            let owner = format!("{name}'s unmapped types");
            (format!("{key}.unmapped"), names::topic(name, names::UNMAPPED), owner)
        });
        let dead = (key.clone(), names::dead_letter_topic(name), format!("{name}'s dead letters"));
        let owner = format!("the outcomes of {name}'s replays");
        let replayed = (key.clone(), names::replayed_topic(name), owner);
        for (key, topic, owner) in typed.chain(unmapped).chain([dead, replayed]) {
            let Some((other_key, other)) = taken.get(&names::collision_key(&topic)) else {
                taken.insert(names::collision_key(&topic), (key, owner));
                continue;
            };
            let message = format!(
                "the topic {topic} of {owner} is also that of {other}, or differs from it only in . and _, \
                 which Kafka treats as equal; rename one"
            );
            problems.add_between([&key, other_key], message);
        }
    }
}
