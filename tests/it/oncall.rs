//! Runs the commands of docs/runbook.md against a running service.

use crate::cli::{hookstream, run};
use crate::support::{SECRET, Setup, batch, datagrid, groups, process, stack, unique, until};

const PAGE: &str = include_str!("../../docs/runbook.md");

/// The commands in the page's table.
fn commands() -> Vec<&'static str> {
    let (_, table) = PAGE.split_once("| question | command |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.rsplit('`').nth(1).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_runbook_answer_their_questions() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut setup = Setup::new("datagrid");
    setup.tables = format!(
        "[spool]\ndir = {:?}\nmin_free = \"1 MiB\"\n[source.datagrid]\nenabled = false\n[source.grapevine]\nenabled = false\n",
        path("spool")
    );
    std::fs::write(path("hookstream.toml"), setup.toml()).unwrap();
    let (_program, hooks, admin) = process::serve(&path("hookstream.toml"));
    let client = reqwest::Client::new();
    let post = async |header: &str, body: &str| {
        let request = client.post(format!("http://{hooks}/hooks/{}", setup.source));
        request.header("Datagrid-Signature", header).body(body.to_owned()).send().await.unwrap().status()
    };
    let event = batch("evt_oncall").replace("\"data\":{", "\"data\":{\"priority\":\"high\",");
    until("a published event", async || post(&datagrid(event.as_bytes()), &event).await == 200).await;
    until("a dead letter", async || post(&datagrid(b"no JSON"), "no JSON").await == 200).await;
    let forged = format!("t=1775847600,v1={}", "0".repeat(64));
    assert_eq!(post(&forged, &event).await, 401);
    std::fs::write(
        path("request.txt"),
        format!("POST /hooks/{} HTTP/1.1\r\nDatagrid-Signature: {forged}\r\n\r\n{event}", setup.source),
    )
    .unwrap();
    let (group, topic) = (unique("group"), format!("{}.batch_prediction.completed", setup.source));
    groups::commit(&stack("KAFKA"), &group, &[(&topic, 0, 0), (&topic, 1, 0), (&topic, 2, 0)]).await;

    // By the start of the command: its exit code and the text that its output must contain.
    let answers = [
        ("hookstream status --secrets", 0, "TEST_SECRET"),
        ("hookstream status", 0, "signature_mismatch x1"),
        ("hookstream explain", 1, "signature_mismatch"),
        ("hookstream tail", 0, "evt_oncall"),
        ("hookstream replay", 0, "json_invalid"),
        ("hookstream lag", 0, &topic),
        ("hookstream spool", 0, "the spool is empty"),
        ("hookstream schema drift", 0, "/data/priority"),
        ("hookstream check --online", 1, "only 1 copy guaranteed"), // with one broker
        ("hookstream check", 0, "ok"),
        ("hookstream provision", 0, "0 to create, 0 to change"),
    ];
    let commands = commands();
    assert_eq!(commands.len(), answers.len(), "{commands:?}");
    for command in commands {
        let (_, expected_code, expected) =
            answers.iter().find(|(begins, ..)| command.starts_with(begins)).unwrap();
        let command = command.replace("SOURCE", &setup.source).replace("EVENT", "evt_oncall");
        let arguments: Vec<String> =
            command.replace("GROUP", &group).split_whitespace().skip(1).map(str::to_owned).collect();
        let (home, admin) = (directory.path().to_owned(), admin.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let mut program = hookstream(&home);
            program.args(arguments).args(["-c", "hookstream.toml", "-X", &format!("admin.listen={admin}")]);
            run(program.env("TEST_SECRET", SECRET))
        });
        let (code, stdout, stderr) = asked.await.unwrap();
        assert_eq!(code, *expected_code, "{command}\n{stdout}{stderr}");
        assert!(
            stdout.contains(expected) || stderr.contains(expected),
            "{expected} is not in the output of\n{command}\n{stdout}{stderr}"
        );
        assert!(!stdout.contains(SECRET) && !stderr.contains(SECRET), "{command}");
    }
}
