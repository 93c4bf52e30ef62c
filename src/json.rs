//! Strict JSON without a tree: the text is validated once, then opened one level at a time as slices of itself. Every
//! number keeps its digits, and nothing is copied.

mod unique;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::de::Read;
use serde_json::value::RawValue;

use crate::outcome::{Fault, Reason};
pub use unique::unique;

/// The limit on nesting of arrays and objects. serde_json's raw values have no limit, and all later stages, consumers
/// included, may recurse.
pub const MAX_DEPTH: usize = 128;

/// Validates a body: strict RFC 8259 in UTF-8, at most [`MAX_DEPTH`] levels.
///
/// # Errors
/// `json_invalid` with the position, never with text of the body; `json_too_deep`.
pub fn check(body: &[u8]) -> Result<&RawValue, Fault> {
    serde_json::from_str(within_bounds(body)?).map_err(|error| invalid(&error))
}

/// Checks what the parser requires (UTF-8) or does not check (depth).
fn within_bounds(body: &[u8]) -> Result<&str, Fault> {
    let text = std::str::from_utf8(body).map_err(|error| {
        Fault::new(Reason::JsonInvalid, format!("not UTF-8 at byte {}", error.valid_up_to()))
    })?;
    // Checked before parsing: the parser's raw values skip nested levels without a stack, but a body that is too deep
    // must be refused as `json_too_deep`, not for a later error.
    depth_within(text.as_bytes(), MAX_DEPTH)?;
    Ok(text)
}

/// Does the work of [`check`] and [`Object::open`] in one pass, since most bodies are objects. Returns the object's
/// text and its members, or `None` for valid JSON of another kind.
///
/// # Errors
/// The errors of both.
pub fn object(body: &[u8]) -> Result<Option<(&str, Object<'_>)>, Fault> {
    let full = within_bounds(body)?;
    let text = full.trim_matches([' ', '\t', '\n', '\r']);
    if !text.starts_with('{') {
        return check(body).map(|_| None);
    }
    // Parsed from the start of the body, so that positions in errors refer to the body.
    let mut parser = Deserializer::from_str(full);
    let object = Object::read(&mut parser, text.len())?;
    parser.end().map_err(|error| invalid(&error))?;
    object.unique().map(|object| Some((text, object)))
}

/// serde_json's messages may quote the input, so the fault contains only position and kind.
fn invalid(error: &serde_json::Error) -> Fault {
    let kind = match error.classify() {
        serde_json::error::Category::Eof => "ends too early",
        _ => "syntax",
    };
    Fault::new(Reason::JsonInvalid, format!("{kind} at line {} column {}", error.line(), error.column()))
}

/// Checks the depth by counting brackets outside strings. For text that is not JSON the count means nothing, but then
/// the parser refuses it.
fn depth_within(text: &[u8], limit: usize) -> Result<(), Fault> {
    if openings(text) <= limit {
        return Ok(());
    }
    let (mut depth, mut bytes) = (0_usize, text.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    let at = text.len() - bytes.len() - 1;
                    let detail = format!("more than {limit} levels at byte {at}");
                    return Err(Fault::new(Reason::JsonTooDeep, detail));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// The number of opening brackets, including those in strings. Most bodies have fewer brackets than the limit on
/// levels, and counting them is cheap: a byte-sized sum cannot overflow in a block of 255, so the processor counts
/// sixteen bytes at a time.
fn openings(text: &[u8]) -> usize {
    let opens = |byte: &u8| u8::from(matches!(byte, b'[' | b'{'));
    text.chunks(255).map(|block| usize::from(block.iter().map(opens).sum::<u8>())).sum()
}

/// Skips to the end of a string, including the closing quote.
fn skip_string<'t>(bytes: &mut impl Iterator<Item = &'t u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
}

/// The kind of a raw value. Its first byte is enough, since the text is validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonKind {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean,
    /// A number, as its digits.
    Number,
    /// A string, in quotes.
    String,
    /// `[...]`
    Array,
    /// `{...}`
    Object,
}

impl JsonKind {
    /// The kind of `raw`.
    pub fn of(raw: &RawValue) -> Self {
        match raw.get().as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'"') => Self::String,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            _ => Self::Number,
        }
    }

    /// The name for people and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Number => "number",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// The members of one object, in order, as slices of the body. Nested values are not opened.
#[derive(Debug, Default)]
pub struct Object<'d>(Vec<(Cow<'d, str>, &'d RawValue)>);

impl<'d> Object<'d> {
    /// Opens `raw`; `None` if it is not an object.
    ///
    /// # Errors
    /// `duplicate_key` if a key is repeated on this level: choosing one value would be a guess.
    pub fn open(raw: &'d RawValue) -> Result<Option<Self>, Fault> {
        if JsonKind::of(raw) != JsonKind::Object {
            return Ok(None);
        }
        let mut parser = Deserializer::from_str(raw.get());
        Self::read(&mut parser, raw.get().len())?.unique().map(Some)
    }

    /// Reads the members; keys may still be repeated. `bytes` is the length of the text.
    fn read<R: Read<'d>>(parser: &mut Deserializer<R>, bytes: usize) -> Result<Self, Fault> {
        let members = parser.deserialize_map(ObjectVisitor { room: bytes / MEMBER });
        members.map(Self).map_err(|error| invalid(&error))
    }

    fn unique(self) -> Result<Self, Fault> {
        if repeated(&self.0) { Err(Reason::DuplicateKey.into()) } else { Ok(self) }
    }

    /// The value of the member `name`.
    pub fn get(&self, name: &str) -> Option<&'d RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// The members in the order of the text.
    pub fn members(&self) -> &[(Cow<'d, str>, &'d RawValue)] {
        &self.0
    }
}

/// Compares pairwise up to 32 members, and sorts beyond that: a body of 100,000 members stays cheap.
fn repeated(members: &[(Cow<'_, str>, &RawValue)]) -> bool {
    if members.len() <= 32 {
        let mut rest = members;
        while let Some(((key, _), tail)) = rest.split_first() {
            if tail.iter().any(|(other, _)| other == key) {
                return true;
            }
            rest = tail;
        }
        return false;
    }
    sorted_repeat(members.iter().map(|(key, _)| key.as_ref()).collect())
}

/// Like [`repeated`], for keys alone.
fn repeated_keys(keys: &[Cow<'_, str>]) -> bool {
    if keys.len() <= 32 {
        let later = |place: usize| keys.get(place + 1..).unwrap_or_default();
        return keys.iter().enumerate().any(|(place, key)| later(place).contains(key));
    }
    sorted_repeat(keys.iter().map(Cow::as_ref).collect())
}

fn sorted_repeat(mut keys: Vec<&str>) -> bool {
    keys.sort_unstable();
    keys.iter().zip(keys.iter().skip(1)).any(|(a, b)| a == b)
}

/// The bytes of a short member.
const MEMBER: usize = 12;

struct ObjectVisitor {
    /// The expected number of members, allocated at once within bounds.
    room: usize,
}

impl<'d> Visitor<'d> for ObjectVisitor {
    type Value = Vec<(Cow<'d, str>, &'d RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(self.room.clamp(4, 24));
        while let Some(key) = map.next_key::<&RawValue>()? {
            members.push((key_text(key.get()), map.next_value()?));
        }
        Ok(members)
    }
}

/// The elements of an array as slices of the body; `None` if `raw` is not an array.
pub fn elements(raw: &RawValue) -> Option<Vec<&RawValue>> {
    struct Elements;
    impl<'d> Visitor<'d> for Elements {
        type Value = Vec<&'d RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'d>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = seq.next_element()? {
                elements.push(element);
            }
            Ok(elements)
        }
    }
    if JsonKind::of(raw) != JsonKind::Array {
        return None;
    }
    Deserializer::from_str(raw.get()).deserialize_seq(Elements).ok()
}

/// The text of a string, unescaped; borrowed if it has no escapes. `None` for another kind.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    if JsonKind::of(raw) != JsonKind::String { None } else { unescaped(raw.get()) }
}

/// `None` for half a surrogate pair, which no text can hold.
fn unescaped(quoted: &str) -> Option<Cow<'_, str>> {
    let inner = inner(quoted);
    if inner.as_bytes().contains(&b'\\') {
        serde_json::from_str(quoted).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The text of a key, unescaped; borrowed if it has no escapes. A key with half a surrogate pair is used as written: as
/// a value it would be kept as written, too.
fn key_text(quoted: &str) -> Cow<'_, str> {
    unescaped(quoted).unwrap_or_else(|| Cow::Borrowed(inner(quoted)))
}

/// The text between the quotes.
fn inner(quoted: &str) -> &str {
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default()
}

/// A JSON pointer (RFC 6901) to an object's member, parsed once at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Parses `/a/b`; an empty text refers to the complete body. `None` if it is not a pointer.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(Vec::new()));
        }
        let parts = text.strip_prefix('/')?.split('/');
        Some(Self(parts.map(|part| part.replace("~1", "/").replace("~0", "~")).collect()))
    }

    /// The member names from the root to the value.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The value at this pointer below `root`; `None` if a member is missing or a parent is not an object.
    ///
    /// # Errors
    /// `duplicate_key` on a level along the path.
    pub fn find<'d>(&self, root: &Object<'d>) -> Result<Option<&'d RawValue>, Fault> {
        let Some((first, rest)) = self.0.split_first() else { return Ok(None) };
        let mut found = root.get(first);
        for (level, name) in rest.iter().enumerate() {
            let Some(raw) = found else { return Ok(None) };
            let object = Object::open(raw).map_err(|fault| {
                let parent = Self(self.0.iter().take(level + 1).cloned().collect());
                fault.or_detail(|| format!("in the object at {parent}"))
            })?;
            found = object.and_then(|object| object.get(name));
        }
        Ok(found)
    }
}

/// As it is written in the configuration.
impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.0.iter().for_each(|name| push_pointer(&mut text, name));
        f.write_str(&text)
    }
}

/// Appends one name to a JSON pointer, escaped.
pub fn push_pointer(pointer: &mut String, name: &str) {
    pointer.push('/');
    for c in name.chars() {
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c => pointer.push(c),
        }
    }
}

#[cfg(test)]
mod tests;
