//! Signed deliveries with fixed content, and their sources, compiled as in the service.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hookstream::config::{self, Environment, LoadedConfig, Overrides};
use hookstream::delivery::{Delivery, DeliveryId};
use hookstream::envelope::Event;
use hookstream::schema::{Encoded, Encoder, IdState, Schemas};
use hookstream::sources::{Source, Sources};
use hookstream::verify::Verified;
use http::{HeaderMap, HeaderValue, Uri, header};
use jiff::Timestamp;

/// The time at which all of them are signed and received.
const NOW: i64 = 1_775_847_600;

/// A delivery id of the usual form, so that each run has the same bytes.
const ID: &str = "019a8f6e7b3c7def8123456789abcdef";

/// The type of a sample of 0.25 KB.
const SMALL: &str = "knowledge.processing.completed";

/// The type of a sample of 0.8 KB.
const TYPICAL: &str = "batch_prediction.failed";

/// The body of a sample of datagrid, with the line end that counted when bench/counts.txt began.
fn sample(event_type: &str) -> String {
    let samples = &config::providers()["datagrid"].sample;
    let sample = samples.iter().find(|sample| sample.event_type == event_type).expect("a sample");
    format!("{}\n", sample.body)
}

/// A delivery and its source. They are leaked, so that borrows from them are `'static`.
pub(crate) struct Case {
    pub(crate) source: Arc<Source>,
    pub(crate) delivery: Delivery,
}

impl Case {
    pub(crate) fn verified(&self) -> Verified<'_> {
        self.source.verifier.verify(&self.delivery).unwrap()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.delivery.body.len()
    }

    /// Its event and the encoder.
    pub(crate) fn event(&'static self) -> (Event<'static>, &'static Encoder) {
        let verified: &'static Verified<'static> = Box::leak(Box::new(self.verified()));
        let (source, body) = (&*self.source, &self.delivery.body);
        let event = source.envelope.extract_events(&source.name, verified, body).unwrap().remove(0);
        let encoder = source.route(event.route()).unwrap().encoder().unwrap();
        (event, encoder)
    }

    /// The encoded event.
    pub(crate) fn encoded(&'static self) -> Encoded {
        let (event, encoder) = self.event();
        encoder.encode(&event).unwrap()
    }
}

/// All sources of `bench/sources.toml`, whose schemas have ids.
pub(crate) struct Deliveries(Sources);

impl Deliveries {
    pub(crate) fn new() -> Self {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench");
        let overrides = Overrides { file: Some(bench.join("sources.toml")), ..Overrides::default() };
        let secret = String::from("bench-secret-0123456789abcdef");
        let tenants = (0..20).map(|n| (format!("TENANT_{n}"), format!("{secret}-{n}")));
        let environment = tenants.chain([(String::from("SECRET"), secret.clone())]);
        let loaded: LoadedConfig = config::load(&overrides, &Environment::from_iter(environment)).unwrap();
        let mut problems = loaded.problems();
        let mut schemas = Schemas::load(&bench.join("schemas"), &loaded.config, &mut problems);
        problems.or(()).unwrap();
        let subjects: Vec<_> = schemas.iter().map(|known| known.subject.clone()).collect();
        subjects.iter().for_each(|subject| schemas.set(subject, IdState::Confirmed(7)));
        Self(Sources::compile(&loaded, &schemas, None).unwrap())
    }

    /// An event of 0.25 KB with a signature of the raw body.
    pub(crate) fn small(&self) -> &'static Case {
        self.signed("datagrid", &sample(SMALL))
    }

    /// An event of 0.8 KB with a signature of the raw body.
    pub(crate) fn typical(&self) -> &'static Case {
        self.signed("datagrid", &sample(TYPICAL))
    }

    /// An order of this size, mostly arrays, with a signature of the raw body.
    pub(crate) fn raw(&self, bytes: usize) -> &'static Case {
        self.signed("shop", &order(bytes, "", "Kaffee"))
    }

    /// An order of this size with spaces and non-ASCII characters, with a signature of the canonical form.
    pub(crate) fn canonical(&self, bytes: usize) -> &'static Case {
        self.signed("python", &order(bytes, " ", "Kaffee, ger\u{f6}stet"))
    }

    /// The most expensive body of this size, with a forged signature, for the source with one secret or for that with twenty.
    pub(crate) fn forged(&self, source: &str, bytes: usize) -> &'static Case {
        let authentic = self.signed(source, &format!("\"{}\"", "\u{7f}".repeat(bytes - 2)));
        let (source, mut delivery) = (authentic.source.clone(), authentic.delivery.clone());
        let signature = format!("sha256={}", "0".repeat(64)).parse().unwrap();
        delivery.headers.insert("x-signature", signature);
        Box::leak(Box::new(Case { source, delivery }))
    }

    fn signed(&self, source: &str, body: &str) -> &'static Case {
        let (source, mut headers) = (self.0.get(source).unwrap().clone(), HeaderMap::new());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("bench/1"));
        let received_at = Timestamp::from_second(NOW).unwrap();
        source.verifier.sign(body.as_bytes(), received_at, &mut headers).unwrap();
        let body = Bytes::copy_from_slice(body.as_bytes());
        let delivery = Delivery {
            id: DeliveryId::parse(ID).unwrap(),
            uri: Uri::from_static("/"),
            headers,
            body,
            received_at,
        };
        Box::leak(Box::new(Case { source, delivery }))
    }
}

/// As many lines as fit, and a note that fills the rest.
fn order(bytes: usize, space: &str, title: &str) -> String {
    let s = space;
    let mut body = format!(
        "{{\"id\":{s}\"evt_7f3d8a2c\",{s}\"type\":{s}\"order.created\",{s}\"time\":{s}\"2026-04-10T19:00:00.118Z\",{s}\
         \"data\":{s}{{\"number\":{s}100017,{s}\"currency\":{s}\"EUR\",{s}\"lines\":{s}["
    );
    let mut between = String::new();
    for number in 1.. {
        let line = format!(
            "{between}{{\"sku\":{s}\"K-{number:05}\",{s}\"title\":{s}\"{title}\",{s}\"quantity\":{s}{},{s}\
             \"price\":{s}{}.95,{s}\"gift\":{s}false,{s}\"tags\":{s}[\"organic\",{s}\"1 kg\"]}}",
            number % 7 + 1,
            number % 40
        );
        if body.len() + line.len() + 40 > bytes {
            break;
        }
        body.push_str(&line);
        between = format!(",{s}");
    }
    body.push_str(&format!("],{s}\"note\":{s}\""));
    let rest = bytes.saturating_sub(body.len() + "\"}}".len());
    body.extend(std::iter::repeat_n('x', rest));
    body.push_str("\"}}");
    body
}
