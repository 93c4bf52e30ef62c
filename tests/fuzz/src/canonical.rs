//! Bytes -> the canonical form of a JSON text.

use std::borrow::Cow;

use hookstream::json;
use hookstream::verify::canonical::json_compact_ascii;

/// The form exists exactly for the JSON that `json::check` accepts, equals the output of a simple second implementation, is
/// idempotent, and ignores white space between tokens.
pub fn run(data: &[u8]) {
    let form = json_compact_ascii(data);
    assert_eq!(form.is_ok(), json::check(data).is_ok());
    let Ok(form) = form else { return };
    assert!(form.len() <= 6 * data.len());
    assert!(form.iter().all(|byte| (0x20..=0x7e).contains(byte)));
    assert_eq!(matches!(form, Cow::Borrowed(_)), *form == *data, "borrowed exactly if nothing changes");
    let text = str::from_utf8(data).unwrap();
    assert_eq!(str::from_utf8(&form).unwrap(), reference_form(text));
    let again = json_compact_ascii(&form).unwrap();
    assert!(matches!(again, Cow::Borrowed(_)) && again == form);
    assert_eq!(json_compact_ascii(&spread(&form)).unwrap(), form);
}

/// A simple implementation, character by character.
fn reference_form(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => {}
            '"' => {
                out.push('"');
                while let Some(c) = chars.next().filter(|&c| c != '"') {
                    match c {
                        '\\' => spell(escaped(&mut chars), &mut out),
                        c => c.encode_utf16(&mut [0; 2]).iter().for_each(|&unit| spell(unit, &mut out)),
                    }
                }
                out.push('"');
            }
            c => out.push(c),
        }
    }
    out
}

fn escaped(chars: &mut std::str::Chars<'_>) -> u16 {
    match chars.next().unwrap() {
        'b' => 8,
        't' => 9,
        'n' => 10,
        'f' => 12,
        'r' => 13,
        'u' => u16::from_str_radix(&chars.by_ref().take(4).collect::<String>(), 16).unwrap(),
        itself => itself as u16,
    }
}

fn spell(unit: u16, out: &mut String) {
    match unit {
        8 => out.push_str("\\b"),
        9 => out.push_str("\\t"),
        10 => out.push_str("\\n"),
        12 => out.push_str("\\f"),
        13 => out.push_str("\\r"),
        34 => out.push_str("\\\""),
        92 => out.push_str("\\\\"),
        32..=126 => out.push(char::from(unit as u8)),
        _ => out.push_str(&format!("\\u{unit:04x}")),
    }
}

/// Adds white space around all tokens.
fn spread(form: &[u8]) -> Vec<u8> {
    let mut out = vec![b'\r'];
    let (mut in_string, mut escaped) = (false, false);
    for &byte in form {
        if !in_string && matches!(byte, b',' | b':' | b'[' | b']' | b'{' | b'}') {
            out.extend([b' ', byte, b'\n', b'\t']);
            continue;
        }
        out.push(byte);
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            _ => {}
        }
    }
    out.push(b' ');
    out
}
