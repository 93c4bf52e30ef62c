//! Why a request's signature cannot be read.

use http::HeaderName;

use super::header_names::HeaderNames;
use crate::config::Encoding;
use crate::outcome::{Fault, Reason};

/// What is wrong with the headers that carry a signature. Its text is the refusal's detail: it names headers and
/// counts, never a value, which may be the right signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The request does not have this header, under none of its names.
    #[error("no {0}")]
    HeaderMissing(HeaderNames),
    /// The request has this header more than once: which value counts would be a guess.
    #[error("{0} is repeated")]
    HeaderRepeated(HeaderName),
    /// The header's value is not visible ASCII.
    #[error("{0} is not ASCII")]
    HeaderNotAscii(HeaderName),
    /// The value does not begin with the configured prefix.
    #[error("the prefix is missing")]
    PrefixMissing,
    /// The header's list has no part under `timestamp_key`.
    #[error("no time in the list")]
    TimeMissing(HeaderNames),
    /// The header's list has several parts under `timestamp_key`, or sets of parts with different times: which one was
    /// signed would be a guess.
    #[error("the list in {0} has the time more than once")]
    TimeRepeated(HeaderNames),
    /// The signed time is not written as the rules say; with what it should be.
    #[error("the time is not {0}")]
    TimeMalformed(&'static str),
    /// The header's list has no part that is a signature by the rules.
    #[error("no signature in the list")]
    NoSignature,
    /// The header's list has more signatures than are compared.
    #[error("more than {0} signatures")]
    TooManySignatures(usize),
    /// The text is not a digest of this length in this encoding.
    #[error("not {}", expected(.encoding, .bytes))]
    Undecodable {
        /// The configured encoding.
        encoding: Encoding,
        /// The length of the configured hash.
        bytes: usize,
    },
    /// The signed text could be a challenge, and anybody can have a challenge signed.
    #[error("the signed text has the form of a challenge, which anybody can have signed")]
    Challenge,
    /// A signed header contains the text that separates it from the part next to it, so that one signature would
    /// fit several deliveries.
    #[error("a signed header contains the separator next to it")]
    AmbiguousSeparator,
}

impl From<SignatureError> for Fault {
    fn from(error: SignatureError) -> Self {
        let reason = match error {
            SignatureError::HeaderMissing(_) => Reason::SignatureMissing,
            _ => Reason::SignatureMalformed,
        };
        Self::new(reason, error.to_string())
    }
}

fn expected(encoding: &Encoding, bytes: &usize) -> String {
    match encoding {
        Encoding::Hex => format!("{} hex digits", 2 * bytes),
        Encoding::Base64 => format!("{bytes} bytes in base64"),
        Encoding::Base64url => format!("{bytes} bytes in base64url"),
    }
}
