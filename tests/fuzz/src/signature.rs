//! One byte that selects the scheme, then a request, which is verified as it is, then signed and verified again.

use std::sync::LazyLock;

use hmac::{Hmac, KeyInit, Mac};
use hookstream::config::{
    self, BodyForm, ConfigErrors, Encoding, Hash, Secret, Signature, SignatureKind, ValidityWindow,
};
use hookstream::outcome::Reason;
use hookstream::verify::{Verifier, canonical};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use super::{NOW, delivery, request};

/// The current key.
const KEY: &[u8] = b"fuzz-key-0123456789abcdef";

/// The expired key.
const OLD: &[u8] = b"fuzz-old-0123456789abcdef";

struct Scheme {
    rules: Signature,
    verifier: Verifier,
}

/// Layouts that neither the presets nor the fixtures have, one table each.
const MORE: &str = r#"
[list]
header = "x-sig"
signature_key = "s"
signed = "{body}"

[canonical-only]
header = "x-sig"
signed = "{body}"
forms = ["json_compact_ascii"]

[both-forms]
header = "x-sig"
encoding = "base64"
signed = "v0:{body}:v0"
forms = ["raw", "json_compact_ascii"]

[many-headers]
header = "x-sig"
signature_version = "v1"
timestamp_header = "x-time"
id_header = "x-id"
encoding = "base64url"
hash = "sha512"
signed = "{header:X-A}, {id}: {body}|{timestamp}|{header:X-B}"

[behind]
header = "x-sig"
signature_key = "v1"
timestamp_key = "t"
timestamp_unit = "milliseconds"
hash = "sha1"
signed = "{body}\r\n{timestamp}"

[token]
kind = "token"
header = "authorization-token"
prefix = "Bearer "

[two-names]
header = ["x-sig", "old-sig"]
timestamp_header = ["x-time", "old-time"]
id_header = ["x-id", "old-id"]
signed = "{id}.{timestamp}.{body}"
"#;

const KNOWN: [&str; 10] = [
    "datagrid",
    "github",
    "gitlab",
    "grapevine",
    "linear",
    "shopify",
    "slack",
    "standard-webhooks",
    "stripe",
    "svix",
];

static SCHEMES: LazyLock<Vec<Scheme>> = LazyLock::new(|| {
    // Those that the corpus knows by their position come first.
    let (known, new): (Vec<_>, Vec<_>) = config::presets().partition(|(name, _)| KNOWN.contains(name));
    let parse = |(_, text): (&str, &str)| text.parse::<toml::Table>().unwrap();
    let presets = known.into_iter().map(parse);
    let new = new.into_iter().map(parse);
    let fixtures: toml::Table = include_str!("../../fixtures/signatures/providers.toml").parse().unwrap();
    let tables = fixtures.into_iter().map(|(_, table)| table.try_into().unwrap());
    let more = MORE.parse::<toml::Table>().unwrap();
    let more = more.into_iter().map(|(_, rules)| rules.try_into().unwrap());
    // The last scheme of a preset takes the preset's position; its other schemes follow at the end.
    let mut others = Vec::new();
    let mut schemes: Vec<Signature> = Vec::new();
    for table in presets.chain(tables) {
        let mut of_table = match table["signature"].clone() {
            toml::Value::Array(schemes) => schemes,
            scheme => vec![scheme],
        };
        schemes.push(of_table.pop().unwrap().try_into().unwrap());
        others.extend(of_table.into_iter().map(|scheme| scheme.try_into().unwrap()));
    }
    let new = new.flat_map(|table| match table["signature"].clone() {
        toml::Value::Array(schemes) => schemes,
        scheme => vec![scheme],
    });
    let new = new.map(|scheme| scheme.try_into().unwrap());
    schemes.into_iter().chain(more).chain::<Vec<Signature>>(others).chain(new).map(scheme).collect()
});

fn scheme(mut rules: Signature) -> Scheme {
    if rules.signed.as_ref().is_some_and(|signed| signed.contains("{url}")) {
        rules.url.get_or_insert_with(|| "https://example.com/hooks/x".to_owned());
    }
    let ended = ValidityWindow { not_after: Some(Timestamp::UNIX_EPOCH), ..ValidityWindow::default() };
    let secrets = [Secret::new("old", OLD).within(ended), Secret::new("current", KEY)];
    let mut problems = ConfigErrors::default();
    let verifier = Verifier::compile(std::slice::from_ref(&rules), &secrets, "signature", &mut problems);
    Scheme { verifier: verifier.unwrap_or_else(|| panic!("{problems}")), rules }
}

/// A request verifies only if the key signed it. A signed request verifies, but not after a change of one byte.
pub fn run(data: &[u8]) {
    let Some((&which, rest)) = data.split_first() else { return };
    let Some(scheme) = SCHEMES.get(usize::from(which) % SCHEMES.len()) else { return };
    let rules = &scheme.rules;
    let name = |name: &str| HeaderName::try_from(name).ok();
    let (mut headers, body) = request(rest, |alias| match alias {
        "s" => name(rules.header.first()?),
        "t" => name(rules.timestamp_header.first()?),
        "i" => name(rules.id_header.first()?),
        _ => None,
    });
    check_verdict(scheme, &headers, body);
    for own in rules.header.iter().chain(&rules.timestamp_header) {
        headers.remove(own);
    }
    if scheme.verifier.sign(body, Timestamp::from_second(NOW).unwrap(), &mut headers).is_ok() {
        check_changes(scheme, &headers, body, rest);
    }
}

/// Checks the verdict about the unchanged request.
fn check_verdict(scheme: &Scheme, headers: &HeaderMap, body: &[u8]) {
    let Scheme { rules, verifier } = scheme;
    let values: Vec<_> = headers.get_all(counting(&rules.header, headers)).iter().collect();
    let delivery = delivery(headers.clone(), body);
    match verifier.verify(&delivery) {
        Ok(verified) => {
            assert_eq!(verified.secret(), "current");
            assert_eq!(values.len(), 1, "a repeated signature header");
            assert!(listed(rules, values[0]) <= 8, "more signatures than the limit");
            assert!(signed_by(KEY, rules, headers, body), "not signed by the key");
        }
        Err(fault) => {
            assert!(!signed_alone(rules, headers, body, values.len()), "signed, but refused as {fault}");
            if let [value] = values.as_slice() {
                let too_many = listed(rules, value) > 8;
                assert!(!too_many || fault.reason == Reason::SignatureMalformed, "{fault}");
            }
            if fault.reason == Reason::SecretExpired {
                assert!(signed_by(OLD, rules, headers, body));
            }
            let message = fault.to_string();
            assert!(![KEY, OLD].iter().any(|key| message.contains(str::from_utf8(key).unwrap())));
        }
    }
}

/// Whether the request is the simplest case of a valid signature, which must verify: the signature is the whole header.
fn signed_alone(rules: &Signature, headers: &HeaderMap, body: &[u8], values: usize) -> bool {
    let plain = rules.signature_key.is_none() && rules.signature_version.is_none();
    let text = rules.signed.as_deref() == Some("{body}");
    let prefix = rules.prefix.clone().unwrap_or_default();
    values == 1
        && plain
        && text
        && texts(rules, headers, body).into_iter().flatten().any(|text| {
            let wanted = format!("{prefix}{}", written(rules, KEY, &text));
            headers[counting(&rules.header, headers)] == wanted
        })
}

/// The name that counts, of a header with several names.
fn counting<'n>(names: &'n [String], headers: &HeaderMap) -> &'n str {
    let found = names.iter().find(|name| headers.contains_key(name.as_str()));
    found.or(names.first()).map_or("", String::as_str)
}

/// Whether this byte of the header is in the name of an authentication scheme.
fn ignores_case(rules: &Signature, at: usize) -> bool {
    match rules.kind {
        SignatureKind::Bearer => at <= "Bearer ".len(),
        SignatureKind::Basic => at <= "Basic ".len(),
        _ => false,
    }
}

/// The parts of a list: each of its sets is separated by semicolons if it has one.
fn parts(list: &str) -> Vec<String> {
    let of_set = |set: &str| {
        let between = if set.contains(';') { ';' } else { ',' };
        set.split(between).map(str::to_owned).collect::<Vec<_>>()
    };
    list.split(' ').flat_map(of_set).collect()
}

/// The number of signatures in a header.
fn listed(rules: &Signature, value: &HeaderValue) -> usize {
    let value = value.to_str().unwrap_or_default().trim();
    match (&rules.signature_key, &rules.signature_version) {
        (Some(key), _) => {
            let is_signature = |part: &&String| part.split_once('=').is_some_and(|(k, _)| k == key);
            parts(value).iter().filter(is_signature).count()
        }
        (_, Some(version)) => {
            value.split(' ').filter(|part| part.split_once(',').is_some_and(|(v, _)| v == version)).count()
        }
        _ => 1,
    }
}

/// Whether the header contains the signature of the request with `key`.
fn signed_by(key: &[u8], rules: &Signature, headers: &HeaderMap, body: &[u8]) -> bool {
    let value = headers[counting(&rules.header, headers)].to_str().unwrap();
    if rules.kind.is_token() {
        let prefix = match rules.kind {
            SignatureKind::Bearer => "Bearer ",
            SignatureKind::Basic => "Basic ",
            _ => rules.prefix.as_deref().unwrap_or_default(),
        };
        let token = match rules.kind {
            SignatureKind::Basic => base64(key, b"+/", true),
            _ => str::from_utf8(key).unwrap().to_owned(),
        };
        return value.trim_ascii_end().strip_suffix(&token).is_some_and(|found| {
            let found = found.trim_ascii_start();
            found == prefix || ignores_case(rules, prefix.len()) && found.eq_ignore_ascii_case(prefix)
        });
    }
    texts(rules, headers, body).into_iter().flatten().any(|text| {
        let digest = written(rules, key, &text);
        match rules.encoding.unwrap_or_default() {
            Encoding::Hex => value.to_ascii_lowercase().contains(&digest),
            _ => value.contains(digest.trim_end_matches('=')),
        }
    })
}

/// The signed text for each form of the body; `None` if a part is missing.
fn texts(rules: &Signature, headers: &HeaderMap, body: &[u8]) -> Vec<Option<Vec<u8>>> {
    let forms = rules.forms.iter().filter_map(|form| match form {
        BodyForm::Raw => Some(body.to_vec()),
        BodyForm::JsonCompactAscii => canonical::json_compact_ascii(body).ok().map(|form| form.into_owned()),
    });
    forms.map(|body| expand(rules, headers, &body)).collect()
}

fn expand(rules: &Signature, headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
    let (mut rest, mut out) = (rules.signed.as_deref()?, Vec::new());
    let header = |name: &str| headers.get(name).map(|value| value.as_bytes().to_vec());
    while let Some((literal, tail)) = rest.split_once('{') {
        out.extend(literal.as_bytes());
        let (variable, tail) = tail.split_once('}')?;
        rest = tail;
        out.extend(match variable {
            "body" => body.to_vec(),
            "url" => rules.url.clone()?.into_bytes(),
            "method" => b"POST".to_vec(),
            "id" => header(counting(&rules.id_header, headers))?,
            "timestamp" => match (rules.timestamp_header.is_empty(), &rules.timestamp_key) {
                (false, _) => header(counting(&rules.timestamp_header, headers))?,
                (true, key) => {
                    let list = headers.get(counting(&rules.header, headers))?.to_str().ok()?;
                    let parts = parts(list);
                    let mut parts = parts.iter().filter_map(|part| part.split_once('='));
                    parts.find(|(found, _)| Some(*found) == key.as_deref())?.1.as_bytes().to_vec()
                }
            },
            other => header(other.strip_prefix("header:")?)?,
        });
    }
    out.extend(rest.as_bytes());
    Some(out)
}

fn written(rules: &Signature, key: &[u8], text: &[u8]) -> String {
    let digest = match rules.hash.unwrap_or_default() {
        Hash::Sha256 => mac::<Hmac<Sha256>>(key, text),
        Hash::Sha512 => mac::<Hmac<Sha512>>(key, text),
        Hash::Sha1 => mac::<Hmac<Sha1>>(key, text),
    };
    match rules.encoding.unwrap_or_default() {
        Encoding::Hex => digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        Encoding::Base64 => base64(&digest, b"+/", true),
        Encoding::Base64url => base64(&digest, b"-_", false),
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn base64(bytes: &[u8], last: &[u8; 2], padded: bool) -> String {
    let digits: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(*last).collect();
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().enumerate().fold(0, |bits, (at, &byte)| bits | usize::from(byte) << (16 - 8 * at));
        for digit in 0..4 {
            match digit <= group.len() {
                true => out.push(char::from(digits[bits >> (18 - 6 * digit) & 63])),
                false if padded => out.push('='),
                false => {}
            }
        }
    }
    out
}

/// Checks a request that was signed here, and the same with one byte changed.
fn check_changes(scheme: &Scheme, headers: &HeaderMap, body: &[u8], choice: &[u8]) {
    let Scheme { rules, verifier } = scheme;
    let original = delivery(headers.clone(), body);
    let secret = verifier.verify(&original).map(|verified| verified.secret().to_owned());
    assert_eq!(secret.as_deref().ok(), Some("current"), "{secret:?}");
    check_verdict(scheme, headers, body);

    let sum = choice.iter().fold(7_usize, |sum, &byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    let bits = (sum >> 16) as u8 | 1;
    let flip = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let at = sum % bytes.len().max(1);
        bytes.get_mut(at).map(|byte| *byte ^= bits).map(|()| (at, bytes))
    };
    if let Some((_, bytes)) = flip(body) {
        let form = |body: &[u8]| canonical::json_compact_ascii(body).ok().map(|form| form.into_owned());
        // The canonical form ignores white space, and a token does not depend on the body.
        let stays = rules.forms.contains(&BodyForm::JsonCompactAscii)
            && form(&bytes).is_some()
            && form(&bytes) == form(body);
        let verdict = verifier.verify(&delivery(headers.clone(), &bytes)).is_ok();
        assert_eq!(verdict, stays || rules.kind.is_token(), "one byte of the body changed");
    }
    let value = headers[rules.header[0].as_str()].as_bytes();
    let Some((at, bytes)) = flip(value) else { return };
    let case = bytes[at].eq_ignore_ascii_case(&value[at]) && value[at].is_ascii_hexdigit();
    let hex = rules.kind == SignatureKind::Hmac && rules.encoding.unwrap_or_default() == Encoding::Hex;
    if let Ok(changed) = HeaderValue::from_bytes(&bytes) {
        let mut headers = headers.clone();
        headers.insert(HeaderName::try_from(&rules.header[0]).unwrap(), changed);
        let verdict = verifier.verify(&delivery(headers, body)).is_ok();
        // Keys and prefixes are case-sensitive, but for the name of an authentication scheme.
        let name = ignores_case(rules, at) && bytes[at].eq_ignore_ascii_case(&value[at]);
        assert!(!verdict || case && hex || name, "one byte of the signature changed");
    }
    let mut twice = headers.clone();
    twice.append(HeaderName::try_from(&rules.header[0]).unwrap(), headers[rules.header[0].as_str()].clone());
    assert!(verifier.verify(&delivery(twice, body)).is_err(), "a repeated signature header");
}
