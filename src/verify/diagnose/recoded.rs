//! What programs between the sender and hookstream do to a whole body: the text that the sender may have signed before.

use std::borrow::Cow;
use std::io::Read as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::read::{MultiGzDecoder, ZlibDecoder};

use crate::json::{self, Object};

/// The limit of an inflated body: enough for what is diagnosed, and small enough for a bomb.
const MAX_INFLATED: u64 = 4 * 1024 * 1024;

/// One way to undo a change: the text that may have been signed, with its name. `None` if the body is no such text.
type Recode = fn(&[u8]) -> Option<(&'static str, Cow<'_, [u8]>)>;

pub(super) const ALL: [Recode; 11] = [
    |body| Some(("with a newline at its end", [body, b"\n"].concat().into())),
    |body| Some(("without white space around it", body.trim_ascii().into())),
    |body| Some(("with LF at its line ends", lines(body, b"\r\n", b"\n")?.into())),
    |body| Some(("with CRLF at its line ends", lines(body, b"\n", b"\r\n")?.into())),
    |body| Some(("without a byte order mark", body.strip_prefix(b"\xef\xbb\xbf")?.into())),
    |body| Some((DECODED, inflate(MultiGzDecoder::new(body), body.starts_with(b"\x1f\x8b"))?.into())),
    |body| Some((DECODED, inflate(ZlibDecoder::new(body), body.starts_with(b"\x78"))?.into())),
    |body| Some(("decoded from base64", BASE64_STANDARD.decode(body.trim_ascii()).ok()?.into())),
    |body| Some(("taken out of a JSON string", json_string(body)?.into())),
    |body| Some(("as it was before its UTF-8 was read as Windows-1252", windows_1252(body)?.into())),
    |body| Some(("as a form (application/x-www-form-urlencoded)", form(body)?.into())),
];

/// The name of an inflated body.
pub(super) const DECODED: &str = "without its compression";

fn lines(body: &[u8], from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    body.windows(from.len()).any(|part| part == from).then(|| {
        let lines = body.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        lines.collect::<Vec<_>>().join(to)
    })
}

/// `None` if the body is not compressed like that, or too large.
fn inflate(decoder: impl std::io::Read, begins_so: bool) -> Option<Vec<u8>> {
    let mut inflated = Vec::new();
    let read = begins_so.then(|| decoder.take(MAX_INFLATED + 1).read_to_end(&mut inflated))?;
    (read.ok()? as u64 <= MAX_INFLATED).then_some(inflated)
}

/// The text of a body that is a JSON string, in which a function wrapped the JSON.
fn json_string(body: &[u8]) -> Option<Vec<u8>> {
    json::string(json::check(body).ok()?).map(|text| text.into_owned().into_bytes())
}

/// The characters of the bytes 0x80 to 0x9f in Windows-1252; those of the others have the byte's number.
const WINDOWS_1252: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";

/// Undoes what makes `Ã¼` of `ü`. `None` if a character has no such byte, or nothing would change.
fn windows_1252(body: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok().filter(|text| !text.is_ascii())?;
    let byte = |c: char| match WINDOWS_1252.chars().position(|other| other == c) {
        Some(at) => u8::try_from(0x80 + at).ok(),
        None => u8::try_from(u32::from(c)).ok(),
    };
    text.chars().map(byte).collect()
}

/// The form that a gateway turned into a JSON object with a text for each field.
fn form(body: &[u8]) -> Option<Vec<u8>> {
    let object = Object::open(json::check(body).ok()?).ok()??;
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in object.members() {
        form.append_pair(name, &json::string(value)?);
    }
    Some(form.finish().into_bytes())
}
