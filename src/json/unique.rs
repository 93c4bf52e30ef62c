//! Duplicate keys at any depth. Checked for text that is stored unparsed, so that no two of its readers see different
//! values.

use std::borrow::Cow;

use super::{key_text, repeated_keys, skip_string};
use crate::outcome::{Fault, Reason};

/// Checks a valid JSON text for duplicate keys in one pass over its bytes.
///
/// # Errors
/// `duplicate_key`, with the byte at which the object begins.
pub fn unique(text: &str) -> Result<(), Fault> {
    // The keys of all open objects, outermost first; and for each object the index of its first key and where it begins;
    // `None` for an array.
    let mut keys: Vec<Cow<'_, str>> = Vec::new();
    let mut open: Vec<Option<(usize, usize)>> = Vec::new();
    let mut bytes = text.as_bytes().iter();
    // True after `{`, and after a comma in an object: a string there is a key.
    let mut at_key = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                let start = text.len() - bytes.len() - 1;
                skip_string(&mut bytes);
                if at_key {
                    let end = text.len() - bytes.len();
                    keys.push(key_text(text.get(start..end).unwrap_or_default()));
                    at_key = false;
                }
            }
            b'{' => {
                open.push(Some((keys.len(), text.len() - bytes.len() - 1)));
                at_key = true;
            }
            b'[' => {
                open.push(None);
                at_key = false;
            }
            b'}' | b']' => {
                if let Some(Some((first, at))) = open.pop() {
                    if keys.get(first..).is_some_and(repeated_keys) {
                        return Err(Fault::new(Reason::DuplicateKey, format!("in the object at byte {at}")));
                    }
                    keys.truncate(first);
                }
                at_key = false;
            }
            b',' => at_key = matches!(open.last(), Some(Some(_))),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c7_a_duplicate_key_is_found_at_any_depth() {
        for (text, twice) in [
            ("{}", false),
            ("[]", false),
            ("\"{\\\"a\\\":1,\\\"a\\\":2}\"", false),
            (r#"{"a":1,"b":{"a":1},"c":[{"a":1},{"a":1}]}"#, false),
            (r#"{"a":"a","b":"a"}"#, false),
            (r#"{"a":["a","a"],"b":1}"#, false),
            (r#"{"a":{},"b":[],"c":{"d":{}}}"#, false),
            (r#"{"a":1,"a":1}"#, true),
            (r#"{"b":[1,{"c":{"a":1, "x":[{"a":2}], "a":1}}]}"#, true),
            (r#"[[{"a":1},{"b":1,"\u0062":2}]]"#, true),
            (r#"{"a\"b":1,"a\"b":2}"#, true),
            (r#"{"a\\":1,"a":2}"#, false),
            (r#"{"\ud800":1,"\ud800":2}"#, true),
            (r#"{"a":{"b":1},"a":2}"#, true),
            (r#"{"":1,"":2}"#, true),
        ] {
            assert_eq!(unique(text).is_err(), twice, "{text}");
        }
        let many: Vec<String> = (0..500).map(|n| format!("\"{n}\":{n}")).collect();
        assert!(unique(&format!("{{{}}}", many.join(","))).is_ok());
        assert!(unique(&format!("{{{},\"250\":0}}", many.join(","))).is_err());
    }

    /// Compares with a reader that opens every object.
    #[test]
    fn c7_the_result_equals_that_of_a_reader_that_opens_every_object() {
        let mut random = fastrand::Rng::with_seed(20261130);
        let mut found = [0, 0];
        for _ in 0..20_000 {
            let mut text = String::new();
            write(&mut text, &mut random, 4);
            let raw = super::super::check(text.as_bytes()).unwrap();
            let expected = opened(raw).is_err();
            assert_eq!(unique(raw.get()).is_err(), expected, "{text}");
            found[usize::from(expected)] += 1;
        }
        assert!(found.iter().all(|count| *count > 1_000), "{found:?}");
    }

    fn opened(raw: &serde_json::value::RawValue) -> Result<(), Fault> {
        if let Some(object) = super::super::Object::open(raw)? {
            return object.members().iter().try_for_each(|(_, value)| opened(value));
        }
        super::super::elements(raw).unwrap_or_default().into_iter().try_for_each(opened)
    }

    fn write(text: &mut String, random: &mut fastrand::Rng, depth: u32) {
        let count = random.usize(..4);
        match random.u32(..if depth == 0 { 3 } else { 6 }) {
            0 => text.push_str(" -1.50e3 "),
            1 => text.push_str("\"}{\\\\\\\",:[\""),
            2 => text.push_str("null"),
            3 => {
                text.push('[');
                for index in 0..count {
                    text.push_str(if index > 0 { " , " } else { "" });
                    write(text, random, depth - 1);
                }
                text.push(']');
            }
            _ => {
                text.push('{');
                for index in 0..count {
                    text.push_str(if index > 0 { "," } else { " " });
                    let keys = ["a", "\\u0061", "b", "c", "d", "e", "f\\\"", "{", ",", ""];
                    text.push_str(&format!("\"{}\" : ", random.choice(keys).unwrap()));
                    write(text, random, depth - 1);
                }
                text.push('}');
            }
        }
    }
}
