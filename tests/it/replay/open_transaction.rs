//! An open transaction of another producer hides no later records: a consumer that reads only committed records would
//! stop before it without an error.

use std::process::Command;

use serde_json::Value;

use super::Fixture;
use crate::support::{PATIENCE, SECRET, batch, groups};

/// The command's exit code and output lines.
async fn run(fixture: &Fixture, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookstream"));
    command.env_clear().env("TEST_SECRET", SECRET).current_dir(fixture.dir.path());
    command.args(arguments).arg("-c").arg(fixture.file());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = tokio::time::timeout(PATIENCE, output).await.expect("the end of the command").unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn k4_letters_and_events_after_an_open_transaction_are_read() {
    let fixture = Fixture::with(super::TYPES, super::TYPES).await;
    let event = async |id: &str| {
        let answer = fixture.service.datagrid_post(batch(id)).await;
        answer.is(200, "published", None);
        (answer.body["topic"].as_str().unwrap().to_owned(), answer.body["partition"].as_i64().unwrap())
    };
    // The same key, so the same partition.
    let (events, partition) = event("evt_1").await;
    let letter = fixture.letter("no json", "json_invalid").await;
    let [letters, letters_partition, _] = *letter.split('/').collect::<Vec<_>>() else { panic!("{letter}") };

    let on_events = groups::begin_transaction(&events, partition.try_into().unwrap()).await;
    let on_letters = groups::begin_transaction(letters, letters_partition.parse().unwrap()).await;
    event("evt_1").await;
    fixture.letter("no json", "json_invalid").await;

    let (code, stdout) = run(&fixture, &["tail", "-o", "start", "-e", "--key", "evt_1"]).await;
    assert_eq!((code, stdout.lines().count()), (0, 2), "{stdout}");
    let (code, stdout, stderr) = fixture.replay(&["--json"]).await;
    let rows = stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    // The list includes the transaction's own record, as one that is not a dead letter.
    let ours = rows.filter(|row| row["reason"] == "json_invalid").map(|row| row["count"].as_u64());
    assert_eq!((code, ours.collect::<Vec<_>>()), (0, vec![Some(2)]), "{stdout}{stderr}");
    drop((on_events, on_letters));
}
