//! Generates `docs/topics.md` from the shipped schemas, the presets, the list of reasons, and the text below.
//!
//! `HOOKSTREAM_WRITE_DOCS=1 cargo test --test it topics_page` writes it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use hookstream::names;
use hookstream::outcome::{Outcome, Reason};
use hookstream::schema::shipped::{self, SchemaOrigin};
use serde_json::Value;

use crate::support::{Setup, datagrid, kafka};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/topics.md");

const ALL: &str = r#"# Topics

What a consumer finds in Kafka. A test makes this page from the schemas: to change a field's text, change its `doc` in
[schemas/](../schemas), then `HOOKSTREAM_WRITE_DOCS=1 cargo test --test it topics_page`. [examples/](../examples) has
consumers in Python, Java and Rust, and tables for Flink SQL.

The names below are those of sources named like their preset. For a source with another name, topics, subjects and headers have
that name; the Avro names stay the same.

- **At least once.** A sender repeats what was not answered in time, so an event may occur several times, with the same key and
  the same value except for `received_at`. Drop duplicates by the key. Topics are compacted, so in the end only a key's last record
  is left; but that happens later, and is not guaranteed.
- **The key** is the event id in UTF-8. Grapevine sends no id: there it is `sha256:` and the digest of what was signed, the same
  for each retry. If a source has [another key](configuration.md#another-key) for an event type, drop duplicates by `id`; that
  topic is not compacted. If the source's secrets are bound to tenants, the key says [whose it is](#keys-with-a-binding).
- **The value** is Avro in Confluent's wire format: a zero byte, the schema's id (4 bytes, big-endian), Avro. It is never null:
  there are no tombstones.
- **The partition** is murmur2 of the key, as in Kafka's Java clients. Order holds within a partition and is the order of arrival;
  `time` says when things happened.
- **The timestamp** of the Kafka record is when Kafka appended it, by Kafka's clock (`message.timestamp.type=LogAppendTime`). In a
  topic that somebody else has created with `CreateTime`, it is when hookstream handed the record to Kafka. So retention begins when
  you can read the record, however long Kafka was unavailable before and whatever our clock says. `received_at` and the header
  `hookstream-received-at` are the time of receipt, `time` is when the event happened: use one of these for a window or a join.
- **Topics** that hookstream creates have 6 partitions, 3 copies (fewer if there are fewer brokers), `cleanup.policy=compact,delete`
  (`delete` with another key) and 30 days of retention, unless the configuration or your platform says otherwise.
- **Schemas change** such that old and new readers can read old and new records (FULL_TRANSITIVE): new fields have a default, and no
  field changes its type.
- **A subscription** to `^datagrid\..*` gets typed events only: dead letters are outside of it. Clients find new topics when they
  refresh their metadata (`metadata.max.age.ms`, 5 minutes).

## An example

A record of `datagrid.batch_prediction.failed`, as `hookstream tail` prints it in a pipe, made by `hookstream send` to
`hookstream dev` and indented here:

```json
{
  "topic": "datagrid.batch_prediction.failed",
  "partition": 1,
  "offset": 0,
  "timestamp": 1796046680657,
  "time": "2026-11-30T13:51:20.657Z",
  "key": "evt_01a22cb9725071fc983886b3e44b946e",
  "headers": {
    "ce_specversion": "1.0",
    "ce_id": "evt_01a22cb9725071fc983886b3e44b946e",
    "ce_source": "/hooks/datagrid",
    "ce_type": "batch_prediction.failed",
    "ce_time": "2026-11-30T13:51:20Z",
    "content-type": "application/avro",
    "hookstream-delivery-id": "01a22cb9725170c5ad1541d0c5710c85",
    "hookstream-received-at": "2026-11-30T13:51:20.657346085Z",
    "hookstream-secret": "dev"
  },
  "schema_id": 1,
  "value": {
    "id": "evt_01a22cb9725071fc983886b3e44b946e",
    "type": "batch_prediction.failed",
    "source": "datagrid",
    "time": "2026-11-30T13:51:20.000Z",
    "received_at": "2026-11-30T13:51:20.657Z",
    "data": {
      "id": "bpred_def456",
      "object": "batch_prediction",
      "status": "failed",
      "model": "magpie-1.1",
      "completion_window": "24h",
      "created_at": "2026-04-10T18:12:04.118Z",
      "in_progress_at": null,
      "finalizing_at": null,
      "completed_at": null,
      "failed_at": "2026-04-10T19:00:00.000Z",
      "expired_at": null,
      "expires_at": "2026-04-11T18:12:04.118Z",
      "cancelling_at": null,
      "cancelled_at": null,
      "metadata": { "pipeline": "invoice-extraction", "run": "2026-04-10" },
      "request_counts": { "total": 0, "processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0 },
      "results_url": null,
      "error": {
        "type": "invalid_request",
        "title": "Input file could not be read",
        "status": 422,
        "detail": "Line 17 is not a JSON object.",
        "instance": "/v1/batch-predictions/bpred_def456"
      }
    },
    "additional_fields": {}
  }
}
```

Read it with hookstream (through the registry of its configuration), or with kcat:

```console
$ hookstream tail datagrid.batch_prediction.failed -o start -e
$ kcat -b 127.0.0.1:9092 -r http://127.0.0.1:8081 -s value=avro -C -e -t datagrid.batch_prediction.failed -o beginning
```

In Flink SQL, with the tables of [examples/flink/events.sql](../examples/flink/events.sql):

```sql
SELECT `event_key`, `time`, `data`.`status`, `data`.`results_url`, `additional_fields`['/data/priority'] AS priority
FROM batch_prediction_completed;
```

A consumer needs Read on the topics and on its group, and read access to the registry:
[the commands](deploy.md#kafkas-permissions).

## `additional_fields`

A map from JSON pointers, from the root of the delivery's body, to JSON text as it was sent. It holds what the provider sent and
the typed fields do not: members that the schema does not know, values that do not fit their field (which is null then), and
values that their field cannot represent exactly (more digits, a finer time): with `"priority": 1.10` in `data`, it has
`/data/priority` -> `1.10`. It is empty if the typed fields say everything. When a later schema gets a field for a member, the
member moves out of it: read both for a while, `COALESCE(data.priority, additional_fields['/data/priority'])` in SQL; there it is
JSON text, a string with its quotes. [schemas.md](schemas.md) has the rules.

## Keys with a binding

A source may have [a secret for each tenant](secrets.md#a-secret-for-each-tenant). Tenants choose their own event ids, so two of
them may send the same one. For such a source, a key that begins with a slash is a binding, a colon and the event id (or the
type's other key):

| key | read as |
|---|---|
| `/tenant_id=acme:evt_1` | the event `evt_1` of a secret that is bound to `acme` at `/tenant_id` of the body |
| `/org%3Dunit=a%3Ab:evt_1` | `evt_1` of `a:b` at `/org=unit` |
| `evt_1` | `evt_1` of a secret that is bound to nothing |
| `/=:/evt_1` | the same, of the id `/evt_1` |

Split the key at the first `:`, and the binding at its `=`; both parts of the binding are percent-encoded UTF-8, the id is not. No
two pairs of binding and id have the same key, so drop duplicates by key as always. `id` and `ce_id` are the id alone, which names
one event of one tenant. A source with `binding_in_key = false` has no such keys.

## Headers

UTF-8; times are RFC 3339.

| header | |
|---|---|
| `ce_specversion` | `1.0`: the headers are those of the CloudEvents Kafka binding |
| `ce_id` | the event id |
| `ce_source` | `/hooks/` and the source's name |
| `ce_type` | the event's type as it was sent |
| `ce_time` | the event's own time with all its digits, if known |
| `content-type` | `application/avro` |
| `traceparent` | as sent, if it was; for a [traced](operations.md#traces) delivery, hookstream's own span, a child of the sender's |
| `hookstream-delivery-id` | the delivery's id, also in the answer and the log |
| `hookstream-received-at` | when the head of the request was complete |
| `hookstream-secret` | the name of the secret that signed it |
| `hookstream-unsigned` | the fields that no signature covers, such as `id,type`, if there are any |
| `hookstream-replayed` | `topic/partition/offset` of the dead letter from which it was replayed, if it was |
"#;

const GENERIC: &str = r#"## Event types without a schema

An event type in a source's `types` without a schema has the generic record on its own topic. With `unmapped = "generic"`, all other
types share one topic.

| | |
|---|---|
| topic | `<source>.<event_type>`, or `<source>.unmapped` |
| subject | `<topic>-value` |
| Avro name | `hookstream.<source>.<Name>`: `hookstream.github.PullRequest` for `pull_request` of `github` |
| schema | [schemas/generic.avsc](../schemas/generic.avsc) |
| key | the event id; if id or type are unsigned, `<id>:<16 hex digits of the body's SHA-256>`, so that a captured delivery under another event's id does not replace that event |
"#;

const LETTERS: &str = r#"## Dead letters: `dead_letter.<source>`

Deliveries that are authentic but cannot become an event. They have no schema and no subject: the value is the body, byte for byte
(`{"hookstream":"the delivery had an empty body"}`, if it was empty). The key is the event id, else `sha256:` and the digest of
the signed body, [with its binding](#keys-with-a-binding) if the secret has one. The topic has `cleanup.policy=delete` and
`retention.ms=-1`: dead letters are kept until somebody deletes them, and never compacted, so a key may occur several times.
[`hookstream replay`](runbook.md#replay-dead-letters) publishes them once their cause is fixed.

| header | |
|---|---|
| `hookstream-reason` | one of the reasons below |
| `hookstream-detail` | place and problem, if there is more to say; never a value of the body |
| `hookstream-original-topic` | the topic it was meant for, if known |
| `content-type`, and others of the request | its headers as received, up to 16 KiB beside those that the source's rules read, so that a corrected rule can read others; never a credential (a token, `authorization`, `cookie`, or a name with `auth`, `token`, `secret`, `password`, `credential`, `session` or `api-key` in it that no rule reads) |
| `hookstream-form` | the form in which the body was signed |
| `hookstream-seal` | proves to `replay` that the delivery was verified |
| `traceparent`, `hookstream-delivery-id`, `hookstream-received-at`, `hookstream-secret` | as above |

| reason | |
|---|---|
"#;

const REPLAYED: &str = r"
## What became of them: `dead_letter.<source>.replayed`

`hookstream replay` writes this topic, so that it publishes no dead letter twice. It is compacted and has no schema. The key is the
dead letter's place, `topic/partition/offset`; a key's last record counts. The header `hookstream-delivery-id` is that of the dead
letter. The value is JSON text:

| member | |
|---|---|
| `outcome` | `published`, `handled` (it is a handshake), or `failed` (the next replay tries it again) |
| `reason` | why it failed, one of the reasons above |
| `topic`, `partition`, `offset` | where its record is, if it has one; of several, the first |
| `at` | when, RFC 3339 |
";

/// The expected page.
fn page() -> String {
    let mut page = ALL.to_owned();
    for (preset, rules) in hookstream::config::presets() {
        let rules: toml::Table = toml::from_str(rules).unwrap();
        let types = rules["types"].as_array().unwrap().iter().map(|kind| kind.as_str().unwrap());
        let mut files: Vec<(String, Vec<&str>)> = Vec::new();
        for kind in types {
            let found = shipped::find(None, preset, Some(preset), kind).unwrap().expect("a preset's schema");
            let SchemaOrigin::BuiltIn { source, file } = found.origin else { panic!("{}", found.origin) };
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
    for row in Reason::ALL.iter().map(|reason| reason.info()) {
        if row.outcome == Outcome::DeadLettered {
            writeln!(page, "| `{}` | {} |", row.label, row.text).unwrap();
        }
    }
    page + REPLAYED
}

fn schemas() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas"))
}

/// The members from which a preset makes the key.
fn key(rules: &toml::Table) -> String {
    match rules["envelope"]["id"].as_str().expect("a part of the body, or the digest") {
        "digest" => {
            "`sha256:` and the hex digits of the SHA-256 of what was signed; no event id is sent".into()
        }
        pointer => format!("the event id, `{pointer}` of the body"),
    }
}

/// The section of one schema.
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

/// A row for each field of a record and of its nested records.
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

/// Whether the type may be null, and the other type.
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
fn topics_page_matches_the_schemas() {
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
fn topics_page_lists_every_shipped_schema() {
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
async fn topics_page_lists_each_header_and_the_real_topic_settings() {
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
