//! Providers without a preset: the source contains all rules, here with a signature like Grapevine's.

use serde_json::{Value, json};

use crate::support::{Service, Setup, grapevine, hmac, kafka};

/// A service with these rules, whose source verifies signatures like Grapevine's.
async fn service(rules: &str) -> Service {
    let mut setup = Setup::new("grapevine");
    setup.rules = rules.to_owned();
    setup.ready().await
}

/// Signs the raw body and posts it.
async fn post(service: &Service, headers: &[(&str, &str)], body: &str) -> crate::support::Answer {
    let signature = format!("sha256={}", hmac(body.as_bytes()));
    let headers: Vec<_> = headers.iter().copied().chain([("X-Grapevine-Signature", &*signature)]).collect();
    service.post(&headers, body.to_owned()).await
}

fn header<'r>(record: &'r Value, name: &str) -> &'r Value {
    &record["headers"][name]
}

const HEADERS: &str = r#"
envelope.id = { join = ["/tenant_id", { header = "X-Event-Id", unsigned = true }] }
envelope.type = { header = "X-Event", unsigned = true }
envelope.time = { header = "X-Time", unsigned = true }
envelope.time_format = "unix_milliseconds"
envelope.aliases = { "Document Hook" = "document.changed" }
"#;

/// A body with spaces, so not canonical: the raw bytes are signed.
const BODY: &str = r#"{"tenant_id": "acme", "extra": 1.50, "data": {"document_id": "README.md"}}"#;

#[tokio::test]
async fn id_type_and_time_from_headers_are_marked_as_unsigned_in_the_record() {
    let service = service(HEADERS).await;
    let sent = [("X-Event-Id", "e1"), ("X-Event", "Document Hook"), ("X-Time", "1775847600123")];
    let answer = post(&service, &sent, BODY).await;
    answer.is(200, "published", None);
    assert_eq!(answer.body["id"], "acme:e1");
    // A captured delivery that is resent with another id is an additional event, and does not replace the genuine one.
    let other = BODY.replace("README.md", "other");
    post(&service, &sent, &other).await.is(200, "published", None);

    let records = kafka::java(&[&service.topic("document.changed")]);
    // From Python's hashlib: sha256(BODY)[:16].
    let key = "acme:e1:1c60e275042ef0c1";
    let record = records.iter().find(|record| record["key"] == key).unwrap_or_else(|| panic!("{records:?}"));
    assert_eq!(header(record, "hookstream-unsigned"), "id,type,time");
    assert_eq!(header(record, "ce_id"), "acme:e1");
    assert_eq!(header(record, "ce_type"), "Document Hook");
    let value = &record["value"];
    assert_eq!((&value["id"], &value["type"]), (&json!("acme:e1"), &json!("Document Hook")), "as sent");
    assert_eq!(value["time"], 1_775_847_600_123_i64);
    assert_eq!((&value["tenant_id"], &value["data"]["document_id"]), (&json!("acme"), &json!("README.md")));
    assert_eq!(value["additional_fields"], json!({"/extra": "1.50"}));
    assert_eq!(records.len(), 2);
    assert!(records.iter().any(|record| record["key"] != key && record["value"]["id"] == "acme:e1"));
}

#[tokio::test]
async fn c7_a_duplicate_key_at_any_depth_is_dead_lettered_for_generic_records_too() {
    let service = service("unmapped = \"generic\"").await;
    for (data, published) in [(r#"{"a": [{"b": 1, "c": 2}]}"#, true), (r#"{"a": [{"b": 1, "b": 2}]}"#, false)]
    {
        let answer = post(&service, &[], &format!(r#"{{"event": "some.other", "data": {data}}}"#)).await;
        match published {
            true => answer.is(200, "published", None),
            false => answer.is(200, "dead_lettered", Some("duplicate_key")),
        }
    }
}

#[tokio::test]
async fn a_header_that_a_rule_reads_must_occur_once_and_be_visible_ascii() {
    let service = service(HEADERS).await;
    let (id, kind) = (("X-Event-Id", "e1"), ("X-Event", "document.changed"));
    for (headers, reason) in [
        (vec![kind], "id_missing"),
        (vec![id, id, kind], "id_invalid"),
        (vec![("X-Event-Id", "a\tb"), kind], "id_invalid"),
        (vec![id], "type_missing"),
        (vec![id, kind, kind], "type_missing"),
        (vec![id, ("X-Event", "a\tb")], "type_missing"),
        (vec![id, ("X-Event", "nobody.knows")], "type_unknown"),
    ] {
        post(&service, &headers, BODY).await.is(200, "dead_lettered", Some(reason));
    }
    post(&service, &[id, kind, ("X-Time", "soon")], BODY).await.is(200, "published", None);
    let records = kafka::java(&[&service.dead_letters()]);
    let missing = records.iter().find(|record| header(record, "hookstream-reason") == "id_missing").unwrap();
    assert_eq!(
        header(missing, "x-event"),
        "document.changed",
        "a replay needs the headers that the rules read"
    );
    let twice = |name: &str| records.iter().any(|record| header(record, name).is_array());
    assert!(twice("x-event-id") && twice("x-event"), "{records:?}");
}

#[tokio::test]
async fn values_that_the_envelope_cannot_reproduce_are_kept() {
    let service = service(
        r#"
envelope.id = { join = ["/a", "/b"], separator = "/" }
envelope.type = "/kind"
envelope.default_type = "document.changed"
envelope.time = "/at"
envelope.time_format = "unix_milliseconds"
"#,
    )
    .await;
    let body = r#"{"a":"1","at":1775847600123.5,"b":"2","data":{}}"#;
    let answer = service.post(&[("X-Grapevine-Signature", &grapevine(body))], body).await;
    answer.is(200, "published", None);
    let records = kafka::java(&[&service.topic("document.changed")]);
    let value = &records[0]["value"];
    assert_eq!((&value["id"], &value["type"]), (&json!("1/2"), &json!("document.changed")));
    assert_eq!(records[0]["key"], "1/2", "the whole id is signed");
    assert!(header(&records[0], "hookstream-unsigned").is_null());
    // A joined id does not show where its parts end, and a time in milliseconds has no fraction.
    assert_eq!(value["additional_fields"], json!({"/a": "\"1\"", "/b": "\"2\"", "/at": "1775847600123.5"}));
}

#[tokio::test]
async fn types_without_a_schema_become_generic_records_and_create_no_topics() {
    let service = service(
        r#"
types = ["push", "document.changed"]
unmapped = "generic"
envelope.type = { header = "X-Event", unsigned = true }
envelope.id = "/id"
"#,
    )
    .await;
    let body = r#"{"id": "e1", "ref": "refs/heads/main", "size": 1.50}"#;
    let json = ("Content-Type", "application/json; charset=utf-8");
    for (kind, topic) in [("push", "push"), ("star/created", "unmapped"), ("star", "unmapped")] {
        let answer = post(&service, &[("X-Event", kind), json], body).await;
        answer.is(200, "published", None);
        assert_eq!(answer.body["topic"], service.topic(topic));
    }
    // An event type with a schema keeps using it.
    let typed = r#"{"id": "e2", "data": {"document_id": 7}}"#;
    post(&service, &[("X-Event", "document.changed")], typed).await.is(200, "published", None);

    let [push, unmapped] = ["push", "unmapped"].map(|topic| service.topic(topic));
    let records = kafka::java(&[&push]);
    let value = &records[0]["value"];
    assert_eq!((&value["id"], &value["type"], &value["data"]), (&json!("e1"), &json!("push"), &json!(body)));
    assert_eq!(value["content_type"], "application/json; charset=utf-8");
    assert!(value["time"].is_null() && value["received_at"].is_i64());
    let records = kafka::java(&[&unmapped]);
    let types: Vec<_> = records.iter().map(|record| &record["value"]["type"]).collect();
    assert!(types.len() == 2 && types.contains(&&json!("star/created")), "as sent: {types:?}");
    assert!(!kafka::exists(&service.topic("star")).await);
    assert!(kafka::exists(&service.topic("document.changed")).await);
}

/// Over HTTP: a byte order mark before the JSON, half a surrogate pair, a number as the id, and no events.
#[tokio::test]
async fn w12_w14_k12_unusual_deliveries_are_published_as_sent_or_handled() {
    let rules = "types = []\nunmapped = \"generic\"\nenvelope.id = \"/id\"\nenvelope.type = \"/event\"\nenvelope.data = \"\"";
    let whole = service(rules).await;
    let mark = "\u{feff}{\"id\":\"e1\",\"event\":\"a\"}";
    let half = r#"{"id":"e2","event":"a","\ud800":"\ud800"}"#;
    let number = r#"{"id":900719925474099312345,"event":"a"}"#;
    for (body, id) in [(mark, "e1"), (half, "e2"), (number, "900719925474099312345")] {
        let answer = post(&whole, &[], body).await;
        answer.is(200, "published", None);
        assert_eq!(answer.body["id"], id, "{body}");
    }
    let records = kafka::java(&[&whole.topic("unmapped")]);
    for text in [mark.trim_start_matches('\u{feff}'), half, number] {
        assert!(records.iter().any(|record| record["value"]["data"] == text), "{text}: {records:?}");
    }

    let split = service(&format!("{rules}\nenvelope.split = \"/events\"")).await;
    post(&split, &[], r#"{"events":[]}"#).await.is(200, "handled", Some("no_events"));
    let (_, metrics) = split.admin("/metrics").await;
    let source = &split.source;
    let count = format!(
        "hookstream_deliveries_total{{source=\"{source}\",outcome=\"handled\",reason=\"no_events\"}} 1"
    );
    assert!(metrics.contains(&count), "{metrics}");
    assert!(kafka::all(&split.dead_letters()).await.is_empty());
}

#[tokio::test]
async fn a_source_can_have_only_generic_records() {
    let service = service("types = []\nunmapped = \"generic\"\nenvelope.data = \"\"").await;
    let body = r#"{"event":"any","timestamp":"2026-01-02T03:04:05.678901Z"}"#;
    let answer = service.post(&[("X-Grapevine-Signature", &grapevine(body))], body).await;
    answer.is(200, "published", None);
    assert_eq!(answer.body["topic"], service.topic("unmapped"));
}

const HANDSHAKES: &str = r#"
handshake = [
  { when = { pointer = "/type", equals = "url_verification" }, answer = { pointer = "/challenge" } },
  { when = { header = "X-GitHub-Event", equals = "ping" } },
]
challenge = { query = "hub.challenge" }
"#;

/// Status, content type, `nosniff` header and text of an answer.
async fn text(request: reqwest::RequestBuilder) -> (u16, String, bool, String) {
    let response = request.send().await.unwrap();
    assert!(response.headers().contains_key("hookstream-delivery"));
    let header = |name| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let (kind, nosniff) = (header("content-type"), header("x-content-type-options") == "nosniff");
    (response.status().as_u16(), kind, nosniff, response.text().await.unwrap())
}

#[tokio::test]
async fn handshakes_are_verified_answered_and_counted_but_not_published() {
    let service = service(HANDSHAKES).await;
    let body = r#"{"type": "url_verification", "challenge": "3eZbrw1aB"}"#;
    let signed = |body: &str| {
        let signature = format!("sha256={}", hmac(body.as_bytes()));
        service.client.post(service.url()).header("X-Grapevine-Signature", signature).body(body.to_owned())
    };
    let plain = |text: &str| (200, "text/plain; charset=utf-8".to_owned(), true, text.to_owned());
    assert_eq!(text(signed(body)).await, plain("3eZbrw1aB"));
    let ping = [("X-GitHub-Event", "ping")];
    post(&service, &ping, r#"{"zen": "Keep it."}"#).await.is(200, "handled", Some("handshake"));
    post(&service, &ping, "no json").await.is(200, "handled", Some("handshake"));

    // A client that cannot sign gets no challenge back.
    let forged = service.post(&[("X-Grapevine-Signature", &grapevine("x")), ping[0]], body).await;
    forged.is(401, "refused", Some("unauthorized"));
    // Without its text, it is not a challenge.
    let without = r#"{"type": "url_verification"}"#;
    post(&service, &[], without).await.is(200, "dead_lettered", Some("type_missing"));

    assert_eq!(kafka::all(&service.dead_letters()).await.len(), 1);
    assert!(kafka::all(&service.topic("document.changed")).await.is_empty());
    let lines = service.lines();
    assert!(lines.iter().all(|line| !line.contains("3eZbrw1aB")), "{lines:?}");
    let (_, metrics) = service.admin("/metrics").await;
    let source = &service.source;
    let count = format!(
        "hookstream_deliveries_total{{source=\"{source}\",outcome=\"handled\",reason=\"handshake\"}} 3"
    );
    assert!(metrics.contains(&count), "{metrics}");
}

#[tokio::test]
async fn a_get_challenge_is_echoed_as_plain_text_only_if_configured() {
    let service = service(HANDSHAKES).await;
    let get = |query: &str| service.client.get(format!("{}?{query}", service.url()));
    let (status, kind, nosniff, body) = text(get("hub.mode=subscribe&hub.challenge=%3Cb%3E1158201444")).await;
    assert_eq!((status, nosniff, body.as_str()), (200, true, "<b>1158201444"));
    assert_eq!(kind, "text/plain; charset=utf-8");
    for query in
        ["", "hub.challenge=", "hub.challenge=a%0Ab", "hub.challenge=a&hub.challenge=b", "challenge=a"]
    {
        let (status, kind, _, body) = text(get(query)).await;
        assert_eq!((status, kind.as_str()), (405, "application/json"), "{query}");
        assert!(body.contains("method_not_allowed"), "{body}");
    }
    let other = Service::grapevine().await;
    let (status, ..) = text(other.client.get(format!("{}?hub.challenge=1", other.url()))).await;
    assert_eq!(status, 405);
    let lines = service.lines();
    assert!(lines[0].contains("Handshake") && !lines[0].contains("1158201444"), "{lines:?}");
}

#[tokio::test]
async fn a_form_is_verified_unparsed_and_its_field_is_the_event() {
    let service = service(
        r#"
types = ["push"]
envelope.id = "digest"
envelope.type = "/event"
envelope.data = ""
envelope.payload = "form:payload"
"#,
    )
    .await;
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    // urllib.parse.urlencode({"payload": '{"event":"push","text":"a b+ü&=%"}', "x": "1"})
    let body = "payload=%7B%22event%22%3A%22push%22%2C%22text%22%3A%22a+b%2B%C3%BC%26%3D%25%22%7D&x=1";
    post(&service, &[form], body).await.is(200, "published", None);
    let json = r#"{"event": "push"}"#;
    post(&service, &[("Content-Type", "application/json")], json).await.is(200, "published", None);
    post(&service, &[form], "x=1").await.is(200, "dead_lettered", Some("json_invalid"));
    // No signature covers the Content-Type: as a form, this would be an event of the type `pull`.
    let note = r#"{"event": "push", "note": "&payload=%7B%22event%22%3A%22pull%22%7D&"}"#;
    post(&service, &[form], note).await.is(200, "published", None);

    let records = kafka::java(&[&service.topic("push")]);
    let found: Vec<_> = records.iter().map(|record| record["value"]["data"].as_str().unwrap()).collect();
    assert!(found.len() == 3 && found.contains(&json) && found.contains(&note), "{found:?}");
    assert!(found.contains(&"{\"event\":\"push\",\"text\":\"a b+\u{fc}&=%\"}"), "{found:?}");
    let raw = kafka::java(&[&service.dead_letters()]);
    assert!(raw.iter().any(|record| record["raw"] == "x=1"), "the raw body: {raw:?}");
}

const SPLIT: &str = r#"
types = ["bounce"]
envelope.id = "/id"
envelope.type = "/event"
envelope.data = ""
envelope.split = "/events"
"#;

fn events(ids: impl Iterator<Item = usize>) -> String {
    let events: Vec<_> = ids.map(|id| format!(r#"{{"id":"e{id}", "event":"bounce"}}"#)).collect();
    format!(r#"{{"events": [{}]}}"#, events.join(","))
}

#[tokio::test]
async fn all_events_of_a_delivery_are_published() {
    let service = service(SPLIT).await;
    let answer = post(&service, &[], &events(0..1_000)).await;
    answer.is(200, "published", None);
    assert_eq!((&answer.body["id"], &answer.body["topic"]), (&json!("e0"), &json!(service.topic("bounce"))));
    let records = kafka::java(&[&service.topic("bounce")]);
    assert_eq!(records.len(), 1_000);
    let last = records.iter().find(|record| record["key"] == "e999").unwrap();
    assert_eq!(last["value"]["data"], r#"{"id":"e999", "event":"bounce"}"#);
}

#[tokio::test]
async fn one_invalid_event_dead_letters_the_whole_delivery() {
    let service = service(SPLIT).await;
    let with = |event: &str| events(0..2).replace("]}", &format!(",{event}]}}"));
    for (body, reason) in [
        (with(r#"{"event":"bounce"}"#), "id_missing"),
        (with(r#"{"id":"e2"}"#), "type_missing"),
        (with(r#"{"id":"e2","event":"nobody.knows"}"#), "type_unknown"),
        (with("7"), "shape_mismatch"),
        (events(0..1_001), "shape_mismatch"),
        (r#"{"events": {}}"#.to_owned(), "shape_mismatch"),
        (r#"{"id":"e1","event":"bounce"}"#.to_owned(), "shape_mismatch"),
    ] {
        post(&service, &[], &body).await.is(200, "dead_lettered", Some(reason));
    }
    assert!(kafka::all(&service.topic("bounce")).await.is_empty(), "not even the valid events");
    let letters = kafka::java(&[&service.dead_letters()]);
    assert_eq!(letters.len(), 7);
    assert!(letters.iter().all(|letter| letter["key"].as_str().unwrap().starts_with("sha256:")));
    assert!(letters.iter().any(|letter| letter["raw"] == with("7")), "the whole body");
}

#[tokio::test]
async fn a_body_can_be_an_array_and_its_events_without_ids_get_distinct_keys() {
    let service = service(
        r#"
types = ["open"]
envelope.id = "digest"
envelope.type = "/event"
envelope.data = ""
envelope.split = ""
"#,
    )
    .await;
    let body = r#"[{"event":"open"},{"event":"open"}]"#;
    post(&service, &[], body).await.is(200, "published", None);
    let mut keys = kafka::all(&service.topic("open")).await;
    keys.sort();
    // From Python's hashlib.
    let digest = "sha256:5813e239991ee0c5ef6497df92548f90cb9ea4fce0f4dfe3346199959922feba";
    assert_eq!(keys, [format!("{digest}:0"), format!("{digest}:1")]);
}
