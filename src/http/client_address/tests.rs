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

/// The client address for these header lines.
fn resolved(peer: IpAddr, trusted: &Networks, lines: &[impl AsRef<[u8]>]) -> Option<IpAddr> {
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

/// A test vector of `tests/fixtures/addresses/make.py`.
#[derive(Deserialize)]
struct Vector {
    trusted: Vec<String>,
    peer: IpAddr,
    lines_base64: Vec<String>,
    client: Option<IpAddr>,
}

#[test]
fn the_client_is_the_one_that_pythons_ipaddress_finds() {
    let vectors = include_str!("../../../tests/fixtures/addresses/vectors.jsonl");
    let mut counts = [0; 2];
    for line in vectors.lines() {
        let vector: Vector = serde_json::from_str(line).unwrap();
        let lines: Vec<_> =
            vector.lines_base64.iter().map(|line| BASE64_STANDARD.decode(line).unwrap()).collect();
        let found = resolved(vector.peer, &networks(&vector.trusted), &lines);
        let shown: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(line)).collect();
        assert_eq!(found, vector.client, "{} {shown:?}", vector.peer);
        counts[usize::from(found.is_some())] += 1;
    }
    assert!(counts.iter().all(|count| *count >= 100), "{counts:?}");
}

const PROXIES: [&str; 2] = ["10.0.0.0/8", "2001:db8:aaaa::/48"];

fn proxy() -> impl Strategy<Value = IpAddr> {
    let v6 = |low: u128| IpAddr::V6(((0x2001_0db8_aaaa << 80) | (low >> 48)).into());
    let v4 = |low: u32| IpAddr::from((0x0a00_0000 | (low >> 8)).to_be_bytes());
    prop_oneof![any::<u128>().prop_map(v6), any::<u32>().prop_map(v4)]
}

fn stranger() -> impl Strategy<Value = IpAddr> {
    let proxies = networks(&PROXIES);
    any::<IpAddr>().prop_filter("not a proxy", move |address| !proxies.contains(*address))
}

/// An address as proxies write it: with and without port, brackets and spaces.
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

/// An arbitrary header value.
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

    /// Whatever a client forges, in one header line or several, the proxies' own entries decide.
    #[test]
    fn a_forged_header_changes_nothing(
        forged in vec(anything(), 0..4),
        (stranger, own) in stranger().prop_flat_map(|stranger| (Just(stranger), written(stranger))),
        chain in vec(proxy().prop_flat_map(written), 0..4),
        peer in proxy(),
        joined in any::<bool>(),
    ) {
        let proxies = networks(&PROXIES);
        let appended: Vec<_> = [own].into_iter().chain(chain).collect();
        let appended = appended.join(&b',');
        let mut lines = forged;
        match lines.last_mut() {
            // The first proxy appends to the client's last line, or adds its own.
            Some(last) if joined => {
                last.push(b',');
                last.extend(appended);
            }
            _ => lines.push(appended),
        }
        prop_assert_eq!(resolved(peer, &proxies, &lines), Some(stranger.to_canonical()));
    }

    /// Without a proxy, the client is the peer, whatever the header contains.
    #[test]
    fn a_peer_that_is_not_a_proxy_is_the_client(peer in stranger(), lines in vec(anything(), 0..4)) {
        prop_assert_eq!(resolved(peer, &networks(&PROXIES), &lines), Some(peer.to_canonical()));
        let proxied = resolved("10.0.0.1".parse().unwrap(), &Networks::default(), &lines);
        prop_assert_eq!(proxied, Some("10.0.0.1".parse().unwrap()));
    }
}
