//! Alternative keys of a secret: other hashes, and the common mistakes in copying a secret.
//!
//! Only the diagnosis of a refusal uses them. They are computed together with the key, so that the secret's text need not
//! be stored, and a signature by a secret that a reload removed can still be attributed to its name. The price is about
//! 6 KiB per secret.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::digest::{self, Signer};
use crate::config::{Hash, SecretFormat};

/// The signers that a secret could be used as. No `Debug`: a signer is as sensitive as the secret.
#[derive(Clone)]
pub(super) struct AlternateKeys {
    sha256: Signer,
    sha512: Signer,
    sha1: Signer,
    token: Signer,
    /// By the hash of the source's rules.
    pub(super) misread: Vec<(KeyMistake, Signer)>,
}

/// How the configured key may differ from the provider's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyMistake {
    /// The provider's key ends with a line end.
    LineEnd,
    /// The configured key has white space around it.
    Blank,
    /// The configured key has quotes around it, as some env files leave them.
    Quoted,
    /// The provider decodes the text in this format.
    As(SecretFormat),
    /// The provider uses the text after `whsec_` as the key, without decoding it.
    WithoutPrefix,
}

impl AlternateKeys {
    /// `key` is the decoded secret; `hash` is the hash of the rules, `None` for a token.
    pub(super) fn new(format: SecretFormat, key: &[u8], hash: Option<Hash>) -> Option<Self> {
        let mut known = vec![Zeroizing::new(key.to_vec())];
        let mut misread = Vec::new();
        for (how, other) in others(format, key) {
            if !other.is_empty() && !known.contains(&other) {
                misread.push((how, mac(hash, &other)?));
                known.push(other);
            }
        }
        let [sha256, sha512, sha1] =
            [Hash::Sha256, Hash::Sha512, Hash::Sha1].map(|hash| mac(Some(hash), key));
        Some(Self { sha256: sha256?, sha512: sha512?, sha1: sha1?, token: mac(None, key)?, misread })
    }

    /// The secret's signer with this hash; with `None`, as a token.
    pub(super) fn mac(&self, hash: Option<Hash>) -> &Signer {
        match hash {
            Some(Hash::Sha256) => &self.sha256,
            Some(Hash::Sha512) => &self.sha512,
            Some(Hash::Sha1) => &self.sha1,
            None => &self.token,
        }
    }

    /// Whether both belong to the same secret.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let mark = |spare: &Self| spare.sha512.digest(std::iter::empty());
        mark(self).ct_eq(&mark(other)).into()
    }
}

fn mac(hash: Option<Hash>, key: &[u8]) -> Option<Signer> {
    match hash {
        Some(hash) => Signer::new(hash, key),
        None => Some(Signer::Token(digest::token(key).into())),
    }
}

/// The alternative keys, the most likely first. The text of an encoded secret is encoded again from its key, which gives
/// what the provider showed, except for omitted padding.
fn others(format: SecretFormat, key: &[u8]) -> Vec<(KeyMistake, Zeroizing<Vec<u8>>)> {
    let text = Zeroizing::new(match format {
        SecretFormat::Text => key.to_vec(),
        SecretFormat::Base64 => BASE64_STANDARD.encode(key).into_bytes(),
        SecretFormat::Whsec => format!("whsec_{}", BASE64_STANDARD.encode(key)).into_bytes(),
        SecretFormat::Hex => hex::encode(key).into_bytes(),
    });
    let mut others = Vec::new();
    if format == SecretFormat::Text {
        others.push((KeyMistake::Blank, text.trim_ascii().to_vec().into()));
        others.push((KeyMistake::LineEnd, [&text[..], b"\n"].concat().into()));
        others.push((KeyMistake::LineEnd, [&text[..], b"\r\n"].concat().into()));
        for quote in [&b"\""[..], b"'"] {
            let inner = text.trim_ascii().strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
            others.extend(inner.map(|inner| (KeyMistake::Quoted, inner.to_vec().into())));
        }
    }
    for read in [SecretFormat::Text, SecretFormat::Base64, SecretFormat::Whsec, SecretFormat::Hex] {
        if let Ok(key) = read.decode(text.trim_ascii()) {
            others.push((KeyMistake::As(read), key));
        }
    }
    if let Some(bare) = text.strip_prefix(b"whsec_") {
        others.push((KeyMistake::WithoutPrefix, bare.to_vec().into()));
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(format: SecretFormat, key: &[u8]) -> Vec<(KeyMistake, String)> {
        let others = others(format, key).into_iter();
        others.map(|(how, key)| (how, String::from_utf8_lossy(&key).into_owned())).collect()
    }

    #[test]
    fn the_usual_mistakes_are_among_the_other_keys() {
        let found = of(SecretFormat::Text, b" \"whsec_a2V5\"\n");
        assert!(found.contains(&(KeyMistake::Quoted, "whsec_a2V5".into())), "{found:?}");
        assert!(found.contains(&(KeyMistake::Blank, "\"whsec_a2V5\"".into())), "{found:?}");
        let found = of(SecretFormat::Text, b"whsec_a2V5");
        assert!(found.contains(&(KeyMistake::As(SecretFormat::Whsec), "key".into())), "{found:?}");
        assert!(found.contains(&(KeyMistake::WithoutPrefix, "a2V5".into())), "{found:?}");
        let found = of(SecretFormat::Hex, b"key");
        assert!(found.contains(&(KeyMistake::As(SecretFormat::Text), "6b6579".into())), "{found:?}");
        let found = of(SecretFormat::Whsec, b"key");
        assert!(found.contains(&(KeyMistake::As(SecretFormat::Text), "whsec_a2V5".into())), "{found:?}");
    }

    #[test]
    fn they_take_a_few_kib_for_each_secret() {
        let most = others(SecretFormat::Text, b"'whsec_a2V5a2V5' ").len();
        let size = size_of::<AlternateKeys>() + most * size_of::<(KeyMistake, Signer)>();
        assert!(size <= 6 * 1024, "{size} bytes, with {most} other keys");
    }

    #[test]
    fn only_the_same_secret_is_the_same() {
        let spare = |key: &[u8]| AlternateKeys::new(SecretFormat::Text, key, Some(Hash::Sha256)).unwrap();
        assert!(spare(b"one").is_same(&spare(b"one")));
        assert!(!spare(b"one").is_same(&spare(b"one\n")));
    }
}
