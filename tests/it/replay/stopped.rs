//! A replay that is killed or stopped continues where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde_json::json;

use super::{Fixture, found, of_type, outcomes};
use crate::support::process::Process;
use crate::support::{batch, kafka, until};

/// The number of dead letters in a usual run; `HOOKSTREAM_TEST_LETTERS=10000` for more.
fn letters() -> usize {
    std::env::var("HOOKSTREAM_TEST_LETTERS").ok().map_or(300, |text| text.parse().expect("a number"))
}

/// Makes dead letters with several reasons: two types without a topic, and bodies that remain invalid.
async fn mixed(fixture: &Fixture, count: usize) -> BTreeMap<String, &'static str> {
    let letters = stream::iter(0..count).map(async |n| {
        let id = format!("evt_{n:05}");
        let (body, reason, becomes) = match n % 10 {
            0 => (format!("no json {n}"), "json_invalid", "json_invalid"),
            1 => (batch(&id).replacen("\"id\"", "\"di\"", 1), "id_missing", "id_missing"),
            2..6 => (of_type("batch_prediction.failed", &id), "type_unknown", "batch_prediction.failed"),
            _ => (batch(&id), "type_unknown", "batch_prediction.completed"),
        };
        (fixture.letter(body, reason).await, becomes)
    });
    letters.buffer_unordered(32).collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_was_killed_continues_and_each_letter_gets_its_outcome() {
    let fixture = Fixture::new().await;
    let count = letters();
    let expected = mixed(&fixture, count).await;
    assert_eq!(expected.len(), count);

    // Slow enough that it is killed before its end.
    let rate = (count / 10).to_string();
    let arguments = ["--all", "--apply", "--rate", &rate];
    let mut command = fixture.command(&arguments);
    let mut process = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let topic = fixture.outcomes();
    until("a third of the outcomes", async || {
        kafka::exists(&topic).await && kafka::all(&topic).await.len() > count / 3
    })
    .await;
    process.0.kill().unwrap();
    process.0.wait().unwrap();
    let before = outcomes(&topic).await;
    assert!(before.len() < count, "killed after its end");
    let done = before.values().filter(|outcome| outcome["outcome"] == "published").count();

    let started = std::time::Instant::now();
    let (code, report) = fixture.report(&["--all", "--apply", "--rate", "100000"]).await;
    println!(
        "{count} letters, {} with an outcome before the kill, the rest in {:?}",
        before.len(),
        started.elapsed()
    );
    assert_eq!(code, 1, "some letters fail again: {report}");
    assert_eq!(report["replayed_before"], done);
    let published = expected.values().filter(|becomes| becomes.starts_with("batch")).count();
    assert_eq!(report["published"], published - done, "{report}");

    let all = outcomes(&topic).await;
    assert_eq!(all.len(), count);
    let mut found_at: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut duplicates = 0;
    for event_type in ["batch_prediction.completed", "batch_prediction.failed"] {
        for record in found(&fixture.topic(event_type)).await {
            let place = record.headers["hookstream-replayed"].clone();
            let fresh = found_at.entry(place).or_default().insert(event_type);
            duplicates += usize::from(!fresh);
        }
    }
    for (place, becomes) in &expected {
        if becomes.starts_with("batch") {
            assert_eq!(all[place]["outcome"], "published", "{place}");
            assert_eq!(all[place]["topic"], fixture.topic(becomes), "{place}");
            assert_eq!(found_at.remove(place), Some([*becomes].into()), "{place}");
        } else {
            assert_eq!((&all[place]["outcome"], &all[place]["reason"]), (&json!("failed"), &json!(becomes)));
        }
    }
    assert!(found_at.is_empty(), "{found_at:?}");
    assert!(duplicates <= 32, "{duplicates}: more than were in progress at the kill");
    let (code, stdout, _) = fixture.replay(&["--reason", "type_unknown", "--apply"]).await;
    assert!(code == 0 && stdout.contains("nothing to do"), "{stdout}");
}

#[tokio::test]
async fn ctrl_c_finishes_letters_in_progress_and_says_how_to_continue() {
    let fixture = Fixture::new().await;
    for n in 0..30 {
        fixture.letter(batch(&format!("evt_{n}")), "type_unknown").await;
    }
    let mut command = fixture.command(&["--all", "--apply", "--rate", "5"]);
    let process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let topic = fixture.outcomes();
    until("the first outcome", async || kafka::exists(&topic).await && !kafka::all(&topic).await.is_empty())
        .await;
    let pid = process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = tokio::task::spawn_blocking(move || process.wait_with_output().unwrap());
    let output = tokio::time::timeout(Duration::from_secs(20), output).await.unwrap().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("stopped: ") && stdout.contains("continues from there"), "{stdout}");
    let published = found(&fixture.topic("batch_prediction.completed")).await.len();
    assert_eq!(outcomes(&topic).await.len(), published);
    assert!(published < 30);
}
