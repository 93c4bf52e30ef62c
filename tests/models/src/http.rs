//! Models of the counters by client address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use loom::thread;

use self::connection_counter::ConnectionCounter;
use self::failed_auth::{FailedAuthBudget, FailedAuthLimiter};

#[path = "../../../src/http/connection_counter.rs"]
mod connection_counter;

#[path = "../../../src/http/failed_auth.rs"]
mod failed_auth;

/// The only item of the module that the counters use.
mod response {
    pub(super) const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(5);
}

pub(crate) fn models() {
    super::model("all unverified deliveries are charged to their network", charges);
    super::model("an address never exceeds its limit of connections", connections);
}

/// A burst of five, one per second.
fn charges() {
    let (unverified, now) = (Arc::new(FailedAuthLimiter::new(Some(1), 1)), Instant::now());
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let threads = [("2001:db8::1", 3), ("2001:db8::2", 2)].map(|(text, count)| {
        let unverified = unverified.clone();
        thread::spawn(move || {
            unverified.add(address(text), FailedAuthBudget::Deliveries, count, now);
            unverified.add(address(text), FailedAuthBudget::Work, 2, now);
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    let used_up = unverified.used_up(address("2001:db8::3"), now);
    assert!(used_up.contains(FailedAuthBudget::Deliveries), "five of five");
    assert!(!used_up.contains(FailedAuthBudget::Work), "four of five");
    unverified.add(address("2001:db8::3"), FailedAuthBudget::Work, 1, now);
    assert!(unverified.used_up(address("2001:db8::3"), now).contains(FailedAuthBudget::Work), "five of five");
    assert!(!unverified.used_up(address("192.0.2.1"), now).contains(FailedAuthBudget::Deliveries), "another address");
}

/// A limit of one connection. A client that connects while another disconnects is either refused or the only one.
fn connections() {
    const MAX: usize = 1;
    let addresses = Arc::new(ConnectionCounter::default());
    let connect = |addresses: &Arc<ConnectionCounter>| {
        let address = IpAddr::from([192, 0, 2, 1]);
        let Some(first) = addresses.count(address, MAX) else { return };
        assert!(addresses.count(address, MAX).is_none(), "two connections with a limit of one");
        assert_eq!(first.open(), 1);
    };
    let other = {
        let addresses = addresses.clone();
        thread::spawn(move || connect(&addresses))
    };
    connect(&addresses);
    other.join().unwrap();
    connect(&addresses);
    assert!(addresses.count([192, 0, 2, 1].into(), MAX).is_some(), "all connections are closed");
}
