//! `[source.NAME.signature]`: how a provider authenticates its deliveries. The rules are plain data; `verify` compiles
//! and checks them.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::de;

/// Headers that contain credentials. Headers that a rule reads are stored in dead letters, so a rule must not read
/// these.
pub const CREDENTIALS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

/// Reads the schemes of a source: a table, or a list of tables.
pub(super) fn schemes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Signature>, D::Error> {
    deserializer.deserialize_any(SchemesVisitor)
}

struct SchemesVisitor;

impl<'de> Visitor<'de> for SchemesVisitor {
    type Value = Vec<Signature>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table, or a list of tables")
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Self::Value, A::Error> {
        Ok(vec![Signature::deserialize(MapAccessDeserializer::new(table))?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut schemes = Vec::new();
        while let Some(scheme) = list.next_element()? {
            schemes.push(scheme);
        }
        if schemes.is_empty() {
            Err(A::Error::custom("is an empty list; describe a signature"))
        } else {
            Ok(schemes)
        }
    }
}

/// `[source.NAME.signature]`, or one of several `[[source.NAME.signature]]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// How the provider authenticates.
    #[serde(default, deserialize_with = "de::choice")]
    pub kind: SignatureKind,
    /// The header that contains the signature, or the token. Of several names, here and below, the first that the request
    /// has counts.
    #[serde(deserialize_with = "de::list")]
    pub header: Vec<String>,
    /// The text before the signature or the token, if the header is not a list.
    #[serde(default)]
    pub prefix: Option<String>,
    /// The key of the signature, if the header is a list, separated by commas or semicolons, of `key=value` parts. The list may contain
    /// several signatures.
    #[serde(default)]
    pub signature_key: Option<String>,
    /// The key of the signed timestamp in such a list.
    #[serde(default)]
    pub timestamp_key: Option<String>,
    /// The version of the signature, if the header contains `version,signature` parts separated by spaces, as in
    /// Standard Webhooks. Other versions are skipped.
    #[serde(default)]
    pub signature_version: Option<String>,
    /// The header with the signed timestamp, if it has its own header.
    #[serde(default, deserialize_with = "de::list")]
    pub timestamp_header: Vec<String>,
    /// How the signed timestamp is written; the default is a Unix time.
    #[serde(default, deserialize_with = "de::some_choice")]
    pub timestamp_format: Option<TimestampFormat>,
    /// The unit of a signed Unix time; the default is seconds.
    #[serde(default, deserialize_with = "de::some_choice")]
    pub timestamp_unit: Option<TimestampUnit>,
    /// The header with the value of `{id}`.
    #[serde(default, deserialize_with = "de::list")]
    pub id_header: Vec<String>,
    /// The value of `{url}`: the public URL that the provider calls. Behind a proxy, the service cannot know it.
    #[serde(default)]
    pub url: Option<String>,
    /// The hash of the HMAC; the default is SHA-256.
    #[serde(default, deserialize_with = "de::some_choice")]
    pub hash: Option<Hash>,
    /// The encoding of the signature; the default is hex.
    #[serde(default, deserialize_with = "de::some_choice")]
    pub encoding: Option<Encoding>,
    /// How the provider writes its secrets.
    #[serde(default, deserialize_with = "de::choice")]
    pub secret_format: SecretFormat,
    /// The signed text, with `{body}`, `{timestamp}`, `{id}`, `{url}`, `{method}`, `{header:NAME}`. Not used for a token.
    #[serde(default)]
    pub signed: Option<String>,
    /// The forms of `{body}`, tried in this order.
    #[serde(deserialize_with = "de::list", default = "raw")]
    pub forms: Vec<BodyForm>,
}

fn raw() -> Vec<BodyForm> {
    vec![BodyForm::Raw]
}

/// How a provider authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureKind {
    /// An HMAC over the delivery.
    #[default]
    Hmac,
    /// The shared secret itself, as GitLab sends it. It does not authenticate the body.
    Token,
    /// A token by RFC 6750: `Bearer` and the secret.
    Bearer,
    /// User and password by RFC 7617, which the secret contains with a colon between them.
    Basic,
}

impl SignatureKind {
    /// Whether a delivery contains the secret itself, so that anybody who sees one can make others.
    #[must_use]
    pub fn is_token(self) -> bool {
        self != Self::Hmac
    }

    /// What the header begins with, in either case.
    pub(crate) fn authorization(self) -> Option<&'static str> {
        match self {
            Self::Bearer => Some("Bearer "),
            Self::Basic => Some("Basic "),
            Self::Hmac | Self::Token => None,
        }
    }
}

/// The hash of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hash {
    #[default]
    Sha256,
    Sha512,
    /// SHA-1: only if the provider supports nothing better. HMAC-SHA-1 is not known to be broken; each start logs a
    /// warning nevertheless.
    Sha1,
}

/// The encoding of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Two digits for each byte, in either case.
    #[default]
    Hex,
    /// RFC 4648 section 4, with padding.
    Base64,
    /// RFC 4648 section 5, with or without padding: Python's `urlsafe_b64encode` pads, Node's `digest("base64url")`
    /// does not, and the length of the digest makes the decoding unambiguous.
    Base64url,
}

/// How a signed timestamp is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestampFormat {
    /// Decimal digits: the time since 1970.
    #[default]
    Unix,
    /// Such as `2026-01-02T03:04:05.678Z`; without a zone, UTC.
    Rfc3339,
    /// Such as `Thu, 04 Jan 2024 18:05:25 GMT`.
    HttpDate,
}

/// The unit of a signed Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestampUnit {
    /// Seconds since 1970.
    #[default]
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
}

/// How a provider writes its secrets, and therefore how the key is decoded from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretFormat {
    /// The text is the key.
    #[default]
    Text,
    /// RFC 4648 section 4, with or without padding.
    Base64,
    /// `whsec_` followed by base64, as in Standard Webhooks and Svix, whose libraries also take the base64 alone. Some
    /// providers show the version of their signatures before it, as in `v1,whsec_`.
    Whsec,
    /// Two digits for each byte.
    Hex,
}

/// The providers' own libraries accept a secret without padding, and ignore trailing bits after the last complete byte:
/// users must be able to write the secret as the provider issued it.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What a secret of [`SecretFormat::Whsec`] begins with.
const WHSEC: &[u8] = b"whsec_";

/// What a scheme signs with, overwritten on drop.
pub(super) type SchemeKey = Zeroizing<Vec<u8>>;

/// The keys that a source's schemes decode from a secret; `None` where the secret is not for the scheme. A secret with
/// `whsec_` in it is for the schemes with that format, if the source has one: if a character of it is lost, it is refused
/// and not taken as a token, which is sent as it is. Any other secret is for the other schemes, if one of them can read it.
///
/// # Errors
/// What the secret is not, as the end of a sentence.
pub(super) fn keys(schemes: &[Signature], secret: &[u8]) -> Result<Vec<Option<SchemeKey>>, String> {
    let says_whsec = secret.windows(WHSEC.len()).any(|part| part == WHSEC);
    let is_whsec = |scheme: &Signature| scheme.secret_format == SecretFormat::Whsec;
    let is_meant = |scheme: &Signature| is_whsec(scheme) == says_whsec;
    let keys: Vec<_> = schemes.iter().map(|scheme| scheme.secret_format.decode(secret)).collect();
    let meant = schemes.iter().zip(&keys).any(|(scheme, key)| key.is_ok() && is_meant(scheme));
    if says_whsec && !meant && schemes.iter().any(is_whsec) {
        return Err("`whsec_` and then base64, although it contains `whsec_`: look for a lost character, white space or \
                    quotes"
            .to_owned());
    }
    if keys.iter().all(Result::is_err) {
        let mut expected: Vec<&str> = keys.into_iter().filter_map(Result::err).collect();
        expected.dedup();
        return Err(expected.join(" or "));
    }
    let keys = schemes.iter().zip(keys);
    Ok(keys.map(|(scheme, key)| key.ok().filter(|_| !meant || is_meant(scheme))).collect())
}

impl SecretFormat {
    /// The key decoded from `secret`; never empty.
    ///
    /// # Errors
    /// The expected format, without any part of the text.
    pub fn decode(self, secret: &[u8]) -> Result<SchemeKey, &'static str> {
        let (key, expected) = match self {
            Self::Text => return Ok(secret.to_vec().into()),
            Self::Base64 => (LENIENT.decode(secret).ok(), "base64"),
            Self::Whsec => {
                let text = secret.strip_prefix(b"v1,").unwrap_or(secret);
                let text = text.strip_prefix(WHSEC).unwrap_or(text);
                (LENIENT.decode(text).ok(), "`whsec_` and then base64")
            }
            Self::Hex => (hex::decode(secret).ok(), "hex"),
        };
        key.filter(|key| !key.is_empty()).map(Zeroizing::new).ok_or(expected)
    }
}

/// A form of the body that a provider may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyForm {
    /// The bytes on the wire.
    Raw,
    /// Python's `json.dumps(..., separators=(",", ":"))` of the body on the wire.
    JsonCompactAscii,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys as decoded by Python's base64 and bytes.fromhex.
    #[test]
    fn secrets_are_decoded_from_the_providers_format() {
        let key = b"\xfb\xff\x00key";
        for (format, text) in [
            (SecretFormat::Base64, "+/8Aa2V5"),
            (SecretFormat::Whsec, "whsec_+/8Aa2V5"),
            (SecretFormat::Hex, "fbff006b6579"),
            (SecretFormat::Hex, "FBFF006B6579"),
        ] {
            assert_eq!(format.decode(text.as_bytes()).unwrap().as_slice(), key, "{text}");
        }
        for padded in ["a2V5cw==", "a2V5cw=", "a2V5cw", "a2V5cx"] {
            assert_eq!(
                SecretFormat::Base64.decode(padded.as_bytes()).unwrap().as_slice(),
                b"keys",
                "{padded}"
            );
        }
        assert_eq!(SecretFormat::Text.decode(b"whsec_+/8A").unwrap().as_slice(), b"whsec_+/8A");
    }

    /// Supabase shows the version of its signatures as a part of the secret.
    #[test]
    fn w14b_a_whsec_secret_is_taken_with_its_version_and_without_its_prefix() {
        for text in ["v1,whsec_a2V5cw==", "whsec_a2V5cw==", "v1,a2V5cw", "a2V5cw=="] {
            assert_eq!(*SecretFormat::Whsec.decode(text.as_bytes()).unwrap(), b"keys", "{text}");
        }
        for text in ["v1,", "v1,whsec_", "v1a,whsec_a2V5cw==", "whsec_v1,a2V5cw==", "not base64", ""] {
            assert!(SecretFormat::Whsec.decode(text.as_bytes()).is_err(), "{text}");
        }
        assert!(SecretFormat::Base64.decode(b"v1,a2V5cw==").is_err(), "only in this format");
    }

    #[test]
    fn a_damaged_whsec_secret_is_never_a_token() {
        let scheme = |secret_format| Signature { secret_format, ..Signature::default() };
        let both = [scheme(SecretFormat::Whsec), scheme(SecretFormat::Text)];
        for damaged in [
            "whsec_a2V5c",
            "whsec_a2V5cw== ",
            "whsec_a2V5cw==\n",
            " whsec_a2V5cw==",
            "\"whsec_a2V5cw==\"",
            "'v1,whsec_a2V5cw=='",
            "whsec_",
        ] {
            let why = keys(&both, damaged.as_bytes()).unwrap_err();
            assert!(why.contains("whsec_") && !why.contains("a2V5"), "{damaged}: {why}");
            let token = keys(&both[1..], damaged.as_bytes()).unwrap();
            assert_eq!(token, [Some(damaged.as_bytes().to_vec().into())], "for no scheme with whsec");
        }
        for (whole, expected) in [
            ("whsec_a2V5cw==", [Some("keys"), None]),
            ("v1,whsec_a2V5cw", [Some("keys"), None]),
            ("a2V5cw==", [None, Some("a2V5cw==")]),
            ("a token", [None, Some("a token")]),
        ] {
            let expected = expected.map(|key| key.map(|key| key.as_bytes().to_vec().into()));
            assert_eq!(keys(&both, whole.as_bytes()).unwrap(), expected, "{whole}");
        }
    }

    #[test]
    fn a_secret_that_cannot_be_decoded_yields_the_expected_format() {
        for (format, text, expected) in [
            (SecretFormat::Base64, "whsec_a2V5", "base64"),
            (SecretFormat::Base64, "a2V5 ", "base64"),
            (SecretFormat::Base64, "-_8A", "base64"),
            (SecretFormat::Base64, "====", "base64"),
            (SecretFormat::Whsec, "whsec_", "`whsec_` and then base64"),
            (SecretFormat::Whsec, "whsec_a b", "`whsec_` and then base64"),
            (SecretFormat::Hex, "abc", "hex"),
            (SecretFormat::Hex, "0xab", "hex"),
        ] {
            assert_eq!(format.decode(text.as_bytes()), Err(expected), "{text}");
        }
    }
}
