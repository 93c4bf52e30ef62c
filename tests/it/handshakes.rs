//! Requests by which providers check the endpoint, with their presets, over HTTP. The requests and answers are those of the
//! providers' pages, which the presets name.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::{Service, Setup, hmac};

/// A preset with the settings that it needs from its user, and a request without a signature.
struct Challenge {
    preset: &'static str,
    rules: &'static str,
    method: Method,
    query: &'static str,
    header: Option<(&'static str, &'static str)>,
}

impl Challenge {
    fn new(preset: &'static str, method: Method, query: &'static str) -> Self {
        Self { preset, rules: "", method, query, header: None }
    }

    async fn send(&self, service: &Service) -> (u16, reqwest::header::HeaderMap, String) {
        let mut request = service.client.request(self.method.clone(), service.url() + self.query);
        if let Some((name, value)) = self.header {
            request = request.header(name, value).body("{}");
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, headers, response.text().await.unwrap())
    }
}

/// The HMAC in base64.
fn hmac_base64(text: &str) -> String {
    BASE64_STANDARD.encode(hex::decode(hmac(text.as_bytes())).unwrap())
}

#[tokio::test]
async fn challenges_are_answered_as_each_provider_wants_it() {
    let uuid = "890e4665-4dfe-4ab1-b689-ed553bceeed0";
    let linkedin = json!({ "challengeCode": uuid, "challengeResponse": hmac(uuid.as_bytes()) });
    let okta = json!({ "verification": "Me_rShK8JHsTnbyYrWXCEoMGbM_zsZ6k0hLPZ_Pg" });
    let twitter = json!({ "response_token": format!("sha256={}", hmac_base64("MDkwNzRkOTM")) });
    let rows = [
        (
            Challenge::new("facebook", Method::GET, "?hub.mode=subscribe&hub.challenge=1158201444"),
            json!(1_158_201_444),
        ),
        (
            Challenge::new("linkedin", Method::GET, "?challengeCode=890e4665-4dfe-4ab1-b689-ed553bceeed0"),
            linkedin,
        ),
        (Challenge::new("twitter", Method::GET, "?crc_token=MDkwNzRkOTM&nonce=1"), twitter),
        (
            Challenge {
                header: Some(("X-Okta-Verification-Challenge", "Me_rShK8JHsTnbyYrWXCEoMGbM_zsZ6k0hLPZ_Pg")),
                ..Challenge::new("okta", Method::GET, "")
            },
            okta,
        ),
        (Challenge::new("intercom", Method::HEAD, ""), Value::Null),
        (
            Challenge {
                rules: "signature.url = \"https://example.com/\"",
                ..Challenge::new("trello", Method::HEAD, "")
            },
            Value::Null,
        ),
    ];
    for (challenge, expected) in rows {
        let mut setup = Setup::new(challenge.preset);
        setup.rules = challenge.rules.into();
        let service = setup.start().await;
        let (status, headers, text) = challenge.send(&service).await;
        assert_eq!(status, 200, "{}: {text}", challenge.preset);
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
        assert_eq!(body, expected, "{}", challenge.preset);
        if expected.is_object() {
            assert_eq!(headers["content-type"], "application/json", "{}", challenge.preset);
        }
        let handled = format!(
            "hookstream_deliveries_total{{source=\"{}\",outcome=\"handled\",reason=\"handshake\"}}",
            service.source
        );
        assert_eq!(service.metric(&handled).await, Some(1.0), "{}", challenge.preset);
    }
}

/// Asana sends the later secret in a header, and wants it back in one.
#[tokio::test]
async fn the_header_of_asana_s_handshake_is_sent_back() {
    let service = Setup::new("asana").start().await;
    let secret = "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81";
    let answer = service.post(&[("X-Hook-Secret", secret)], "{}").await;
    answer.is(200, "handled", Some("handshake"));
    assert_eq!(answer.headers["x-hook-secret"], secret);
    assert!(service.lines().iter().all(|line| !line.contains(secret)));
    for headers in [vec![], vec![("X-Hook-Secret", secret), ("X-Hook-Secret", secret)]] {
        service.post(&headers, "{}").await.is(401, "refused", Some("unauthorized"));
    }
}

/// A delivery with a signature is never a challenge, whatever else it has: it would be answered 200 and be in no topic.
#[tokio::test]
async fn a_signed_delivery_is_no_challenge() {
    let service = Setup::new("asana").ready().await;
    let body = r#"{"events":[{"action":"changed","created_at":"2026-01-02T03:04:05Z"}]}"#;
    let signature = hmac(body.as_bytes());
    let challenge = ("X-Hook-Secret", "b537207f20cbfa02357cf448134da559");
    let answer = service.post(&[("X-Hook-Signature", &signature), challenge], body).await;
    answer.is(200, "published", None);
    let answer = service.post(&[("X-Hook-Signature", "00"), challenge], body).await;
    answer.is(401, "refused", Some("unauthorized"));
    assert!(!answer.headers.contains_key("x-hook-secret"));
}

/// Zoom signs its handshake like any delivery. The answer of Zoom's own library is in the preset's file.
#[tokio::test]
async fn the_url_validation_of_zoom_is_answered_with_the_hmac_of_its_token() {
    let service = Setup::new("zoom").start().await;
    let body = r#"{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event_ts":1654503849680,"event":"endpoint.url_validation"}"#;
    let time = Timestamp::now().as_second().to_string();
    let signature = format!("v0={}", hmac(format!("v0:{time}:{body}").as_bytes()));
    let headers = [("x-zm-signature", signature.as_str()), ("x-zm-request-timestamp", &time)];
    let request = service.client.post(service.url()).body(body);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    let token = "qgg8vlvZRS6UYooatFL8Aw";
    let expected = json!({ "plainToken": token, "encryptedToken": hmac(token.as_bytes()) });
    assert_eq!(response.json::<Value>().await.unwrap(), expected);
    service.post(&[], body).await.is(401, "refused", Some("unauthorized"));
}

/// The HMAC of a challenge is made for anybody, so it must not be the signature of a delivery.
#[tokio::test]
async fn a_challenge_is_no_way_to_have_a_delivery_signed() {
    let service = Setup::new("linkedin").start().await;
    for wanted in ["%7B%22type%22%3A%22LEAD_ACTION%22%7D", "hmacsha256%3D%7B%7D", "[]", "%22a%22"] {
        let response =
            service.client.get(format!("{}?challengeCode={wanted}", service.url())).send().await.unwrap();
        assert_eq!(response.status(), 405, "{wanted}");
    }
    // What is signed for anybody is refused as a body.
    let token = "890e4665";
    let response = service
        .client
        .get(format!("{}?challengeCode=hmacsha256={token}", service.url()))
        .send()
        .await
        .unwrap();
    let answer: Value = response.json().await.unwrap();
    let signature = answer["challengeResponse"].as_str().unwrap().to_owned();
    assert_eq!(signature, hmac(format!("hmacsha256={token}").as_bytes()));
    service.post(&[("X-LI-Signature", &signature)], token).await.is(401, "refused", Some("unauthorized"));
}
