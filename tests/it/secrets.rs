//! Secrets that say whose deliveries they sign, and what is known of each.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::{Answer, SECRET, Service, Setup, hmac_with, kafka, process, until};

const SECOND: &str = "wh_the-second-secret-of-it";

/// One secret for two tenants, and one that is everybody's.
const BOUND: &str = r#"[
  { name = "acme", env = "TEST_SECRET", binds = { pointer = "/tenant_id", equals = "acme" } },
  { name = "globex", env = "TEST_SECRET", binds = { pointer = "/tenant_id", equals = "globex" } },
  { name = "any", env = "SECOND" },
]"#;

fn setup(secrets: &str, rules: &str) -> Setup {
    let environment = [("SECOND".to_owned(), SECOND.to_owned())].into();
    Setup { secrets: secrets.into(), rules: rules.into(), environment, ..Setup::new("grapevine") }
}

/// Signs the body as it stands.
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
async fn what_a_secret_signed_for_another_tenant_is_401_and_in_no_topic() {
    let handshake = "handshake = [{ when = { pointer = \"/event\", equals = \"ping\" } }]";
    let service = setup(BOUND, handshake).ready().await;
    for (secret, tenant) in [(SECRET, "acme"), (SECRET, "globex"), (SECOND, "third")] {
        post(&service, secret, &event(tenant, tenant)).await.is(200, "published", None);
    }
    // Authentic, though no event: whose it is stands there.
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
async fn every_event_of_a_split_delivery_is_its_tenant_s() {
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

#[tokio::test]
async fn a_secret_s_last_match_moves_over_a_reload_by_its_name() {
    let service = setup("[{ name = \"old\", env = \"TEST_SECRET\" }]", "").ready().await;
    let source = service.source.clone();
    let of = async |secret: &str| {
        let (_, metrics) = service.admin("/metrics").await;
        let labels = format!("source=\"{source}\",secret=\"{secret}\"");
        let last = count(&metrics, "hookstream_secret_last_match_timestamp_seconds", &labels);
        (count(&metrics, "hookstream_secret_matches_total", &labels), last)
    };
    let (matches, last) = of("old").await;
    assert!(matches == Some(0.0) && last.unwrap().is_nan(), "there from the start: {matches:?} {last:?}");
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
    assert_eq!(of("old").await, (Some(1.0), first), "as before");
    assert_eq!(of("new").await.0, Some(0.0));
    post(&service, SECOND, &event("acme", "2")).await.is(200, "published", None);
    post(&service, "a-secret-of-nobody-0", &event("acme", "3")).await.is(
        401,
        "refused",
        Some("unauthorized"),
    );
    assert_eq!((of("old").await.0, of("new").await.0), (Some(1.0), Some(1.0)));
}

/// Of the program itself, since the line is what people read.
#[tokio::test]
async fn the_log_tells_the_secret_and_the_number_of_events_and_what_will_not_last() {
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
    let warning = find("message", "the secret old counts until").expect("a warning");
    let text = warning["message"].as_str().unwrap();
    assert!(
        text.ends_with("only, 2 more days; put the next one beside it (README, Rotate a secret)"),
        "{text}"
    );

    let ready = async || reqwest::get(format!("http://{admin}/readyz")).await.unwrap().status() == 200;
    until("ready", ready).await;
    let body = format!(r#"{{"events": [{}, {}]}}"#, event("a", "1"), event("a", "2"));
    let signature = format!("sha256={}", hmac_with(SECRET, body.as_bytes()));
    let request = reqwest::Client::new().post(format!("http://{hooks}/hooks/{}", setup.source));
    let answer = request.header("X-Grapevine-Signature", signature).body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    until("its line", async || find("outcome", "published").is_some()).await;
    let line = find("outcome", "published").unwrap();
    assert_eq!((&line["secret"], &line["events"]), (&json!("old"), &json!(2)), "{line}");

    // A reload tells what is new, in the same words.
    let past = ", { name = \"older\", env = \"TEST_SECRET\", not_after = \"2026-01-01T00:00:00Z\" }";
    let changed = setup.toml().replace(&secrets(""), &secrets(past));
    std::fs::write(&file, changed).unwrap();
    let pid = program.0.id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    until("the reload", async || find("message", "the secret older counted until").is_some()).await;
    let told = log.lock().unwrap().iter().filter(|line| line["message"] == text).count();
    assert_eq!(told, 1, "told once");
}
