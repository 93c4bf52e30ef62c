use std::net::SocketAddrV6;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde::Deserialize;

use super::*;

const HEADER: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What [`client`] makes of these lines.
fn judged(peer: IpAddr, trusted: &Networks, lines: &[impl AsRef<[u8]>]) -> Option<IpAddr> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(HEADER, HeaderValue::from_bytes(line.as_ref()).unwrap());
        headers.append("x-other", HeaderValue::from_static("198.51.100.77"));
    }
    let client = ClientAddress::of(peer, trusted, &headers, &HEADER);
    assert_eq!(client.peer, peer.to_canonical());
    assert_eq!(client.counted(), client.address.unwrap_or(client.peer));
    client.address
}

fn networks(texts: &[impl AsRef<str>]) -> Networks {
    texts.iter().map(|text| text.as_ref().parse().unwrap()).collect()
}

/// One of `tests/fixtures/addresses/make.py`.
#[derive(Deserialize)]
struct Vector {
    trusted: Vec<String>,
    peer: IpAddr,
    lines_base64: Vec<String>,
    client: Option<IpAddr>,
}

#[test]
fn the_client_is_whom_pythons_ipaddress_says() {
    let vectors = include_str!("../../../tests/fixtures/addresses/vectors.jsonl");
    let mut known = [0; 2];
    for line in vectors.lines() {
        let vector: Vector = serde_json::from_str(line).unwrap();
        let lines: Vec<_> =
            vector.lines_base64.iter().map(|line| BASE64_STANDARD.decode(line).unwrap()).collect();
        let found = judged(vector.peer, &networks(&vector.trusted), &lines);
        let shown: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(line)).collect();
        assert_eq!(found, vector.client, "{} {shown:?}", vector.peer);
        known[usize::from(found.is_some())] += 1;
    }
    assert!(known.iter().all(|count| *count >= 100), "{known:?}");
}

const PROXIES: [&str; 2] = ["10.0.0.0/8", "2001:db8:aaaa::/48"];

fn proxy() -> impl Strategy<Value = IpAddr> {
    let v6 = |low: u128| IpAddr::V6(((0x2001_0db8_aaaa << 80) | (low >> 48)).into());
    let v4 = |low: u32| IpAddr::from((0x0a00_0000 | (low >> 8)).to_be_bytes());
    prop_oneof![any::<u128>().prop_map(v6), any::<u32>().prop_map(v4)]
}

fn stranger() -> impl Strategy<Value = IpAddr> {
    let proxies = networks(&PROXIES);
    any::<IpAddr>().prop_filter("no proxy", move |address| !proxies.contains(*address))
}

/// An address as proxies write it: with and without a port, brackets and blanks.
fn written(address: IpAddr) -> impl Strategy<Value = Vec<u8>> {
    let port = match address {
        IpAddr::V4(v4) => format!("{v4}:4711"),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, 4711, 0, 0).to_string(),
    };
    let bracketed = match address {
        IpAddr::V4(v4) => format!("\t{v4} "),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    prop::sample::select(vec![address.to_string(), port, bracketed]).prop_map(String::into_bytes)
}

/// What may stand in a header's value.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let address = any::<IpAddr>().prop_map(|address| address.to_string().into_bytes());
    let byte = any::<u8>().prop_filter("allowed in a value", |b| *b == b'\t' || (*b >= b' ' && *b != 127));
    prop_oneof![address, "[0-9a-f:.,\\[\\] ]{0,40}".prop_map(String::into_bytes), vec(byte, 0..40)]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20261125),
        ..ProptestConfig::default()
    })]

    /// Whatever a stranger writes, in one line or in many, the proxies' own entries decide.
    #[test]
    fn a_stranger_who_writes_the_header_changes_nothing(
        forged in vec(anything(), 0..4),
        (stranger, own) in stranger().prop_flat_map(|stranger| (Just(stranger), written(stranger))),
        chain in vec(proxy().prop_flat_map(written), 0..4),
        peer in proxy(),
        joined in any::<bool>(),
    ) {
        let proxies = networks(&PROXIES);
        let told: Vec<_> = [own].into_iter().chain(chain).collect();
        let told = told.join(&b',');
        let mut lines = forged;
        match lines.last_mut() {
            // The first proxy appends to the stranger's last line, or adds one of its own.
            Some(last) if joined => {
                last.push(b',');
                last.extend(told);
            }
            _ => lines.push(told),
        }
        prop_assert_eq!(judged(peer, &proxies, &lines), Some(stranger.to_canonical()));
    }

    /// Who comes to us without a proxy is who is at the other end, whatever the header says.
    #[test]
    fn a_peer_that_is_no_proxy_is_the_client(peer in stranger(), lines in vec(anything(), 0..4)) {
        prop_assert_eq!(judged(peer, &networks(&PROXIES), &lines), Some(peer.to_canonical()));
        let proxied = judged("10.0.0.1".parse().unwrap(), &Networks::default(), &lines);
        prop_assert_eq!(proxied, Some("10.0.0.1".parse().unwrap()));
    }
}
