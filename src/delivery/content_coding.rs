//! Compressed bodies: the codings of `Content-Encoding`.

use std::io::Read;

use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};

use super::Delivery;
use crate::outcome::{Fault, Reason};

/// How a body is compressed. One coding at most: no provider is known to apply two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCoding {
    Gzip,
    /// zlib's format (RFC 1950), as RFC 9110 defines it.
    Deflate,
}

/// Why a body cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CodingError {
    /// It decodes to more than the limit.
    TooLarge,
    /// It is damaged, ends early, or has bytes after its end.
    Damaged,
}

impl ContentCoding {
    /// The coding of a body; `None` if it is sent as it is.
    ///
    /// # Errors
    /// `encoding_unsupported` for an unknown coding, and for more than one.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Fault> {
        let unsupported = |detail| Err(Fault::new(Reason::EncodingUnsupported, detail));
        let mut lines = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(line) = lines.next() else { return Ok(None) };
        // A dead letter has no header that was repeated, so a replay could not decode its body.
        if lines.next().is_some() {
            return unsupported("two lines of the header");
        }
        let names = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let mut names = names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity"));
        match (names.next(), names.next()) {
            (None, _) => Ok(None),
            (Some(_), Some(_)) => unsupported("more than one coding"),
            (Some(name), None) => match name.to_ascii_lowercase().as_slice() {
                b"gzip" | b"x-gzip" => Ok(Some(Self::Gzip)),
                b"deflate" => Ok(Some(Self::Deflate)),
                _ => unsupported("neither gzip nor deflate"),
            },
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Decodes at most `max` bytes: memory and time depend on that, not on what the body claims.
    fn decode(self, body: &[u8], max: usize) -> Result<Vec<u8>, CodingError> {
        let (mut rest, mut decoded) = (body, Vec::new());
        let limit = max as u64 + 1;
        let read = match self {
            Self::Gzip => MultiGzDecoder::new(&mut rest).take(limit).read_to_end(&mut decoded),
            Self::Deflate => ZlibDecoder::new(&mut rest).take(limit).read_to_end(&mut decoded),
        };
        if decoded.len() > max {
            return Err(CodingError::TooLarge);
        }
        match read {
            Ok(_) if rest.is_empty() => Ok(decoded),
            _ => Err(CodingError::Damaged),
        }
    }

    fn fault(self, error: CodingError, damaged: Reason, max: usize) -> Fault {
        let coding = self.name();
        match error {
            CodingError::TooLarge => {
                Fault::new(Reason::BodyTooLarge, format!("{coding} of more than {max} bytes"))
            }
            CodingError::Damaged => Fault::new(damaged, format!("the {coding} is incomplete or damaged")),
        }
    }
}

impl Delivery {
    /// The coding of its body. One that is not supported is none: the body cannot be decoded.
    fn coding(&self) -> Option<ContentCoding> {
        ContentCoding::of(&self.headers).ok().flatten()
    }

    /// Whether [`Self::decoded`] has something to do.
    pub fn is_encoded(&self) -> bool {
        self.coding().is_some()
    }

    /// What the body of a verified delivery decodes to, at most `max` bytes; `None` if it is sent as it is.
    ///
    /// # Errors
    /// `body_too_large`; `json_invalid` if it cannot be decoded.
    pub fn decoded(&self, max: usize) -> Option<Result<Vec<u8>, Fault>> {
        let coding = self.coding()?;
        let decoded = coding.decode(&self.body, max);
        Some(decoded.map_err(|error| coding.fault(error, Reason::JsonInvalid, max)))
    }

    /// The same delivery as if its body had been sent without a coding, for a provider that signs what it compresses.
    /// Nothing later decodes it again, and a dead letter has the body that was signed, since the header is removed.
    ///
    /// # Errors
    /// `body_too_large`; `body_incomplete` if it cannot be decoded.
    pub fn into_decoded(mut self, max: usize) -> Result<Self, Fault> {
        let Some(coding) = self.coding() else { return Ok(self) };
        let decoded = coding.decode(&self.body, max);
        self.body = decoded.map_err(|error| coding.fault(error, Reason::BodyIncomplete, max))?.into();
        self.headers.remove(header::CONTENT_ENCODING);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn encoded(coding: ContentCoding, text: &[u8]) -> Vec<u8> {
        match coding {
            ContentCoding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
            ContentCoding::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    #[test]
    fn w8_a_body_is_decoded_to_its_limit_and_only_if_it_is_whole() {
        for coding in [ContentCoding::Gzip, ContentCoding::Deflate] {
            let text = vec![b'a'; 5000];
            let body = encoded(coding, &text);
            assert_eq!(coding.decode(&body, 5000), Ok(text.clone()));
            assert_eq!(coding.decode(&body, 4999), Err(CodingError::TooLarge));
            for length in 0..body.len() {
                assert_eq!(coding.decode(&body[..length], 5000), Err(CodingError::Damaged), "{length}");
            }
            let mut damaged = body.clone();
            *damaged.last_mut().unwrap() ^= 1;
            assert_eq!(coding.decode(&damaged, 5000), Err(CodingError::Damaged), "its checksum");
            let more = [&body[..], b"x"].concat();
            assert_eq!(coding.decode(&more, 5000), Err(CodingError::Damaged), "bytes after its end");
            assert_eq!(coding.decode(&encoded(coding, b""), 5000), Ok(Vec::new()));
        }
        let members =
            [encoded(ContentCoding::Gzip, b"{\"a\""), encoded(ContentCoding::Gzip, b":1}")].concat();
        assert_eq!(ContentCoding::Gzip.decode(&members, 100).unwrap(), b"{\"a\":1}");
    }

    /// Python: gzip.compress(b'{"a":1}', mtime=0), zlib.compress(b'{"a":1}').
    #[test]
    fn w8_what_python_compresses_is_decoded() {
        let gzip = hex::decode("1f8b0800000000000203ab564a54b232ac0500afac1b5607000000").unwrap();
        assert_eq!(ContentCoding::Gzip.decode(&gzip, 7).unwrap(), b"{\"a\":1}");
        let zlib = hex::decode("789cab564a54b232ac0500082a0209").unwrap();
        assert_eq!(ContentCoding::Deflate.decode(&zlib, 7).unwrap(), b"{\"a\":1}");
    }

    #[test]
    fn w8_one_known_coding_is_read_from_the_header() {
        let of = |lines: &[&str]| {
            let lines = lines.iter().map(|line| (header::CONTENT_ENCODING, line.parse().unwrap()));
            ContentCoding::of(&lines.collect()).map_err(|fault| fault.to_string())
        };
        for lines in [&[][..], &[""], &["identity"], &[" , Identity"]] {
            assert_eq!(of(lines), Ok(None), "{lines:?}");
        }
        for lines in [&["gzip"][..], &["GZip"], &["x-gzip"], &["identity, gzip"]] {
            assert_eq!(of(lines), Ok(Some(ContentCoding::Gzip)), "{lines:?}");
        }
        assert_eq!(of(&["deflate"]), Ok(Some(ContentCoding::Deflate)));
        assert_eq!(of(&["deflate, gzip"]).unwrap_err(), "encoding_unsupported: more than one coding");
        assert_eq!(of(&["identity", "gzip"]).unwrap_err(), "encoding_unsupported: two lines of the header");
        for line in ["br", "zstd", "utf-8", "gzip;q=1"] {
            assert_eq!(of(&[line]).unwrap_err(), "encoding_unsupported: neither gzip nor deflate", "{line}");
        }
    }
}
