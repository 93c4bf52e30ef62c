//! Reads a captured request: a raw dump, an entry of a HAR file, or headers and a body.

mod har;

use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;

use super::input;
use crate::files::ReadError;

/// The maximum size of a capture, far above any sensible `http.max_body`.
const MAX: u64 = 64 * 1024 * 1024;

/// The maximum number of headers, above what servers accept.
const MAX_HEADERS: usize = 256;

/// A captured request. It has no `Debug`, which would show the body.
pub struct Capture {
    pub method: String,
    /// The path of the request without its query, which may contain secrets.
    pub path: String,
    /// The headers in their original order.
    pub headers: HeaderMap,
    /// The body as sent; a chunked one is decoded.
    pub body: Bytes,
    /// The time of the request, if the capture has it.
    pub at: Option<Timestamp>,
    /// Notes on assumptions made while reading, and on what looks wrong.
    pub notes: Vec<String>,
}

/// Reads a file, or standard input for `-`.
///
/// # Errors
/// The file cannot be read or is larger than 64 MiB.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    match input(path, MAX) {
        Err(ReadError::TooLarge(_)) => {
            bail!("{} is larger than 64 MiB, more than any service accepts", path.display())
        }
        read => read.with_context(|| format!("cannot read {}", path.display())),
    }
}

impl Capture {
    /// Parses a raw dump or a HAR file, which begins with `{`. `entry` is the number of the HAR file's entry, from 1.
    ///
    /// # Errors
    /// The bytes are not a request. The message never quotes them.
    pub fn parse(bytes: &[u8], entry: Option<usize>) -> anyhow::Result<Self> {
        let text = bytes.trim_ascii_start();
        if text.starts_with(b"{") || text.starts_with(b"\xef\xbb\xbf{") {
            return har::parse(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text), entry);
        }
        if entry.is_some() {
            bail!("--entry is for HAR files, and this is not one");
        }
        raw(text)
    }

    /// Makes a capture from `Name: value` lines and a body.
    ///
    /// # Errors
    /// A line is not a header.
    pub fn of_parts(source: &str, lines: &[String], body: Vec<u8>) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').context("--header expects 'Name: value'")?;
            add(&mut headers, name.trim(), value.trim().as_bytes())?;
        }
        Ok(Self {
            method: "POST".to_owned(),
            path: format!("/hooks/{source}"),
            headers,
            body: body.into(),
            at: None,
            notes: Vec::new(),
        })
    }
}

fn add(headers: &mut HeaderMap, name: &str, value: &[u8]) -> anyhow::Result<()> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok().context("a header has an invalid name")?;
    let value = HeaderValue::from_bytes(value)
        .ok()
        .with_context(|| format!("the value of {name} is not a valid HTTP header value"))?;
    headers.try_append(name, value).ok().context("there are too many headers")?;
    Ok(())
}

/// The path of a request target: without query, fragment and the host of an absolute URL.
fn path_of(target: &str) -> String {
    let target = target.split(['?', '#']).next().unwrap_or_default();
    match target.split_once("://").map(|(_, rest)| rest.split_once('/')) {
        Some(Some((_, path))) => format!("/{path}"),
        Some(None) => "/".to_owned(),
        None => target.to_owned(),
    }
}

/// Parses a request line, headers, an empty line and the body. Lines end in CRLF or LF.
fn raw(bytes: &[u8]) -> anyhow::Result<Capture> {
    const FORM: &str = "expected a request line such as `POST /hooks/NAME HTTP/1.1`, headers, an empty line and the \
                        body; or a HAR file; or give --header and --body";
    let mut parsed = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut parsed);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => {
            bail!("this is not a captured HTTP request (no empty line after the headers); {FORM}")
        }
        Err(error) => bail!("this is not a captured HTTP request ({error}); {FORM}"),
    };
    let mut headers = HeaderMap::new();
    for header in request.headers.iter() {
        add(&mut headers, header.name, header.value)?;
    }
    let mut notes = Vec::new();
    let body = body(bytes.get(head..).unwrap_or_default(), &headers, &mut notes);
    Ok(Capture {
        method: request.method.unwrap_or_default().to_owned(),
        path: path_of(request.path.unwrap_or_default()),
        headers,
        body: body.into(),
        at: None,
        notes,
    })
}

/// The body as the sender wrote it. Adds assumptions to `notes`.
fn body(rest: &[u8], headers: &HeaderMap, notes: &mut Vec<String>) -> Vec<u8> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if text(header::TRANSFER_ENCODING).is_some_and(|coding| coding.to_ascii_lowercase().contains("chunked")) {
        return match dechunk(rest) {
            Some(body) => {
                notes.push("the chunked body was decoded".to_owned());
                body
            }
            None => {
                notes.push(
                    "the headers declare a chunked body, but it has no chunks: used as it is".to_owned(),
                );
                rest.to_vec()
            }
        };
    }
    let declared = text(header::CONTENT_LENGTH).and_then(|length| length.trim().parse::<usize>().ok());
    match declared {
        Some(length) if length < rest.len() => {
            let extra = rest.len() - length;
            notes.push(format!("{extra} bytes after the end by content-length were ignored"));
            rest.get(..length).unwrap_or(rest).to_vec()
        }
        Some(length) if length > rest.len() => {
            notes.push(format!(
                "content-length is {length}, but only {} bytes were captured: the missing bytes were signed too",
                rest.len()
            ));
            rest.to_vec()
        }
        _ => rest.to_vec(),
    }
}

/// Decodes a chunked body; `None` if it is not complete chunks with a last one.
fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(rest.len());
    loop {
        // httparse accepts only CRLF here, but editors often convert dumps to LF.
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(rest.get(..end)?).ok()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let length = usize::from_str_radix(size, 16).ok()?;
        rest = rest.get(end + 1..)?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..length)?);
        rest = rest.get(length..)?;
        rest = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n"))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "POST /hooks/x?key=1 HTTP/1.1\nHost: h\nX-Signature: abc\n";

    fn parsed(text: &str) -> Capture {
        Capture::parse(text.as_bytes(), None).unwrap_or_else(|error| panic!("{error}"))
    }

    fn refused(text: &str, entry: Option<usize>) -> String {
        Capture::parse(text.as_bytes(), entry).err().map(|error| error.to_string()).unwrap()
    }

    #[test]
    fn dumps_may_have_either_line_end_and_bodies_are_unchanged() {
        let body = "{\"a\": 1}\r\n\n";
        for head in [HEAD.to_owned(), HEAD.replace('\n', "\r\n")] {
            let end = if head.contains('\r') { "\r\n" } else { "\n" };
            let found = parsed(&format!("\n{head}{end}{body}"));
            assert_eq!(
                (&*found.method, &*found.path, &found.body[..]),
                ("POST", "/hooks/x", body.as_bytes())
            );
            assert_eq!(found.headers["x-signature"], "abc");
            assert!(found.notes.is_empty());
        }
    }

    #[test]
    fn chunked_bodies_are_decoded_and_others_are_used_as_they_are() {
        let head = format!("{HEAD}Transfer-Encoding: chunked\n\n");
        for chunks in ["3\r\n{\"a\r\n5;x=y\r\n\": 1}\r\n0\r\n\r\n", "3\n{\"a\n5\n\": 1}\n0\n\n"] {
            let found = parsed(&format!("{head}{chunks}"));
            assert_eq!((&found.body[..], found.notes.len()), (&b"{\"a\": 1}"[..], 1));
        }
        for whole in ["{\"a\": 1}", "ffffffffffffffff\r\nx", "3\r\nab", ""] {
            assert_eq!(parsed(&format!("{head}{whole}")).body, whole);
        }
    }

    #[test]
    fn content_length_ends_the_body_and_a_truncated_capture_is_noted() {
        let found = parsed(&format!("{HEAD}Content-Length: 2\n\n{{}}\n"));
        assert_eq!((&found.body[..], found.notes.len()), (&b"{}"[..], 1));
        let found = parsed(&format!("{HEAD}Content-Length: 10\n\n{{}}\n"));
        assert!(found.body == "{}\n" && found.notes[0].contains("only 3 bytes"), "{:?}", found.notes);
    }

    #[test]
    fn errors_about_other_text_never_quote_it() {
        for text in
            ["", "s3cret", "POST /hooks/x HTTP/1.1\nHost: h\n", "POST s3cret", "{\"s3cret\": 1}", "{s3cret"]
        {
            let error = refused(text, None);
            assert!(!error.contains("s3cret") && !error.is_empty(), "{error}");
        }
        assert!(refused(&format!("{HEAD}\n"), Some(1)).contains("HAR"));
        let error = Capture::of_parts("x", &["no header".to_owned()], Vec::new()).err().unwrap().to_string();
        assert_eq!(error, "--header expects 'Name: value'");
    }
}
