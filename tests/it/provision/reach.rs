//! What the commands say about a cluster that they cannot reach, and about topics and subjects that they may not see.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{kafka_acls, provision, report};
use crate::cli::{hookstream, run};
use crate::registry::{before_registry, respond};
use crate::support::{SECRET, Setup, kafka, stack, until};

#[tokio::test(flavor = "multi_thread")]
async fn k6_a_subject_that_cannot_be_read_is_named_and_all_others_are_done() {
    let mut setup = Setup::new("datagrid");
    let bad = format!("{}.batch_prediction.completed-value", setup.source);
    let denied = format!("/subjects/{bad}");
    setup.registry = before_registry(hookstream::dev::registry::router(), move |call| {
        let denied = call.contains(&denied);
        let answer = respond(403, json!({"error_code": 40301, "message": "User is denied"}));
        async move { answer.filter(|_| denied) }
    })
    .await;
    let (code, _, items) = report(&setup, &[]).await;
    assert_eq!((code, &items[&bad]["unknown"]), (2, &json!(true)));
    assert!(items[&bad]["faults"].to_string().contains("User is denied"), "{}", items[&bad]);
    let (code, stdout, stderr) = provision(&setup, &["--apply"]).await;
    assert!(code == 2 && stderr.contains("1 topics or subjects cannot be read: see the plan"), "{stderr}");
    assert!(stdout.contains(&format!("! subject {bad}\n")), "{stdout}");
    let topic = format!("{}.batch_prediction.completed", setup.source);
    assert_eq!(stdout.matches("done    register the schema").count(), 4, "{stdout}");
    assert_eq!(stdout.matches("done    create topic").count(), 6, "{stdout}");
    until("the topics", async || kafka::exists(&topic).await).await;

    let (code, stdout, _) = command(&setup, &["check", "--online"]).await;
    let line = stdout.lines().find(|line| line.contains(&bad)).unwrap_or_default();
    assert!(code == 1 && line.contains("User is denied"), "{stdout}");
    assert!(stdout.contains("4 of 5 subjects"), "{stdout}");
}

/// Runs any command with this set-up's configuration and a Kafka password.
async fn command_with(setup: &Setup, password: &str, arguments: &[&str]) -> (i32, String, String) {
    let (toml, password) = (setup.toml(), password.to_owned());
    let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    let work = move || {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("own.toml"), toml).unwrap();
        let mut command = hookstream(directory.path());
        command.args(arguments).args(["-c", "own.toml"]);
        let (code, stdout, stderr) =
            run(command.env("TEST_SECRET", SECRET).env("TEST_KAFKA_PASSWORD", &password));
        assert!(!stdout.contains(&password) && !stderr.contains(&password), "{stdout}{stderr}");
        println!("{stdout}{stderr}");
        (code, stdout, stderr)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn command(setup: &Setup, arguments: &[&str]) -> (i32, String, String) {
    command_with(setup, &stack("KAFKA_PASSWORD"), arguments).await
}

/// A user of SASL to whom tests may deny something.
fn limited(mechanism: &str) -> String {
    format!(
        r#"
            [kafka.properties]
            security.protocol = "SASL_PLAINTEXT"
            sasl.mechanism = "{mechanism}"
            sasl.username = "limited"
            sasl.password = {{ env = "TEST_KAFKA_PASSWORD" }}
        "#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_each_command_names_why_kafka_cannot_be_reached() {
    let on = |kafka: &str, tables: String| Setup { kafka: stack(kafka), tables, ..Setup::new("grapevine") };
    let tls = "[kafka.properties]\nsecurity.protocol = \"SSL\"".to_owned();
    let causes = [
        (on("KAFKA_SCRAM", limited("PLAIN")), "Authentication failed"),
        (on("KAFKA_SCRAM", limited("SCRAM-SHA-256")), "mechanism"),
        (on("KAFKA", tls), "SSL connection closed by peer"),
    ];
    for (at, (setup, cause)) in causes.iter().enumerate() {
        let replay = ["replay", &setup.source];
        let commands: [&[&str]; 5] = [&["check", "--online"], &["provision"], &["lag"], &["tail"], &replay];
        // The commands differ in the client that they use, not in the cause.
        for arguments in commands.into_iter().take(if at == 0 { 5 } else { 2 }) {
            let begin = Instant::now();
            let (code, stdout, stderr) = command_with(setup, "not-the-password", arguments).await;
            let expected = if arguments[0] == "check" { 1 } else { 2 };
            assert_eq!(code, expected, "{arguments:?}: {stdout}{stderr}");
            assert!((stdout + &stderr).contains(cause), "{arguments:?} does not name the cause: {cause}");
            assert!(begin.elapsed() < Duration::from_secs(15), "{arguments:?}: {:?}", begin.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k7_a_topic_that_may_not_be_seen_is_not_called_missing() {
    let setup = Setup { kafka: stack("KAFKA_SCRAM"), tables: limited("PLAIN"), ..Setup::new("grapevine") };
    let (topic, letters) =
        (format!("{}.document.changed", setup.source), format!("dead_letter.{}", setup.source));
    for topic in [&topic, &letters] {
        kafka::create_with(topic, &[]).await;
        until("the topic", async || kafka::exists(topic).await).await;
        // Create alone: the user may try to create it and learns that it exists, but may not describe it.
        kafka_acls(&format!("--add --allow-principal User:limited --operation Create --topic {topic}"));
        kafka_acls(&format!("--add --deny-principal User:limited --operation Describe --topic {topic}"));
    }
    let unseen = format!("may not see {topic}");
    until("the ACLs", async || command(&setup, &["tail", &topic]).await.2.contains(&unseen)).await;

    let (code, stdout, stderr) = command(&setup, &["provision", "--apply"]).await;
    let fault = "! it exists, but hookstream may not see it: grant Describe\n";
    assert!(code == 2 && stdout.contains(&format!("! topic {topic}\n    {fault}")), "{stdout}{stderr}");
    let grant = format!("--operation Describe --topic {}. --resource-pattern-type prefixed", setup.source);
    assert!(stdout.contains(&grant) && !stdout.contains("create topic"), "{stdout}");
    let (code, stdout, _) = command(&setup, &["check", "--online"]).await;
    assert!(code == 1 && stdout.contains("0 of 2, 0 missing, 2 not visible"), "{stdout}");
    assert!(stdout.contains(&format!("hidden   {topic}")) && stdout.contains(&grant), "{stdout}");
    let replay = ["replay", &setup.source];
    let commands: [&[&str]; 4] = [&["tail"], &["lag"], &replay, &["schema", "drift", &setup.source]];
    for arguments in commands {
        let (code, stdout, stderr) = command(&setup, arguments).await;
        assert!(code == 2 && stderr.contains("may not see"), "{arguments:?}: {code} {stdout}{stderr}");
    }

    let environment = [("TEST_KAFKA_PASSWORD".to_owned(), stack("KAFKA_PASSWORD"))].into();
    let service = Setup { environment, ..setup }.start().await;
    let why = format!("{topic} (it exists, but hookstream may not see it: grant Describe)");
    until("readiness", async || service.admin("/readyz").await.1.contains(&why)).await;
}
