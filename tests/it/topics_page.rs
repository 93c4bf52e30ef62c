//! `docs/topics.md` is made here: from the shipped schemas, the presets, the list of reasons, and the text
//! below for what none of these say.
//!
//! `HOOKSTREAM_WRITE_DOCS=1 cargo test --test it topics_page` writes it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use hookstream::names;
use hookstream::outcome::{Outcome, Reason};
use hookstream::schema::shipped::{self, Origin};
use serde_json::Value;

use crate::support::{Setup, datagrid, kafka};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/topics.md");

const ALL: &str = r#"# Topics

What a consumer finds in Kafka. Made by a test from the schemas' own docs: to change a field's text here, change its
`doc` in [schemas/](../schemas), then `HOOKSTREAM_WRITE_DOCS=1 cargo test --test it topics_page`.
[examples/](../examples) has consumers in Python, Java and Rust, and a table for Flink SQL.

The names below are those of sources that are called as their preset. A source with another name has it in topics,
subjects and headers; the Avro names stay.

- **At least once.** A sender repeats what was not answered in time, so an event may be there several times, with the same
  key and value but for `received_at`. Drop duplicates by the key. Topics compact, so of old records of a key the last is
  left; but later, and not for certain.
- **The key** is the event id in UTF-8. Where a source has
  [another key](../README.md#another-key) for an event type, drop duplicates by `id`; that topic does not compact.
  Where its secrets are bound to tenants, the key says [whose it is](#keys-with-a-binding).
- **The value** is Avro in Confluent's wire format: a zero byte, the schema's id (4 bytes, big-endian), Avro. It is never
  null: there are no tombstones.
- **The partition** is chosen as Kafka's Java clients do, by murmur2 of the key. Order holds within a partition and is that
  of arrival; when things happened, `time` tells.
- **The timestamp** of the Kafka record is when it was appended, by Kafka's clock (`message.timestamp.type=LogAppendTime`);
  in a topic that somebody else has made with `CreateTime`, when it was handed over. So its retention begins when it is
  there for you to read, however long Kafka was out before and whatever our clock says. When it was received stands in
  `received_at` and in the header `hookstream-received-at`, when it happened in `time`: a window or a join by time takes
  one of these.
- **Topics** are made with `cleanup.policy=compact,delete` and 30 days of retention, unless the configuration or your
  platform says otherwise.
- **Schemas change** so that old and new readers can read old and new records (FULL_TRANSITIVE): fields come with a default,
  and none changes its type.
- **A subscription** to `^datagrid\..*` has typed events only: dead letters stand outside of it. New topics are found
  when the client asks for them again (`metadata.max.age.ms`, 5 minutes).

## `additional_fields`

A map from JSON pointers, from the root of the delivery's body, to JSON text as it was sent. In it stands what the
provider sent and the typed fields do not hold: members that the schema does not know, values that do not fit their field
(which is null then), and values that their field cannot give back exactly (more digits, a finer time). Empty
where the typed fields say everything. A field that a later schema knows moves out of it: read both for one version,
`COALESCE(data.priority, additional_fields['/data/priority'])` in SQL; there it is JSON text, a string with its quotes.
[docs/schemas.md](schemas.md) has the rules.

## Keys with a binding

A source may have [a secret for each tenant](../README.md#a-secret-for-each-tenant). Tenants choose their own event ids, so
two of them may send the same. There a key that begins with a slash is a binding, a colon and the event id (or what the
key has in its place):

| key | read as |
|---|---|
| `/tenant_id=acme:evt_1` | the event `evt_1` of a secret that is bound to `acme` at `/tenant_id` of the body |
| `/org%3Dunit=a%3Ab:evt_1` | `evt_1` of `a:b` at `/org=unit` |
| `evt_1` | `evt_1` of a secret that is bound to nothing |
| `/=:/evt_1` | the same, of the id `/evt_1` |

Cut at the first `:`, and the binding at its `=`; both of its parts are percent-encoded UTF-8, the id is not. No two pairs
of binding and id have the same key, so drop duplicates by the key as everywhere. `id` and `ce_id` are the id alone, which
names one event of one tenant. A source with `binding_in_key = false` has none of this.

## Headers

UTF-8; times are RFC 3339.

| header | |
|---|---|
| `ce_specversion` | `1.0`: the headers are those of the CloudEvents Kafka binding |
| `ce_id` | the event id |
| `ce_source` | `/hooks/` and the source's name |
| `ce_type` | the event's type as it was sent |
| `ce_time` | the event's own time with all its digits, if it is known |
| `content-type` | `application/avro` |
| `traceparent` | as the sender sent it, if it did; of a delivery that is [traced](operations.md#traces) that of hookstream's own span, which stands below the sender's |
| `hookstream-delivery-id` | names the delivery in the answer, the log and here |
| `hookstream-received-at` | when the head of the delivery had come |
| `hookstream-secret` | the name of the secret that it was signed with |
| `hookstream-unsigned` | the fields that no signature covers, as `id,type`, if there are such |
| `hookstream-replayed` | `topic/partition/offset` of the dead letter that it was made from, if it was |
"#;

const GENERIC: &str = r#"## Event types without a schema

An event type that a source has in `types`, and no schema for, has the generic record on its own topic. With
`unmapped = "generic"` all other types share one.

| | |
|---|---|
| topic | `<source>.<event_type>`, or `<source>.unmapped` |
| subject | `<topic>-value` |
| Avro name | `hookstream.<source>.<Name>`: `hookstream.github.PullRequest` for `pull_request` of `github` |
| schema | [schemas/generic.avsc](../schemas/generic.avsc) |
| key | the event id; where id or type are not signed `<id>:<16 hex digits>`, of the body's SHA-256, so that a captured delivery under another id stands beside an event and not in its place |
"#;

const LETTERS: &str = r#"## Dead letters: `dead_letter.<source>`

Deliveries that are authentic and of no use as an event. No schema and no subject: the value is the body, byte for
byte (`{"hookstream":"the delivery had an empty body"}`, if that was empty). The key is the event id,
else `sha256:` and the digest of the signed body, [with its binding](#keys-with-a-binding) where the secret has one. `cleanup.policy=delete`, `retention.ms=-1`: they are kept until
somebody deletes them, and never compacted, so one key may stand there several times.
[`hookstream replay`](../README.md#replay-dead-letters) publishes them once their cause is mended.

| header | |
|---|---|
| `hookstream-reason` | one of the table below |
| `hookstream-detail` | where and what, if there is more to say; never a value of the body |
| `hookstream-original-topic` | where it was bound, if that is known |
| `content-type`, and others of the request | each that the source's rules read, its signature too; never a token |
| `hookstream-form` | in which form the body was signed |
| `hookstream-seal` | proves to `replay` that the delivery was verified |
| `traceparent`, `hookstream-delivery-id`, `hookstream-received-at`, `hookstream-secret` | as above |

| reason | |
|---|---|
"#;

const REPLAYED: &str = r"
## What became of them: `dead_letter.<source>.replayed`

Written by `hookstream replay`, so that none is published twice. Compacted, no schema. The key is the dead letter's
place, `topic/partition/offset`; the last record of a key counts. The header `hookstream-delivery-id` is the letter's. The
value is JSON text:

| member | |
|---|---|
| `outcome` | `published`, `handled` (it is a handshake), or `failed` (it is tried again next time) |
| `reason` | why it failed, one of the list |
| `topic`, `partition`, `offset` | where its record stands, if it has one; the first of several |
| `at` | when, RFC 3339 |
";

/// The page as it should be.
fn page() -> String {
    let mut page = ALL.to_owned();
    for (preset, rules) in hookstream::config::presets() {
        let rules: toml::Table = toml::from_str(rules).unwrap();
        let types = rules["types"].as_array().unwrap().iter().map(|kind| kind.as_str().unwrap());
        let mut files: Vec<(String, Vec<&str>)> = Vec::new();
        for kind in types {
            let found = shipped::find(None, preset, Some(preset), kind).unwrap().expect("a preset's schema");
            let Origin::BuiltIn { source, file } = found.origin else { panic!("{}", found.origin) };
            let file = format!("{source}/{file}");
            match files.iter_mut().find(|(known, _)| *known == file) {
                Some((_, types)) => types.push(kind),
                None => files.push((file, vec![kind])),
            }
        }
        for (file, types) in files {
            let text = std::fs::read_to_string(schemas().join(&file)).unwrap();
            event(&mut page, preset, &file, &types, &key(&rules), &serde_json::from_str(&text).unwrap());
        }
    }
    writeln!(page, "\n{}", GENERIC.trim_end()).unwrap();
    let generic: Value = serde_json::from_str(&shipped::generic("source", "type")).unwrap();
    table(&mut page, &generic);
    write!(page, "\n{}", LETTERS).unwrap();
    for row in Reason::ALL.iter().map(|reason| reason.row()) {
        if row.outcome == Outcome::DeadLettered {
            writeln!(page, "| `{}` | {} |", row.label, row.text).unwrap();
        }
    }
    page + REPLAYED
}

fn schemas() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas"))
}

/// What a preset makes the key of.
fn key(rules: &toml::Table) -> String {
    match rules["envelope"]["id"].as_str().expect("a part of the body, or the digest") {
        "digest" => {
            "`sha256:` and the hex digits of the SHA-256 of what was signed; no event id is sent".into()
        }
        pointer => format!("the event id, `{pointer}` of the body"),
    }
}

/// The part of one schema.
fn event(page: &mut String, source: &str, file: &str, types: &[&str], key: &str, schema: &Value) {
    let text = |member: &str| schema[member].as_str().unwrap().to_owned();
    let topics: Vec<String> = types.iter().map(|kind| names::topic(source, kind)).collect();
    let list =
        |names: Vec<String>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let subjects = topics.iter().map(|topic| names::subject(topic)).collect();
    let stem = Path::new(file).file_stem().unwrap().to_string_lossy().into_owned();
    write!(
        page,
        "\n## {source}: {stem}\n\n{}\n\n| | |\n|---|---|\n| topic | {} |\n| subject | {} |\n| Avro name | `{}.{}` |\n\
         | schema | [schemas/{file}](../schemas/{file}) |\n| key | {key} |\n",
        text("doc"),
        list(topics),
        list(subjects),
        text("namespace"),
        text("name"),
    )
    .unwrap();
    table(page, schema);
}

fn table(page: &mut String, schema: &Value) {
    page.push_str("\n| field | type | may be null | |\n|---|---|---|---|\n");
    rows(page, "", schema);
}

/// A row for each field of a record, and of the records in it.
fn rows(page: &mut String, above: &str, record: &Value) {
    for field in record["fields"].as_array().unwrap() {
        let name = format!("{above}{}", field["name"].as_str().unwrap());
        let (nullable, kind) = inner(&field["type"]);
        let doc = field["doc"].as_str().unwrap().replace('|', r"\|");
        let null = if nullable { " yes" } else { "" };
        writeln!(page, "| `{name}` | {} |{null} | {doc} |", shown(kind)).unwrap();
        if kind["type"] == "record" {
            rows(page, &format!("{name}."), kind);
        }
    }
}

/// Whether null is one of its types, and the other.
fn inner(kind: &Value) -> (bool, &Value) {
    match kind.as_array().map(Vec::as_slice) {
        None => (false, kind),
        Some([null, kind]) if null == "null" => (true, kind),
        Some(_) => panic!("say how to show {kind}"),
    }
}

fn shown(kind: &Value) -> String {
    if let Some(logical) = kind["logicalType"].as_str() {
        return logical.to_owned();
    }
    match kind["type"].as_str().or(kind.as_str()) {
        Some("map") => format!("map of {}", shown(inner(&kind["values"]).1)),
        Some("array") => format!("array of {}", shown(inner(&kind["items"]).1)),
        Some("record") => format!("record `{}`", kind["name"].as_str().unwrap()),
        Some(primitive) => primitive.to_owned(),
        None => panic!("say how to show {kind}"),
    }
}

#[test]
fn the_page_of_topics_is_what_the_schemas_say() {
    let page = page();
    if std::env::var("HOOKSTREAM_WRITE_DOCS").is_ok_and(|wish| wish == "1") {
        std::fs::write(PAGE, &page).unwrap();
    }
    let found = std::fs::read_to_string(PAGE).unwrap_or_default();
    let differs =
        page.lines().zip(found.lines().chain(std::iter::repeat(""))).find(|(made, found)| made != found);
    assert!(
        page == found,
        "docs/topics.md is not what the schemas say; `HOOKSTREAM_WRITE_DOCS=1 cargo test --test it topics_page` writes \
         it. First difference, made and found: {differs:?}"
    );
}

#[test]
fn every_shipped_schema_stands_on_the_page() {
    let page = page();
    for source in std::fs::read_dir(schemas()).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(files) = std::fs::read_dir(&source) else { continue };
        for file in files.map(|entry| entry.unwrap().path()) {
            let path = file.strip_prefix(schemas()).unwrap().display();
            assert!(page.contains(&format!("(../schemas/{path})")), "{path}");
        }
    }
}

#[tokio::test]
async fn the_page_of_topics_has_each_header_and_the_policy_that_there_really_is() {
    let mut setup = Setup::new("datagrid");
    setup.rules = "envelope.type = { header = 'X-Type', unsigned = true }".into();
    let service = setup.ready().await;
    for kind in ["batch_prediction.completed", "batch_prediction.paused"] {
        let body = r#"{"id":"evt_1","timestamp":1775847600,"data":{}}"#;
        let signature = datagrid(body.as_bytes());
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = [("Datagrid-Signature", signature.as_str()), ("X-Type", kind), ("traceparent", trace)];
        assert_eq!(service.post(&headers, body).await.status, 200);
    }
    let (events, letters) = (service.topic("batch_prediction.completed"), service.dead_letters());
    let page = page();
    let (_, of_letters) = page.split_once("## Dead letters").unwrap();
    let records = kafka::java(&[&events, &letters]);
    assert_eq!(records.len(), 2);
    for record in records {
        let part = if record["topic"] == events.as_str() { page.as_str() } else { of_letters };
        let headers = record["headers"].as_object().unwrap();
        let unknown: BTreeSet<&String> = headers
            .keys()
            .filter(|name| !["datagrid-signature", "x-type"].contains(&name.as_str()))
            .filter(|name| !part.contains(&format!("`{name}`")))
            .collect();
        assert!(unknown.is_empty() && headers.len() > 8, "{unknown:?} of {headers:?}");
    }
    for (topic, text) in [(events, ALL), (letters, LETTERS)] {
        let settings = kafka::own_settings(&topic).await;
        assert!(text.contains(&format!("`cleanup.policy={}`", settings["cleanup.policy"])), "{settings:?}");
        let retention = if topic.starts_with("dead_letter.") { "-1" } else { "2592000000" };
        assert_eq!(settings["retention.ms"], retention);
    }
}
