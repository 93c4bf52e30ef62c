//! Reports from other projects, tried on this program: `docs/bug-reports.md` has the thread of each. A test's name is the
//! report's.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::cli::{hookstream, run};
use crate::support::{hmac_with, on_embedded, raw};

const SECRET: &str = "wh_of-the-bug-reports-0123";

/// A source without a preset, which signs as `signature` says.
fn source(name: &str, signature: &str) -> String {
    format!(
        "[source.{name}]\nsecrets = [{{ name = \"own\", env = \"TEST_SECRET\" }}]\nunmapped = \"generic\"\n\
         signature = {{ header = \"X-Signature\", {signature} }}\n\
         envelope = {{ id = \"/id\", type = \"/type\", data = \"/data\" }}\n"
    )
}

fn preset(name: &str) -> String {
    format!("[source.{name}]\npreset = \"{name}\"\nsecrets = [{{ name = \"own\", env = \"TEST_SECRET\" }}]\n")
}

/// The exit code and the output of a command with this configuration.
fn command(directory: &Path, toml: &str, secret: &str, arguments: &[&str]) -> (i32, String) {
    std::fs::write(directory.join("own.toml"), toml).unwrap();
    let mut command = hookstream(directory);
    let (code, stdout, stderr) =
        run(command.args(["-c", "own.toml"]).args(arguments).env("TEST_SECRET", secret));
    (code, stdout + &stderr)
}

/// What `explain` says of a delivery.
fn explained(toml: &str, headers: &[(&str, &str)], body: &[u8], more: &[&str]) -> (i32, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("body"), body).unwrap();
    let name = toml.split(['.', ']']).nth(1).unwrap();
    let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let mut arguments = vec!["explain", name, "--body", "body"];
    arguments.extend(headers.iter().flat_map(|header| ["--header", header]));
    arguments.extend(more);
    command(directory.path(), toml, SECRET, &arguments)
}

fn assert_says((code, text): &(i32, String), expected: i32, says: &str) {
    assert!(*code == expected && text.contains(says), "{expected} {says}: {code}\n{text}");
}

fn mac(text: &[u8]) -> String {
    hmac_with(SECRET, text)
}

const BODY: &str = r#"{"id":"evt_1","type":"order.created","data":{"a":1}}"#;

#[test]
fn adnanh_webhook_355_signatures_of_two_secrets_in_one_header() {
    let toml = source("coral", "signature_key = \"sha256\", signed = \"{body}\"");
    let (right, other) = (mac(BODY.as_bytes()), hmac_with("wh_the-new-secret-0123", BODY.as_bytes()));
    for value in [format!("sha256={other},sha256={right}"), format!("sha256={right},sha256={other}")] {
        assert_says(
            &explained(&toml, &[("X-Signature", &value)], BODY.as_bytes(), &[]),
            0,
            "becomes         published",
        );
    }
}

#[test]
fn hookdeck_outpost_128_signatures_of_two_secrets_behind_one_key() {
    let toml =
        source("outpost", "signature_key = \"v0\", timestamp_key = \"t\", signed = \"{timestamp}.{body}\"");
    let (right, other) = (mac(format!("17.{BODY}").as_bytes()), mac(b"other"));
    for value in [format!("t=17,v0={other},{right}"), format!("t=17,v0={right},{other}")] {
        assert_says(
            &explained(&toml, &[("X-Signature", &value)], BODY.as_bytes(), &[]),
            0,
            "becomes         published",
        );
    }
    let wrong = format!("t=17,v0={other},{other}");
    assert_says(&explained(&toml, &[("X-Signature", &wrong)], BODY.as_bytes(), &[]), 1, "cause not found");
}

#[test]
fn jackmusick_bifrost_726_a_space_behind_the_prefix_and_base64_instead_of_hex() {
    let toml = source("halo", "prefix = \"sha256=\", signed = \"{body}\"");
    let right = mac(BODY.as_bytes());
    let spaced = format!("sha256= {right}");
    assert_says(
        &explained(&toml, &[("X-Signature", &spaced)], BODY.as_bytes(), &[]),
        0,
        "becomes         published",
    );
    let base64 = format!("sha256={}", BASE64_STANDARD.encode(hex::decode(right).unwrap()));
    let found = explained(&toml, &[("X-Signature", &base64)], BODY.as_bytes(), &[]);
    assert_says(&found, 1, "that of secret own, but it is written in base64, the rules expect hex");
}

#[test]
fn ubicloud_6099_a_header_that_names_another_algorithm() {
    let toml = source("hub", "prefix = \"sha256=\", signed = \"{body}\"");
    for value in ["md4=abc", "abc", "=", "sha256", ""] {
        let found = explained(&toml, &[("X-Signature", value)], BODY.as_bytes(), &[]);
        assert_says(&found, 1, "verdict    401  signature_malformed: the prefix is missing");
    }
}

#[test]
fn octokit_webhooks_js_1155_a_body_with_emoji() {
    let body = r#"{"text":"Grüße 😊 ✋"}"#;
    let headers = [
        ("X-Hub-Signature-256", &*format!("sha256={}", mac(body.as_bytes()))),
        ("X-GitHub-Event", "push"),
        ("X-GitHub-Delivery", "d"),
    ];
    assert_says(
        &explained(&preset("github"), &headers, body.as_bytes(), &[]),
        0,
        "becomes         published",
    );
    // What a function makes of it that reads the bytes as Windows-1252, and writes them as UTF-8.
    let mangled = body.replace('ü', "Ã¼").replace('ß', "ÃŸ").replace('😊', "ðŸ˜Š").replace('✋', "âœ‹");
    let found = explained(&preset("github"), &headers, mangled.as_bytes(), &[]);
    assert_says(&found, 1, "secret own signed this body as it was before its UTF-8 was read as Windows-1252");
}

#[test]
fn jonpulice_node_shopify_auth_2_escapes_that_a_parser_removed() {
    let signed = r#"{"id":1,"tag":"\u2028\u2028724812-22"}"#;
    let digest = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(signed).finalize();
    let headers = [
        ("X-Shopify-Hmac-Sha256", &*BASE64_STANDARD.encode(digest.into_bytes())),
        ("X-Shopify-Topic", "orders/create"),
    ];
    let parsed = signed.replace("\\u2028", "\u{2028}");
    let found = explained(&preset("shopify"), &headers, parsed.as_bytes(), &[]);
    assert_says(&found, 1, "secret own signed this body as JSON without spaces, all but ASCII escaped");
}

#[test]
fn octokit_webhooks_js_158_a_form_instead_of_json() {
    let body = "payload=%7B%22action%22%3A%22opened%22%7D";
    let headers = [
        ("X-Hub-Signature-256", &*format!("sha256={}", mac(body.as_bytes()))),
        ("X-GitHub-Event", "issues"),
        ("X-GitHub-Delivery", "d"),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    assert_says(
        &explained(&preset("github"), &headers, body.as_bytes(), &[]),
        0,
        "becomes         published",
    );
}

#[test]
fn stripe_php_657_a_signed_time_in_the_future() {
    let value = format!("t=1775847600,v1={}", mac(format!("1775847600.{BODY}").as_bytes()));
    let at = |at: &str| {
        explained(&preset("stripe"), &[("Stripe-Signature", &value)], BODY.as_bytes(), &["--at", at])
    };
    assert_says(&at("2026-04-10T18:56:00Z"), 0, "becomes         published");
    assert_says(&at("2026-04-10T18:54:00Z"), 1, "it was made 360 s (6 min) after the delivery came");
    assert_says(&at("2026-04-10T19:06:00Z"), 1, "it was made 360 s (6 min) before the delivery came");
}

#[test]
fn argilla_5521_the_event_s_time_instead_of_the_delivery_s() {
    let secret = format!("whsec_{}", BASE64_STANDARD.encode(SECRET));
    let digest = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    let digest = digest.chain_update(format!("msg_1.1775840000.{BODY}")).finalize();
    let signature = format!("webhook-signature: v1,{}", BASE64_STANDARD.encode(digest.into_bytes()));
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("body"), BODY).unwrap();
    let arguments = [
        "explain",
        "standard-webhooks",
        "--body",
        "body",
        "--at",
        "2026-04-10T19:00:00Z",
        "--header",
        "webhook-id: msg_1",
        "--header",
        "webhook-timestamp: 1775840000",
        "--header",
        &signature,
    ];
    let (code, text) = command(directory.path(), &preset("standard-webhooks"), &secret, &arguments);
    assert!(code == 1 && text.contains("verdict    401  stale_rejected: 7600 s old"), "{text}");
    assert!(
        text.contains("cause           the signature is right, but it was made 7600 s (2 h) before"),
        "{text}"
    );
}

#[test]
fn n8n_26925_a_number_that_no_double_holds() {
    let toml = source("shop", "signed = \"{body}\"");
    let body = r#"{"id":7615917337495251231,"type":"order.created","data":{"p_id":7615917337495251231}}"#;
    let found = explained(&toml, &[("X-Signature", &mac(body.as_bytes()))], body.as_bytes(), &[]);
    assert_says(&found, 0, "key 7615917337495251231");
}

#[test]
fn goldsky_streamling_64_hyphens_in_names_that_avro_does_not_allow() {
    let toml = source("my-shop", "signed = \"{body}\"") + "types = [\"order-created.v2\"]\n";
    let body = BODY.replace("order.created", "order-created.v2");
    let found = explained(&toml, &[("X-Signature", &mac(body.as_bytes()))], body.as_bytes(), &[]);
    assert_says(&found, 0, "becomes         published, topic my-shop.order-created.v2");
}

#[test]
fn redpanda_connect_2190_a_slash_in_the_name_of_a_type() {
    let digest = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(BODY).finalize();
    let headers = [
        ("X-Shopify-Hmac-Sha256", &*BASE64_STANDARD.encode(digest.into_bytes())),
        ("X-Shopify-Topic", "orders/create"),
        ("X-Shopify-Event-Id", "e1"),
    ];
    let found = explained(&preset("shopify"), &headers, BODY.as_bytes(), &[]);
    assert_says(&found, 0, "becomes         published, topic shopify.unmapped, key orders/create:e1");
}

#[test]
fn librdkafka_977_a_type_that_is_no_name_of_a_topic() {
    let toml = source("shop", "signed = \"{body}\"");
    let long = "x".repeat(300);
    for event_type in ["abc!@#$", "a/b", "..", "", &long] {
        let body = json!({"id": "evt_1", "type": event_type, "data": {}}).to_string();
        let found = explained(&toml, &[("X-Signature", &mac(body.as_bytes()))], body.as_bytes(), &[]);
        assert_says(&found, 0, "becomes         published, topic shop.unmapped");
    }
    let directory = tempfile::tempdir().unwrap();
    let types =
        |types: &str| command(directory.path(), &format!("{toml}types = [{types}]\n"), SECRET, &["check"]);
    assert_says(&types("\"abc!@#$\""), 0, "abc!@#$     -> shop.abc----");
    assert_eq!(types("\"abc!\", \"abc?\"").0, 1, "two types of one topic");
}

#[test]
fn cloudevents_sdk_csharp_224_an_empty_body_is_no_tombstone() {
    let toml = source("shop", "signed = \"{body}\"");
    for body in ["", "null", "\"\""] {
        let found = explained(&toml, &[("X-Signature", &mac(body.as_bytes()))], body.as_bytes(), &[]);
        assert_says(&found, 0, "becomes         dead_lettered");
    }
}

#[test]
fn autumn_2093_an_empty_secret_verifies_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for secret in ["", " ", "\n"] {
        let (code, text) = command(directory.path(), &preset("github"), secret, &["check"]);
        assert!(code == 1 && text.contains("is set but empty"), "{text}");
    }
}

/// The findings of `check` about this schema, with these earlier versions.
fn checked(versions: &[Value], fields: Value) -> (i32, String) {
    let directory = tempfile::tempdir().unwrap();
    let schema = |fields: &Value| {
        let generic = include_str!("../../schemas/datagrid/batch_prediction.avsc");
        let mut schema: Value = serde_json::from_str(generic).unwrap();
        let data = schema["fields"].as_array_mut().unwrap().iter_mut().find(|field| field["name"] == "data");
        data.unwrap()["type"] =
            json!({"type": "record", "name": "Data", "namespace": "shop", "fields": fields});
        schema.to_string()
    };
    let path = directory.path().join("schemas/shop/versions/order.created");
    std::fs::create_dir_all(&path).unwrap();
    for (number, fields) in versions.iter().enumerate() {
        std::fs::write(path.join(format!("{}.avsc", number + 1)), schema(fields)).unwrap();
    }
    std::fs::write(directory.path().join("schemas/shop/order.created.avsc"), schema(&fields)).unwrap();
    let toml = source("shop", "signed = \"{body}\"") + "types = [\"order.created\"]\n";
    command(directory.path(), &toml, SECRET, &["check"])
}

#[test]
fn karapace_98_a_required_field_in_a_record_within_a_union() {
    let of = |fields: Value| {
        json!([{"name": "some", "type": ["null", {"type": "record", "name": "Inner", "namespace": "shop", "fields": fields}],
                "default": null}])
    };
    let name = || json!({"name": "name", "type": "string"});
    let before = of(json!([name()]));
    let required = of(json!([name(), {"name": "price", "type": "int"}]));
    assert_says(
        &checked(std::slice::from_ref(&before), required),
        1,
        "field data.some.price: the new schema cannot read the old",
    );
    let optional = of(json!([name(), {"name": "price", "type": ["null", "int"], "default": null}]));
    assert_eq!(checked(&[before], optional).0, 0);
}

#[test]
fn schema_registry_209_each_step_is_compatible_and_the_whole_way_is_not() {
    let (without, with_default) = (json!([]), json!([{"name": "a", "type": "string", "default": "x"}]));
    let required = json!([{"name": "a", "type": "string"}]);
    assert_eq!(checked(std::slice::from_ref(&with_default), required.clone()).0, 0);
    let found = checked(&[without, with_default], required);
    assert_says(&found, 1, "not compatible with schemas/shop/versions/order.created/1.avsc");
}

#[tokio::test]
async fn warp_383_a_body_that_is_too_large_is_refused_before_100_continue() {
    let (service, _kafka) = on_embedded("").await;
    let head = |length: &str| {
        format!(
            "POST /hooks/{} HTTP/1.1\r\nhost: t\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n",
            service.source
        )
    };
    let answer = raw::exchange(service.hooks(), head("99999999").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let answer = raw::exchange(service.hooks(), (head("2") + "{}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 100 ") && answer.contains("HTTP/1.1 401 "), "{answer}");
}

#[tokio::test]
async fn adnanh_webhook_83_the_answer_to_a_wrong_signature_does_not_have_the_right_one() {
    let (service, _kafka) = on_embedded("").await;
    let signature = format!("t=1775847600,v1={}", "0".repeat(64));
    let answer = service.post(&[("Datagrid-Signature", &signature)], BODY).await;
    assert_eq!((answer.status, answer.body), (401, json!({"outcome": "refused", "reason": "unauthorized"})));
}

/// A proxy that strips the path or doubles its slash: the log says so, and nothing is redirected.
#[tokio::test]
async fn adnanh_webhook_204_lets_proxy2_177_a_path_that_a_proxy_changed() {
    let (service, _kafka) = on_embedded("").await;
    let name = &service.source;
    for path in [format!("/{name}"), format!("//hooks/{name}"), format!("/hooks/{name}/")] {
        let url = format!("http://{}{path}", service.hooks());
        let answer = service.client.post(url).body("{}").send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        let line = service.lines().pop().unwrap();
        assert!(
            line.contains(&format!("the path is {path}; the source {name} is at /hooks/{name}")),
            "{line}"
        );
    }
}
