//! The diagnosis against refusals that another program made, each for a known cause.

use std::collections::BTreeMap;

use super::*;
use crate::outcome::Fault;
use crate::verify::diagnose::{Cause, Other};
use crate::verify::explain::{ConfiguredSecrets, Diagnosis};

type Named = (String, String, Option<Timestamp>, Option<Timestamp>);

#[derive(Deserialize)]
struct Row {
    kind: String,
    proven: bool,
    says: String,
    rules: String,
    secrets: Vec<Vec<Option<String>>>,
    removed: Vec<Vec<Option<String>>>,
    others: Vec<(String, Vec<Vec<Option<String>>>)>,
    received: i64,
    headers: Vec<(String, String)>,
    body_base64: String,
    hidden: Vec<String>,
}

fn named(row: &[Option<String>]) -> Named {
    let text = |at: usize| row.get(at).cloned().flatten();
    let time = |at: usize| text(at).map(|text| text.parse().unwrap());
    (text(0).unwrap(), text(1).unwrap(), time(2), time(3))
}

/// The rules, with their secrets.
fn configured(toml: &str, secrets: &[Vec<Option<String>>]) -> (config::Signature, Vec<Secret>) {
    let rules: config::Signature =
        toml::Deserializer::parse(toml).and_then(config::Signature::deserialize).unwrap();
    let secrets = secrets
        .iter()
        .map(|row| {
            let (name, text, not_before, not_after) = named(row);
            let key = rules.secret_format.decode(text.as_bytes()).unwrap();
            Secret::new(name, key).within(ValidityWindow { not_before, not_after })
        })
        .collect();
    (rules, secrets)
}

fn compiled(toml: &str, secrets: &[Vec<Option<String>>]) -> Verifier {
    let (rules, secrets) = configured(toml, secrets);
    let mut problems = ConfigErrors::default();
    Verifier::compile(std::slice::from_ref(&rules), &secrets, "signature", &mut problems)
        .unwrap_or_else(|| panic!("{problems}"))
}

fn rows() -> Vec<Row> {
    let lines = include_str!("../../../tests/fixtures/signatures/causes.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Passes the row's delivery to `diagnose`, with its verifier, its refusal and the other sources.
fn refused<T>(row: &Row, diagnose: impl FnOnce(&Verifier, &Delivery, &Fault, &[Other<'_>]) -> T) -> T {
    let mut verifier = compiled(&row.rules, &row.secrets);
    if !row.removed.is_empty() {
        let at = "2026-04-10T02:40:58.5Z".parse().unwrap();
        verifier.remember(&compiled(&row.rules, &row.removed), at);
    }
    let others: Vec<Verifier> = row.others.iter().map(|(rules, secrets)| compiled(rules, secrets)).collect();
    let others: Vec<Other<'_>> =
        others.iter().map(|verifier| Other { source: "elsewhere", verifier }).collect();
    let mut delivery = delivery(&row.headers, &BASE64_STANDARD.decode(&row.body_base64).unwrap());
    delivery.received_at = Timestamp::from_second(row.received).unwrap();
    let refusal = verifier.verify(&delivery).err();
    let refusal = refusal.unwrap_or_else(|| panic!("{} {}: it verifies", row.kind, row.says));
    diagnose(&verifier, &delivery, &refusal, &others)
}

fn explained(row: &Row) -> Diagnosis {
    let (_, own) = configured(&row.rules, &row.secrets);
    let mut all = BTreeMap::from([(String::from("own"), own)]);
    for (rules, secrets) in &row.others {
        all.insert(String::from("elsewhere"), configured(rules, secrets).1);
    }
    let secrets = ConfiguredSecrets { source: "own", all: &all };
    refused(row, |verifier, delivery, refusal, others| {
        verifier.explain(delivery, Some(refusal), &secrets, others)
    })
}

/// What the running service finds out.
fn cause(row: &Row, budget: usize) -> Cause {
    refused(row, |verifier, delivery, refusal, others| {
        verifier.cause(delivery, refusal, others, budget).unwrap()
    })
}

#[test]
fn each_cause_is_found_and_told_without_what_must_stay_hidden() {
    let rows = rows();
    assert!(rows.len() > 60, "{}", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let found = explained(row);
        let shown = format!("{} {found:?}", serde_json::to_string(&found).unwrap());
        let Cause { kind, proven, text, next } = found.cause.unwrap();
        if (kind, proven) != (&*row.kind, row.proven) || !text.contains(&row.says) {
            wrong.push(format!("{kind} {text}\n  expected {} {}", row.kind, row.says));
        }
        assert!(!next.is_empty() && !found.valid && found.reason.is_some());
        for hidden in row.hidden.iter().map(String::as_str).chain(["order.created", "Grüße", "wh_the"]) {
            assert!(!shown.contains(hidden), "{hidden} is in {shown}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rows of [`each_cause_is_found_and_told_without_what_must_stay_hidden`] that come from reports.
#[test]
fn w8_w9_what_happens_to_a_body_or_a_header_on_the_way_is_named_or_said_to_be_not_found() {
    let rows = rows();
    for (kind, says) in [
        ("content_encoding", "without its compression"),
        ("body_changed", "with upper-case hex digits in its escapes"),
        ("body_changed", "decoded from base64"),
        ("body_changed", "indented by 4 spaces"),
        ("body_changed", "its members sorted by name"),
        ("body_changed", "taken out of a JSON string"),
        ("body_changed", "before its UTF-8 was read as Windows-1252"),
        ("body_changed", "as a form"),
        ("body_empty", "the body is empty"),
        ("other_header", "the signature in x-signature-2"),
        ("encoding", "which has `v1a`"),
        ("not_found", "cause not found"),
    ] {
        let found = rows.iter().map(|row| cause(row, diagnose::BUDGET));
        let found = found.filter(|cause| cause.kind == kind && cause.text.contains(says));
        assert!(found.count() > 0, "{kind} {says}");
    }
    for row in rows.iter().filter(|row| !row.proven) {
        let found = cause(row, diagnose::BUDGET);
        assert!(!found.text.contains("likely"), "a guess asserts nothing: {found:?}");
    }
}

#[test]
fn the_running_service_finds_what_needs_no_text_of_a_secret() {
    let explained_only = ["encoding", "secret_whitespace", "secret_format", "signed_text"];
    for row in &rows() {
        let found = cause(row, diagnose::BUDGET);
        let token_of_a_signing_source = row.kind == "other_source_secret" && row.rules.contains("token");
        if explained_only.contains(&&*row.kind) || token_of_a_signing_source {
            assert!(
                ["encoding", "not_found", "wrong_secret"].contains(&found.kind),
                "{} {}: {found:?}",
                row.kind,
                row.says
            );
        } else {
            assert_eq!((found.kind, found.proven), (&*row.kind, row.proven), "{found:?}");
            assert!(found.text.contains(&row.says), "{}: {found:?}", row.says);
        }
    }
}

#[test]
fn w15_a_list_with_two_times_is_not_blamed_on_a_proxy_that_adds_headers() {
    let rows = rows();
    let repeated: Vec<&Row> =
        rows.iter().filter(|row| row.says.contains("has the time more than once")).collect();
    assert_eq!(repeated.len(), 2, "a wrong signature and the right one");
    for row in repeated {
        let cause = cause(row, diagnose::BUDGET);
        assert!(cause.kind == "header_unreadable" && cause.proven, "{cause:?}");
        assert!(!cause.text.contains("guess") && !cause.next.contains("adds"), "{cause:?}");
        assert!(cause.next.contains("what the provider sends"), "{cause:?}");
    }
}

#[test]
fn the_time_of_a_removal_is_told_in_whole_seconds() {
    let rows = rows();
    let row = rows.iter().find(|row| row.kind == "secret_removed").unwrap();
    let text = cause(row, diagnose::BUDGET).text;
    assert_eq!(text, "the body matches secret 2026-08, removed by the reload at 2026-04-10T02:40:58Z");
}

#[test]
fn w2_the_cause_is_that_of_the_scheme_whose_check_came_furthest() {
    let schemes = [
        rules("signature = { header = 'X-Signature', signed = '{body}' }"),
        rules("signature = { kind = 'token', header = 'X-Token' }"),
    ];
    let mut verifier = verifier_of_schemes(&schemes, &["wh_the-secret-1"]);
    verifier.remember(&verifier_of_schemes(&schemes, &["wh_the-former-2"]), Timestamp::UNIX_EPOCH);
    let all = BTreeMap::new();
    let unneeded = ConfiguredSecrets { source: "own", all: &all };
    let cause = |headers: &[(&str, &str)]| {
        let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let delivery = delivery(&headers, b"{}");
        let refusal = verifier.verify(&delivery).unwrap_err();
        let found = verifier.cause(&delivery, &refusal, &[], diagnose::BUDGET).unwrap();
        let explained = verifier.explain(&delivery, Some(&refusal), &unneeded, &[]).cause.unwrap();
        assert_eq!(found.text, explained.text);
        format!("{} {}", found.kind, found.text)
    };
    let wrong = "00".repeat(32);
    assert!(cause(&[]).starts_with("header_missing the request has no x-signature"), "{}", cause(&[]));
    assert!(cause(&[("x-signature", &wrong)]).starts_with("not_found cause not found"));
    assert!(cause(&[("x-signature", "?"), ("x-token", "another")]).starts_with("wrong_secret the token"));
    let former = cause(&[("x-signature", &wrong), ("x-token", "wh_the-former-2")]);
    assert!(former.starts_with("secret_removed the body matches"), "{former}");
}

#[test]
fn the_last_four_removed_secrets_are_remembered_until_they_come_back() {
    let of = |names: &[&str]| {
        let secrets = names.iter().map(|name| vec![Some((*name).into()), Some(format!("wh_{name}"))]);
        compiled("header = \"X-Signature\"\nsigned = \"{body}\"\n", &secrets.collect::<Vec<_>>())
    };
    let names = |verifier: &Verifier| format!("{:?}", verifier.schemes[0].removed);
    let now = Timestamp::UNIX_EPOCH;
    let mut current = of(&["a"]);
    for next in ["b", "c", "d", "e", "f"] {
        let mut verifier = of(&[next]);
        verifier.remember(&current, now);
        current = verifier;
    }
    let listed = names(&current);
    assert!(
        ["b", "c", "d", "e"].iter().all(|name| listed.contains(&format!("Removed({name} at"))),
        "{listed}"
    );
    assert!(!listed.contains("Removed(a "), "{listed}");
    let mut again = of(&["f", "c"]);
    again.remember(&current, now);
    assert!(!names(&again).contains("Removed(c "), "{}", names(&again));
    assert!(!listed.contains("wh_"), "{listed}");
    let token = |secret| {
        compiled("kind = \"token\"\nheader = \"X-Token\"\n", &[vec![Some("t".into()), Some(secret)]])
    };
    let mut verifier = token(String::from("wh_new"));
    verifier.remember(&token(String::from("wh_old")), now);
    let removed: Vec<_> = verifier.schemes.iter().flat_map(|scheme| &scheme.removed).collect();
    assert_eq!(removed.len(), 1);
    assert!(removed.iter().all(|old| old.key.token.is_none()), "no text of a removed token is kept");
}

#[test]
fn an_old_or_early_signature_is_told_by_how_much_and_a_wrong_unit_by_its_name() {
    let verifier = verifier(DATAGRID, &[SECRET]);
    let all = BTreeMap::new();
    let unneeded = ConfiguredSecrets { source: "own", all: &all };
    let stale = Fault::new(Reason::StaleRejected, "5400 s old, the tolerance is 300 s");
    for (received, kind, says) in [
        (1_775_847_600 + 5400, "clock", "5400 s (90 min) before the delivery came"),
        (1_775_847_600 - 400, "clock", "400 s (6 min) after the delivery came"),
        (1_775_847_600 + 1_000_000, "clock", "(11 d) before"),
    ] {
        let mut delivery = signed(&verifier, b"{}");
        delivery.received_at = Timestamp::from_second(received).unwrap();
        let found = verifier.explain(&delivery, Some(&stale), &unneeded, &[]);
        let cause = found.cause.unwrap();
        assert!(cause.kind == kind && cause.text.contains(says), "{cause:?}");
        assert!(
            found.steps.iter().any(|step| step.step == "time" && step.ok == Some(false)),
            "{:?}",
            found.steps
        );
    }
    let mut rules = rules(DATAGRID);
    rules.timestamp_unit = Some(crate::config::TimestampUnit::Milliseconds);
    let verifier = verifier_of(&rules, &[SECRET]);
    let mut delivery = signed(&verifier, b"{}");
    delivery.received_at = Timestamp::from_second(1_775_847_600).unwrap();
    let seconds = verifier_of(&self::rules(DATAGRID), &[SECRET]);
    let cause = seconds.cause(&delivery, &stale, &[], diagnose::BUDGET).unwrap();
    assert_eq!(
        (cause.kind, &*cause.text),
        ("timestamp_unit", "the signed time is in milliseconds, the rules read seconds")
    );
}

#[test]
fn a_valid_delivery_is_shown_step_by_step() {
    let verifier = verifier(GRAPEVINE, &["wh_another-secret-0000", SECRET]);
    let body = r#"{"event": "document.changed"}"#;
    let all = BTreeMap::new();
    let unneeded = ConfiguredSecrets { source: "own", all: &all };
    let found = verifier.explain(&signed(&verifier, body.as_bytes()), None, &unneeded, &[]);
    assert!(
        found.valid && found.cause.is_none() && found.steps.iter().all(|step| step.ok == Some(true)),
        "{found:?}"
    );
    let lines: Vec<String> = found.steps.iter().map(|step| format!("{} {}", step.step, step.text)).collect();
    assert_eq!(
        lines,
        [
            "header x-grapevine-signature: once, 71 characters",
            "signature 64 hex digits (32 bytes); expected `sha256=` and 64 hex digits (HMAC with SHA-256)",
            "signed {body} (29 bytes); as received; as json_compact_ascii: 28 bytes",
            "secrets secret-0 made it, over the json_compact_ascii body",
        ]
    );
}

#[test]
fn the_work_ends_at_its_budget_and_says_so() {
    let rows = rows();
    let row = rows.iter().find(|row| row.kind == "body_changed").unwrap();
    let cause = cause(row, 2_000);
    assert!(cause.kind == "not_found" && cause.text.contains("not all could be tried"), "{cause:?}");
}
