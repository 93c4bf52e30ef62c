//! Counts the open connections of each client address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, PoisonError};

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// Open connections by address. An address without connections has no entry, so the map never exceeds the listener's
/// limit of connections.
#[derive(Debug, Default)]
pub(super) struct ConnectionCounter(Mutex<HashMap<IpAddr, Arc<AtomicUsize>>>);

/// One counted connection, until dropped.
#[derive(Debug)]
pub(super) struct Counted {
    counter: Arc<ConnectionCounter>,
    address: IpAddr,
    open: Arc<AtomicUsize>,
}

impl ConnectionCounter {
    /// Counts one more connection; `None` if the address has `max` connections already.
    pub(super) fn count(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<Counted> {
        let address = network_of(address);
        let mut all = self.open();
        let open = all.entry(address).or_default().clone();
        // Written only under the lock, but read without it.
        if open.load(Ordering::Relaxed) >= max {
            return None;
        }
        open.fetch_add(1, Ordering::Relaxed);
        drop(all);
        Some(Counted { counter: self.clone(), address, open })
    }

    /// The lock is held briefly, never across an await.
    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, Arc<AtomicUsize>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// The number of open connections of this address.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.counter.open();
        if self.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            all.remove(&self.address);
        }
    }
}

/// The unit that limits count: an IPv6 client usually has a 64-bit network, so the whole network counts as one.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_at_its_limit_is_refused_others_are_not_and_the_map_ends_empty() {
        let addresses = Arc::new(ConnectionCounter::default());
        let count = |address: &str| addresses.count(address.parse().unwrap(), 2);
        let held = (count("192.0.2.1").unwrap(), count("::ffff:192.0.2.1").unwrap());
        assert!(count("192.0.2.1").is_none());
        let other = count("192.0.2.2").unwrap();
        drop(held.0);
        let again = count("192.0.2.1").unwrap();
        let network = (count("2001:db8::1").unwrap(), count("2001:db8::2").unwrap());
        assert!(count("2001:db8::3").is_none(), "one network");
        assert!(count("2001:db8:0:1::1").is_some(), "another");
        drop((held.1, other, again, network));
        assert!(addresses.open().is_empty());
    }
}
