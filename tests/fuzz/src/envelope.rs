//! One byte that selects the source, then a request, which is signed, decoded by the source's rules, and encoded.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use apache_avro::Schema;
use hookstream::app;
use hookstream::config::{self, Environment, LoadedConfig, Overrides};
use hookstream::decide::{Decided, Decision, EncodedRecords, decide};
use hookstream::envelope::{AnswerBody, Event, MAX_EVENTS, MAX_ID};
use hookstream::json::{self, Pointer};
use hookstream::names;
use hookstream::outcome::{Fault, Reason};
use hookstream::record::Record;
use hookstream::schema::{IdState, Schemas, decode};
use hookstream::sources::{Source, Sources};
use hookstream::verify::Verified;
use http::{HeaderMap, Method, Uri};
use jiff::Timestamp;

use super::json::Json;
use super::{NOW, delivery, request};

/// Each kind of rule, in addition to those of the presets.
const RULES: &str = r#"
source.datagrid.secrets = [{ env = "S" }]
source.grapevine.secrets = [{ env = "S" }]
source.github = { preset = "github", types = ["push", "ping"], secrets = [{ env = "S" }] }
source.gitlab = { preset = "gitlab", secrets = [{ env = "S" }] }
source.linear = { preset = "linear", secrets = [{ env = "S" }] }
source.shopify = { preset = "shopify", secrets = [{ env = "S" }] }
source.slack = { preset = "slack", secrets = [{ env = "S" }] }
source.standard = { preset = "standard-webhooks", secrets = [{ env = "W" }] }
source.stripe = { preset = "stripe", secrets = [{ env = "S" }] }

[source.split]
types = ["a", "b.c"]
secrets = [{ env = "S" }]
signature = { header = "x-sig", signed = "{body}", forms = ["raw", "json_compact_ascii"] }
envelope = { split = "/events", id = "/id", type = "/type", time = "/at", time_format = "unix_milliseconds", data = "/data" }

[source.list]
types = ["a"]
unmapped = "generic"
secrets = [{ env = "S" }]
signature = { header = "x-sig", signed = "{body}" }
envelope = { split = "", id = "digest", type = "/a~1b/m~0n", default_type = "none", aliases = { old = "a", none = "x" }, data = "/d/e" }
challenge = { query = "challenge" }

# The shipped schemas, behind rules of another kind: an id in two parts, types by another name.
[source.joined]
preset = "datagrid"
secrets = [{ env = "S" }]
signature = { header = "x-sig", signature_key = "v1", timestamp_key = "t", signed = "{timestamp}.{body}" }
[source.joined.envelope]
id = { join = ["/id", { header = "X-Part", unsigned = true }, "/data/id"], separator = "::" }
type = { header = "X-Type", unsigned = true }
aliases = { done = "batch_prediction.completed" }
payload = "form:payload"
[[source.joined.handshake]]
when = { header = "X-Type", equals = "ping" }
[[source.joined.handshake]]
when = { pointer = "/type", equals = "hello" }
answer = { pointer = "/data/answer" }
"#;

const ID: u32 = 0x0102_0304;

struct Known {
    sources: Vec<Arc<Source>>,
    schemas: ByTopic,
}

/// The schemas of the events in a topic.
pub(super) type ByTopic = HashMap<String, Schema>;

/// Gives each schema an id, as the registry does, and compiles the sources again.
pub(super) fn with_ids(loaded: &LoadedConfig, schemas: &mut Schemas, before: &Sources) -> (Sources, ByTopic) {
    let known: Vec<_> = schemas.iter().map(|known| (known.subject.clone(), known.schema.clone())).collect();
    known.iter().for_each(|(subject, _)| schemas.set(subject, IdState::Confirmed(ID)));
    let topic = |subject: String| subject.strip_suffix("-value").unwrap().to_owned();
    let by_topic = known.into_iter().map(|(subject, schema)| (topic(subject), schema)).collect();
    (Sources::compile(loaded, schemas, Some(before)).unwrap(), by_topic)
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), RULES).unwrap();
    let overrides = Overrides { file: Some(file.path().to_owned()), ..Overrides::default() };
    let secrets = [("S", "fuzz-secret-0123456789"), ("W", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
    let loaded = config::load(&overrides, &Environment::from_iter(secrets)).unwrap();
    let (sources, mut schemas) = app::compile(&loaded).unwrap();
    let (sources, schemas) = with_ids(&loaded, &mut schemas, &sources);
    let mut sources: Vec<_> = sources.iter().cloned().collect();
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    Known { sources, schemas }
});

/// A signed request becomes events from which the whole body can be rebuilt, or a dead letter.
pub fn run(data: &[u8]) {
    let Some((&which, rest)) = data.split_first() else { return };
    let Known { sources, schemas } = &*KNOWN;
    let source = &sources[usize::from(which) % sources.len()];
    let (headers, body) = request(rest, |_| None);
    take(source, schemas, headers, body);
}

/// Processes one request of a source whose schemas all have ids.
pub(super) fn take(source: &Source, schemas: &ByTopic, mut headers: HeaderMap, body: &[u8]) {
    let uri = Uri::try_from(format!("/hooks/x?{}", String::from_utf8_lossy(body)));
    let keyed = |text: &str, encoding| source.keyed(text, encoding);
    let challenge = |uri: Uri| source.handshakes.challenge(&Method::GET, &uri, &headers, &keyed);
    if let Some(AnswerBody::Text(answer)) = uri.ok().and_then(challenge).and_then(|answer| answer.body) {
        assert!((1..=256).contains(&answer.len()) && answer.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    // The provider cannot sign a body without the canonical form that it signs.
    if source.verifier.sign(body, Timestamp::from_second(NOW).unwrap(), &mut headers).is_err() {
        return;
    }
    let delivery = delivery(headers, body);
    let (verified, stale) = match source.authenticate(&delivery) {
        Ok(authentic) => authentic,
        Err(fault) => {
            let bound = fault.detail.as_deref().is_some_and(|detail| detail.contains("is bound to"));
            assert!(fault.reason == Reason::SecretExpired || bound, "{fault}");
            return;
        }
    };
    assert!(stale.is_none(), "the signature is new");
    assert_key(&source.envelope.key(&verified));
    let Decided { event, decision, .. } = decide(source, &verified, None, || Ok(()));
    assert!(event.is_none_or(|event| event.event_type.chars().count() <= names::MAX_TOPIC));
    match decision {
        Decision::Handled { why, answer } => {
            assert!(matches!(why.reason, Reason::Handshake | Reason::NoEvents), "{why}");
            if let Some(AnswerBody::Text(text)) = answer.and_then(|answer| answer.body) {
                assert!(text.len() <= 1024);
            }
        }
        Decision::Publish(records) => {
            let payload = source.envelope.payload(&verified).unwrap();
            publish(source, schemas, &verified, &payload, &records);
        }
        Decision::DeadLetter { why, .. } => dead_letter(source, &verified, &why),
        // Here it is unknown whether the topic of a custom key compacts; nothing else is unavailable.
        Decision::Unavailable(why) => assert_eq!(why.reason, Reason::KafkaUnavailable, "{why}"),
    }
}

fn assert_key(key: &str) {
    let longest = MAX_ID + ":".len() + 16;
    assert!(
        (1..=longest).contains(&key.len()) && !key.contains(char::is_control),
        "a key of {} bytes",
        key.len()
    );
}

fn dead_letter(source: &Source, verified: &Verified<'_>, why: &Fault) {
    use Reason::{
        DuplicateKey, IdInvalid, IdMissing, JsonInvalid, JsonTooDeep, ShapeMismatch, TypeMissing, TypeUnknown,
    };
    let reasons = [
        JsonInvalid,
        JsonTooDeep,
        DuplicateKey,
        IdMissing,
        IdInvalid,
        TypeMissing,
        TypeUnknown,
        ShapeMismatch,
    ];
    assert!(reasons.contains(&why.reason), "{why}");
    let (key, read) = (source.envelope.key(verified), source.envelope.headers());
    let record = Record::dead_letter(&source.dead_letter_topic, key, None, verified, read, why);
    assert!(!record.value().is_empty(), "unexpected tombstone");
    let body = &verified.delivery().body;
    assert!(body.is_empty() || record.value() == &body[..]);
}

fn publish(
    source: &Source,
    schemas: &ByTopic,
    verified: &Verified<'_>,
    payload: &[u8],
    outbound: &EncodedRecords,
) {
    let events = source.envelope.extract_events(&source.name, verified, payload).unwrap();
    assert!((1..=MAX_EVENTS).contains(&events.len()));
    assert_eq!(events.len(), outbound.records.len());
    for (event, record) in events.iter().zip(&outbound.records) {
        assert_key(record.key());
        assert_eq!(record.key(), event.key().unwrap());
        assert!(source.envelope.has_own_key(event.route()) || record.key().starts_with(&*event.id));
        let route = source.route(event.route()).unwrap();
        assert_eq!(record.topic(), &*route.topic);
        let again = route.encoder.as_ref().unwrap().encode(event).unwrap();
        assert_eq!(record.value(), again.value, "a retry gives the same bytes");
        let (id, avro) = decode::frame(record.value()).unwrap();
        assert_eq!(id, ID);
        if let Some(schema) = schemas.get(record.topic()) {
            let decoded = decode::json(schema, avro).expect("a value of the schema");
            let decoded = Json::read(json::check(decoded.as_bytes()).unwrap()).unwrap();
            check_lossless(source, event, &decoded);
        }
    }
}

fn check_lossless(source: &Source, event: &Event<'_>, decoded: &Json) {
    let text = |name: &str| decoded.member(name).and_then(Json::text);
    assert_eq!(text("id"), Some(&*event.id));
    assert_eq!(text("type"), Some(&*event.event_type));
    assert_eq!(text("source"), Some(&*source.name));
    let millis = |text: &str| text.parse::<Timestamp>().unwrap().as_nanosecond().div_euclid(1_000_000);
    let time = event.time.map(|time| time.as_nanosecond().div_euclid(1_000_000));
    assert_eq!(text("time").map(millis), time);
    let Some(Json::Members(additional)) = decoded.member("additional_fields") else {
        assert_eq!(text("data"), Some(event.text), "the body as sent");
        return;
    };
    // Objects below the schema's fields may have duplicate keys, and are compared as text.
    let Some(body) = hookstream::json::check(event.text.as_bytes()).ok().and_then(Json::read) else { return };
    let places = source.envelope.places();
    let mut rebuilt = Json::Members(Default::default());
    let Json::Members(root) = decoded else { panic!("not a record") };
    let envelope = ["id", "type", "source", "time", "received_at", "data", "additional_fields"];
    for (name, value) in root.iter().filter(|(name, _)| !envelope.contains(&name.as_str())) {
        rebuilt.put(&Pointer::parse(&format!("/{name}")).unwrap(), value.clone());
    }
    // A record with only nulls may mean a missing one; kept values below it are added later.
    rebuilt.put(&places.data, decoded.member("data").unwrap().clone());
    // Of several places, the first; any other value is kept as sent.
    for (places, text) in [(&places.id, &*event.id), (&places.event_type, &*event.event_type)] {
        let sent = places.first().filter(|place| body.at(place).and_then(Json::text) == Some(text));
        if let Some(place) = sent {
            rebuilt.put(place, Json::Text(text.to_owned()));
        }
    }
    if let (Some(place), Some(time)) = (event.time_place, event.time)
        && let Some(pointer) = places.time.get(place)
        && let Some(existing) = body.at(pointer)
    {
        // A time in any unit is exact, or kept as it was sent.
        let exact = time.as_nanosecond() % 1_000_000 == 0;
        let kept = additional.keys().any(|kept| Pointer::parse(kept).as_ref() == Some(pointer));
        assert_eq!(kept, !exact, "a time finer than milliseconds is kept");
        if exact {
            rebuilt.put(pointer, existing.clone());
        }
    }
    for (pointer, value) in additional {
        let value = json::check(value.text().unwrap().as_bytes()).expect("a JSON value");
        rebuilt.put(&Pointer::parse(pointer).unwrap(), Json::read(value).unwrap());
    }
    assert!(rebuilt.same(&body), "{rebuilt:#?}\n{body:#?}");
}
