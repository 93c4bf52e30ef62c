//! Makes bodies with new ids and times from a sample.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use uuid::Uuid;

use crate::cli::sample;
use crate::config::{self, TextPart, TimeFormat};

/// Formats `time` with the precision that most providers use, without quotes.
pub(super) fn plain(format: TimeFormat, time: Timestamp) -> String {
    match format {
        TimeFormat::Rfc3339 => format!("{time:.6}"),
        TimeFormat::UnixSeconds => time.as_second().to_string(),
        TimeFormat::UnixMilliseconds => time.as_millisecond().to_string(),
    }
}

/// A body from which new events are made.
pub(super) struct BodyTemplate {
    text: String,
    /// Pointer to the id; `None` if the id is not a single member of the body.
    id: Option<String>,
    time: Option<String>,
    /// Pointer to an array of events, each of which becomes a new one.
    split: Option<String>,
    format: TimeFormat,
    /// Whether times need a fraction, because the id depends on the time.
    exact: bool,
    /// The last time used, in microseconds.
    last: AtomicI64,
}

impl BodyTemplate {
    pub(super) fn new(text: &str, rules: &config::EnvelopeConfig) -> Self {
        Self {
            text: text.to_owned(),
            id: rules.id.pointer().map(str::to_owned),
            time: rules.time.as_ref().and_then(TextPart::pointer).map(str::to_owned),
            split: rules.split.clone(),
            format: rules.time_format.unwrap_or(TimeFormat::Rfc3339),
            exact: !matches!(rules.id, config::EventIdRule::Part(_)),
            last: AtomicI64::new(0),
        }
    }

    /// The next body and its time; of several events, the time of the last one.
    pub(super) fn next(&self) -> (String, Timestamp) {
        let mut time = self.unique_time();
        let Some(split) = &self.split else { return (self.event(&self.text, time), time) };
        let made = sample::refresh_each(&self.text, split, |event| {
            time = self.unique_time();
            self.event(event, time)
        });
        (made, time)
    }

    fn event(&self, text: &str, time: Timestamp) -> String {
        let mut replacements = Vec::with_capacity(2);
        if let Some(pointer) = &self.id {
            replacements.push((pointer.as_str(), format!("\"evt_{}\"", Uuid::now_v7().simple())));
        }
        if let Some(pointer) = &self.time {
            replacements.push((pointer.as_str(), self.written(time)));
        }
        sample::refresh(text, &replacements)
    }

    /// The current time, but never the same twice: if the id is a digest, only the time distinguishes events.
    fn unique_time(&self) -> Timestamp {
        let now = Timestamp::now();
        let next = |last: i64| Some(now.as_microsecond().max(last.saturating_add(1)));
        let taken = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let micros = taken.ok().and_then(next).unwrap_or_default();
        Timestamp::from_microsecond(micros).unwrap_or(now)
    }

    fn written(&self, time: Timestamp) -> String {
        match self.format {
            TimeFormat::Rfc3339 => format!("\"{}\"", plain(self.format, time)),
            TimeFormat::UnixMilliseconds if self.exact => {
                format!("{}.{:03}", time.as_millisecond(), time.subsec_microsecond() % 1000)
            }
            TimeFormat::UnixSeconds if self.exact => {
                format!("{}.{:06}", time.as_second(), time.subsec_nanosecond() / 1000)
            }
            _ => plain(self.format, time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{self, Object};

    fn rules(id: &str, format: TimeFormat) -> crate::config::EnvelopeConfig {
        let text = format!("id = {id:?}\ntype = \"/type\"\ntime = \"/time\"\ndata = \"/data\"");
        crate::config::EnvelopeConfig { time_format: Some(format), ..toml::from_str(&text).unwrap() }
    }

    fn member(body: &str, name: &str) -> String {
        let root = Object::open(json::check(body.as_bytes()).unwrap()).unwrap().unwrap();
        root.get(name).unwrap().get().to_owned()
    }

    const SAMPLE: &str = r#"{"id":"evt_1","time":17,"data":{"n":1.10, "id":"evt_1"}}"#;

    #[test]
    fn each_event_is_new_and_its_data_is_unchanged() {
        let fresh = BodyTemplate::new(SAMPLE, &rules("/id", TimeFormat::UnixSeconds));
        let (first, now) = fresh.next();
        let (second, _) = fresh.next();
        assert_ne!(member(&first, "id"), member(&second, "id"));
        assert!(member(&first, "id").starts_with("\"evt_") && member(&first, "id").len() == 38);
        assert_eq!(member(&first, "time"), now.as_second().to_string());
        assert_eq!(member(&first, "data"), r#"{"n":1.10, "id":"evt_1"}"#);
    }

    #[test]
    fn times_are_unique_if_the_id_is_a_digest() {
        for format in [TimeFormat::Rfc3339, TimeFormat::UnixSeconds] {
            let fresh = BodyTemplate::new(SAMPLE, &rules("digest", format));
            let times: std::collections::HashSet<_> =
                (0..10_000).map(|_| member(&fresh.next().0, "time")).collect();
            assert_eq!(times.len(), 10_000);
            assert_eq!(member(&fresh.next().0, "id"), "\"evt_1\"");
        }
    }

    #[test]
    fn times_have_the_format_of_the_provider() {
        let time = "2026-01-02T03:04:05.000078Z".parse().unwrap();
        let written = |id, format| BodyTemplate::new(SAMPLE, &rules(id, format)).written(time);
        assert_eq!(written("digest", TimeFormat::Rfc3339), "\"2026-01-02T03:04:05.000078Z\"");
        assert_eq!(written("/id", TimeFormat::UnixSeconds), "1767323045");
        assert_eq!(written("digest", TimeFormat::UnixSeconds), "1767323045.000078");
    }

    #[test]
    fn bodies_without_an_id_or_time_are_unchanged() {
        for body in ["[1]", "no json", r#"{"a":1}"#] {
            let fresh = BodyTemplate::new(body, &rules("/id", TimeFormat::Rfc3339));
            assert_eq!(fresh.next().0, body);
        }
    }

    #[test]
    fn each_event_of_a_split_delivery_is_new() {
        let split = |pointer: &str| crate::config::EnvelopeConfig {
            split: Some(pointer.to_owned()),
            ..rules("/id", TimeFormat::UnixSeconds)
        };
        let two = format!("[{SAMPLE} , {SAMPLE}]");
        for (pointer, text) in [("", two.clone()), ("/events", format!(r#"{{"n":1.10, "events":{two}}}"#))] {
            let made = BodyTemplate::new(&text, &split(pointer)).next().0;
            let texts = made.split('"').filter(|text| text.starts_with("evt_"));
            let ids: std::collections::HashSet<_> = texts.collect();
            assert_eq!(ids.len(), 3, "two ids of events, and that of their data: {made}");
            assert_eq!(made.matches(r#""data":{"n":1.10, "id":"evt_1"}"#).count(), 2, "{made}");
            assert!(!made.contains("\"time\":17,"), "{made}");
        }
        for other in ["{}", "[]", "no json", r#"{"events":1}"#] {
            assert_eq!(BodyTemplate::new(other, &split("/events")).next().0, other);
        }
    }
}
