//! What verified deliveries become, with the configuration and the schemas of a running service.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Uri};
use jiff::Timestamp;

use super::*;
use crate::config::{ConfigErrors, Environment, Overrides, load};
use crate::delivery::{Delivery, DeliveryId};
use crate::schema::{IdState, Schemas};
use crate::sources::Sources;

/// The sources of a file, as if the registry had given each schema an id. Each reads its secrets from `SECRET`.
fn sources(toml: &str) -> Result<Sources, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hookstream.toml");
    std::fs::write(&file, toml).unwrap();
    let environment: Environment = [("SECRET", "wh_abcdefghijklmnopqrst")].into_iter().collect();
    let loaded = load(&Overrides { file: Some(file), ..Overrides::default() }, &environment)?;
    let mut problems = loaded.problems();
    let mut schemas = Schemas::load(&dir.path().join("schemas"), &loaded.config, &mut problems);
    let subjects: Vec<String> = schemas.iter().map(|schema| schema.subject.clone()).collect();
    subjects.iter().for_each(|subject| schemas.set(subject, IdState::Confirmed(0)));
    problems.or(())?;
    Sources::compile(&loaded, &schemas, None)
}

/// A source with the rules of a preset, or with only its own.
fn source(rules: &str) -> Arc<Source> {
    let toml = format!("[source.s]\nsecrets = [{{ env = \"SECRET\" }}]\n{rules}");
    let sources = sources(&toml).unwrap_or_else(|problems| panic!("{problems}"));
    sources.get("s").unwrap().clone()
}

/// A source whose signature covers the body, with these rules for the envelope.
fn plain(envelope: &str) -> Arc<Source> {
    source(&format!(
        "unmapped = \"generic\"\nsignature = {{ header = \"X-Signature\", signed = \"{{body}}\" }}\n\
         [source.s.envelope]\n{envelope}"
    ))
}

/// Signs the body, and describes the decision in one line: the topic and the key of the records, or the fault.
fn decided(source: &Source, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> String {
    let mut delivery = Delivery {
        id: DeliveryId::new(),
        uri: Uri::from_static("/hooks/s"),
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_ref()),
        received_at: Timestamp::now(),
    };
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        delivery.headers.append(name, value.parse().unwrap());
    }
    source.verifier.sign(&delivery.body, delivery.received_at, &mut delivery.headers).unwrap();
    describe(source, &delivery)
}

/// As [`decided`], for a delivery that was already signed.
fn describe(source: &Source, delivery: &Delivery) -> String {
    let verified = match source.authenticate(delivery) {
        Ok((verified, _)) => verified,
        Err(fault) => return format!("refused {fault}"),
    };
    let Decided { event, decision, .. } = decide(source, &verified, None, || Ok(()));
    match decision {
        Decision::Publish(EncodedRecords { topic, records, .. }) => {
            let keys: Vec<&str> = records.iter().map(Record::key).collect();
            let event_type = event.map(|event| event.event_type).unwrap_or_default();
            format!("published {topic} {event_type} {}", keys.join(" "))
        }
        Decision::DeadLetter { why, .. } => format!("dead letter {why}"),
        Decision::Handled { why, .. } => format!("handled {why}"),
        Decision::Unavailable(why) => format!("unavailable {why}"),
    }
}

const ID_AND_TYPE: &str = "id = \"/id\"\ntype = \"/type\"";

#[test]
fn w12_json_behind_a_byte_order_mark_is_an_event() {
    let body = "\u{feff}{\"id\":\"e1\",\"type\":\"paid\"}";
    assert_eq!(decided(&plain(ID_AND_TYPE), &[], body), "published s.unmapped paid e1");
    let form = plain(&format!("{ID_AND_TYPE}\npayload = \"form:payload\""));
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let body = format!("payload={}", form_urlencoded::byte_serialize(body.as_bytes()).collect::<String>());
    assert_eq!(decided(&form, &[kind], body), "published s.unmapped paid e1");
    // One mark is allowed, and only where the text begins.
    for body in ["\u{feff}\u{feff}{}", " \u{feff}{}", "\u{feff}", "{}\u{feff}"] {
        let found = decided(&plain(ID_AND_TYPE), &[], body);
        assert!(found.starts_with("dead letter json_invalid"), "{body:?}: {found}");
    }
}

#[test]
fn k12_half_a_surrogate_pair_in_a_key_is_kept_as_one_in_a_value_is() {
    for member in [r#""a":"\ud800""#, r#""\ud800":1"#, r#""a":{"\udc00":1}"#, r#""a":[{"b\ud83d":1}]"#] {
        let body = format!(r#"{{"id":"e1","type":"paid",{member}}}"#);
        assert_eq!(decided(&plain(ID_AND_TYPE), &[], &body), "published s.unmapped paid e1", "{member}");
    }
    let twice = r#"{"id":"e1","type":"paid","\ud800":1,"\ud800":2}"#;
    let found = decided(&plain(ID_AND_TYPE), &[], twice);
    assert!(found.starts_with("dead letter duplicate_key"), "{found}");
}

#[test]
fn w14_a_number_is_an_event_id_by_its_digits_as_sent() {
    let source = plain(ID_AND_TYPE);
    for digits in ["1", "900719925474099312345", "1.50", "-0", "1e400"] {
        let body = format!(r#"{{"id":{digits},"type":"paid"}}"#);
        assert_eq!(decided(&source, &[], body), format!("published s.unmapped paid {digits}"));
    }
    let joined = plain("id = { join = [\"/a\", \"/b\"] }\ntype = \"/type\"");
    let body = r#"{"a":7,"b":"x","type":"paid"}"#;
    assert_eq!(decided(&joined, &[], body), "published s.unmapped paid 7:x");
    for other in ["true", "[1]", "{}"] {
        let found = decided(&source, &[], format!(r#"{{"id":{other},"type":"paid"}}"#));
        assert!(found.starts_with("dead letter id_invalid"), "{found}");
    }
}

#[test]
fn w14e_a_delivery_of_no_events_is_handled() {
    let source = plain(&format!("{ID_AND_TYPE}\nsplit = \"/events\""));
    assert_eq!(decided(&source, &[], r#"{"events":[]}"#), "handled no_events");
    let root = plain(&format!("{ID_AND_TYPE}\nsplit = \"\""));
    assert_eq!(decided(&root, &[], " [ ] "), "handled no_events");
    for other in [r#"{"events":{}}"#, r#"{"events":null}"#, "{}", "[]"] {
        let found = decided(&source, &[], other);
        assert!(found.starts_with("dead letter shape_mismatch"), "{other}: {found}");
    }
}
