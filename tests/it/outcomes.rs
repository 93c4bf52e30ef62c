//! Every answer in the table of outcomes, and every kind of bad input, on the real server.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hookstream::outcome::Reason;
use http_body_util::StreamBody;
use hyper::body::Frame;

use crate::support::raw::{self, exchange, head};
use crate::support::{Service, Setup, batch, datagrid, kafka};

/// Posts a body that verifies and is dead-lettered for `reason`.
async fn dead_lettered(service: &Service, body: impl Into<Vec<u8>>, reason: &str) {
    let body = body.into();
    let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
    let answer = service.datagrid_post(body).await;
    assert_eq!(answer.body["reason"], reason, "{shown}");
    answer.is(200, "dead_lettered", Some(reason));
    assert_eq!(answer.body["topic"], service.dead_letters());
}

#[tokio::test]
async fn authentic_but_unusable_deliveries_are_dead_lettered_with_their_reason() {
    let service = Service::datagrid().await;
    let with = |id: &str, data: &str| {
        format!(r#"{{"id":{id},"event_type":"batch_prediction.completed","timestamp":1,"data":{data}}}"#)
    };
    let mut count = 0;
    for (body, reason) in [
        (String::new(), "json_invalid"),
        ("{\"id\":\"evt_1\"".into(), "json_invalid"),
        ("{} {}".into(), "json_invalid"),
        ("payload=1".into(), "json_invalid"),
        (format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)), "json_too_deep"),
        (
            with("\"evt_1\"", &format!("{{\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000))),
            "json_too_deep",
        ),
        (r#"{"id":"evt_1","id":"evt_2"}"#.into(), "duplicate_key"),
        (with("\"evt_1\"", r#"{"id":"a","\u0069d":"b"}"#), "duplicate_key"),
        // Below an unknown member and instead of a string: stored as sent (c7).
        (with("\"evt_1\"", r#"{"new":{"a":[{"b":1,"b":2}]}}"#), "duplicate_key"),
        (with("\"evt_1\"", r#"{"status":{"b":1,"\u0062":2}}"#), "duplicate_key"),
        (r#"{"event_type":"batch_prediction.completed","timestamp":1,"data":{}}"#.into(), "id_missing"),
        (with("null", "{}"), "id_missing"),
        (with("true", "{}"), "id_invalid"),
        (with("\"\"", "{}"), "id_invalid"),
        (with(r#""evt\u0000""#, "{}"), "id_invalid"),
        (with(r#""\ud800""#, "{}"), "id_invalid"),
        (with(&format!("\"{}\"", "x".repeat(1025)), "{}"), "id_invalid"),
        (r#"{"id":"evt_1","timestamp":1,"data":{}}"#.into(), "type_missing"),
        (r#"{"id":"evt_1","event_type":3,"timestamp":1,"data":{}}"#.into(), "type_missing"),
        (r#"{"id":"evt_1","event_type":"nobody.knows","timestamp":1,"data":{}}"#.into(), "type_unknown"),
        (with("\"evt_1\"", "[]"), "shape_mismatch"),
        ("[]".into(), "shape_mismatch"),
    ] {
        dead_lettered(&service, body, reason).await;
        count += 1;
    }
    dead_lettered(&service, b"{\"id\":\"\xff\"}".to_vec(), "json_invalid").await;
    assert_eq!(kafka::all(&service.dead_letters()).await.len(), count + 1);
}

#[tokio::test]
async fn odd_but_usable_events_are_published_with_unchanged_digits() {
    let service = Service::datagrid().await;
    let data = r#"{"status":"\ud800","model":1e400,"results_url":null,"request_counts":{"total":18446744073709551616}}"#;
    let body = format!(
        r#"{{"id":"evt_odd","event_type":"batch_prediction.completed","timestamp":1,"data":{data}}}"#
    );
    service.datagrid_post(body).await.is(200, "published", None);
    let longest = "x".repeat(1024);
    service.datagrid_post(batch(&longest)).await.is(200, "published", None);

    let records = kafka::java(&[&service.topic("batch_prediction.completed")]);
    let odd = records.iter().find(|record| record["key"] == "evt_odd").unwrap();
    let kept = &odd["value"]["additional_fields"];
    assert_eq!(kept["/data/status"], r#""\ud800""#, "not a valid string, so kept as sent");
    assert_eq!(kept["/data/model"], "1e400");
    assert_eq!(kept["/data/request_counts/total"], "18446744073709551616");
    assert!(records.iter().any(|record| record["key"] == longest));
    let (_, metrics) = service.admin("/metrics").await;
    let labels = format!("source=\"{}\",type=\"batch_prediction.completed\"", service.source);
    assert!(metrics.contains(&format!("hookstream_misfits_total{{{labels}}} 3\n")), "{metrics}");
}

#[tokio::test]
async fn an_unknown_type_cannot_carry_a_payload_into_the_log() {
    let service = Service::datagrid().await;
    let long = "payload ".repeat(1_000);
    let body = format!(r#"{{"id":"evt_1","event_type":"{long}","timestamp":1,"data":{{}}}}"#);
    dead_lettered(&service, body, "type_unknown").await;
    let line = &service.lines()[0];
    assert!(line.contains("payload") && line.len() < 1_000, "{} bytes", line.len());
}

#[tokio::test]
async fn a_request_is_refused_by_its_head_before_its_body_arrives() {
    let service = Service::datagrid().await;
    let unknown =
        service.client.post(format!("http://{}/hooks/nobody", service.hooks())).send().await.unwrap();
    crate::support::Answer::read(unknown).await.is(404, "refused", Some("source_unknown"));
    for path in ["/", "/hooks", "/hooks/", "/hooks/a/b", "/hooks/%ff"] {
        let answer =
            exchange(service.hooks(), head("POST", path, &[("content-length", "0")]).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let path = format!("/hooks/{}", service.source);
        let answer = exchange(service.hooks(), head(method, &path, &[]).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: POST"), "{method}: {answer}");
        assert!(answer.contains(r#"{"outcome":"refused","reason":"method_not_allowed"}"#), "{answer}");
    }
    // The server does not wait for any byte of a body whose declared length is too large.
    let path = format!("/hooks/{}", service.source);
    let answer =
        exchange(service.hooks(), head("POST", &path, &[("content-length", "99999999999")]).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
}

#[tokio::test]
async fn w11b_the_log_line_of_an_unknown_path_shows_it_and_the_path_of_the_source_that_is_meant() {
    let service = Service::datagrid().await;
    let name = &service.source;
    let hint = format!("; the source {name} is at /hooks/{name}\"");
    let long = format!("/{}", "x".repeat(200));
    for (path, says) in [
        (format!("/hooks/{name}/?key=s3cret"), format!("the path is /hooks/{name}/{hint}")),
        (format!("/{name}"), format!("the path is /{name}{hint}")),
        (format!("/hooks/{}", name.to_uppercase()), hint.to_string()),
        ("/wp-login.php".to_owned(), "the path is /wp-login.php\"".to_owned()),
        (long.clone(), format!("the path is {}…\"", &long[..80])),
    ] {
        let answer =
            exchange(service.hooks(), head("POST", &path, &[("content-length", "0")]).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 404") && !answer.contains("path"), "{path}: {answer}");
        let line = service.lines().pop().unwrap();
        assert!(line.contains(&says) && !line.contains("s3cret"), "{says}: {line}");
    }
}

#[tokio::test]
async fn two_signature_headers_are_refused() {
    let service = Service::datagrid().await;
    let body = batch("evt_two");
    let header = datagrid(body.as_bytes());
    let headers = [("Datagrid-Signature", header.as_str()), ("Datagrid-Signature", header.as_str())];
    service.post(&headers, body).await.is(401, "refused", Some("unauthorized"));
    assert!(service.lines()[0].contains("SignatureMalformed"), "{:?}", service.lines());
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused() {
    let setup = Setup { http: "max_body = \"1 KiB\"".into(), ..Setup::new("datagrid") };
    let service = setup.ready().await;
    // Chunked, so no length is declared.
    let chunks = (0..4).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b' '; 400]))));
    let body = StreamBody::new(futures_util::stream::iter(chunks));
    let answer = service.post(&[], reqwest::Body::wrap(body)).await;
    answer.is(413, "refused", Some("body_too_large"));
    service.datagrid_post(vec![b' '; 1025]).await.is(413, "refused", Some("body_too_large"));
    service.datagrid_post(vec![b' '; 1024]).await.is(200, "dead_lettered", Some("json_invalid"));
}

#[tokio::test]
async fn a_client_that_stops_within_its_body_is_disconnected_and_delays_nobody() {
    let setup =
        Setup { http: "head_timeout = \"500ms\"\nbody_timeout = \"500ms\"".into(), ..Setup::new("datagrid") };
    let service = setup.ready().await;
    let half_head = b"POST /hooks/x HTTP/1.1\r\nhost: t";
    let mut in_head = raw::open(service.hooks(), half_head).await;
    let start = Instant::now();
    let path = format!("/hooks/{}", service.source);
    let half = head("POST", &path, &[("content-length", "100")]) + "{\"id\":";
    let mut in_body = raw::open(service.hooks(), half.as_bytes()).await;

    service.datagrid_post(batch("evt_honest")).await.is(200, "published", None);
    let answer = raw::read_to_end(&mut in_body).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_too_slow"), "{answer}");
    raw::read_to_end(&mut in_head).await;
    assert!(start.elapsed() < Duration::from_secs(3), "not within its own timeout: {:?}", start.elapsed());

    // A client that disconnects within its body causes no panic and no record, at most a log line.
    drop(raw::open(service.hooks(), half.as_bytes()).await);
    service.datagrid_post(batch("evt_after")).await.is(200, "published", None);
    assert_eq!(kafka::all(&service.topic("batch_prediction.completed")).await.len(), 2);
}

#[tokio::test]
async fn invalid_framing_is_refused() {
    let service = Service::datagrid().await;
    let path = format!("/hooks/{}", service.source);
    let request = head("POST", &path, &[("transfer-encoding", "chunked")]) + "zz\r\nnot a chunk";
    let answer = exchange(service.hooks(), request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn a_flood_of_dead_letters_is_rate_limited() {
    let setup = Setup { rules: "dead_letter_rate = 3".into(), ..Setup::new("datagrid") };
    let service = setup.ready().await;
    let mut limited = 0;
    for n in 0..20 {
        let answer = service.datagrid_post(format!("not json {n}")).await;
        if answer.status == 503 {
            answer.is(503, "unavailable", Some("rate_limited"));
            limited += 1;
        }
    }
    assert!(limited > 0, "20 at once exceed 3 a second");
    assert_eq!(kafka::all(&service.dead_letters()).await.len(), 20 - limited);
}

#[tokio::test]
async fn a_record_that_kafka_refuses_permanently_is_dead_lettered_with_its_raw_body() {
    let setup = Setup::new("datagrid");
    let topic = format!("{}.batch_prediction.completed", setup.source);
    kafka::create(&topic, "max.message.bytes", "500").await;
    let service = setup.ready().await;
    let filler: String = (0..300).map(|n| format!("{n:x}")).collect();
    let body = batch(&format!("evt_{filler}"));
    let answer = service.datagrid_post(body.clone()).await;
    answer.is(200, "dead_lettered", Some("kafka_refused"));
    assert!(kafka::all(&topic).await.is_empty());
    let records = kafka::java(&[&service.dead_letters()]);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["raw"], body);
    assert_eq!(records[0]["headers"]["hookstream-original-topic"], topic);
}

#[tokio::test]
async fn the_operators_port_serves_health_and_metrics() {
    let service = Service::datagrid().await;
    assert_eq!(service.admin("/livez").await.0, 200);
    let (status, ready) = service.admin("/readyz").await;
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    // Degraded once hookstream knows that the only broker stores one copy: see `durability.rs`.
    assert!(status == 200 && (ready["status"] == "ready" || ready["status"] == "degraded"), "{ready}");
    for part in ["kafka", "topics", "schemas", "spool", "service"] {
        assert_eq!(ready["parts"][part]["state"], "ok", "{ready}");
    }

    service.datagrid_post(batch("evt_counted")).await.is(200, "published", None);
    service.post(&[], "{}").await.is(401, "refused", Some("unauthorized"));
    let (_, metrics) = service.admin("/metrics").await;
    for (outcome, reason) in [("published", ""), ("refused", "signature_missing")] {
        let row = format!(
            "hookstream_deliveries_total{{source=\"{}\",outcome=\"{outcome}\",reason=\"{reason}\"}} 1",
            service.source
        );
        assert!(metrics.contains(&row), "{row} is not in\n{metrics}");
    }
    assert!(metrics.contains("# HELP hookstream_delivery_duration_seconds"), "{metrics}");
}

/// The labels are a contract, so this test lists them.
#[test]
fn every_reason_has_a_status_that_fits_its_outcome() {
    for reason in Reason::ALL {
        let row = reason.info();
        let expected: &[u16] = match row.outcome.label() {
            "dead_lettered" | "handled" => &[200],
            "unavailable" => &[503],
            "refused" => &[400, 401, 403, 404, 405, 408, 413, 415],
            other => panic!("{other}"),
        };
        assert!(expected.contains(&row.status.as_u16()), "{}", row.label);
    }
}
