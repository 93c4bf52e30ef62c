//! Compressed bodies, from HTTP to the topic.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::json;

use crate::cli::{hookstream, run};
use crate::support::{Answer, SECRET, Service, Setup, hmac, kafka};

const RULES: &str = "types = []\nunmapped = \"generic\"\nenvelope.id = \"/id\"\nenvelope.type = \"/event\"\nenvelope.data = \"\"";

fn setup(rules: &str) -> Setup {
    Setup { rules: format!("{RULES}\n{rules}"), ..Setup::new("grapevine") }
}

fn encoded(coding: &str, text: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        other => panic!("{other}"),
    }
}

/// Posts `body` with the signature of `signed`.
async fn post(service: &Service, coding: &str, body: &[u8], signed: &[u8]) -> Answer {
    let signature = format!("sha256={}", hmac(signed));
    let headers = [("X-Grapevine-Signature", &*signature), ("Content-Encoding", coding)];
    service.post(&headers, body.to_vec()).await
}

#[tokio::test]
async fn w8_a_compressed_body_is_verified_over_what_is_signed_and_published_decoded() {
    for mode in ["signed_encoded", "signed_decoded"] {
        let service = setup(&format!("content_encoding = \"{mode}\"")).ready().await;
        let mut expected = Vec::new();
        for (coding, id) in [("gzip", "e1"), ("deflate", "e2"), ("X-GZIP", "e3"), ("identity, gzip", "e4")] {
            let text = format!(r#"{{"id": "{id}", "event": "a", "text": "{}"}}"#, "ü".repeat(20_000));
            let body = encoded(if coding == "deflate" { coding } else { "gzip" }, text.as_bytes());
            let (right, wrong) = if mode == "signed_encoded" {
                (&body[..], text.as_bytes())
            } else {
                (text.as_bytes(), &body[..])
            };
            post(&service, coding, &body, wrong).await.is(401, "refused", Some("unauthorized"));
            let answer = post(&service, coding, &body, right).await;
            answer.is(200, "published", None);
            assert_eq!(answer.body["id"], id, "{mode} {coding}");
            expected.push(text);
        }
        // A body without a coding, from the same source.
        let plain = r#"{"id":"e5","event":"a"}"#;
        service
            .post(&[("X-Grapevine-Signature", &format!("sha256={}", hmac(plain.as_bytes())))], plain)
            .await
            .is(200, "published", None);
        expected.push(plain.to_owned());
        let records = kafka::java(&[&service.topic("unmapped")]);
        assert_eq!(records.len(), expected.len());
        for text in &expected {
            assert!(records.iter().any(|record| record["value"]["data"] == *text), "{mode}: {:.40}", text);
        }
    }
}

#[tokio::test]
async fn w8_a_bound_secret_and_a_digest_read_the_decoded_body() {
    for mode in ["signed_encoded", "signed_decoded"] {
        let secrets = r#"[{ env = "TEST_SECRET", binds = { pointer = "/tenant", equals = "acme" } }]"#;
        let rules = format!("content_encoding = \"{mode}\"\nenvelope.id = \"digest\"");
        let service = Setup {
            secrets: secrets.into(),
            rules: format!("{}\n{rules}", RULES.replace("envelope.id = \"/id\"\n", "")),
            ..Setup::new("grapevine")
        };
        let service = service.ready().await;
        let sent = async |text: &str, coding: &str| {
            let body = encoded(coding, text.as_bytes());
            let signed = if mode == "signed_encoded" { &body[..] } else { text.as_bytes() };
            post(&service, coding, &body, signed).await
        };
        let text = r#"{"tenant":"acme","event":"a"}"#;
        let (one, other) = (sent(text, "gzip").await, sent(text, "deflate").await);
        one.is(200, "published", None);
        other.is(200, "published", None);
        assert_eq!(one.body["id"], other.body["id"], "however a retry is compressed");
        let of_another = text.replace("acme", "globex");
        sent(&of_another, "gzip").await.is(401, "refused", Some("unauthorized"));
    }
}

#[tokio::test]
async fn w8_a_bomb_is_answered_413_whoever_sends_it_and_stores_nothing() {
    for mode in ["signed_encoded", "signed_decoded"] {
        let mut setup = setup(&format!("content_encoding = \"{mode}\""));
        setup.http = "max_body = \"64 KiB\"".into();
        let service = setup.ready().await;
        let text = format!(r#"{{"id":"e1","event":"a","text":"{}"}}"#, " ".repeat(2 << 20));
        for coding in ["gzip", "deflate"] {
            let bomb = encoded(coding, text.as_bytes());
            assert!(bomb.len() < 32 * 1024, "{} bytes", bomb.len());
            let signed = if mode == "signed_encoded" { &bomb[..] } else { text.as_bytes() };
            let answer = post(&service, coding, &bomb, signed).await;
            answer.is(413, "refused", Some("body_too_large"));
            // Nobody has signed this one.
            let answer = post(&service, coding, &bomb, b"something else").await;
            match mode {
                "signed_encoded" => answer.is(401, "refused", Some("unauthorized")),
                _ => answer.is(413, "refused", Some("body_too_large")),
            }
        }
        assert!(kafka::all(&service.dead_letters()).await.is_empty());
        assert!(kafka::all(&service.topic("unmapped")).await.is_empty());
    }
}

#[tokio::test]
async fn w8_decoding_for_a_stranger_is_charged_and_small_authentic_bodies_still_get_in() {
    let mut setup = setup("content_encoding = \"signed_decoded\"\nack_deadline = \"30s\"");
    setup.http = "unverified_work_per_address = \"1 MiB\"\nmax_body = \"4 MiB\"".into();
    let service = setup.ready().await;
    let text = format!(r#"{{"id":"e1","event":"a","text":"{}"}}"#, " ".repeat(3900 * 1024));
    let large = encoded("gzip", text.as_bytes());
    // The burst is 5 MiB; decoding this counts as hashing 30 MiB, which takes 25 s to pay off.
    post(&service, "gzip", &large, b"forged").await.is(401, "refused", Some("unauthorized"));
    post(&service, "gzip", &large, text.as_bytes()).await.is(503, "unavailable", Some("address_limited"));
    let small = r#"{"id":"e2","event":"a"}"#;
    let body = encoded("gzip", small.as_bytes());
    post(&service, "gzip", &body, small.as_bytes()).await.is(200, "published", None);
}

#[tokio::test]
async fn w8_a_body_that_cannot_be_decoded_is_kept_if_it_is_verified() {
    let text = r#"{"id":"e1","event":"a","text":"a body that is cut"}"#;
    for mode in ["signed_encoded", "signed_decoded"] {
        let service = setup(&format!("content_encoding = \"{mode}\"")).ready().await;
        for coding in ["gzip", "deflate"] {
            let whole = encoded(coding, text.as_bytes());
            let cut = &whole[..whole.len() - 3];
            if mode == "signed_encoded" {
                post(&service, coding, cut, cut).await.is(200, "dead_lettered", Some("json_invalid"));
            } else {
                let answer = post(&service, coding, cut, text.as_bytes()).await;
                answer.is(400, "refused", Some("body_incomplete"));
            }
        }
        let letters = kafka::all(&service.dead_letters()).await;
        assert_eq!(letters.len(), if mode == "signed_encoded" { 2 } else { 0 }, "{mode}");
    }
}

#[tokio::test]
async fn w8_other_codings_are_answered_415_and_without_the_setting_a_body_is_taken_as_sent() {
    let text = r#"{"id":"e1","event":"a"}"#;
    let gzip = encoded("gzip", text.as_bytes());
    let unsupported = Some("encoding_unsupported");
    for mode in ["signed_encoded", "signed_decoded"] {
        let service = setup(&format!("content_encoding = \"{mode}\"")).ready().await;
        for coding in ["br", "zstd", "gzip, gzip", "deflate, gzip", "utf-8"] {
            post(&service, coding, &gzip, &gzip).await.is(415, "refused", unsupported);
        }
    }
    let service = setup("").ready().await;
    for coding in ["identity", "UTF-8", "br"] {
        post(&service, coding, text.as_bytes(), text.as_bytes()).await.is(200, "published", None);
    }
    post(&service, "gzip", &gzip, &gzip).await.is(200, "dead_lettered", Some("json_invalid"));
    let letters = kafka::java(&[&service.dead_letters()]);
    let detail = &letters[0]["headers"]["hookstream-detail"];
    assert!(detail.as_str().unwrap().contains("set content_encoding"), "{detail}");
}

#[test]
fn w8_explain_decodes_a_body_as_serve_does() {
    let directory = tempfile::tempdir().unwrap();
    let text = br#"{"id":"e1","event":"a"}"#;
    let body = encoded("gzip", text);
    std::fs::write(directory.path().join("body"), &body).unwrap();
    let explained = |mode: &str, signed: &[u8]| {
        let toml = format!(
            "[source.s]\npreset = \"grapevine\"\nsecrets = {{ env = \"TEST_SECRET\" }}\n{RULES}\ncontent_encoding = \"{mode}\"\n"
        );
        std::fs::write(directory.path().join("own.toml"), toml).unwrap();
        let signature = format!("X-Grapevine-Signature: sha256={}", hmac(signed));
        let mut command = hookstream(directory.path());
        command
            .args(["explain", "s", "-c", "own.toml", "--json", "--body", "body"])
            .env("TEST_SECRET", SECRET);
        command.args(["--header", &signature, "--header", "Content-Encoding: gzip"]);
        let (code, stdout, stderr) = run(&mut command);
        let report = serde_json::from_str::<serde_json::Value>(&stdout);
        (code, report.unwrap_or_else(|_| panic!("{stdout}{stderr}")))
    };
    for (mode, signed) in [("signed_encoded", &body[..]), ("signed_decoded", &text[..])] {
        let (code, report) = explained(mode, signed);
        assert_eq!((code, &report["becomes"]["outcome"]), (0, &json!("published")), "{mode}: {report}");
        assert_eq!((&report["becomes"]["key"], &report["notes"]), (&json!("e1"), &json!([])), "{mode}");
    }
    let (_, report) = explained("as_sent", text);
    assert_eq!(report["cause"]["kind"], "content_encoding", "{report}");
}
