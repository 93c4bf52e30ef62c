//! The counters of addresses.

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

/// The rest of it is HTTP.
mod response {
    pub(super) const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(5);
}

pub(crate) fn models() {
    super::model("what did not verify is charged to its network, all of it", charges);
    super::model("an address has no more connections open than it may", connections);
}

/// Five at once, one a second.
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
    assert!(!unverified.used_up(address("192.0.2.1"), now).contains(FailedAuthBudget::Deliveries), "another");
}

/// One for each address. Who comes while another goes finds its place taken or free, and nobody else's count.
fn connections() {
    const MOST: usize = 1;
    let addresses = Arc::new(ConnectionCounter::default());
    let come = |addresses: &Arc<ConnectionCounter>| {
        let address = IpAddr::from([192, 0, 2, 1]);
        let Some(first) = addresses.count(address, MOST) else { return };
        assert!(addresses.count(address, MOST).is_none(), "two of one");
        assert_eq!(first.open(), 1);
    };
    let other = {
        let addresses = addresses.clone();
        thread::spawn(move || come(&addresses))
    };
    come(&addresses);
    other.join().unwrap();
    come(&addresses);
    assert!(addresses.count([192, 0, 2, 1].into(), MOST).is_some(), "all are gone");
}
