//! What a search costs, and where it begins.

use std::time::Instant;

use super::binding::{bound, envelope};
use super::*;
use crate::outcome::Fault;

/// Its canonical form is six times as long.
fn worst(bytes: usize) -> String {
    format!("\"{}\"", "\u{7f}".repeat(bytes - 2))
}

fn many(count: usize) -> Verifier {
    let secrets: Vec<String> = (0..count).map(|n| format!("wh_secret-number-{n}")).collect();
    verifier(GRAPEVINE, &secrets.iter().map(String::as_str).collect::<Vec<_>>())
}

fn forged(body: &str) -> SecretSearch {
    let signature = format!("sha256={}", "0".repeat(64));
    SecretSearch::new(delivery(&[("x-grapevine-signature".into(), signature)], body.as_bytes()))
}

/// As the provider signs with secret `n`.
fn authentic(n: usize, body: &str) -> SecretSearch {
    SecretSearch::new(signed(&verifier(GRAPEVINE, &[&format!("wh_secret-number-{n}")]), body.as_bytes()))
}

#[test]
fn b1_a_forged_body_costs_no_more_than_is_said_and_its_form_is_made_once() {
    for secrets in [1, 20] {
        let (verifier, bytes) = (many(secrets), 10_000);
        let cost = verifier.cost(bytes);
        let mut search = forged(&worst(bytes));
        assert_eq!(verifier.likely(&mut search), Ok(false));
        assert!(search.work() <= cost.likely, "{} of {cost:?}", search.work());
        let refused = verifier.all(&mut search, None).unwrap_err();
        assert_eq!(refused.reason, Reason::SignatureMismatch);
        assert!(search.work() <= cost.all, "{} of {cost:?}", search.work());
        assert!(search.work() * 100 > cost.all * 99, "{} of {cost:?}: it is the worst", search.work());
        // Each secret hashes both forms; what is written is written once.
        let (hashed, written) = (7 * bytes as u64, 6 * bytes as u64);
        assert!(search.work() < secrets as u64 * (hashed + 600) + 3 * written, "{}", search.work());
        assert!(search.verified().is_none());
    }
}

#[test]
fn b1_secrets_outside_their_time_cost_no_second_form() {
    let later = ValidityWindow { not_before: Some(Timestamp::MAX), ..ValidityWindow::default() };
    let secrets =
        [Secret::new("new", "wh_secret-number-0"), Secret::new("old", "wh_secret-number-1").within(later)];
    let mut problems = ConfigErrors::default();
    let verifier = Verifier::compile(&[rules(GRAPEVINE)], &secrets, "signature", &mut problems).unwrap();
    let mut search = authentic(1, "{\"a\": 1}");
    assert_eq!(verifier.likely(&mut search), Ok(false));
    let refused = verifier.all(&mut search, None).unwrap_err();
    assert_eq!(refused.reason, Reason::SecretExpired);
    assert!(search.verified().is_none(), "it counts no more");
    let mut search = forged(&worst(10_000));
    verifier.all(&mut search, None).unwrap_err();
    assert!(search.work() <= verifier.cost(10_000).all, "{}", search.work());
}

#[test]
fn b1_the_secret_and_the_form_that_matched_last_come_first() {
    let (verifier, body) = (many(20), format!("[{}]", worst(10_000)).replace('[', "[ "));
    let mut first = authentic(7, &body);
    assert_eq!(verifier.likely(&mut first), Ok(false), "the first secret did not make it");
    verifier.all(&mut first, None).unwrap();
    let mut next = authentic(7, &body);
    assert_eq!(verifier.likely(&mut next), Ok(true));
    assert!(next.work() <= verifier.cost(body.len()).likely);
    let hash_and_form = 3 * 6 * 10_004 + 256;
    assert!(next.work() <= hash_and_form, "{}", next.work());
    // Whichever way it was found, the proof is the same.
    let direct = verifier.verify(next.delivery()).unwrap();
    let found = next.verified().unwrap();
    assert_eq!(
        (found.secret(), found.form(), found.signed()),
        (direct.secret(), direct.form(), direct.signed())
    );
    assert_eq!((found.secret(), found.form()), ("secret-7", BodyForm::JsonCompactAscii));
    assert_eq!(found.seal(&[]), direct.seal(&[]));
    assert_eq!(found.age(), direct.age());
}

#[test]
fn b1_a_search_ends_at_its_time_and_says_so() {
    let mut search = forged("{}");
    let refused = many(3).all(&mut search, Some(Instant::now())).unwrap_err();
    assert_eq!(refused.reason, Reason::Overloaded);
    assert_eq!(search.work(), 0);
}

#[test]
fn b1_a_token_costs_next_to_nothing_whatever_the_body() {
    let token = config::Signature {
        kind: config::SignatureKind::Token,
        header: vec!["x-token".into()],
        forms: vec![BodyForm::Raw],
        ..config::Signature::default()
    };
    let verifier = verifier_of(&token, &[SECRET, "another-token-of-ours"]);
    let cost = verifier.cost(1 << 20);
    assert!(cost.all < 1024, "{cost:?}");
    let mut search =
        SecretSearch::new(delivery(&[("x-token".into(), "nobody's".into())], worst(1 << 20).as_bytes()));
    verifier.all(&mut search, None).unwrap_err();
    assert!(search.work() <= cost.all, "{}", search.work());
}

/// Two schemes with the same three secrets, which a delivery may satisfy both.
fn both_schemes() -> [config::Signature; 2] {
    [
        rules(
            "signature = { header = 'A', signature_key = 's', timestamp_key = 't', \
             signed = '{timestamp}.{body}', forms = ['raw', 'json_compact_ascii'] }",
        ),
        rules("signature = { header = 'B', signed = '{body}' }"),
    ]
}

/// The signature of the secret `n` by this scheme.
fn header_of(scheme: &config::Signature, n: usize, form: BodyForm, body: &str) -> String {
    let scheme = config::Signature { forms: vec![form], ..scheme.clone() };
    let signed = signed(&verifier_of(&scheme, &[&format!("wh_secret-number-{n}")]), body.as_bytes());
    signed.headers[scheme.header[0].as_str()].to_str().unwrap().to_owned()
}

/// What a verdict consists of.
fn seen<'v>(
    verdict: Result<Verified<'v>, Fault>,
) -> Result<impl PartialEq + std::fmt::Debug + use<'v>, Fault> {
    verdict.map(|found| {
        (found.secret_name(), found.form(), found.age(), found.headers(), found.signed().to_vec())
    })
}

#[test]
fn a_search_in_two_steps_has_the_verdict_of_one() {
    println!("seed: [13; 32]");
    let mut runner = TestRunner::new_with_rng(
        Runs { cases: 300, failure_persistence: None, ..Runs::default() },
        TestRng::from_seed(RngAlgorithm::ChaCha, &[13; 32]),
    );
    // The secret 3 is nobody's.
    let form = prop::sample::select(vec![BodyForm::Raw, BodyForm::JsonCompactAscii]);
    let a = prop::option::of(prop::collection::vec((0..4_usize, form), 1..3));
    let sent = (a, prop::option::of(0..4_usize));
    runner
        .run(&prop::collection::vec(sent, 1..8), |deliveries| {
            let [a, b] = both_schemes();
            let secrets = [0, 1, 2].map(|n| format!("wh_secret-number-{n}"));
            let compile = || verifier_of_schemes(&both_schemes(), &secrets.each_ref().map(String::as_str));
            let (one, two) = (compile(), compile());
            for (by_a, by_b) in deliveries {
                let (body, mut headers) = ("{\"a\": 1}", Vec::new());
                if let Some(by_a) = by_a {
                    let made: Vec<_> =
                        by_a.into_iter().map(|(n, form)| header_of(&a, n, form, body)).collect();
                    headers.push((String::from("A"), made.join(" ")));
                }
                headers.extend(by_b.map(|n| (String::from("B"), header_of(&b, n, BodyForm::Raw, body))));
                let mut search = SecretSearch::new(delivery(&headers, body.as_bytes()));
                let found = match two.likely(&mut search) {
                    Ok(true) => Ok(()),
                    Ok(false) => two.all(&mut search, None),
                    Err(fault) => Err(fault),
                };
                let found = found.map(|()| search.verified().unwrap());
                prop_assert_eq!(seen(found), seen(one.verify(search.delivery())));
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_body_is_hashed_once_for_a_secret_with_many_bindings_and_each_look_into_it_is_charged() {
    let tenants: Vec<Secret> = (0..20).map(|n| bound(&format!("t{n}"), SECRET, &format!("{n}"))).collect();
    let body = format!("{{\"tenant_id\":\"nobody\",\"text\":\"{}\"}}", "x".repeat(10_000));
    let bytes = body.len() as u64;
    let compile = |rules: &config::Signature| {
        let mut problems = ConfigErrors::default();
        let verifier =
            Verifier::compile(std::slice::from_ref(rules), &tenants, "signature", &mut problems).unwrap();
        verifier.with_envelope(&envelope(""))
    };
    let token = rules("signature = { kind = 'token', header = 'X-Token' }");
    for (rules, hashes) in [(rules("signature = { header = 'S', signed = '{body}' }"), 1), (token, 0)] {
        let verifier = compile(&rules);
        let mut search = SecretSearch::new(signed(&verifier_of(&rules, &[SECRET]), body.as_bytes()));
        assert_eq!(verifier.likely(&mut search), Ok(false));
        let cost = verifier.cost(body.len());
        assert!(search.work() <= cost.likely, "{} of {cost:?}", search.work());
        verifier.all(&mut search, None).unwrap_err();
        assert!(search.work() <= cost.all, "{} of {cost:?}", search.work());
        let expected = (hashes + 20) * bytes..(hashes + 21) * bytes;
        assert!(expected.contains(&search.work()), "{} is not in {expected:?}", search.work());
    }
}
