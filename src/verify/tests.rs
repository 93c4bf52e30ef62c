//! The verifier against deliveries that another program signed, and against every bit flipped.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner};
use serde::Deserialize;

use super::*;
use crate::delivery::DeliveryId;
use crate::outcome::Reason;

mod binding;
mod causes;
mod inverse;
mod rules;
mod search;

const DATAGRID: &str = include_str!("../../config/providers/datagrid.toml");
const GRAPEVINE: &str = include_str!("../../config/providers/grapevine.toml");
pub(super) const SECRET: &str = "wh_abcdefghijklmnopqrst";

#[derive(Deserialize)]
struct Preset {
    signature: config::Signature,
}

fn rules(preset: &str) -> config::Signature {
    let preset: Preset = toml::Deserializer::parse(preset).and_then(Preset::deserialize).unwrap();
    preset.signature
}

pub(super) fn verifier(preset: &str, secrets: &[&str]) -> Verifier {
    verifier_of(&rules(preset), secrets)
}

fn verifier_of(rules: &config::Signature, secrets: &[&str]) -> Verifier {
    verifier_of_schemes(std::slice::from_ref(rules), secrets)
}

fn verifier_of_schemes(rules: &[config::Signature], secrets: &[&str]) -> Verifier {
    let secret =
        |(n, value): (usize, &&str)| Secret::new(format!("secret-{n}"), value).decoded(rules).unwrap();
    let secrets: Vec<Secret> = secrets.iter().enumerate().map(secret).collect();
    let mut problems = ConfigErrors::default();
    let verifier = Verifier::compile(rules, &secrets, "signature", &mut problems);
    verifier.unwrap_or_else(|| panic!("{problems}"))
}

/// The schemes of a preset, one or several.
fn schemes(preset: &str) -> Vec<config::Signature> {
    let preset: toml::Table = preset.parse().unwrap();
    let signature = preset["signature"].clone();
    let schemes = if let toml::Value::Array(schemes) = signature { schemes } else { vec![signature] };
    schemes.into_iter().map(|scheme| scheme.try_into().unwrap()).collect()
}

pub(super) fn reason(verifier: &Verifier, headers: &[(&str, &str)], body: &str) -> Option<Reason> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    verifier.verify(&delivery(&headers, body.as_bytes())).err().map(|fault| fault.reason)
}

fn delivery(headers: &[(String, String)], body: &[u8]) -> Delivery {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    Delivery {
        id: DeliveryId::new(),
        uri: Uri::from_static("/hooks/test"),
        headers: map,
        body: Bytes::copy_from_slice(body),
        received_at: Timestamp::UNIX_EPOCH,
    }
}

fn signed(verifier: &Verifier, body: &[u8]) -> Delivery {
    let mut delivery = delivery(&[], body);
    let now = Timestamp::from_second(1_775_847_600).unwrap();
    verifier.sign(body, now, &mut delivery.headers).unwrap();
    delivery
}

/// Evidence for tests of what comes after: a delivery that was really signed and verified.
pub(crate) fn proof() -> &'static Verified<'static> {
    static PARTS: LazyLock<(Verifier, Delivery)> = LazyLock::new(|| {
        let verifier = verifier(DATAGRID, &[SECRET]);
        let delivery = signed(&verifier, b"{}");
        (verifier, delivery)
    });
    static PROOF: LazyLock<Verified<'static>> = LazyLock::new(|| PARTS.0.verify(&PARTS.1).unwrap());
    &PROOF
}

#[derive(Deserialize)]
struct Vector {
    provider: String,
    secret: String,
    headers: Vec<(String, String)>,
    body_base64: String,
    valid: bool,
    why: String,
}

#[test]
fn deliveries_that_python_signed_verify_and_forged_ones_do_not() {
    let vectors = include_str!("../../tests/fixtures/signatures/vectors.jsonl");
    let mut seen = 0;
    for line in vectors.lines() {
        let vector: Vector = serde_json::from_str(line).unwrap();
        let preset = if vector.provider == "datagrid" { DATAGRID } else { GRAPEVINE };
        let verifier = verifier(preset, &[&vector.secret]);
        let delivery = delivery(&vector.headers, &BASE64_STANDARD.decode(&vector.body_base64).unwrap());
        let verdict = verifier.verify(&delivery);
        assert_eq!(verdict.is_ok(), vector.valid, "{}: {} ({verdict:?})", vector.provider, vector.why);
        seen += 1;
    }
    assert!(seen > 90, "only {seen} vectors");
}

/// Published examples and what the providers' own libraries made: who made which stands in the
/// vectors. They run through the shipped presets; how other providers sign stands beside them.
#[test]
fn deliveries_of_other_providers_verify_and_forged_ones_do_not() {
    type Presets = std::collections::BTreeMap<String, Preset>;
    let others = include_str!("../../tests/fixtures/signatures/providers.toml");
    let others = toml::Deserializer::parse(others).and_then(Presets::deserialize).unwrap();
    let shipped = config::presets().map(|(name, text)| (name.to_owned(), schemes(text)));
    let mut presets: std::collections::BTreeMap<_, _> = shipped.collect();
    // Theirs are in vectors.jsonl.
    presets.retain(|name, _| !["datagrid", "grapevine"].contains(&name.as_str()));
    // A preset cannot know the URL that one of them signs.
    presets.extend(others.into_iter().map(|(name, preset)| (name, vec![preset.signature])));
    let mut seen = 0;
    for line in include_str!("../../tests/fixtures/signatures/providers.jsonl").lines() {
        let vector: Vector = serde_json::from_str(line).unwrap();
        let verifier = verifier_of_schemes(&presets[&vector.provider], &[&vector.secret]);
        let delivery = delivery(&vector.headers, &BASE64_STANDARD.decode(&vector.body_base64).unwrap());
        let verdict = verifier.verify(&delivery);
        assert_eq!(verdict.is_ok(), vector.valid, "{}: {} ({verdict:?})", vector.provider, vector.why);
        seen += 1;
    }
    assert!(seen > 120, "only {seen} vectors");
}

#[test]
fn each_refusal_has_its_reason() {
    let verifier = verifier(DATAGRID, &[SECRET]);
    let header = |value: &str| vec![(String::from("Datagrid-Signature"), value.to_owned())];
    let digest = "0".repeat(64);
    let reason =
        |headers: &[(String, String)]| verifier.verify(&delivery(headers, b"{}")).unwrap_err().reason;
    assert_eq!(reason(&[]), Reason::SignatureMissing);
    for malformed in [
        "",
        "v1=",
        "t=1",
        "t=1,v1=abc",
        &format!("v1={digest}"),
        &format!("t=x,v1={digest}"),
        &format!("t=1,t=2,v1={digest}"),
    ] {
        assert_eq!(reason(&header(malformed)), Reason::SignatureMalformed, "{malformed}");
    }
    let nine = format!("t=1{}", format!(",v1={digest}").repeat(MAX + 1));
    assert_eq!(reason(&header(&nine)), Reason::SignatureMalformed);
    let twice = [header("t=1,v1=0"), header("t=1,v1=0")].concat();
    assert_eq!(reason(&twice), Reason::SignatureMalformed);
    assert_eq!(reason(&header(&format!("t=1,v1={digest}"))), Reason::SignatureMismatch);
}

const MAX: usize = scheme::MAX_SIGNATURES;

#[test]
fn the_secret_that_matched_is_named_and_none_is_shown() {
    let second = verifier(GRAPEVINE, &["another-secret-entirely", SECRET]);
    let delivery = signed(&verifier(GRAPEVINE, &[SECRET]), br#"{"event": "x"}"#);
    let verified = second.verify(&delivery).unwrap();
    assert_eq!(verified.secret(), "secret-1");
    assert_eq!(verified.form(), BodyForm::JsonCompactAscii);
    assert_eq!(verified.signed(), br#"{"event":"x"}"#);
    for shown in [format!("{second:?}"), format!("{verified:?}")] {
        assert!(!shown.contains(SECRET) && !shown.contains("event"), "{shown}");
        assert!(!shown.contains(&format!("{:?}", b"event").replace(['[', ']'], "")), "{shown}");
    }
}

#[test]
fn each_of_several_secrets_verifies_whichever_matched_last() {
    let texts = ["the-first-secret-of-3", "the-second-secret-of-3", "the-third-secret-of-3"];
    let all = verifier(GRAPEVINE, &texts);
    let made = texts.map(|text| signed(&verifier(GRAPEVINE, &[text]), br#"{"event":"x"}"#));
    let forged = signed(&verifier(GRAPEVINE, &[SECRET]), br#"{"event":"x"}"#);
    for index in [2, 2, 0, 1, 1, 2, 0] {
        let verified = all.verify(&made[index]).unwrap();
        assert_eq!(verified.secret(), format!("secret-{index}"));
        assert_eq!(all.verify(&forged).unwrap_err().reason, Reason::SignatureMismatch);
    }
}

#[test]
fn a_seal_covers_receipt_form_header_and_body() {
    let verifier = verifier(GRAPEVINE, &[SECRET]);
    let original = signed(&verifier, br#"{"event":"x"}"#);
    let seal = |delivery: &Delivery| sealed(&verifier.verify(delivery).unwrap());
    // Made by tests/fixtures/signatures/seals.py.
    assert_eq!(seal(&original), "bbeadd6a61586f48cb2a4f296e8df58eb7f628de3801e7f3acfd94328e041b0e");
    let later = Delivery { received_at: Timestamp::from_second(1).unwrap(), ..original.clone() };
    let spaced = Delivery { body: Bytes::from_static(br#"{"event": "x"}"#), ..original.clone() };
    assert_ne!(seal(&later), seal(&original));
    assert_ne!(seal(&spaced), seal(&original));
}

fn sealed(verified: &Verified<'_>) -> String {
    verified.seal(&verified.kept(&[]))
}

#[test]
fn w4_a_dead_letter_stores_all_headers_but_credentials() {
    let rules = "signature = { kind = 'token', header = 'X-Key' }";
    let verifier = verifier(rules, &[SECRET]);
    let mut delivery = signed(&verifier, b"{}");
    let long = "x".repeat(super::seal::MAX_OTHERS);
    for (name, value) in [
        ("content-type", "application/json"),
        ("x-event", "push"),
        ("x-twice", "1"),
        ("x-long", long.as_str()),
        ("x-read-token", "read"),
        ("authorization", "Basic c2VjcmV0"),
        ("x-other-token", "secret"),
        ("cookie", "session=1"),
        ("x-functions-key", "secret"),
        ("hookstream-form", "raw"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("user-agent", "provider/1"),
    ] {
        delivery.headers.append(http::HeaderName::from_static(name), value.parse().unwrap());
    }
    delivery.headers.append("x-twice", "2".parse().unwrap());
    delivery.headers.append("x-binary", http::HeaderValue::from_bytes(b"\xff").unwrap());
    let verified = verifier.verify(&delivery).unwrap();
    let read = [http::HeaderName::from_static("x-read-token")];
    let mut kept = verified.kept(&read);
    assert_eq!(kept[0], ("x-read-token", "read"), "what the rules read comes first");
    kept.sort_unstable();
    let others = [("content-type", "application/json"), ("user-agent", "provider/1"), ("x-event", "push")];
    assert_eq!(kept, [&others[..], &[("x-read-token", "read")]].concat());
}

#[test]
fn w4_a_header_is_no_credential_only_if_its_name_does_not_look_like_one() {
    let is_credential = super::seal::looks_like_credential;
    for name in [
        "proxy-authorization",
        "x-goog-iap-jwt-assertion",
        "x-amzn-oidc-data",
        "x-functions-key",
        "ocp-apim-subscription-key",
        "x-access-key",
        "x-master-key",
        "x-hook-keys",
        "x-signingkey",
        "api_key",
        "apikey",
        "x-vercel-protection-bypass",
        "x-passphrase",
        "x_user_passwd",
        "x-bearer",
        "x-sessionid",
    ] {
        assert!(is_credential(name), "{name} is stored");
    }
    for name in [
        "idempotency-key",
        "x-idempotency-key",
        // Bitbucket's event type.
        "x-event-key",
        "x-partition-key",
        "webhook-id",
        "x-github-event",
        "x-hub-signature-256",
        "x-keyed",
        "user-agent",
    ] {
        assert!(!is_credential(name), "{name} is not stored");
    }
}

/// Made by tests/fixtures/signatures/seals.py.
#[test]
fn a_seal_covers_every_header_that_the_rules_read_and_no_token() {
    let rules = "signature = { header = 'S', signature_version = 'v1', timestamp_header = 'T', id_header = 'I', \
        encoding = 'base64', signed = '{id}.{timestamp}.{header:X-Extra}.{body}' }";
    let verifier = verifier(rules, &[SECRET]);
    let mut delivery = delivery(&[("i".into(), "msg_1".into()), ("x-extra".into(), "more".into())], b"{}");
    verifier.sign(b"{}", Timestamp::from_second(1_775_847_600).unwrap(), &mut delivery.headers).unwrap();
    assert_eq!(delivery.headers["s"], "v1,52vNoxHu2WNM3OoLagUKgeTiwi+4P1tUSIPViYiIBxM=");
    let verified = verifier.verify(&delivery).unwrap();
    assert_eq!(verified.headers(), ["s", "t", "i", "x-extra"]);
    assert_eq!(sealed(&verified), "00ac7ffbca38f750798ddd3f5d4fd61d00411552930d96e57a9f5a187184d10d");

    // What the envelope reads is kept and sealed as well.
    let more = [http::HeaderName::from_static("x-type")];
    let with = |value: &str| {
        let mut delivery = delivery.clone();
        delivery.headers.insert("x-type", value.parse().unwrap());
        let verified = verifier.verify(&delivery).unwrap();
        let kept = verified.kept(&more);
        assert_eq!(kept.last(), Some(&("x-type", value)));
        verified.seal(&kept)
    };
    assert_ne!(with("push"), with("ping"));

    let verifier = self::verifier("signature = { kind = 'token', header = 'X-Token' }", &[SECRET]);
    let delivery = signed(&verifier, b"{}");
    let verified = verifier.verify(&delivery).unwrap();
    assert!(verified.headers().is_empty());
    assert_eq!(sealed(&verified), "ae098d18d0d3d27029e2628659cdfe0e388bd1aef1f7e944d4f7aa362e1321e8");
    assert!(!format!("{verifier:?} {:?}", delivery.headers).contains(SECRET), "a token is shown");
}

/// A flipped bit anywhere in body, time or signature is refused.
#[test]
fn no_flipped_bit_verifies() {
    println!("seed: [7; 32]");
    let mut runner = TestRunner::new_with_rng(
        Runs { cases: 300, ..Runs::default() },
        TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]),
    );
    let input =
        ("[a-z\u{fc}\u{1f600} ]{0,12}", any::<i64>(), any::<prop::sample::Index>(), 0_u8..8, any::<bool>());
    runner
        .run(&input, |(text, number, place, bit, datagrid)| {
            let verifier = verifier(if datagrid { DATAGRID } else { GRAPEVINE }, &[SECRET]);
            let body = format!("{{\"text\":\"{text}\",\"n\":{number}}}");
            let original = signed(&verifier, body.as_bytes());
            prop_assert!(verifier.verify(&original).is_ok());

            let mut flipped = original.clone();
            let mut bytes = flipped.body.to_vec();
            bytes[place.index(body.len())] ^= 1 << bit;
            flipped.body = bytes.into();
            prop_assert!(verifier.verify(&flipped).is_err(), "body {:?}", flipped.body);

            let mut flipped = original.clone();
            let header = verifier.schemes[0].scheme.header.first().unwrap().clone();
            let mut bytes = flipped.headers[&header].as_bytes().to_vec();
            let at = place.index(bytes.len());
            let before = bytes[at];
            bytes[at] ^= 1 << bit;
            // A hex digit in the other case is the same digit; a header that HTTP refuses cannot arrive.
            let same =
                before.is_ascii_hexdigit() && before.eq_ignore_ascii_case(&bytes[at]) && at > "sha256=".len();
            if let (Ok(value), false) = (HeaderValue::from_bytes(&bytes), same) {
                flipped.headers.insert(header, value);
                prop_assert!(
                    verifier.verify(&flipped).is_err(),
                    "header {:?}",
                    String::from_utf8_lossy(&bytes)
                );
            }
            Ok(())
        })
        .unwrap();
}
