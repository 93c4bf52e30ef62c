//! The same JSON as other programs serialize it: what the sender may have signed before a proxy parsed the body and
//! serialized it again.

use std::borrow::Cow;
use std::ops::ControlFlow;

use serde_json::value::RawValue;

use super::super::canonical::json_compact_ascii;
use super::recoded;
use crate::json::{self, JsonKind, Object};

/// White space between tokens.
#[derive(Debug, Clone, Copy)]
enum Whitespace {
    Compact,
    /// `, ` and `: `, as Python's json.dumps writes it.
    Spaced,
    /// A line for each member, indented by this for each level, as `JSON.stringify(value, null, 2)` writes it.
    Indented(&'static str),
}

const LAYOUTS: [(Whitespace, &str); 5] = [
    (Whitespace::Compact, "without spaces"),
    (Whitespace::Spaced, "with a space behind `,` and `:`"),
    (Whitespace::Indented("  "), "indented by 2 spaces"),
    (Whitespace::Indented("    "), "indented by 4 spaces"),
    (Whitespace::Indented("\t"), "indented by tabs"),
];

/// The escaping of strings: checked JSON to the same with other escapes.
type Escaping = fn(&str) -> Cow<'_, str>;

const STRINGS: [(Escaping, &str); 7] = [
    (|text| Cow::Borrowed(text), ""),
    (ascii, ", all but ASCII escaped"),
    (utf8, ", in raw UTF-8"),
    // PHP's json_encode.
    (|text| ascii(text).replace('/', "\\/").into(), ", `/` escaped"),
    // Go's json.Marshal.
    (go, ", `<`, `>` and `&` escaped"),
    (|text| upper_escapes(text).into(), ", with upper-case hex digits in its escapes"),
    (|text| upper_escapes(&ascii(text)).into(), ", all but ASCII escaped with upper-case hex digits"),
];

/// The limit of a spelling's length as a multiple of the body's: otherwise a small, deeply nested body would be indented
/// to megabytes.
const GROWTH: usize = 6;
const ROOM: usize = 16 * 1024;

/// What became of a search.
pub(super) struct Searched<T> {
    /// The name of the text that matched, and what `each` returned for it.
    pub(super) found: Option<(Cow<'static, str>, T)>,
    /// The number of texts that differed from the body and were tried.
    pub(super) tried: usize,
}

/// Calls `each` with every text that the sender may have signed, if it differs from the body, until it breaks: with a value
/// if it matched, with none to give up. The texts are made one at a time, so that only one is in memory. Each name fits
/// behind "signed this body".
pub(super) fn search<T>(body: &[u8], mut each: impl FnMut(&[u8]) -> ControlFlow<Option<T>>) -> Searched<T> {
    let mut tried = 0;
    let mut differing = |name: &dyn Fn() -> Cow<'static, str>, text: &[u8]| {
        if text == body {
            return ControlFlow::Continue(());
        }
        let tried_now = each(text);
        if !matches!(tried_now, ControlFlow::Break(None)) {
            tried += 1;
        }
        tried_now.map_break(|found| found.map(|found| (name(), found)))
    };
    let searched = all(body, &mut differing);
    let found = searched.break_value().flatten();
    Searched { found, tried }
}

/// Makes the name of a text, which is needed only if the text was found.
type TextName<'n> = &'n dyn Fn() -> Cow<'static, str>;

/// Passes every text with its name to `each`.
fn all<B>(body: &[u8], each: &mut dyn FnMut(TextName<'_>, &[u8]) -> ControlFlow<B>) -> ControlFlow<B> {
    for recode in recoded::ALL {
        if let Some((name, text)) = recode(body) {
            each(&|| name.into(), &text)?;
        }
    }
    let Ok(checked) = json::check(body) else { return ControlFlow::Continue(()) };
    let limit = checked.get().len().saturating_mul(GROWTH) + ROOM;
    let sorted = || sorted(checked).map(|text| (text, ", its members sorted by name"));
    let as_received = (checked.get().to_owned(), "");
    for (text, order) in std::iter::once(as_received).chain(std::iter::once_with(sorted).flatten()) {
        for (escape, escapes) in STRINGS {
            let escaped = escape(&text);
            for (layout, spaces) in LAYOUTS {
                let Some(mut spelled) = spell(&escaped, layout, limit) else { continue };
                let name = |end: &str| format!("as JSON {spaces}{escapes}{order}{end}").into();
                each(&|| name(""), &spelled)?;
                spelled.push(b'\n');
                each(&|| name(", with a newline at its end"), &spelled)?;
            }
        }
    }
    ControlFlow::Continue(())
}

/// The same JSON with the members of each object in the order of their names, as Python's `sort_keys` and RFC 8785 have
/// it. `None` if an object has a key twice.
fn sorted(raw: &RawValue) -> Option<String> {
    let joined = |parts: Vec<String>| parts.join(",");
    Some(match JsonKind::of(raw) {
        JsonKind::Object => {
            let object = Object::open(raw).ok()??;
            let mut members: Vec<_> = object.members().iter().collect();
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            let member = |(name, value): &(Cow<'_, str>, &RawValue)| {
                Some(format!("{}:{}", serde_json::to_string(name).ok()?, sorted(value)?))
            };
            format!("{{{}}}", joined(members.into_iter().map(member).collect::<Option<_>>()?))
        }
        JsonKind::Array => {
            let elements = json::elements(raw)?;
            format!("[{}]", joined(elements.into_iter().map(sorted).collect::<Option<_>>()?))
        }
        _ => raw.get().to_owned(),
    })
}

/// Checked JSON with other white space; `None` if it would exceed the limit.
fn spell(text: &str, layout: Whitespace, limit: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 4);
    let (mut rest, mut depth) = (text, 0_usize);
    let line = |out: &mut Vec<u8>, depth: usize| {
        if let Whitespace::Indented(by) = layout {
            out.push(b'\n');
            out.extend(by.bytes().cycle().take(by.len() * depth));
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

/// Checked JSON with `\u001B` instead of `\u001b`.
fn upper_escapes(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    // Only strings have backslashes; a pair of them is one escape.
    while let Some((before, escape)) = rest.find('\\').and_then(|start| rest.split_at_checked(start)) {
        let digits = escape.get(2..6).filter(|_| escape.starts_with("\\u"));
        let end = if digits.is_some() { 6 } else { 2 };
        let (escape, behind) = escape.split_at_checked(end).unwrap_or((escape, ""));
        out.push_str(before);
        match digits {
            Some(digits) => out.extend(["\\u", &digits.to_ascii_uppercase()]),
            None => out.push_str(escape),
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(body: &str) -> Vec<String> {
        let mut found = Vec::new();
        let searched = search(body.as_bytes(), |text| {
            found.push(String::from_utf8_lossy(text).into_owned());
            ControlFlow::<Option<()>>::Continue(())
        });
        assert_eq!(searched.tried, found.len());
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
        assert!(found.len() < 200, "{}", found.len());
    }

    #[test]
    #[expect(
        clippy::disallowed_types,
        reason = "the oracle for texts without large numbers or duplicate keys"
    )]
    fn members_are_sorted_and_escapes_spelled_without_changing_the_value() {
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let body = r#"{"b":[{"d":1.10,"c":"\\u00fc \u00fc\ud83d\ude00"}],"a":{}}"#;
        for text in all(body).into_iter().filter(|text| text.starts_with(['{', '['])) {
            assert_eq!(value(&text), value(body), "{text}");
        }
        let sorted = sorted(json::check(body.as_bytes()).unwrap()).unwrap();
        assert_eq!(sorted, r#"{"a":{},"b":[{"c":"\\u00fc \u00fc\ud83d\ude00","d":1.10}]}"#);
        assert_eq!(upper_escapes(r#"["\\u00fc","\u00fc"]"#), r#"["\\u00fc","\u00FC"]"#);
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
        assert!(all("no JSON").len() <= recoded::ALL.len());
    }
}
