//! Reads dead letters.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::{EMPTY_BODY, headers};
use crate::config::BodyForm;
use crate::delivery::{Delivery, DeliveryId};
use crate::verify::{Seal, UnsealError, Verified, Verifier};

/// Hookstream's own headers before the request's.
const DESCRIPTION: [&str; 3] = [headers::REASON, headers::DETAIL, headers::ORIGINAL_TOPIC];

/// The delivery that a record in the dead letters' topic claims to contain. Anybody who may write to the topic can claim
/// anything; only [`Self::unseal`] proves it.
pub struct DeadLetter {
    delivery: Delivery,
    seal: Seal,
}

impl DeadLetter {
    /// Reads a record's headers and value. `None` if a part of a sealed delivery is missing or malformed, or if it has more
    /// headers than a request can. `traceparent` is ignored: the seal does not cover it.
    pub fn read(headers: Vec<(String, Option<Vec<u8>>)>, value: Vec<u8>) -> Option<Self> {
        let mut headers = headers.into_iter().map(|(name, value)| {
            let value = value.and_then(|value| String::from_utf8(value).ok());
            (name, value)
        });
        let (mut kept, mut map) = (Vec::new(), HeaderMap::new());
        let form = loop {
            let (name, value) = headers.next()?;
            if name == headers::FORM {
                break BodyForm::of_label(&value?)?;
            }
            if !DESCRIPTION.contains(&name.as_str()) {
                let value = value?;
                map.try_append(HeaderName::try_from(&name).ok()?, HeaderValue::try_from(&value).ok()?)
                    .ok()?;
                kept.push((name, value));
            }
        };
        let (mut tag, mut id, mut received_at, mut secret) = (None, None, None, None);
        for (name, value) in headers {
            match name.as_str() {
                headers::SEAL => tag = hex::decode(value?).ok(),
                headers::DELIVERY_ID => id = DeliveryId::parse(&value?),
                headers::RECEIVED_AT => received_at = value?.parse().ok(),
                headers::SECRET => secret = value,
                _ => {}
            }
        }
        Some(Self {
            delivery: Delivery {
                id: id?,
                uri: Uri::from_static("/"),
                headers: map,
                body: Bytes::from(value),
                received_at: received_at?,
            },
            seal: Seal { form, kept, tag: tag?, secret: secret? },
        })
    }

    /// The delivery that was verified when it was received.
    ///
    /// # Errors
    /// See [`Verifier::unseal`].
    pub fn unseal<'l>(&'l mut self, verifier: &'l Verifier) -> Result<Verified<'l>, UnsealError> {
        if *self.delivery.body == *EMPTY_BODY {
            // It replaces an empty body, unless a provider sent exactly this text.
            let whole = std::mem::take(&mut self.delivery.body);
            if verifier.unseal(&self.delivery, &self.seal).is_err() {
                self.delivery.body = whole;
            }
        }
        verifier.unseal(&self.delivery, &self.seal)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::config::{self, ConfigErrors, Secret};
    use crate::outcome::Reason;
    use crate::record::Record;

    type Headers = Vec<(String, Option<Vec<u8>>)>;

    const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

    const BODY: &str = r#"{"event": "x"}"#;

    fn verifier(secrets: &[(&str, &str)]) -> Verifier {
        let (_, preset) = config::presets().find(|(name, _)| *name == "grapevine").unwrap();
        #[derive(serde::Deserialize)]
        struct Preset {
            signature: config::Signature,
        }
        let preset: Preset = toml::from_str(preset).unwrap();
        let secrets: Vec<Secret> = secrets.iter().map(|(name, value)| Secret::new(*name, value)).collect();
        let schemes = [preset.signature];
        Verifier::compile(&schemes, &secrets, "signature", &mut ConfigErrors::default()).unwrap()
    }

    fn written(verifier: &Verifier, body: &str) -> (Headers, Vec<u8>) {
        let record = letter(verifier, body, None);
        (headers(&record), record.value().to_vec())
    }

    fn headers(record: &Record) -> Headers {
        let headers = record.headers().iter();
        headers.map(|(name, value)| (name.to_string(), Some(value.as_bytes().to_vec()))).collect()
    }

    fn letter(verifier: &Verifier, body: &str, traceparent: Option<&str>) -> Record {
        dead_letter(verifier, &signed(verifier, body, traceparent))
    }

    fn signed(verifier: &Verifier, body: &str, traceparent: Option<&str>) -> Delivery {
        let mut headers = HeaderMap::new();
        headers.extend(traceparent.map(|sent| (TRACEPARENT, sent.parse().unwrap())));
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert("x-not-read", "stored".parse().unwrap());
        let now = Timestamp::from_second(1_775_847_600).unwrap();
        verifier.sign(body.as_bytes(), now, &mut headers).unwrap();
        let (uri, body) = (Uri::from_static("/"), Bytes::copy_from_slice(body.as_bytes()));
        Delivery { id: DeliveryId::new(), uri, headers, body, received_at: now }
    }

    fn dead_letter(verifier: &Verifier, delivery: &Delivery) -> Record {
        let verified = verifier.verify(delivery).unwrap();
        let topic: Arc<str> = "dead_letter.a".into();
        let read = [http::header::CONTENT_TYPE, TRACEPARENT];
        let why = Reason::TypeUnknown.into();
        Record::dead_letter(&topic, "key".into(), Some("a.b"), &verified, &read, &why)
    }

    fn unsealed(
        headers: Headers,
        value: Vec<u8>,
        verifier: &Verifier,
    ) -> Option<Result<Vec<u8>, UnsealError>> {
        let mut letter = DeadLetter::read(headers, value)?;
        let verified = letter.unseal(verifier);
        Some(verified.map(|verified| {
            assert_eq!(verified.delivery().headers["x-not-read"], "stored");
            assert_eq!(verified.delivery().headers["content-type"], "application/json");
            assert_eq!(verified.age(), None);
            verified.delivery().body.to_vec()
        }))
    }

    #[test]
    fn what_was_sealed_is_read_back_as_it_was() {
        let verifier = verifier(&[("one", "wh_first-secret-0123"), ("two", "wh_second-secret-0123")]);
        for body in [BODY, r#"{"hookstream":"the delivery had an empty body"}"#, "{\"event\":\"\u{fc}\"}"] {
            let (headers, value) = written(&verifier, body);
            assert_eq!(unsealed(headers, value, &verifier), Some(Ok(body.as_bytes().to_vec())), "{body}");
        }
    }

    #[test]
    fn an_empty_body_is_told_from_the_text_that_stands_for_it() {
        let rules = "header = 'X'\nsigned = '{body}'";
        let rules: config::Signature = toml::from_str(rules).unwrap();
        let secrets = [Secret::new("one", "wh_first-secret-0123")];
        let verifier = Verifier::compile(
            std::slice::from_ref(&rules),
            &secrets,
            "signature",
            &mut ConfigErrors::default(),
        )
        .unwrap();
        let (headers, value) = written(&verifier, "");
        assert_eq!(value, EMPTY_BODY);
        assert_eq!(unsealed(headers, value, &verifier), Some(Ok(Vec::new())));
    }

    #[test]
    fn nothing_of_what_is_sealed_can_be_changed() {
        let verifier = verifier(&[("one", "wh_first-secret-0123")]);
        let (headers, value) = written(&verifier, BODY);
        let forged = Some(Err(UnsealError::Forged));
        assert_eq!(unsealed(headers.clone(), b"{}".to_vec(), &verifier), forged);
        let place = |name: &str| headers.iter().position(|(found, _)| found == name).unwrap();
        for (name, other) in [
            ("content-type", "text/plain"),
            ("hookstream-form", "raw"),
            ("hookstream-received-at", "2026-11-24T02:41:03Z"),
            ("hookstream-seal", &"0".repeat(64)),
        ] {
            let mut changed = headers.clone();
            changed[place(name)].1 = Some(other.into());
            assert_eq!(unsealed(changed, value.clone(), &verifier), forged, "{name}");
        }
        let mut more = headers.clone();
        more.insert(1, ("x-more".into(), Some(b"1".to_vec())));
        assert_eq!(unsealed(more, value.clone(), &verifier), forged);
        for name in ["hookstream-form", "hookstream-seal", "hookstream-delivery-id", "hookstream-received-at"]
        {
            let mut without = headers.clone();
            without.remove(place(name));
            assert_eq!(unsealed(without, value.clone(), &verifier), None, "{name}");
        }
    }

    #[test]
    fn a_letter_with_more_headers_than_a_request_can_have_is_not_read() {
        let more = |count: usize| {
            let verifier = verifier(&[("one", "wh_first-secret-0123")]);
            let (mut headers, value) = written(&verifier, BODY);
            headers.splice(..0, (0..count).map(|index| (format!("x-{index}"), Some(Vec::new()))));
            unsealed(headers, value, &verifier)
        };
        assert_eq!(more(20_000), Some(Err(UnsealError::Forged)));
        assert_eq!(more(40_000), None);
    }

    #[test]
    fn a_repeated_header_that_the_rules_read_is_read_back_as_it_was() {
        let verifier = verifier(&[("one", "wh_first-secret-0123")]);
        let mut delivery = signed(&verifier, BODY, None);
        delivery.headers.append("content-type", "text/plain".parse().unwrap());
        delivery.headers.append("x-not-read", "again".parse().unwrap());
        let record = dead_letter(&verifier, &delivery);
        let mut letter = DeadLetter::read(headers(&record), record.value().to_vec()).unwrap();
        let unsealed = letter.unseal(&verifier).unwrap();
        let all = |name: &str| unsealed.delivery().headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("content-type"), ["application/json", "text/plain"]);
        assert!(all("x-not-read").is_empty());
    }

    #[test]
    fn a_span_of_ours_stands_in_the_sender_s_place_and_leaves_the_seal_as_it_is() {
        let verifier = verifier(&[("one", "wh_first-secret-0123")]);
        let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let long = "0".repeat(200);
        // The source's rules read the header, so that it is sealed; too long, it is not passed on as well.
        for (sent, passed_on) in [(None, 0), (Some(sent), 1), (Some(long.as_str()), 0)] {
            let record = letter(&verifier, BODY, sent);
            let traced = record.clone().traced("ours");
            let headers: Headers = headers(&traced);
            let all = |name: &str| -> Vec<_> {
                let found = headers.iter().filter(|(found, _)| found == name);
                found.map(|(_, value)| String::from_utf8(value.clone().unwrap()).unwrap()).collect()
            };
            let sealed = sent.map(str::to_owned);
            assert_eq!(all("traceparent"), sealed.into_iter().chain(["ours".to_owned()]).collect::<Vec<_>>());
            assert_eq!(headers.len(), record.headers().len() + 1 - passed_on);
            let body = Some(Ok(BODY.as_bytes().to_vec()));
            assert_eq!(unsealed(headers, traced.value().to_vec(), &verifier), body, "{sent:?}");
        }
    }

    #[test]
    fn a_secret_that_was_removed_is_named() {
        let both = verifier(&[("one", "wh_first-secret-0123"), ("two", "wh_second-secret-0123")]);
        let (headers, value) = written(&both, BODY);
        let other = verifier(&[("two", "wh_second-secret-0123")]);
        let removed = UnsealError::SecretRemoved("one".into());
        assert_eq!(unsealed(headers, value, &other), Some(Err(removed)));
    }
}
