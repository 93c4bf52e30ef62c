//! SIGTERM under load, with the real program.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::process::serve;
use crate::support::{PATIENCE, Setup, batch, datagrid, kafka, on_embedded, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_no_delivery_that_was_answered_2xx() {
    let setup = Setup::new("datagrid");
    let (source, file) = (setup.source.clone(), tempfile::NamedTempFile::with_suffix(".toml").unwrap());
    std::fs::write(file.path(), setup.toml().replace("drain_delay = \"0s\"", "drain_delay = \"400ms\""))
        .unwrap();
    let (mut process, hooks, admin) = serve(file.path());
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap();
    let readyz = async |client: &reqwest::Client| {
        let answer = client.get(format!("http://{admin}/readyz")).send().await;
        answer.map(|answer| answer.status().as_u16()).unwrap_or(0)
    };
    until("readiness", async || readyz(&client).await == 200).await;

    let count = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..16)
        .map(|sender| {
            let (client, stop, count) = (client.clone(), stop.clone(), count.clone());
            let url = format!("http://{hooks}/hooks/{source}");
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = format!("evt_{sender}_{n}");
                    let body = batch(&id);
                    let header = datagrid(body.as_bytes());
                    let request = client.post(&url).header("Datagrid-Signature", header).body(body);
                    match request.send().await {
                        Ok(answer) if answer.status() == 200 => {
                            count.fetch_add(1, Ordering::Relaxed);
                            acknowledged.push(id);
                        }
                        Ok(answer) => assert_eq!(answer.status(), 503),
                        // The port is closed, so the sender stops.
                        Err(_) => break,
                    }
                }
                acknowledged
            })
        })
        .collect();

    until("load", async || count.load(Ordering::Relaxed) > 200).await;
    let pid = process.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    // An ended process counts too, since the drain may be over before this check.
    until("the end of readiness", async || readyz(&client).await != 200).await;
    let status = tokio::task::spawn_blocking(move || process.0.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = BTreeSet::new();
    for sender in senders {
        acknowledged.extend(sender.await.unwrap());
    }
    let found = kafka::all(&format!("{source}.batch_prediction.completed")).await;
    let found: BTreeSet<String> = found.into_iter().collect();
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());
}

#[tokio::test]
async fn a_shutdown_finishes_deliveries_in_flight_and_answers_new_ones_503() {
    let (service, kafka) = on_embedded("").await;
    kafka.delay(Duration::from_millis(1500)).unwrap();
    let (url, client) = (service.url(), service.client.clone());
    let post = |id: &str| {
        let body = batch(id);
        client.post(&url).header("Datagrid-Signature", datagrid(body.as_bytes())).body(body).send()
    };
    let before = tokio::spawn(post("evt_before"));
    let health = service.app.health.clone();
    until("a delivery in flight", async || service.app.in_flight() == 1).await;
    let stopped = tokio::spawn(service.app.stop());
    until("a refused delivery", async || {
        // A shutdown does not wait for new connections.
        match tokio::time::timeout(Duration::from_millis(100), post("evt_after")).await {
            Ok(Ok(answer)) if answer.status() == 503 => {
                assert_eq!(answer.headers()["connection"], "close");
                let text = answer.text().await.unwrap();
                assert!(text.contains(r#""reason":"draining""#), "{text}");
                true
            }
            _ => false,
        }
    })
    .await;
    assert!(!health.readiness().is_ready());
    assert_eq!(before.await.unwrap().unwrap().status(), 200, "a delivery in flight is finished");
    stopped.await.unwrap().unwrap();
}
