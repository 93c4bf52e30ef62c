//! Configuration changes while deliveries arrive.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::support::{SECRET, Service, Setup, batch, hmac_with, kafka, process, unique, until};

const NEW: &str = "wh_the-secret-that-comes-next";
const ONE: &str = "secrets = [{ env = \"TEST_SECRET\" }]";
const TYPES: &str = "types = [\"batch_prediction.completed\"]";

/// Replaces a text that occurs once in the file.
fn edit(file: &Path, old: &str, new: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert_eq!(text.matches(old).count(), 1, "{old} in {text}");
    std::fs::write(file, text.replace(old, new)).unwrap();
}

fn signed(secret: &str, body: &str) -> String {
    format!("t=1775847600,v1={}", hmac_with(secret, format!("1775847600.{body}").as_bytes()))
}

/// Posts a delivery signed with `secret`. Returns the status.
async fn status(service: &Service, secret: &str, body: &str) -> u16 {
    service.post(&[("datagrid-signature", &signed(secret, body))], body.to_owned()).await.status
}

fn one_type() -> Setup {
    Setup { rules: TYPES.into(), ..Setup::new("datagrid") }
}

/// Posts deliveries until it is stopped, signed with the receiver's current secret, and counts those with the new one.
/// Returns the ids of the published events.
async fn send(
    service: Arc<Service>,
    chosen: watch::Receiver<Option<&'static str>>,
    n: usize,
) -> BTreeSet<String> {
    let mut sent = BTreeSet::new();
    loop {
        let Some(secret) = *chosen.borrow() else { return sent };
        let body = batch(&format!("evt_{n}_{}", sent.len()));
        let answer = service.post(&[("datagrid-signature", &signed(secret, &body))], body.clone()).await;
        if answer.status == 503 {
            // Kafka's fault, for example while a partition is being created: a provider retries.
            continue;
        }
        answer.is(200, "published", None);
        sent.insert(format!("evt_{n}_{}", sent.len()));
        SWITCHED[n].fetch_add(usize::from(secret == NEW), Ordering::Relaxed);
    }
}

static SWITCHED: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_rotated_under_load_and_no_authentic_delivery_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("new");
    std::fs::write(&new, NEW).unwrap();
    let new = format!("{{ file = \"{}\" }}", new.display());
    let (service, file) = {
        let service = Arc::new(one_type().ready().await);
        (service.clone(), service.file.path().to_owned())
    };
    let (chosen, choice) = watch::channel(Some(SECRET));
    let senders: Vec<_> =
        (0..SWITCHED.len()).map(|n| tokio::spawn(send(service.clone(), choice.clone(), n))).collect();
    until("load", async || service.lines().len() > 20).await;
    assert_eq!(status(&service, NEW, &batch("evt_early")).await, 401, "not known yet");

    edit(&file, ONE, &format!("secrets = [{{ env = \"TEST_SECRET\" }}, {new}]"));
    service.app.reload.now().await.unwrap();
    chosen.send_replace(Some(NEW));
    let all = || SWITCHED.iter().all(|sent| sent.load(Ordering::Relaxed) > 0);
    until("all senders to switch", async || all()).await;
    edit(&file, &format!("[{{ env = \"TEST_SECRET\" }}, {new}]"), &format!("[{new}]"));
    service.app.reload.now().await.unwrap();
    let before: usize = service.lines().len();
    until("more load", async || service.lines().len() > before + 20).await;
    assert_eq!(status(&service, SECRET, &batch("evt_late")).await, 401, "removed");

    chosen.send_replace(None);
    let mut sent = BTreeSet::new();
    for sender in senders {
        sent.append(&mut sender.await.expect("200 for each authentic delivery"));
    }
    let published = kafka::all(&service.topic("batch_prediction.completed")).await;
    assert_eq!(published.into_iter().collect::<BTreeSet<_>>(), sent);
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_all_its_problems_and_the_old_one_stays() {
    let service = one_type().ready().await;
    let file = service.file.path();
    // A problem of each kind: an unknown key, and rules that do not compile.
    edit(file, TYPES, "typs = []\nstale = \"sometimes\"");
    let error = service.app.reload.now().await.unwrap_err().to_string();
    assert!(error.contains("2 problems") && error.contains("typs") && error.contains("stale"), "{error}");
    edit(file, "typs = []\nstale = \"sometimes\"", "signature.signed = \"{nothing}\"");
    let error = service.app.reload.now().await.unwrap_err().to_string();
    assert!(error.contains("signature.signed"), "{error}");
    assert_eq!(status(&service, SECRET, &batch("evt_1")).await, 200, "the old configuration is in force");

    edit(file, "signature.signed = \"{nothing}\"", &format!("{TYPES}\nstale = \"reject\""));
    service.app.reload.now().await.unwrap();
    assert_eq!(status(&service, SECRET, &batch("evt_2")).await, 401, "stale");
}

#[tokio::test]
async fn a_new_event_type_gets_its_topic_and_is_published() {
    let service = one_type().ready().await;
    let body = r#"{"id":"evt_new","event_type":"push","timestamp":1775847600,"data":{}}"#;
    service.datagrid_post(body).await.is(200, "dead_lettered", Some("type_unknown"));
    edit(service.file.path(), TYPES, "types = [\"batch_prediction.completed\", \"push\"]");
    service.app.reload.now().await.unwrap();
    // The sender must retry until the schema has an id and the topic exists.
    until("a published delivery of the type", async || {
        let answer = service.datagrid_post(body).await;
        assert!(answer.status == 503 || answer.body["outcome"] == "published", "{answer:?}");
        answer.status == 200
    })
    .await;
    assert_eq!(kafka::java(&[&service.topic("push")])[0]["value"]["type"], "push");
    assert_eq!(status(&service, SECRET, &batch("evt_1")).await, 200, "the other type does not change");
}

/// As Kubernetes mounts a Secret: an update swaps a symbolic link to the directory.
#[tokio::test]
async fn a_changed_secret_file_is_loaded_automatically() {
    use std::os::unix::fs::symlink;
    let mount = tempfile::tempdir().unwrap();
    for (version, secret) in [("..1", SECRET), ("..2", NEW)] {
        std::fs::create_dir(mount.path().join(version)).unwrap();
        std::fs::write(mount.path().join(version).join("key"), secret).unwrap();
    }
    symlink("..1", mount.path().join("..data")).unwrap();
    symlink("..data/key", mount.path().join("key")).unwrap();
    let mut service = one_type().ready().await;
    let entry = format!("secrets = [{{ dir = \"{}\" }}]", mount.path().display());
    edit(service.file.path(), ONE, &entry);
    service.app.watch_files(Duration::from_millis(20));
    assert_eq!(status(&service, SECRET, &batch("evt_1")).await, 200);

    symlink("..2", mount.path().join("..new")).unwrap();
    std::fs::rename(mount.path().join("..new"), mount.path().join("..data")).unwrap();
    until("the new secret", async || status(&service, NEW, &batch("evt_2")).await == 200).await;
    assert_eq!(status(&service, SECRET, &batch("evt_3")).await, 401);
}

#[tokio::test]
async fn sighup_reloads_the_configuration_and_a_metric_says_whether_it_was_accepted() {
    let setup = one_type();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hookstream.toml");
    std::fs::write(&file, setup.toml()).unwrap();
    let (program, hooks, admin) = process::serve(&file);
    let hang_up = || {
        let pid = program.0.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    };
    let metric = async |value: &str| {
        let text = reqwest::get(format!("http://{admin}/metrics")).await.unwrap().text().await.unwrap();
        text.contains(&format!("hookstream_config_last_reload_successful {value}\n"))
    };
    until("the start", async || metric("1").await).await;
    edit(&file, TYPES, "types = 5");
    hang_up();
    until("the refusal", async || metric("0").await).await;
    edit(&file, "types = 5", TYPES);
    let renamed = unique("renamed");
    edit(&file, &setup.source, &renamed);
    hang_up();
    until("the reload", async || metric("1").await).await;
    let client = reqwest::Client::new();
    let old = client.post(format!("http://{hooks}/hooks/{}", setup.source)).body("{}").send().await.unwrap();
    assert_eq!(old.status(), 404);
    let new = client.post(format!("http://{hooks}/hooks/{renamed}")).body("{}").send().await.unwrap();
    assert_eq!(new.status(), 401);
}

#[tokio::test]
async fn a_reload_changes_the_log_filter() {
    let setup = Setup { tables: "[log]\nfilter = \"info\"\n".into(), ..one_type() };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hookstream.toml");
    std::fs::write(&file, setup.toml()).unwrap();
    let (program, hooks, admin, log) = process::serve_with_log(&file);
    let client = reqwest::Client::new();
    let refused = async |method: reqwest::Method| {
        let url = format!("http://{hooks}/hooks/{}", setup.source);
        client.request(method, url).send().await.unwrap();
    };
    let loaded = async || {
        let text = reqwest::get(format!("http://{admin}/status")).await.unwrap().text().await.unwrap();
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        status["config"]["loaded"].as_str().unwrap().to_owned()
    };
    let change = async |from: &str, to: &str| {
        let before = loaded().await;
        edit(&file, &format!("filter = \"{from}\""), &format!("filter = \"{to}\""));
        let pid = program.0.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        until("the reload", async || loaded().await != before).await;
    };
    refused(reqwest::Method::PUT).await;
    change("info", "error").await;
    refused(reqwest::Method::POST).await;
    change("error", "info").await;
    refused(reqwest::Method::PATCH).await;
    // Lines are in order, so once the last one is written, missing lines were filtered out.
    let reasons = || {
        let log = log.lock().unwrap();
        let refused = log.iter().filter(|line| line["outcome"] == "refused");
        refused.map(|line| line["reason"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    until("the last line", async || reasons().len() >= 2).await;
    assert_eq!(reasons(), ["method_not_allowed"; 2], "the POST came while only errors were logged");
}
