//! The shipped presets, and the documentation page for providers without one.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hookstream::app;
use hookstream::config::{self, Environment, Overrides};
use hookstream::delivery::{Delivery, DeliveryId};
use hookstream::sources::Sources;
use http::{HeaderMap, HeaderName, Uri};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::{self, Setup, hmac, kafka};

/// Compiles the sources of this configuration with these secrets, as `serve` does.
fn compiled(toml: &str, secrets: &[(&str, &str)]) -> Sources {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), toml).unwrap();
    let overrides = Overrides { file: Some(file.path().to_owned()), ..Overrides::default() };
    let environment: Environment = secrets.iter().copied().collect();
    let loaded = config::load(&overrides, &environment).unwrap_or_else(|problems| panic!("{problems}"));
    app::compile(&loaded).unwrap_or_else(|problems| panic!("{problems}")).0
}

#[test]
fn every_preset_compiles_and_links_to_the_documentation_of_its_rules() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    for (name, text) in config::presets() {
        let url = if text.contains("{url}") { "signature.url = \"https://example.com/\"" } else { "" };
        let toml = format!("[source.{name}]\npreset = \"{name}\"\nsecrets = [{{ env = \"S\" }}]\n{url}");
        let secret = config::providers()[name].vector.first().map_or(secret, |vector| vector.secret.as_str());
        let sources = compiled(&toml, &[("S", secret)]);
        let source = sources.get(name).unwrap();
        let rules: toml::Table = text.parse().unwrap();
        if name != "grapevine" {
            assert!(rules["docs"].as_str().unwrap().starts_with("https://"), "{name}");
        }
        let [types, generic] = [
            !rules["types"].as_array().unwrap().is_empty(),
            source.topic_of_others() == format!("{name}.unmapped"),
        ];
        assert_ne!(types, generic, "{name}: either schemas, or generic records for all types");
    }
}

/// Who signed each delivery is in the preset's file: a published example, the provider's library, or another
/// implementation. With a byte of the body changed it is refused, unless the secret is a token, and an old one is handled as
/// the preset says.
#[test]
fn every_preset_verifies_what_others_signed() {
    let mut seen = 0;
    for (name, provider) in config::providers() {
        let rules = config::provider_rules(name).unwrap();
        for vector in &provider.vector {
            let toml = format!("[source.{name}]\npreset = \"{name}\"\nsecrets = [{{ env = \"S\" }}]\n");
            let url = vector.url.as_ref().map(|url| format!("signature.url = {url:?}\n"));
            let sources = compiled(&format!("{toml}{}", url.unwrap_or_default()), &[("S", &vector.secret)]);
            let source = sources.get(name).unwrap();
            let body = match &vector.body_base64 {
                Some(text) => BASE64_STANDARD.decode(text).unwrap(),
                None => vector.body.clone().into_bytes(),
            };
            let mut headers = HeaderMap::new();
            for (name, value) in &vector.headers {
                headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            }
            let received_at = vector.at.unwrap_or_else(Timestamp::now);
            let with = |body: Vec<u8>, received_at| Delivery {
                received_at,
                ..delivery(headers.clone(), body.into())
            };
            let by = format!("{name}, signed by {}", vector.by);

            let authentic = with(body.clone(), received_at);
            let (verified, stale) =
                source.authenticate(&authentic).unwrap_or_else(|fault| panic!("{by}: {fault}"));
            assert!(stale.is_none(), "{by}: {stale:?}");
            let timed = verified.age().is_some();
            assert!(vector.at.is_some() || !timed, "{by}: a time is signed, so `at` is needed");

            let mut forged = body.clone();
            match forged.last_mut() {
                Some(last) => *last ^= 1,
                None => forged.push(b' '),
            }
            let token = rules.signature.iter().any(|rules| rules.kind != config::SignatureKind::Hmac);
            let forged = with(forged, received_at);
            assert!(token || source.authenticate(&forged).is_err(), "{by}: a changed body verifies");

            let later = with(body.clone(), received_at + jiff::SignedDuration::from_hours(1));
            let verdict = source.authenticate(&later);
            match rules.stale {
                config::Stale::Reject if timed => assert!(verdict.is_err(), "{by}: an old delivery verifies"),
                config::Stale::DeadLetter if timed => assert!(verdict.unwrap().1.is_some(), "{by}"),
                _ => assert!(verdict.is_ok(), "{by}: a late delivery is refused"),
            }
            seen += 1;
        }
    }
    assert!(seen >= config::providers().len(), "{seen} vectors");
}

const SECRET: &str = "a-secret-of-some-length-00";
const KEY: &str = "00ff10ef20df30cf40bf50af609f708f";

/// Each TOML block of the page signs, verifies and refuses, and verifies a signature from Python's hmac.
#[test]
fn the_toml_blocks_of_the_page_work_unchanged() {
    let secrets = [
        ("GITHUB_WEBHOOK_SECRET", SECRET),
        ("PAYSTACK_SECRET_KEY", SECRET),
        ("SQUARE_SIGNATURE_KEY", SECRET),
        ("ACME_SIGNING_KEY", KEY),
    ];
    let page = include_str!("../../docs/providers.md");
    let blocks = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let (mut names, mut vectors) = (Vec::new(), 0);
    for block in blocks {
        let sources = compiled(block, &secrets);
        let source = sources.iter().find(|source| block.contains(&format!("[source.{}]", source.name)));
        let source = source.unwrap_or_else(|| panic!("no source in {block}"));
        let mut headers = HeaderMap::new();
        source.verifier.sign(b"{}", Timestamp::now(), &mut headers).unwrap();
        for (body, valid) in [("{}", true), ("{ }", false)] {
            let delivery = delivery(headers.clone(), body.into());
            let verdict = source.authenticate(&delivery);
            assert_eq!(verdict.is_ok(), valid, "{}: {body}", source.name);
            assert!(verdict.ok().and_then(|(_, stale)| stale).is_none());
        }
        for vector in vectors_of(&source.name) {
            let verdict = source.verifier.verify(&vector.delivery);
            assert_eq!(verdict.is_ok(), vector.valid, "{}: {verdict:?}", source.name);
            vectors += 1;
        }
        names.push(source.name.clone());
    }
    assert_eq!(names, ["github", "paystack", "square", "acme"]);
    assert!(vectors > 10, "only {vectors} vectors");
}

struct Vector {
    delivery: Delivery,
    valid: bool,
}

/// Signatures made by other programs with the page's secret.
fn vectors_of(provider: &str) -> impl Iterator<Item = Vector> {
    let vectors = include_str!("../fixtures/signatures/providers.jsonl").lines();
    let vectors = vectors.map(|line| serde_json::from_str::<Value>(line).unwrap());
    vectors.filter(move |vector| vector["provider"] == provider && vector["secret"] == SECRET).map(|vector| {
        let mut headers = HeaderMap::new();
        for header in vector["headers"].as_array().unwrap() {
            let [name, value] = [0, 1].map(|at| header[at].as_str().unwrap());
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let body = BASE64_STANDARD.decode(vector["body_base64"].as_str().unwrap()).unwrap();
        Vector { delivery: delivery(headers, body.into()), valid: vector["valid"].as_bool().unwrap() }
    })
}

fn delivery(headers: HeaderMap, body: Bytes) -> Delivery {
    let (id, received_at) = (DeliveryId::new(), Timestamp::now());
    Delivery { id, uri: Uri::from_static("/"), headers, body, received_at }
}

/// Headers and body from docs.github.com, "Webhook events and payloads"; the signature is from another library than the
/// service's.
#[tokio::test]
async fn events_of_github_go_to_their_topics_and_its_ping_to_none() {
    let mut setup = Setup::new("github");
    setup.rules = "types = [\"push\"]".into();
    let service = setup.ready().await;
    let body = r#"{"ref":"refs/heads/main","repository":{"full_name":"acme/webhooks"}}"#;
    let post = async |event: &str, content_type: &str, body: &str| {
        let signature = format!("sha256={}", hmac(body.as_bytes()));
        let headers = [
            ("User-Agent", "GitHub-Hookshot/044aadd"),
            ("Content-Type", content_type),
            ("X-GitHub-Hook-ID", "292430182"),
            ("X-GitHub-Event", event),
            ("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ("X-Hub-Signature-256", &signature),
        ];
        service.post(&headers, body.to_owned()).await
    };
    let answer = post("push", "application/json", body).await;
    answer.is(200, "published", None);
    assert_eq!(answer.body["topic"], service.topic("push"));
    post("ping", "application/json", r#"{"zen":"Design for failure."}"#).await.is(
        200,
        "handled",
        Some("handshake"),
    );
    let form = "payload=%7B%22action%22%3A%22created%22%7D";
    let answer = post("star", "application/x-www-form-urlencoded", form).await;
    answer.is(200, "published", None);
    assert_eq!(answer.body["topic"], service.topic("unmapped"));

    let [push, unmapped] = ["push", "unmapped"].map(|topic| kafka::java(&[&service.topic(topic)]));
    // From Python's hashlib: sha256(body)[:16].
    assert_eq!(push[0]["key"], "72d3162e-cc78-11e3-81ab-4c9367dc0958:1df95657678f7b09");
    assert_eq!(push[0]["headers"]["hookstream-unsigned"], "id,type");
    assert_eq!((&push[0]["value"]["type"], &push[0]["value"]["data"]), (&json!("push"), &json!(body)));
    assert_eq!(unmapped[0]["value"]["type"], "star");
    assert_eq!(unmapped[0]["value"]["data"], r#"{"action":"created"}"#);
    assert_eq!((push.len(), unmapped.len()), (1, 1), "the ping is in no topic");
}

/// Bodies from docs.slack.dev, "The Events API".
#[tokio::test]
async fn the_url_verification_of_slack_is_answered_events_are_published_and_old_signatures_refused() {
    let mut setup = Setup::new("slack");
    setup.rules = "types = [\"app_mention\"]".into();
    let service = setup.ready().await;
    let post = async |age: i64, body: &str| {
        let time = (Timestamp::now().as_second() - age).to_string();
        let signature = format!("v0={}", hmac(format!("v0:{time}:{body}").as_bytes()));
        let request = service.client.post(service.url()).header("X-Slack-Signature", signature);
        request.header("X-Slack-Request-Timestamp", time).body(body.to_owned()).send().await.unwrap()
    };
    let handshake =
        r#"{"token":"Jhj5dZrVaK7ZwHHjRyZWjbDl","challenge":"3eZbrw1aB","type":"url_verification"}"#;
    assert_eq!(post(0, handshake).await.text().await.unwrap(), "3eZbrw1aB");
    let body = config::providers()["slack"].sample[0].body.as_str();
    assert_eq!(post(0, body).await.status(), 200);
    assert_eq!(post(600, body).await.status(), 401);

    let records = kafka::java(&[&service.topic("app_mention")]);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["key"], "Ev123ABC456", "all parts of the key are signed");
    assert_eq!(records[0]["value"]["time"], 1_775_847_600_000_i64);
}

/// Bodies from docs.gitlab.com, "Webhook events" and "System hooks".
#[tokio::test]
async fn w1_a_gitlab_member_event_goes_to_its_own_topic() {
    let mut setup = Setup::new("gitlab");
    setup.rules = "types = [\"user_add_to_group\"]".into();
    let service = setup.ready().await;
    let post = async |headers: &[(&str, &str)], body: &str| {
        let token = ("X-Gitlab-Token", support::SECRET);
        let headers: Vec<_> = headers.iter().copied().chain([token]).collect();
        service.post(&headers, body.to_owned()).await
    };
    let member = r#"{"created_at":"2020-12-11T04:57:22Z","group_name":"webhook-test","group_id":100,"user_username":"test_user","event_name":"user_add_to_group"}"#;
    let answer = post(&[("Idempotency-Key", "k1"), ("X-Gitlab-Event", "Member Hook")], member).await;
    answer.is(200, "published", None);
    assert_eq!(answer.body["topic"], service.topic("user_add_to_group"));
    // Before GitLab 17.4 there is no key, and a custom payload template can have any members.
    post(&[("X-Gitlab-Event", "Push Hook")], r#"{"mine":1}"#).await.is(200, "published", None);
    post(&[("Idempotency-Key", "k3")], r#"{"mine":2}"#).await.is(200, "published", None);

    let [members, unmapped] =
        ["user_add_to_group", "unmapped"].map(|topic| kafka::java(&[&service.topic(topic)]));
    assert_eq!(members[0]["value"]["type"], "user_add_to_group");
    assert_eq!(members[0]["value"]["data"], member);
    let mut types: Vec<_> = unmapped.iter().map(|record| record["value"]["type"].as_str().unwrap()).collect();
    types.sort_unstable();
    assert_eq!(types, ["Push Hook", "unmapped"]);
    assert!(kafka::all(&service.dead_letters()).await.is_empty());
}

/// GitLab sends both headers of a webhook with both tokens, so that receivers can change from one to the other.
#[tokio::test]
async fn w2_gitlab_s_tokens_are_verified_side_by_side_and_no_dead_letter_stores_them() {
    let key = "0123456789abcdef0123456789abcdef";
    let mut setup = Setup::new("gitlab");
    setup.secrets = "[{ env = \"TEST_SECRET\" }, { env = \"SIGNING_TOKEN\" }]".into();
    let signing_token = format!("whsec_{}", BASE64_STANDARD.encode(key));
    setup.environment.insert("SIGNING_TOKEN".into(), signing_token.clone());
    let service = setup.ready().await;
    let time = Timestamp::now().as_second().to_string();
    let signed = |time: &str, body: &str| {
        let digest = support::hmac_with(key, format!("k1.{time}.{body}").as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(hex::decode(digest).unwrap()))
    };
    let (body, id) = (r#"{"object_kind":"push"}"#, ("webhook-id", "k1"));
    let signature = signed(&time, body);
    let signature = [id, ("webhook-timestamp", &time), ("webhook-signature", &signature)];
    let token = ("X-Gitlab-Token", support::SECRET);
    for headers in [&signature[..], &[id, token], &[&signature[..], &[token]].concat()] {
        service.post(headers, body).await.is(200, "published", None);
    }
    service.post(&signature, "{}").await.is(401, "refused", Some("unauthorized"));
    service.post(&signature[..2], body).await.is(401, "refused", Some("unauthorized"));
    service.post(&[id, ("X-Gitlab-Token", &signing_token)], body).await.is(
        401,
        "refused",
        Some("unauthorized"),
    );
    let broken = signed(&time, "no json");
    let headers = [id, ("webhook-timestamp", &time), ("webhook-signature", &broken), token];
    service.post(&headers, "no json").await.is(200, "dead_lettered", Some("json_invalid"));

    let keys: Vec<_> =
        kafka::java(&[&service.topic("unmapped")]).iter().map(|record| record["key"].clone()).collect();
    assert!(keys.len() == 3 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    let letter = kafka::java(&[&service.dead_letters()]).remove(0);
    assert_eq!(letter["headers"]["webhook-signature"], *broken);
    assert!(!letter.to_string().contains(support::SECRET), "{letter}");
}

/// Headers from shopify.dev: of webhooks without an event id, and of Events.
#[tokio::test]
async fn w3_both_families_of_shopify_deliveries_are_published() {
    let service = Setup::new("shopify").ready().await;
    for (prefix, topic, id) in [("X-Shopify-", "orders/create", "w1"), ("Shopify-", "Product", "w2")] {
        let body = format!(r#"{{"id":"{id}"}}"#);
        let digest = BASE64_STANDARD.encode(hex::decode(hmac(body.as_bytes())).unwrap());
        let header = |name: &str| format!("{prefix}{name}");
        let headers = [
            (header("Hmac-SHA256"), digest),
            (header("Topic"), topic.to_owned()),
            (header("Webhook-Id"), id.to_owned()),
            (header("Triggered-At"), String::from("2026-04-10T19:00:00.123456789Z")),
        ];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let answer = service.post(&headers, body).await;
        answer.is(200, "published", None);
        assert_eq!(answer.body["id"], id);
    }
    let records = kafka::java(&[&service.topic("unmapped")]);
    let mut types: Vec<_> = records.iter().map(|record| record["value"]["type"].as_str().unwrap()).collect();
    types.sort_unstable();
    assert_eq!(types, ["Product", "orders/create"]);
    assert!(records.iter().all(|record| record["value"]["time"] == 1_775_847_600_123_i64), "{records:?}");
}
