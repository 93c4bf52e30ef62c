//! `hookstream provision`: the plan, its execution, and the changes that it never makes.

mod reach;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cli::{hookstream, run};
use crate::support::{SECRET, Setup, batch, kafka, stack, until};

/// Runs `provision` with this set-up's configuration.
async fn provision(setup: &Setup, arguments: &[&str]) -> (i32, String, String) {
    let (toml, arguments) = (setup.toml(), arguments.iter().map(|text| (*text).to_owned()));
    let arguments: Vec<String> = arguments.collect();
    let work = move || {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("own.toml"), toml).unwrap();
        let mut command = hookstream(directory.path());
        let (code, stdout, stderr) = run(command
            .args(["provision", "-c", "own.toml"])
            .args(arguments)
            .env("TEST_SECRET", SECRET)
            .env("TEST_KAFKA_PASSWORD", stack("KAFKA_PASSWORD")));
        assert!(!stdout.contains(SECRET) && !stderr.contains(SECRET), "{stdout}{stderr}");
        println!("{stdout}{stderr}");
        (code, stdout, stderr)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Like [`provision`] with `--json`. Returns the exit code, the report, and its items by name.
async fn report(setup: &Setup, arguments: &[&str]) -> (i32, Value, BTreeMap<String, Value>) {
    let (code, stdout, stderr) = provision(setup, &[&["--json"], arguments].concat()).await;
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("no JSON: {stdout}{stderr}"));
    let items = report["items"].as_array().unwrap().iter();
    let items = items.map(|item| (item["name"].as_str().unwrap().to_owned(), item.clone())).collect();
    (code, report, items)
}

/// Waits until the plan is empty, since brokers learn of the controller's changes with a delay.
async fn until_unchanged(setup: &Setup) {
    until("an empty plan", async || report(setup, &[]).await.0 == 0).await;
}

fn change(item: &Value, setting: &str) -> Value {
    let changes = item["changes"].as_array().unwrap().iter();
    let found = changes.filter(|change| change["setting"] == setting).collect::<Vec<_>>();
    assert!(found.len() < 2, "{item}");
    found.first().map_or(Value::Null, |change| json!([change["from"], change["to"]]))
}

fn left(item: &Value, setting: &str) -> Value {
    let left = item["left"].as_array().unwrap().iter().find(|left| left["setting"] == setting);
    left.map_or(Value::Null, |left| json!([left["actual"], left["wished"]]))
}

#[tokio::test(flavor = "multi_thread")]
async fn provision_makes_an_empty_cluster_ready_and_the_next_plan_is_empty() {
    let setup = Setup::new("datagrid");
    let topic = format!("{}.batch_prediction.completed", setup.source);
    let (code, stdout, _) = provision(&setup, &[]).await;
    assert_eq!(code, 1);
    for expected in [
        format!("+ topic {topic}\n    + partitions              3\n"),
        "    + cleanup.policy          compact,delete\n".into(),
        "    + retention.ms            2592000000 (30days)\n".into(),
        format!("+ topic dead_letter.{}\n", setup.source),
        format!(
            "+ subject {topic}-value\n    + schema         version 1\n    + compatibility  FULL_TRANSITIVE\n"
        ),
        "plan: 11 to create, 0 to change, 0 to keep; --apply does it\n".into(),
    ] {
        assert!(stdout.contains(&expected), "{expected} is not in\n{stdout}");
    }
    let (code, planned, items) = report(&setup, &[]).await;
    assert_eq!((code, &planned["pending"], &planned["blocked"]), (1, &json!(11), &json!(0)));
    assert_eq!(items[&topic]["action"], "create");
    assert!(planned["steps"].is_null() && !kafka::exists(&topic).await, "a plan creates nothing");

    let (code, stdout, stderr) = provision(&setup, &["--apply"]).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    for done in
        [format!("done    create topic {topic}\n"), format!("register the schema of subject {topic}-value\n")]
    {
        assert!(stdout.contains(&done), "{done} is not in\n{stdout}");
    }
    until_unchanged(&setup).await;
    let (code, stdout, _) = provision(&setup, &[]).await;
    assert_eq!((code, stdout.as_str()), (0, "plan: 0 to create, 0 to change, 11 to keep\n"));
    let (code, applied, _) = report(&setup, &["--apply"]).await;
    assert_eq!((code, &applied["steps"]), (0, &json!([])), "a second --apply changes nothing");

    let source = setup.source.clone();
    let tables = "[provision]\non_start = false".into();
    let service = Setup { source, tables, ..Setup::new("datagrid") }.ready().await;
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn provision_shows_each_drift_alters_only_what_is_safe_and_keeps_foreign_settings() {
    let setup = Setup::new("datagrid");
    let name = |rest: &str| format!("{}.batch_prediction.{rest}", setup.source);
    let dead = format!("dead_letter.{}", setup.source);
    kafka::create_with(
        &name("failed"),
        &[("retention.ms", "5000"), ("max.message.bytes", "1000"), ("segment.ms", "777777")],
    )
    .await;
    kafka::create_with(&name("expired"), &[("retention.ms", "-1"), ("min.insync.replicas", "2")]).await;
    kafka::create_with(
        &name("cancelled"),
        &[("cleanup.policy", "delete,compact"), ("max.message.bytes", "9000000")],
    )
    .await;
    kafka::create_with(&dead, &[("retention.ms", "5000"), ("cleanup.policy", "compact")]).await;
    for topic in [&name("failed"), &name("expired"), &name("cancelled"), &dead] {
        until("the topic", async || kafka::exists(topic).await).await;
    }

    let (code, _, items) = report(&setup, &[]).await;
    assert_eq!(code, 1);
    let thirty = "2592000000";
    let failed = &items[&name("failed")];
    assert_eq!(failed["action"], "change");
    assert_eq!(change(failed, "retention.ms"), json!(["5000", thirty]));
    assert_eq!(change(failed, "max.message.bytes")[0], "1000");
    assert_eq!(left(failed, "cleanup.policy"), json!(["delete", "compact,delete"]));
    assert_eq!(left(failed, "partitions"), json!(["1", "3"]));
    assert_eq!(failed["foreign"], json!({"segment.ms": "777777"}));
    let expired = &items[&name("expired")];
    assert_eq!(left(expired, "retention.ms"), json!(["-1", thirty]));
    assert_eq!(left(expired, "min.insync.replicas"), json!(["2", "1"]));
    assert_eq!(left(&items[&name("cancelled")], "max.message.bytes")[0], "9000000");
    assert!(
        left(&items[&name("cancelled")], "cleanup.policy").is_null(),
        "the order of policies is not a difference"
    );
    assert_eq!(change(&items[&dead], "retention.ms"), json!(["5000", "-1"]));
    assert_eq!(change(&items[&dead], "cleanup.policy"), json!(["compact", "delete"]));

    let (code, stdout, stderr) = provision(&setup, &["--apply"]).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.contains("    ~ retention.ms            5000 (5s) -> 2592000000 (30days)\n"), "{stdout}");
    assert!(
        stdout.contains("    = segment.ms              777777 (12m 57s 777ms)   not managed by hookstream\n"),
        "{stdout}"
    );
    until_unchanged(&setup).await;
    let own = kafka::own_settings(&name("failed")).await;
    assert_eq!((&*own["segment.ms"], &*own["retention.ms"]), ("777777", thirty));
    assert!(!own.contains_key("cleanup.policy"), "unchanged settings must not be set: {own:?}");
    let own = kafka::own_settings(&name("expired")).await;
    assert_eq!((&*own["retention.ms"], &*own["min.insync.replicas"]), ("-1", "2"));
    let own = kafka::own_settings(&dead).await;
    assert_eq!((&*own["retention.ms"], &*own["cleanup.policy"]), ("-1", "delete"));
    assert_eq!(own["message.timestamp.type"], "LogAppendTime");

    // Irreversible changes need their own flag.
    let (code, _, items) = report(&setup, &["--allow-repartition", "--allow-removal"]).await;
    assert_eq!(code, 1);
    assert_eq!(change(&items[&name("failed")], "partitions"), json!(["1", "3"]));
    assert_eq!(change(&items[&name("failed")], "cleanup.policy"), json!(["delete", "compact,delete"]));
    assert_eq!(change(&items[&name("expired")], "retention.ms"), json!(["-1", thirty]));
    assert!(!left(&items[&name("expired")], "min.insync.replicas").is_null(), "no flag changes it");
    let (code, applied, _) = report(&setup, &["--apply", "--allow-repartition", "--allow-removal"]).await;
    assert_eq!(code, 0, "{applied}");
    until("an empty plan", async || report(&setup, &["--allow-repartition", "--allow-removal"]).await.0 == 0)
        .await;
    let own = kafka::own_settings(&name("failed")).await;
    assert_eq!((&*own["segment.ms"], &*own["cleanup.policy"]), ("777777", "compact,delete"));
    let own = kafka::own_settings(&name("expired")).await;
    assert_eq!(&*own["min.insync.replicas"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn provision_never_enables_compaction_if_a_key_identifies_several_events() {
    let mut setup = Setup::new("grapevine");
    setup.rules = "envelope.keys = { \"document.changed\" = \"/data/document_id\" }".into();
    let topic = format!("{}.document.changed", setup.source);
    kafka::create(&topic, "cleanup.policy", "compact,delete").await;
    until("the topic", async || kafka::exists(&topic).await).await;
    let (_, _, items) = report(&setup, &["--allow-removal"]).await;
    assert_eq!(change(&items[&topic], "cleanup.policy"), json!(["compact,delete", "delete"]));
    assert_eq!(provision(&setup, &["--apply"]).await.0, 0);
    until_unchanged(&setup).await;
    // The key is the event id again, but old records still have the other key, so compaction stays off.
    setup.rules = String::new();
    let (code, _, items) = report(&setup, &["--apply"]).await;
    assert_eq!((code, left(&items[&topic], "cleanup.policy")), (0, json!(["delete", "compact,delete"])));
    assert_eq!(kafka::own_settings(&topic).await["cleanup.policy"], "delete");
}

/// Registers a schema and sets its compatibility level in the real registry.
async fn subject(setup: &Setup, subject: &str, schema: &Value, level: &str) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/subjects/{subject}/versions", setup.registry);
    let body = json!({"schemaType": "AVRO", "schema": schema.to_string()});
    let answer = client.post(url).json(&body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    let url = format!("{}/config/{subject}", setup.registry);
    client.put(url).json(&json!({"compatibility": level})).send().await.unwrap();
}

fn ours() -> Value {
    let text = include_str!("../../schemas/grapevine/document.changed.avsc");
    let mut schema: Value = serde_json::from_str(text).unwrap();
    // A different text with the same meaning as the configured schema.
    schema["doc"] = "by another author".into();
    schema
}

#[tokio::test(flavor = "multi_thread")]
async fn provision_sets_the_strictest_level_and_registers_a_compatible_version() {
    let setup = Setup::new("grapevine");
    let name = format!("{}.document.changed-value", setup.source);
    subject(&setup, &name, &ours(), "BACKWARD").await;
    let (code, _, items) = report(&setup, &[]).await;
    let item = &items[&name];
    assert_eq!((code, &item["action"]), (1, &json!("change")), "{item}");
    assert_eq!(change(item, "compatibility"), json!(["BACKWARD", "FULL_TRANSITIVE"]));
    assert_eq!(change(item, "schema"), json!(["version 1", "version 2"]));
    let (code, stdout, stderr) = provision(&setup, &["--apply"]).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    until_unchanged(&setup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn provision_explains_an_incompatible_schema_by_field_and_never_registers_it() {
    let setup = Setup::new("grapevine");
    let name = format!("{}.document.changed-value", setup.source);
    let mut other = ours();
    let fields = other["fields"].as_array_mut().unwrap();
    let tenant = fields.iter_mut().find(|field| field["name"] == "tenant_id").unwrap();
    tenant["type"] = json!(["null", "int"]);
    subject(&setup, &name, &other, "FULL_TRANSITIVE").await;
    let (code, planned, items) = report(&setup, &[]).await;
    assert_eq!((code, &planned["blocked"], &items[&name]["action"]), (1, &json!(1), &json!("keep")));
    let faults = items[&name]["faults"].to_string();
    assert!(
        faults.contains("not compatible") && faults.contains("\"field tenant_id: reader union"),
        "{faults}"
    );
    let (code, stdout, stderr) = provision(&setup, &["--apply"]).await;
    assert!(code == 2 && stderr.contains("1 topics or subjects cannot be changed as configured"), "{stderr}");
    assert!(stdout.contains(&format!("! subject {name}\n")), "{stdout}");
    assert!(stdout.contains("done    create topic"), "possible changes are still made: {stdout}");
}

/// Runs one of Kafka's own commands with an administrator's rights.
fn kafka_acls(arguments: &str) {
    let output = std::process::Command::new(stack("JAVA"))
        .args(["-cp", &stack("CLASSPATH"), "org.apache.kafka.tools.AclCommand"])
        .args(["--bootstrap-server", &stack("KAFKA")])
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn provision_reports_what_kafka_denies_with_the_commands_that_grant_it() {
    let setup = Setup {
        kafka: stack("KAFKA_SCRAM"),
        tables: r#"
            [kafka.properties]
            security.protocol = "SASL_PLAINTEXT"
            sasl.mechanism = "PLAIN"
            sasl.username = "limited"
            sasl.password = { env = "TEST_KAFKA_PASSWORD" }
        "#
        .into(),
        ..Setup::new("datagrid")
    };
    // One topic exists and differs; all others are to be created.
    let drifted = format!("{}.batch_prediction.failed", setup.source);
    kafka::create_with(&drifted, &[("retention.ms", "5000")]).await;
    until("the topic", async || kafka::exists(&drifted).await).await;
    kafka_acls("--add --deny-principal User:limited --operation Create --cluster");
    kafka_acls("--add --allow-principal User:* --operation All --cluster");
    for topic in [format!("{}.", setup.source), format!("dead_letter.{}", setup.source)] {
        let operations = "--operation Describe --operation DescribeConfigs --operation Write";
        kafka_acls(&format!(
            "--add --allow-principal User:limited {operations} --topic {topic} --resource-pattern-type prefixed"
        ));
    }

    let (code, stdout, stderr) = provision(&setup, &["--apply"]).await;
    assert_eq!(code, 2, "{stdout}{stderr}");
    let marker = format!("grant with: kafka-acls --bootstrap-server {} ", setup.kafka);
    let grants: Vec<&str> = stdout.lines().filter_map(|line| line.trim().strip_prefix(&marker)).collect();
    let grant = |operation: &str, topic: &str| {
        format!("--add --allow-principal User:limited --operation {operation} --topic {topic}")
    };
    let events = format!("{}. --resource-pattern-type prefixed", setup.source);
    let expected = [
        grant("AlterConfigs", &events),
        grant("Create", &events),
        grant("Create", &format!("dead_letter.{}", setup.source)),
    ];
    assert_eq!(grants, expected, "{stdout}");
    assert_eq!(kafka::own_settings(&drifted).await["retention.ms"], "5000");

    for grant in grants {
        kafka_acls(grant);
    }
    until("the grants to reach the broker", async || provision(&setup, &["--apply"]).await.0 == 0).await;
    until_unchanged(&setup).await;
    assert_eq!(kafka::own_settings(&drifted).await["retention.ms"], "2592000000");
}

#[tokio::test(flavor = "multi_thread")]
async fn provision_fails_if_kafka_or_the_registry_is_unreachable() {
    let mut setup = Setup::new("grapevine");
    setup.kafka = "127.0.0.1:1".into();
    let (code, stdout, stderr) = provision(&setup, &["--apply"]).await;
    assert!(code == 2 && stdout.is_empty() && stderr.contains("no Kafka broker answers"), "{stdout}{stderr}");
    let mut setup = Setup::new("grapevine");
    setup.registry = "http://127.0.0.1:1".into();
    let (code, stdout, stderr) = provision(&setup, &["--json"]).await;
    assert!(code == 2 && stdout.is_empty() && stderr.contains("the registry does not answer"), "{stderr}");
}
