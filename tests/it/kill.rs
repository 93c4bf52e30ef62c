//! Repeated kill -9 while deliveries are spooled: the spool opens every time, and no delivery answered 202 is lost. (This
//! does not test the sync to disk, since the page cache outlives the process.)

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::process::serve;
use crate::support::{PATIENCE, Setup, batch, datagrid, kafka, until};

/// The number of kills in a usual run; `HOOKSTREAM_TEST_KILLS=100` for more.
fn kills() -> usize {
    std::env::var("HOOKSTREAM_TEST_KILLS").ok().map_or(8, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_while_spooling_lose_no_acknowledged_delivery() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("hookstream.toml");
    let mut setup = Setup::new("datagrid");
    setup.rules = "types = [\"batch_prediction.completed\"]".into();
    setup.tables = format!("[spool]\ndir = \"{}/spool\"\nmin_free = \"1 MiB\"", dir.path().display());
    let (source, real) = (setup.source.clone(), std::mem::replace(&mut setup.kafka, "127.0.0.1:1".into()));
    std::fs::write(&config, setup.toml()).unwrap();

    let answered = Arc::new(Mutex::new(BTreeSet::new()));
    for round in 0..kills() {
        let (mut process, hooks, _) = serve(&config);
        let (fresh, url) = (Arc::new(AtomicUsize::new(0)), format!("http://{hooks}/hooks/{source}"));
        let senders: Vec<_> = (0..8)
            .map(|sender| {
                let (answered, fresh, url) = (answered.clone(), fresh.clone(), url.clone());
                let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap();
                tokio::spawn(async move {
                    for n in 0.. {
                        let id = format!("evt_{round}_{sender}_{n}");
                        let body = batch(&id);
                        let header = datagrid(body.as_bytes());
                        match client.post(&url).header("Datagrid-Signature", header).body(body).send().await {
                            Ok(answer) if answer.status() == 202 => {
                                answered.lock().unwrap().insert(id);
                                fresh.fetch_add(1, Ordering::Relaxed);
                            }
                            // The schema has no id yet.
                            Ok(answer) => assert_eq!(answer.status(), 503),
                            Err(_) => break,
                        }
                    }
                })
            })
            .collect();
        // A different count in each round, so that the kill hits different moments.
        until("spooled deliveries", async || fresh.load(Ordering::Relaxed) > 20 + 7 * round % 50).await;
        process.0.kill().unwrap();
        process.0.wait().unwrap();
        for sender in senders {
            sender.await.unwrap();
        }
    }

    std::fs::write(&config, setup.toml().replace("127.0.0.1:1", &real)).unwrap();
    let (_process, _, _) = serve(&config);
    let topic = format!("{source}.batch_prediction.completed");
    let answered = std::mem::take(&mut *answered.lock().unwrap());
    until("every acknowledged delivery in its topic", async || {
        let found: BTreeSet<String> = match kafka::exists(&topic).await {
            true => kafka::all(&topic).await.into_iter().collect(),
            false => BTreeSet::new(),
        };
        answered.is_subset(&found)
    })
    .await;
}
