//! A dead letter: its headers, one per line, an empty line, and its value.

use std::sync::{Arc, LazyLock};

use hookstream::config::{ConfigErrors, Secret, Signature};
use hookstream::outcome::Reason;
use hookstream::record::{DeadLetter, Record};
use hookstream::verify::Verifier;
use http::HeaderName;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;

use super::{NOW, delivery, request};

type Headers = Vec<(String, Option<Vec<u8>>)>;

static READ: [HeaderName; 1] = [CONTENT_TYPE];

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let rules: Signature = toml::from_str("header = \"x-sig\"\nsigned = \"{body}\"").unwrap();
    let secrets = [Secret::new("one", "wh_of-the-letters-0123")];
    Verifier::compile(std::slice::from_ref(&rules), &secrets, "signature", &mut ConfigErrors::default())
        .unwrap()
});

/// A letter without a valid seal does not unseal. A sealed one does, unchanged, but not after any change.
pub fn run(data: &[u8]) {
    let (head, value) = match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (&[][..], data),
    };
    assert!(!unseals(lines(head), value), "unsealed without a seal");

    let (mut headers, body) = request(data, |_| None);
    headers.remove("x-sig");
    VERIFIER.sign(body, Timestamp::from_second(NOW).unwrap(), &mut headers).unwrap();
    let delivery = delivery(headers, body);
    let verified = VERIFIER.verify(&delivery).unwrap();
    let (topic, why): (Arc<str>, _) = ("dead_letter.a".into(), Reason::TypeUnknown.into());
    let record = Record::dead_letter(&topic, "key".into(), None, &verified, &READ, &why);
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let headers: Headers =
        record.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let mut letter =
        DeadLetter::read(headers.clone(), record.value().to_vec()).expect("one of our dead letters");
    let read = letter.unseal(&VERIFIER).expect("a valid seal");
    assert_eq!(read.delivery().body, delivery.body);

    let place = data.first().map_or(0, |byte| usize::from(*byte));
    let mut value = record.value().to_vec();
    let at = place % value.len();
    value[at] ^= 1;
    assert!(!unseals(headers.clone(), &value), "unsealed with a change of the body at {at}");
    for sealed in ["x-sig", "content-type", "hookstream-received-at", "hookstream-seal"] {
        let mut headers = headers.clone();
        let found = headers.iter_mut().find(|(name, _)| name == sealed);
        let Some((_, Some(text))) =
            found.filter(|(_, text)| text.as_ref().is_some_and(|text| !text.is_empty()))
        else {
            continue;
        };
        let at = place % text.len();
        text[at] ^= 1;
        assert!(!unseals(headers, record.value()), "unsealed with a change of {sealed} at {at}");
    }
}

fn unseals(headers: Headers, value: &[u8]) -> bool {
    DeadLetter::read(headers, value.to_vec()).is_some_and(|mut letter| letter.unseal(&VERIFIER).is_ok())
}

fn lines(head: &[u8]) -> Headers {
    let line = |line: &[u8]| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let value = &line[colon + 1..];
        let name = String::from_utf8_lossy(&line[..colon]).into_owned();
        Some((name, (value != b"null").then(|| value.to_vec())))
    };
    head.split(|&byte| byte == b'\n').filter_map(line).collect()
}
