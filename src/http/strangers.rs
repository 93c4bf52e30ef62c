//! The resources that each client address uses for unverified deliveries.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

use super::connection_counter::network_of;
use crate::quota::Usage;

/// Shares by address. An address that uses nothing has no entry, so the map never exceeds the listener's limit of
/// connections.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<HashMap<IpAddr, (usize, Arc<Share>)>>);

/// The resources that one address uses.
#[derive(Debug)]
pub(super) struct Share {
    /// The bytes of bodies.
    pub(super) bytes: Arc<Usage>,
    /// The slots for costly verifications.
    pub(super) searches: Semaphore,
}

/// An address's share; its entry exists while at least one of these does.
#[derive(Debug)]
pub(super) struct Stranger {
    strangers: Arc<Strangers>,
    address: IpAddr,
    share: Arc<Share>,
}

impl Strangers {
    /// The share of this address.
    pub(super) fn share(self: &Arc<Self>, address: IpAddr) -> Stranger {
        let address = network_of(address);
        let mut open = self.open();
        let new_share = || Share { bytes: Arc::default(), searches: Semaphore::new(max_searches()) };
        let (holders, share) = open.entry(address).or_insert_with(|| (0, Arc::new(new_share())));
        *holders += 1;
        Stranger { strangers: self.clone(), address, share: share.clone() }
    }

    /// The lock is held briefly, never across an await.
    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, (usize, Arc<Share>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The limit of concurrent costly searches of one address.
fn max_searches() -> usize {
    available_parallelism().map_or(1, |cores| cores.get() / 2).max(1)
}

impl std::ops::Deref for Stranger {
    type Target = Share;

    fn deref(&self) -> &Share {
        &self.share
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut open = self.strangers.open();
        if let Some((holders, _)) = open.get_mut(&self.address) {
            *holders -= 1;
            if *holders == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_of_one_address_share_its_entry_and_the_map_ends_empty() {
        let strangers = Arc::new(Strangers::default());
        let share = |address: &str| strangers.share(address.parse().unwrap());
        let (first, second, other) = (share("2001:db8::1"), share("2001:db8::2"), share("192.0.2.1"));
        let bytes = first.bytes.take(10, 10).unwrap();
        assert_eq!((second.bytes.used(), other.bytes.used()), (10, 0));
        drop(first);
        assert_eq!(share("2001:db8::3").bytes.used(), 10, "another holder remains");
        drop((bytes, second, other));
        assert!(strangers.open().is_empty());
    }
}
