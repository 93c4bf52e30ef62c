//! Spans of deliveries, as a collector receives them over OTLP.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hookstream::kafka::embedded::Embedded;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rdkafka::message::{Headers as _, Message as _};

use crate::spool::{spool, waiting};
use crate::support::collector::{Collector, attributes, text};
use crate::support::process::serve_with_log;
use crate::support::{Answer, SECRET, Service, Setup, batch, datagrid, kafka, on_embedded_with, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

/// A service on an in-memory Kafka that exports to `collector`.
async fn exporting(collector: &Collector, more: &str) -> (Service, Embedded) {
    on_embedded_with(|setup| setup.tables = collector.table(more)).await
}

/// A valid delivery with a `traceparent`.
async fn post(service: &Service, id: &str, traceparent: &str) -> Answer {
    let body = batch(id);
    let signature = datagrid(body.as_bytes());
    service.post(&[("Datagrid-Signature", &signature), ("traceparent", traceparent)], body).await
}

fn delivery_id(answer: &Answer) -> String {
    answer.headers["hookstream-delivery"].to_str().unwrap().to_owned()
}

/// The `traceparent` of each record, by key.
async fn traceparents(kafka: &Embedded, topic: &str) -> BTreeMap<String, String> {
    let (bootstrap, topic) = (kafka.bootstrap_servers(), topic.to_owned());
    let read = move || {
        let mut found = BTreeMap::new();
        kafka::records(&bootstrap, &topic, |message| {
            let headers = message.headers().unwrap();
            let sent: Vec<_> = headers.iter().filter(|header| header.key == "traceparent").collect();
            assert!(sent.len() < 2, "{sent:?}");
            let value = sent
                .first()
                .map_or(String::new(), |header| String::from_utf8(header.value.unwrap().to_vec()).unwrap());
            found.insert(String::from_utf8(message.key().unwrap().to_vec()).unwrap(), value);
        });
        found
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// The only span below `parent` whose name has this prefix.
fn child(spans: &[Span], parent: &Span, name: &str) -> Span {
    let mut found = spans.iter().filter(|span| span.parent_span_id == parent.span_id);
    let mut found = found.by_ref().filter(|span| span.name.starts_with(name));
    let span = found.next().unwrap_or_else(|| panic!("{name} is not in {spans:?}")).clone();
    assert!(found.next().is_none(), "two spans {name}");
    assert_eq!(span.trace_id, parent.trace_id);
    assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
    assert!(span.start_time_unix_nano >= parent.start_time_unix_nano, "{span:?}");
    assert!(span.end_time_unix_nano <= parent.end_time_unix_nano, "{span:?}");
    span
}

#[tokio::test]
async fn a_delivery_is_a_child_span_of_its_caller_and_its_record_names_the_send_span() {
    let collector = Collector::start().await;
    let (service, kafka) = exporting(&collector, "sample = 0.0").await;
    let body = batch("evt_1");
    let request = service.client.post(format!("{}?token=not-to-be-seen", service.url()));
    let request = request.header("Datagrid-Signature", datagrid(body.as_bytes()));
    let request = request.header("traceparent", traceparent("01")).header("tracestate", "not=to-be-seen");
    let answer = Answer::read(request.body(body).send().await.unwrap()).await;
    answer.is(200, "published", None);

    let server = collector.delivery(&delivery_id(&answer)).await;
    assert_eq!(
        (hex::encode(&server.trace_id), hex::encode(&server.parent_span_id)),
        (TRACE.into(), CALLER.into())
    );
    assert_eq!((server.name.as_str(), server.kind()), ("POST /hooks/{source}", SpanKind::Server));
    let topic = service.topic("batch_prediction.completed");
    let (partition, offset) = (answer.body["partition"].to_string(), answer.body["offset"].to_string());
    let wanted = [
        ("cloudevents.event_id", "evt_1"),
        ("cloudevents.event_type", "batch_prediction.completed"),
        ("hookstream.outcome", "published"),
        ("hookstream.source", &service.source),
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("http.route", "/hooks/{source}"),
        ("messaging.destination.name", &topic),
        ("messaging.destination.partition.id", &partition),
        ("messaging.kafka.offset", &offset),
        ("url.path", &format!("/hooks/{}", service.source)),
        ("url.scheme", "http"),
    ];
    let mut found = attributes(&server.attributes);
    found.remove("hookstream.delivery_id");
    assert_eq!(found, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert_eq!(server.status.clone().unwrap_or_default().code, 0, "unset");

    let spans = collector.spans();
    assert_eq!(spans.len(), 4, "{spans:?}");
    let (body, own) = (child(&spans, &server, "read body"), child(&spans, &server, "verify and encode"));
    let send = child(&spans, &server, "send");
    assert_eq!(own.start_time_unix_nano, body.end_time_unix_nano);
    assert_eq!(own.end_time_unix_nano, send.start_time_unix_nano);
    assert_eq!((send.name.as_str(), send.kind()), (format!("send {topic}").as_str(), SpanKind::Producer));
    let wanted = [
        ("messaging.system", "kafka"),
        ("messaging.operation.name", "send"),
        ("messaging.operation.type", "send"),
        ("messaging.destination.name", &topic),
        ("messaging.destination.partition.id", &partition),
        ("messaging.kafka.offset", &offset),
    ];
    assert_eq!(
        attributes(&send.attributes),
        wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    );
    let record = &traceparents(&kafka, &topic).await["evt_1"];
    assert_eq!(record, &format!("00-{TRACE}-{}-01", hex::encode(&send.span_id)));

    let (_, request) = &collector.requests()[0];
    let resource = attributes(&request.resource_spans[0].resource.as_ref().unwrap().attributes);
    assert_eq!(
        (resource["service.name"].as_str(), resource["service.version"].as_str()),
        ("hookstream", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(resource["service.instance.id"].len(), 36);
    let all = format!("{:?}", collector.requests());
    for hidden in ["to-be-seen", "results_url", SECRET, "1775847600,v1"] {
        assert!(!all.contains(hidden), "{hidden} is in {all}");
    }
}

#[tokio::test]
async fn only_verified_callers_decide_on_sampling_and_the_ratio_applies_to_all_others() {
    let collector = Collector::start().await;
    let (service, kafka) = exporting(&collector, "sample = 0").await;
    // A trace id that every sampling ratio above 0 selects.
    let picked = format!("00-{}01-{CALLER}-01", "0".repeat(30));
    for _ in 0..3 {
        service
            .post(&[("Datagrid-Signature", "t=1,v1=00"), ("traceparent", &picked)], batch("evt_0"))
            .await
            .is(401, "refused", Some("unauthorized"));
    }
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
    post(&service, "evt_2", &traceparent("00")).await.is(200, "published", None);
    let last = post(&service, "evt_3", &traceparent("01")).await;
    // Spans are queued in the order of their end.
    let span = collector.delivery(&delivery_id(&last)).await;
    for other in collector.spans() {
        assert_eq!(other.trace_id, span.trace_id, "{other:?}");
        assert!(other.span_id == span.span_id || other.parent_span_id == span.span_id, "{other:?}");
    }
    let found = traceparents(&kafka, &service.topic("batch_prediction.completed")).await;
    assert_eq!(
        (found["evt_1"].as_str(), found["evt_2"].as_str()),
        ("", traceparent("00").as_str()),
        "as they came"
    );

    // The opposite: an unsampled caller gets no span, and every refusal has one.
    let collector = Collector::start().await;
    let (service, _kafka) = exporting(&collector, "").await;
    let unseen = post(&service, "evt_1", &traceparent("00")).await;
    let seen = service.datagrid_post(batch("evt_2")).await;
    collector.delivery(&delivery_id(&seen)).await;
    let unseen = delivery_id(&unseen);
    assert!(collector.spans().iter().all(|span| text(span, "hookstream.delivery_id") != unseen));
}

#[tokio::test]
async fn a_refusal_is_its_own_trace_with_its_reason_and_a_link_to_the_caller() {
    let collector = Collector::start().await;
    let (service, _kafka) = exporting(&collector, "").await;
    let forged = format!("t=1775847600,v1={}", "0123456789abcdef".repeat(4));
    let headers = [("Datagrid-Signature", forged.as_str()), ("traceparent", &traceparent("01"))];
    let refused = service.post(&headers, batch("evt_payload")).await;
    refused.is(401, "refused", Some("unauthorized"));
    let span = collector.delivery(&delivery_id(&refused)).await;
    assert_eq!(
        (text(&span, "hookstream.reason").as_str(), text(&span, "hookstream.outcome").as_str()),
        ("signature_mismatch", "refused")
    );
    assert_eq!(text(&span, "http.response.status_code"), "401");
    assert_eq!(
        (span.parent_span_id.len(), span.status.clone().unwrap_or_default().code),
        (0, 0),
        "a root, and no error of ours"
    );
    assert_ne!(hex::encode(&span.trace_id), TRACE);
    assert_eq!(span.links.len(), 1);
    assert_eq!(
        (hex::encode(&span.links[0].trace_id), hex::encode(&span.links[0].span_id)),
        (TRACE.into(), CALLER.into())
    );
    child(&collector.spans(), &span, "verify");

    let elsewhere = service.client.post(format!("http://{}/hooks/secret-place?token=t", service.hooks()));
    let unknown = Answer::read(elsewhere.body("x").send().await.unwrap()).await;
    let span = collector.delivery(&delivery_id(&unknown)).await;
    assert_eq!((span.name.as_str(), text(&span, "hookstream.reason").as_str()), ("POST", "source_unknown"));
    assert!(span.links.is_empty(), "the caller sent no span");
    let all = format!("{:?}", collector.requests());
    for hidden in ["evt_payload", "results_url", "0123456789abcdef", "secret-place", "token"] {
        assert!(!all.contains(hidden), "{hidden} is in {all}");
    }

    // A flood of unverified deliveries causes only some tens of spans, besides those of verified ones.
    for _ in 0..300 {
        service.post(&headers, "x").await.is(401, "refused", Some("unauthorized"));
    }
    let last = service.datagrid_post(batch("evt_last")).await;
    let start = Instant::now();
    collector.delivery(&delivery_id(&last)).await;
    let strangers =
        collector.spans().iter().filter(|span| text(span, "http.response.status_code") == "401").count();
    assert!(strangers > 20 && strangers < 300, "{strangers}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn dead_letters_and_spooled_records_name_their_send_span_too() {
    let (collector, dir) = (Collector::start().await, tempfile::tempdir().unwrap());
    let (service, kafka) = on_embedded_with(|setup| {
        setup.tables = spool(dir.path(), &collector.table(""));
        setup.rules.push_str("ack_deadline = \"3s\"");
    })
    .await;
    let sent = async |answer: &Answer| {
        let server = collector.delivery(&delivery_id(answer)).await;
        (server.clone(), child(&collector.spans(), &server, "send"))
    };
    let names = |send: &Span| format!("00-{}-{}-01", hex::encode(&send.trace_id), hex::encode(&send.span_id));

    let letter =
        service.datagrid_post(r#"{"id":"evt_1","event_type":"unheard-of","timestamp":1,"data":{}}"#).await;
    letter.is(200, "dead_lettered", Some("type_unknown"));
    let (server, send) = sent(&letter).await;
    assert_eq!(text(&server, "hookstream.reason"), "type_unknown");
    assert_eq!(text(&send, "messaging.destination.name"), service.dead_letters());
    assert_eq!(traceparents(&kafka, &service.dead_letters()).await["evt_1"], names(&send));

    kafka.broker_down().unwrap();
    let spooled = service.datagrid_post(batch("evt_2")).await;
    spooled.is(202, "spooled", None);
    let (server, send) = sent(&spooled).await;
    assert_eq!(
        (text(&server, "hookstream.outcome").as_str(), text(&send, "hookstream.spooled").as_str()),
        ("spooled", "true")
    );
    assert_eq!(text(&send, "messaging.kafka.offset"), "");
    kafka.broker_up().unwrap();
    until("an empty spool", async || waiting(&service) == 0).await;
    let topic = service.topic("batch_prediction.completed");
    assert_eq!(traceparents(&kafka, &topic).await["evt_2"], names(&send));
}

#[tokio::test]
async fn an_outage_marks_both_spans_as_errors_and_a_shutdown_exports_the_last_spans() {
    let collector = Collector::start().await;
    let (service, kafka) = exporting(&collector, "").await;
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
    kafka.broker_down().unwrap();
    let failed = service.datagrid_post(batch("evt_2")).await;
    failed.is(503, "unavailable", Some("kafka_unavailable"));
    service.app.stop().await.unwrap();
    let spans = collector.spans();
    let id = delivery_id(&failed);
    let server =
        spans.iter().find(|span| text(span, "hookstream.delivery_id") == id).expect("an exported span");
    for span in [server, &child(&spans, server, "send")] {
        assert_eq!(text(span, "error.type"), "kafka_unavailable");
        assert_eq!(span.status.clone().unwrap().code, 2, "an error");
    }
}

#[tokio::test]
async fn a_hung_collector_delays_nothing() {
    // The collector accepts connections, reads nothing and answers nothing.
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let table = format!("[traces]\nendpoint = \"http://{}\"", hanging.local_addr().unwrap());
    let (service, _kafka) = on_embedded_with(|setup| setup.tables = table).await;
    let mut slowest = Duration::ZERO;
    // Longer than the interval of a batch, so that an export is in progress.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
        slowest = slowest.max(asked.elapsed());
    }
    // An export may take ten seconds, but nothing waits for it.
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert_eq!(service.admin("/readyz").await.0, 200);
    let stopping = Instant::now();
    service.app.stop().await.unwrap();
    assert!(stopping.elapsed() < Duration::from_secs(6), "{:?}", stopping.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_collector_sees_the_token_and_an_unreachable_collector_is_logged_once() {
    const TOKEN: &str = "Bearer not-for-the-log-0123456789";
    let (collector, directory) = (Collector::start().await, tempfile::tempdir().unwrap());
    let config = directory.path().join("hookstream.toml");
    std::fs::write(directory.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let mut setup = Setup::new("datagrid");
    let token = directory.path().join("token");
    // All log lines of all libraries.
    setup.tables = collector
        .table(&format!("headers = {{ Authorization = {{ file = {token:?} }} }}\n[log]\nfilter = \"trace\""));
    std::fs::write(&config, setup.toml()).unwrap();
    let (process, hooks, _, log) = serve_with_log(&config);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let deliver = async |hooks: &str| {
        let body = batch("evt_1");
        let request = client.post(format!("http://{hooks}/hooks/{}", setup.source));
        let request = request.header("Datagrid-Signature", datagrid(body.as_bytes()));
        request.body(body).send().await.unwrap().status().as_u16()
    };
    until("a published delivery", async || deliver(&hooks).await == 200).await;
    until("spans", async || !collector.requests().is_empty()).await;
    let (headers, _) = &collector.requests()[0];
    assert_eq!(headers["authorization"], TOKEN);
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let lines = format!("{:?}", log.lock().unwrap());
    assert!(lines.contains("hookstream"), "{lines}");
    assert!(!lines.contains("not-for-the-log"), "{lines}");
    drop(process);

    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    setup.tables = format!("[traces]\nendpoint = \"http://{away}\"");
    std::fs::write(&config, setup.toml()).unwrap();
    let (_process, hooks, admin, log) = serve_with_log(&config);
    until("readiness", async || {
        client.get(format!("http://{admin}/readyz")).send().await.unwrap().status() == 200
    })
    .await;
    let metric = async || {
        let text = client.get(format!("http://{admin}/metrics")).send().await.unwrap().text().await.unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("hookstream_spans_dropped_total{cause=\"export_failed\"}"));
        line.map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
    };
    let mut failed = Vec::new();
    until("two failed exports", async || {
        assert_eq!(deliver(&hooks).await, 200);
        failed.push(metric().await);
        failed.dedup();
        failed.len() > 2
    })
    .await;
    let warnings: Vec<_> = log
        .lock()
        .unwrap()
        .iter()
        .filter(|line| line["level"] == "WARN" && line.to_string().contains("spans"))
        .cloned()
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0]["collector"], format!("http://{away}/v1/traces"));
}
