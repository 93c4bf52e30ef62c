//! What verified deliveries become, with the configuration and the schemas of a running service.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Uri};
use jiff::Timestamp;

use super::*;
use crate::config::{ConfigErrors, Environment, Overrides, load};
use crate::delivery::{Delivery, DeliveryId};
use crate::schema::{IdState, Schemas};
use crate::sources::Sources;

/// In every format.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// GitLab's two kinds.
const TOKEN: &str = "a-secret-token-of-gitlab";
const SIGNING: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The sources of a file, as if the registry had given each schema an id. Each reads its secrets from `SECRET`.
fn sources(toml: &str) -> Result<Sources, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hookstream.toml");
    std::fs::write(&file, toml).unwrap();
    let environment = [("SECRET", SECRET), ("TOKEN", TOKEN), ("SIGNING", SIGNING)];
    let environment: Environment = environment.into_iter().collect();
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
    source_with(&["SECRET"], rules)
}

/// A source with the secrets in these variables.
fn source_with(secrets: &[&str], rules: &str) -> Arc<Source> {
    let secrets: Vec<_> = secrets.iter().map(|name| format!("{{ env = \"{name}\" }}")).collect();
    let toml = format!("[source.s]\nsecrets = [{}]\n{rules}", secrets.join(", "));
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

/// A delivery as the provider signs it.
fn signed(source: &Source, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Delivery {
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
    delivery
}

/// Signs the body and decides.
fn decided(source: &Source, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> String {
    describe(source, &signed(source, headers, body))
}

/// The decision in one line: topic, event type and keys of the records, or the fault.
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

/// A signed delivery with another header's name for each of these.
fn renamed(source: &Source, headers: &[(&str, &str)], body: &str, names: &[(&str, &str)]) -> Delivery {
    let mut delivery = signed(source, headers, body);
    for (before, after) in names {
        let value = delivery.headers.remove(*before).unwrap();
        delivery.headers.insert(HeaderName::from_bytes(after.as_bytes()).unwrap(), value);
    }
    delivery
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

const MEMBER: &str = r#"{"event_name":"user_add_to_group","group_id":100,"user_username":"root"}"#;

#[test]
fn w1_a_gitlab_member_event_goes_to_its_own_topic() {
    let source = source("preset = \"gitlab\"\ntypes = [\"user_add_to_group\", \"push\"]");
    let key = ("Idempotency-Key", "k1");
    for (headers, body, expected) in [
        (vec![key], MEMBER, "published s.user_add_to_group user_add_to_group k1:"),
        (vec![key], r#"{"object_kind":"push","event_name":"push"}"#, "published s.push push k1:"),
        (vec![key], r#"{"event_name":"project_create"}"#, "published s.unmapped project_create k1:"),
        // A payload template of the user's own.
        (vec![key, ("X-Gitlab-Event", "Push Hook")], r#"{"mine":1}"#, "published s.unmapped Push Hook k1:"),
        (vec![key], r#"{"mine":1}"#, "published s.unmapped unmapped k1:"),
        // Before GitLab 17.4.
        (vec![], MEMBER, "published s.user_add_to_group user_add_to_group sha256:"),
    ] {
        let found = decided(&source, &headers, body);
        assert!(found.starts_with(expected), "{body}: {found}");
    }
}

#[test]
fn w1_an_event_without_a_known_type_is_unmapped_where_those_are_published() {
    let source = plain(ID_AND_TYPE);
    for event_type in ["", r#","type":null"#, r#","type":7"#, r#","type":"""#, r#","type":{"a":1}"#] {
        let body = format!(r#"{{"id":"e1"{event_type}}}"#);
        assert_eq!(decided(&source, &[], &body), "published s.unmapped unmapped e1", "{body}");
    }
    let twice = plain("id = \"/id\"\ntype = \"/a/type\"");
    let found = decided(&twice, &[], r#"{"id":"e1","a":{"type":"x","type":"y"}}"#);
    assert_eq!(found, "dead letter duplicate_key: in the object at /a");
    let default = plain(&format!("{ID_AND_TYPE}\ndefault_type = \"none\""));
    assert_eq!(decided(&default, &[], r#"{"id":"e1"}"#), "published s.unmapped none e1");
}

#[test]
fn w3_a_shopify_delivery_without_an_event_id_is_published() {
    let source = source("preset = \"shopify\"");
    let (topic, webhook) = (("X-Shopify-Topic", "orders/create"), ("X-Shopify-Webhook-Id", "w1"));
    let event = ("X-Shopify-Event-Id", "e1");
    for (headers, key) in [
        (vec![topic, event, webhook], "orders/create:e1:"),
        (vec![topic, event], "orders/create:e1:"),
        (vec![topic, webhook], "w1:"),
    ] {
        let found = decided(&source, &headers, r#"{"id":1}"#);
        let expected = format!("published s.unmapped orders/create {key}");
        assert!(found.starts_with(&expected), "{headers:?}: {found}");
    }
    assert_eq!(
        decided(&source, &[topic], r#"{"id":1}"#),
        "dead letter id_missing: part 2: at the header x-shopify-event-id: expected text or a number, found nothing; \
         at the header x-shopify-webhook-id: expected text or a number, found nothing; \
         at the header shopify-webhook-id: expected text or a number, found nothing"
    );
}

#[test]
fn w3_of_several_places_the_first_that_is_present_counts() {
    let rules = "id = [\"/a\", { join = [\"/b\", [\"/c\", { header = \"X-C\", unsigned = true }]] }]\n\
        type = [\"/type\", { header = \"X-Type\", unsigned = true }]\n\
        time = [\"/at\", \"/then\"]\ntime_format = [\"unix_seconds\", \"rfc3339\"]";
    let source = plain(rules);
    let kind = ("X-Type", "b");
    for (headers, body, expected) in [
        (vec![kind], r#"{"a":"1","b":"2","c":"3","type":"a"}"#, "published s.unmapped a 1:"),
        (vec![kind], r#"{"a":null,"b":"2","c":"3"}"#, "published s.unmapped b 2:3:"),
        (vec![kind, ("X-C", "4")], r#"{"b":"2"}"#, "published s.unmapped b 2:4:"),
        // What is there counts, even if it is wrong.
        (
            vec![kind],
            r#"{"a":true,"b":"2","c":"3"}"#,
            "dead letter id_invalid: at /a: expected text or a number, found boolean",
        ),
        (vec![], r#"{"a":"1"}"#, "published s.unmapped unmapped 1:"),
        (
            vec![],
            r#"{"b":"2"}"#,
            "dead letter id_missing: at /a: expected text or a number, found nothing; \
             part 2: at /c or the header x-c: expected text or a number, found nothing",
        ),
    ] {
        let found = decided(&source, &headers, body);
        assert!(found.starts_with(expected), "{body}: {found}");
    }
}

#[test]
fn w10_a_dead_letter_says_where_it_looked_and_what_it_found_and_never_the_value() {
    const VALUE: &str = "hunter2";
    let typed = |envelope: &str| {
        source(&format!(
            "types = [\"paid\"]\nsignature = {{ header = \"X-Signature\", signed = \"{{body}}\" }}\n\
             [source.s.envelope]\n{envelope}"
        ))
    };
    let header = "{ header = \"X-Id\", unsigned = true }";
    for (envelope, headers, body, expected) in [
        (ID_AND_TYPE, vec![], r#"{"id":"e1"}"#, "type_missing: at /type: expected text, found nothing"),
        (
            ID_AND_TYPE,
            vec![],
            r#"{"id":"e1","type":7}"#,
            "type_missing: at /type: expected text, found number",
        ),
        (ID_AND_TYPE, vec![], r#"{"id":"e1","type":""}"#, "type_missing: at /type: it is empty"),
        (
            ID_AND_TYPE,
            vec![],
            r#"{"id":"e1","type":"hunter2"}"#,
            "type_unknown: the event type at /type is not among the source's `types`",
        ),
        (
            ID_AND_TYPE,
            vec![],
            r#"{"id":null,"type":"paid"}"#,
            "id_missing: at /id: expected text or a number, found null",
        ),
        (
            ID_AND_TYPE,
            vec![],
            r#"{"id":"hunter2\u0000"}"#,
            "id_invalid: at /id: it contains a control character",
        ),
        (
            &format!("id = {header}\ntype = \"/type\""),
            vec![],
            "{}",
            "id_missing: at the header x-id: expected text or a number, found nothing",
        ),
        (
            &format!("id = {header}\ntype = \"/type\""),
            vec![("X-Id", VALUE), ("X-Id", VALUE)],
            "{}",
            "id_invalid: at the header x-id: it appears twice",
        ),
        (
            &format!("id = {{ join = [\"/a\", {header}] }}\ntype = \"/type\""),
            vec![],
            r#"{"a":"hunter2"}"#,
            "id_missing: part 2: at the header x-id: expected text or a number, found nothing",
        ),
        (
            &format!("id = {{ join = [\"/a\", {header}] }}\ntype = \"/type\""),
            vec![("X-Id", "1")],
            r#"{"a":"hunter2:"}"#,
            "id_invalid: part 1 at /a: it contains the separator",
        ),
        (
            ID_AND_TYPE,
            vec![],
            r#"["hunter2"]"#,
            "shape_mismatch: expected an object as the event, found array",
        ),
        (ID_AND_TYPE, vec![], r#"{"hunter2":1,"hunter2":2}"#, "duplicate_key: in the root object"),
        (
            ID_AND_TYPE,
            vec![],
            r#"{"id":"e1","type":"paid","x":{"hunter2":1,"hunter2":2}}"#,
            "duplicate_key: in the object at byte 29",
        ),
        (
            &format!("{ID_AND_TYPE}\nsplit = \"/list\""),
            vec![],
            r#"{"list":[{"id":"e1","type":"paid"},{"type":"paid"}]}"#,
            "id_missing: event 2: at /id: expected text or a number, found nothing",
        ),
        (
            &format!("{ID_AND_TYPE}\nsplit = \"/list\""),
            vec![],
            r#"{"list":"hunter2"}"#,
            "shape_mismatch: at /list: expected an array of events, found string",
        ),
        (
            &format!("{ID_AND_TYPE}\nsplit = \"\""),
            vec![],
            "[1]",
            "shape_mismatch: event 1: expected an object as the event, found number",
        ),
    ] {
        let found = decided(&typed(envelope), &headers, body);
        assert_eq!(found, format!("dead letter {expected}"), "{body}");
        assert!(!found.contains(VALUE), "{found}");
    }
}

#[test]
fn w3b_a_shopify_delivery_under_the_new_header_names_is_verified() {
    let source = source("preset = \"shopify\"");
    let headers = [("Shopify-Topic", "Product"), ("Shopify-Webhook-Id", "w1"), ("Shopify-Action", "update")];
    let names = [("X-Shopify-Hmac-SHA256", "Shopify-Hmac-SHA256")];
    let mut delivery = renamed(&source, &headers, r#"{"topic":"Product"}"#, &names);
    let found = describe(&source, &delivery);
    assert!(found.starts_with("published s.unmapped Product w1:"), "{found}");
    // The first name counts, whatever is under the others.
    delivery.headers.insert("x-shopify-hmac-sha256", "AAAA".parse().unwrap());
    assert!(describe(&source, &delivery).starts_with("refused signature_malformed"));
    delivery.headers.remove("x-shopify-hmac-sha256");
    delivery.headers.remove("shopify-hmac-sha256");
    let missing = "refused signature_missing: no x-shopify-hmac-sha256 or shopify-hmac-sha256";
    assert_eq!(describe(&source, &delivery), missing);
}

#[test]
fn w3b_svix_may_send_the_header_names_of_standard_webhooks() {
    let source = source("preset = \"svix\"");
    let names =
        ["id", "timestamp", "signature"].map(|name| (format!("svix-{name}"), format!("webhook-{name}")));
    let names = names.each_ref().map(|(before, after)| (before.as_str(), after.as_str()));
    let mut delivery = renamed(&source, &[("svix-id", "msg_1")], r#"{"type":"invoice.paid"}"#, &names);
    assert_eq!(describe(&source, &delivery), "published s.unmapped invoice.paid msg_1");
    delivery.headers.insert("webhook-id", "msg_2".parse().unwrap());
    assert!(describe(&source, &delivery).starts_with("refused signature_mismatch"));
}

#[test]
fn every_family_of_a_preset_s_events_is_published() {
    let interaction = ("content-type", "application/x-www-form-urlencoded");
    let form: String =
        form_urlencoded::byte_serialize(br#"{"type":"block_actions","trigger_id":"1.2"}"#).collect();
    for (preset, headers, body, expected) in [
        (
            "slack",
            vec![],
            r#"{"type":"event_callback","event_id":"Ev1","event":{"type":"app_mention"}}"#,
            "app_mention Ev1",
        ),
        (
            "slack",
            vec![],
            r#"{"type":"app_rate_limited","minute_rate_limited":1518467820}"#,
            "app_rate_limited sha256:",
        ),
        ("slack", vec![interaction], &format!("payload={form}"), "block_actions sha256:"),
        (
            "stripe",
            vec![],
            r#"{"id":"evt_1","object":"v2.core.event","type":"v1.billing.meter.no_meter_found","created":"2024-09-26T17:46:22.134Z"}"#,
            "v1.billing.meter.no_meter_found evt_1",
        ),
        ("standard-webhooks", vec![("webhook-id", "msg_1")], r#"{"anything":1}"#, "unmapped msg_1"),
    ] {
        let found = decided(&source(&format!("preset = \"{preset}\"")), &headers, body);
        assert!(found.starts_with(&format!("published s.unmapped {expected}")), "{preset}: {found}");
    }
}

#[test]
fn w2_gitlab_deliveries_with_a_signing_token_or_a_secret_token_are_verified_side_by_side() {
    let gitlab = |secrets: &[&str]| source_with(secrets, "preset = \"gitlab\"");
    let (token, signing, both) = (gitlab(&["TOKEN"]), gitlab(&["SIGNING"]), gitlab(&["TOKEN", "SIGNING"]));
    let id = [("webhook-id", "k1")];
    let with_token = signed(&token, &id, MEMBER);
    let with_signature = signed(&signing, &id, MEMBER);
    assert!(with_token.headers.contains_key("x-gitlab-token"), "{with_token:?}");
    assert!(with_signature.headers.contains_key("webhook-signature"), "{with_signature:?}");
    // While the webhook has both, GitLab sends both.
    let mut with_both = with_signature.clone();
    with_both.headers.insert("x-gitlab-token", TOKEN.parse().unwrap());

    let published = |source: &Source, delivery: &Delivery| {
        let found = describe(source, delivery);
        assert!(found.starts_with("published s.unmapped user_add_to_group k1:"), "{found}");
        found
    };
    let key = published(&both, &with_token);
    for (source, delivery) in [
        (&token, &with_token),
        (&signing, &with_signature),
        (&both, &with_signature),
        (&both, &with_both),
        (&token, &with_both),
        (&signing, &with_both),
    ] {
        assert_eq!(published(source, delivery), key, "a retry after the change has the same key");
    }
    assert_eq!(describe(&token, &with_signature), "refused signature_missing: no x-gitlab-token");
    assert_eq!(describe(&signing, &with_token), "refused signature_missing: no webhook-signature");
}

#[test]
fn w2_nothing_of_two_schemes_adds_up() {
    let both = source_with(&["TOKEN", "SIGNING"], "preset = \"gitlab\"");
    let signing = source_with(&["SIGNING"], "preset = \"gitlab\"");
    let genuine = signed(&signing, &[("webhook-id", "k1")], MEMBER);
    let changed = |change: &dyn Fn(&mut Delivery)| {
        let mut delivery = genuine.clone();
        change(&mut delivery);
        describe(&both, &delivery)
    };
    let insert = |delivery: &mut Delivery, name: &'static str, value: &str| {
        delivery.headers.insert(name, value.parse().unwrap());
    };
    let mismatch = "refused signature_mismatch: 1 secret tried";
    assert!(changed(&|delivery| delivery.body = "{}".into()).starts_with(mismatch));
    assert!(changed(&|delivery| insert(delivery, "webhook-id", "k2")).starts_with(mismatch));
    // The key of the signature is no token, nor is the signature, and the token is no key.
    for value in [SIGNING, "whsec_", "", genuine.headers["webhook-signature"].to_str().unwrap()] {
        let found = changed(&|delivery| {
            delivery.body = "{}".into();
            insert(delivery, "x-gitlab-token", value);
        });
        assert!(found.starts_with("refused signature_mismatch"), "{value}: {found}");
    }
    // Of a signature, its parts alone are nothing.
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let found = changed(&|delivery| drop(delivery.headers.remove(name)));
        assert_eq!(found, format!("refused signature_missing: no {name}; no x-gitlab-token"));
    }
    let mut old = genuine.clone();
    old.received_at += jiff::SignedDuration::from_mins(6);
    assert!(describe(&both, &old).starts_with("refused stale_rejected"));
    // What satisfies one scheme is authentic, whatever is in the header of another.
    let found = changed(&|delivery| insert(delivery, "x-gitlab-token", "another"));
    assert!(found.starts_with("published"), "{found}");
}
