//! The client's address, by the rules in docs/security.md.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use axum::extract::Request;
use http::{HeaderMap, HeaderName};

use super::failed_auth::{FailedAuthBudget, FailedAuthLimiter, UsedUp};
use crate::config::{Http, Networks};

/// The remote address of a request's connection, stored in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// The addresses of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    /// `None` if a trusted proxy sent it in an unreadable form.
    pub address: Option<IpAddr>,
    /// The remote address of the connection.
    pub peer: IpAddr,
}

impl ClientAddress {
    /// The peer's address. If it is a trusted proxy, the address is the rightmost entry in the proxy's header that is
    /// not a trusted proxy, or else the leftmost entry. Each proxy appends the address of its own client to the header,
    /// so entries forged by a client are left of that client's own address and are not read. Repeated headers form one
    /// list.
    pub fn of(peer: IpAddr, trusted: &Networks, headers: &HeaderMap, header: &HeaderName) -> Self {
        let peer = peer.to_canonical();
        let mut address = peer;
        // Bytes: what a client wrote before the last comma need not be text.
        let lines = headers.get_all(header).iter().rev();
        let mut entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        while trusted.contains(address) {
            let Some(entry) = entries.next() else { break };
            match read(entry) {
                Some(read) => address = read,
                None => return Self { address: None, peer },
            }
        }
        Self { address: Some(address), peer }
    }

    /// The address that limits count: if the client's is unknown, the proxy's.
    pub fn counted(&self) -> IpAddr {
        self.address.unwrap_or(self.peer)
    }
}

/// Identifies clients and limits what they may cost.
#[derive(Debug)]
pub struct ClientResolver {
    trusted: Networks,
    header: HeaderName,
    unverified: FailedAuthLimiter,
}

impl ClientResolver {
    /// Creates a resolver from the settings in `[http]`.
    pub fn new(rules: &Http) -> Self {
        Self {
            trusted: rules.trusted_proxies.clone(),
            header: rules.client_address_header.clone(),
            unverified: FailedAuthLimiter::new(
                rules.unverified_rate_per_address,
                rules.unverified_work_per_address as u64,
            ),
        }
    }

    /// The header in which proxies send addresses.
    pub(super) fn header(&self) -> &HeaderName {
        &self.header
    }

    pub(super) fn client(&self, request: &Request) -> ClientAddress {
        // `serve` sets it. Without it the client is unknown, and all clients count as one.
        let Some(Peer(peer)) = request.extensions().get() else {
            return ClientAddress { address: None, peer: Ipv4Addr::UNSPECIFIED.into() };
        };
        ClientAddress::of(*peer, &self.trusted, request.headers(), &self.header)
    }

    /// The budgets that the client's address has used up.
    pub(super) fn used_up(&self, client: &ClientAddress) -> UsedUp {
        self.unverified.used_up(client.counted(), Instant::now())
    }

    /// Charges a delivery without a valid signature to the client's address.
    pub(super) fn charge(&self, client: &ClientAddress, budget: FailedAuthBudget, amount: u64) {
        self.unverified.add(client.counted(), budget, amount, Instant::now());
    }
}

/// Parses `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`, with an optional port, but without one after an IPv6 address
/// without brackets, where it would be ambiguous.
fn read(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bare = || text.parse().ok();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().map(|v6: Ipv6Addr| v6.into()).ok();
    // A zone is not part of an address; the standard library accepts one only with a port.
    let with_port =
        || text.parse().map(|socket: SocketAddr| socket.ip()).ok().filter(|_| !text.contains('%'));
    bare().or_else(bracketed).or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests;
