//! Limits on the open internet: which addresses may call a source, and how often.

use std::net::IpAddr;

use hookstream::kafka::embedded::Embedded;
use reqwest::Client;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::pressure::{connect_from, is_served};
use crate::support::raw::{head, read_to_end};
use crate::support::{Answer, PATIENCE, Service, Setup, batch, datagrid, on_embedded_with, process, until};
use crate::tls;

/// A provider at another address of this machine.
fn at(address: &str) -> Client {
    let address: IpAddr = address.parse().unwrap();
    Client::builder().local_address(address).timeout(PATIENCE).no_proxy().build().unwrap()
}

async fn post(
    service: &Service,
    client: &Client,
    forwarded: &[&str],
    signature: &str,
    body: String,
) -> Answer {
    let mut request = client.post(service.url()).header("datagrid-signature", signature).body(body);
    for list in forwarded {
        request = request.header("x-forwarded-for", *list);
    }
    Answer::read(request.send().await.unwrap()).await
}

/// A signed delivery from this machine with a proxy's header.
async fn signed(service: &Service, client: &Client, forwarded: &[&str], id: &str) -> Answer {
    let body = batch(id);
    post(service, client, forwarded, &datagrid(body.as_bytes()), body).await
}

async fn forged(service: &Service, client: &Client, forwarded: &[&str]) -> Answer {
    post(service, client, forwarded, "t=1775847600,v1=00", batch("evt_forged")).await
}

/// The entry of one reason in `/status`.
async fn refusal(service: &Service, reason: &str) -> Option<Value> {
    let (_, text) = service.admin("/status").await;
    let status: Value = serde_json::from_str(&text).unwrap();
    let refusals = status["sources"][&service.source]["refusals"].as_array().unwrap();
    refusals.iter().find(|refusal| refusal["reason"] == reason).cloned()
}

async fn service(http: &str, rules: &str) -> (Service, Embedded) {
    on_embedded_with(|setup| {
        setup.http.push_str(http);
        setup.rules.push_str(rules);
    })
    .await
}

fn not_allowed(answer: &Answer) {
    answer.is(403, "refused", Some("address_not_allowed"));
}

#[tokio::test]
async fn only_allowed_addresses_can_call_a_source() {
    let (service, _kafka) = service("", "allow = [\"127.0.0.2\", \"192.0.2.0/24\"]").await;
    signed(&service, &at("127.0.0.2"), &[], "evt_1").await.is(200, "published", None);
    not_allowed(&signed(&service, &at("127.0.0.3"), &[], "evt_2").await);
    // Without a trusted proxy, anyone can set the header.
    not_allowed(&signed(&service, &at("127.0.0.3"), &["192.0.2.1"], "evt_2").await);
    // The first refusal was diagnosed, with advice.
    let hint = refusal(&service, "address_not_allowed").await.unwrap()["hint"].as_str().unwrap().to_owned();
    assert_eq!(hint, "127.0.0.3 is not in `allow`: if it is a proxy, name it in http.trusted_proxies");
    let (_, metrics) = service.admin("/metrics").await;
    let source = &service.source;
    let count = format!(
        "hookstream_deliveries_total{{source=\"{source}\",outcome=\"refused\",reason=\"address_not_allowed\"}} 2\n"
    );
    assert!(metrics.contains(&count), "{metrics}");
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client_and_nobody_else_can() {
    let http = "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n";
    let (service, _kafka) = service(http, "allow = [\"203.0.113.0/24\", \"2001:db8::/32\"]").await;
    let (proxy, stranger) = (at("127.0.0.1"), at("127.0.0.2"));
    let allowed: [&[&str]; 6] = [
        &["203.0.113.9"],
        &["203.0.113.9:4711"],
        &["[2001:db8::9]:4711, 10.1.2.3"],
        &["::ffff:203.0.113.9"],
        &["198.51.100.1, 203.0.113.9"],
        &["no address", "203.0.113.9", "10.1.2.3"],
    ];
    for (n, forwarded) in allowed.iter().enumerate() {
        signed(&service, &proxy, forwarded, &format!("evt_{n}")).await.is(200, "published", None);
    }
    let refused: [&[&str]; 7] = [
        &[],
        &["198.51.100.1"],
        &["203.0.113.9, 198.51.100.1"],
        &["203.0.113.9", "198.51.100.1, 10.1.2.3"],
        &["203.0.113.9, unknown"],
        &["203.0.113.9,"],
        &["10.1.2.3"],
    ];
    for forwarded in refused {
        not_allowed(&signed(&service, &proxy, forwarded, "evt_x").await);
    }
    not_allowed(&signed(&service, &stranger, &["203.0.113.9"], "evt_x").await);
    until("the hint about an unreadable address", async || {
        not_allowed(&signed(&service, &proxy, &["unknown"], "evt_x").await);
        let refusal = refusal(&service, "address_not_allowed").await.unwrap();
        let hint = refusal["hint"].as_str().unwrap();
        hint == "the trusted proxy 127.0.0.1 sent no readable x-forwarded-for; configure it to send its client's address"
    })
    .await;
}

#[tokio::test]
async fn an_ipv4_client_of_an_ipv6_port_is_an_ipv4_client() {
    let listen = |setup: &mut Setup| {
        setup.rules.push_str("allow = [\"127.0.0.2\", \"::ffff:127.0.0.3\"]");
        setup.http.push_str("\nmax_connections_per_address = 1");
        setup.listen = String::from("[::ffff:127.0.0.1]:0");
    };
    let (service, _kafka) = on_embedded_with(listen).await;
    let url = format!("http://127.0.0.1:{}/hooks/{}", service.hooks().port(), service.source);
    for (address, status) in [("127.0.0.2", 200), ("127.0.0.3", 200), ("127.0.0.4", 403)] {
        let body = batch("evt_1");
        let signature = datagrid(body.as_bytes());
        let request = at(address).post(&url).header("datagrid-signature", signature).body(body);
        assert_eq!(request.send().await.unwrap().status(), status, "{address}");
    }
}

/// A client that declares a body but never sends it: an answer that waits for the body is 408.
async fn without_its_body(service: &Service, address: &str) -> String {
    let request = head("POST", &format!("/hooks/{}", service.source), &[("content-length", "1000")]);
    let mut stream = connect_from(address, service.hooks()).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    read_to_end(&mut stream).await
}

#[tokio::test]
async fn an_address_that_is_not_allowed_is_refused_before_the_body_and_gets_no_challenge() {
    let rules = "allow = [\"127.0.0.2\"]\nchallenge = { query = \"hub.challenge\" }";
    let (service, _kafka) = service("body_timeout = \"1s\"", rules).await;
    let refused = without_its_body(&service, "127.0.0.3").await;
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("address_not_allowed"), "{refused}");
    let slow = without_its_body(&service, "127.0.0.2").await;
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
    let challenge = async |address| {
        let url = format!("{}?hub.challenge=1158201444", service.url());
        let answer = at(address).get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(challenge("127.0.0.2").await, (200, "1158201444".into()));
    let (status, text) = challenge("127.0.0.3").await;
    assert!(status == 403 && !text.contains("1158201444"), "{status} {text}");
    // The sender does not learn the allowed methods either.
    let put = at("127.0.0.3").put(service.url()).send().await.unwrap();
    assert_eq!(put.status(), 403);
}

#[tokio::test]
async fn a_reload_changes_the_allowed_addresses() {
    let (service, _kafka) = service("", "allow = [\"127.0.0.2\"]").await;
    let client = at("127.0.0.3");
    not_allowed(&signed(&service, &client, &[], "evt_1").await);
    let text = std::fs::read_to_string(service.file.path()).unwrap();
    std::fs::write(service.file.path(), text.replace("\"127.0.0.2\"", "\"127.0.0.3\"")).unwrap();
    service.app.reload.now().await.unwrap();
    signed(&service, &client, &[], "evt_1").await.is(200, "published", None);
    not_allowed(&signed(&service, &at("127.0.0.2"), &[], "evt_2").await);
}

#[tokio::test]
async fn the_client_address_is_known_over_tls_too() {
    let authority = tls::Authority::new();
    let service = tls::with_tls(&authority, "").await;
    let [own, other] = ["127.0.0.1", "127.0.0.2"]
        .map(|address| authority.client().local_address(address.parse::<IpAddr>().unwrap()).build().unwrap());
    let text = std::fs::read_to_string(service.file.path()).unwrap();
    let rules = "preset = \"datagrid\"\nallow = [\"127.0.0.2\"]";
    std::fs::write(service.file.path(), text.replace("preset = \"datagrid\"", rules)).unwrap();
    service.app.reload.now().await.unwrap();
    tls::deliver(&other, &service, "evt_1").await.0.is(200, "published", None);
    not_allowed(&tls::deliver(&own, &service, "evt_2").await.0);
}

#[tokio::test]
async fn a_source_over_its_rate_must_retry_and_forged_deliveries_do_not_count() {
    let (service, _kafka) = service("", "rate_limit = 1").await;
    for _ in 0..5 {
        assert_eq!(forged(&service, &service.client, &[]).await.status, 401);
    }
    signed(&service, &service.client, &[], "evt_first").await.is(200, "published", None);
    until("a delivery over the rate", async || {
        let answer = signed(&service, &service.client, &[], "evt_past").await;
        if answer.status == 503 {
            answer.is(503, "unavailable", Some("rate_limited"));
            assert_eq!(answer.headers["retry-after"], "5");
        }
        answer.status == 503
    })
    .await;
    until("a delivery within the rate", async || {
        signed(&service, &service.client, &[], "evt_again").await.status == 200
    })
    .await;
    let (_, metrics) = service.admin("/metrics").await;
    assert!(metrics.contains("outcome=\"unavailable\",reason=\"rate_limited\"} "), "{metrics}");
    assert!(
        service.lines().iter().any(|line| line.contains("rate_limit of the source")),
        "{:?}",
        service.lines()
    );
}

/// More deliveries than the burst of an address, whatever it sent before.
async fn flood(service: &Service, client: &Client, forwarded: &[&str]) {
    let answers = (0..8).map(|_| forged(service, client, forwarded));
    for answer in futures_util::future::join_all(answers).await {
        match answer.status {
            401 => answer.is(401, "refused", Some("unauthorized")),
            _ => answer.is(503, "unavailable", Some("address_limited")),
        }
    }
}

#[tokio::test]
async fn only_the_address_with_too_many_unverified_deliveries_must_retry() {
    let (service, _kafka) = service("unverified_rate_per_address = 1\nbody_timeout = \"1s\"", "").await;
    let (flooding, other) = (at("127.0.0.2"), at("127.0.0.3"));
    until("the limit", async || {
        flood(&service, &flooding, &[]).await;
        let answer = signed(&service, &flooding, &[], "evt_shared").await;
        if answer.status != 200 {
            answer.is(503, "unavailable", Some("address_limited"));
        }
        answer.status == 503
    })
    .await;
    until("an answer before the body", async || {
        flood(&service, &flooding, &[]).await;
        let answer = without_its_body(&service, "127.0.0.2").await;
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 5\r\n")
    })
    .await;
    signed(&service, &other, &[], "evt_other").await.is(200, "published", None);
    forged(&service, &other, &[]).await.is(401, "refused", Some("unauthorized"));
    // Verified deliveries do not count: an address that sends nothing else may send any number.
    until("the end of the limit", async || signed(&service, &flooding, &[], "evt_again").await.status == 200)
        .await;
    for n in 0..20 {
        signed(&service, &flooding, &[], &format!("evt_{n}")).await.is(200, "published", None);
    }
    let refusal = refusal(&service, "address_limited").await.unwrap();
    let hint = refusal["hint"].as_str().unwrap();
    assert!(hint.starts_with("127.0.0.2 exceeds unverified_rate_per_address: "), "{hint}");
    let (_, metrics) = service.admin("/metrics").await;
    assert!(metrics.contains("outcome=\"unavailable\",reason=\"address_limited\"} "), "{metrics}");
}

#[tokio::test]
async fn clients_of_a_trusted_proxy_are_limited_individually_and_unreadable_ones_together() {
    let http = "unverified_rate_per_address = 1\ntrusted_proxies = [\"127.0.0.1\"]";
    let (service, _kafka) = service(http, "").await;
    let proxy = at("127.0.0.1");
    let limited = async |forwarded: &[&str], flooding: &[&str]| {
        until("the limit", async || {
            flood(&service, &proxy, flooding).await;
            signed(&service, &proxy, forwarded, "evt_1").await.status == 503
        })
        .await;
    };
    limited(&["203.0.113.1"], &["198.51.100.1, 203.0.113.1"]).await;
    limited(&["2001:db8::1"], &["[2001:db8::ffff]:99"]).await;
    signed(&service, &proxy, &["203.0.113.2"], "evt_2").await.is(200, "published", None);
    signed(&service, &proxy, &["2001:db8:0:1::1"], "evt_3").await.is(200, "published", None);
    limited(&["one"], &["another"]).await;
    limited(&[], &["another"]).await;
}

#[tokio::test]
async fn the_connections_of_a_trusted_proxy_are_not_limited() {
    let http = "max_connections_per_address = 1\ntrusted_proxies = [\"127.0.0.2\"]";
    let (service, _kafka) = service(http, "").await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let stream = is_served(connect_from("127.0.0.2", service.hooks()).await).await;
        held.push(stream.expect("a connection of the proxy"));
    }
    let _first = is_served(connect_from("127.0.0.3", service.hooks()).await).await.expect("the first");
    assert!(
        is_served(connect_from("127.0.0.3", service.hooks()).await).await.is_none(),
        "a second connection"
    );
}

#[tokio::test]
async fn the_log_names_the_client_only_for_refusals() {
    let setup = Setup { http: String::from("trusted_proxies = [\"127.0.0.1\"]"), ..Setup::new("datagrid") };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hookstream.toml");
    std::fs::write(&file, setup.toml()).unwrap();
    let (_program, hooks, _, log) = process::serve_with_log(&file);
    let post = async |signature: &str| {
        let request = at("127.0.0.1").post(format!("http://{hooks}/hooks/{}", setup.source));
        let request =
            request.header("x-forwarded-for", "203.0.113.9").header("datagrid-signature", signature);
        request.body(batch("evt_1")).send().await.unwrap().status().as_u16()
    };
    assert_eq!(post("t=1775847600,v1=00").await, 401);
    until("a published delivery", async || post(&datagrid(batch("evt_1").as_bytes())).await == 200).await;
    let of = |outcome: &str| {
        let log = log.lock().unwrap();
        log.iter().find(|line| line["outcome"] == outcome).cloned()
    };
    until("both log lines", async || of("published").is_some() && of("refused").is_some()).await;
    assert_eq!(of("refused").unwrap()["client"], "203.0.113.9");
    assert!(of("published").unwrap().get("client").is_none(), "{:?}", of("published"));
}
