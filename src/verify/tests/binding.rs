//! Secrets that are bound to what a body says.

use super::*;
use crate::config::{Binds, EnvelopeConfig};
use crate::outcome::Fault;

const ACME: &str = r#"{"tenant_id":"acme"}"#;

pub(super) fn bound(name: &str, value: &str, equals: &str) -> Secret {
    let binds = Binds { pointer: "/tenant_id".into(), equals: equals.into() };
    Secret::new(name, value).bound(Some(binds.into()))
}

pub(super) fn envelope(rules: &str) -> EnvelopeConfig {
    let rules = format!("id = 'digest'\ntype = '/event'\n{rules}");
    toml::Deserializer::parse(&rules).and_then(EnvelopeConfig::deserialize).unwrap()
}

fn with(secrets: &[Secret], envelope: Option<&str>) -> Verifier {
    let mut problems = ConfigErrors::default();
    let verifier = Verifier::compile(&[rules(GRAPEVINE)], secrets, "signature", &mut problems).unwrap();
    match envelope {
        Some(rules) => verifier.with_envelope(&self::envelope(rules)),
        None => verifier,
    }
}

/// What becomes of a body that `secret` signs as it stands.
fn verdict(verifier: &Verifier, secret: &str, kind: &str, body: &str) -> Result<String, Fault> {
    let mac = Signer::new(config::Hash::Sha256, secret.as_bytes()).unwrap();
    let signature = format!("sha256={}", hex::encode(&mac.digest([body.as_bytes()].into_iter())[..32]));
    let headers = [("X-Grapevine-Signature".into(), signature), ("Content-Type".into(), kind.into())];
    verifier.verify(&delivery(&headers, body.as_bytes())).map(|verified| verified.secret().to_owned())
}

fn details(envelope: &str, kind: &str, bodies: &[&str]) -> Vec<String> {
    let verifier = with(&[bound("acme", SECRET, "acme")], Some(envelope));
    let detail = |body: &&str| match verdict(&verifier, SECRET, kind, body) {
        Ok(name) => name,
        Err(Fault { reason: Reason::SignatureMismatch, detail }) => {
            let detail = detail.unwrap();
            assert!(!detail.contains("globex"), "{detail}");
            let expected = "the secret acme made it, but is bound to ";
            detail.strip_prefix(expected).unwrap_or_else(|| panic!("{detail}")).to_owned()
        }
        Err(fault) => panic!("{fault}"),
    };
    bodies.iter().map(detail).collect()
}

const OTHER: &str = "another value of /tenant_id";
const NOTHING: &str = "a value of /tenant_id, which is not there";
const TWICE: &str = "a value of /tenant_id, which cannot be read (duplicate_key)";
const NO_JSON: &str = "a value of /tenant_id, which cannot be read (json_invalid)";

#[test]
fn a_bound_secret_counts_for_a_body_that_names_whom_it_is_for() {
    for (body, expected) in [
        (ACME, "acme"),
        (r#" { "data": {"tenant_id": "globex"}, "tenant_id" : "acme" } "#, "acme"),
        (r#"{"\u0074enant_id":"acm\u0065"}"#, "acme"),
        (r#"{"tenant_id":"globex"}"#, OTHER),
        (r#"{"tenant_id":"acme "}"#, OTHER),
        (r#"{"tenant_id":"ACME"}"#, OTHER),
        (r#"{"tenant_id":null}"#, OTHER),
        (r#"{"tenant_id":["acme"]}"#, OTHER),
        (r#"{"tenant_id":{"acme":"acme"}}"#, OTHER),
        (r#"{"tenant":"acme"}"#, NOTHING),
        (r#"{"data":{"tenant_id":"acme"}}"#, NOTHING),
        (r#"[{"tenant_id":"acme"}]"#, NOTHING),
        (r#""acme""#, NOTHING),
        (r#"{"tenant_id":"acme","tenant_id":"globex"}"#, TWICE),
        (r#"{"tenant_id":"globex","tenant_id":"acme"}"#, TWICE),
        (r#"{"tenant_id":"acme","tenant\u005fid":"acme"}"#, TWICE),
        ("", NO_JSON),
        (r#"{"tenant_id":"acme"} {"tenant_id":"globex"}"#, NO_JSON),
        ("tenant_id=acme", NO_JSON),
    ] {
        assert_eq!(details("", "application/json", &[body]), [expected], "{body}");
    }
}

#[test]
fn every_event_of_a_delivery_counts() {
    for (body, expected) in [
        (r#"{"tenant_id":"acme","events":[{},{"tenant_id":"acme"}]}"#, "acme"),
        (r#"{"events":[{"tenant_id":"acme"},{"tenant_id":"acme"}]}"#, "acme"),
        (r#"{"tenant_id":"acme","events":[{},{"tenant_id":"globex"}]}"#, OTHER),
        (r#"{"tenant_id":"globex","events":[{"tenant_id":"acme"}]}"#, OTHER),
        (r#"{"events":[{"tenant_id":"acme"},{"tenant_id":"globex"}]}"#, OTHER),
        (r#"{"events":[{"tenant_id":"acme"},{}]}"#, NOTHING),
        (r#"{"events":[{"tenant_id":"acme"},7]}"#, NOTHING),
        (r#"{"events":[{"tenant_id":"acme","tenant_id":"acme"}]}"#, TWICE),
        // Dead letters, and whose is known.
        (r#"{"tenant_id":"acme","events":[]}"#, "acme"),
        (r#"{"tenant_id":"acme","events":[7]}"#, "acme"),
        (ACME, "acme"),
        (r#"{"events":[]}"#, NOTHING),
    ] {
        assert_eq!(details("split = '/events'", "application/json", &[body]), [expected], "{body}");
    }
    let whole = [r#"[{"tenant_id":"acme"}]"#, r#"[{"tenant_id":"acme"},{"tenant_id":"globex"}]"#, "[]"];
    assert_eq!(details("split = ''", "application/json", &whole), ["acme", OTHER, NOTHING]);
}

#[test]
fn a_form_is_read_as_the_envelope_reads_it() {
    let form = "application/x-www-form-urlencoded";
    let encoded =
        ["payload=%7B%22tenant_id%22%3A%22acme%22%7D", "payload=%7B%22tenant_id%22%3A%22globex%22%7D"];
    assert_eq!(details("payload = 'form:payload'", form, &encoded), ["acme", OTHER]);
    let twice = format!("{}&{}", encoded[0], encoded[1]);
    assert_eq!(details("payload = 'form:payload'", form, &[&twice, "x=1"]), [NO_JSON; 2]);
    // A JSON body that is sent as a form is still JSON, whatever its texts look like.
    let like_a_form = format!(r#"{{"tenant_id":"globex","note":"&{}&"}}"#, encoded[0]);
    assert_eq!(details("payload = 'form:payload'", form, &[ACME, &like_a_form]), ["acme", OTHER]);
    assert_eq!(
        details("payload = 'form:payload'", "application/json", &[ACME, encoded[0]]),
        ["acme", NO_JSON]
    );
    assert_eq!(details("", form, &[ACME, encoded[0]]), ["acme", NO_JSON]);
}

#[test]
fn any_secret_that_made_the_signature_and_keeps_its_binding_will_do() {
    let old = ValidityWindow { not_after: Some("1969-01-01T00:00:00Z".parse().unwrap()), not_before: None };
    let secrets = [
        bound("acme", SECRET, "acme"),
        bound("globex", SECRET, "globex"),
        Secret::new("any", "another-secret-000"),
        bound("gone", SECRET, "gone").within(old),
    ];
    let verifier = with(&secrets, Some(""));
    let of = |secret, tenant| {
        let body = format!(r#"{{"tenant_id":"{tenant}"}}"#);
        verdict(&verifier, secret, "", &body).map_err(|fault| fault.to_string())
    };
    assert_eq!(of(SECRET, "acme").as_deref(), Ok("acme"));
    assert_eq!(of(SECRET, "globex").as_deref(), Ok("globex"));
    assert_eq!(of("another-secret-000", "third").as_deref(), Ok("any"));
    let first = "signature_mismatch: the secret acme made it, but is bound to another value of /tenant_id";
    assert_eq!(of(SECRET, "third").unwrap_err(), first);
    let expired = "secret_expired: the secret gone was valid until 1969-01-01T00:00:00Z";
    assert_eq!(of(SECRET, "gone").unwrap_err(), expired, "its tenant may know");
    // With a signature of nobody's, nothing is said of bindings.
    let unknown = of("a-secret-of-nobody", "acme").unwrap_err();
    assert_eq!(unknown, "signature_mismatch: 4 secrets tried, raw and canonical body, 20 bytes");
}

#[test]
fn c1_a_retry_is_taken_under_the_same_binding_whatever_came_between() {
    let at =
        |pointer: &str, equals: &str| Some(Binds { pointer: pointer.into(), equals: equals.into() }.into());
    let secrets = [
        Secret::new("tenant", SECRET).bound(at("/tenant_id", "acme")),
        Secret::new("other", "another-secret-000"),
        Secret::new("region", SECRET).bound(at("/region", "eu")),
        Secret::new("any", SECRET),
    ];
    let verifier = with(&secrets, Some(""));
    let both = r#"{"tenant_id":"acme","region":"eu"}"#;
    let between = [both, r#"{"region":"eu"}"#, r#"{"tenant_id":"globex"}"#, ACME];
    for (secret, body) in between.into_iter().map(|body| (SECRET, body)).chain([("another-secret-000", ACME)])
    {
        verdict(&verifier, secret, "", body).unwrap();
        assert_eq!(verdict(&verifier, SECRET, "", both).as_deref(), Ok("tenant"), "after {body}");
    }
}

#[test]
fn the_canonical_form_is_of_the_body_that_is_looked_at() {
    let verifier = with(&[bound("acme", SECRET, "acme")], Some(""));
    let other = self::verifier(GRAPEVINE, &[SECRET]);
    for (body, right) in [(r#"{"tenant_id": "acme"}"#, true), (r#"{"tenant_id": "globex"}"#, false)] {
        assert_eq!(verifier.verify(&signed(&other, body.as_bytes())).is_ok(), right, "{body}");
    }
}

#[test]
fn a_token_may_be_bound_and_without_rules_for_the_body_nothing_verifies() {
    let rules = rules("signature = { kind = 'token', header = 'X-Token' }");
    let verifier = || {
        Verifier::compile(
            std::slice::from_ref(&rules),
            &[bound("acme", SECRET, "acme")],
            "",
            &mut ConfigErrors::default(),
        )
        .unwrap()
    };
    let reading = verifier().with_envelope(&envelope(""));
    assert_eq!(reason(&reading, &[("X-Token", SECRET)], ACME), None);
    assert_eq!(reason(&reading, &[("X-Token", SECRET)], "{}"), Some(Reason::SignatureMismatch));
    assert_eq!(reason(&verifier(), &[("X-Token", SECRET)], ACME), Some(Reason::SignatureMismatch));
}
