//! `[source.NAME.signature]`: how a provider proves who sends. Rules as plain data; `verify`
//! compiles them and says what cannot be right.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::de;

/// Headers that hold credentials. What a rule reads is kept in dead letters, and these must not be.
pub const CREDENTIALS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

/// `[source.NAME.signature]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// What proves the sender.
    #[serde(default, deserialize_with = "de::choice")]
    pub kind: SignatureKind,
    /// The header that carries the signature, or the token.
    pub header: String,
    /// Stands before the signature or the token, where the header is plain.
    #[serde(default)]
    pub prefix: Option<String>,
    /// The key of the signature, where the header is a list of `key=value` parts with commas
    /// between; several may stand in it.
    #[serde(default)]
    pub signature_key: Option<String>,
    /// The key of the signed time in such a list.
    #[serde(default)]
    pub timestamp_key: Option<String>,
    /// The version of the signature, where the header holds `version,signature` parts with spaces
    /// between, as Standard Webhooks sends them; other versions are skipped.
    #[serde(default)]
    pub signature_version: Option<String>,
    /// The header with the signed time, where it has one of its own.
    #[serde(default)]
    pub timestamp_header: Option<String>,
    /// The unit of the signed time: seconds where nothing is said.
    #[serde(default, deserialize_with = "de::some_choice")]
    pub timestamp_unit: Option<TimestampUnit>,
    /// The header with what `{id}` stands for.
    #[serde(default)]
    pub id_header: Option<String>,
    /// What `{url}` stands for: the public URL that the provider calls. Behind a proxy the service
    /// cannot know it.
    #[serde(default)]
    pub url: Option<String>,
    /// The hash of the HMAC: SHA-256 where nothing is said.
    #[serde(default, deserialize_with = "de::some_choice")]
    pub hash: Option<Hash>,
    /// How the signature is written: in hex where nothing is said.
    #[serde(default, deserialize_with = "de::some_choice")]
    pub encoding: Option<Encoding>,
    /// How the provider writes its secrets.
    #[serde(default, deserialize_with = "de::choice")]
    pub secret_format: SecretFormat,
    /// What is signed: text with `{body}`, `{timestamp}`, `{id}`, `{url}`, `{header:NAME}`. Not
    /// for a token.
    #[serde(default)]
    pub signed: Option<String>,
    /// The forms of `{body}`, tried in this order.
    #[serde(deserialize_with = "de::list", default = "raw")]
    pub forms: Vec<BodyForm>,
}

fn raw() -> Vec<BodyForm> {
    vec![BodyForm::Raw]
}

/// What proves the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureKind {
    /// An HMAC over the delivery.
    #[default]
    Hmac,
    /// The shared secret itself, as GitLab sends it. It says nothing about the body.
    Token,
}

/// The hash of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hash {
    /// SHA-256
    #[default]
    Sha256,
    /// SHA-512
    Sha512,
    /// SHA-1: only where a provider has nothing better. An HMAC with it is not known to be broken;
    /// each start warns all the same.
    Sha1,
}

/// How the bytes of a signature are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Two digits for each byte, in either case.
    #[default]
    Hex,
    /// RFC 4648 section 4, with its padding.
    Base64,
    /// RFC 4648 section 5, with its padding or without: Python's `urlsafe_b64encode` writes it,
    /// Node's `digest("base64url")` does not, and the length of a digest leaves no doubt.
    Base64url,
}

/// The unit of a signed time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestampUnit {
    /// Since 1970.
    #[default]
    Seconds,
    /// Since 1970.
    Milliseconds,
}

/// How a provider writes its secrets, and so how the key is read from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretFormat {
    /// The text is the key.
    #[default]
    Text,
    /// RFC 4648 section 4, with its padding or without.
    Base64,
    /// `whsec_` and then base64, as Standard Webhooks and Svix write it.
    Whsec,
    /// Two digits for each byte.
    Hex,
}

/// The providers' own libraries take a secret without its padding, and look at no bits behind the
/// last whole byte: whoever holds the secret may write it as it was given to them.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

impl SecretFormat {
    /// The key that `secret` stands for, never empty.
    ///
    /// # Errors
    /// What the text should be, without a word of it.
    pub fn decode(self, secret: &[u8]) -> Result<Vec<u8>, &'static str> {
        let (key, expected) = match self {
            Self::Text => return Ok(secret.to_vec()),
            Self::Base64 => (LENIENT.decode(secret).ok(), "base64"),
            Self::Whsec => {
                let rest = secret.strip_prefix(b"whsec_");
                (rest.and_then(|rest| LENIENT.decode(rest).ok()), "`whsec_` and then base64")
            }
            Self::Hex => (hex::decode(secret).ok(), "hex"),
        };
        key.filter(|key| !key.is_empty()).ok_or(expected)
    }
}

/// A form of the body that a provider may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyForm {
    /// The bytes on the wire.
    Raw,
    /// Python's `json.dumps(..., separators=(",", ":"))` of what stands on the wire.
    JsonCompactAscii,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys as Python's base64 and bytes.fromhex give them.
    #[test]
    fn a_secret_is_read_as_its_provider_writes_it() {
        let key = b"\xfb\xff\x00key";
        for (format, text) in [
            (SecretFormat::Base64, "+/8Aa2V5"),
            (SecretFormat::Whsec, "whsec_+/8Aa2V5"),
            (SecretFormat::Hex, "fbff006b6579"),
            (SecretFormat::Hex, "FBFF006B6579"),
        ] {
            assert_eq!(format.decode(text.as_bytes()).unwrap(), key, "{text}");
        }
        for padded in ["a2V5cw==", "a2V5cw=", "a2V5cw", "a2V5cx"] {
            assert_eq!(SecretFormat::Base64.decode(padded.as_bytes()).unwrap(), b"keys", "{padded}");
        }
        assert_eq!(SecretFormat::Text.decode(b"whsec_+/8A").unwrap(), b"whsec_+/8A");
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_told_by_what_it_should_be() {
        for (format, text, expected) in [
            (SecretFormat::Base64, "whsec_a2V5", "base64"),
            (SecretFormat::Base64, "a2V5 ", "base64"),
            (SecretFormat::Base64, "-_8A", "base64"),
            (SecretFormat::Base64, "====", "base64"),
            (SecretFormat::Whsec, "a2V5", "`whsec_` and then base64"),
            (SecretFormat::Whsec, "whsec_", "`whsec_` and then base64"),
            (SecretFormat::Hex, "abc", "hex"),
            (SecretFormat::Hex, "0xab", "hex"),
        ] {
            assert_eq!(format.decode(text.as_bytes()), Err(expected), "{text}");
        }
    }
}
