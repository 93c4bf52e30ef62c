//! Diagnoses of refusals: a hint in the log and in `/status`, never in the answer to the sender.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{SECRET, Service, Setup, batch, hmac_with, process, until};

const NEW: &str = "wh_the-secret-that-comes-next";

fn signed(secret: &str, body: &str) -> String {
    format!("t=1775847600,v1={}", hmac_with(secret, format!("1775847600.{body}").as_bytes()))
}

async fn refused(service: &Service, headers: &[(&str, &str)], body: &str) {
    let answer = service.post(headers, body.to_owned()).await;
    assert_eq!(
        (answer.status, &answer.body),
        (401, &json!({"outcome": "refused", "reason": "unauthorized"}))
    );
}

/// The refusals of the service's only source.
async fn refusals(service: &Service) -> Vec<Value> {
    let (status, text) = service.admin("/status").await;
    assert_eq!(status, 200);
    for hidden in [SECRET, NEW, "results_url", &hmac_with(SECRET, batch("evt_1").as_bytes())] {
        assert!(!text.contains(hidden), "{hidden} is in {text}");
    }
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["started"].as_str().unwrap().ends_with('Z'), "{status}");
    status["sources"][&service.source]["refusals"].as_array().unwrap().clone()
}

fn of<'r>(refusals: &'r [Value], reason: &str) -> Option<&'r Value> {
    refusals.iter().find(|refusal| refusal["reason"] == reason)
}

/// Sends repeatedly, since at most one refusal per second is diagnosed.
async fn until_hint(service: &Service, reason: &str, expected: &str, headers: &[(&str, &str)]) {
    until(expected, async || {
        refused(service, headers, &batch("evt_1")).await;
        let refusals = refusals(service).await;
        of(&refusals, reason)
            .is_some_and(|one| one["hint"].as_str().is_some_and(|hint| hint.contains(expected)))
    })
    .await;
}

#[tokio::test]
async fn refusals_name_the_removed_secret_that_a_sender_still_uses() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (directory.path().join("2026-08"), directory.path().join("2026-11"));
    std::fs::write(&old, SECRET).unwrap();
    let mut setup = Setup::new("datagrid");
    setup.rules = String::from("types = [\"batch_prediction.completed\"]\n");
    let service = setup.start().await;
    let file = service.file.path();
    let text = std::fs::read_to_string(file).unwrap();
    let entry = format!("secrets = [{{ dir = \"{}\" }}]", directory.path().display());
    std::fs::write(file, text.replace("secrets = [{ env = \"TEST_SECRET\" }]", &entry)).unwrap();
    service.app.reload.now().await.unwrap();
    assert!(refusals(&service).await.is_empty());

    std::fs::write(&new, NEW).unwrap();
    std::fs::remove_file(&old).unwrap();
    service.app.reload.now().await.unwrap();
    let old = signed(SECRET, &batch("evt_1"));
    let expected = "the body matches secret 2026-08, removed by the reload at 2";
    until_hint(&service, "signature_mismatch", expected, &[("datagrid-signature", &old)]).await;

    // Deliveries that anyone can send do not hide the hint.
    until_hint(&service, "signature_missing", "no datagrid-signature", &[]).await;
    let found = refusals(&service).await;
    assert_eq!((found.len(), &found[0]["reason"]), (2, &"signature_missing".into()));
    let mismatch = of(&found, "signature_mismatch").unwrap();
    assert!(mismatch["hint"].as_str().unwrap().contains("2026-08"), "{mismatch}");
    let before = mismatch["count"].as_u64().unwrap();

    // The hint survives a reload, as does the record of the secret.
    std::fs::write(directory.path().join("2027-02"), "wh_another-one-for-later").unwrap();
    service.app.reload.now().await.unwrap();
    refused(&service, &[("datagrid-signature", &old)], &batch("evt_1")).await;
    assert_eq!(of(&refusals(&service).await, "signature_mismatch").unwrap()["count"], before + 1);
}

#[tokio::test]
async fn the_log_has_at_most_one_hint_a_second_with_the_number_of_refusals() {
    let setup = Setup::new("datagrid");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hookstream.toml");
    std::fs::write(&file, setup.toml()).unwrap();
    let (_program, hooks, _, log) = process::serve_with_log(&file);
    let url = format!("http://{hooks}/hooks/{}", setup.source);
    let client = reqwest::Client::new();
    let body = batch("evt_1");
    let spaced = body.replace("\":", "\": ");
    let post = async || {
        let request = client.post(&url).header("datagrid-signature", signed(SECRET, &body));
        assert_eq!(request.body(spaced.clone()).send().await.unwrap().status(), 401);
    };
    let hints = || -> Vec<Value> {
        let log = log.lock().unwrap();
        log.iter().filter(|line| line["message"] == "why deliveries are refused").cloned().collect()
    };
    let (start, mut sent) = (Instant::now(), 0_u64);
    until("a second hint", async || {
        // Several concurrently, so that each hint covers several refusals even if an answer takes a second.
        tokio::join!(post(), post(), post(), post());
        sent += 4;
        hints().len() >= 2
    })
    .await;
    let seconds = start.elapsed().as_secs();
    let hints = hints();
    assert!(
        sent > hints.len() as u64 && hints.len() as u64 <= seconds + 1,
        "{sent} in {seconds} s: {hints:?}"
    );
    let first = &hints[0];
    assert_eq!((&first["level"], &first["cause"]), (&"WARN".into(), &"body_changed".into()));
    assert_eq!(first["source"], *setup.source);
    assert!(first["hint"].as_str().unwrap().contains("as JSON without spaces"), "{first}");
    let counts = hints.iter().map(|hint| hint["refused"].as_u64().unwrap());
    assert!((hints.len() as u64 + 1..=sent).contains(&counts.sum::<u64>()), "{hints:?}");
    let log = log.lock().unwrap().iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    assert!(
        !log.contains(SECRET) && !log.contains("results_url") && !log.contains(&signed(SECRET, &body)),
        "{log}"
    );
}

#[tokio::test]
async fn a_large_refused_body_is_counted_but_not_diagnosed() {
    let service = Arc::new(Setup::new("datagrid").start().await);
    let body = format!("[\"{}\"]", "x".repeat(300 * 1024));
    refused(&service, &[("datagrid-signature", &signed("wh_nobody's", &body))], &body).await;
    let small = batch("evt_1");
    until("the hint of another refusal", async || {
        refused(&service, &[], &small).await;
        let refusals = refusals(&service).await;
        of(&refusals, "signature_missing").is_some_and(|one| one["hint"].is_string())
    })
    .await;
    let found = refusals(&service).await;
    let large = of(&found, "signature_mismatch").unwrap();
    assert!(large["count"] == 1 && large.get("hint").is_none(), "{large}");
}
