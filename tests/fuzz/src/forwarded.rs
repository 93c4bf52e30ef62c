//! The lines of `X-Forwarded-For` -> the client's address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hookstream::config::Networks;
use hookstream::http::{ClientAddress, network_of};
use http::{HeaderMap, HeaderName, HeaderValue};

const HEADER: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The trusted proxies; [`is_trusted`] must agree.
const PROXIES: [&str; 3] = ["10.0.0.0/8", "192.0.2.7/32", "2001:db8:aaaa::/48"];

/// Entries that must have no effect.
const LIES: [&str; 4] = ["203.0.113.9", "10.0.0.1, 203.0.113.9", "unknown, \", [", "2001:db8:aaaa::1,"];

/// The first line is the peer, or a proxy if it is not an address; each further line is a line of the header. The client is
/// the one that a strict parser finds, which reads from the left with its own parsers. Nothing to the left of the client's
/// entry changes it. For limits, a /64 network is one address.
pub fn run(data: &[u8]) {
    let mut lines = data.split(|&byte| byte == b'\n');
    let peer = lines.next().and_then(|line| str::from_utf8(line).ok()?.parse::<IpAddr>().ok());
    let peer = peer.unwrap_or(IpAddr::from([10, 0, 0, 1]));
    let lines: Vec<_> = lines.filter(|line| HeaderValue::from_bytes(line).is_ok()).take(32).collect();
    let trusted: Networks = PROXIES.iter().map(|network| network.parse().unwrap()).collect();
    let ask = |lines: &[&[u8]]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HEADER, HeaderValue::from_bytes(line).unwrap());
        }
        ClientAddress::of(peer, &trusted, &headers, &HEADER)
    };
    let client = ask(&lines);
    assert_eq!(bits(client.peer), bits(peer));
    assert_eq!(client.address.map(bits), strictly(bits(peer), &lines), "{peer} {lines:?}");

    if client.address.is_none_or(|address| !is_trusted(bits(address))) {
        for lie in LIES {
            let mut more = vec![lie.as_bytes()];
            more.extend(&lines);
            assert_eq!(ask(&more), client, "{lie} has an effect");
            let Some((first, rest)) = lines.split_first() else { continue };
            let longer = [lie.as_bytes(), b",", first].concat();
            let more: Vec<_> = std::iter::once(longer.as_slice()).chain(rest.iter().copied()).collect();
            assert_eq!(ask(&more), client, "{lie} has an effect");
        }
    }

    let counted = client.counted();
    let network = |bits: u128| bits >> if is_v4(bits) { 0 } else { 64 };
    for flip in [0, 1, 1 << 63, 1 << 64, 1 << 127] {
        let other = bits(counted) ^ flip;
        let same = network_of(counted) == network_of(Ipv6Addr::from_bits(other).into());
        assert_eq!(same, network(bits(counted)) == network(other), "{counted} {flip:x}");
    }
}

/// The address as IPv6; IPv4 is in `::ffff:0:0/96`.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn is_v4(bits: u128) -> bool {
    bits >> 32 == 0xffff
}

fn is_trusted(address: u128) -> bool {
    let v4 = address as u32;
    (is_v4(address) && (v4 >> 24 == 10 || v4 == u32::from(Ipv4Addr::new(192, 0, 2, 7))))
        || address >> 80 == 0x2001_0db8_aaaa
}

/// The client from all entries in order; `None` if a proxy wrote an entry that is not an address.
fn strictly(peer: u128, lines: &[&[u8]]) -> Option<u128> {
    let entries: Vec<&[u8]> = lines.iter().flat_map(|line| line.split(|&byte| byte == b',')).collect();
    let read: Vec<_> = entries.iter().map(|entry| entry_of(entry)).collect();
    // The last entry, unless it is a trusted proxy.
    match read.iter().rposition(|entry| !entry.is_some_and(is_trusted)) {
        _ if !is_trusted(peer) => Some(peer),
        Some(place) => read[place],
        None => Some(read.first().copied().flatten().unwrap_or(peer)),
    }
}

/// An address between blanks, optionally followed by a port; IPv6 with or without brackets.
fn entry_of(entry: &[u8]) -> Option<u128> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = entry.iter().position(|byte| !is_blank(byte))?;
    let end = entry.iter().rposition(|byte| !is_blank(byte))?;
    let entry = &entry[start..=end];
    if let Some(rest) = entry.strip_prefix(b"[") {
        let end = rest.iter().position(|&byte| byte == b']')?;
        let is_end = rest.len() == end + 1 || is_port(&rest[end + 1..]);
        return v6(&rest[..end]).filter(|_| is_end);
    }
    let colons = entry.iter().filter(|&&byte| byte == b':').count();
    if colons > 1 {
        return v6(entry);
    }
    let end = entry.iter().position(|&byte| byte == b':').unwrap_or(entry.len());
    let is_end = end == entry.len() || is_port(&entry[end..]);
    v4(&entry[..end]).filter(|_| is_end).map(|v4| 0xffff_0000_0000 | u128::from(v4))
}

fn is_port(text: &[u8]) -> bool {
    let Some(digits) = text.strip_prefix(b":") else { return false };
    let value = digits.iter().fold(0_u64, |sum, digit| (sum * 10 + u64::from(digit & 15)).min(1 << 20));
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) && value < 1 << 16
}

/// Four numbers without leading zeros.
fn v4(text: &[u8]) -> Option<u32> {
    let parts: Vec<_> = text.split(|&byte| byte == b'.').collect();
    let mut address = 0;
    for part in &parts {
        let fits = (1..=3).contains(&part.len()) && part.iter().all(u8::is_ascii_digit);
        if !fits || (part.len() > 1 && part[0] == b'0') {
            return None;
        }
        let value = part.iter().fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
        address = address << 8 | u32::from(u8::try_from(value).ok()?);
        if parts.len() != 4 {
            return None;
        }
    }
    Some(address)
}

/// Eight groups, or fewer with one `::` for at least one group; the last two may be an IPv4 address.
fn v6(text: &[u8]) -> Option<u128> {
    let text = str::from_utf8(text).ok()?;
    let mut halves = text.split("::");
    let (head, tail) = (halves.next()?, halves.next());
    if halves.next().is_some() {
        return None;
    }
    let head = groups(head, tail.is_none())?;
    let Some(tail) = tail else {
        return (head.len() == 8).then(|| join(&head));
    };
    let tail = groups(tail, true)?;
    let zeros = 8_usize.checked_sub(head.len() + tail.len()).filter(|zeros| *zeros > 0)?;
    Some(join(&[head, vec![0; zeros], tail].concat()))
}

fn groups(text: &str, may_end_in_v4: bool) -> Option<Vec<u16>> {
    let mut all = Vec::new();
    let parts: Vec<_> = if text.is_empty() { Vec::new() } else { text.split(':').collect() };
    for (place, part) in parts.iter().enumerate() {
        if part.contains('.') {
            let v4 = v4(part.as_bytes()).filter(|_| may_end_in_v4 && place + 1 == parts.len())?;
            all.extend([(v4 >> 16) as u16, v4 as u16]);
        } else {
            let fits = (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            all.push(fits.then(|| u16::from_str_radix(part, 16).ok())??);
        }
    }
    Some(all)
}

fn join(groups: &[u16]) -> u128 {
    groups.iter().fold(0, |address, group| address << 16 | u128::from(*group))
}
