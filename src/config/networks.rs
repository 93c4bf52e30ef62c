//! IP networks: the clients that may call a source, and the trusted proxies.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, header};
use ipnet::{IpNet, Ipv4Net};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::de;

/// A list of networks. Cloning it only increments a reference count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Arc<[IpNet]>);

impl Networks {
    /// Whether one of the networks contains the address. An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) is treated as
    /// the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The networks; IPv4-mapped IPv6 networks are returned as IPv4.
    pub(super) fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.0.iter()
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        Self(networks.into_iter().map(canonical).collect())
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let networks: Vec<Network> = de::list(deserializer)?;
        Ok(networks.into_iter().map(|Network(network)| network).collect())
    }
}

/// `192.0.2.0/24`, or a single address.
struct Network(IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let network = text.parse().or_else(|_| text.parse().map(|address: IpAddr| IpNet::from(address)));
        let Ok(network) = network else {
            return Err(D::Error::custom("expected a network such as \"192.0.2.0/24\", or an address"));
        };
        // 10.0.0.1/8 is usually meant as one host, but would match 16 million.
        if network.trunc() != network {
            let message = "is a network address with host bits set; write the network's first address, or the address alone";
            return Err(D::Error::custom(message));
        }
        Ok(Self(network))
    }
}

fn canonical(network: IpNet) -> IpNet {
    let mapped = || {
        let IpNet::V6(network) = network else { return None };
        let address = network.addr().to_ipv4_mapped()?;
        Ipv4Net::new(address, network.prefix_len().checked_sub(96)?).ok()
    };
    mapped().map_or(network, IpNet::V4)
}

/// The name of the header in which proxies send the client's address.
pub(super) fn header<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderName, D::Error> {
    let text = String::deserialize(deserializer)?;
    match HeaderName::try_from(text.trim()) {
        Ok(header::FORWARDED) => Err(D::Error::custom(
            "the `forwarded` header is not supported; let the proxy set x-forwarded-for",
        )),
        Ok(name) => Ok(name),
        Err(_) => Err(D::Error::custom("expected a header name, such as \"x-forwarded-for\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn an_ipv4_address_is_the_same_in_both_spellings_and_no_other_family_matches() {
        let mapped = networks(&["::ffff:192.0.2.0/120", "2001:db8::/32"]);
        assert_eq!(mapped, networks(&["192.0.2.0/24", "2001:db8::/32"]));
        let rows = [
            ("192.0.2.255", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.3.0", false),
            ("::192.0.2.1", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
        ];
        for (address, inside) in rows {
            assert_eq!(mapped.contains(address.parse().unwrap()), inside, "{address}");
        }
        let (v4, v6) = (networks(&["0.0.0.0/0"]), networks(&["::/0"]));
        let both = |address: &str| {
            let address = address.parse().unwrap();
            (v4.contains(address), v6.contains(address))
        };
        assert_eq!((both("::ffff:192.0.2.1"), both("::1")), ((true, false), (false, true)));
        assert!(!Networks::default().contains("127.0.0.1".parse().unwrap()));
    }
}
