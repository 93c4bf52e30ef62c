//! Request framing: ambiguous requests are refused, and a client that has sent everything gets an answer.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::raw::{self, read_to_end};
use crate::support::{Service, batch, datagrid, kafka, on_embedded_with, until};

/// A signed request whose head the test writes; `{signature}` and `{length}` are filled in.
fn request(service: &Service, id: &str, head: &str, body: &str) -> String {
    let signed = batch(id);
    let head = head.replace("{path}", &format!("/hooks/{}", service.source));
    let head = head.replace("{signature}", &datagrid(signed.as_bytes()));
    head.replace("{length}", &signed.len().to_string()) + &body.replace("{body}", &signed)
}

/// The body in one chunk, with this text between its size and the line end.
fn chunked(id: &str, end: &str) -> String {
    let body = batch(id);
    format!("{:x}{end}{body}\r\n0\r\n\r\n", body.len())
}

const GOOD: &str = "POST {path} HTTP/1.1\r\nHost: test\r\nDatagrid-Signature: {signature}\r\nContent-Length: {length}\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c7_ambiguous_framing_is_answered_400_and_closed_and_nothing_is_published() {
    let (service, embedded) = on_embedded_with(|_| {}).await;
    let with_coding = |coding: &str| GOOD.replace("Content-Length: {length}", coding);
    let rows = [
        ("no host", GOOD.replace("Host: test\r\n", ""), "{body}".to_owned()),
        ("two hosts", GOOD.replace("Host: test", "Host: test\r\nHost: test"), "{body}".to_owned()),
        ("two hosts, another case", GOOD.replace("Host: test", "host: a\r\nHOST: b"), "{body}".to_owned()),
        ("a host with a space", GOOD.replace("Host: test", "Host: te st"), "{body}".to_owned()),
        ("a host with a user", GOOD.replace("Host: test", "Host: a@test"), "{body}".to_owned()),
        ("bare LF after the request line", GOOD.replace("HTTP/1.1\r\n", "HTTP/1.1\n"), "{body}".to_owned()),
        ("bare LF after a header", GOOD.replace("Host: test\r\n", "Host: test\n"), "{body}".to_owned()),
        ("bare LF at the end", GOOD.replace("{length}\r\n\r\n", "{length}\r\n\n"), "{body}".to_owned()),
        ("bare LFs only", GOOD.replace("\r\n", "\n"), "{body}".to_owned()),
        ("bare LF before the request", format!("\n{GOOD}"), "{body}".to_owned()),
        ("chunked twice", with_coding("Transfer-Encoding: chunked, chunked"), chunked("evt_bad", "\r\n")),
        (
            "chunked in two headers",
            with_coding("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            chunked("evt_bad", "\r\n"),
        ),
        ("gzip, chunked", with_coding("Transfer-Encoding: gzip, chunked"), chunked("evt_bad", "\r\n")),
        ("gzip", with_coding("Transfer-Encoding: gzip"), chunked("evt_bad", "\r\n")),
        ("chunked, gzip", with_coding("Transfer-Encoding: chunked, gzip"), chunked("evt_bad", "\r\n")),
        ("bare LF after a chunk's size", with_coding("Transfer-Encoding: chunked"), chunked("evt_bad", "\n")),
        (
            "bare LF in a chunk's extension",
            with_coding("Transfer-Encoding: chunked"),
            chunked("evt_bad", ";a\nb\r\n"),
        ),
        (
            "two lengths",
            GOOD.replace("Content-Length: {length}", "Content-Length: 5\r\nContent-Length: {length}"),
            "{body}".to_owned(),
        ),
        ("a folded header", GOOD.replace("Host: test", "Host: test\r\n folded"), "{body}".to_owned()),
        ("a space before a colon", GOOD.replace("Host: test", "Host : test"), "{body}".to_owned()),
    ];
    for (what, head, body) in rows {
        let bytes = request(&service, "evt_bad", &head, &body);
        // The bytes after it must not be parsed as a request, sent at once or in pieces.
        let behind = request(&service, "evt_behind", GOOD, "{body}");
        for piece in [usize::MAX, 7] {
            let mut stream = raw::open(service.hooks(), b"").await;
            let all = format!("{bytes}{behind}");
            for piece in all.as_bytes().chunks(piece.min(all.len())) {
                if stream.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let answer = read_to_end(&mut stream).await;
            // A reset may overtake the answer if many bytes were left unread.
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
            assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{what}: {answer}");
        }
        let answer = raw::exchange(service.hooks(), bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{what}: {answer}");
    }
    let lines = service.lines();
    assert!(!lines.iter().any(|line| line.starts_with("200 ")), "{lines:?}");
    let topic = service.topic("batch_prediction.completed");
    let bootstrap = embedded.bootstrap_servers();
    let found = tokio::task::spawn_blocking(move || kafka::read(&bootstrap, &topic)).await.unwrap();
    assert!(found.is_empty(), "{found:?}");
    let (_, metrics) = service.admin("/metrics").await;
    assert!(metrics.contains("\nhookstream_requests_malformed_total "), "{metrics}");
}

#[tokio::test]
async fn c7_framing_that_rfc_9112_allows_is_accepted() {
    let (service, _kafka) = on_embedded_with(|_| {}).await;
    let with_coding = |coding: &str| GOOD.replace("Content-Length: {length}", coding);
    let rows = [
        ("as it is", GOOD.to_owned(), "{body}".to_owned()),
        ("an empty line before", format!("\r\n{GOOD}"), "{body}".to_owned()),
        (
            "HTTP/1.0 without a host",
            GOOD.replace("HTTP/1.1", "HTTP/1.0").replace("Host: test\r\n", ""),
            "{body}".to_owned(),
        ),
        ("an empty host", GOOD.replace("Host: test", "Host:"), "{body}".to_owned()),
        ("an address", GOOD.replace("Host: test", "Host: [::1]:8080"), "{body}".to_owned()),
        ("chunked", with_coding("Transfer-Encoding: Chunked"), chunked("evt_1", "\r\n")),
        ("a chunk's extension", with_coding("transfer-encoding: chunked"), chunked("evt_1", ";a=b\r\n")),
        (
            "a trailer",
            with_coding("transfer-encoding: chunked"),
            chunked("evt_1", "\r\n").replace("0\r\n\r\n", "0\r\nA: b\r\n\r\n"),
        ),
        ("a body with bare LFs", with_coding("transfer-encoding: chunked"), chunked("evt_1", "\r\n")),
    ];
    for (what, head, body) in rows {
        let head = head.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let bytes = request(&service, "evt_1", &head, &body);
        for piece in [bytes.len(), 1, 5] {
            let mut stream = raw::open(service.hooks(), b"").await;
            for piece in bytes.as_bytes().chunks(piece) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let answer = read_to_end(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 OK\r\n"), "{what}: {answer}");
        }
    }
    // Several requests on one connection, in one write.
    let both = request(&service, "evt_2", GOOD, "{body}")
        + &chunked_request(&service)
        + &request(&service, "evt_4", &GOOD.replace("Host", "Connection: close\r\nHost"), "{body}");
    let answer = raw::exchange(service.hooks(), both.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 3, "{answer}");
}

fn chunked_request(service: &Service) -> String {
    let head = GOOD.replace("Content-Length: {length}", "Transfer-Encoding: chunked");
    request(service, "evt_3", &head, &chunked("evt_3", "\r\n"))
}

/// Sends everything, closes the sending side, and reads the answer.
async fn half_closed(service: &Service, bytes: &str) -> String {
    let mut stream = TcpStream::connect(service.hooks()).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    read_to_end(&mut stream).await
}

#[tokio::test]
async fn w13_an_idle_connection_outlives_head_timeout_and_a_late_head_does_not() {
    let http = "head_timeout = \"300ms\"\nidle_timeout = \"60s\"";
    let (service, _kafka) = on_embedded_with(|setup| setup.http = http.into()).await;
    let mut stream = raw::open(service.hooks(), request(&service, "evt_1", GOOD, "{body}").as_bytes()).await;
    assert!(raw::read_answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
    // Longer than `head_timeout`; only time can show that it does not apply.
    tokio::time::sleep(Duration::from_millis(900)).await;
    stream.write_all(request(&service, "evt_2", GOOD, "{body}").as_bytes()).await.unwrap();
    assert!(raw::read_answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
    stream.write_all(b"POST /hooks/x HTTP/1.1\r\n").await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, "");

    let http = "head_timeout = \"60s\"\nidle_timeout = \"300ms\"";
    let (service, _kafka) = on_embedded_with(|setup| setup.http = http.into()).await;
    let mut stream = raw::open(service.hooks(), request(&service, "evt_1", GOOD, "{body}").as_bytes()).await;
    assert!(raw::read_answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(read_to_end(&mut stream).await, "", "an idle connection must end");
}

#[tokio::test]
async fn w11_what_is_not_http_is_counted_by_cause() {
    let http = "head_timeout = \"300ms\"\nmax_head = \"8 KiB\"";
    let (service, _kafka) = on_embedded_with(|setup| setup.http = http.into()).await;
    let large = format!("GET / HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "x".repeat(10_000));
    let lines: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    let lines = format!("GET / HTTP/1.1\r\n{lines}\r\n");
    for (cause, bytes, answer) in [
        ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".as_slice(), "HTTP/1.1 400 "),
        ("proxy_protocol", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        ("proxy_protocol", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\r\n\r\n", "HTTP/1.1 400 "),
        ("http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        ("malformed", b"GET / HTTP/1.1\r\nContent-Length: 30, 30\r\n\r\n", "HTTP/1.1 400 "),
        ("malformed", b"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        ("head_too_large", large.as_bytes(), "HTTP/1.1 431 "),
        ("head_too_large", lines.as_bytes(), "HTTP/1.1 431 "),
        ("head_timeout", b"GET / HTTP/1.1\r\nhost:", ""),
        // The head of a connection's first request has its time from the start, whatever comes before it.
        ("head_timeout", b"\r\n", ""),
        ("head_timeout", b"\r", ""),
        ("head_timeout", b"POST / HTTP/1.1\nhost", ""),
    ] {
        let name = format!("hookstream_connections_rejected_total{{port=\"http\",cause=\"{cause}\"}}");
        let before = service.metric(&name).await.unwrap_or_default();
        let answered = raw::exchange(service.hooks(), bytes).await;
        assert!(answered.starts_with(answer), "{cause}: {answered}");
        until(cause, async || service.metric(&name).await.unwrap_or_default() >= before + 1.0).await;
    }
    let name = "hookstream_connections_rejected_total{port=\"http\",cause=\"incomplete\"}";
    half_closed(&service, "GET / HTTP/1.1\r\nho").await;
    until("the counted disconnect", async || service.metric(name).await.unwrap_or_default() >= 1.0).await;
}

#[tokio::test]
async fn c3_a_half_closed_client_gets_its_answer_and_its_connection_ends() {
    let (service, kafka) = on_embedded_with(|setup| setup.http = "head_timeout = \"60s\"".into()).await;
    // So that the server sees the end before it answers.
    kafka.delay(Duration::from_millis(300)).unwrap();
    let answer = half_closed(&service, &request(&service, "evt_1", GOOD, "{body}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    let answer = half_closed(&service, &chunked_request(&service)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    kafka.delay(Duration::ZERO).unwrap();
    // Half of a head or of a body is not a request, and the server closes the connection without waiting for the rest.
    let whole = request(&service, "evt_2", GOOD, "{body}");
    for part in [whole.len() - 1, whole.find("\r\n\r\n").unwrap(), 1, 0] {
        let answer = half_closed(&service, &whole[..part]).await;
        assert!(!answer.contains("HTTP/1.1 200 "), "{answer:?}");
    }
}
