//! Secrets that are bound to a tenant, and the state of each secret that hookstream shows.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::cli::{hookstream, run};
use crate::support::{Answer, SECRET, Service, Setup, hmac_with, kafka, process, until};

const SECOND: &str = "wh_the-second-secret-of-it";

/// One secret bound to two tenants under two names, and one bound to none.
const BOUND: &str = r#"[
  { name = "acme", env = "TEST_SECRET", binds = { pointer = "/tenant_id", equals = "acme" } },
  { name = "globex", env = "TEST_SECRET", binds = { pointer = "/tenant_id", equals = "globex" } },
  { name = "any", env = "SECOND" },
]"#;

fn setup(secrets: &str, rules: &str) -> Setup {
    let environment = [("SECOND".to_owned(), SECOND.to_owned())].into();
    Setup { secrets: secrets.into(), rules: rules.into(), environment, ..Setup::new("grapevine") }
}

/// Signs the body unchanged.
async fn post(service: &Service, secret: &str, body: &str) -> Answer {
    let signature = format!("sha256={}", hmac_with(secret, body.as_bytes()));
    service.post(&[("X-Grapevine-Signature", &signature)], body.to_owned()).await
}

fn event(tenant: &str, document: &str) -> String {
    format!(
        r#"{{"event": "document.changed", "tenant_id": "{tenant}", "data": {{"document_id": "{document}"}}}}"#
    )
}

fn count(metrics: &str, name: &str, labels: &str) -> Option<f64> {
    let start = format!("{name}{{{labels}}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&start)).map(|value| value.parse().unwrap())
}

#[tokio::test]
async fn a_delivery_for_another_tenant_than_its_secrets_is_401_and_not_published() {
    let handshake = "handshake = [{ when = { pointer = \"/event\", equals = \"ping\" } }]";
    let service = setup(BOUND, handshake).ready().await;
    for (secret, tenant) in [(SECRET, "acme"), (SECRET, "globex"), (SECOND, "third")] {
        post(&service, secret, &event(tenant, tenant)).await.is(200, "published", None);
    }
    // Authentic, but not an event: the dead letter names its tenant.
    let unknown = r#"{"event": "nobody.knows", "tenant_id": "acme"}"#;
    post(&service, SECRET, unknown).await.is(200, "dead_lettered", Some("type_unknown"));
    let ping = r#"{"event": "ping", "tenant_id": "acme"}"#;
    post(&service, SECRET, ping).await.is(200, "handled", Some("handshake"));

    for body in [
        event("third", "third"),
        event("acme", "x").replace("\"data\"", "\"tenant_id\": \"globex\", \"data\""),
        unknown.replace("acme", "third"),
        ping.replace("acme", "third"),
        r#"{"event": "ping"}"#.to_owned(),
        "no json".to_owned(),
        String::new(),
    ] {
        let answer = post(&service, SECRET, &body).await;
        answer.is(401, "refused", Some("unauthorized"));
        assert_eq!(answer.body, json!({"outcome": "refused", "reason": "unauthorized"}), "{body}");
    }
    let records = kafka::java(&[&service.topic("document.changed")]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pair =
        |record: &Value| (text(&record["value"]["tenant_id"]), text(&record["headers"]["hookstream-secret"]));
    let found: BTreeMap<_, _> = records.iter().map(pair).collect();
    let expected = [("acme", "acme"), ("globex", "globex"), ("third", "any")];
    assert_eq!(found, expected.map(|(tenant, secret)| (tenant.into(), secret.into())).into());
    assert_eq!(kafka::all(&service.dead_letters()).await.len(), 1);

    let lines = service.lines();
    let refused: Vec<_> = lines.iter().filter(|line| line.starts_with("401")).collect();
    assert_eq!(refused.len(), 7);
    assert!(
        refused.iter().all(|line| line.contains("the secret acme made it, but is bound to")),
        "{refused:#?}"
    );
    let (_, metrics) = service.admin("/metrics").await;
    let source = &service.source;
    let labels = format!("source=\"{source}\",outcome=\"refused\",reason=\"signature_mismatch\"");
    assert_eq!(count(&metrics, "hookstream_deliveries_total", &labels), Some(7.0));
    for (secret, expected) in [("acme", 3.0), ("globex", 1.0), ("any", 1.0)] {
        let labels = format!("source=\"{source}\",secret=\"{secret}\"");
        assert_eq!(count(&metrics, "hookstream_secret_matches_total", &labels), Some(expected), "{secret}");
    }
}

#[tokio::test]
async fn every_event_of_a_split_delivery_must_belong_to_the_secrets_tenant() {
    let rules = "envelope.split = \"/events\"\nenvelope.id = \"digest\"";
    let service = setup(BOUND, rules).ready().await;
    let of = |root: &str, tenants: &[&str]| {
        let events: Vec<_> = tenants.iter().map(|tenant| event(tenant, "x")).collect();
        format!(r#"{{"tenant_id": "{root}", "events": [{}]}}"#, events.join(","))
    };
    post(&service, SECRET, &of("acme", &["acme", "acme"])).await.is(200, "published", None);
    for body in [of("acme", &["acme", "globex"]), of("third", &["acme"])] {
        post(&service, SECRET, &body).await.is(401, "refused", Some("unauthorized"));
    }
    assert_eq!(kafka::all(&service.topic("document.changed")).await.len(), 2);
    assert!(service.lines()[0].contains("events: Some(2)"), "{:#?}", service.lines());
}

/// Two tenants that choose the ids of their events, one of them during a rotation.
const TENANTS: &str = r#"[
  { name = "acme", env = "TEST_SECRET", binds = { pointer = "/tenant_id", equals = "acme" } },
  { name = "acme-next", env = "THIRD", binds = { pointer = "/tenant_id", equals = "acme" } },
  { name = "evil", env = "SECOND", binds = { pointer = "/tenant_id", equals = "evil" } },
]"#;

const THIRD: &str = "wh_the-third-secret-of-it";

fn tenants(rules: &str) -> Setup {
    let mut setup = setup(TENANTS, &format!("envelope.id = \"/event_id\"\n{rules}"));
    setup.environment.insert("THIRD".into(), THIRD.into());
    setup
}

fn event_of(tenant: &str, id: &str, event: &str) -> String {
    format!(
        r#"{{"event": "{event}", "event_id": "{id}", "tenant_id": "{tenant}", "data": {{"document_id": "of {tenant}"}}}}"#
    )
}

/// Runs a command with the configuration of the running service.
async fn command(service: &Service, arguments: &[&str]) -> (i32, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = hookstream(directory.path());
    command.args(arguments).arg("-c").arg(service.file.path());
    command.env("TEST_SECRET", SECRET).env("SECOND", SECOND).env("THIRD", THIRD);
    // The service may run on this thread and must not be blocked.
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
}

#[tokio::test]
async fn c1_two_tenants_that_send_the_same_event_id_get_different_keys() {
    let service = tenants("").ready().await;
    let (evil, acme) =
        (event_of("evil", "evt_1", "document.changed"), event_of("acme", "evt_1", "document.changed"));
    post(&service, SECOND, &evil).await.is(200, "published", None);
    // The genuine event, its retry, and its retry with the tenant's next secret.
    for secret in [SECRET, SECRET, THIRD] {
        post(&service, secret, &acme).await.is(200, "published", None);
    }
    let topic = service.topic("document.changed");
    let records = kafka::java(&[&topic]);
    let pair = |record: &Value| format!("{} {}", record["key"], record["value"]["tenant_id"]);
    let mut found: Vec<_> = records.iter().map(pair).collect();
    found.sort();
    let of = |tenant: &str| format!("\"/tenant_id={tenant}:evt_1\" \"{tenant}\"");
    assert_eq!(found, ["acme", "acme", "acme", "evil"].map(of));
    assert!(records.iter().all(|record| record["partition"] == record["expectedPartition"]));
    assert!(
        records
            .iter()
            .all(|record| record["headers"]["ce_id"] == "evt_1" && record["value"]["id"] == "evt_1")
    );

    // Dead letters and their replay.
    for (secret, tenant) in [(SECOND, "evil"), (SECRET, "acme")] {
        let unknown = event_of(tenant, "evt_2", "document.shared");
        post(&service, secret, &unknown).await.is(200, "dead_lettered", Some("type_unknown"));
    }
    let mut letters = kafka::all(&service.dead_letters()).await;
    letters.sort();
    assert_eq!(letters, ["/tenant_id=acme:evt_2", "/tenant_id=evil:evt_2"]);

    // The commands find them by the provider's id and by the key.
    for (key, keys) in [("evt_1", 4), ("/tenant_id=acme:evt_1", 3), ("/tenant_id=third:evt_1", 0)] {
        let arguments = ["tail", &*topic, "--key", key, "-o", "start", "-e", "--json"];
        let (code, stdout, stderr) = command(&service, &arguments).await;
        assert_eq!((code, stdout.lines().count()), (i32::from(keys == 0), keys), "{key}: {stdout}{stderr}");
    }
    for (id, count) in [("evt_2", 2), ("/tenant_id=acme:evt_2", 1), ("evt_3", 0)] {
        let (_, stdout, stderr) = command(&service, &["replay", &service.source, "--id", id, "--json"]).await;
        let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
        assert_eq!(report["selected"], count, "{id}: {report}");
    }
    let signature = format!("X-Grapevine-Signature: sha256={}", hmac_with(SECRET, acme.as_bytes()));
    let body = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(body.path(), &acme).unwrap();
    let path = body.path().to_str().unwrap();
    let arguments = ["explain", &*service.source, "--header", &signature, "--body", path, "--json"];
    let (code, stdout, stderr) = command(&service, &arguments).await;
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
    assert_eq!((code, &report["becomes"]["key"]), (0, &json!("/tenant_id=acme:evt_1")), "{report}");

    // A replayed record has the key that the delivery would have had.
    let text = std::fs::read_to_string(service.file.path()).unwrap();
    std::fs::write(service.file.path(), text.replace("envelope.id", "unmapped = \"generic\"\nenvelope.id"))
        .unwrap();
    service.app.reload.now().await.unwrap();
    let shared = event_of("acme", "evt_4", "document.shared");
    until("the new topic", async || post(&service, SECRET, &shared).await.status == 200).await;
    let (code, stdout, stderr) = command(&service, &["replay", &service.source, "--all", "--apply"]).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    let keys = kafka::all(&service.topic("unmapped")).await;
    for tenant in ["evil", "acme"] {
        assert!(keys.contains(&format!("/tenant_id={tenant}:evt_2")), "{keys:?}");
    }
}

#[tokio::test]
async fn c1_old_topics_can_keep_keys_without_the_binding_and_check_warns_about_it() {
    let service = tenants("binding_in_key = false").ready().await;
    for (secret, tenant) in [(SECOND, "evil"), (SECRET, "acme")] {
        let event = event_of(tenant, "evt_1", "document.changed");
        post(&service, secret, &event).await.is(200, "published", None);
    }
    assert_eq!(kafka::all(&service.topic("document.changed")).await, ["evt_1", "evt_1"]);
    let (code, stdout, stderr) = command(&service, &["check"]).await;
    assert!(code == 0 && stdout.contains("binding_in_key is false"), "{code} {stdout}{stderr}");

    let text = std::fs::read_to_string(service.file.path()).unwrap();
    std::fs::write(service.file.path(), text.replace("binding_in_key = false", "")).unwrap();
    service.app.reload.now().await.unwrap();
    let event = event_of("acme", "evt_1", "document.changed");
    post(&service, SECRET, &event).await.is(200, "published", None);
    let keys = kafka::all(&service.topic("document.changed")).await;
    assert_eq!(keys.iter().filter(|key| *key == "/tenant_id=acme:evt_1").count(), 1, "{keys:?}");
    let (_, stdout, _) = command(&service, &["check"]).await;
    assert!(!stdout.contains("binding_in_key"), "{stdout}");
}

#[tokio::test]
async fn c1_a_custom_key_contains_its_tenant_and_no_id_can_imitate_it() {
    let keys = "envelope.keys = { \"document.changed\" = \"/data/document_id\" }";
    let rules = format!("envelope.id = \"/event_id\"\nunmapped = \"generic\"\n{keys}");
    let service = setup(BOUND, &rules).ready().await;
    until("a check of the topic's policy", async || {
        post(&service, SECRET, &event_of("acme", "evt_1", "document.changed")).await.status == 200
    })
    .await;
    let keys = kafka::all(&service.topic("document.changed")).await;
    assert!(keys.iter().all(|key| key == "/tenant_id=acme:of acme"), "{keys:?}");
    // The owner of an unbound secret sends an id that looks like acme's key.
    post(&service, SECRET, &event_of("acme", "evt_1", "other")).await.is(200, "published", None);
    post(&service, SECOND, &event_of("evil", "/tenant_id=acme:evt_1", "other")).await.is(
        200,
        "published",
        None,
    );
    let mut keys = kafka::all(&service.topic("unmapped")).await;
    keys.sort();
    assert_eq!(keys, ["/=:/tenant_id=acme:evt_1", "/tenant_id=acme:evt_1"]);
}

#[tokio::test]
async fn the_last_match_of_a_secret_survives_a_reload_by_name() {
    let service = setup("[{ name = \"old\", env = \"TEST_SECRET\" }]", "").ready().await;
    let source = service.source.clone();
    let of = async |secret: &str| {
        let (_, metrics) = service.admin("/metrics").await;
        let labels = format!("source=\"{source}\",secret=\"{secret}\"");
        let last = count(&metrics, "hookstream_secret_last_match_timestamp_seconds", &labels);
        (count(&metrics, "hookstream_secret_matches_total", &labels), last)
    };
    let (matches, last) = of("old").await;
    assert!(matches == Some(0.0) && last.unwrap().is_nan(), "exported from the start: {matches:?} {last:?}");
    let before = Timestamp::now().as_millisecond() as f64 / 1000.0;
    post(&service, SECRET, &event("acme", "1")).await.is(200, "published", None);
    let (matches, first) = of("old").await;
    assert_eq!(matches, Some(1.0));
    assert!(first.unwrap() >= before, "{first:?} {before}");

    let text = std::fs::read_to_string(service.file.path()).unwrap();
    let both = "[{ name = \"old\", env = \"TEST_SECRET\" }, { name = \"new\", env = \"SECOND\" }]";
    let text = text.replace("[{ name = \"old\", env = \"TEST_SECRET\" }]", both);
    std::fs::write(service.file.path(), text).unwrap();
    service.app.reload.now().await.unwrap();
    assert_eq!(of("old").await, (Some(1.0), first), "unchanged");
    assert_eq!(of("new").await.0, Some(0.0));
    post(&service, SECOND, &event("acme", "2")).await.is(200, "published", None);
    post(&service, "a-secret-of-nobody-0", &event("acme", "3")).await.is(
        401,
        "refused",
        Some("unauthorized"),
    );
    assert_eq!((of("old").await.0, of("new").await.0), (Some(1.0), Some(1.0)));
}

/// With the real program, to test the log line.
#[tokio::test]
async fn the_log_shows_the_secret_the_number_of_events_and_expiring_secrets() {
    let soon = Timestamp::now() + SignedDuration::from_hours(49);
    let secrets =
        |more: &str| format!("[{{ name = \"old\", env = \"TEST_SECRET\", not_after = \"{soon}\" }}{more}]");
    let setup = Setup {
        secrets: secrets(""),
        rules: "envelope.split = \"/events\"\nenvelope.id = \"digest\"".into(),
        ..Setup::new("grapevine")
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hookstream.toml");
    std::fs::write(&file, setup.toml()).unwrap();
    let (program, hooks, admin, log) = process::serve_with_log(&file);
    let find = |key: &str, value: &str| {
        let lines = log.lock().unwrap();
        lines.iter().find(|line| line[key].as_str().is_some_and(|text| text.contains(value))).cloned()
    };
    let on = find("message", "source is on").expect("a line for each source");
    assert_eq!((&on["source"], &on["types"]), (&json!(setup.source), &json!("document.changed")));
    assert_eq!((&on["max_in_flight"], on.get("spool_share")), (&json!(2000), None));
    let warning = find("message", "the secret old expires at").expect("a warning");
    let text = warning["message"].as_str().unwrap();
    assert!(text.ends_with("in 2 days; add its successor (docs/secrets.md, Rotate a secret)"), "{text}");

    let ready = async || reqwest::get(format!("http://{admin}/readyz")).await.unwrap().status() == 200;
    until("ready", ready).await;
    let body = format!(r#"{{"events": [{}, {}]}}"#, event("a", "1"), event("a", "2"));
    let signature = format!("sha256={}", hmac_with(SECRET, body.as_bytes()));
    let request = reqwest::Client::new().post(format!("http://{hooks}/hooks/{}", setup.source));
    let answer = request.header("X-Grapevine-Signature", signature).body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    until("its log line", async || find("outcome", "published").is_some()).await;
    let line = find("outcome", "published").unwrap();
    assert_eq!((&line["secret"], &line["events"]), (&json!("old"), &json!(2)), "{line}");

    // A reload logs changes in the same form.
    let past = ", { name = \"older\", env = \"TEST_SECRET\", not_after = \"2026-01-01T00:00:00Z\" }";
    let changed = setup.toml().replace(&secrets(""), &secrets(past));
    std::fs::write(&file, changed).unwrap();
    let pid = program.0.id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    until("the reload", async || find("message", "the secret older expired at").is_some()).await;
    let warnings = log.lock().unwrap().iter().filter(|line| line["message"] == text).count();
    assert_eq!(warnings, 1);
}
