//! Who calls: the address of the client, by the rule in docs/security.md.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use axum::extract::Request;
use http::{HeaderMap, HeaderName};

use super::failed_auth::{FailedAuthBudget, FailedAuthLimiter, UsedUp};
use crate::config::{Http, Networks};

/// The address at the other end of a request's connection, among its extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Who called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    /// `None` where a trusted proxy told it in a way that cannot be read.
    pub address: Option<IpAddr>,
    /// The other end of the connection.
    pub peer: IpAddr,
}

impl ClientAddress {
    /// The peer; of a trusted proxy, the first address from the right in its header that is not a trusted proxy's, or
    /// the last that there is. Each proxy writes down whom it was called by behind what that one told, so what a
    /// stranger writes stands left of the stranger's own address and is not read. The lines of the header are one list.
    pub fn of(peer: IpAddr, trusted: &Networks, headers: &HeaderMap, header: &HeaderName) -> Self {
        let peer = peer.to_canonical();
        let mut address = peer;
        // Bytes: what a stranger wrote before the last comma need not be text.
        let lines = headers.get_all(header).iter().rev();
        let mut told = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        while trusted.contains(address) {
            let Some(entry) = told.next() else { break };
            match read(entry) {
                Some(read) => address = read,
                None => return Self { address: None, peer },
            }
        }
        Self { address: Some(address), peer }
    }

    /// What limits count it under: what is not known, under its proxy.
    pub fn counted(&self) -> IpAddr {
        self.address.unwrap_or(self.peer)
    }
}

/// What callers are told apart by, and what they may do as such.
#[derive(Debug)]
pub struct ClientResolver {
    trusted: Networks,
    header: HeaderName,
    unverified: FailedAuthLimiter,
}

impl ClientResolver {
    /// As `[http]` says.
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

    /// The header that proxies tell addresses in.
    pub(super) fn header(&self) -> &HeaderName {
        &self.header
    }

    /// Whose request it is.
    pub(super) fn client(&self, request: &Request) -> ClientAddress {
        // `serve` puts it there. Without it nobody is known, and all are counted as one.
        let Some(Peer(peer)) = request.extensions().get() else {
            return ClientAddress { address: None, peer: Ipv4Addr::UNSPECIFIED.into() };
        };
        ClientAddress::of(*peer, &self.trusted, request.headers(), &self.header)
    }

    /// Which budgets its address has used up.
    pub(super) fn used_up(&self, client: &ClientAddress) -> UsedUp {
        self.unverified.used_up(client.counted(), Instant::now())
    }

    /// Counts what did not verify against its address.
    pub(super) fn charge(&self, client: &ClientAddress, budget: FailedAuthBudget, amount: u64) {
        self.unverified.add(client.counted(), budget, amount, Instant::now());
    }
}

/// `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`; a port behind it is passed over, but not behind an IPv6 address
/// without brackets, where nobody could tell it from the address.
fn read(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bare = || text.parse().ok();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().map(|v6: Ipv6Addr| v6.into()).ok();
    // A zone is no part of an address; the standard library reads one only where a port is behind it.
    let with_port =
        || text.parse().map(|socket: SocketAddr| socket.ip()).ok().filter(|_| !text.contains('%'));
    bare().or_else(bracketed).or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests;
