//! How many connections each client address has open.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, PoisonError};

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// Open connections by address. An address without one has no entry, so the map is no larger than
/// the listener's bound of connections.
#[derive(Debug, Default)]
pub(super) struct ConnectionCounter(Mutex<HashMap<IpAddr, Arc<AtomicUsize>>>);

/// One connection of an address, until dropped.
#[derive(Debug)]
pub(super) struct Counted {
    of: Arc<ConnectionCounter>,
    address: IpAddr,
    open: Arc<AtomicUsize>,
}

impl ConnectionCounter {
    /// Counts one more; `None` where the address has `most` open already.
    pub(super) fn count(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Counted> {
        let address = network_of(address);
        let mut all = self.open();
        let open = all.entry(address).or_default().clone();
        // Changed under the lock alone; read without it.
        if open.load(Ordering::Relaxed) >= most {
            return None;
        }
        open.fetch_add(1, Ordering::Relaxed);
        drop(all);
        Some(Counted { of: self.clone(), address, open })
    }

    /// Held for a moment only, never across an await.
    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, Arc<AtomicUsize>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// How many its address has open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.of.open();
        if self.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            all.remove(&self.address);
        }
    }
}

/// An IPv6 client commonly has a network of 64 bits to itself: that network counts as one.
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
    fn an_address_at_its_bound_is_refused_others_are_not_and_nothing_is_left_in_the_end() {
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
