//! Keyed digests under one of three hashes, and their text in a header.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};
use zeroize::Zeroizing;

use crate::config::{Encoding, Hash};

/// A digest, padded with zeros to the length of the longest: digests under one rule have the same length, so two of them
/// are compared in full.
pub(super) type Digest = [u8; 64];

/// Buffer size for the longest digest, rounded up to the decoder's groups of three bytes.
const DECODED: usize = 66;

/// Computes a secret's digest of a signed text: an HMAC with its key schedule computed.
#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "a few of them in the process, and no pointer to follow")]
pub(super) enum Signer {
    Sha256(Hmac<Sha256>),
    Sha512(Hmac<Sha512>),
    Sha1(Hmac<Sha1>),
    /// The digest of a token, whatever the text.
    Token(Zeroizing<Digest>),
}

impl Signer {
    /// Never `None` in practice: HMAC takes a key of any length.
    pub(super) fn new(hash: Hash, key: &[u8]) -> Option<Self> {
        Some(match hash {
            Hash::Sha256 => Self::Sha256(Hmac::new_from_slice(key).ok()?),
            Hash::Sha512 => Self::Sha512(Hmac::new_from_slice(key).ok()?),
            Hash::Sha1 => Self::Sha1(Hmac::new_from_slice(key).ok()?),
        })
    }

    /// The digest of the concatenated pieces.
    pub(super) fn digest<'p>(&self, pieces: impl Iterator<Item = &'p [u8]>) -> Digest {
        match self {
            Self::Sha256(mac) => keyed(mac, pieces),
            Self::Sha512(mac) => keyed(mac, pieces),
            Self::Sha1(mac) => keyed(mac, pieces),
            Self::Token(digest) => **digest,
        }
    }
}

fn keyed<'p, M: hmac::Mac + Clone>(mac: &M, pieces: impl Iterator<Item = &'p [u8]>) -> Digest {
    let mut mac = mac.clone();
    pieces.for_each(|piece| mac.update(piece));
    padded(&mac.finalize().into_bytes())
}

/// The digest of a token. Digests are compared instead of tokens, so that the time of the comparison reveals neither the
/// position of the first difference nor the secret's length.
pub(super) fn token(token: &[u8]) -> Digest {
    padded(&Sha256::digest(token))
}

/// `bytes` as a [`Digest`].
pub(super) fn padded(bytes: &[u8]) -> Digest {
    let mut digest = [0; 64];
    digest.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    digest
}

/// The hash's usual name.
pub(super) fn hash_name(hash: Hash) -> &'static str {
    match hash {
        Hash::Sha256 => "SHA-256",
        Hash::Sha512 => "SHA-512",
        Hash::Sha1 => "SHA-1",
    }
}

/// The text format of digests in a header.
#[derive(Debug, Clone, Copy)]
pub(super) struct DigestFormat {
    pub(super) hash: Hash,
    pub(super) encoding: Encoding,
}

impl DigestFormat {
    /// The length of a digest in bytes.
    pub(super) fn length(self) -> usize {
        match self.hash {
            Hash::Sha256 => 32,
            Hash::Sha512 => 64,
            Hash::Sha1 => 20,
        }
    }

    /// Decodes a digest of exactly the hash's length. Of base64 only the canonical text is accepted, so that no two headers
    /// carry the same signature.
    pub(super) fn read(self, text: &str) -> Option<Digest> {
        let mut room = [0; DECODED];
        let length = match self.encoding {
            Encoding::Hex => {
                hex::decode_to_slice(text, room.get_mut(..self.length())?).ok()?;
                self.length()
            }
            Encoding::Base64 => BASE64_STANDARD.decode_slice(text, &mut room).ok()?,
            // No digest is a multiple of three bytes: a whole number of groups is a padded text.
            Encoding::Base64url if text.len().is_multiple_of(4) => {
                BASE64_URL_SAFE.decode_slice(text, &mut room).ok()?
            }
            Encoding::Base64url => BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut room).ok()?,
        };
        (length == self.length()).then(|| padded(room.get(..length).unwrap_or_default()))
    }

    /// The inverse of [`Self::read`].
    pub(super) fn write(self, digest: &Digest) -> String {
        let bytes = digest.get(..self.length()).unwrap_or_default();
        match self.encoding {
            Encoding::Hex => hex::encode(bytes),
            Encoding::Base64 => BASE64_STANDARD.encode(bytes),
            Encoding::Base64url => BASE64_URL_SAFE_NO_PAD.encode(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    /// An HMAC is two states of its hash and a block buffer. It has no marker of its own.
    #[test]
    fn a_key_schedule_is_overwritten_on_drop() {
        fn assert<T: ZeroizeOnDrop>() {}
        assert::<Sha256>();
        assert::<Sha512>();
        assert::<Sha1>();
    }

    /// Digests of nothing, written by Python's base64.
    #[test]
    fn a_signature_has_one_text_in_base64_and_two_in_base64url() {
        let sha1 = DigestFormat { hash: Hash::Sha1, encoding: Encoding::Base64 };
        let text = "2jmj7l5rSw0yVb/vlWAYkK/YBwk=";
        assert_eq!(sha1.write(&sha1.read(text).unwrap()), text);
        for other in [
            "2jmj7l5rSw0yVb/vlWAYkK/YBwk",   // no padding
            "2jmj7l5rSw0yVb/vlWAYkK/YBwl=",  // bits behind the last byte
            "2jmj7l5rSw0yVb_vlWAYkK_YBwk=",  // the other alphabet
            "2jmj7l5rSw0yVb/vlWAYkK/YBwk= ", // white space
            "2jmj7l5rSw0yVb/vlWAYkK/YBw==",  // a byte less
            "2jmj7l5rSw0yVb/vlWAYkK/YBwkA",  // a byte more
            "",
        ] {
            assert!(sha1.read(other).is_none(), "{other}");
        }
        let url = DigestFormat { hash: Hash::Sha1, encoding: Encoding::Base64url };
        for same in ["2jmj7l5rSw0yVb_vlWAYkK_YBwk=", "2jmj7l5rSw0yVb_vlWAYkK_YBwk"] {
            assert_eq!(url.read(same), sha1.read(text), "{same}");
        }
        for other in
            ["2jmj7l5rSw0yVb_vlWAYkK_YBwl", "2jmj7l5rSw0yVb/vlWAYkK/YBwk", "2jmj7l5rSw0yVb_vlWAYkK_YBwk=="]
        {
            assert!(url.read(other).is_none(), "{other}");
        }
    }

    #[test]
    fn every_hash_and_encoding_reads_what_it_writes() {
        for hash in [Hash::Sha256, Hash::Sha512, Hash::Sha1] {
            let digest = Signer::new(hash, b"key").unwrap().digest([&b"text"[..]].into_iter());
            for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64url] {
                let written = DigestFormat { hash, encoding };
                assert_eq!(written.read(&written.write(&digest)), Some(digest), "{written:?}");
                for long in [written.write(&digest).repeat(2), "A".repeat(10_000)] {
                    assert!(written.read(&long).is_none(), "{written:?}");
                }
            }
        }
    }
}
