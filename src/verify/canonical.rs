//! The form of a JSON body that some senders sign instead of the bytes they send.
//!
//! It is derived from the bytes, not by parsing and serializing: key order, repeated keys and the digits of numbers stay as
//! received. That is sound only after the strict check of the JSON: in looser text `1 2` would become `12`, and bytes that
//! nobody signed would verify.

use std::borrow::Cow;

use crate::json;
use crate::outcome::Fault;

/// What Python's `json.dumps(payload, separators=(",", ":"))` writes for the same payload: no
/// white space outside strings, and strings in printable ASCII, where `"`, `\` and the five
/// control characters with a short escape use it and all else is `\uXXXX` in lower case, as a
/// surrogate pair above U+FFFF. U+007F is escaped, `/` is not.
///
/// Borrowed if and only if `body` already has this form, so that a caller need not hash twice.
/// The result is at most six times as long as `body`.
///
/// A lone surrogate escape is preserved: Python reads it and writes it back, so a sender may have signed it. A later step
/// decides whether the body can become an event.
///
/// # Errors
/// `json_invalid` and `json_too_deep`, as [`json::check`] gives them.
pub fn json_compact_ascii(body: &[u8]) -> Result<Cow<'_, [u8]>, Fault> {
    let text = json::check(body)?.get();
    let mut form = CanonicalWriter { text, done: 0, out: Vec::new() };
    let mut at = 0;
    while let Some(found) = form.next(at, |byte| matches!(byte, b'"' | b' ' | b'\t' | b'\n' | b'\r')) {
        at = if text.as_bytes().get(found) == Some(&b'"') {
            form.string(found + 1)
        } else {
            let end = form.next(found, |byte| !byte.is_ascii_whitespace()).unwrap_or(text.len());
            form.replace(found, end, b"");
            end
        };
    }
    Ok(form.finish(body))
}

/// One pass over checked text: everything before `done` is in `out`; the rest is unchanged so far and is copied as one run
/// at the next change.
struct CanonicalWriter<'b> {
    text: &'b str,
    done: usize,
    out: Vec<u8>,
}

impl<'b> CanonicalWriter<'b> {
    /// The index of the next `wanted` byte at or after `at`.
    fn next(&self, at: usize, wanted: impl Fn(u8) -> bool) -> Option<usize> {
        let rest = self.text.as_bytes().get(at..)?;
        rest.iter().position(|&byte| wanted(byte)).map(|offset| at + offset)
    }

    /// Replaces `start..end` with `with`. Offsets never decrease.
    fn replace(&mut self, start: usize, end: usize, with: &[u8]) {
        if self.out.capacity() == 0 {
            self.out.reserve_exact(self.text.len());
        }
        self.out.extend_from_slice(self.text.as_bytes().get(self.done..start).unwrap_or_default());
        self.out.extend_from_slice(with);
        self.done = end;
    }

    /// Converts the string that opened before `at`; returns the index after its end.
    fn string(&mut self, mut at: usize) -> usize {
        while let Some(found) = self.next(at, |byte| matches!(byte, b'"' | b'\\' | 0x7f..)) {
            at = match self.text.as_bytes().get(found) {
                Some(b'"') => return found + 1,
                Some(b'\\') => self.escape(found),
                _ => self.beyond_ascii(found),
            };
        }
        self.text.len()
    }

    /// The escape at `at`. Its syntax has been checked.
    fn escape(&mut self, at: usize) -> usize {
        match self.text.as_bytes().get(at + 1) {
            Some(b'u') => {}
            Some(b'/') => {
                self.replace(at, at + 2, b"/");
                return at + 2;
            }
            _ => return at + 2,
        }
        let end = at + 6;
        let digits = self.text.get(at + 2..end).unwrap_or_default();
        // The halves of a surrogate pair need not be joined: each keeps its own escape.
        if let Ok(unit) = u16::from_str_radix(digits, 16) {
            let wanted = Spelled::unit(unit);
            if self.text.as_bytes().get(at..end) != Some(wanted.bytes()) {
                self.replace(at, end, wanted.bytes());
            }
        }
        end
    }

    /// The raw characters from `at` on that are not printable ASCII. They mostly come in runs, and a body of nothing else
    /// makes up to six bytes of output per byte: so each costs only a few instructions.
    fn beyond_ascii(&mut self, at: usize) -> usize {
        self.replace(at, at, b"");
        let mut end = at;
        for character in self.text.get(at..).unwrap_or_default().chars() {
            if matches!(character, ' '..='~') {
                break;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                self.out.extend_from_slice(&escaped(*unit));
            }
            end += character.len_utf8();
        }
        self.done = end;
        end
    }

    fn finish(mut self, body: &'b [u8]) -> Cow<'b, [u8]> {
        let unchanged = self.out.is_empty() && self.done == 0;
        // The check trimmed the text: white space around it is a change, too.
        if unchanged && self.text.len() == body.len() {
            return Cow::Borrowed(body);
        }
        let end = self.text.len();
        self.replace(end, end, b"");
        Cow::Owned(self.out)
    }
}

/// A UTF-16 unit as `\uXXXX`.
fn escaped(unit: u16) -> [u8; 6] {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let digit = |shift: u16| HEX.get(usize::from(unit >> shift & 0xf)).copied().unwrap_or_default();
    [b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]
}

/// Python's text for one UTF-16 unit inside a string: one, two or six bytes.
struct Spelled([u8; 6], usize);

impl Spelled {
    fn unit(unit: u16) -> Self {
        let [low, _] = unit.to_le_bytes();
        let short = |letter: u8| Self([b'\\', letter, 0, 0, 0, 0], 2);
        match unit {
            0x22 | 0x5c => short(low),
            0x08 => short(b'b'),
            0x09 => short(b't'),
            0x0a => short(b'n'),
            0x0c => short(b'f'),
            0x0d => short(b'r'),
            0x20..=0x7e => Self([low, 0, 0, 0, 0, 0], 1),
            _ => Self(escaped(unit), 6),
        }
    }

    fn bytes(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngSeed, TestRunner};

    use super::*;
    use crate::outcome::Reason;

    fn form(text: &str) -> String {
        String::from_utf8(json_compact_ascii(text.as_bytes()).unwrap().into_owned()).unwrap()
    }

    #[derive(serde::Deserialize)]
    struct Vector {
        canonical: String,
        wire: Vec<String>,
    }

    fn vectors() -> Vec<Vector> {
        let lines = include_str!("../../tests/fixtures/canonical/vectors.jsonl").lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn every_spelling_of_a_python_object_has_the_form_that_python_signs() {
        let vectors = vectors();
        assert!(vectors.len() >= 300, "{} vectors", vectors.len());
        for Vector { canonical, wire } in &vectors {
            assert!(!wire.is_empty());
            for text in wire {
                assert_eq!(&form(text), canonical, "from {text:?}");
            }
        }
    }

    #[test]
    fn a_body_in_its_form_is_borrowed_and_any_other_is_not() {
        for Vector { canonical, wire } in vectors() {
            for text in wire {
                let borrowed = matches!(json_compact_ascii(text.as_bytes()).unwrap(), Cow::Borrowed(_));
                assert_eq!(borrowed, text == canonical, "{text:?}");
            }
        }
        for trimmed in [" {}", "{}\n", "\t[ ]\r\n", "{ }"] {
            assert!(matches!(json_compact_ascii(trimmed.as_bytes()).unwrap(), Cow::Owned(_)), "{trimmed:?}");
        }
    }

    #[test]
    fn escapes_are_spelled_as_python_spells_them() {
        for (wire, canonical) in [
            (r#""\/""#, r#""/""#),
            (r#""\u002F""#, r#""/""#),
            (r#""\u0041\u007e\u0020""#, r#""A~ ""#),
            (r#""\u00FC\uABCD""#, r#""\u00fc\uabcd""#),
            (r#""\u0022\u005c\u005C""#, r#""\"\\\\""#),
            (r#""\u0008\u0009\u000a\u000C\u000D""#, r#""\b\t\n\f\r""#),
            (r#""\u0000\u000B\u001F\u007F""#, r#""\u0000\u000b\u001f\u007f""#),
            (r#""\\u0041\\/""#, r#""\\u0041\\/""#),
            ("\"\u{7f}\u{80}\u{2028}ü日本\"", r#""\u007f\u0080\u2028\u00fc\u65e5\u672c""#),
            ("\"😀\"", r#""\ud83d\ude00""#),
            (r#""\uD83D\uDE00""#, r#""\ud83d\ude00""#),
            ("{\"a b\" : \" , : \"}", r#"{"a b":" , : "}"#),
        ] {
            assert_eq!(form(wire), canonical, "{wire}");
        }
    }

    #[test]
    fn a_lone_surrogate_escape_is_kept() {
        assert_eq!(form(r#""\uD800""#), r#""\ud800""#);
        assert_eq!(form(r#" "\uDE00\uD83Dx" "#), r#""\ude00\ud83dx""#);
    }

    #[test]
    fn numbers_order_and_repeated_keys_stay_as_they_came() {
        let text = r#"{"z":1.10,"a":1E+5,"a":-0,"z":12345678901234567890.000,"e":1e400}"#;
        assert_eq!(form(text), text);
        assert_eq!(form(&text.replace(',', " ,\r\n\t")), text);
    }

    fn refusal(body: &[u8]) -> Option<Reason> {
        json_compact_ascii(body).err().map(|fault| fault.reason)
    }

    #[test]
    fn whitespace_inside_a_token_is_refused() {
        let split =
            "1 2|tr ue|fal\nse|nul l|- 1|1 .5|1. 5|1 e5|1e 5|1e+ 5|\"\\u00 41\"|\"\\ u0041\"|\"\\\n\"";
        for text in split.split('|') {
            assert_eq!(refusal(text.as_bytes()), Some(Reason::JsonInvalid), "{text:?}");
        }
    }

    #[test]
    fn text_that_is_not_strictly_json_has_no_form() {
        let ascii = r##"NaN Infinity -Infinity True 01 -01 +1 .5 5. 0x10 1_0 1,2 {}{} [1,] [,1] {"a":1,} {"a"} {1:2}
            {a:1} {'a':1} [ } [}" "\" "\x41" "\'" "\U0041" "\u00g1" "\u+041" "\u00" #a /*a*/1 1/*a*/ 1//a"##;
        let spaced =
            ["", " ", "\n", "[1 2]", "{} {}", "// a\n1", "\"a\nb\"", "\"a\tb\"", "\"\0\"", "\0", "{}\0"];
        let wide = [
            "\x0c{}",
            "\x0b{}",
            "{}\x1f",
            "\u{feff}{}",
            "{\u{2003}}",
            "[\u{a0}1]",
            "{}\u{85}",
            "[1\u{2028}]",
            "１",
        ];
        for text in ascii.split_whitespace().chain(spaced).chain(wide) {
            assert_eq!(refusal(text.as_bytes()), Some(Reason::JsonInvalid), "{text:?}");
        }
        assert_eq!(refusal("[".repeat(10_000).as_bytes()), Some(Reason::JsonTooDeep));
    }

    #[test]
    fn text_that_is_not_utf_8_has_no_form() {
        let cut: &[&[u8]] = &[b"\xff", b"\xfc", b"\xc3", b"\xc3(", b"\xe6\x97", b"\xf4\x90\x80\x80"];
        let overlong: &[&[u8]] = &[b"\xc0\xaf", b"\xc1\x81", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf"];
        let surrogate: &[&[u8]] = &[b"\xed\xa0\x80", b"\xed\xb0\x80", b"\xed\xa0\xbd\xed\xb8\x80"];
        for inner in [cut, overlong, surrogate].concat() {
            let text = [b"\"", inner, b"\""].concat();
            assert_eq!(refusal(&text), Some(Reason::JsonInvalid), "{inner:x?}");
        }
    }

    #[test]
    fn the_form_is_at_most_six_times_as_long() {
        for character in ['\u{7f}', 'ü', '日', '😀'] {
            let text = format!("\"{}\"", character.to_string().repeat(10_000));
            assert!(form(&text).len() <= 6 * text.len());
        }
    }

    /// JSON as its tokens, so that white space can be put between them and into them.
    fn tokens() -> impl Strategy<Value = Vec<String>> {
        let number = r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?";
        let text = prop_oneof![
            any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
            r#""([ -!#-\[\]-~ü日😀\x7f]|\\["\\/bfnrt]|\\u00[0-9a-fA-F]{2}|\\u[1-9a-cA-C][0-9a-fA-F]{3}|\\u[dD]83[dD]\\u[dD][eE]0[0-9])*""#,
        ];
        let literal = prop_oneof![Just("true"), Just("false"), Just("null")].prop_map(str::to_owned);
        let leaf = prop_oneof![text.clone(), number, literal].prop_map(|one| vec![one]);
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(|all| between("[", all, "]")),
                proptest::collection::vec((text.clone(), inner), 0..5).prop_map(|all| {
                    let member =
                        |(key, value): (String, Vec<String>)| [vec![key, ":".to_owned()], value].concat();
                    between("{", all.into_iter().map(member).collect(), "}")
                }),
            ]
        })
    }

    fn between(open: &str, parts: Vec<Vec<String>>, close: &str) -> Vec<String> {
        let inner = parts.join(&",".to_owned());
        [vec![open.to_owned()], inner, vec![close.to_owned()]].concat()
    }

    /// The same cases at every run; a failure prints the seed and the smallest case.
    fn check_all<S: Strategy>(
        seed: u64,
        strategy: S,
        property: impl Fn(S::Value) -> Result<(), TestCaseError>,
    ) {
        println!("proptest seed {seed}");
        let rng_seed = RngSeed::Fixed(seed);
        let config = Config { cases: 500, rng_seed, failure_persistence: None, ..Config::default() };
        TestRunner::new(config).run(&strategy, property).unwrap();
    }

    #[test]
    #[allow(clippy::disallowed_types, reason = "a second reader to compare with")]
    fn the_form_is_printable_ascii_means_the_same_and_is_its_own_form() {
        check_all(1, tokens(), |tokens| {
            let text = tokens.concat();
            let made = form(&text);
            prop_assert!(made.bytes().all(|byte| (0x20..=0x7e).contains(&byte)), "{:?}", made);
            prop_assert_eq!(&form(&made), &made);
            prop_assert!(matches!(json_compact_ascii(made.as_bytes()), Ok(Cow::Borrowed(_))));
            let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            prop_assert_eq!(read(&made), read(&text));
            Ok(())
        });
    }

    #[test]
    fn whitespace_between_tokens_changes_nothing() {
        let spaces = proptest::collection::vec("[ \t\r\n]{0,3}", 1..20);
        check_all(2, (tokens(), spaces), |(tokens, spaces)| {
            let spread: String = tokens
                .iter()
                .zip(spaces.iter().cycle())
                .flat_map(|(token, space)| [space.as_str(), token])
                .collect();
            prop_assert_eq!(form(&(spread + &spaces[0])), form(&tokens.concat()));
            Ok(())
        });
    }

    #[test]
    fn whitespace_put_into_a_token_is_refused_or_changes_the_form() {
        let anywhere = any::<[prop::sample::Index; 2]>();
        let space = prop::sample::select(vec![' ', '\t', '\r', '\n']);
        check_all(3, (tokens(), anywhere, space), |(tokens, [which, place], space)| {
            let long: Vec<usize> = (0..tokens.len()).filter(|&nth| tokens[nth].len() > 1).collect();
            if long.is_empty() {
                return Ok(());
            }
            let (mut split, nth) = (tokens.clone(), *which.get(&long));
            let inside: Vec<usize> = split[nth].char_indices().skip(1).map(|(at, _)| at).collect();
            split[nth].insert(*place.get(&inside), space);
            let text = split.concat();
            let result = json_compact_ascii(text.as_bytes()).ok();
            if split[nth].starts_with('"') {
                let whole = form(&tokens.concat());
                prop_assert_ne!(result.as_deref(), Some(whole.as_bytes()));
            } else {
                prop_assert_eq!(result, None, "{:?}", text);
            }
            Ok(())
        });
    }
}
