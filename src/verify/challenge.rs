//! HMACs of a challenge: a value that a provider sends to see whether the endpoint has the secret.
//!
//! Anybody can send a challenge, and so have its value signed with the secret of the deliveries. So only a value of the form
//! of a token is signed, and a delivery whose signed text has that form is refused: no event has it, as JSON has a bracket.

use jiff::Timestamp;

use super::digest::DigestFormat;
use super::scheme::Scheme;
use super::{SigningKey, Verified, Verifier};
use crate::config::Encoding;

/// The longest challenge, in bytes.
const MAX: usize = 256;

/// Whether a value may be signed for anybody: letters, digits, and what base64 and UUIDs have.
pub fn is_challenge(value: &[u8]) -> bool {
    (1..=MAX).contains(&value.len()) && value.iter().all(|byte| is_of_token(*byte))
}

/// Whether a character occurs in challenges.
pub(super) fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'+' | b'/' | b'=')
}

impl Scheme {
    fn keyed(&self, key: &SigningKey, text: &str, encoding: Encoding) -> Option<String> {
        if self.is_token() {
            return None;
        }
        let digest = key.mac.digest([text.as_bytes()].into_iter());
        Some(DigestFormat { hash: self.written.hash, encoding }.write(&digest))
    }
}

impl Verified<'_> {
    /// The HMAC of a text with the secret that signed the delivery; `None` for a token.
    pub fn keyed(&self, text: &str, encoding: Encoding) -> Option<String> {
        self.scheme.keyed(self.key, text, encoding)
    }
}

impl Verifier {
    /// The HMAC of a text with the first secret that is valid at `now`; `None` if there is none. The caller makes sure that
    /// [`is_challenge`] holds for a text of an unsigned request.
    pub fn keyed(&self, text: &str, encoding: Encoding, now: Timestamp) -> Option<String> {
        self.schemes.iter().filter(|scheme| !scheme.is_token()).find_map(|scheme| {
            let key = scheme.keys.iter().find(|key| key.window.contains(now))?;
            scheme.scheme.keyed(key, text, encoding)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Reason;
    use crate::verify::tests::{SECRET, reason, verifier};

    /// The HMACs are from Python's hmac.
    #[test]
    fn a_challenge_is_signed_and_its_signature_is_no_delivery_s() {
        let rules = "signature = { header = 'S', signed = '{body}' }";
        let verifier = verifier(rules, &[SECRET]);
        let text = "890e4665-4dfe-4ab1-b689-ed553bceeed0";
        let signature = verifier.keyed(text, Encoding::Hex, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(signature, "c09cb74ab26bccbddd7084d0d60d5e03f7e10b2fc4bae729dc903906d0277bfe");
        assert_eq!(reason(&verifier, &[("S", &signature)], text), None, "the oracle that has to be closed");
        let verifier = verifier.signing_challenges();
        for body in [text.to_owned(), format!(" {text}\n")] {
            let signature = verifier.keyed(&body, Encoding::Hex, Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(
                reason(&verifier, &[("S", &signature)], &body),
                Some(Reason::SignatureMalformed),
                "{body:?}"
            );
        }
        let signature = verifier.keyed("{}", Encoding::Hex, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(reason(&verifier, &[("S", &signature)], "{}"), None);
    }

    #[test]
    fn only_tokens_are_challenges() {
        for token in ["a", "890e4665-4dfe", "qgg8vlvZRS6UYooatFL8Aw==", "a_b~c.d+e/f", &"x".repeat(256)] {
            assert!(is_challenge(token.as_bytes()), "{token}");
        }
        for other in ["", "{}", "\"a\"", "a b", "a,b", "a:b", "[1]", "\u{e4}", &"x".repeat(257)] {
            assert!(!is_challenge(other.as_bytes()), "{other}");
        }
    }
}
