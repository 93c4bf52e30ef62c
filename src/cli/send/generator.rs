//! Makes deliveries as the provider would.

use anyhow::bail;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use jiff::Timestamp;
use uuid::Uuid;

use super::body::{BodyTemplate, FORM, FormBody, first_event, id_rule, place, plain};
use super::target::SendTarget;
use crate::config::{self, EventIdRule, TextPart, TimeFormat, Unmapped};
use crate::delivery::{Delivery, DeliveryId};
use crate::envelope::Envelope;
use crate::outcome::Fault;
use crate::verify::Verifier;

/// Makes signed deliveries of one source, each a new event.
pub(super) struct DeliveryGenerator {
    verifier: Verifier,
    envelope: Envelope,
    body: Bytes,
    template: HeaderTemplate,
    /// `None` if the body is sent unchanged.
    fresh: Option<BodyTemplate>,
    /// Set if the body is a form.
    form: Option<FormBody>,
}

impl DeliveryGenerator {
    /// A generator of deliveries with `body`. With `fresh`, each delivery gets a new id and time, if the body has them.
    /// `event_type` is for a source that reads the type from a header.
    ///
    /// # Errors
    /// Problems of the source's rules; a missing type, or one that no header carries.
    pub(super) fn new(
        target: &SendTarget,
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
        let verifier = verifier.with_envelope(&rules.envelope);
        let envelope = envelope.with_untyped(rules.unmapped == Unmapped::Generic);
        let form = FormBody::parse(&body, rules.envelope.payload.as_deref());
        let text = form.as_ref().map(|form| &*form.text).or(str::from_utf8(&body).ok());
        let template = HeaderTemplate::new(&rules.envelope, text.unwrap_or_default(), event_type)?;
        let fresh = text.filter(|_| fresh).map(|text| BodyTemplate::new(text, &rules.envelope));
        Ok(Self { verifier, envelope, body, template, fresh, form })
    }

    /// The next delivery, as the service will receive it.
    ///
    /// # Errors
    /// The provider could not sign this body.
    pub(super) fn make(&self) -> anyhow::Result<Delivery> {
        let (body, now) = match &self.fresh {
            Some(fresh) => {
                let (text, now) = fresh.next();
                let form = self.form.as_ref().map(|form| form.with(&text));
                (form.unwrap_or_else(|| text.into()), now)
            }
            None => (self.body.clone(), Timestamp::now()),
        };
        let mut headers = self.template.next(now);
        if self.form.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(FORM));
        }
        match self.verifier.sign(&body, now, &mut headers) {
            Ok(()) => Ok(Delivery {
                id: DeliveryId::new(),
                uri: Uri::from_static("/"),
                headers,
                body,
                received_at: now,
            }),
            Err(fault) => bail!("the provider could not sign this body: {fault}"),
        }
    }

    /// Whether the service will find an event in the delivery.
    ///
    /// # Errors
    /// Why it will not.
    pub(super) fn check(&self, delivery: &Delivery) -> Result<(), Fault> {
        let verified = self.verifier.verify(delivery)?;
        let payload = self.envelope.payload(&verified)?;
        self.envelope.extract_events("", &verified, &payload).map(drop)
    }

    /// The id that the service will extract, of several events that of the first. Uses the service's code on a verified
    /// delivery.
    pub(super) fn id(&self, delivery: &Delivery) -> Option<String> {
        let verified = self.verifier.verify(delivery).ok()?;
        let payload = self.envelope.payload(&verified).ok()?;
        let events = self.envelope.extract_events("", &verified, &payload).unwrap_or_default();
        let first = events.first().map(|event| event.id.as_ref().to_owned());
        Some(first.unwrap_or_else(|| self.envelope.id_or_digest(&verified)))
    }
}

/// The headers that the envelope reads, besides the signature.
struct HeaderTemplate {
    /// Headers that get a new id in each delivery.
    ids: Vec<HeaderName>,
    time: Option<(HeaderName, TimeFormat)>,
    event_type: Option<(HeaderName, HeaderValue)>,
}

impl HeaderTemplate {
    /// The headers of a delivery with this JSON text.
    fn new(rules: &config::EnvelopeConfig, text: &str, event_type: Option<&str>) -> anyhow::Result<Self> {
        let event = first_event(text, rules);
        let ids = match id_rule(&rules.id, &event) {
            Some(EventIdRule::Part(part)) => header_name(part).into_iter().collect(),
            Some(EventIdRule::Join { parts, .. }) => {
                parts.iter().filter_map(|part| header_name(place(part, &event)?)).collect()
            }
            Some(EventIdRule::Digest) | None => Vec::new(),
        };
        let event_type = match (place(&rules.event_type, &event).and_then(header_name), event_type) {
            (None, None) => None,
            (None, Some(_)) => bail!("the event type is in the body: omit TYPE"),
            // The source has a default, so a delivery may have no type.
            (Some(_), None) if rules.default_type.is_some() => None,
            (Some(name), None) => {
                bail!("the source reads the event type from the header {name}: name the TYPE")
            }
            (Some(name), Some(value)) => Some((name, HeaderValue::from_str(value)?)),
        };
        let format = rules.time_format.first().copied().unwrap_or(TimeFormat::Rfc3339);
        let time = rules.time.as_ref().and_then(|time| header_name(place(time, &event)?));
        Ok(Self { ids, time: time.map(|name| (name, format)), event_type })
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
        // The type comes last, since an id may be joined from its header.
        if let Some((name, value)) = self.event_type.clone() {
            headers.insert(name, value);
        }
        headers
    }
}

fn header_name(part: &TextPart) -> Option<HeaderName> {
    match part {
        TextPart::Pointer(_) => None,
        TextPart::Header { name, .. } => HeaderName::from_bytes(name.as_bytes()).ok(),
    }
}
