//! Every setting with its default, its values and its meaning: the tables of docs/configuration.md are made from this.
//!
//! The defaults themselves are in config/hookstream.toml and in the types' own `serde` attributes. Tests load each
//! default from here and compare the result with an empty configuration, and compare the keys with the types' fields.

use std::fmt::Write as _;

/// What a setting is if nobody sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// This value, as `-X` takes it.
    Is(&'static str),
    /// Nothing: the feature is off, or there is no bound.
    None,
    /// The source's preset says it; without a preset, it is required.
    Preset,
    /// What the preset says, else this value.
    PresetOr(&'static str),
    /// In words: it follows from other settings.
    Derived(&'static str),
    /// It must be set.
    Required,
}

/// A row of a table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Within its table.
    pub key: &'static str,
    /// If nobody sets it.
    pub default: Default,
    /// What may be written.
    pub values: &'static str,
    /// What it does.
    pub text: &'static str,
}

/// A table of the configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// `http`, or `source.NAME.signature`.
    pub name: &'static str,
    /// In the order of the page.
    pub settings: &'static [Setting],
}

/// Settings, one per item: key, default, values, text.
macro_rules! rows {
    (= $shared:ident) => { $shared };
    ($($key:literal $default:ident $(($value:literal))?, $values:literal, $text:literal;)*) => {
        &[$(Setting {
            key: $key,
            default: Default::$default $(($value))?,
            values: $values,
            text: $text,
        }),*]
    };
}

/// Tables, each with its rows or with `= NAME`, rows that it shares with another table.
macro_rules! tables {
    ($([$table:literal] { $($rows:tt)* })*) => {
        /// All tables.
        pub const TABLES: &[Table] = &[$(Table { name: $table, settings: rows!($($rows)*) }),*];
    };
}

/// The rows of `[http.tls]` and `[admin.tls]`.
const TLS: &[Setting] = rows! {
    "cert" Required, "path",
        "PEM file: the server's certificate, then its issuers'.";
    "key" Required, "path",
        "PEM file: the certificate's private key, without a passphrase.";
    "client_ca" None, "path",
        "PEM file: authorities of client certificates. If it is set, only clients with a certificate of one of them can connect.";
};

tables! {
    ["http"] {
        "listen" Is("127.0.0.1:8080"), "`address:port`",
            "The port that providers call. Port 0 takes a free one.";
        "max_body" Is("900 KiB"), "size",
            "Largest request body; a larger one is answered 413.";
        "max_head" Is("16 KiB"), "size",
            "Largest request head (request line and headers); a larger one is answered 431. So is a head with more than 100 header lines, whatever their size.";
        "head_timeout" Is("10s"), "duration",
            "Time for the complete head, from its first byte. It is also the limit of a TLS handshake, and of a new connection that sends nothing.";
        "idle_timeout" Is("75s"), "duration",
            "How long a connection is kept open for its next request. Keep it above that of the proxy or load balancer in front (AWS ALB 60 s, nginx 60 s), which otherwise may send a request into a connection that is being closed.";
        "body_timeout" Is("2s"), "duration",
            "Time from the head to the complete body; past it 408.";
        "max_body_bytes" Is("256 MiB"), "size",
            "Bytes of all bodies together, from their arrival to the end of their deliveries; past it 503. Until one of its deliveries verifies, an address may hold an eighth of what is free; after that, a source may hold half if there are others.";
        "max_connections" Is("10000"), "number",
            "Open connections. Past it, hookstream closes a connection that waits for a request to make room for the new one, those that have never delivered anything verified first; it never closes one with a delivery in flight. If the limit of open files is too low, `serve` lowers it at start and logs that.";
        "max_connections_per_address" Derived("an eighth of `max_connections`, at least 256"), "number",
            "Open connections of one client address; past it, new ones are closed at once. An IPv6 /64 network counts as one address. Trusted proxies are exempt; behind any other proxy, set it to `max_connections`.";
        "max_connection_age" Is("10m"), "duration",
            "The first answer after this time closes the connection. Each connection gets its own limit, up to a quarter shorter, so that they do not all close at once.";
        "max_requests_per_connection" Is("10000"), "number",
            "The answer to this request closes the connection, with the same spread.";
        "trusted_proxies" Is(""), "list of networks (`10.0.0.0/8`) or addresses",
            "Proxies whose header gives the client's address: see [client addresses](security.md#client-addresses).";
        "client_address_header" Is("x-forwarded-for"), "header name",
            "The header in which those proxies send it.";
        "unverified_rate_per_address" None, "number",
            "Deliveries answered 401 per second and client address, with a burst of five seconds' worth; past it 503, before the body is read. Do not set it behind an untrusted proxy: all clients would share it.";
        "unverified_work_per_address" Is("16 MiB"), "size",
            "Bytes hashed per second and client address for deliveries that do not verify (body size, times secrets, times forms), with a burst of five seconds' worth; past it 503, before the body is read, until the debt is paid off, at most a minute. A small delivery is still tried with the secret that matched last. Verified deliveries cost nothing. A source may cost four times as much.";
        "max_in_flight" Is("2000"), "number",
            "Verified deliveries in progress; past it 503.";
        "drain_delay" Is("5s"), "duration",
            "After SIGTERM, how long hookstream still accepts deliveries so that load balancers notice.";
        "shutdown_timeout" Is("15s"), "duration",
            "After that, time for deliveries in progress.";
    }
    ["http.tls"] { = TLS }
    ["admin"] {
        "listen" Is("127.0.0.1:9464"), "`address:port`",
            "The operator's port: status page, probes, metrics.";
        "bearer" None, "`{ env = \"NAME\" }` or `{ file = \"/path\" }`",
            "Token that every request must bring, except those for `/livez` and `/readyz`.";
        "without_token" Is("127.0.0.1,::1"), "list of networks or addresses",
            "Without `bearer`: who may use more than `/livez`, `/readyz` and `/metrics`.";
        "hosts" Is(""), "list of names, `*.example.com`",
            "Names that clients use for the port, in addition to addresses, `localhost` and the name in `listen`. Any other `Host` is answered 421.";
    }
    ["admin.tls"] { = TLS }
    ["kafka"] {
        "bootstrap_servers" Is("127.0.0.1:9092"), "`host:port`, comma-separated",
            "Brokers to start from; the port is 9092 if none is given.";
        "properties.*" None, "a [librdkafka property](https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md)",
            "Any, except those that the delivery promise depends on (acks, idempotence, timeouts, partitioner, retries, queue limits): setting one of these is an error that names the setting to use instead.";
    }
    ["kafka.topics"] {
        "partitions" Is("6"), "number",
            "Partitions of the topics that hookstream creates.";
        "replication" Is("3"), "number",
            "Their copies; fewer if the cluster has fewer brokers.";
        "min_insync_replicas" Is("2"), "number",
            "Their `min.insync.replicas`; at most the number of copies.";
        "retention" Is("30d"), "duration",
            "Their `retention.ms`. Dead letters are kept until you delete them.";
    }
    ["registry"] {
        "url" Is("http://127.0.0.1:8081"), "URL",
            "Base URL of the registry's Confluent API. Apicurio's ends in `/apis/ccompat/v7`.";
        "basic_auth" None, "`{ username = \"...\", password = { file = \"/path\" } }`",
            "User and password; the password by reference.";
        "bearer" None, "`{ env = \"NAME\" }` or `{ file = \"/path\" }`",
            "A token; excludes `basic_auth`.";
        "ca_file" None, "path",
            "PEM file: the authority of the registry's certificate, if the system does not know it.";
        "client_cert" None, "path",
            "PEM file: hookstream's certificate and its chain, if the registry asks for one.";
        "client_key" None, "path",
            "PEM file: its private key, without a passphrase.";
        "context" None, "`.tenant`",
            "The registry context of the subjects; without it, the default context.";
        "subject_name_strategy" Is("topic_name"), "`topic_name`, `record_name`, `topic_record_name`",
            "How subjects are named: see [registries](schemas.md#registries), as for the next two.";
        "normalize" Is("false"), "`true`, `false`",
            "Asks the registry to treat schemas that differ only in form as one.";
        "auto_register" Is("true"), "`true`, `false`",
            "`false`: schemas are looked up and never registered.";
    }
    ["spool"] {
        "dir" None, "path",
            "The spool's directory. Without it there is no spool.";
        "max_size" Is("4 GiB"), "size",
            "Bytes that may wait in the spool.";
        "max_rows" Is("10000000"), "number",
            "Rows that may wait in it.";
        "source_share" Is("0.5"), "above 0, up to 1",
            "Share of both that one source may fill while several sources are on; past it 503 `spool_full`.";
        "min_free" Is("256 MiB"), "size",
            "Space that must stay free on its disk.";
        "reserve" Is("1s"), "duration",
            "Part of `ack_deadline` that is kept back from Kafka, for writing the row.";
    }
    ["provision"] {
        "on_start" Is("true"), "`true`, `false`",
            "Whether `serve` creates missing topics and registers schemas.";
    }
    ["log"] {
        "filter" Is("info"), "`warn`, `info`, `debug`, `off`, or `TARGET=LEVEL`",
            "What is logged. A reload applies a change. The variable `HOOKSTREAM_LOG` overrides it.";
    }
    ["lag"] {
        "groups" Is(""), "list of names, with `*`",
            "Consumer groups whose lag is exported in `/metrics`.";
        "interval" Is("15s"), "duration",
            "Time between two measurements.";
    }
    ["traces"] {
        "endpoint" None, "URL",
            "Base URL of an OTLP/HTTP collector; hookstream appends `/v1/traces`. Without it there are no spans: see [traces](operations.md#traces).";
        "sample" Is("1.0"), "0 to 1",
            "Share of deliveries that is exported if no verified caller decides.";
        "headers.*" None, "`{ env = \"NAME\" }` or `{ file = \"/path\" }`",
            "Headers that are sent to the collector, such as its token; each holds the whole value.";
    }
    ["source.NAME"] {
        "preset" None, "name; `hookstream providers` lists them",
            "The provider's rules, which apply where the source sets nothing itself: see [providers](providers.md).";
        "docs" PresetOr(""), "URL",
            "The provider's page about its webhooks, for people; nothing reads it.";
        "enabled" Is("true"), "`true`, `false`",
            "`false`: its URL is answered 404, and its secrets are not read.";
        "secrets" Required, "list of references",
            "The secrets that may have signed a delivery: see [secrets](secrets.md).";
        "binding_in_key" Is("true"), "`true`, `false`",
            "The record's key includes what its secret is bound to. Set it to `false` only for [existing topics](secrets.md#upgrade-a-source-with-bound-secrets).";
        "content_encoding" PresetOr("as_sent"), "`as_sent`, `signed_encoded`, `signed_decoded`",
            "Whether a body with a `Content-Encoding` is decoded (`gzip` or `deflate`, up to `http.max_body` bytes), and whether its signature covers the body as sent or the decoded one: see [compressed bodies](providers.md#compressed-bodies).";
        "ack_deadline" PresetOr("4s"), "duration",
            "Time from the complete head to the answer.";
        "types" PresetOr(""), "list of event types",
            "Event types with a topic of their own. One without a schema gets the [generic record](#event-types-without-a-schema).";
        "unmapped" PresetOr("dead_letter"), "`dead_letter`, `generic`",
            "What happens to all other events: dead letter `type_unknown` or `type_missing`, or a generic record on `<source>.unmapped`.";
        "allow" None, "list of networks (`192.0.2.0/24`, `2001:db8::/32`) or addresses",
            "Clients that may call; others get 403. Without it, anybody may. Like everything in a source, a reload applies a change.";
        "rate_limit" None, "number",
            "Verified deliveries per second, with a burst of one second's worth, handshakes not counted; past it 503.";
        "max_in_flight" Derived("half of `http.max_in_flight`; all of it for the only source"), "number",
            "Verified deliveries of this source in progress; past it 503.";
        "dead_letter_rate" Is("100"), "number",
            "Dead letters per second; past it 503.";
        "stale" PresetOr("accept"), "`accept`, `dead_letter`, `reject`",
            "What happens to a delivery whose signed time is further than `tolerance` from now: nothing, dead letter `stale`, or 401. `reject` fits providers that sign each attempt anew; while hookstream's clock is known to be wrong, it answers 503 `clock_off` instead. An error for a source without a signed time.";
        "tolerance" PresetOr("5m"), "duration",
            "How far the signed time may be from now, in either direction.";
        "compatibility" Is("FULL_TRANSITIVE"), "`NONE`, `BACKWARD`, `FORWARD`, `FULL`, or one of the last three with `_TRANSITIVE`",
            "The compatibility level of its subjects: see [a new version](schemas.md#a-new-version).";
        "handshake" PresetOr(""), "array of tables",
            "Signed requests that are answered and are not events: see [handshakes](#handshakes).";
        "challenge" PresetOr(""), "table",
            "A request without a signature that is answered, such as a GET with a query parameter to send back: see [handshakes](#handshakes).";
    }
    ["source.NAME.signature"] {
        "kind" PresetOr("hmac"), "`hmac`, `token`, `bearer`, `basic`",
            "All but `hmac`: a header holds the secret itself, which proves nothing about the body. `bearer` and `basic`: behind that word, usually in `Authorization`; the secret of `basic` is `user:password`.";
        "header" Preset, "header name, or a list of names",
            "The header with the signature or the token.";
        "prefix" PresetOr(""), "text",
            "Text before the signature in that header, such as `sha256=`.";
        "signature_key" PresetOr(""), "text",
            "If the header is a list such as `t=1775847600,v1=...`, with commas or semicolons, or several such lists separated by spaces: the signature's key. Parts without a key after it are further signatures. Up to 8 signatures.";
        "timestamp_key" PresetOr(""), "text",
            "The key of the signed time in such a list.";
        "signature_version" PresetOr(""), "text",
            "If the header holds versioned signatures, `v1,... v1,...`: the version to read. Up to 8 signatures; other versions are skipped.";
        "timestamp_header" PresetOr(""), "header name, or a list of names",
            "The header with the signed time, if it has its own.";
        "timestamp_format" PresetOr("unix"), "`unix`, `rfc3339`, `http_date`",
            "How the signed time is written: as digits, such as `2026-01-02T03:04:05.678Z` (without a zone in UTC), or such as `Thu, 04 Jan 2024 18:05:25 GMT`.";
        "timestamp_unit" PresetOr("seconds"), "`seconds`, `milliseconds`",
            "The unit of a signed Unix time.";
        "id_header" PresetOr(""), "header name, or a list of names",
            "The header that `{id}` stands for.";
        "url" PresetOr(""), "URL",
            "The text that `{url}` stands for: the URL as registered with the provider.";
        "signed" PresetOr(""), "text",
            "What is signed: `{body}` and any of `{timestamp}`, `{id}`, `{url}`, `{method}`, `{header:NAME}`, with the text between them. Two headers, or a header and the body, need text between them; a value that contains its own separator is refused.";
        "forms" PresetOr("raw"), "list of `raw`, `json_compact_ascii`",
            "Which forms of the body to try. `json_compact_ascii` is the JSON text as Python's `json.dumps` writes it without spaces.";
        "hash" PresetOr("sha256"), "`sha256`, `sha512`, `sha1`",
            "The HMAC's hash; `sha1` causes a warning.";
        "encoding" PresetOr("hex"), "`hex`, `base64`, `base64url`",
            "How the signature is written.";
        "secret_format" PresetOr("text"), "`text`, `base64`, `whsec`, `hex`",
            "How the key is read from the secret; `whsec` is base64 behind `whsec_`, `v1,whsec_` or nothing.";
    }
    ["source.NAME.envelope"] {
        "id" Preset, "a part, `\"digest\"`, `{ join = [\"/a\", \"/b\"], separator = \":\" }`, or a list of them",
            "The event id: text, or a number by its digits as sent. `\"digest\"` is `sha256:` and the digest of the signed body; if that is compressed, of what it decodes to.";
        "type" Preset, "a part, or a list of parts",
            "The event type.";
        "default_type" PresetOr(""), "text",
            "The type of an event that has none. Without it, such an event is a dead letter, or with `unmapped = \"generic\"` of the type `unmapped`.";
        "aliases" PresetOr(""), "`{ \"as sent\" = \"one of types\" }`",
            "Other names of a type. The record keeps the name that was sent.";
        "keys" PresetOr(""), "`{ \"one of types\" = a part, or a list of parts }`",
            "The record's key, where it is not the event id: see [another key](#another-key).";
        "time" PresetOr(""), "a part, or a list of parts",
            "The event's time.";
        "time_format" PresetOr(""), "`unix_seconds`, `unix_milliseconds`, `rfc3339`, or a list of them",
            "How it is written; required with `time`. Of several formats, the first that fits.";
        "payload" PresetOr(""), "`\"form:NAME\"`",
            "If the body is a form (`application/x-www-form-urlencoded`): the field with the JSON text. The signature still covers the body as received.";
        "split" PresetOr(""), "JSON pointer",
            "An array of at most 1,000 events; empty if the body is that array: see [many events in one delivery](#many-events-in-one-delivery).";
        "data" PresetOr(""), "JSON pointer",
            "What the schema's `data` describes; empty is the whole body.";
    }
}

/// Whether layers merge the table at `path` key by key: it is in [`TABLES`], or has settings of its own there. Anything
/// else is the value of a setting, which a layer replaces whole.
pub(super) fn is_table(path: &[String]) -> bool {
    let leads_to = |name: &str| {
        let mut keys = name.split('.');
        path.iter().all(|key| keys.next().is_some_and(|known| known == "NAME" || known == key))
    };
    let has_settings = |table: &Table| {
        let tables = table.settings.iter().filter_map(|setting| setting.key.rsplit_once('.'));
        tables.map(|(below, _)| format!("{}.{below}", table.name)).any(|name| leads_to(&name))
    };
    TABLES.iter().any(|table| leads_to(table.name) || has_settings(table))
}

/// The rows of one table in Markdown.
#[must_use]
pub fn markdown(table: &Table) -> String {
    let mut page = String::from("| setting | default | values | |\n|---|---|---|---|\n");
    for Setting { key, default, values, text } in table.settings {
        let default = match default {
            Default::Is("") => "empty".to_owned(),
            Default::Is(value) => format!("`{value}`"),
            Default::None => "none".to_owned(),
            Default::Preset => "the preset's".to_owned(),
            Default::PresetOr("") => "the preset's, or none".to_owned(),
            Default::PresetOr(value) => format!("the preset's, or `{value}`"),
            Default::Derived(words) => (*words).to_owned(),
            Default::Required => "required".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| `{}.{key}` | {default} | {values} | {text} |", table.name);
    }
    page
}
