//! [`Verifier::sign`] and [`Verifier::verify`] are inverse for any rule, and nothing else verifies.

use super::*;
use crate::config::{Encoding, Hash, SecretFormat, SignatureKind, TimestampFormat, TimestampUnit};

/// Any rule that compiles, of every layout.
fn any_rules() -> impl Strategy<Value = config::Signature> {
    let hash = prop::sample::select(vec![None, Some(Hash::Sha256), Some(Hash::Sha512), Some(Hash::Sha1)]);
    let encoding = prop::sample::select(vec![Encoding::Hex, Encoding::Base64, Encoding::Base64url]);
    let times = [
        (TimestampFormat::Unix, Some(TimestampUnit::Seconds)),
        (TimestampFormat::Unix, Some(TimestampUnit::Milliseconds)),
        (TimestampFormat::Rfc3339, None),
        (TimestampFormat::HttpDate, None),
    ];
    let time = prop::sample::select(times.to_vec());
    let forms = prop::sample::select(vec![
        vec![BodyForm::Raw],
        vec![BodyForm::JsonCompactAscii],
        vec![BodyForm::Raw, BodyForm::JsonCompactAscii],
    ]);
    let signed = prop::sample::select(vec![
        "{body}",
        "v0:{body}:v0",
        "{timestamp}.{body}",
        "{body}\n{timestamp}",
        "{id}.{timestamp}.{body}",
        "{header:X-A}, {id}: {body}|{timestamp}|{header:X-B}",
        "{url}{body}",
        "{timestamp}{url}{body}",
        "{header:X-A}.{header:X-A}.{body}",
        "{method}{url}{body}|{timestamp}",
    ]);
    let (layout, prefix) = (0..4, prop::sample::select(vec![None, Some(""), Some("sha=")]));
    (layout, prefix, hash, encoding, time, forms, signed, any::<bool>()).prop_map(
        |(layout, prefix, hash, encoding, (format, unit), forms, signed, own_header)| {
            let prefix = prefix.map(str::to_owned);
            let header = vec![String::from("X-Signature")];
            if layout == 0 {
                return config::Signature {
                    kind: SignatureKind::Token,
                    header,
                    prefix,
                    forms: vec![BodyForm::Raw],
                    ..Default::default()
                };
            }
            let uses = |variable: &str| signed.contains(variable);
            let timed = uses("{timestamp}");
            // A date of HTTP has a comma.
            let in_list = timed && layout == 2 && !own_header && format != TimestampFormat::HttpDate;
            config::Signature {
                header,
                prefix: prefix.filter(|_| layout == 1),
                signature_key: (layout == 2).then(|| "s".into()),
                timestamp_key: in_list.then(|| "t".into()),
                signature_version: (layout == 3).then(|| "v1".into()),
                timestamp_header: (timed && !in_list).then(|| "X-Time".into()).into_iter().collect(),
                timestamp_format: timed.then_some(format),
                timestamp_unit: unit.filter(|_| timed),
                id_header: uses("{id}").then(|| "X-Id".into()).into_iter().collect(),
                url: uses("{url}").then(|| "https://example.com/hooks/x?y=1".into()),
                hash,
                encoding: Some(encoding),
                secret_format: SecretFormat::Text,
                signed: Some(signed.into()),
                forms,
                kind: SignatureKind::Hmac,
            }
        },
    )
}

/// Whether a byte of the signature header may differ and mean the same: a hex digit in the other
/// case.
fn same(rules: &config::Signature, before: u8, after: u8) -> bool {
    rules.kind == SignatureKind::Hmac
        && rules.encoding == Some(Encoding::Hex)
        && before.is_ascii_hexdigit()
        && before.eq_ignore_ascii_case(&after)
}

#[test]
fn what_is_signed_verifies_and_no_change_of_one_byte_does() {
    println!("seed: [11; 32]");
    let mut runner = TestRunner::new_with_rng(
        Runs { cases: 2000, failure_persistence: None, ..Runs::default() },
        TestRng::from_seed(RngAlgorithm::ChaCha, &[11; 32]),
    );
    let body = ("[a-z\u{fc}\u{1f600} .|:\n]{0,12}", any::<i64>()).prop_map(|(text, number)| {
        format!("{{\"text\" :{},\"n\":{number}}}", serde_json::to_string(&text).unwrap())
    });
    let values = ("[a-z0-9 ]{0,6}", "[a-z0-9 ]{0,6}", any::<bool>());
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1_u8..=255);
    let times = 0_i64..4_000_000_000;
    runner
        .run(&(any_rules(), body, values, times, change), |(rules, body, (a, b, own_id), time, change)| {
            let verifier = verifier_of(&rules, &["another-secret-0", SECRET]);
            let signer = verifier_of(&rules, &[SECRET]);
            let mut original = delivery(&[], body.as_bytes());
            original.headers.insert("x-a", HeaderValue::try_from(&a).unwrap());
            original.headers.insert("x-b", HeaderValue::try_from(&b).unwrap());
            if own_id {
                original.headers.insert("x-id", HeaderValue::from_static("msg-1"));
            }
            signer
                .sign(body.as_bytes(), Timestamp::from_second(time).unwrap(), &mut original.headers)
                .unwrap();
            let verified = verifier.verify(&original);
            prop_assert_eq!(
                verified.as_ref().map(|verified| verified.secret()).ok(),
                Some("secret-1"),
                "{:?}",
                verified
            );
            prop_assert_eq!(
                verified.unwrap().age().is_some(),
                rules.timestamp_key.is_some() || !rules.timestamp_header.is_empty()
            );

            let (which, place, bits) = change;
            let mut read: Vec<HeaderName> = signer.schemes[0].scheme.headers.clone();
            if rules.kind == SignatureKind::Token {
                read.push(signer.schemes[0].scheme.header.first().unwrap().clone());
            }
            for name in [None].into_iter().chain(read.iter().map(Some)) {
                let mut changed = original.clone();
                let mut bytes = match name {
                    None => body.as_bytes().to_vec(),
                    Some(name) => original.headers[name].as_bytes().to_vec(),
                };
                if bytes.is_empty() {
                    continue;
                }
                let at = which.index(bytes.len());
                let before = bytes[at];
                match name {
                    None => {
                        bytes[at] ^= bits;
                        changed.body = bytes.into();
                        // A token says nothing about the body; of the canonical form, white space is no part.
                        let form =
                            |body: &[u8]| canonical::json_compact_ascii(body).ok().map(Cow::into_owned);
                        let form_stays = rules.forms.contains(&BodyForm::JsonCompactAscii)
                            && form(&changed.body).is_some()
                            && form(&changed.body) == form(body.as_bytes());
                        let verdict = verifier.verify(&changed).is_ok();
                        prop_assert_eq!(
                            verdict,
                            rules.kind == SignatureKind::Token || form_stays,
                            "body {:?}",
                            changed.body
                        );
                    }
                    Some(name) => {
                        // Any visible character but the one that stands there.
                        let after =
                            (b'!'..=b'~').filter(|byte| *byte != before).nth(place.index(93)).unwrap();
                        bytes[at] = after;
                        if same(&rules, before, after)
                            && Some(name) == signer.schemes[0].scheme.header.first()
                        {
                            continue;
                        }
                        changed.headers.insert(name, HeaderValue::from_bytes(&bytes).unwrap());
                        prop_assert!(
                            verifier.verify(&changed).is_err(),
                            "{}: {:?}",
                            name,
                            changed.headers[name]
                        );
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_header_that_is_signed_and_not_given_is_told() {
    let verifier = verifier("signature = { header = 'S', signed = '{header:X-Kind}:{body}' }", &[SECRET]);
    let sign = |headers: &mut HeaderMap| verifier.sign(b"{}", Timestamp::UNIX_EPOCH, headers);
    let fault = sign(&mut HeaderMap::new()).unwrap_err();
    assert_eq!(fault.to_string(), "signature_missing: x-kind is signed; add it to the headers");
    // The provider could not have sent it either.
    let mut headers =
        HeaderMap::from_iter([(HeaderName::from_static("x-kind"), HeaderValue::from_static("a:b"))]);
    assert_eq!(sign(&mut headers).unwrap_err().reason, Reason::SignatureMalformed);
}
