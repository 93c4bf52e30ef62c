//! Realistic sample deliveries of the shipped presets.
//!
//! They are stored as the provider sends them (one line, no spaces), so that sizes and hashing costs measured with
//! `send` are those of real deliveries.

use serde_json::value::RawValue;

use crate::config::{PresetSample, providers};
use crate::json::{self, Object, Pointer};

/// The samples of a preset, the most useful one first; none for an unknown preset.
fn samples(preset: &str) -> &'static [PresetSample] {
    providers().get(preset).map_or(&[], |provider| provider.sample.as_slice())
}

/// The event types for which `preset` has a sample, the most useful one first; empty for an unknown preset.
pub fn types(preset: &str) -> Vec<&'static str> {
    samples(preset).iter().map(|sample| sample.event_type.as_str()).collect()
}

/// The body of a sample: one JSON object without surrounding white space.
pub fn text(preset: &str, event_type: &str) -> Option<&'static str> {
    samples(preset).iter().find(|sample| sample.event_type == event_type).map(|sample| sample.body.as_str())
}

/// Replaces the value at each JSON pointer of `sample` by raw JSON text (a string with its quotes) and keeps every
/// other byte. Replacements apply in order, so a later pointer sees the earlier values. A pointer to nothing, an empty
/// pointer, or text that is not JSON changes nothing.
pub fn refresh(sample: &str, replacements: &[(&str, String)]) -> String {
    let mut text = sample.to_owned();
    for (pointer, raw) in replacements {
        if let Some((start, end)) = place(&text, pointer) {
            text.replace_range(start..end, raw);
        }
    }
    text
}

/// Wraps `text` as the only event of a delivery whose events are in the array at `pointer`.
pub fn alone(text: &str, pointer: &str) -> String {
    let pointer = Pointer::parse(pointer);
    let names = pointer.iter().flat_map(|pointer| pointer.names().iter().rev());
    names.fold(format!("[{text}]"), |inner, name| {
        let name = serde_json::to_string(name).unwrap_or_default();
        format!("{{{name}:{inner}}}")
    })
}

/// Replaces each element of the array at `pointer` (empty: the root) by the result of `renew` and keeps every byte
/// between them. Without an array at `pointer`, nothing changes.
pub fn refresh_each(text: &str, pointer: &str, mut renew: impl FnMut(&str) -> String) -> String {
    let array = match pointer {
        "" => json::check(text.as_bytes()).ok().map(RawValue::get),
        pointer => place(text, pointer).and_then(|(start, end)| text.get(start..end)),
    };
    let array = array.and_then(|array| json::check(array.as_bytes()).ok());
    let Some(elements) = array.and_then(json::elements) else { return text.to_owned() };
    let (mut made, mut done) = (String::with_capacity(text.len()), 0);
    for element in elements.iter().map(|element| element.get()) {
        // As in `place`: the elements are slices of the text.
        let start = (element.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        made.push_str(text.get(done..start).unwrap_or_default());
        made.push_str(&renew(element));
        done = start + element.len();
    }
    made.push_str(text.get(done..).unwrap_or_default());
    made
}

/// Adds raw JSON text as the first member of the object at the pointer's parent, with the objects between them that are
/// missing. Where something else than an object is in the way, nothing changes.
pub fn put(text: &str, pointer: &str, raw: &str) -> String {
    let path = Pointer::parse(pointer);
    let names = path.as_ref().map(Pointer::names).unwrap_or_default();
    let quoted = |name: &String| serde_json::to_string(name).unwrap_or_default();
    let (mut parent, mut start) = (String::new(), Some(text.len() - text.trim_start().len()));
    let mut made = text.to_owned();
    for (level, name) in names.iter().enumerate() {
        let Some(open) = start.filter(|at| text.get(*at..).is_some_and(|rest| rest.starts_with('{'))) else {
            break;
        };
        parent += &format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        start = place(text, &parent).map(|(start, _)| start);
        if start.is_none() {
            let inner = names.iter().skip(level + 1).rev();
            let inner = inner.fold(raw.to_owned(), |inner, name| format!("{{{}:{inner}}}", quoted(name)));
            let rest = text.get(open + 1..).unwrap_or_default();
            let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
            made.insert_str(open + 1, &format!("{}:{inner}{comma}", quoted(name)));
            break;
        }
    }
    made
}

/// Whether `text` has a value at `pointer`; null counts as none.
pub fn has(text: &str, pointer: &str) -> bool {
    place(text, pointer).is_some_and(|(start, end)| text.get(start..end) != Some("null"))
}

/// The byte range of the value at `pointer` in `text`. The values are slices of the text, so their addresses give the
/// range.
fn place(text: &str, pointer: &str) -> Option<(usize, usize)> {
    let root = Object::open(json::check(text.as_bytes()).ok()?).ok()??;
    let value = Pointer::parse(pointer)?.find(&root).ok()??.get();
    let start = (value.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    Some((start, start + value.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presets() -> impl Iterator<Item = (&'static str, toml::Table)> {
        crate::config::presets().map(|(name, text)| (name, text.parse().unwrap()))
    }

    #[test]
    fn every_preset_has_samples_of_all_its_types() {
        for (preset, rules) in presets() {
            let mut wanted: Vec<_> =
                rules["types"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            let mut have = types(preset);
            wanted.sort_unstable();
            have.sort_unstable();
            assert!(if wanted.is_empty() { !have.is_empty() } else { have == wanted }, "{preset}: {have:?}");
            for event_type in have {
                let sample = text(preset, event_type).unwrap();
                assert_eq!(sample, sample.trim());
                assert!(json::check(sample.as_bytes()).is_ok(), "{preset}: {event_type}");
            }
        }
    }

    #[test]
    fn unknown_presets_and_types_have_no_sample() {
        assert!(types("nobody").is_empty());
        assert_eq!(text("nobody", "push"), None);
        assert_eq!(text("datagrid", "document.changed"), None);
    }

    #[test]
    fn refresh_replaces_the_named_values_and_no_other_byte() {
        let sample = " {\"id\" : \"a\",\"data\":{ \"id\":\"a\", \"n\":1.10 } , \"t\":17}\n";
        let made = refresh(
            sample,
            &[
                ("/t", "1775847600".to_owned()),
                ("/id", "\"evt_1\"".to_owned()),
                ("/data/id", "null".to_owned()),
            ],
        );
        assert_eq!(made, " {\"id\" : \"evt_1\",\"data\":{ \"id\":null, \"n\":1.10 } , \"t\":1775847600}\n");
    }

    #[test]
    fn refresh_finds_members_after_wide_characters() {
        let made = refresh("{\"ü😀\":\"日本\",\"b\":\"\\u00fc\"}", &[("/b", "2".to_owned())]);
        assert_eq!(made, "{\"ü😀\":\"日本\",\"b\":2}");
    }

    #[test]
    fn a_sample_is_wrapped_as_the_only_event_of_a_delivery() {
        for (pointer, made) in
            [("", r#"[{"a":1}]"#), ("/b", r#"{"b":[{"a":1}]}"#), ("/b~1\"/c", r#"{"b/\"":{"c":[{"a":1}]}}"#)]
        {
            assert_eq!(alone(r#"{"a":1}"#, pointer), made);
            assert_eq!(refresh_each(made, pointer, |event| event.replace('1', "2")), made.replace('1', "2"));
        }
    }

    #[test]
    fn a_member_is_added_where_no_other_value_is_in_the_way() {
        let text = r#" {"a":{"b":1},"c":[1],"d":{}}"#;
        for (pointer, made) in [
            ("/x", r#" {"x":2,"a":{"b":1},"c":[1],"d":{}}"#),
            ("/a/x/y~1", r#" {"a":{"x":{"y/":2},"b":1},"c":[1],"d":{}}"#),
            ("/d/x", r#" {"a":{"b":1},"c":[1],"d":{"x":2}}"#),
            ("/a/b", text),
            ("/a/b/x", text),
            ("/c/x", text),
            ("", text),
        ] {
            assert_eq!(put(text, pointer, "2"), made, "{pointer}");
        }
        assert_eq!(put("no json", "/a", "2"), "no json");
    }

    #[test]
    fn a_pointer_to_nothing_changes_nothing() {
        let sample = r#"{"a":{"b":1},"c":[1]}"#;
        for pointer in ["", "a", "/x", "/a/x", "/a/b/c", "/c/0"] {
            assert_eq!(refresh(sample, &[(pointer, "2".to_owned())]), sample, "{pointer}");
        }
        assert_eq!(refresh("no json", &[("/a", "2".to_owned())]), "no json");
    }
}
