//! Deliveries as their provider would make them.

use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::bail;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use jiff::Timestamp;
use uuid::Uuid;

use super::target::Target;
use crate::cli::sample;
use crate::config::{self, Part, TimeFormat};
use crate::delivery::{Delivery, Id};
use crate::envelope::Envelope;
use crate::verify::Verifier;

/// Makes signed deliveries of one source, each a new event.
pub(super) struct Maker {
    verifier: Verifier,
    envelope: Envelope,
    body: Bytes,
    beside: Beside,
    /// `None`: each body is sent as it is.
    fresh: Option<Fresh>,
}

/// A body with the headers of its signature.
pub(super) struct Signed {
    pub(super) body: Bytes,
    pub(super) headers: HeaderMap,
}

impl Maker {
    /// A maker of `body`; with `fresh`, its id and time are new ones in each delivery, as far as
    /// it has them. `event_type` is for a source whose type stands in a header.
    ///
    /// # Errors
    /// Problems with the source's rules; a type that is missing, or that has no header.
    pub(super) fn new(
        target: &Target,
        body: Bytes,
        event_type: Option<&str>,
        fresh: bool,
    ) -> anyhow::Result<Self> {
        let mut problems = target.loaded.problems();
        let place = |part: &str| format!("source.{}.{part}", target.name);
        let secrets = std::slice::from_ref(&target.secret);
        let rules = &target.rules;
        let verifier = Verifier::compile(&rules.signature, secrets, &place("signature"), &mut problems);
        let envelope =
            Envelope::compile(&rules.envelope, &rules.signature, &place("envelope"), &mut problems);
        let (Some(verifier), Some(envelope)) = (verifier, envelope) else { bail!(problems) };
        let verifier = verifier.reading(&rules.envelope);
        let text = str::from_utf8(&body).ok().filter(|_| fresh);
        let fresh = text.map(|text| Fresh::new(text, &rules.envelope));
        let beside = Beside::new(&rules.envelope, event_type)?;
        Ok(Self { verifier, envelope, body, beside, fresh })
    }

    /// The next delivery.
    ///
    /// # Errors
    /// A body that the provider could not sign.
    pub(super) fn make(&self) -> anyhow::Result<Signed> {
        let (body, now) = match &self.fresh {
            Some(fresh) => fresh.next(),
            None => (self.body.clone(), Timestamp::now()),
        };
        let mut headers = self.beside.next(now);
        match self.verifier.sign(&body, now, &mut headers) {
            Ok(()) => Ok(Signed { body, headers }),
            Err(fault) => bail!("the provider could not sign this body: {fault}"),
        }
    }

    /// The id that the service will find, by the service's own code: the way to it is a verified
    /// delivery.
    pub(super) fn id(&self, signed: &Signed) -> Option<String> {
        let delivery = Delivery {
            id: Id::new(),
            uri: Uri::from_static("/"),
            headers: signed.headers.clone(),
            body: signed.body.clone(),
            received_at: Timestamp::now(),
        };
        let verified = self.verifier.verify(&delivery).ok()?;
        Some(self.envelope.id_or_digest(&verified))
    }
}

/// What stands in headers beside the signature: as the envelope reads it.
struct Beside {
    /// Each gets an id that never was.
    ids: Vec<HeaderName>,
    time: Option<(HeaderName, TimeFormat)>,
    event_type: Option<(HeaderName, HeaderValue)>,
}

impl Beside {
    fn new(rules: &config::Envelope, event_type: Option<&str>) -> anyhow::Result<Self> {
        let parts = match &rules.id {
            config::Id::Digest => &[][..],
            config::Id::Part(part) => std::slice::from_ref(part),
            config::Id::Join { parts, .. } => parts,
        };
        let event_type = match (header(&rules.event_type), event_type) {
            (None, None) => None,
            (None, Some(_)) => bail!("the event type stands in the body; leave out TYPE"),
            // One without a type may be sent where the source has a default.
            (Some(_), None) if rules.default_type.is_some() => None,
            (Some(name), None) => bail!("the event type stands in the header {name}; give TYPE, too"),
            (Some(name), Some(value)) => Some((name, HeaderValue::from_str(value)?)),
        };
        let format = rules.time_format.unwrap_or(TimeFormat::Rfc3339);
        let time = rules.time.as_ref().and_then(header).map(|name| (name, format));
        Ok(Self { ids: parts.iter().filter_map(header).collect(), time, event_type })
    }

    fn next(&self, now: Timestamp) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let ids = self.ids.iter().map(|name| (name, Uuid::now_v7().to_string()));
        let time = self.time.iter().map(|(name, format)| (name, plain(*format, now)));
        for (name, text) in ids.chain(time) {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
        // The last, since an id may be joined from it.
        if let Some((name, value)) = self.event_type.clone() {
            headers.insert(name, value);
        }
        headers
    }
}

fn header(part: &Part) -> Option<HeaderName> {
    match part {
        Part::Pointer(_) => None,
        Part::Header { name, .. } => HeaderName::from_bytes(name.as_bytes()).ok(),
    }
}

/// `time`, as exactly as most providers write it; a string without its quotes.
fn plain(format: TimeFormat, time: Timestamp) -> String {
    match format {
        TimeFormat::Rfc3339 => format!("{time:.6}"),
        TimeFormat::UnixSeconds => time.as_second().to_string(),
        TimeFormat::UnixMilliseconds => time.as_millisecond().to_string(),
    }
}

/// Makes each body a new event.
struct Fresh {
    text: String,
    /// Pointer to the id; `None` where it is no single member of the body.
    id: Option<String>,
    time: Option<String>,
    format: TimeFormat,
    /// Whether the time tells events apart that have the same second.
    exact: bool,
    /// In microseconds.
    last: AtomicI64,
}

impl Fresh {
    fn new(text: &str, rules: &config::Envelope) -> Self {
        Self {
            text: text.to_owned(),
            id: rules.id.pointer().map(str::to_owned),
            time: rules.time.as_ref().and_then(Part::pointer).map(str::to_owned),
            format: rules.time_format.unwrap_or(TimeFormat::Rfc3339),
            exact: !matches!(rules.id, config::Id::Part(_)),
            last: AtomicI64::new(0),
        }
    }

    fn next(&self) -> (Bytes, Timestamp) {
        let time = self.tick();
        let mut replacements = Vec::with_capacity(2);
        if let Some(pointer) = &self.id {
            replacements.push((pointer.as_str(), format!("\"evt_{}\"", Uuid::now_v7().simple())));
        }
        if let Some(pointer) = &self.time {
            replacements.push((pointer.as_str(), self.written(time)));
        }
        (sample::refresh(&self.text, &replacements).into(), time)
    }

    /// Now, and never twice the same: where the id is a digest, the time alone tells events apart.
    fn tick(&self) -> Timestamp {
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

    fn rules(id: &str, format: TimeFormat) -> crate::config::Envelope {
        let text = format!("id = {id:?}\ntype = \"/type\"\ntime = \"/time\"\ndata = \"/data\"");
        crate::config::Envelope { time_format: Some(format), ..toml::from_str(&text).unwrap() }
    }

    fn member(body: &Bytes, name: &str) -> String {
        let root = Object::open(json::check(body).unwrap()).unwrap().unwrap();
        root.get(name).unwrap().get().to_owned()
    }

    const SAMPLE: &str = r#"{"id":"evt_1","time":17,"data":{"n":1.10, "id":"evt_1"}}"#;

    #[test]
    fn each_event_is_a_new_one_and_its_data_stays_as_it_is() {
        let fresh = Fresh::new(SAMPLE, &rules("/id", TimeFormat::UnixSeconds));
        let (first, now) = fresh.next();
        let (second, _) = fresh.next();
        assert_ne!(member(&first, "id"), member(&second, "id"));
        assert!(member(&first, "id").starts_with("\"evt_") && member(&first, "id").len() == 38);
        assert_eq!(member(&first, "time"), now.as_second().to_string());
        assert_eq!(member(&first, "data"), r#"{"n":1.10, "id":"evt_1"}"#);
    }

    #[test]
    fn where_the_id_is_a_digest_no_two_times_are_the_same() {
        for format in [TimeFormat::Rfc3339, TimeFormat::UnixSeconds] {
            let fresh = Fresh::new(SAMPLE, &rules("digest", format));
            let times: std::collections::HashSet<_> =
                (0..10_000).map(|_| member(&fresh.next().0, "time")).collect();
            assert_eq!(times.len(), 10_000);
            assert_eq!(member(&fresh.next().0, "id"), "\"evt_1\"");
        }
    }

    #[test]
    fn times_are_written_as_the_provider_does() {
        let time = "2026-01-02T03:04:05.000078Z".parse().unwrap();
        let written = |id, format| Fresh::new(SAMPLE, &rules(id, format)).written(time);
        assert_eq!(written("digest", TimeFormat::Rfc3339), "\"2026-01-02T03:04:05.000078Z\"");
        assert_eq!(written("/id", TimeFormat::UnixSeconds), "1767323045");
        assert_eq!(written("digest", TimeFormat::UnixSeconds), "1767323045.000078");
    }

    #[test]
    fn what_has_no_place_for_them_stays_as_it_is() {
        for body in ["[1]", "no json", r#"{"a":1}"#] {
            let fresh = Fresh::new(body, &rules("/id", TimeFormat::Rfc3339));
            assert_eq!(fresh.next().0, body);
        }
    }
}
