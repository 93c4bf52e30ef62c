//! The same JSON as other programs serialize it: what the sender may have signed before a proxy parsed the body and
//! serialized it again.

use std::borrow::Cow;

use super::super::canonical::json_compact_ascii;
use crate::json;

/// White space between tokens.
#[derive(Debug, Clone, Copy)]
enum Whitespace {
    Compact,
    /// `, ` and `: `, as Python's json.dumps writes it.
    Spaced,
    /// A line for each member, as `JSON.stringify(value, null, 2)` writes it.
    Indented,
}

const LAYOUTS: [(Whitespace, &str); 3] = [
    (Whitespace::Compact, "without spaces"),
    (Whitespace::Spaced, "with a space behind `,` and `:`"),
    (Whitespace::Indented, "indented by 2 spaces"),
];

/// The escaping of strings: checked JSON to the same with other escapes.
type Escaping = fn(&str) -> Cow<'_, str>;

const STRINGS: [(Escaping, &str); 5] = [
    (|text| Cow::Borrowed(text), ""),
    (ascii, ", all but ASCII escaped"),
    (utf8, ", in raw UTF-8"),
    // PHP's json_encode.
    (|text| ascii(text).replace('/', "\\/").into(), ", `/` escaped"),
    // Go's json.Marshal.
    (go, ", `<`, `>` and `&` escaped"),
];

/// The limit of a spelling's length as a multiple of the body's: otherwise a small, deeply nested body would be indented
/// to megabytes.
const GROWTH: usize = 6;
const ROOM: usize = 16 * 1024;

/// Calls `each` with every spelling that differs from the body until it returns a value. Spellings are made one at a time,
/// so that only one is in memory. Returns the name of the one that matched, and the value.
pub(super) fn search<T>(body: &[u8], mut each: impl FnMut(&[u8]) -> Option<T>) -> Option<(String, T)> {
    let mut differing = |text: &[u8]| if text == body { None } else { each(text) };
    for (name, changed) in bytes(body) {
        if let Some(found) = differing(&changed) {
            return Some((name.to_owned(), found));
        }
    }
    let text = json::check(body).ok()?.get();
    let limit = text.len().saturating_mul(GROWTH) + ROOM;
    for (escape, escapes) in STRINGS {
        let escaped = escape(text);
        for (layout, spaces) in LAYOUTS {
            let Some(mut spelled) = spell(&escaped, layout, limit) else { continue };
            if let Some(found) = differing(&spelled) {
                return Some((format!("as JSON {spaces}{escapes}"), found));
            }
            spelled.push(b'\n');
            if let Some(found) = differing(&spelled) {
                return Some((format!("as JSON {spaces}{escapes}, with a newline at its end"), found));
            }
        }
    }
    None
}

/// The maximum number of spellings.
pub(super) const COUNT: usize = 2 * LAYOUTS.len() * STRINGS.len() + 5;

/// The changes that apply to any text, not only JSON.
fn bytes(body: &[u8]) -> [(&'static str, Vec<u8>); 5] {
    let lines = |from: &[u8], to: &[u8]| {
        match body.windows(from.len()).any(|part| part == from) {
            true => body.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)),
            false => return body.to_vec(),
        }
        .collect::<Vec<_>>()
        .join(to)
    };
    [
        ("with a newline at its end", [body, b"\n"].concat()),
        ("without white space around it", body.trim_ascii().to_vec()),
        ("with LF at its line ends", lines(b"\r\n", b"\n")),
        ("with CRLF at its line ends", lines(b"\n", b"\r\n")),
        ("without a byte order mark", body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).to_vec()),
    ]
}

/// Checked JSON with other white space; `None` if it would exceed the limit.
fn spell(text: &str, layout: Whitespace, limit: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 4);
    let (mut rest, mut depth) = (text, 0_usize);
    let line = |out: &mut Vec<u8>, depth: usize| {
        if matches!(layout, Whitespace::Indented) {
            out.push(b'\n');
            out.resize(out.len() + 2 * depth, b' ');
        }
    };
    while let Some(first) = rest.bytes().next() {
        let mut used = 1;
        match first {
            b'"' => {
                used = string_length(rest);
                out.extend_from_slice(rest.get(..used)?.as_bytes());
            }
            b'{' | b'[' => {
                out.push(first);
                depth += 1;
                let inner = rest.get(1..).unwrap_or_default().trim_ascii_start();
                if !inner.starts_with(['}', ']']) {
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !matches!(out.last(), Some(b'{' | b'[')) {
                    line(&mut out, depth);
                }
                out.push(first);
            }
            b',' => {
                out.push(first);
                match layout {
                    Whitespace::Spaced => out.push(b' '),
                    _ => line(&mut out, depth),
                }
            }
            b':' => {
                out.push(first);
                if !matches!(layout, Whitespace::Compact) {
                    out.push(b' ');
                }
            }
            b' ' | b'\t' | b'\n' | b'\r' => {}
            other => out.push(other),
        }
        rest = rest.get(used..)?;
        if out.len() > limit {
            return None;
        }
    }
    Some(out)
}

/// The length of the string that `text` begins with, including the quotes.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

/// Printable ASCII, everything else escaped.
fn ascii(text: &str) -> Cow<'_, str> {
    let escaped = json_compact_ascii(text.as_bytes()).unwrap_or_default();
    Cow::Owned(String::from_utf8(escaped.into_owned()).unwrap_or_default())
}

/// Raw UTF-8, with only the necessary escapes. A string with half a surrogate pair, which is no text, is unchanged.
fn utf8(text: &str) -> Cow<'_, str> {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, string)) = rest.find('"').and_then(|start| rest.split_at_checked(start)) {
        let (string, behind) = string.split_at_checked(string_length(string)).unwrap_or((string, ""));
        let read = serde_json::from_str::<String>(string);
        let escaped = read.and_then(|text| serde_json::to_string(&text));
        out.extend([before, escaped.as_deref().unwrap_or(string)]);
        rest = behind;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// As [`utf8`], and what HTML or JavaScript would take for something else is escaped.
fn go(text: &str) -> Cow<'_, str> {
    let escaped = ['<', '>', '&', '\u{2028}', '\u{2029}'];
    let one = |text: String, c: &char| text.replace(*c, &format!("\\u{:04x}", u32::from(*c)));
    Cow::Owned(escaped.iter().fold(utf8(text).into_owned(), one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(body: &str) -> Vec<String> {
        let mut found = Vec::new();
        search(body.as_bytes(), |text| {
            found.push(String::from_utf8(text.to_vec()).unwrap());
            None::<()>
        });
        found
    }

    /// Each text as Python 3, Node 22, PHP 8 or Go 1.22 writes the same value.
    #[test]
    fn the_spellings_of_common_programs_are_among_them() {
        let body = r#"{ "a":[1.10,{}, [] ],"b":{"c":"Gr\u00fc\u00dfe 😀\/<x>\n\u0001"},"d":true}"#;
        let found = all(body);
        for expected in [
            "{\"a\": [1.10, {}, []], \"b\": {\"c\": \"Gr\\u00fc\\u00dfe \\ud83d\\ude00/<x>\\n\\u0001\"}, \"d\": true}",
            "{\"a\": [1.10, {}, []], \"b\": {\"c\": \"Grüße 😀/<x>\\n\\u0001\"}, \"d\": true}\n",
            "{\n  \"a\": [\n    1.10,\n    {},\n    []\n  ],\n  \"b\": {\n    \"c\": \"Grüße 😀/<x>\\n\\u0001\"\n  },\n  \"d\": true\n}",
            "{\"a\":[1.10,{},[]],\"b\":{\"c\":\"Grüße 😀/<x>\\n\\u0001\"},\"d\":true}",
            "{\"a\":[1.10,{},[]],\"b\":{\"c\":\"Gr\\u00fc\\u00dfe \\ud83d\\ude00\\/<x>\\n\\u0001\"},\"d\":true}",
            "{\"a\":[1.10,{},[]],\"b\":{\"c\":\"Grüße 😀/\\u003cx\\u003e\\n\\u0001\"},\"d\":true}",
            "{\"a\":[1.10,{},[]],\"b\":{\"c\":\"Gr\\u00fc\\u00dfe 😀\\/<x>\\n\\u0001\"},\"d\":true}",
        ] {
            assert!(found.iter().any(|text| text == expected), "{expected} is not in {found:#?}");
        }
        assert!(found.len() <= COUNT, "{}", found.len());
    }

    #[test]
    fn the_canonical_form_is_the_verifier_s() {
        for body in [r#"{"a" : "\ud800 \u007f ü\/" }"#, "[ 1 , 2 ]", "\"😀\""] {
            let own = crate::verify::canonical::json_compact_ascii(body.as_bytes()).unwrap();
            let own = String::from_utf8(own.into_owned()).unwrap();
            assert!(all(body).contains(&own), "{own}");
        }
    }

    #[test]
    fn no_input_grows_out_of_proportion() {
        let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
        let body = format!("[{}]", vec![deep; 500].join(","));
        for text in all(&body) {
            assert!(text.len() <= GROWTH * body.len() + 2 * ROOM, "{}", text.len());
        }
        assert!(all("no JSON").len() <= 5);
    }
}
