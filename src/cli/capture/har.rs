//! Reads HAR 1.2 files, as browsers, proxies and webhook inspectors export them. Only requests are read.

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use jiff::Timestamp;
use serde::Deserialize;

use super::{Capture, MAX_HEADERS, add, path_of, uri_of};

/// The number of entries that the error about an ambiguous file lists.
const LISTED: usize = 10;

/// A HAR file, or a single entry.
#[derive(Deserialize)]
struct Har {
    log: Option<HarLog>,
    request: Option<HarRequest>,
    #[serde(rename = "startedDateTime")]
    started: Option<String>,
}

#[derive(Deserialize)]
struct HarLog {
    entries: Vec<HarEntry>,
}

#[derive(Deserialize)]
struct HarEntry {
    request: HarRequest,
    #[serde(rename = "startedDateTime")]
    started: Option<String>,
}

#[derive(Deserialize)]
struct HarRequest {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<HarHeader>,
    #[serde(rename = "postData")]
    body: Option<HarBody>,
}

#[derive(Deserialize)]
struct HarHeader {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct HarBody {
    #[serde(default)]
    text: String,
    encoding: Option<String>,
}

/// Parses the entry with the number `wanted`, from 1; without a number the only entry, or the only POST.
pub(super) fn parse(text: &[u8], wanted: Option<usize>) -> anyhow::Result<Capture> {
    // The parser's message may quote the file.
    let har: Har = serde_json::from_slice(text).map_err(|error| {
        anyhow::anyhow!("this is not a HAR file (line {} column {})", error.line(), error.column())
    })?;
    let entries = match har {
        Har { log: Some(log), .. } => log.entries,
        Har { request: Some(request), started, .. } => vec![HarEntry { request, started }],
        Har { .. } => bail!("this is not a HAR file: it has neither `log.entries` nor a `request`"),
    };
    let index = match wanted {
        Some(number) => number.wrapping_sub(1),
        None => choose(&entries)?,
    };
    let count = entries.len();
    let entry = entries.into_iter().nth(index);
    let Some(HarEntry { request, started }) = entry else {
        bail!("no entry {}: the file has {count}", wanted.unwrap_or_default())
    };
    capture(request, started.as_deref())
}

fn choose(entries: &[HarEntry]) -> anyhow::Result<usize> {
    let is_post = |entry: &HarEntry| entry.request.method.eq_ignore_ascii_case("POST");
    let posts: Vec<usize> =
        entries.iter().enumerate().filter(|(_, entry)| is_post(entry)).map(|(index, _)| index).collect();
    match (entries.len(), posts.as_slice()) {
        (0, _) => bail!("the HAR file has no entries"),
        (1, _) => Ok(0),
        (_, [one]) => Ok(*one),
        _ => {
            let listed = entries.iter().enumerate().take(LISTED).map(|(index, entry)| {
                let HarRequest { method, url, .. } = &entry.request;
                format!("\n  {}  {method} {}", index + 1, path_of(url))
            });
            let listed = crate::cli::output::escape_lines(&listed.collect::<String>());
            bail!("the HAR file has {} entries; choose one with --entry N:{listed}", entries.len())
        }
    }
}

fn capture(request: HarRequest, started: Option<&str>) -> anyhow::Result<Capture> {
    let mut headers = HeaderMap::new();
    // HTTP/2 captures have the request line among the headers, as names with a colon.
    let headers_only = request.headers.iter().filter(|header| !header.name.starts_with(':'));
    for header in headers_only.take(MAX_HEADERS) {
        add(&mut headers, &header.name, header.value.as_bytes())?;
    }
    let mut notes = Vec::new();
    let body = match request.body {
        None => Vec::new(),
        Some(HarBody { text, encoding: Some(encoding) }) if encoding.eq_ignore_ascii_case("base64") => {
            BASE64_STANDARD.decode(text).ok().context("postData.text of the HAR entry is not base64")?
        }
        Some(HarBody { text, .. }) => text.into_bytes(),
    };
    if body.is_empty() {
        notes.push("the entry has no body: some programs omit it from HAR files".to_owned());
    }
    let at = started.map(str::parse::<Timestamp>).transpose();
    let at = at
        .ok()
        .context("startedDateTime of the HAR entry is not a time; give the time of receipt with --at")?;
    Ok(Capture { method: request.method, uri: uri_of(&request.url), headers, body: body.into(), at, notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"{"startedDateTime":"2026-04-10T21:00:00.250+02:00","request":{"method":"POST",
        "url":"https://h.example/hooks/x?k=s3cret","headers":[{"name":":method","value":"POST"},
        {"name":"X-Signature","value":"abc"}],"postData":{"mimeType":"application/json","text":"{\"a\": 1}"}}}"#;

    fn refused(text: &str, entry: Option<usize>) -> String {
        parse(text.as_bytes(), entry).err().map(|error| error.to_string()).unwrap()
    }

    #[test]
    fn entries_are_selected_by_number_or_if_unambiguous() {
        let get = r#"{"request":{"method":"GET","url":"http://h/"}}"#;
        let file = format!(r#"{{"log":{{"version":"1.2","entries":[{get},{ENTRY}]}}}}"#);
        for (text, entry) in [(ENTRY, None), (&*file, None), (&*file, Some(2))] {
            let found = parse(text.as_bytes(), entry).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((found.uri.path(), &found.body[..]), ("/hooks/x", &b"{\"a\": 1}"[..]));
            assert_eq!((found.headers.len(), &found.headers["x-signature"]), (1, &"abc".parse().unwrap()));
            assert_eq!(found.at.unwrap().to_string(), "2026-04-10T19:00:00.25Z");
        }
        let found = parse(file.as_bytes(), Some(1)).unwrap_or_else(|error| panic!("{error}"));
        assert!(found.body.is_empty() && found.at.is_none() && found.uri.path() == "/");
        let two = format!(r#"{{"log":{{"entries":[{ENTRY},{ENTRY}]}}}}"#);
        let error = refused(&two, None);
        assert!(error.contains("2 entries") && error.contains("\n  2  POST /hooks/x"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
        assert_eq!(refused(&two, Some(3)), "no entry 3: the file has 2");
        assert_eq!(refused(&two, Some(0)), "no entry 0: the file has 2");
    }

    #[test]
    fn a_body_in_base64_is_decoded() {
        let entry =
            r#"{"request":{"method":"POST","url":"/","postData":{"text":"AP8K","encoding":"base64"}}}"#;
        assert_eq!(&parse(entry.as_bytes(), None).ok().unwrap().body[..], b"\x00\xff\n");
        let error = refused(&entry.replace("AP8K", "s3cret!"), None);
        assert!(error.contains("not base64") && !error.contains("s3cret"), "{error}");
    }
}
