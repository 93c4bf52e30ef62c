//! Back-pressure: clients can use only bounded resources, and no client can take all of them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hookstream::kafka::embedded::Embedded;
use hookstream::names;
use tokio::io::{AsyncReadExt, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::raw::{head, read_to_end};
use crate::support::{Answer, PATIENCE, Service, Setup, batch, datagrid, on_embedded_with, until};

/// A second source besides that of the set-up, with its topics.
fn beside(source: &str) -> String {
    format!(
        "[source.{source}]\npreset = \"datagrid\"\nsecrets = [{{ env = \"TEST_SECRET\" }}]\n\
         types = [\"batch_prediction.completed\"]\nack_deadline = \"3s\"\n"
    )
}

/// A service with two sources on an in-memory Kafka, and the name of the second source.
async fn two_sources(change: impl FnOnce(&mut Setup)) -> (Service, Embedded, String) {
    let embedded = Embedded::start().unwrap();
    let mut setup = Setup::new("datagrid");
    let other = format!("{}-b", setup.source);
    setup.kafka = embedded.bootstrap_servers();
    setup.rules = String::from("types = [\"batch_prediction.completed\"]\nack_deadline = \"3s\"");
    setup.tables = beside(&other);
    change(&mut setup);
    for source in [&setup.source, &other] {
        embedded.create_topic(&names::topic(source, "batch_prediction.completed"), 3).unwrap();
        embedded.create_topic(&names::dead_letter_topic(source), 3).unwrap();
    }
    (setup.ready().await, embedded, other)
}

async fn post_to(service: &Service, source: &str, id: String) -> Answer {
    let body = batch(&id);
    let request = service
        .client
        .post(format!("http://{}/hooks/{source}", service.hooks()))
        .header("Datagrid-Signature", datagrid(body.as_bytes()))
        .body(body);
    Answer::read(request.send().await.unwrap()).await
}

/// A client with its own address, which declares far more than it sends and then waits.
async fn half_sent(service: &Service, number: usize, bytes: usize) -> TcpStream {
    let path = format!("/hooks/{}", service.source);
    let request = head("POST", &path, &[("content-length", "921600")]) + &" ".repeat(bytes);
    let mut stream = connect_from(&format!("127.0.1.{number}"), service.hooks()).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn the_limit_of_all_bodies_counts_received_bytes_and_not_declared_ones() {
    let few = |setup: &mut Setup| {
        setup.http = "max_body = \"900 KiB\"\nmax_body_bytes = \"920 KiB\"\nbody_timeout = \"3900ms\"".into();
    };
    let (service, _kafka) = on_embedded_with(few).await;
    // Together they declare 18 MiB and send 80 KiB.
    let mut held = Vec::new();
    for number in 1..21 {
        held.push(half_sent(&service, number, 4 * 1024).await);
    }
    service.datagrid_post(batch("evt_below")).await.is(200, "published", None);

    // 880 KiB more, so at least one exceeds the limit and is answered immediately.
    let start = Instant::now();
    for number in 21..32 {
        held.push(half_sent(&service, number, 80 * 1024).await);
    }
    let past = held.split_off(20);
    until("a refusal", async || service.lines().iter().any(|line| line.contains("Overloaded"))).await;
    assert!(start.elapsed() < Duration::from_secs(3), "not before body_timeout");
    let answers = join_all(past.into_iter().map(async |mut stream| read_to_end(&mut stream).await)).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 503 ")).collect();
    assert!((1..11).contains(&refused.len()), "{answers:?}");
    for answer in refused {
        assert!(answer.contains("\"reason\":\"overloaded\""), "{answer}");
        assert!(answer.contains("retry-after: ") && answer.contains("connection: close"), "{answer}");
    }

    // The clients disconnect without a complete body, which frees all memory.
    drop(held);
    until("memory for a large body", async || {
        let large =
            batch("evt_large").replace("completed\",\"res", &format!("{}\",\"res", "x".repeat(880 * 1024)));
        service.datagrid_post(large).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn the_body_of_a_delivery_counts_until_the_delivery_has_ended() {
    let few = |setup: &mut Setup| setup.http = "max_body = \"1 KiB\"\nmax_body_bytes = \"1 KiB\"".into();
    let (service, kafka) = on_embedded_with(few).await;
    kafka.delay(Duration::from_secs(1)).unwrap();
    let fit = 1024 / batch("evt_0").len();
    assert!((1..8).contains(&fit));
    let posts = (0..8).map(|n| service.datagrid_post(batch(&format!("evt_{n}"))));
    let answers = join_all(posts).await;
    let published = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(published, fit, "{answers:?}");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        answer.is(503, "unavailable", Some("overloaded"));
        assert_eq!(answer.headers["connection"], "close");
    }
    kafka.delay(Duration::ZERO).unwrap();
    for n in 0..8 {
        service.datagrid_post(batch(&format!("evt_after_{n}"))).await.is(200, "published", None);
    }
}

pub async fn connect_from(client: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{client}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Whether the server keeps the connection open after its answer to a request.
pub async fn is_served(mut stream: TcpStream) -> Option<TcpStream> {
    // No `connection: close`: the connection stays open after the answer.
    let _ = stream.write_all(b"GET /hooks/x HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let mut answer = [0; 12];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await;
    let served = read.expect("an answer or the end of the connection").is_ok();
    served.then_some(stream)
}

#[tokio::test]
async fn an_address_with_too_many_connections_is_refused_and_others_are_served() {
    let two = |setup: &mut Setup| setup.http = "max_connections_per_address = 2".into();
    let (service, _kafka) = on_embedded_with(two).await;
    let to = service.hooks();
    let first = is_served(connect_from("127.0.0.2", to).await).await.expect("the first");
    let second = is_served(connect_from("127.0.0.2", to).await).await.expect("the second");
    for _ in 0..5 {
        assert!(is_served(connect_from("127.0.0.2", to).await).await.is_none(), "a third connection");
    }
    assert!(is_served(connect_from("127.0.0.3", to).await).await.is_some(), "another address");
    let (_, metrics) = service.admin("/metrics").await;
    assert!(metrics.contains("\nhookstream_connections_refused_total "), "{metrics}");
    // The operator's port has no such bound, and a closed connection makes room.
    drop(first);
    until("a free connection", async || is_served(connect_from("127.0.0.2", to).await).await.is_some()).await;
    drop(second);
}

#[tokio::test]
async fn a_source_with_all_its_slots_in_use_leaves_other_sources_theirs() {
    let four = |setup: &mut Setup| setup.http = "max_in_flight = 4".into();
    let (service, kafka, other) = two_sources(four).await;
    kafka.delay(Duration::from_secs(1)).unwrap();
    let mine = join_all((0..6).map(|n| post_to(&service, &service.source, format!("evt_{n}"))));
    let theirs = async {
        // The first refusal shows that the first source is full.
        until("a refusal", async || service.lines().iter().any(|line| line.contains("Overloaded"))).await;
        post_to(&service, &other, "evt_other".into()).await
    };
    let (mine, theirs) = tokio::join!(mine, theirs);
    let published = mine.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(published, 2, "half of the slots: {mine:?}");
    for answer in mine.iter().filter(|answer| answer.status != 200) {
        answer.is(503, "unavailable", Some("overloaded"));
    }
    theirs.is(200, "published", None);
}

#[tokio::test]
async fn b5_a_source_with_its_share_of_bodies_in_use_leaves_other_sources_theirs() {
    let few = |setup: &mut Setup| setup.http = "max_body = \"1 KiB\"\nmax_body_bytes = \"4 KiB\"".into();
    let (service, kafka, other) = two_sources(few).await;
    kafka.delay(Duration::from_secs(1)).unwrap();
    let fit = 2048 / batch("evt_0").len();
    let mine = join_all((0..fit + 3).map(|n| post_to(&service, &service.source, format!("evt_{n}"))));
    let theirs = async {
        until("a refusal", async || service.lines().iter().any(|line| line.contains("Overloaded"))).await;
        post_to(&service, &other, "evt_other".into()).await
    };
    let (mine, theirs) = tokio::join!(mine, theirs);
    let published = mine.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(published, fit, "half of the bytes: {mine:?}");
    for answer in mine.iter().filter(|answer| answer.status != 200) {
        answer.is(503, "unavailable", Some("overloaded"));
    }
    theirs.is(200, "published", None);
}

#[tokio::test]
async fn a_source_can_have_its_own_number_of_slots() {
    let one = |setup: &mut Setup| setup.rules.push_str("max_in_flight = 1");
    let (service, kafka) = on_embedded_with(one).await;
    kafka.delay(Duration::from_secs(1)).unwrap();
    let answers = join_all((0..3).map(|n| service.datagrid_post(batch(&format!("evt_{n}"))))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1, "{answers:?}");
}

#[tokio::test]
async fn a_source_with_its_share_of_the_spool_in_use_leaves_other_sources_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let four = |setup: &mut Setup| setup.tables.push_str(&spool(dir.path(), "max_rows = 4"));
    let (service, kafka, other) = two_sources(four).await;
    kafka.broker_down().unwrap();
    for n in 0..2 {
        service.datagrid_post(batch(&format!("evt_{n}"))).await.is(202, "spooled", None);
    }
    service.datagrid_post(batch("evt_past")).await.is(503, "unavailable", Some("spool_full"));
    // The limit of dead letters is also per source.
    service.datagrid_post("no json").await.is(503, "unavailable", Some("spool_full"));
    for n in 0..2 {
        post_to(&service, &other, format!("evt_other_{n}")).await.is(202, "spooled", None);
    }
    kafka.broker_up().unwrap();
    until("an empty spool", async || service.app.spool().unwrap().live == 0).await;
}

fn spool(dir: &Path, more: &str) -> String {
    format!("[spool]\ndir = \"{}\"\nmin_free = \"1 MiB\"\n{more}", dir.display())
}
