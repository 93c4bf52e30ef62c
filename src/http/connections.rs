//! The connections of a port: a bounded table of what each is doing, and who has to go when it is full.
//!
//! A connection waits for a head (a TLS handshake counts as that), receives a body, or has a delivery in flight, from the
//! complete body to the answer. One with a delivery in flight is never closed for another's sake: that delivery may
//! become durable, and its sender would not be told. Of the others go first those on which nothing has verified yet, of
//! these the ones of the address that has most, of these the one that has waited longest.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connection_counter::{ConnectionCounter, Counted};
use super::serve::ConnectionLimits;
use crate::observe::metrics::{self, Closed};

/// Of the unverified, one look at the table finds so many at most: a look costs about a millisecond where there are
/// 10,000, and a crowd comes faster than that.
const AT_ONCE: usize = 64;

/// Until the next look, where all that could go went and there is still no place: a delivery has to end.
const AGAIN: Duration = Duration::from_millis(20);

/// Who is alone at an address has so long to begin: else those who come in crowds would leave nobody the time.
const GRACE: Duration = Duration::from_millis(50);

/// For so long after somebody had to go, the port counts as full: a state that a probe can see.
const FULL_FOR: Duration = Duration::from_secs(10);

/// How long a connection may serve: past either, its next answer is the last. Each connection has its own bounds, up to a
/// quarter below these, so that those that were opened together do not end together.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// Since it was accepted.
    pub age: Duration,
    /// Answers.
    pub requests: u32,
}

impl Default for Lifetime {
    fn default() -> Self {
        Self { age: Duration::from_secs(600), requests: 10_000 }
    }
}

/// All connections of a port.
#[derive(Debug)]
pub struct Connections {
    pub(super) limits: ConnectionLimits,
    lifetime: Lifetime,
    port: &'static str,
    places: Arc<Semaphore>,
    addresses: Arc<ConnectionCounter>,
    open: Mutex<ConnectionTable>,
    /// What times are counted from.
    start: Instant,
    /// When somebody had to go, or nobody could; 0 for never.
    full_at: AtomicU64,
}

#[derive(Debug, Default)]
struct ConnectionTable {
    next: u64,
    connections: HashMap<u64, Arc<ConnectionEntry>>,
}

/// What a port's connections do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// All of them.
    pub open: usize,
    /// Those between two requests, or before the first.
    pub idle: usize,
    /// Whether there is, or was within seconds, no place for a new one.
    pub full: bool,
}

/// One connection, as the table has it.
#[derive(Debug)]
pub(super) struct ConnectionEntry {
    /// [`Doing`] in the lowest two bits; above them since when, in milliseconds. In one, so that it is closed as what it
    /// was seen to be, or not at all.
    doing: AtomicU64,
    verified: AtomicBool,
    requests: AtomicU32,
    last_request: u32,
    ends: Duration,
    start: Instant,
    address: Counted,
    /// Whether its address is a trusted proxy's, and so many clients'.
    is_proxy: bool,
    /// In which of its requests something is wrong that hyper does not see, from 1; 0 for none.
    malformed: AtomicU32,
    pub(super) evicted: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Doing {
    Waiting,
    Receiving,
    InFlight,
    Evicted,
}

impl Doing {
    fn since(self, time: Duration) -> u64 {
        (time.as_millis() as u64) << 2 | self as u64
    }

    fn of(packed: u64) -> Self {
        match packed & 3 {
            0 => Self::Waiting,
            1 => Self::Receiving,
            2 => Self::InFlight,
            _ => Self::Evicted,
        }
    }
}

/// A place among a port's connections, until dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    of: Arc<Connections>,
    key: u64,
    pub(super) connection: Arc<ConnectionEntry>,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    /// None yet. `port` is the metrics' label.
    pub fn new(port: &'static str, limits: ConnectionLimits, lifetime: Lifetime) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(limits.max_connections)),
            limits,
            lifetime,
            port,
            addresses: Arc::default(),
            open: Mutex::default(),
            start: Instant::now(),
            full_at: AtomicU64::new(0),
        })
    }

    /// How many there are, and what they do.
    pub fn load(&self) -> Load {
        let table = self.table();
        let open = table.connections.len();
        let idle = table.connections.values().filter(|connection| connection.is_idle()).count();
        drop(table);
        let full_at = self.full_at.load(Ordering::Relaxed);
        let lately = full_at > 0 && self.now() < Duration::from_millis(full_at) + FULL_FOR;
        Load { open, idle, full: lately || open >= self.limits.max_connections }
    }

    /// The bound.
    pub fn most(&self) -> usize {
        self.limits.max_connections
    }

    /// Whose port it is.
    pub fn port(&self) -> &'static str {
        self.port
    }

    /// A place for a new connection of `address`, somebody else's where there is none left; waits where all have a
    /// delivery in flight. `None` where the address has its bound.
    pub(super) async fn place(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionSlot> {
        let counted = self.addresses.count(address, self.limits.most_of(address))?;
        loop {
            if let Ok(permit) = self.places.clone().try_acquire_owned() {
                return Some(self.enter(counted, address, permit));
            }
            self.full_at.store((self.now().as_millis() as u64).max(1), Ordering::Relaxed);
            self.evict();
            if let Ok(Ok(permit)) = timeout(AGAIN, self.places.clone().acquire_owned()).await {
                return Some(self.enter(counted, address, permit));
            }
        }
    }

    fn enter(self: &Arc<Self>, address: Counted, of: IpAddr, permit: OwnedSemaphorePermit) -> ConnectionSlot {
        let now = self.now();
        // A share of the last quarter that nobody can tell: the hasher's keys are random.
        let share = f64::from(RandomState::new().hash_one(of) as u16) / f64::from(u16::MAX);
        let part = 1.0 - share / 4.0;
        let connection = Arc::new(ConnectionEntry {
            doing: AtomicU64::new(Doing::Waiting.since(now)),
            verified: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            last_request: ((f64::from(self.lifetime.requests) * part) as u32).max(1),
            ends: now + self.lifetime.age.mul_f64(part),
            start: self.start,
            address,
            is_proxy: self.limits.trusted_proxies.contains(of),
            malformed: AtomicU32::new(0),
            evicted: Notify::new(),
        });
        let mut table = self.table();
        let key = table.next;
        table.next += 1;
        table.connections.insert(key, connection.clone());
        drop(table);
        ConnectionSlot { of: self.clone(), key, connection, _permit: permit }
    }

    /// Closes those that come first by the rule above: some of the unverified, else one of the others.
    pub(super) fn evict(&self) {
        let (table, now) = (self.table(), self.now());
        let waiting =
            table.connections.values().filter_map(|connection| Some((connection.rank(now)?, connection)));
        let mut waiting: Vec<_> = waiting.collect();
        let some = (self.limits.max_connections / AT_ONCE).clamp(1, AT_ONCE);
        if waiting.len() > some {
            waiting.select_nth_unstable_by_key(some - 1, |(rank, _)| *rank);
            waiting.truncate(some);
        }
        waiting.sort_unstable_by_key(|(rank, _)| *rank);
        let (mut gone, mut verified_gone) = (0, 0);
        for (rank, connection) in waiting {
            let first = gone + verified_gone == 0;
            if (rank.verified && !first) || !connection.evict(rank.doing) {
                continue;
            }
            *if rank.verified { &mut verified_gone } else { &mut gone } += 1;
        }
        drop(table);
        metrics::connections_closed(self.port, Closed::Unverified, gone);
        metrics::connections_closed(self.port, Closed::Idle, verified_gone);
    }

    /// Held for as long as a look takes, never across an await.
    fn table(&self) -> MutexGuard<'_, ConnectionTable> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

impl From<ConnectionLimits> for Arc<Connections> {
    /// For a port that has no metrics.
    fn from(limits: ConnectionLimits) -> Self {
        Connections::new("", limits, Lifetime::default())
    }
}

/// The smallest has to go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    verified: bool,
    of_its_address: Reverse<usize>,
    since: u64,
    doing: u64,
}

impl ConnectionEntry {
    /// `None` for one that must not go, or goes already.
    fn rank(&self, now: Duration) -> Option<Rank> {
        let doing = self.doing.load(Ordering::Relaxed);
        let verified = self.verified.load(Ordering::Relaxed);
        let may_go = match Doing::of(doing) {
            Doing::Waiting => true,
            // Its sender has shown to have a secret, and the bound of a body's time is short.
            Doing::Receiving => !verified,
            Doing::InFlight | Doing::Evicted => false,
        };
        let of_its_address = Reverse(if self.is_proxy { 1 } else { self.address.open() });
        let began = Duration::from_millis(doing >> 2);
        let may_go = may_go && (of_its_address.0 > 1 || now >= began + GRACE);
        may_go.then_some(Rank { verified, of_its_address, since: doing >> 2, doing })
    }

    fn is_idle(&self) -> bool {
        Doing::of(self.doing.load(Ordering::Relaxed)) == Doing::Waiting
    }

    /// False where it has done something since it was seen.
    fn evict(&self, seen: u64) -> bool {
        let evicted = Doing::Evicted.since(self.start.elapsed());
        let gone = self.doing.compare_exchange(seen, evicted, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if gone {
            self.evicted.notify_one();
        }
        gone
    }

    /// From now on it does something else; false where it has to go.
    fn turn(&self, to: Doing) -> bool {
        let next = to.since(self.start.elapsed());
        let turn = |doing| (Doing::of(doing) != Doing::Evicted).then_some(next);
        // It guards no other memory.
        self.doing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, turn).is_ok()
    }

    /// A head is complete; false where the connection has to go.
    pub(super) fn head_complete(&self) -> bool {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.turn(Doing::Receiving)
    }

    /// Its `request`-th request is not to be read on.
    pub(super) fn malformed(&self, request: u32) {
        self.malformed.store(request, Ordering::Relaxed);
    }

    /// Whether that is so of the request that is being read.
    pub(super) fn is_malformed(&self) -> bool {
        self.malformed.load(Ordering::Relaxed) == self.requests.load(Ordering::Relaxed)
    }

    /// The body is complete, too; false where the connection has to go.
    pub(super) fn body_complete(&self) -> bool {
        self.turn(Doing::InFlight)
    }

    /// An answer goes out; `Some` where it is the last, and why.
    pub(super) fn answered(&self, verified: bool) -> Option<Closed> {
        if verified {
            self.verified.store(true, Ordering::Relaxed);
        }
        self.turn(Doing::Waiting);
        if self.requests.load(Ordering::Relaxed) >= self.last_request {
            return Some(Closed::Requests);
        }
        (self.start.elapsed() >= self.ends).then_some(Closed::Age)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.of.table().connections.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Networks;

    const LATER: Duration = Duration::from_secs(60);

    fn table(max_connections: usize) -> Arc<Connections> {
        let limits = ConnectionLimits {
            max_connections,
            max_per_address: None,
            trusted_proxies: Networks::default(),
            head_timeout: Duration::from_secs(1),
            max_head: 8192,
        };
        Connections::new("test", limits, Lifetime::default())
    }

    async fn place(of: &Arc<Connections>, address: &str) -> ConnectionSlot {
        of.place(address.parse().unwrap()).await.unwrap()
    }

    fn has_to_go(place: &ConnectionSlot) -> bool {
        Doing::of(place.connection.doing.load(Ordering::Relaxed)) == Doing::Evicted
    }

    /// Since is in milliseconds.
    fn waits_since(place: &ConnectionSlot, milliseconds: u64) {
        place.connection.doing.store(milliseconds << 2, Ordering::Relaxed);
    }

    #[tokio::test]
    async fn b2_the_unverified_go_first_then_the_idlest_and_never_one_with_a_delivery_in_flight() {
        let full = table(5);
        let [mut verified, in_flight, unverified, fresh, other] = [
            place(&full, "192.0.2.1").await,
            place(&full, "192.0.2.1").await,
            place(&full, "192.0.2.2").await,
            place(&full, "192.0.2.2").await,
            place(&full, "192.0.2.3").await,
        ];
        for place in [&verified, &in_flight] {
            assert!(place.connection.head_complete());
            assert!(place.connection.body_complete());
        }
        assert_eq!(verified.connection.answered(true), None);
        // Past the time that each has to begin.
        tokio::time::sleep(2 * GRACE).await;
        waits_since(&verified, 0);
        waits_since(&unverified, 5);
        waits_since(&fresh, 6);
        // Longest of all, and alone at its address.
        waits_since(&other, 1);
        let mut gone = Vec::new();
        for expected in [unverified, other, fresh] {
            full.evict();
            assert!(has_to_go(&expected), "after {gone:?}");
            assert!(!expected.connection.head_complete(), "it takes no request any more");
            gone.push(expected.key);
            drop(expected);
        }
        full.evict();
        assert!(has_to_go(&verified) && !has_to_go(&in_flight));
        verified = place(&full, "192.0.2.4").await;
        full.evict();
        assert!(!has_to_go(&verified), "it has only come");
        waits_since(&verified, 0);
        full.evict();
        full.evict();
        assert!(has_to_go(&verified) && !has_to_go(&in_flight), "whoever else goes");
        assert_eq!(full.load(), Load { open: 2, idle: 0, full: false });
        drop((verified, in_flight));
        assert!(full.table().connections.is_empty());
    }

    #[tokio::test]
    async fn b2_who_has_done_something_since_it_was_seen_stays() {
        let full = table(1);
        let only = place(&full, "192.0.2.1").await;
        let seen = only.connection.rank(LATER).unwrap();
        assert!(only.connection.head_complete() && only.connection.body_complete());
        assert!(!only.connection.evict(seen.doing));
        assert!(only.connection.rank(LATER).is_none());
        let waiting = tokio::spawn(async move { place(&full, "192.0.2.2").await });
        drop(only);
        timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn b2_a_connections_answers_and_age_are_bounded_by_bounds_of_its_own() {
        let limits = table(100).limits.clone();
        let bounded = Connections::new("test", limits, Lifetime { requests: 1000, ..Lifetime::default() });
        let mut bounds = Vec::new();
        for _ in 0..100 {
            let place = place(&bounded, "192.0.2.1").await;
            let (requests, ends) = (place.connection.last_request, place.connection.ends.as_secs());
            assert!((750..=1000).contains(&requests) && (450..=600).contains(&ends), "{requests} {ends}");
            for _ in 1..requests {
                place.connection.head_complete();
                assert_eq!(place.connection.answered(true), None);
            }
            place.connection.head_complete();
            assert_eq!(place.connection.answered(true), Some(Closed::Requests));
            bounds.push(requests);
        }
        bounds.sort_unstable();
        bounds.dedup();
        assert!(bounds.len() > 10, "{bounds:?}");
        let short = Lifetime { age: Duration::ZERO, requests: 10 };
        let old = place(&Connections::new("test", bounded.limits.clone(), short), "192.0.2.1").await;
        old.connection.head_complete();
        assert_eq!(old.connection.answered(false), Some(Closed::Age));
    }
}
