//! Rules beyond those of the shipped presets: which are refused, and what the others hold a delivery to.

use super::*;
use crate::outcome::Fault;

#[test]
fn w6c_an_empty_name_of_a_part_of_the_header_is_refused() {
    for key in ["signature_key", "timestamp_key", "signature_version"] {
        let mut problems = ConfigErrors::default();
        let rules = rules(&format!("signature = {{ header = 'S', {key} = '', signed = '{{body}}' }}"));
        assert!(Verifier::compile(std::slice::from_ref(&rules), &[], "signature", &mut problems).is_none());
        assert!(problems.to_string().contains(&format!("signature.{key}: is empty")), "{problems}");
    }
}

/// A rule, and what a person reads who wrote it.
#[test]
fn rules_that_cannot_be_right_are_refused() {
    let time = "timestamp_header = 'T'";
    let both = "signature_key = 'v1', timestamp_key = 't'";
    let rows = [
        ("", "signed: is missing"),
        (&format!("{time}, signed = '{{timestamp}}'"), "signed: must contain {body}"),
        ("signed = '{header:A}{body}'", "signed: needs a separator"),
        ("timestamp_format = 'rfc3339', signed = '{body}'", "timestamp_format: is for {timestamp}"),
        (
            &format!(
                "{time}, timestamp_format = 'rfc3339', timestamp_unit = 'seconds', signed = '{{timestamp}}:{{body}}'"
            ),
            "timestamp_unit: is for a Unix time",
        ),
        (
            &format!("{both}, timestamp_format = 'http_date', signed = '{{timestamp}}:{{body}}'"),
            "timestamp_key: names a part of a list",
        ),
        ("signed = '{body}.{nonce}'", "signed: knows {body}"),
        ("signed = '{body'", "signed: has a { without"),
        ("signed = '{body}.{body}'", "signed: contains {body} more than once"),
        ("signed = '{timestamp}.{body}'", "signed: must use {timestamp} if"),
        (&format!("{time}, signed = '{{body}}'"), "signed: must use {timestamp} if"),
        (&format!("{both}, {time}, signed = '{{timestamp}}.{{body}}'"), "timestamp_header: excludes"),
        ("timestamp_unit = 'milliseconds', signed = '{body}'", "timestamp_unit: is for {timestamp}"),
        ("timestamp_key = 't', signed = '{timestamp}.{body}'", "timestamp_key: needs signature_key"),
        ("prefix = 'x', signature_key = 'v1', signed = '{body}'", "prefix: goes with a plain header"),
        ("signature_version = 'v1', signature_key = 'v1', signed = '{body}'", "signature_version: excludes"),
        ("signed = '{id}.{body}'", "signed: uses {id}: set id_header"),
        ("id_header = 'I', signed = '{body}'", "id_header: is for {id}"),
        ("signed = '{url}{body}'", "signed: uses {url}: set url"),
        ("url = 'https://example.com/', signed = '{body}'", "url: is for {url}"),
        ("signed = '{header:a b}.{body}'", "signed: {header:NAME} is not the name of"),
        ("signed = '{header:Hookstream-Seal}.{body}'", "signed: {header:NAME} is not the name of"),
        ("kind = 'bearer', prefix = 'x'", "prefix: does not go with kind"),
        ("forms = [], signed = '{body}'", "forms: must name"),
        ("kind = 'token', signed = '{body}'", "signed: does not go with this kind"),
        ("kind = 'token', hash = 'sha256'", "hash: does not go with this kind"),
        ("kind = 'token', forms = ['json_compact_ascii']", "forms: does not go with"),
    ];
    for (rule, expected) in rows {
        let rules = rules(&format!("signature = {{ header = 'S', {rule} }}"));
        let mut problems = ConfigErrors::default();
        let compiled = Verifier::compile(std::slice::from_ref(&rules), &[], "signature", &mut problems);
        assert!(compiled.is_none() && problems.len() == 1, "{rule}: {problems}");
        assert!(problems.lines()[0].starts_with(&format!("signature.{expected}")), "{rule}: {problems}");
    }
    for (rule, expected) in [
        ("header = 'a b'", "is not a valid HTTP header name"),
        ("header = 'Hookstream-Seal'", "is one of hookstream's own headers"),
    ] {
        let mut problems = ConfigErrors::default();
        let rules = rules(&format!("signature = {{ {rule}, signed = '{{body}}' }}"));
        assert!(Verifier::compile(std::slice::from_ref(&rules), &[], "signature", &mut problems).is_none());
        assert!(problems.to_string().contains(expected), "{problems}");
    }
}

#[test]
fn a_header_that_holds_credentials_is_no_part_of_what_is_signed() {
    for name in ["Authorization", "cookie"] {
        let mut problems = ConfigErrors::default();
        let rules = rules(&format!("signature = {{ header = 'S', signed = '{{header:{name}}}.{{body}}' }}"));
        assert!(Verifier::compile(std::slice::from_ref(&rules), &[], "signature", &mut problems).is_none());
        assert!(problems.to_string().contains("credentials"), "{problems}");
    }
}

#[test]
fn a_header_that_the_rules_read_occurs_exactly_once() {
    let rules = "signature = { header = 'S', timestamp_header = 'T', id_header = 'I', \
        signed = '{id}.{timestamp}.{header:E}.{body}' }";
    let verifier = verifier(rules, &[SECRET]);
    let mut headers = delivery(&[("e".into(), "x".into())], b"").headers;
    verifier.sign(b"{}", Timestamp::UNIX_EPOCH, &mut headers).unwrap();
    let all: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!((all.len(), reason(&verifier, &all, "{}")), (4, None));
    for left_out in 0..all.len() {
        let (mut missing, mut twice) = (all.clone(), all.clone());
        let header = missing.remove(left_out);
        twice.push(header);
        assert_eq!(reason(&verifier, &missing, "{}"), Some(Reason::SignatureMissing), "{header:?}");
        assert_eq!(reason(&verifier, &twice, "{}"), Some(Reason::SignatureMalformed), "{header:?}");
    }
}

/// One signed text, cut in two ways: only one of the deliveries may verify.
#[test]
fn a_value_that_contains_its_separator_is_refused() {
    for (signed, headers, body) in [
        ("{header:A}.{header:B}.{body}", ("a.b", "c"), "d"),
        ("{header:A}.{header:B}.{body}", ("a", "b.c"), "d"),
        ("{header:A}-.-{header:B}.{body}", ("a-.", "-.-b"), "d"), // overlaps its separator
        ("{header:A}aa{header:B}:{body}", ("xa", "b"), "d"),
        ("{body}.{header:A}.{header:B}", ("a", "b.c"), "d"),
        ("{body}.{header:A}.{header:B}", ("a.b", "c"), "d"),
        ("{body}aa{header:A}:{header:B}", ("ax", "b"), "d"),
    ] {
        let verifier = verifier(&format!("signature = {{ header = 'S', signed = '{signed}' }}"), &[SECRET]);
        let (a, b) = headers;
        let text = signed.replace("{header:A}", a).replace("{header:B}", b).replace("{body}", body);
        let digest = Signer::new(config::Hash::Sha256, SECRET.as_bytes())
            .unwrap()
            .digest([text.as_bytes()].into_iter());
        let signature = hex::encode(&digest[..32]);
        let all = [("S", signature.as_str()), ("A", a), ("B", b)];
        assert_eq!(reason(&verifier, &all, body), Some(Reason::SignatureMalformed), "{signed} {headers:?}");
    }
}

#[test]
fn of_versions_in_a_header_ours_are_read_and_at_most_eight() {
    let rules =
        "signature = { header = 'S', signature_version = 'v1', encoding = 'base64', signed = '{body}' }";
    let verifier = verifier(rules, &[SECRET]);
    let headers = signed(&verifier, b"{}").headers;
    let good = headers["s"].to_str().unwrap();
    let other = format!("v1,{}=", "A".repeat(43));
    for valid in [
        format!("v1a,{good} {good}"),
        format!("{other} {good} v2,x"),
        format!("nonsense  {good}"),
        format!("{}{good}", format!("{other} ").repeat(7)),
        format!("{}{good}", "v0,x ".repeat(100)),
    ] {
        assert_eq!(reason(&verifier, &[("S", &valid)], "{}"), None, "{valid}");
    }
    for malformed in [
        "",
        "v1",
        "v1,",
        "v1,abc",
        &good.replace("v1,", "v2,"),
        &good.replace("v1,", "v1="),
        &good.replace("v1,", ""),
        &format!("{}{good}", format!("{other} ").repeat(8)),
    ] {
        let found = reason(&verifier, &[("S", malformed)], "{}");
        assert_eq!(found, Some(Reason::SignatureMalformed), "{malformed}");
    }
    assert_eq!(reason(&verifier, &[("S", &other)], "{}"), Some(Reason::SignatureMismatch));
}

/// As Persona sends it while a secret is rotated: a set of pairs for each secret, separated by a space.
#[test]
fn w6b_each_signature_of_several_sets_counts_wherever_it_stands() {
    let verifier = verifier(DATAGRID, &[SECRET]);
    let good = signed(&verifier, b"{}").headers["datagrid-signature"].to_str().unwrap().to_owned();
    let other = format!("t=1775847600,v1={}", "0".repeat(64));
    for valid in [
        format!("{good} {other}"),
        format!("{other} {good}"),
        format!("{other}, {good}"),
        format!("{good} "),
        good.replace(',', ", "),
        good.replace(',', " "),
        format!("{other} {other} {good} {other}"),
    ] {
        assert_eq!(reason(&verifier, &[("Datagrid-Signature", &valid)], "{}"), None, "{valid}");
    }
    for (refused, why) in [
        (format!("{other} {other}"), Reason::SignatureMismatch),
        (format!("{good} {}", other.replace("1775847600", "1775847601")), Reason::SignatureMalformed),
        (good.replace("t=1775847600", "t=1775847601,t=1775847600"), Reason::SignatureMalformed),
    ] {
        assert_eq!(reason(&verifier, &[("Datagrid-Signature", &refused)], "{}"), Some(why), "{refused}");
    }
}

/// As Outpost signs during a rotation: <https://github.com/hookdeck/outpost/pull/128>.
#[test]
fn a_part_without_a_key_is_one_more_signature_of_the_key_before_it() {
    for encoding in [config::Encoding::Hex, config::Encoding::Base64] {
        let rules = config::Signature { encoding: Some(encoding), ..rules(DATAGRID) };
        let verifier = verifier_of(&rules, &[SECRET]);
        let header = signed(&verifier, b"{}").headers["datagrid-signature"].to_str().unwrap().to_owned();
        let (time, good) = header.split_once(",v1=").unwrap();
        let other = signed(&verifier, b"{ }").headers["datagrid-signature"].to_str().unwrap().to_owned();
        let (_, other) = other.split_once(",v1=").unwrap();
        for valid in [
            format!("{time},v1={good},{other}"),
            format!("{time},v1={other},{good}"),
            format!("{time},v1={other}, {other}, {good}"),
            format!("v1={other},{good},{time}"),
            format!("{time},v1={good},"),
        ] {
            assert_eq!(reason(&verifier, &[("Datagrid-Signature", &valid)], "{}"), None, "{valid}");
        }
        let many = format!("{time},v1={}{good}", format!("{other},").repeat(8));
        for (refused, why) in [
            (format!("{time},v1={other},{other}"), Reason::SignatureMismatch),
            (format!("{time},v0={other},{good}"), Reason::SignatureMalformed),
            (format!("{good},{time},v0={other}"), Reason::SignatureMalformed),
            (format!("{time},v1=,"), Reason::SignatureMalformed),
            (many, Reason::SignatureMalformed),
        ] {
            assert_eq!(reason(&verifier, &[("Datagrid-Signature", &refused)], "{}"), Some(why), "{refused}");
        }
    }
}

/// As HaloPSA sends it: <https://github.com/jackmusick/bifrost/issues/726>.
#[test]
fn white_space_between_the_prefix_and_the_signature_is_ignored() {
    let verifier = verifier("signature = { header = 'S', prefix = 'sha256=', signed = '{body}' }", &[SECRET]);
    let good = signed(&verifier, b"{}").headers["s"].to_str().unwrap().replace("sha256=", "");
    for (value, why) in [
        (format!("sha256= {good}"), None),
        (format!("sha256={}", good.to_uppercase()), None),
        (format!("sha256 ={good}"), Some(Reason::SignatureMalformed)),
        (format!("sha256= {} {}", &good[..32], &good[32..]), Some(Reason::SignatureMalformed)),
    ] {
        assert_eq!(reason(&verifier, &[("S", &value)], "{}"), why, "{value}");
    }
}

/// As Paddle sends it, with two signatures while a secret is rotated.
#[test]
fn w6_a_list_is_separated_by_semicolons_as_well() {
    let rules = "signature = { header = 'S', signature_key = 'h1', timestamp_key = 'ts', signed = '{timestamp}:{body}' }";
    let verifier = verifier(rules, &[SECRET]);
    let good = signed(&verifier, b"{}").headers["s"].to_str().unwrap().replace(',', ";");
    let other = format!("h1={}", "0".repeat(64));
    for valid in [good.clone(), format!("{good};{other}"), good.replace(";h1", &format!(";{other};h1"))] {
        assert_eq!(reason(&verifier, &[("S", &valid)], "{}"), None, "{valid}");
    }
    let twice = format!("ts=1;{good}");
    assert_eq!(reason(&verifier, &[("S", &twice)], "{}"), Some(Reason::SignatureMalformed));
}

/// The examples of RFC 7617 and RFC 6750. The name of the scheme has no case (RFC 9110, 11.1).
#[test]
fn tokens_of_the_authorization_header_are_compared_as_they_are() {
    for (kind, secret, header) in [
        ("basic", "Aladdin:open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("bearer", "mF_9.B5f-4.1JqM", "Bearer mF_9.B5f-4.1JqM"),
    ] {
        let verifier =
            verifier(&format!("signature = {{ kind = '{kind}', header = 'Authorization' }}"), &[secret]);
        let (scheme, token) = header.split_once(' ').unwrap();
        for valid in [header.to_owned(), format!("{} {token}", scheme.to_lowercase())] {
            assert_eq!(reason(&verifier, &[("Authorization", &valid)], "any"), None, "{valid}");
        }
        for (other, why) in [
            (token.to_owned(), Reason::SignatureMalformed),
            (format!("Digest {token}"), Reason::SignatureMalformed),
            (header.to_uppercase(), Reason::SignatureMismatch),
            (format!("{header}x"), Reason::SignatureMismatch),
        ] {
            assert_eq!(reason(&verifier, &[("Authorization", &other)], "any"), Some(why), "{other}");
        }
        let mut headers = HeaderMap::new();
        verifier.sign(b"any", Timestamp::UNIX_EPOCH, &mut headers).unwrap();
        assert_eq!(headers["authorization"], header);
        assert!(headers["authorization"].is_sensitive());
    }
}

#[test]
fn the_age_is_the_signed_time_s_whichever_its_unit() {
    let age = |rule: &str, header: &str, received_at: &str| {
        let rules = format!(
            "signature = {{ header = 'S', timestamp_header = 'T', signed = '{{timestamp}}.{{body}}', {rule} }}"
        );
        let verifier = verifier(&rules, &[SECRET]);
        let mac = Signer::new(config::Hash::Sha256, SECRET.as_bytes()).unwrap();
        let signature = hex::encode(&mac.digest([header.as_bytes(), b".", b"{}"].into_iter())[..32]);
        let mut delivery = delivery(&[("S".into(), signature), ("T".into(), header.into())], b"{}");
        delivery.received_at = received_at.parse().unwrap();
        verifier.verify(&delivery).unwrap().age().unwrap()
    };
    let at = "2026-04-10T19:05:00Z"; // 300 s after 1775847600
    let (seconds, millis) = ("timestamp_unit = 'seconds'", "timestamp_unit = 'milliseconds'");
    assert_eq!(age("", "1775847600", at), SignedDuration::from_secs(300));
    assert_eq!(age(seconds, "1775847901", at), SignedDuration::from_secs(-1));
    assert_eq!(age(millis, "1775847600250", at), SignedDuration::from_millis(299_750));
    let date = "timestamp_format = 'rfc3339'";
    assert_eq!(age(date, "2026-04-10T19:00:00Z", at), SignedDuration::from_secs(300));
    assert_eq!(age(date, "2026-04-10T21:05:01.5+02:00", at), SignedDuration::from_millis(-1500));
    assert!(age(seconds, "99999999999999999999", at).as_hours() < -1_000_000);
    assert!(age(millis, "99999999999999999999", at).as_hours() < -1_000_000);
    assert_eq!(
        verifier(GRAPEVINE, &[SECRET]).verify(&signed(&verifier(GRAPEVINE, &[SECRET]), b"{}")).unwrap().age(),
        None
    );
}

#[test]
fn a_secret_counts_within_its_time_only() {
    let instant = |text: &str| Some(text.parse().unwrap());
    let old = ValidityWindow { not_before: None, not_after: instant("2026-01-01T00:00:00Z") };
    let new = ValidityWindow {
        not_before: instant("2026-01-01T00:00:00Z"),
        not_after: instant("2027-01-01T00:00:00Z"),
    };
    let secrets = [
        Secret::new("old", "the-old-secret-1").within(old),
        Secret::new("new", "the-new-secret-1").within(new),
    ];
    let mut problems = ConfigErrors::default();
    let verifier = Verifier::compile(&[rules(GRAPEVINE)], &secrets, "signature", &mut problems).unwrap();
    for (by, at, expected) in [
        ("the-old-secret-1", "2025-12-31T23:59:59Z", Ok("old")),
        ("the-old-secret-1", "2026-01-01T00:00:00Z", Ok("old")),
        ("the-old-secret-1", "2026-01-01T00:00:00.001Z", Err(Reason::SecretExpired)),
        ("the-new-secret-1", "2025-12-31T23:59:59Z", Err(Reason::SecretExpired)),
        ("the-new-secret-1", "2026-01-01T00:00:00Z", Ok("new")),
        ("the-new-secret-1", "2027-01-01T00:00:01Z", Err(Reason::SecretExpired)),
        ("another-secret-1", "2026-01-01T00:00:00Z", Err(Reason::SignatureMismatch)),
    ] {
        // With a space, so that only the canonical form was signed.
        let mut delivery = signed(&self::verifier(GRAPEVINE, &[by]), br#"{"event": "x"}"#);
        delivery.received_at = at.parse().unwrap();
        let found = verifier.verify(&delivery);
        let name = found.as_ref().map(|verified| verified.secret()).map_err(|fault| fault.reason);
        assert_eq!(name, expected, "{by} {at}");
        if let Err(Fault { reason: Reason::SecretExpired, detail }) = found {
            let detail = detail.unwrap();
            assert!(detail.starts_with("the secret ") && !detail.contains("secret-1"), "{detail}");
        }
    }
    let mut headers = HeaderMap::new();
    verifier.sign(b"{}", "2026-06-01T00:00:00Z".parse().unwrap(), &mut headers).unwrap();
    let mut delivery = delivery(&[], b"{}");
    (delivery.headers, delivery.received_at) = (headers, "2026-06-01T00:00:00Z".parse().unwrap());
    assert_eq!(verifier.verify(&delivery).unwrap().secret(), "new", "the secret that counts signs");
}

#[test]
fn a_token_is_compared_whole() {
    let verifier = verifier("signature = { kind = 'token', header = 'X-Token' }", &["first-token", SECRET]);
    assert_eq!(reason(&verifier, &[("X-Token", SECRET)], "anything"), None);
    let longer = format!("{SECRET}x");
    for wrong in ["", "x", &SECRET[1..], &SECRET[..SECRET.len() - 1], &longer, &SECRET.to_uppercase()] {
        assert_eq!(
            reason(&verifier, &[("X-Token", wrong)], "{}"),
            Some(Reason::SignatureMismatch),
            "{wrong}"
        );
    }
    assert_eq!(reason(&verifier, &[], "{}"), Some(Reason::SignatureMissing));
    let prefixed = self::verifier(
        "signature = { kind = 'token', header = 'Authorization', prefix = 'Bearer ' }",
        &[SECRET],
    );
    assert_eq!(reason(&prefixed, &[("Authorization", &format!("Bearer {SECRET}"))], ""), None);
    assert_eq!(reason(&prefixed, &[("Authorization", SECRET)], ""), Some(Reason::SignatureMalformed));

    let mut problems = ConfigErrors::default();
    let rules = rules("signature = { kind = 'token', header = 'X-Token' }");
    Verifier::compile(
        std::slice::from_ref(&rules),
        &[Secret::new("odd", "two\nlines of it")],
        "signature",
        &mut problems,
    );
    let shown = problems.to_string();
    assert!(shown.contains("the token odd has characters") && !shown.contains("lines of it"), "{shown}");
}

#[test]
fn w2_a_dead_letter_stores_no_token_of_another_scheme() {
    let token = rules("signature = { kind = 'token', header = 'X-Key' }");
    let signature = rules("signature = { header = 'S', signed = '{body}' }");
    let reads_it = rules("signature = { header = 'S', id_header = 'X-Key', signed = '{id}.{body}' }");
    for signature in [signature, reads_it] {
        let schemes = [signature, token.clone()];
        let verifier = verifier_of_schemes(&schemes, &[SECRET]);
        let mut delivery = delivery(&[("x-key".into(), "a-token".into()), ("x-a".into(), "a".into())], b"{}");
        verifier.sign(b"{}", delivery.received_at, &mut delivery.headers).unwrap();
        let verified = verifier.verify(&delivery).unwrap();
        let kept = verified.kept(&[]);
        let names: Vec<_> = kept.iter().map(|(name, _)| *name).collect();
        assert!(names.contains(&"s") && names.contains(&"x-a") && !names.contains(&"x-key"), "{names:?}");
    }
}

#[test]
fn w2_a_source_has_up_to_four_schemes() {
    let schemes = vec![rules("signature = { header = 'S', signed = '{body}' }"); 5];
    let mut problems = ConfigErrors::default();
    assert!(Verifier::compile(&schemes, &[], "signature", &mut problems).is_none());
    assert_eq!(problems.lines(), ["signature: has more than 4 schemes"]);
    assert!(Verifier::compile(&schemes[1..], &[], "signature", &mut problems).is_some());
    let mut wrong = schemes[..2].to_vec();
    wrong[1].signed = Some("{nonsense}".into());
    assert!(Verifier::compile(&wrong, &[], "signature", &mut problems).is_none());
    assert!(problems.lines()[1].starts_with("signature.1.signed: "), "{problems}");
}
