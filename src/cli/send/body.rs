//! Bodies: new ids and times in a sample, and forms with the JSON text in one field.

use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use crate::cli::sample;
use crate::config::{self, EventIdRule, FirstOf, TextPart, TimeFormat};
use crate::json;

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
    id: FirstOf<EventIdRule>,
    time: Option<FirstOf<TextPart>>,
    /// Pointer to an array of events, each of which becomes a new one.
    split: Option<String>,
    format: TimeFormat,
    /// The last time used, in microseconds.
    last: AtomicI64,
}

impl BodyTemplate {
    pub(super) fn new(text: &str, rules: &config::EnvelopeConfig) -> Self {
        Self {
            text: text.to_owned(),
            id: rules.id.clone(),
            time: rules.time.clone(),
            split: rules.split.clone(),
            format: rules.time_format.first().copied().unwrap_or(TimeFormat::Rfc3339),
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
        let rule = id_rule(&self.id, text);
        let part = rule.and_then(|rule| if let EventIdRule::Part(part) = rule { Some(part) } else { None });
        if let Some(pointer) = part.and_then(TextPart::pointer) {
            replacements.push((pointer, format!("\"evt_{}\"", Uuid::now_v7().simple())));
        }
        let place = self.time.as_ref().and_then(|time| place(time, text));
        if let Some(pointer) = place.and_then(TextPart::pointer) {
            // A digest differs only if the time does.
            replacements.push((pointer, self.written(time, part.is_none())));
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

    /// `exact` adds a fraction to a number.
    fn written(&self, time: Timestamp, exact: bool) -> String {
        match self.format {
            TimeFormat::Rfc3339 => format!("\"{}\"", plain(self.format, time)),
            TimeFormat::UnixMilliseconds if exact => {
                format!("{}.{:03}", time.as_millisecond(), time.subsec_microsecond() % 1000)
            }
            TimeFormat::UnixSeconds if exact => {
                format!("{}.{:06}", time.as_second(), time.subsec_nanosecond() / 1000)
            }
            _ => plain(self.format, time),
        }
    }
}

/// The JSON text whose members the envelope's rules name: the delivery's, or that of its first event.
pub(super) fn first_event(text: &str, rules: &config::EnvelopeConfig) -> String {
    let Some(split) = &rules.split else { return text.to_owned() };
    let mut first = None;
    sample::refresh_each(text, split, |event| first.get_or_insert_with(|| event.to_owned()).clone());
    first.unwrap_or_default()
}

/// The place that counts in a delivery of this event: a header, since it will be added, or a member that is present. If
/// there is none, the first place.
pub(super) fn place<'r>(places: &'r FirstOf<TextPart>, event: &str) -> Option<&'r TextPart> {
    if let [place] = &*places.0 {
        return Some(place);
    }
    places.0.iter().find(|part| is_there(part, event)).or(places.0.first())
}

/// The rule of the id that counts in a delivery of this event.
pub(super) fn id_rule<'r>(rules: &'r FirstOf<EventIdRule>, event: &str) -> Option<&'r EventIdRule> {
    if let [rule] = &*rules.0 {
        return Some(rule);
    }
    let counts = |rule: &&EventIdRule| match rule {
        EventIdRule::Digest => true,
        EventIdRule::Part(part) => is_there(part, event),
        EventIdRule::Join { parts, .. } => {
            parts.iter().all(|places| places.0.iter().any(|part| is_there(part, event)))
        }
    };
    rules.0.iter().find(counts).or(rules.0.first())
}

fn is_there(part: &TextPart, event: &str) -> bool {
    part.pointer().is_none_or(|pointer| sample::has(event, pointer))
}

/// The content type of a form.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// A decoded form.
pub(super) struct FormBody {
    fields: Vec<(String, String)>,
    /// The name of the field with the JSON text.
    name: String,
    /// The JSON text.
    pub(super) text: String,
}

impl FormBody {
    /// Parses the body as a form if the source has `payload = "form:NAME"`. `None` for JSON, which is sent as JSON, and
    /// for anything else, which is sent unchanged: the service decides about it.
    pub(super) fn parse(body: &[u8], payload: Option<&str>) -> Option<Self> {
        let name = payload?.strip_prefix("form:")?;
        if json::check(body).is_ok() {
            return None;
        }
        let fields: Vec<(String, String)> = form_urlencoded::parse(body).into_owned().collect();
        let text = fields.iter().find(|(field, _)| field == name)?.1.clone();
        Some(Self { fields, name: name.to_owned(), text })
    }

    /// Encodes the form with another JSON text.
    pub(super) fn with(&self, text: &str) -> Bytes {
        let mut made = form_urlencoded::Serializer::new(String::new());
        for (name, value) in &self.fields {
            made.append_pair(name, if *name == self.name { text } else { value });
        }
        made.finish().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Object;

    fn rules(id: &str, format: TimeFormat) -> crate::config::EnvelopeConfig {
        let text = format!("id = {id:?}\ntype = \"/type\"\ntime = \"/time\"\ndata = \"/data\"");
        crate::config::EnvelopeConfig { time_format: vec![format], ..toml::from_str(&text).unwrap() }
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
        let written = |exact, format| BodyTemplate::new(SAMPLE, &rules("/id", format)).written(time, exact);
        assert_eq!(written(true, TimeFormat::Rfc3339), "\"2026-01-02T03:04:05.000078Z\"");
        assert_eq!(written(false, TimeFormat::UnixSeconds), "1767323045");
        assert_eq!(written(true, TimeFormat::UnixSeconds), "1767323045.000078");
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

    #[test]
    fn forms_are_decoded_and_encoded_if_the_source_accepts_them() {
        // urllib.parse.urlencode({"a": "1 &", "payload": '{"t":"a b+\u00fc"}'})
        let body = b"a=1+%26&payload=%7B%22t%22%3A%22a+b%2B%C3%BC%22%7D";
        let form = FormBody::parse(body, Some("form:payload")).unwrap();
        assert_eq!(form.text, "{\"t\":\"a b+\u{fc}\"}");
        assert_eq!(form.with(&form.text), &body[..]);
        assert_eq!(form.with("{}"), "a=1+%26&payload=%7B%7D");
        for (body, payload) in [
            (&body[..], None),
            (b"{\"payload\":1}", Some("form:payload")),
            (b"no json", Some("form:payload")),
            (b"other=%7B%7D", Some("form:payload")),
        ] {
            assert!(FormBody::parse(body, payload).is_none(), "{}", String::from_utf8_lossy(body));
        }
    }
}
