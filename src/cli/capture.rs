//! Reads a captured request: a raw dump, an entry of a HAR file, or headers and a body.

mod har;

use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
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
    /// The target of the request. Show only its path: the query may contain secrets.
    pub uri: Uri,
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
            uri: uri_of(&format!("/hooks/{source}")),
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

/// The request target; of one that is not a URI, its path if possible.
fn uri_of(target: &str) -> Uri {
    target.parse().or_else(|_| path_of(target).parse()).unwrap_or_default()
}

/// A dump as curl's `-v` and other tools write it, in the form of HTTP/1.1: without `> ` before each line of the head and
/// without curl's own lines before it, and with the version of the request line that a parser of HTTP/1.1 knows. HTTP/2
/// and 3 have no request line of their own, so tools write one.
fn normalized(bytes: &[u8], notes: &mut Vec<String>) -> Vec<u8> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let is_prefixed = lines.clone().find(|line| !is_curls(line)).is_some_and(|line| line.starts_with(b">"));
    let (mut made, mut used) = (Vec::with_capacity(bytes.len()), 0);
    for line in lines {
        used += line.len();
        if is_prefixed && is_curls(line) {
            continue;
        }
        let own = || line.strip_prefix(b"> ").or_else(|| line.strip_prefix(b">"));
        let line = if is_prefixed { own().unwrap_or(line) } else { line };
        match made.is_empty() {
            true => made.extend(http_1(line)),
            false => made.extend_from_slice(line),
        }
        if line.trim_ascii().is_empty() {
            break;
        }
    }
    match bytes.get(used..).unwrap_or_default() {
        behind if is_prefixed && is_curls(behind) => {
            let note = "curl -v does not show the body of a request: give it with --header and --body";
            notes.push(note.to_owned());
        }
        body => made.extend_from_slice(body),
    }
    made
}

/// Whether the text begins with a line that curl's `-v` adds: `* ` before what curl does, `< ` before the answer's head, and
/// braces before the size of data.
fn is_curls(text: &[u8]) -> bool {
    [b"* ".as_slice(), b"< ", b"{ [", b"} ["].iter().any(|start| text.starts_with(start))
}

/// The request line with the version of HTTP/1.1.
fn http_1(line: &[u8]) -> Vec<u8> {
    let text = line.trim_ascii_end();
    let other = [b" HTTP/2".as_slice(), b" HTTP/2.0", b" HTTP/3", b" HTTP/3.0"];
    let (start, end) = match other.iter().find_map(|version| text.strip_suffix(*version)) {
        Some(start) => (start, b" HTTP/1.1".as_slice()),
        None => (text, b"".as_slice()),
    };
    [start, end, line.get(text.len()..).unwrap_or_default()].concat()
}

/// Parses a request line, headers, an empty line and the body. Lines end in CRLF or LF.
fn raw(bytes: &[u8]) -> anyhow::Result<Capture> {
    const FORM: &str = "expected a request line such as `POST /hooks/NAME HTTP/1.1`, headers, an empty line and the \
                        body; or a HAR file; or give --header and --body";
    let mut notes = Vec::new();
    let bytes = &normalized(bytes, &mut notes)[..];
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
    let body = body(bytes.get(head..).unwrap_or_default(), &headers, &mut notes);
    Ok(Capture {
        method: request.method.unwrap_or_default().to_owned(),
        uri: uri_of(request.path.unwrap_or_default()),
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
                (&*found.method, found.uri.path(), &found.body[..]),
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
    fn w14c_dumps_of_curl_and_of_http_2_are_read() {
        for version in ["HTTP/2", "HTTP/2.0", "HTTP/3", "HTTP/1.0"] {
            let found = parsed(&format!("{}\n{{}}", HEAD.replace("HTTP/1.1", version)));
            assert_eq!((found.uri.path(), &found.body[..]), ("/hooks/x", &b"{}"[..]), "{version}");
        }
        let own = "* Connected to h (192.0.2.1) port 443\n{ [5 bytes data]\n";
        let head = HEAD.replace('\n', "\n> ").replace("HTTP/1.1", "HTTP/2");
        let head = format!("{own}> {}\n", head.trim_end());
        for (behind, body, notes) in [
            ("{}", "{}", 0),
            ("", "", 0),
            ("* upload completely sent off: 2 bytes\n< HTTP/2 200\n< date: now\n\nok", "", 1),
        ] {
            let found = parsed(&format!("{head}{behind}"));
            assert_eq!(
                (&*found.method, found.uri.path(), &found.body[..]),
                ("POST", "/hooks/x", body.as_bytes())
            );
            assert!(found.headers["x-signature"] == "abc" && found.notes.len() == notes, "{:?}", found.notes);
        }
        // A body may have such lines.
        assert_eq!(parsed(&format!("{HEAD}\n* a\n> b\n")).body, "* a\n> b\n");
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
