//! `/status` and `hookstream status`, for the first questions of the person on call.

use serde_json::Value;

use crate::cli::{hookstream, run};
use crate::support::{SECRET, Service, Setup, batch, until};

/// Runs `status` with the service at this operator's port.
async fn status(admin: &str, arguments: &[&str]) -> (i32, String, String) {
    let admin = admin.to_owned();
    let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
    let work = move || {
        let directory = tempfile::tempdir().unwrap();
        run(hookstream(directory.path()).args(["status", "--url", &admin]).args(arguments))
    };
    let (code, stdout, stderr) = tokio::task::spawn_blocking(work).await.unwrap();
    println!("{stdout}{stderr}");
    assert!(!stdout.contains(SECRET) && !stderr.contains(SECRET));
    (code, stdout, stderr)
}

fn time(value: &Value) -> jiff::Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

async fn json(service: &Service) -> Value {
    serde_json::from_str(&service.admin("/status").await.1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_deliveries_refusals_and_the_secrets_in_use() {
    let service = Setup::new("datagrid").ready().await;
    let admin = service.app.admin.to_string();
    let (code, stdout, _) = status(&admin, &["--secrets"]).await;
    assert_eq!(code, 0);
    assert!(stdout.contains("never"), "{stdout}");

    for n in 0..3 {
        service.datagrid_post(batch(&format!("evt_{n}"))).await.is(200, "published", None);
    }
    service.datagrid_post("no JSON").await.is(200, "dead_lettered", Some("json_invalid"));
    let accepted = json(&service).await["sources"][&service.source]["last_accepted"].clone();
    // Times are in milliseconds, so two deliveries need different milliseconds.
    until("another millisecond", async || {
        jiff::Timestamp::now().as_millisecond() > time(&accepted).as_millisecond()
    })
    .await;
    let refused =
        service.post(&[("datagrid-signature", &format!("t=1,v1={}", "0".repeat(64)))], batch("evt_4")).await;
    assert_eq!(refused.status, 401);

    let status_now = json(&service).await;
    let source = &status_now["sources"][&service.source];
    for span in ["last_5_minutes", "last_hour"] {
        let counts = &source[span];
        let count = |outcome: &str| counts[outcome].as_u64().unwrap();
        let counts =
            ["published", "dead_lettered", "refused", "spooled", "handled", "unavailable"].map(count);
        assert_eq!(counts, [3, 1, 1, 0, 0, 0], "{status_now}");
    }
    assert_eq!(source["last_accepted"], accepted, "a refused delivery is not an accepted one");
    assert!(time(&source["last_request"]) > time(&accepted), "{status_now}");
    assert!(time(&accepted).as_millisecond() >= time(&status_now["started"]).as_millisecond());
    let secret = &source["secrets"][0];
    assert_eq!(
        (&secret["name"], &secret["last_hour"], &secret["last_day"]),
        (&"TEST_SECRET".into(), &4.into(), &4.into())
    );
    assert_eq!(
        (&secret["from"], &secret["safe_to_remove"]),
        (&"the variable TEST_SECRET".into(), &false.into())
    );
    assert_eq!(status_now["in_flight"], 0);
    assert!(status_now["spool"].is_null());
    assert_eq!(status_now["parts"]["kafka"]["state"], "ok");

    until("a report of the copies", async || json(&service).await["status"] == "degraded").await;
    let (code, stdout, _) = status(&admin, &["--secrets"]).await;
    assert_eq!(code, 0, "degraded, since one broker stores one copy, but ready");
    for expected in ["READY, degraded", "signature_mismatch x1", "durability", "TEST_SECRET", "kafka"] {
        assert!(stdout.contains(expected), "{expected} is not in\n{stdout}");
    }
    let (_, printed, _) = status(&admin, &["--json"]).await;
    assert_eq!(printed.lines().count(), 1);
    assert!(serde_json::from_str::<Value>(&printed).unwrap()["sources"].is_object());
    service.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_configuration_of_a_reload() {
    let service = Setup::new("datagrid").start().await;
    let before = json(&service).await;
    let text = std::fs::read_to_string(service.file.path()).unwrap();
    service.app.reload.now().await.unwrap();
    let same = json(&service).await;
    assert_eq!(before["config"]["hash"], same["config"]["hash"], "the configuration has not changed");
    let changed = text.replacen("[source.", "[source.github]\npreset = \"github\"\ntypes = [\"push\"]\nsecrets = [{ env = \"TEST_SECRET\" }]\n\n[source.", 1);
    std::fs::write(service.file.path(), changed).unwrap();
    service.app.reload.now().await.unwrap();
    let after = json(&service).await;
    assert_ne!(before["config"]["hash"], after["config"]["hash"]);
    assert!(after["config"]["loaded"].as_str() > before["config"]["loaded"].as_str());
    assert!(after["sources"]["github"]["last_request"].is_null(), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_exits_with_1_if_not_ready_and_with_2_if_nobody_answers() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let setup = Setup { kafka: unused.clone(), ..Setup::new("datagrid") };
    let service = setup.start().await;
    let (code, stdout, _) = status(&service.app.admin.to_string(), &[]).await;
    assert_eq!(code, 1);
    assert!(stdout.contains("NOT READY") && stdout.contains("kafka"), "{stdout}");
    // A source whose deliveries are all refused.
    until("a 503", async || service.datagrid_post(batch("evt_1")).await.status == 503).await;
    let (_, stdout, _) = status(&service.app.admin.to_string(), &[]).await;
    assert!(stdout.contains("never !!"), "{stdout}");

    let (code, stdout, stderr) = status(&unused, &[]).await;
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains(&format!("no service answers at http://{unused}/status")), "{stderr}");
    let (code, _, stderr) = status(&service.app.hooks.to_string(), &[]).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("is it the operator's port of hookstream?"), "{stderr}");
}
