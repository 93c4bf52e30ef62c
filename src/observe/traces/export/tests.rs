use std::path::Path;

use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::config::{self, Environment, Overrides};

const TOKEN: &str = "Bearer not-for-the-log";

fn read(sets: &[&str]) -> Result<Option<Collector>, ConfigErrors> {
    let overrides = Overrides {
        file: Some(Path::new("config/hookstream.toml").to_owned()),
        sets: sets.iter().map(ToString::to_string).collect(),
        secrets: config::Secrets::Unread,
        embedded: false,
    };
    let environment = [("TOKEN", TOKEN), ("LINES", "a\nb")].into_iter().collect::<Environment>();
    let loaded = config::load(&overrides, &environment)?;
    let mut problems = loaded.problems();
    let collector = Collector::read(&loaded, &mut problems);
    problems.or(collector)
}

#[test]
fn debug_of_a_collector_shows_no_header_value() {
    let collector = read(&[
        "traces.endpoint=http://127.0.0.1:4318/",
        "traces.headers.Authorization.env=TOKEN",
        "traces.sample=0.25",
    ]);
    let collector = collector.unwrap().unwrap();
    assert_eq!((collector.url.as_str(), collector.sample), ("http://127.0.0.1:4318/v1/traces", 0.25));
    assert_eq!(collector.headers["authorization"], TOKEN);
    let shown =
        format!("{collector:?} {:?}", collector.exporter(LastAnswer::new(Mutex::new(Ok(0)))).unwrap());
    assert!(shown.contains("authorization") && !shown.contains("not-for-the-log"), "{shown}");
    assert!(read(&[]).unwrap().is_none(), "off until there is an endpoint");
}

#[test]
fn a_header_that_cannot_be_sent_is_a_problem_without_its_value() {
    let endpoint = "traces.endpoint=http://127.0.0.1:4318";
    for (set, wanted) in [
        (
            "traces.headers.a b.env=TOKEN",
            "traces.headers.a b: is not a header name; use one such as authorization",
        ),
        (
            "traces.headers.x.env=LINES",
            "traces.headers.x: the secret has characters that a header cannot contain",
        ),
        ("traces.headers.x.env=NONE", "traces.headers.x: the variable NONE is not set; set it"),
    ] {
        let lines = read(&[endpoint, set]).unwrap_err().lines();
        assert!(matches!(&lines[..], [line] if line.ends_with(wanted)), "{lines:?}");
    }
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_spans_without_waiting() {
    let collector = read(&["traces.endpoint=http://127.0.0.1:1"]).unwrap().unwrap();
    let (_stop, stopped) = oneshot::channel();
    // Nothing reads from the queue.
    let (queue, exports) = Exports::new(&collector, &resource(), stopped).unwrap();
    let provider = SdkTracerProvider::builder().with_span_processor(queue).build();
    let tracer = provider.tracer("test");
    for _ in 0..QUEUE + 5 {
        tracer.start("span").end();
    }
    assert_eq!(exports.spans.len(), QUEUE);
    assert_eq!(exports.dropped.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn the_last_spans_are_exported_at_the_stop() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("traces.endpoint=http://{}", listener.local_addr().unwrap());
    let collector = read(&[&endpoint]).unwrap().unwrap();
    let (stop, stopped) = oneshot::channel();
    let (queue, exports) = Exports::new(&collector, &resource(), stopped).unwrap();
    let provider = SdkTracerProvider::builder().with_span_processor(queue).build();
    provider.tracer("test").start("span").end();
    stop.send(()).unwrap();
    let collect = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 21];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(head, *b"POST /v1/traces HTTP/");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    };
    let both = async { tokio::join!(exports.run(), collect) };
    timeout(Duration::from_secs(30), both).await.expect("it is sent, and then it is over");
}
