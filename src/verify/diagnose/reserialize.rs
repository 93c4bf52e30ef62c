//! The same JSON as other programs serialize it: what the sender may have signed before a proxy parsed the body and
//! serialized it again.

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

/// The escaping of strings.
#[derive(Debug, Clone, Copy)]
enum Escaping {
    /// Unchanged.
    Kept,
    /// Printable ASCII, everything else escaped.
    Ascii,
    /// Raw UTF-8, with only the necessary escapes.
    Utf8,
    /// ASCII, and `/` escaped, as PHP's json_encode writes it.
    Php,
    /// UTF-8, and `<`, `>`, `&` escaped, as Go's json.Marshal writes it.
    Go,
}

const LAYOUTS: [(Whitespace, &str); 3] = [
    (Whitespace::Compact, "without spaces"),
    (Whitespace::Spaced, "with a space behind `,` and `:`"),
    (Whitespace::Indented, "indented by 2 spaces"),
];

const STRINGS: [(Escaping, &str); 5] = [
    (Escaping::Kept, ""),
    (Escaping::Ascii, ", all but ASCII escaped"),
    (Escaping::Utf8, ", in raw UTF-8"),
    (Escaping::Php, ", `/` escaped"),
    (Escaping::Go, ", `<`, `>` and `&` escaped"),
];

/// The limit of a spelling's length as a multiple of the body's: otherwise a small, deeply nested body would be indented
/// to megabytes.
const GROWTH: usize = 6;
const ROOM: usize = 16 * 1024;

/// Calls `each` with every spelling that differs from the body until it returns true. Spellings are made one at a time, so
/// that only one is in memory. Returns the name of the one that matched.
pub(super) fn search(body: &[u8], mut each: impl FnMut(&[u8]) -> bool) -> Option<String> {
    for (name, changed) in bytes(body) {
        if changed != body && each(&changed) {
            return Some(name.to_owned());
        }
    }
    let text = json::check(body).ok()?.get();
    for (layout, spaces) in LAYOUTS {
        for (strings, escapes) in STRINGS {
            let Some(mut spelled) = spell(text, layout, strings) else { continue };
            if spelled != body && each(&spelled) {
                return Some(format!("as JSON {spaces}{escapes}"));
            }
            spelled.push(b'\n');
            if spelled != body && each(&spelled) {
                return Some(format!("as JSON {spaces}{escapes}, with a newline at its end"));
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

/// Checked JSON, serialized again; `None` if it would exceed the limit.
fn spell(text: &str, layout: Whitespace, strings: Escaping) -> Option<Vec<u8>> {
    let limit = text.len().saturating_mul(GROWTH) + ROOM;
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
                let (inner, length) = string(rest);
                used = length;
                out.push(b'"');
                respell(inner, strings, &mut out);
                out.push(b'"');
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

/// The content of the string that `text` begins with, and its length including the quotes.
fn string(text: &str) -> (&str, usize) {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return (text.get(1..at).unwrap_or_default(), at + 1),
            _ => {}
        }
    }
    (text.get(1..).unwrap_or_default(), text.len())
}

fn respell(inner: &str, strings: Escaping, out: &mut Vec<u8>) {
    if matches!(strings, Escaping::Kept) {
        return out.extend_from_slice(inner.as_bytes());
    }
    let mut rest = inner;
    while let Some(c) = rest.chars().next() {
        let (character, used) = if c == '\\' { escape(rest) } else { (Ok(c), c.len_utf8()) };
        match character {
            Ok(c) => write(c, strings, out),
            Err(lone) => out.extend_from_slice(format!("\\u{lone:04x}").as_bytes()),
        }
        rest = rest.get(used..).unwrap_or_default();
    }
}

/// The character of an escape, or a surrogate without its other half; and the escape's length.
fn escape(text: &str) -> (Result<char, u16>, usize) {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    match text.as_bytes().get(1) {
        Some(b'u') => {
            let Some(first) = unit(0) else { return (Ok('\\'), 1) };
            if let Some(Ok(c)) = char::decode_utf16([first]).next() {
                return (Ok(c), 6);
            }
            match unit(6).and_then(|second| char::decode_utf16([first, second]).next()) {
                Some(Ok(c)) => (Ok(c), 12),
                _ => (Err(first), 6),
            }
        }
        Some(b'n') => (Ok('\n'), 2),
        Some(b't') => (Ok('\t'), 2),
        Some(b'r') => (Ok('\r'), 2),
        Some(b'b') => (Ok('\u{8}'), 2),
        Some(b'f') => (Ok('\u{c}'), 2),
        Some(other) => (Ok(char::from(*other)), 2),
        None => (Ok('\\'), 1),
    }
}

fn write(c: char, strings: Escaping, out: &mut Vec<u8>) {
    let short = match c {
        '"' => Some("\\\""),
        '\\' => Some("\\\\"),
        '\n' => Some("\\n"),
        '\t' => Some("\\t"),
        '\r' => Some("\\r"),
        '\u{8}' => Some("\\b"),
        '\u{c}' => Some("\\f"),
        '/' if matches!(strings, Escaping::Php) => Some("\\/"),
        _ => None,
    };
    let ascii = matches!(strings, Escaping::Ascii | Escaping::Php);
    let escaped = c < ' '
        || (ascii && !c.is_ascii())
        || (c == '\u{7f}' && matches!(strings, Escaping::Ascii))
        || (matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') && matches!(strings, Escaping::Go));
    match short {
        Some(short) => out.extend_from_slice(short.as_bytes()),
        None if escaped => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        }
        None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(body: &str) -> Vec<String> {
        let mut found = Vec::new();
        search(body.as_bytes(), |text| {
            found.push(String::from_utf8(text.to_vec()).unwrap());
            false
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
