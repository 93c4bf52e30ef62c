//! A request as somebody captured it: a raw dump, an entry of a HAR file, or headers and a body.

mod har;

use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;

use super::input;
use crate::files::ReadError;

/// Far above any body that a service is configured to take.
const MAX: u64 = 64 * 1024 * 1024;

/// More headers than any server takes.
const MAX_HEADERS: usize = 256;

/// A request, read. Its `Debug` would show the body.
pub struct Capture {
    /// The method.
    pub method: String,
    /// The request's target, without its query: that may hold what no one should see.
    pub path: String,
    /// In their order.
    pub headers: HeaderMap,
    /// As it was sent, a chunked one put together.
    pub body: Bytes,
    /// When it was sent, where the capture says so.
    pub at: Option<Timestamp>,
    /// What was done to read it, and what looks wrong.
    pub notes: Vec<String>,
}

/// Reads a file, `-` for standard input.
///
/// # Errors
/// When it cannot be read, or is larger than 64 MiB.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    match input(path, MAX) {
        Err(ReadError::TooLarge(_)) => {
            bail!("{} is larger than 64 MiB; no service takes such a delivery", path.display())
        }
        read => read.with_context(|| format!("cannot read {}", path.display())),
    }
}

impl Capture {
    /// A raw dump or a HAR file; which of both, its first character says. `entry` is the number of the
    /// HAR file's entry, from 1 on.
    ///
    /// # Errors
    /// What is no request, in one sentence without a word of it.
    pub fn parse(bytes: &[u8], entry: Option<usize>) -> anyhow::Result<Self> {
        let text = bytes.trim_ascii_start();
        if text.starts_with(b"{") || text.starts_with(b"\xef\xbb\xbf{") {
            return har::parse(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text), entry);
        }
        if entry.is_some() {
            bail!("--entry is for HAR files; this is none");
        }
        raw(text)
    }

    /// From `Name: value` lines and a body.
    ///
    /// # Errors
    /// A line that is no header.
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
    let name =
        HeaderName::from_bytes(name.as_bytes()).ok().context("a header's name cannot stand in HTTP")?;
    let value = HeaderValue::from_bytes(value)
        .ok()
        .with_context(|| format!("the value of {name} cannot stand in an HTTP header"))?;
    headers.append(name, value);
    Ok(())
}

/// Without query and fragment, and without the host of an absolute URL.
fn path_of(target: &str) -> String {
    let target = target.split(['?', '#']).next().unwrap_or_default();
    match target.split_once("://").map(|(_, rest)| rest.split_once('/')) {
        Some(Some((_, path))) => format!("/{path}"),
        Some(None) => "/".to_owned(),
        None => target.to_owned(),
    }
}

/// Request line, headers, an empty line, the body; lines end in CRLF or LF.
fn raw(bytes: &[u8]) -> anyhow::Result<Capture> {
    const FORM: &str = "expected a request line such as `POST /hooks/NAME HTTP/1.1`, headers, an empty line and the \
                        body; or a HAR file; or give --header and --body";
    let mut room = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut room);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => {
            bail!("this is no captured HTTP request (no empty line stands behind its headers); {FORM}")
        }
        Err(error) => bail!("this is no captured HTTP request ({error}); {FORM}"),
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

/// The body as its sender wrote it; what had to be assumed goes to `notes`.
fn body(rest: &[u8], headers: &HeaderMap, notes: &mut Vec<String>) -> Vec<u8> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if text(header::TRANSFER_ENCODING).is_some_and(|how| how.to_ascii_lowercase().contains("chunked")) {
        return match dechunk(rest) {
            Some(body) => {
                notes.push("the chunked body was put together".to_owned());
                body
            }
            None => {
                notes.push("the body has no chunks, though its headers say so: taken as it is".to_owned());
                rest.to_vec()
            }
        };
    }
    let declared = text(header::CONTENT_LENGTH).and_then(|length| length.trim().parse::<usize>().ok());
    match declared {
        Some(length) if length < rest.len() => {
            let extra = rest.len() - length;
            notes.push(format!("{extra} bytes behind content-length were left out"));
            rest.get(..length).unwrap_or(rest).to_vec()
        }
        Some(length) if length > rest.len() => {
            notes.push(format!(
                "content-length is {length}, but only {} bytes were captured: what is missing was signed, too",
                rest.len()
            ));
            rest.to_vec()
        }
        _ => rest.to_vec(),
    }
}

/// `None` for what is not made of chunks up to a last one.
fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(rest.len());
    loop {
        // httparse reads CRLF alone here; many a dump went through an editor that makes it LF.
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
    fn a_dump_is_read_with_either_line_end_and_its_body_is_left_alone() {
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
    fn chunks_are_put_together_and_what_are_none_is_taken_as_it_is() {
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
    fn the_length_that_was_sent_counts_and_a_cut_capture_is_told() {
        let found = parsed(&format!("{HEAD}Content-Length: 2\n\n{{}}\n"));
        assert_eq!((&found.body[..], found.notes.len()), (&b"{}"[..], 1));
        let found = parsed(&format!("{HEAD}Content-Length: 10\n\n{{}}\n"));
        assert!(found.body == "{}\n" && found.notes[0].contains("only 3 bytes"), "{:?}", found.notes);
    }

    #[test]
    fn what_is_no_request_is_told_without_a_word_of_it() {
        for text in
            ["", "s3cret", "POST /hooks/x HTTP/1.1\nHost: h\n", "POST s3cret", "{\"s3cret\": 1}", "{s3cret"]
        {
            let told = refused(text, None);
            assert!(!told.contains("s3cret") && !told.is_empty(), "{told}");
        }
        assert!(refused(&format!("{HEAD}\n"), Some(1)).contains("HAR"));
        let told = Capture::of_parts("x", &["no header".to_owned()], Vec::new()).err().unwrap().to_string();
        assert_eq!(told, "--header expects 'Name: value'");
    }
}
