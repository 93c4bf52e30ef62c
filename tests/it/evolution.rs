//! The provider adds fields: from the drift report to typed fields, while an old consumer keeps reading.

mod infer;

use std::process::Command;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use rdkafka::message::Message as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{hookstream, run};
use crate::support::process::{Process, serve};
use crate::support::{SECRET, Setup, datagrid, kafka, stack, until};

const COMPLETED: &str = "batch_prediction.completed";
const FAILED: &str = "batch_prediction.failed";

/// A value in the bodies, which no output may contain.
const PAYLOAD: &str = "payload-of-a-customer";

/// A service with its own configuration and schemas.
struct Fixture {
    dir: TempDir,
    setup: Setup,
    process: Process,
    hooks: String,
    client: reqwest::Client,
}

impl Fixture {
    /// `schema` makes the schema of order.paid from the source's name; `None` for no schema.
    fn new(rules: &str, schema: Option<fn(&str) -> String>) -> Self {
        let setup = Setup { rules: rules.into(), ..Setup::new("datagrid") };
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("hookstream.toml"), setup.toml()).unwrap();
        let own = dir.path().join("schemas").join(&setup.source);
        if let Some(text) = schema {
            std::fs::create_dir_all(&own).unwrap();
            std::fs::write(own.join("order.paid.avsc"), text(&setup.source)).unwrap();
        }
        let (process, hooks, _) = serve(&dir.path().join("hookstream.toml"));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { dir, setup, process, hooks, client }
    }

    fn source(&self) -> &str {
        &self.setup.source
    }

    fn topic(&self, event_type: &str) -> String {
        format!("{}.{event_type}", self.source())
    }

    /// Delivers an event until it is published; `more` are members next to `data`.
    async fn publish(&self, event_type: &str, id: &str, data: &Value, more: &Value) {
        let mut body = json!({"id": id, "event_type": event_type, "timestamp": 1_775_847_600, "data": data});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let body = body.to_string();
        until("a published delivery", async || {
            let request = self.client.post(format!("http://{}/hooks/{}", self.hooks, self.source()));
            let request = request.header("datagrid-signature", datagrid(body.as_bytes()));
            let answer = request.body(body.clone()).send().await.unwrap();
            answer.json::<Value>().await.unwrap()["outcome"] == "published"
        })
        .await;
    }

    /// Runs a command in the service's directory. Returns exit code, standard output and standard error.
    fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = hookstream(self.dir.path());
        let (code, stdout, stderr) =
            run(command.args(arguments).args(["-c", "hookstream.toml"]).env("TEST_SECRET", SECRET));
        println!("{arguments:?} {code}\n{stdout}{stderr}");
        assert!(!stdout.contains(PAYLOAD) && !stderr.contains(PAYLOAD));
        (code, stdout, stderr)
    }

    fn drift(&self, arguments: &[&str]) -> (i32, String, String) {
        self.command(&[&["schema", "drift", self.source()], arguments].concat())
    }

    fn report(&self, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = self.drift(&[arguments, &["--json"]].concat());
        assert_eq!((code, stderr.as_str()), (0, ""));
        serde_json::from_str(&stdout).unwrap()
    }

    fn reload(&self) {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("schemas").join(self.source()).join(name)
    }

    /// Key, schema id and Avro value of each record of a topic, in no particular order.
    async fn records(&self, event_type: &str) -> Vec<(String, u32, Vec<u8>)> {
        let topic = self.topic(event_type);
        let read = move || {
            let mut all = Vec::new();
            kafka::records(&stack("KAFKA"), &topic, |record| {
                let value = record.payload().unwrap();
                let id = u32::from_be_bytes(value[1..5].try_into().unwrap());
                let key = String::from_utf8(record.key().unwrap().to_vec()).unwrap();
                all.push((key, id, value[5..].to_vec()));
            });
            all
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    /// A version of a type's schema from the registry.
    async fn registered(&self, event_type: &str, version: u32) -> Schema {
        let subject = format!("{}-value", self.topic(event_type));
        let url = format!("{}/subjects/{subject}/versions/{version}", stack("REGISTRY"));
        let found: Value = self.client.get(url).send().await.unwrap().json().await.unwrap();
        Schema::parse_str(found["schema"].as_str().unwrap()).unwrap()
    }
}

/// The fields in the report of a type: pointer, reason, records, JSON types.
fn fields(report: &Value, event_type: &str) -> Vec<(String, String, u64, Value)> {
    let types = report["types"].as_array().unwrap();
    let found = types.iter().find(|one| one["type"] == event_type).unwrap();
    let fields = found["fields"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    fields
        .map(|field| {
            let records = field["records"].as_u64().unwrap();
            (text(&field["pointer"]), text(&field["why"]), records, field["json_types"].clone())
        })
        .collect()
}

/// A field of a decoded record; unions are resolved.
fn at<'a>(value: &'a Avro, path: &[&str]) -> Option<&'a Avro> {
    match (value, path) {
        (Avro::Union(_, inner), path) => at(inner, path),
        (value, []) => Some(value),
        (Avro::Record(fields), [first, rest @ ..]) => {
            at(&fields.iter().find(|(name, _)| name == first)?.1, rest)
        }
        _ => None,
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Decodes a record with its writer's schema into the schema `reader`.
fn read(writer: &Schema, reader: &Schema, avro: &[u8]) -> Avro {
    let datum = GenericDatumReader::builder(writer).reader_schema(reader).build().unwrap();
    datum.read_value(&mut &avro[..]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_new_fields_become_typed_while_an_old_consumer_keeps_reading() {
    let fixture = Fixture::new(&format!("types = [\"{COMPLETED}\", \"{FAILED}\"]"), None);
    fixture.publish(COMPLETED, "evt_v1", &json!({"id": "b1"}), &json!({})).await;
    let (code, stdout, _) = fixture.drift(&[]);
    assert_eq!((code, stdout.as_str()), (0, "no drift in 1 record of 2 event types: all fields are known\n"));

    let data = json!({"id": "b2", "priority": PAYLOAD, "request_counts": {"total": 3, "queued": 2}});
    fixture.publish(COMPLETED, "evt_more", &data, &json!({})).await;
    fixture.publish(COMPLETED, "evt_more2", &data, &json!({})).await;

    let (code, stdout, stderr) = fixture.drift(&["--since", "1h"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    assert_eq!(
        lines(&stdout),
        [
            "type field seen since JSON type".to_owned(),
            format!("{COMPLETED} /data/priority 2 {today} string"),
            format!("{COMPLETED} /data/request_counts/queued 2 {today} integer"),
            String::new(),
            format!(
                "next hookstream schema drift {} {COMPLETED} shows the schema that covers them",
                fixture.source()
            ),
        ]
    );

    // First only shown, then written.
    let file = fixture.file("batch_prediction.avsc");
    let (code, shown, _) = fixture.drift(&[COMPLETED]);
    assert!(code == 0 && !file.exists());
    let (code, stdout, stderr) = fixture.drift(&[COMPLETED, "--write"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    for expected in [
        format!(
            "schemas/{}/batch_prediction.avsc (new, from built in: datagrid/batch_prediction.avsc)\n",
            fixture.source()
        ),
        format!("serves {COMPLETED}, {FAILED}: all of them gain the fields\n"),
        format!(
            "+          {{\n+            \"name\": \"priority\",\n+            \"type\": [\"null\", \"string\"],\n\
             +            \"default\": null,\n+            \"doc\": \"Seen since {today}; not described yet.\"\n"
        ),
        "COALESCE(data.priority, TRIM(BOTH '\"' FROM additional_fields['/data/priority']))\n".into(),
        "next  describe the new fields in their `doc`, run hookstream provision --apply, and reload".into(),
    ] {
        assert!(stdout.contains(&expected), "{expected} is not in\n{stdout}");
        assert!(shown.contains(&expected) || expected.starts_with("next"), "{expected} is not in\n{shown}");
    }
    let moves: Vec<_> = lines(&stdout).into_iter().filter(|line| line.starts_with("/data/")).collect();
    assert_eq!(
        moves,
        [
            "/data/request_counts/queued data.request_counts.queued COALESCE(data.request_counts.queued, \
             CAST(additional_fields['/data/request_counts/queued'] AS BIGINT))",
            "/data/priority data.priority COALESCE(data.priority, TRIM(BOTH '\"' FROM additional_fields['/data/priority']))",
        ]
    );
    assert!(!stdout.contains("\n-"), "no line of the file is removed\n{stdout}");

    // The registry accepts it for both types.
    let (code, plan, _) = fixture.command(&["provision"]);
    assert_eq!(code, 1, "pending changes");
    for pointer in ["/data/priority", "/data/request_counts/queued"] {
        assert!(plan.contains(&format!("consumers that read additional_fields['{pointer}']")), "{plan}");
    }
    assert_eq!(fixture.command(&["provision", "--apply"]).0, 0);
    until("an empty plan", async || fixture.command(&["provision"]).0 == 0).await;
    fixture.reload();
    let (old, new) = (fixture.registered(COMPLETED, 1).await, fixture.registered(COMPLETED, 2).await);
    let mut sent = 0;
    until("a typed record", async || {
        sent += 1;
        fixture.publish(COMPLETED, &format!("evt_v2_{sent}"), &data, &json!({})).await;
        let records = fixture.records(COMPLETED).await;
        records.iter().map(|(_, id, _)| id).collect::<std::collections::BTreeSet<_>>().len() == 2
    })
    .await;
    let last = format!("evt_v2_{sent}");
    let java = kafka::java(&[&fixture.topic(COMPLETED)]);
    let typed = java.iter().find(|record| record["key"] == *last).unwrap();
    assert_eq!(typed["value"]["data"]["priority"], PAYLOAD);
    assert_eq!(typed["value"]["data"]["request_counts"]["queued"], 2);
    assert_eq!(typed["value"]["additional_fields"], json!({}));
    fixture.publish(FAILED, "evt_failed", &json!({"priority": PAYLOAD}), &json!({})).await;
    assert_eq!(kafka::java(&[&fixture.topic(FAILED)])[0]["value"]["data"]["priority"], PAYLOAD);

    // An old consumer reads the new records, and a new one the old records.
    let records = fixture.records(COMPLETED).await;
    let first = records.iter().find(|(key, ..)| key == "evt_v1").unwrap().1;
    assert_eq!(records.len(), 3 + sent);
    for (key, id, avro) in &records {
        let writer = if *id == first { &old } else { &new };
        let as_before = read(writer, &old, avro);
        assert!(matches!(at(&as_before, &["id"]), Some(Avro::String(id)) if id == key), "{key}");
        assert!(matches!(at(&as_before, &["data", "id"]), Some(Avro::String(_))), "{key}");
        assert!(at(&as_before, &["data", "priority"]).is_none());
        let today = read(writer, &new, avro);
        let priority = at(&today, &["data", "priority"]).unwrap();
        assert_eq!(matches!(priority, Avro::String(_)), *id != first, "{key}: {priority:?}");
    }

    // Older records do not count as drift of the new version.
    let (code, stdout, _) = fixture.drift(&[COMPLETED, "--write"]);
    assert_eq!(code, 0);
    for expected in [
        format!("no drift in {} records of 2 event types: all fields are known\n", 4 + sent),
        format!("{COMPLETED}: only in records from before the schema had a field: /data/priority, "),
        "batch_prediction.avsc: no field to add\n".into(),
    ] {
        assert!(stdout.contains(&expected), "{expected} is not in\n{stdout}");
    }
}

fn schema(source: &str) -> String {
    let namespace = source.replace('-', "_");
    format!(
        r#"{{"type": "record", "name": "OrderPaid", "namespace": "hookstream.{namespace}", "fields": [
  {{"name": "id", "type": "string"}}, {{"name": "type", "type": "string"}}, {{"name": "source", "type": "string"}},
  {{"name": "time", "type": ["null", {{"type": "long", "logicalType": "timestamp-millis"}}], "default": null}},
  {{"name": "received_at", "type": {{"type": "long", "logicalType": "timestamp-millis"}}}},
  {{"name": "data", "type": {{"type": "record", "name": "Paid", "fields": [
{DATA}
  ]}}}},
  {{"name": "additional_fields", "type": {{"type": "map", "values": "string"}}, "default": {{}}}}
]}}
"#
    )
}

const DATA: &str = r#"    {"name": "total", "type": ["null", "long"], "default": null},
    {"name": "price", "type": ["null", "double"], "default": null},
    {"name": "lines", "type": ["null", {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
      {"name": "sku", "type": ["null", "string"], "default": null}
    ]}}], "default": null},
    {"name": "stock", "type": ["null", {"type": "map", "values": {"type": "record", "name": "Stock", "fields": [
      {"name": "left", "type": ["null", "int"], "default": null}
    ]}}], "default": null}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_has_one_line_per_pointer_and_no_field_for_mixed_or_misfitting_values() {
    let fixture = Fixture::new("types = [\"order.paid\"]", Some(schema));
    let file = fixture.file("order.paid.avsc");

    let lines: Vec<Value> = (0..50).map(|n| json!({"sku": "a", "tax-rate": n})).collect();
    let data = |mixed: Value| {
        json!({"total": "ten", "price": 0.5, "lines": lines, "stock": {PAYLOAD: {"left": 1, "reserved": true}},
            "mixed": mixed, "none": null, "few": [], "ratio": 1, "tags": ["a"]})
    };
    fixture.publish("order.paid", "evt_1", &data(json!(7)), &json!({"region": PAYLOAD})).await;
    fixture.publish("order.paid", "evt_2", &data(json!("7")), &json!({})).await;

    let report = fixture.report(&["order.paid"]);
    let expected = [
        ("/region", "new", 1, json!(["string"])),
        ("/data/few", "new", 2, json!(["array"])),
        ("/data/mixed", "new", 2, json!(["integer", "string"])),
        ("/data/ratio", "new", 2, json!(["integer"])),
        ("/data/tags", "new", 2, json!(["array"])),
        ("/data/lines/*/tax-rate", "new", 2, json!(["integer"])),
        ("/data/stock/*/reserved", "new", 2, json!(["boolean"])),
        ("/data/total", "misfit", 2, json!(["string"])),
    ];
    let mut found = fields(&report, "order.paid");
    found.sort_by_key(|(pointer, ..)| expected.iter().position(|(known, ..)| known == pointer));
    let expected = expected.map(|(pointer, why, n, types)| (pointer.to_owned(), why.to_owned(), n, types));
    assert_eq!(found, expected);

    let change = &report["schema"];
    assert_eq!(change["written"], false);
    let left: Vec<_> = change["left_out"].as_array().unwrap().iter().map(|left| &left["pointer"]).collect();
    assert_eq!(left, ["/data/few", "/data/mixed"]);
    let moves: Vec<_> =
        change["moves"].as_array().unwrap().iter().map(|one| one["field"].as_str().unwrap()).collect();
    assert_eq!(
        moves,
        ["data.lines.*.tax_rate", "data.stock.*.reserved", "data.ratio", "data.tags", "region"]
    );

    // Formatted like the lines around it, with no other change.
    let before = std::fs::read_to_string(&file).unwrap();
    assert_eq!(fixture.report(&["order.paid", "--write"])["schema"]["written"], true);
    let after = std::fs::read_to_string(&file).unwrap();
    let added: Vec<&str> =
        after.lines().filter(|line| !before.contains(line.trim_end_matches(','))).collect();
    let names: Vec<_> = added.iter().map(|line| line.trim().split(", ").next().unwrap()).collect();
    assert_eq!(
        names,
        [
            r#"{"name": "tax_rate""#,
            r#"{"name": "reserved""#,
            r#"{"name": "ratio""#,
            r#"{"name": "tags""#,
            r#"{"name": "region""#
        ]
    );
    assert!(added[0].contains(r#""hookstream.json": "tax-rate""#), "{}", added[0]);
    assert_eq!(fixture.command(&["check"]).0, 0);
    assert_eq!(fixture.command(&["provision", "--apply"]).0, 0, "the registry accepts it");
}
