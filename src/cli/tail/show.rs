//! Formats a record as text, or completely as a JSON line.

use std::borrow::Cow;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::value::RawValue;

use crate::cli::output::{escape_controls, escape_json};
use crate::kafka::Fetched;
use crate::record::headers;
use crate::schema::decode::Decoded;

/// The maximum number of characters of a value in text output, some screens. A dead letter may have nearly a megabyte;
/// JSON lines contain all of it.
const WIDTH: usize = 4_000;

/// One line with topic, partition, offset, time, key and value. A dead letter has a second line with the reason.
/// Headers are shown only on request: most repeat the line and the value, and would push the value off the screen.
pub(super) fn pretty(record: &Fetched, value: &Decoded, headers: bool, now: Timestamp) -> String {
    let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
    let (key_style, why_style) = (AnsiColor::Cyan.on_default(), AnsiColor::Yellow.on_default());
    let mut line = format!(
        "{bold}{}{bold:#} {dim}[{}] @{}  {}{dim:#}  ",
        escape_controls(&record.topic),
        record.partition,
        record.offset,
        time(record.timestamp_ms, now)
    );
    if let Some(key) = &record.key {
        let key = String::from_utf8_lossy(key);
        let _ = write!(line, "{key_style}{}{key_style:#}  ", escape_controls(short(&key)));
    }
    line.push_str(&shown(record, value));
    let header = |name: &str| {
        let (_, value) = record.headers.iter().find(|(header, _)| header == name)?;
        Some(String::from_utf8_lossy(value.as_deref()?))
    };
    if let Some(reason) = header(headers::REASON) {
        let _ = write!(line, "\n    {why_style}{}{why_style:#}", escape_controls(&reason));
        if let Some(detail) = header(headers::DETAIL) {
            let _ = write!(line, ": {}", escape_controls(&detail));
        }
        if let Some(topic) = header(headers::ORIGINAL_TOPIC) {
            let _ = write!(line, "{dim}, original topic {}{dim:#}", escape_controls(&topic));
        }
    }
    if headers && !record.headers.is_empty() {
        let one = |(name, value): &(String, Option<Vec<u8>>)| {
            let value = value.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            format!("{}={}", escape_controls(name), escape_controls(&value))
        };
        let all: Vec<String> = record.headers.iter().map(one).collect();
        let _ = write!(line, "\n    {dim}{}{dim:#}", all.join("  "));
    }
    line
}

/// Shortens a digest to a prefix that suffices to recognize it. `--key` accepts the prefix.
fn short(key: &str) -> &str {
    let cut = key.strip_prefix("sha256:").filter(|digest| digest.len() == 64);
    cut.and_then(|_| key.get(.."sha256:".len() + 12)).unwrap_or(key)
}

/// The time in UTC; without the date if it is today.
fn time(timestamp_ms: Option<i64>, now: Timestamp) -> String {
    let Some(time) = timestamp_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()) else {
        return String::from("-");
    };
    let day = |time: Timestamp| time.strftime("%Y-%m-%d").to_string();
    let form = if day(time) == day(now) { "%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    time.strftime(form).to_string()
}

fn shown(record: &Fetched, value: &Decoded) -> String {
    let Some(bytes) = &record.value else { return String::from("null") };
    let count = bytes.len();
    let text = match (value, std::str::from_utf8(bytes)) {
        (Decoded::Avro { json, .. }, _) => json,
        (Decoded::Unreadable { schema_id, why }, _) => {
            return format!("<{count} bytes with schema {schema_id}: {}>", escape_controls(&why.to_string()));
        }
        (Decoded::Raw, Ok(text)) => text,
        (Decoded::Raw, Err(_)) => return format!("<{count} bytes, not text>"),
    };
    match text.char_indices().nth(WIDTH) {
        Some((at, _)) => {
            let cut = text.get(..at).unwrap_or_default();
            format!("{} ... <truncated: {} bytes; use --json for all>", escape_controls(cut), text.len())
        }
        None => escape_controls(text).into_owned(),
    }
}

/// The complete record as one line of JSON.
pub(super) fn json(record: &Fetched, value: &Decoded) -> serde_json::Result<String> {
    Ok(escape_json(&serde_json::to_string(&JsonRecord { record, value })?).into_owned())
}

struct JsonRecord<'r> {
    record: &'r Fetched,
    value: &'r Decoded,
}

impl Serialize for JsonRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.record;
        let time = record.timestamp_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let mut line = serializer.serialize_map(None)?;
        line.serialize_entry("topic", &record.topic)?;
        line.serialize_entry("partition", &record.partition)?;
        line.serialize_entry("offset", &record.offset)?;
        line.serialize_entry("timestamp", &record.timestamp_ms)?;
        line.serialize_entry("time", &time.map(|time| format!("{time:.3}")))?;
        bytes(&mut line, "key", record.key.as_deref())?;
        line.serialize_entry("headers", &HeadersJson(&record.headers))?;
        match self.value {
            Decoded::Avro { schema_id, json } => {
                line.serialize_entry("schema_id", schema_id)?;
                line.serialize_entry("value", &raw(json))?;
            }
            Decoded::Unreadable { schema_id, why } => {
                line.serialize_entry("schema_id", schema_id)?;
                line.serialize_entry("undecoded", &why.to_string())?;
                let value = record.value.as_ref().map(|value| BASE64_STANDARD.encode(value));
                line.serialize_entry("value_base64", &value)?;
            }
            Decoded::Raw => {
                line.serialize_entry("schema_id", &None::<u32>)?;
                bytes(&mut line, "value", record.value.as_deref())?;
            }
        }
        line.end()
    }
}

/// Serializes text as it is, and other bytes as `<name>_base64`.
fn bytes<M: serde::ser::SerializeMap>(
    line: &mut M,
    name: &str,
    value: Option<&[u8]>,
) -> Result<(), M::Error> {
    match value.map(std::str::from_utf8) {
        None => line.serialize_entry(name, &None::<&str>),
        Some(Ok(text)) => line.serialize_entry(name, text),
        Some(Err(_)) => {
            let encoded = BASE64_STANDARD.encode(value.unwrap_or_default());
            line.serialize_entry(&format!("{name}_base64"), &encoded)
        }
    }
}

fn raw(json: &str) -> Option<&RawValue> {
    serde_json::from_str(json).ok()
}

/// Headers as an object: a repeated name has a list of values. Bytes that are not UTF-8 are replaced.
struct HeadersJson<'r>(&'r [(String, Option<Vec<u8>>)]);

impl Serialize for HeadersJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        for (at, (name, _)) in self.0.iter().enumerate() {
            if self.0.iter().take(at).any(|(earlier, _)| earlier == name) {
                continue;
            }
            let same = self.0.iter().filter(|(other, _)| other == name);
            let values: Vec<Option<Cow<'_, str>>> =
                same.map(|(_, value)| value.as_deref().map(String::from_utf8_lossy)).collect();
            match values.as_slice() {
                [one] => object.serialize_entry(name, one)?,
                several => object.serialize_entry(name, several)?,
            }
        }
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::decode::DecodeError;

    fn record(topic: &str, value: &[u8]) -> Fetched {
        Fetched {
            topic: topic.to_owned(),
            partition: 0,
            offset: 41,
            timestamp_ms: Some(1_795_315_152_345),
            key: Some(b"evt_7f3d8a2c".to_vec()),
            headers: vec![("ce_id".to_owned(), Some(b"evt_7f3d8a2c".to_vec()))],
            value: Some(value.to_vec()),
        }
    }

    fn avro() -> Decoded {
        Decoded::Avro { schema_id: 3, json: r#"{"id":"evt_7f3d8a2c","n":1.10}"#.to_owned() }
    }

    /// On the day of the record.
    fn line(record: &Fetched, value: &Decoded, headers: bool) -> String {
        let now = "2026-11-22T23:00:00Z".parse().unwrap();
        anstream::adapter::strip_str(&pretty(record, value, headers, now)).to_string()
    }

    #[test]
    fn an_event_is_one_line() {
        let record = record("datagrid.batch_prediction.completed", b"");
        let expected = "datagrid.batch_prediction.completed [0] @41  02:39:12Z  evt_7f3d8a2c  \
                        {\"id\":\"evt_7f3d8a2c\",\"n\":1.10}";
        assert_eq!(line(&record, &avro(), false), expected);
        assert_eq!(line(&record, &avro(), true), format!("{expected}\n    ce_id=evt_7f3d8a2c"));
        let later = "2026-11-23T00:00:00Z".parse().unwrap();
        assert!(pretty(&record, &avro(), false, later).contains("  2026-11-22T02:39:12Z"));
    }

    #[test]
    fn a_dead_letter_shows_its_reason() {
        let mut letter = record("dead_letter.datagrid", b"{\"id\":\n1}");
        for (name, value) in [
            ("hookstream-reason", "type_unknown"),
            ("hookstream-detail", "x.y"),
            ("hookstream-original-topic", "datagrid.x.y"),
        ] {
            letter.headers.push((name.to_owned(), Some(value.as_bytes().to_vec())));
        }
        let shown = line(&letter, &Decoded::Raw, false);
        let (first, second) = shown.split_once('\n').unwrap();
        assert!(first.ends_with(r#"evt_7f3d8a2c  {"id":\u{a}1}"#), "{first}");
        assert_eq!(second, "    type_unknown: x.y, original topic datagrid.x.y");
    }

    #[test]
    fn nothing_in_a_record_controls_the_terminal() {
        let evil = "\u{1b}[31m\r\n\u{9b}0m";
        let mut record = record(evil, evil.as_bytes());
        record.key = Some(evil.as_bytes().to_vec());
        record.headers = vec![(evil.to_owned(), Some(evil.as_bytes().to_vec()))];
        for reason in ["hookstream-reason", "hookstream-detail", "hookstream-original-topic"] {
            record.headers.push((reason.to_owned(), Some(evil.as_bytes().to_vec())));
        }
        let json = Decoded::Avro { schema_id: 1, json: format!("{{\"a\":\"{evil}\"}}") };
        for value in [Decoded::Raw, json] {
            let now = Timestamp::UNIX_EPOCH;
            let styled = pretty(&record, &value, true, now);
            // The only escape sequences are hookstream's styles, none of which is red.
            assert!(!styled.contains("\u{1b}[31m") && !styled.contains(['\r', '\u{9b}']), "{styled:?}");
            assert_eq!(styled.lines().count(), 3, "{styled:?}");
        }
        let whole = super::json(&record, &Decoded::Raw).unwrap();
        assert!(!whole.contains(|c: char| c.is_control()), "{whole:?}");
    }

    #[test]
    fn a_long_value_is_truncated_on_a_terminal_and_complete_in_json() {
        let long = "ü".repeat(WIDTH + 1);
        let record = record("dead_letter.datagrid", long.as_bytes());
        let shown = line(&record, &Decoded::Raw, false);
        assert!(shown.ends_with("ü ... <truncated: 8002 bytes; use --json for all>"), "{shown}");
        assert!(json(&record, &Decoded::Raw).unwrap().contains(&long));
    }

    #[test]
    fn a_json_line_contains_the_complete_record() {
        let record = record("datagrid.batch_prediction.completed", b"");
        assert_eq!(
            json(&record, &avro()).unwrap(),
            r#"{"topic":"datagrid.batch_prediction.completed","partition":0,"offset":41,"timestamp":1795315152345,"time":"2026-11-22T02:39:12.345Z","key":"evt_7f3d8a2c","headers":{"ce_id":"evt_7f3d8a2c"},"schema_id":3,"value":{"id":"evt_7f3d8a2c","n":1.10}}"#
        );
    }

    #[test]
    fn bytes_that_are_not_text_become_base64() {
        let mut record = record("t", b"\xff\x00");
        record.key = None;
        record.headers =
            vec![("a".into(), None), ("b".into(), Some(b"1".into())), ("a".into(), Some(b"2".into()))];
        let end = |value: &Decoded| {
            let line = json(&record, value).unwrap();
            line.split_once("\"key\":").unwrap().1.to_owned()
        };
        assert_eq!(
            end(&Decoded::Raw),
            r#"null,"headers":{"a":[null,"2"],"b":"1"},"schema_id":null,"value_base64":"/wA="}"#
        );
        let unreadable = Decoded::Unreadable { schema_id: 7, why: DecodeError::NotFound };
        assert!(end(&unreadable).ends_with(
            r#""schema_id":7,"undecoded":"the registry does not know it","value_base64":"/wA="}"#
        ));
        assert!(line(&record, &Decoded::Raw, false).ends_with("<2 bytes, not text>"));
        assert!(
            line(&record, &unreadable, false)
                .ends_with("<2 bytes with schema 7: the registry does not know it>")
        );
    }

    #[test]
    fn a_tombstone_is_null() {
        let mut record = record("t", b"");
        record.value = None;
        assert!(line(&record, &Decoded::Raw, false).ends_with("evt_7f3d8a2c  null"));
        assert!(json(&record, &Decoded::Raw).unwrap().ends_with(r#""schema_id":null,"value":null}"#));
    }
}
