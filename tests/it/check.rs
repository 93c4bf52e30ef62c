//! `hookstream check`: reports problems before `serve` does.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::{hookstream, run};
use crate::support::{Setup, batch, kafka, on_embedded, stack, until};

const SECRET: &str = "wh_of-the-check-tests-0123";

/// Runs `check` on a file with these lines.
fn check(directory: &Path, toml: &str, arguments: &[&str]) -> (i32, String, String) {
    std::fs::write(directory.join("own.toml"), toml).unwrap();
    let mut command = hookstream(directory);
    command.args(["check", "-c", "own.toml"]).args(arguments).env("TEST_SECRET", SECRET);
    let (code, stdout, stderr) = run(&mut command);
    assert!(!stdout.contains(SECRET) && !stderr.contains(SECRET), "{stdout}{stderr}");
    (code, stdout, stderr)
}

fn parsed(stdout: &str) -> Value {
    serde_json::from_str(stdout).unwrap_or_else(|_| panic!("no JSON: {stdout}"))
}

#[test]
fn check_shows_each_source_with_its_path_topics_and_notes() {
    let directory = tempfile::tempdir().unwrap();
    let toml = "[source.datagrid]\npreset = \"datagrid\"\nsecrets = [{ name = \"2026-11\", env = \"TEST_SECRET\" }]\n\
                [source.short]\npreset = \"grapevine\"\nsecrets = [{ file = \"./short\" }]\n";
    std::fs::write(directory.path().join("short"), "tiny").unwrap();
    std::fs::set_permissions(directory.path().join("short"), PermissionsExt::from_mode(0o600)).unwrap();
    let (code, stdout, stderr) = check(directory.path(), toml, &[]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    for expected in [
        "ok    datagrid   /hooks/datagrid, 5 types, secrets: 2026-11",
        "batch_prediction.failed         -> datagrid.batch_prediction.failed",
        "all others                      -> dead_letter.datagrid",
        "ok    short      /hooks/short, 1 type, secrets: short",
        "off   grapevine  the variable GRAPEVINE_WEBHOOK_SECRET is not set",
        "warn  source short: the secret short has only 4 bytes",
        "note  no spool",
    ] {
        assert!(stdout.contains(expected), "{expected} is not in\n{stdout}");
    }
    let (code, stdout, _) = check(directory.path(), toml, &["--json", "-X", "spool.dir=/nowhere"]);
    let report = parsed(&stdout);
    assert_eq!((code, &report["ok"], &report["problems"]), (0, &json!(true), &json!([])));
    assert_eq!(
        report["sources"][1]["types"],
        json!([{"type": "document.changed", "topic": "short.document.changed", "generic": false}])
    );
    assert_eq!((&report["notes"], report["warnings"].as_array().unwrap().len()), (&json!([]), 1));
}

#[test]
fn w0b_a_header_instead_of_the_presets_is_refused_until_it_is_marked_as_unsigned() {
    let directory = tempfile::tempdir().unwrap();
    for preset in ["github", "linear"] {
        let source = |more: &str| {
            format!(
                "[source.s]\npreset = \"{preset}\"\nsecrets = {{ env = \"TEST_SECRET\" }}\n\
                 envelope.type = {{ header = \"X-Other-Event\"{more} }}\n"
            )
        };
        let (code, stdout, _) = check(directory.path(), &source(""), &[]);
        let expected =
            "own.toml:4: source.s.envelope.type: reads the header x-other-event, which the signature does";
        assert!(code == 1 && stdout.contains(expected), "{preset}: {stdout}");
        let (code, stdout, stderr) = check(directory.path(), &source(", unsigned = true"), &[]);
        assert_eq!(code, 0, "{preset}: {stdout}{stderr}");
    }
}

#[test]
fn check_reports_generic_unsigned_weak_and_expiring_settings() {
    let directory = tempfile::tempdir().unwrap();
    let now = jiff::Timestamp::now();
    let hours = |hours| (now + jiff::SignedDuration::from_hours(hours)).to_string();
    let toml = format!(
        "[spool]\ndir = \"/nowhere\"\n\
         [source.github]\npreset = \"github\"\ntypes = [\"push\", \"pull_request\"]\n\
         secrets = [{{ name = \"2026-11\", env = \"TEST_SECRET\", not_after = \"{}\" }}]\n\
         [source.gitlab]\npreset = \"gitlab\"\nsecrets = [{{ name = \"t\", env = \"TEST_SECRET\" }}]\n\
         [source.datagrid]\npreset = \"datagrid\"\nsignature.hash = \"sha1\"\n\
         types = [\"batch_prediction.completed\", \"push\"]\n\
         secrets = [{{ name = \"s\", env = \"TEST_SECRET\" }}]\n",
        hours(60)
    );
    let (code, stdout, stderr) = check(directory.path(), &toml, &[]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    for expected in [
        "ok    github     /hooks/github, 2 types on the generic record, secrets: 2026-11",
        "                 pull_request  -> github.pull_request  generic record\n",
        "                 push          -> github.push          generic record\n",
        "                 all others    -> github.unmapped      generic record\n",
        "ok    gitlab     /hooks/gitlab, no configured types, secrets: t",
        "                 all types  -> gitlab.unmapped  generic record\n",
        "ok    datagrid   /hooks/datagrid, 2 types, some on the generic record, secrets: s",
        "batch_prediction.completed  -> datagrid.batch_prediction.completed\n",
        "all others                  -> dead_letter.datagrid\n",
        "note  source github: X-GitHub-Delivery and X-GitHub-Event are not covered by the signature (docs/security.md)\n",
        "note  source gitlab: a token signs nothing: anyone who has it can send anything (docs/security.md)\n",
        "warn  source datagrid: signatures use SHA-1",
        "in 2 days; add its successor (docs/secrets.md, Rotate a secret)\n",
    ] {
        assert!(stdout.contains(expected), "{expected} is not in\n{stdout}");
    }
    assert_eq!(stdout.matches("note  ").count(), 2, "{stdout}");
    let (_, stdout, _) = check(directory.path(), &toml, &["--json"]);
    let report = parsed(&stdout);
    assert_eq!(
        (report["notes"].as_array().unwrap().len(), report["warnings"].as_array().unwrap().len()),
        (2, 2)
    );
    let github =
        report["sources"].as_array().unwrap().iter().find(|source| source["name"] == "github").unwrap();
    assert_eq!(
        github["types"][0],
        json!({"type": "pull_request", "topic": "github.pull_request", "generic": true})
    );
    assert_eq!(github["others_generic"], true);
    assert_eq!(github["unsigned_headers"], json!(["X-GitHub-Delivery", "X-GitHub-Event"]));
}

/// An expired secret does not prevent a start, since other sources may work.
#[test]
fn check_reports_a_source_without_a_valid_secret_and_shows_it_anyway() {
    let directory = tempfile::tempdir().unwrap();
    let toml = "[source.datagrid]\npreset = \"datagrid\"\nsecrets = [\n\
                { name = \"old\", env = \"TEST_SECRET\", not_after = \"2026-01-01T00:00:00Z\" },\n\
                { name = \"next\", env = \"TEST_SECRET\", not_before = \"2999-01-01T00:00:00Z\" }]\n";
    let (code, stdout, _) = check(directory.path(), toml, &[]);
    assert_eq!(code, 1, "{stdout}");
    let problem = "source datagrid: no secret is valid now, so every delivery is refused with 401: \
                   old expired at 2026-01-01T00:00:00Z, next is valid from 2999-01-01T00:00:00Z; add a valid secret";
    assert!(
        stdout.contains(&format!("NO    {problem}\n")) && stdout.contains("NO    datagrid   /hooks/datagrid"),
        "{stdout}"
    );
    assert!(stdout.contains("secrets: old (expired), next (not yet)"), "{stdout}");
    let report = parsed(&check(directory.path(), toml, &["--json"]).1);
    assert_eq!((&report["ok"], &report["problems"]), (&json!(false), &json!([problem])));
    assert_eq!(report["warnings"], json!([]));
}

#[test]
fn check_reports_problems_in_the_same_words_as_serve() {
    let source = "[source.datagrid]\npreset = \"datagrid\"\nsecrets = [{ env = \"TEST_SECRET\" }]\n";
    let schema = "{\"type\":\"record\"";
    for (toml, expected) in [
        (
            "[http]\nlisen = \"x\"\n[source.datagrid]\npreset = \"datagrid\"\nsecrets = [{ env = \"NOT_SET\" }]\n",
            &["own.toml:2: http.lisen: unknown key"][..],
        ),
        (
            "[source.datagrid]\npreset = \"datagrid\"\nsecrets = [{ env = \"NOT_SET\" }]\nack_deadline = \"1s\"\n",
            &["own.toml:3: source.datagrid.secrets.0", "own.toml:4: source.datagrid.ack_deadline"],
        ),
        (
            &format!("{source}types = [\"batch_prediction.completed\"]\nunmapped = \"nowhere\"\n"),
            &["own.toml:5: source.datagrid.unmapped"],
        ),
        (
            &format!("{source}types = [\"batch_prediction.completed\"]\n"),
            &["schema of datagrid batch_prediction.completed"],
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("schemas/datagrid")).unwrap();
        std::fs::write(directory.path().join("schemas/datagrid/batch_prediction.completed.avsc"), schema)
            .unwrap();
        let (code, stdout, stderr) = check(directory.path(), toml, &[]);
        assert_eq!((code, stderr.as_str()), (1, ""), "{stdout}");
        for expected in expected {
            assert!(stdout.contains(expected), "{expected} is not in\n{stdout}");
        }
        let mut serve = hookstream(directory.path());
        serve.args([
            "serve",
            "-c",
            "own.toml",
            "-X",
            "http.listen=127.0.0.1:0",
            "-X",
            "admin.listen=127.0.0.1:0",
        ]);
        let (code, _, stderr) = run(serve.env("TEST_SECRET", SECRET).env("HOOKSTREAM_LOG", "off"));
        assert_eq!((code, stderr), (2, format!("hookstream: {stdout}")));
        let (code, json, _) = check(directory.path(), toml, &["--json"]);
        let report = parsed(&json);
        let problems: Vec<&str> =
            report["problems"].as_array().unwrap().iter().map(|problem| problem.as_str().unwrap()).collect();
        assert_eq!((code, &report["ok"]), (1, &json!(false)));
        assert_eq!(problems, stdout.lines().skip(1).map(str::trim_start).collect::<Vec<_>>());
    }
}

#[test]
fn check_exits_with_2_for_a_missing_file_or_an_unknown_option() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [&["-c", "missing.toml"][..], &["--nonsense"]] {
        let (code, stdout, stderr) = run(hookstream(directory.path()).arg("check").args(arguments));
        assert!(code == 2 && stdout.is_empty() && !stderr.is_empty(), "{arguments:?}: {stdout}{stderr}");
    }
}

/// Runs `check --online --json`. Returns the exit code and the report by part.
async fn online(toml: String, arguments: &[&str]) -> (i32, Value) {
    let arguments: Vec<String> =
        ["--online", "--json"].iter().chain(arguments).map(|text| (*text).to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        let directory = tempfile::tempdir().unwrap();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (code, stdout, stderr) = check(directory.path(), &toml, &arguments);
        assert_eq!(stderr, "");
        let report = parsed(&stdout);
        assert_eq!(report["ok"], code == 0, "{report}");
        let parts = report["parts"].as_array().unwrap().iter();
        let parts = parts.map(|part| (part["part"].as_str().unwrap().to_owned(), part.clone()));
        (code, Value::Object(parts.collect()))
    })
    .await
    .unwrap()
}

/// The parts of `check --online` once they satisfy `condition`: a broker learns of a topic a moment after the controller
/// has created or deleted it.
async fn online_until(setup: &Setup, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let mut parts = Value::Null;
    until(what, async || {
        parts = online(setup.toml(), &[]).await.1;
        condition(&parts)
    })
    .await;
    parts
}

fn details(part: &Value) -> String {
    let lines: Vec<&str> =
        part["details"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn check_online_reports_what_exists_and_what_serve_will_create_and_creates_nothing() {
    let setup = Setup::new("datagrid");
    let (toml, source) = (setup.toml(), setup.source.clone());
    let topic = format!("{source}.batch_prediction.failed");
    for _ in 0..2 {
        let (code, parts) = online(toml.clone(), &[]).await;
        assert_eq!((code, &parts["kafka"]["text"]), (0, &json!("PLAINTEXT, 1 broker")), "{parts}");
        assert_eq!(parts["topics"]["text"], "0 of 6, 6 missing: `serve` creates them and has permission");
        assert!(details(&parts["topics"]).contains(&format!("missing  {topic}")), "{parts}");
        assert_eq!(parts["registry"]["text"], "no auth, 0 of 5 subjects");
        assert_eq!(parts["spool"]["state"], "off");
        assert!(!kafka::exists(&topic).await);
    }
    let (code, parts) = online(toml.clone(), &["-X", "provision.on_start=false"]).await;
    assert_eq!(
        (code, &parts["topics"]["state"], &parts["registry"]["state"]),
        (1, &json!("no"), &json!("no"))
    );

    let loose = format!("{source}.batch_prediction.completed");
    kafka::create(&loose, "cleanup.policy", "compact").await;
    let _service = setup.ready().await;
    until("the created topics", async || {
        let (_, parts) = online(toml.clone(), &["-X", "provision.on_start=false"]).await;
        (&parts["topics"]["text"], &parts["topics"]["state"]) == (&json!("6 of 6"), &json!("ok"))
    })
    .await;
    let (code, parts) = online(toml, &["-X", "provision.on_start=false"]).await;
    assert_eq!(parts["registry"]["text"], "no auth, 5 of 5 subjects", "{parts}");
    // The test cluster has one broker, which is reported and fails the check.
    assert_eq!((code, &parts["durability"]["state"]), (1, &json!("degraded")));
    assert!(parts["durability"]["text"].as_str().unwrap().starts_with("only 1 copy guaranteed"), "{parts}");
    let shapes = details(&parts["durability"]);
    let shape = |topic: &str| {
        let line = shapes.lines().find(|line| line.starts_with(topic)).unwrap();
        line.split_once("  ").unwrap().1.trim_start().to_owned()
    };
    let one = "replication 1, min.insync.replicas 1, cleanup.policy";
    assert_eq!(shape(&topic), format!("partitions 3, {one} compact,delete"));
    assert_eq!(shape(&loose), format!("partitions 1, {one} compact"));
    assert_eq!(shape(&format!("dead_letter.{source}")), format!("partitions 3, {one} delete"));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_online_reports_a_compacting_topic_with_a_custom_key_and_how_to_alter_it() {
    let mut setup = Setup::new("grapevine");
    setup.rules = "envelope.keys = { \"document.changed\" = \"/data/document_id\" }".into();
    let topic = format!("{}.document.changed", setup.source);
    let missing = online(setup.toml(), &[]).await.1;
    assert!(missing["compaction"].is_null(), "{missing}");
    kafka::create(&topic, "cleanup.policy", "compact").await;
    let parts =
        online_until(&setup, "the topic's policy", |parts| parts["compaction"]["state"] == "no").await;
    let next = parts["compaction"]["next"][0].as_str().unwrap();
    let command = format!(
        "kafka-configs --bootstrap-server {} --entity-type topics --entity-name {topic} --alter --add-config \
         cleanup.policy=delete",
        setup.kafka
    );
    assert_eq!(next, command);
    kafka::delete(&topic).await;
    until("the deletion of the topic", async || !kafka::exists(&topic).await).await;
    let _service =
        Setup { rules: setup.rules.clone(), source: setup.source.clone(), ..Setup::new("grapevine") }
            .ready()
            .await;
    let parts =
        online_until(&setup, "the new topic's policy", |parts| parts["compaction"]["state"] == "ok").await;
    assert!(details(&parts["durability"]).contains("cleanup.policy delete"), "{parts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_check_online_reports_a_retention_of_dead_letters_and_how_to_alter_it() {
    let setup = Setup::new("datagrid");
    let letters = format!("dead_letter.{}", setup.source);
    let replayed = format!("{letters}.replayed");
    kafka::create_with(&letters, &[("retention.ms", "604800000"), ("retention.bytes", "1000000")]).await;
    kafka::create_with(&replayed, &[("cleanup.policy", "compact,delete"), ("retention.ms", "1000")]).await;
    for topic in [&letters, &replayed] {
        until("the topic", async || kafka::exists(topic).await).await;
    }
    let degraded = |parts: &Value| parts["retention"]["state"] == "degraded";
    let parts = online_until(&setup, "the topics' retention", degraded).await;
    let text = format!(
        "{letters}: it removes records after 604800s (retention.ms), it removes records past 1000000 bytes per \
         partition (retention.bytes); letters must wait there for a person; {replayed}: it removes records after 1s \
         (retention.ms); it records which letters were replayed"
    );
    assert_eq!(parts["retention"]["text"], text);
    let next: Vec<&str> =
        parts["retention"]["next"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
    for (next, topic, policy) in [(next[0], &letters, "delete"), (next[1], &replayed, "compact")] {
        let ends = format!(
            "--entity-name {topic} --alter --add-config cleanup.policy={policy},retention.ms=-1,retention.bytes=-1"
        );
        assert!(next.ends_with(&ends), "{next}");
    }
    // Readiness reports it too, and deliveries are accepted.
    let service = setup.ready().await;
    until("a report of the retention", async || service.admin("/readyz").await.1.contains(&text)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_check_online_reports_an_event_topic_that_keeps_less_than_the_spool_may_hold() {
    let directory = tempfile::tempdir().unwrap();
    let tables = format!("[spool]\ndir = \"{}\"\nmin_free = \"1 MiB\"", directory.path().display());
    let setup = Setup { tables, ..Setup::new("datagrid") };
    let topic = format!("{}.batch_prediction.completed", setup.source);
    kafka::create_with(&topic, &[("retention.bytes", "1000000")]).await;
    until("the topic", async || kafka::exists(&topic).await).await;
    let degraded = |parts: &Value| parts["retention"]["state"] == "degraded";
    let parts = online_until(&setup, "the topic's retention", degraded).await;
    let text = parts["retention"]["text"].as_str().unwrap();
    assert!(
        text.starts_with(&format!("{topic}: it keeps 1000000 bytes per partition (retention.bytes)")),
        "{text}"
    );
    let next = parts["retention"]["next"][0].as_str().unwrap();
    assert!(
        next.ends_with(&format!("--entity-name {topic} --alter --add-config retention.bytes=-1")),
        "{next}"
    );
    let text = text.to_owned();
    let service = setup.ready().await;
    until("a report of the retention", async || service.admin("/readyz").await.1.contains(&text)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_online_reports_unreachable_services_in_time_and_still_checks_the_others() {
    // A registry that accepts connections and never answers.
    let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut setup = Setup::new("datagrid");
    setup.kafka = "127.0.0.1:1".into();
    setup.registry = format!("http://{}", hung.local_addr().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let spool = tempfile::tempdir().unwrap();
    setup.tables = format!("[spool]\ndir = \"{}\"\nmin_free = \"1 MiB\"", spool.path().display());
    let begin = Instant::now();
    let (code, parts) = online(setup.toml(), &[]).await;
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(code, 1);
    for (part, state) in [("kafka", "no"), ("topics", "no"), ("registry", "no"), ("spool", "ok")] {
        assert_eq!(parts[part]["state"], state, "{parts}");
    }
    assert!(parts["kafka"]["text"].as_str().unwrap().contains("127.0.0.1:1"), "{parts}");
    assert!(parts["registry"]["text"].as_str().unwrap().contains(&setup.registry), "{parts}");
    assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0, "no file is left");

    let toml = setup.toml();
    let no_room = online(toml.clone(), &["-X", "spool.min_free=1 EiB"]).await.1;
    assert_eq!(no_room["spool"]["state"], "no", "{no_room}");
    let file = spool.path().join("file");
    std::fs::write(&file, "").unwrap();
    let no_dir = format!("spool.dir={}", file.display());
    let (code, stdout, _) = check(directory.path(), &toml, &["-X", &no_dir]);
    assert!(code == 1 && stdout.contains("spool.dir: cannot use"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_online_inspects_the_spool_of_a_running_service_without_changing_it() {
    let spool = tempfile::tempdir().unwrap();
    let mut setup = Setup::new("datagrid");
    setup.tables = format!("[spool]\ndir = \"{}\"\nmin_free = \"1 MiB\"", spool.path().display());
    let toml = setup.toml();
    let not_yet = format!("spool.dir={}", spool.path().join("a/b").display());
    let (_, parts) = online(toml.clone(), &["-X", &not_yet]).await;
    assert_eq!(parts["spool"]["state"], "ok", "{parts}");
    assert!(!spool.path().join("a").exists(), "no directory is created");
    let service = setup.ready().await;
    let (_, parts) = online(toml.clone(), &[]).await;
    assert_eq!(parts["spool"]["state"], "ok");
    assert!(parts["spool"]["text"].as_str().unwrap().contains("in use by a running service"), "{parts}");
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
    service.app.stop().await.unwrap();
    let (_, parts) = online(toml, &[]).await;
    assert!(!parts["spool"]["text"].as_str().unwrap().contains("in use"), "{parts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_online_reports_whether_our_schema_is_compatible_with_the_registered_one() {
    let setup = Setup::new("grapevine");
    let subject = format!("{}.document.changed-value", setup.source);
    let ours: Value =
        serde_json::from_str(include_str!("../../schemas/grapevine/document.changed.avsc")).unwrap();
    let mut close = ours.clone();
    close["fields"][0]["doc"] = "another text".into();
    close["fields"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "more", "type": ["null", "string"], "default": null}));
    let mut other = ours.clone();
    other["fields"][0]["type"] = "long".into();
    let field = other["fields"][0]["name"].as_str().unwrap().to_owned();
    let differs = "different schema, not compatible with the configured one";
    for (schema, state, expected, detail) in [
        (close, "ok", "different schema, compatible with the configured one: `serve` registers it", ""),
        // As `provision` does, it names the field.
        (other, "no", differs, &*format!("field {field}: ")),
        (json!({"type": "string"}), "no", differs, ""),
    ] {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let level = format!("{}/config/{subject}", setup.registry);
        client.put(level).json(&json!({"compatibility": "NONE"})).send().await.unwrap();
        let url = format!("{}/subjects/{subject}/versions", setup.registry);
        let body = json!({"schemaType": "AVRO", "schema": schema.to_string()});
        let answer = client.post(url).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        let level = format!("{}/config/{subject}", setup.registry);
        client.put(level).json(&json!({"compatibility": "FULL"})).send().await.unwrap();
        let (code, parts) = online(setup.toml(), &[]).await;
        assert_eq!((code == 0, &parts["registry"]["state"]), (state == "ok", &json!(state)), "{parts}");
        let details = details(&parts["registry"]);
        assert!(details.contains(&format!("{subject}  {expected}")) && details.contains(detail), "{parts}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_online_blames_no_missing_right_for_a_kafka_that_has_none() {
    let (service, kafka) = on_embedded("").await;
    let mut setup = Setup::new("datagrid");
    (setup.source, setup.kafka) = (service.source.clone(), kafka.bootstrap_servers());
    setup.rules = String::from("types = [\"batch_prediction.completed\"]\n");
    let (_, parts) = online(setup.toml(), &[]).await;
    assert_eq!(parts["durability"]["state"], "degraded", "{parts}");
    assert_eq!(parts["durability"]["next"], json!([]), "{parts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_online_shows_the_kafka_connection_without_its_password() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut setup = Setup { kafka: stack("KAFKA_SCRAM"), ..Setup::new("grapevine") };
    setup.tables = format!(
        "[kafka.properties]\nsecurity.protocol = \"sasl_plaintext\"\nsasl.mechanisms = \"SCRAM-SHA-512\"\n\
         sasl.username = \"hookstream\"\nsasl.password = {{ file = \"{}\" }}",
        file.path().display()
    );
    for (password, state, rest) in
        [(stack("KAFKA_PASSWORD"), "ok", "1 broker"), ("wrong-password-0123".to_owned(), "no", &setup.kafka)]
    {
        std::fs::write(file.path(), &password).unwrap();
        let (_, parts) = online(setup.toml(), &[]).await;
        let text = parts["kafka"]["text"].as_str().unwrap();
        assert_eq!(parts["kafka"]["state"], state, "{text}");
        assert!(text.starts_with(&format!("SASL_PLAINTEXT SCRAM-SHA-512, {rest}")), "{text}");
        assert!(!parts.to_string().contains(&password));
    }
}
