//! Signed deliveries arrive with the right topic, key, partition, timestamp, headers and value, read by Apache's Java
//! clients and Avro.

use serde_json::{Value, json};

use crate::support::{Service, batch, datagrid, grapevine, hmac, kafka};

/// Posts a delivery, expects 200, and returns the position in the answer.
async fn published(service: &Service, headers: &[(&str, &str)], body: &str) -> Value {
    let answer = service.post(headers, body.to_owned()).await;
    answer.is(200, "published", None);
    answer.body
}

fn by_key<'a>(records: &'a [Value], key: &str) -> &'a Value {
    let mut found = records.iter().filter(|record| record["key"] == key);
    let record = found.next().unwrap_or_else(|| panic!("{key} is not in the topic: {records:?}"));
    assert!(found.next().is_none(), "two records of {key}");
    record
}

#[tokio::test]
async fn the_examples_of_datagrid_and_variants_arrive_typed() {
    let service = Service::datagrid().await;
    let before = jiff::Timestamp::now().as_millisecond();
    let page = batch("evt_7f3d8a2c");
    let header = datagrid(page.as_bytes());
    let answer = published(
        &service,
        &[
            ("Datagrid-Signature", &header),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ],
        &page,
    )
    .await;
    let after = jiff::Timestamp::now().as_millisecond();

    // The types of the client library, the spellings of earlier documentation, and an unknown field.
    let knowledge = |id: &str, scope: &str, counts: &str| {
        format!(
            r#"{{"id":"{id}","event_type":"knowledge.processing.completed","timestamp":1775847600,"data":{{"knowledge_id":"kn_1","teamspace_id":"ts_1","scope":"{scope}","status":"ready","row_counts":{counts},"priority":1.50}}}}"#
        )
    };
    let old = knowledge("evt_old", "private", r#"{"tables": 2, "rows": 1000}"#);
    let new = knowledge("evt_new", "teamspace", r#"{"completed": 3, "failed": 0, "total": 3}"#);
    for body in [&old, &new] {
        published(&service, &[("Datagrid-Signature", &datagrid(body.as_bytes()))], body).await;
    }

    let (one, other) =
        (service.topic("batch_prediction.completed"), service.topic("knowledge.processing.completed"));
    let records = kafka::java(&[&one, &other]);
    assert_eq!(records.len(), 3);
    let record = by_key(&records, "evt_7f3d8a2c");
    assert_eq!(record["topic"], one);
    assert_eq!(record["partition"], record["expectedPartition"], "as the Java client chooses it");
    assert_eq!((&record["partition"], &record["offset"]), (&answer["partition"], &answer["offset"]));
    let timestamp = record["timestamp"].as_i64().unwrap();
    assert!((before..=after).contains(&timestamp), "received_at, not the event's time");

    let headers = &record["headers"];
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", "evt_7f3d8a2c"),
        ("ce_source", format!("/hooks/{}", service.source).as_str()),
        ("ce_type", "batch_prediction.completed"),
        ("ce_time", "2026-04-10T19:00:00Z"),
        ("content-type", "application/avro"),
        ("hookstream-secret", "TEST_SECRET"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    assert!(headers["hookstream-delivery-id"].is_string() && headers["hookstream-received-at"].is_string());

    let value = &record["value"];
    assert_eq!(value["id"], "evt_7f3d8a2c");
    assert_eq!(value["type"], "batch_prediction.completed");
    assert_eq!(value["source"], service.source);
    assert_eq!(value["data"]["status"], "completed");
    assert_eq!(value["data"]["results_url"], "/v1/batch-predictions/bpred_abc123/results");
    assert_eq!(value["data"]["model"], Value::Null);
    assert_eq!(value["additional_fields"], json!({}));

    let old = &by_key(&records, "evt_old")["value"];
    assert_eq!(
        (&old["data"]["scope"], &old["data"]["row_counts"]["rows"]),
        (&json!("private"), &json!(1000))
    );
    assert_eq!(old["additional_fields"], json!({"/data/priority": "1.50"}), "with unchanged digits");
    let new = &by_key(&records, "evt_new")["value"];
    assert_eq!(new["data"]["row_counts"], json!({"completed": 3, "failed": 0, "total": 3}));
}

#[tokio::test]
async fn grapevine_signatures_verify_in_any_spelling_of_the_body() {
    let service = Service::grapevine().await;
    // A document, and the output of Python's json.dumps for it.
    let documents = [
        ("README.md", r"README.md"),
        ("Büro.md", r"B\u00fcro.md"),
        ("日本", r"\u65e5\u672c"),
        ("🎉.md", r"\ud83c\udf89.md"),
        ("a\u{2028}b", r"a\u2028b"),
        ("del\u{7f}", r"del\u007f"),
    ];
    let mut sent = Vec::new();
    for (document, escaped) in documents {
        let text = |document: &str, after: &str| {
            format!(
                r#"{{"event":{after}"document.changed",{after}"timestamp":{after}"2026-01-02T03:04:05.678901Z",{after}"tenant_id":{after}"acme",{after}"data":{after}{{"document_id":{after}"{document}",{after}"source":{after}"github"}}}}"#
            )
        };
        let canonical = text(escaped, "");
        let header = grapevine(&canonical);
        let key = format!("sha256:{}", sha256(&canonical));
        // As signed; as raw UTF-8; and both with spaces after comma and colon.
        for wire in [canonical.clone(), text(document, ""), text(escaped, " "), text(document, " ")] {
            let headers = [
                ("X-Grapevine-Signature", header.as_str()),
                ("X-Grapevine-Event", "document.changed"),
                ("Content-Type", "application/json"),
            ];
            let answer = published(&service, &headers, &wire).await;
            assert_eq!(answer["id"], key, "every spelling of an event has the same key: {wire}");
        }
        sent.push((document, key));
    }
    let records = kafka::java(&[&service.topic("document.changed")]);
    assert_eq!(records.len(), 4 * sent.len());
    for (document, key) in sent {
        let copies: Vec<_> = records.iter().filter(|record| record["key"] == key).collect();
        assert_eq!(copies.len(), 4);
        for record in copies {
            assert_eq!(record["partition"], record["expectedPartition"]);
            assert_eq!(record["value"]["data"]["document_id"], document);
            assert_eq!(record["value"]["tenant_id"], "acme");
            assert_eq!(record["headers"]["ce_time"], "2026-01-02T03:04:05.678901Z");
            let kept = &record["value"]["additional_fields"];
            assert_eq!(kept["/timestamp"], "\"2026-01-02T03:04:05.678901Z\"", "microseconds are kept");
        }
    }
}

#[tokio::test]
async fn an_unusable_body_is_unchanged_in_its_dead_letter() {
    let service = Service::datagrid().await;
    let body = r#"{"id":"evt_odd","event_type":"batch_prediction.paused","timestamp":1,"data":{}}"#;
    let header = datagrid(body.as_bytes());
    let answer = service.post(&[("Datagrid-Signature", &header)], body).await;
    answer.is(200, "dead_lettered", Some("type_unknown"));
    assert_eq!(answer.body["topic"], service.dead_letters());
    let empty = service.datagrid_post("").await;
    empty.is(200, "dead_lettered", Some("json_invalid"));

    let records = kafka::java(&[&service.dead_letters()]);
    let record = by_key(&records, "evt_odd");
    assert_eq!(record["raw"], body);
    let headers = &record["headers"];
    assert_eq!(headers["hookstream-reason"], "type_unknown");
    assert_eq!(headers["datagrid-signature"], header);
    assert_eq!(headers["hookstream-seal"].as_str().unwrap().len(), 64);
    assert_eq!(headers["hookstream-delivery-id"], answer.headers["hookstream-delivery"].to_str().unwrap());
    let record = by_key(&records, &format!("sha256:{}", sha256("")));
    assert!(record["raw"].as_str().unwrap().contains("empty body"), "not a tombstone: {record}");
}

#[tokio::test]
async fn a_retry_has_the_key_of_the_first_attempt() {
    let service = Service::datagrid().await;
    let body = batch("evt_retried");
    for _ in 0..3 {
        service.datagrid_post(body.clone()).await.is(200, "published", None);
    }
    let found = kafka::all(&service.topic("batch_prediction.completed")).await;
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|key| key == "evt_retried"));
}

#[tokio::test]
async fn no_forged_delivery_reaches_a_topic() {
    let service = Service::datagrid().await;
    let body = batch("evt_forged");
    let forged = format!("t=1775847600,v1={}", hmac(b"something else"));
    for header in [forged.as_str(), "t=1775847600", "v1=0", ""] {
        let answer = service.post(&[("Datagrid-Signature", header)], body.clone()).await;
        answer.is(401, "refused", Some("unauthorized"));
        assert_eq!(
            answer.body,
            json!({"outcome": "refused", "reason": "unauthorized"}),
            "no further details"
        );
    }
    service.post(&[], body).await.is(401, "refused", Some("unauthorized"));
    for topic in [service.topic("batch_prediction.completed"), service.dead_letters()] {
        assert!(kafka::all(&topic).await.is_empty(), "{topic}");
    }
}

fn sha256(text: &str) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(text))
}
