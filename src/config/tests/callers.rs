//! Settings that judge callers by their address.

use std::net::IpAddr;

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn networks_come_from_lists_and_from_variables_and_an_address_alone_is_one() {
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
fn a_network_that_cannot_be_meant_is_a_problem() {
    let rows = [
        (
            "[http]\ntrusted_proxies = ['10.0.0.1/8']",
            "2: http.trusted_proxies.0: names an address within its network; write the network's first address, or the address alone",
        ),
        (
            "[http]\ntrusted_proxies = ['10.0.0.1', 'hunter2-do-not-repeat']",
            "2: http.trusted_proxies.1: expected a network such as \"192.0.2.0/24\", or an address",
        ),
        (
            "[http]\ntrusted_proxies = true",
            "2: http.trusted_proxies: expected a list, or text with commas, found true or false",
        ),
        (
            "[http]\nclient_address_header = 'hunter2 do not'",
            "2: http.client_address_header: expected the name of a header, such as \"x-forwarded-for\"",
        ),
        (
            "[http]\nclient_address_header = 'Forwarded'",
            "2: http.client_address_header: `forwarded` is written in a way of its own, which is not read; let the proxy set x-forwarded-for",
        ),
        (
            "[http]\nunverified_rate_per_address = 0",
            "2: http.unverified_rate_per_address: expected 1 to 1000000 per second; without it there is no such bound",
        ),
        (
            "[source.datagrid]\nrate_limit = 0",
            "2: source.datagrid.rate_limit: expected 1 to 1000000 per second; without it there is no such bound",
        ),
        (
            "[source.datagrid]\nallow = []",
            "2: source.datagrid.allow: is empty: nobody could call; name networks, or leave it out for anybody",
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
fn lists_that_do_not_do_what_they_look_like_are_told() {
    const OPEN: &str = "[http]\nlisten = '0.0.0.0:8080'\n";
    let allow = |list: &str| format!("[source.datagrid]\nallow = {list}\n");
    let rows = [
        (OPEN.to_owned() + &allow("['192.0.2.0/24']"), None),
        (OPEN.to_owned() + "unverified_rate_per_address = 5", None),
        (
            OPEN.to_owned() + "trusted_proxies = ['::/0']",
            Some("http.trusted_proxies holds ::/0: who reaches the port may claim any address"),
        ),
        (
            OPEN.to_owned() + &allow("['0.0.0.0/0']"),
            Some("source datagrid: allow holds 0.0.0.0/0, every address of its kind"),
        ),
        (
            OPEN.to_owned() + &allow("['192.0.2.1', '239.1.0.0/16']"),
            Some("source datagrid: allow holds 239.1.0.0/16, which is no caller's address"),
        ),
        (allow("['127.0.0.0/8']"), None),
        (
            allow("['192.0.2.0/24']"),
            Some(
                "source datagrid: all callers of http.listen have the address 127.0.0.1, which is not in allow",
            ),
        ),
        (String::from("[http]\ntrusted_proxies = ['127.0.0.1']\n") + &allow("['192.0.2.0/24']"), None),
        (
            String::from("[http]\nunverified_rate_per_address = 5"),
            Some("http.unverified_rate_per_address: all callers of http.listen have the address 127.0.0.1"),
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
