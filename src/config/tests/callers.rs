//! Settings that depend on the client's address.

use std::net::IpAddr;

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn networks_are_read_from_lists_and_variables_and_may_be_single_addresses() {
    let vars = [
        ("HOOKSTREAM_HTTP__TRUSTED_PROXIES", "10.0.0.0/8, ::ffff:192.0.2.7"),
        ("HOOKSTREAM_HTTP__CLIENT_ADDRESS_HEADER", "CF-Connecting-IP"),
        ("HOOKSTREAM_HTTP__UNVERIFIED_RATE_PER_ADDRESS", "5"),
        ("HOOKSTREAM_SOURCE__DATAGRID__RATE_LIMIT", "500"),
    ];
    let toml = "[source.datagrid]\nallow = ['192.0.2.0/24', '2001:db8::1', '127.0.0.1']\n";
    let config = load_toml(toml, &vars, &[]).unwrap().config;
    let (http, datagrid) = (&config.http, &config.source["datagrid"]);
    let trusted =
        ["10.255.0.1", "192.0.2.7", "192.0.2.8"].map(|text| http.trusted_proxies.contains(address(text)));
    assert_eq!(trusted, [true, true, false]);
    assert_eq!(http.client_address_header, "cf-connecting-ip");
    assert_eq!((http.unverified_rate_per_address, datagrid.rate_limit), (Some(5), Some(500)));
    let allow = datagrid.allow.as_ref().unwrap();
    let allowed = ["192.0.2.255", "2001:db8::1", "2001:db8::2"].map(|text| allow.contains(address(text)));
    assert_eq!(allowed, [true, true, false]);

    let config = load_toml("", &[], &[]).unwrap().config;
    assert!(config.http.trusted_proxies.is_empty() && config.http.unverified_rate_per_address.is_none());
    assert_eq!(config.http.client_address_header, "x-forwarded-for");
    let datagrid = &config.source["datagrid"];
    assert!(datagrid.allow.is_none() && datagrid.rate_limit.is_none());
}

#[test]
fn an_implausible_network_is_a_problem() {
    let rows = [
        (
            "[http]\ntrusted_proxies = ['10.0.0.1/8']",
            "2: http.trusted_proxies.0: is a network address with host bits set; write the network's first address, or the address alone",
        ),
        (
            "[http]\ntrusted_proxies = ['10.0.0.1', 'hunter2-do-not-repeat']",
            "2: http.trusted_proxies.1: expected a network such as \"192.0.2.0/24\", or an address",
        ),
        (
            "[http]\ntrusted_proxies = true",
            "2: http.trusted_proxies: expected a list, or comma-separated text, found true or false",
        ),
        (
            "[http]\nclient_address_header = 'hunter2 do not'",
            "2: http.client_address_header: expected a header name, such as \"x-forwarded-for\"",
        ),
        (
            "[http]\nclient_address_header = 'Forwarded'",
            "2: http.client_address_header: the `forwarded` header is not supported; let the proxy set x-forwarded-for",
        ),
        (
            "[http]\nunverified_rate_per_address = 0",
            "2: http.unverified_rate_per_address: expected 1 to 1000000 per second; without the setting there is no limit",
        ),
        (
            "[source.datagrid]\nrate_limit = 0",
            "2: source.datagrid.rate_limit: expected 1 to 1000000 per second; without the setting there is no limit",
        ),
        (
            "[source.datagrid]\nallow = []",
            "2: source.datagrid.allow: is empty, so no client could call; list networks, or remove it to accept any client",
        ),
        (
            "[source.datagrid]\nallow = ['192.0.2.0/33']",
            "2: source.datagrid.allow.0: expected a network such as \"192.0.2.0/24\", or an address",
        ),
    ];
    for (toml, expected) in rows {
        assert_eq!(line(toml, &[], &[]), format!("hookstream.toml:{expected}"));
    }
}

#[test]
fn address_lists_without_the_expected_effect_get_a_warning() {
    const OPEN: &str = "[http]\nlisten = '0.0.0.0:8080'\n";
    let allow = |list: &str| format!("[source.datagrid]\nallow = {list}\n");
    let rows = [
        (OPEN.to_owned() + &allow("['192.0.2.0/24']"), None),
        (OPEN.to_owned() + "unverified_rate_per_address = 5", None),
        (
            OPEN.to_owned() + "trusted_proxies = ['::/0']",
            Some("http.trusted_proxies contains ::/0: any client can claim any address"),
        ),
        (
            OPEN.to_owned() + &allow("['0.0.0.0/0']"),
            Some("source datagrid: allow contains 0.0.0.0/0, every address of its family"),
        ),
        (
            OPEN.to_owned() + &allow("['192.0.2.1', '239.1.0.0/16']"),
            Some("source datagrid: allow contains 239.1.0.0/16, which no client can have"),
        ),
        (allow("['127.0.0.0/8']"), None),
        (
            allow("['192.0.2.0/24']"),
            Some(
                "source datagrid: all clients of http.listen have the address 127.0.0.1, which is not in allow",
            ),
        ),
        (String::from("[http]\ntrusted_proxies = ['127.0.0.1']\n") + &allow("['192.0.2.0/24']"), None),
        (
            String::from("[http]\nunverified_rate_per_address = 5"),
            Some("http.unverified_rate_per_address: all clients of http.listen have the address 127.0.0.1"),
        ),
        (String::from("[http]\nunverified_rate_per_address = 5\ntrusted_proxies = ['127.0.0.1']"), None),
    ];
    for (toml, expected) in rows {
        let warnings = load_toml(&toml, &[], &[]).unwrap().warnings;
        assert_eq!(warnings.len(), usize::from(expected.is_some()), "{toml}\n{warnings:?}");
        if let (Some(warning), Some(expected)) = (warnings.first(), expected) {
            assert!(warning.starts_with(expected), "{warning}");
        }
    }
}
