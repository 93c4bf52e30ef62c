//! The connections of a port: a bounded table of their states, and the choice of what to close when it is full.
//!
//! A connection waits for a head (including a TLS handshake), receives a body, or has a delivery in flight, from the
//! complete body to the answer. A connection with a delivery in flight is never evicted: the delivery may become
//! durable, and its sender would not get the answer. Among the others, connections without a verified delivery are
//! closed first; of these, the ones of the address with the most connections; of these, the one that has waited
//! longest.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connection_counter::{ConnectionCounter, Counted};
use super::limits::{ConnectionLimits, Lifetime};
use super::rejected;
use super::report::LogLimiter;
use crate::observe::metrics::{self, Closed, Rejected};

/// The limit of unverified connections closed by one scan of the table: a scan costs about a millisecond with 10,000
/// connections, and new ones arrive faster than that.
const MAX_EVICTED: usize = 64;

/// The interval between scans if no connection could be closed: a delivery has to end first.
const RESCAN_AFTER: Duration = Duration::from_millis(20);

/// The only connection of an address gets this time to send: otherwise many new ones would evict it at once.
const GRACE: Duration = Duration::from_millis(50);

/// How long the port is reported as full after an eviction, so that a probe can see it.
const FULL_FOR: Duration = Duration::from_secs(10);

/// All connections of a port.
#[derive(Debug)]
pub struct Connections {
    pub(super) limits: ConnectionLimits,
    pub(super) lifetime: Lifetime,
    pub(super) rejections: LogLimiter,
    port: &'static str,
    places: Arc<Semaphore>,
    addresses: Arc<ConnectionCounter>,
    open: Mutex<ConnectionTable>,
    /// The origin of all times.
    start: Instant,
    /// When the port was last full; 0 for never.
    full_at: AtomicU64,
}

#[derive(Debug, Default)]
struct ConnectionTable {
    next: u64,
    connections: HashMap<u64, Arc<ConnectionEntry>>,
}

/// The load of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// All open connections.
    pub open: usize,
    /// Connections between two requests, or before the first.
    pub idle: usize,
    /// Whether the table is full, or was within the last seconds.
    pub full: bool,
}

/// A connection's entry in the table.
#[derive(Debug)]
pub(super) struct ConnectionEntry {
    /// [`Doing`] in the two lowest bits, and above them the time since when, in milliseconds. Both are in one word, so
    /// that an eviction applies only to the state that was observed.
    doing: AtomicU64,
    verified: AtomicBool,
    requests: AtomicU32,
    last_request: u32,
    ends: Duration,
    start: Instant,
    address: Counted,
    /// Whether the address is a trusted proxy, which serves many clients.
    is_proxy: bool,
    /// The number of the request, from 1, with an error that hyper does not detect; 0 for none.
    malformed: AtomicU32,
    /// Whether a part of a head has arrived.
    in_head: AtomicBool,
    /// Whether the rest of that head did not arrive in time.
    head_late: AtomicBool,
    /// The protocol other than HTTP/1 that the connection began with.
    foreign: OnceLock<Rejected>,
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

/// A slot among a port's connections, until dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    table: Arc<Connections>,
    key: u64,
    pub(super) connection: Arc<ConnectionEntry>,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    /// Creates an empty table. `port` is the label in metrics.
    pub fn new(port: &'static str, limits: ConnectionLimits, lifetime: Lifetime) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(limits.max_connections)),
            limits,
            lifetime,
            rejections: LogLimiter::new(),
            port,
            addresses: Arc::default(),
            open: Mutex::default(),
            start: Instant::now(),
            full_at: AtomicU64::new(0),
        })
    }

    pub fn load(&self) -> Load {
        let table = self.table();
        let open = table.connections.len();
        let idle = table.connections.values().filter(|connection| connection.is_idle()).count();
        drop(table);
        let full_at = self.full_at.load(Ordering::Relaxed);
        let recently = full_at > 0 && self.now() < Duration::from_millis(full_at) + FULL_FOR;
        Load { open, idle, full: recently || open >= self.limits.max_connections }
    }

    /// The limit of connections.
    pub fn most(&self) -> usize {
        self.limits.max_connections
    }

    pub fn port(&self) -> &'static str {
        self.port
    }

    /// Reserves a slot for a new connection of `address`, evicting another connection if the table is full; waits while
    /// all have a delivery in flight. `None` if the address has reached its limit.
    pub(super) async fn place(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionSlot> {
        let counted = self.addresses.count(address, self.limits.most_of(address))?;
        loop {
            if let Ok(permit) = self.places.clone().try_acquire_owned() {
                return Some(self.enter(counted, address, permit));
            }
            self.full_at.store((self.now().as_millis() as u64).max(1), Ordering::Relaxed);
            self.evict();
            if let Ok(Ok(permit)) = timeout(RESCAN_AFTER, self.places.clone().acquire_owned()).await {
                return Some(self.enter(counted, address, permit));
            }
        }
    }

    fn enter(self: &Arc<Self>, address: Counted, ip: IpAddr, permit: OwnedSemaphorePermit) -> ConnectionSlot {
        let now = self.now();
        // A random share of the last quarter that clients cannot predict: the hasher's keys are random.
        let share = f64::from(RandomState::new().hash_one(ip) as u16) / f64::from(u16::MAX);
        let part = 1.0 - share / 4.0;
        let connection = Arc::new(ConnectionEntry {
            doing: AtomicU64::new(Doing::Waiting.since(now)),
            verified: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            last_request: ((f64::from(self.lifetime.requests) * part) as u32).max(1),
            ends: now + self.lifetime.age.mul_f64(part),
            start: self.start,
            address,
            is_proxy: self.limits.trusted_proxies.contains(ip),
            malformed: AtomicU32::new(0),
            in_head: AtomicBool::new(false),
            head_late: AtomicBool::new(false),
            foreign: OnceLock::new(),
            evicted: Notify::new(),
        });
        let mut table = self.table();
        let key = table.next;
        table.next += 1;
        table.connections.insert(key, connection.clone());
        drop(table);
        ConnectionSlot { table: self.clone(), key, connection, _permit: permit }
    }

    /// Closes connections by the order described above: several unverified ones, else one of the others.
    pub(super) fn evict(&self) {
        let (table, now) = (self.table(), self.now());
        let waiting =
            table.connections.values().filter_map(|connection| Some((connection.rank(now)?, connection)));
        let mut waiting: Vec<_> = waiting.collect();
        let limit = (self.limits.max_connections / MAX_EVICTED).clamp(1, MAX_EVICTED);
        if waiting.len() > limit {
            waiting.select_nth_unstable_by_key(limit - 1, |(rank, _)| *rank);
            waiting.truncate(limit);
        }
        waiting.sort_unstable_by_key(|(rank, _)| *rank);
        let (mut evicted, mut verified_evicted) = (0, 0);
        for (rank, connection) in waiting {
            let first = evicted + verified_evicted == 0;
            if (rank.verified && !first) || !connection.evict(rank.doing) {
                continue;
            }
            *if rank.verified { &mut verified_evicted } else { &mut evicted } += 1;
        }
        drop(table);
        metrics::connections_closed(self.port, Closed::Unverified, evicted);
        metrics::connections_closed(self.port, Closed::Idle, verified_evicted);
    }

    /// The lock is held for at most one scan, never across an await.
    fn table(&self) -> MutexGuard<'_, ConnectionTable> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

impl From<ConnectionLimits> for Arc<Connections> {
    /// For a port without metrics.
    fn from(limits: ConnectionLimits) -> Self {
        Connections::new("", limits, Lifetime::default())
    }
}

/// The order of eviction: the smallest is closed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    verified: bool,
    address_connections: Reverse<usize>,
    since: u64,
    doing: u64,
}

impl ConnectionEntry {
    /// `None` for a connection that must not be evicted, or already is.
    fn rank(&self, now: Duration) -> Option<Rank> {
        let doing = self.doing.load(Ordering::Relaxed);
        let verified = self.verified.load(Ordering::Relaxed);
        let is_evictable = match Doing::of(doing) {
            Doing::Waiting => true,
            // Its sender has proven to have a secret, and the time limit of a body is short.
            Doing::Receiving => !verified,
            Doing::InFlight | Doing::Evicted => false,
        };
        let address_connections = Reverse(if self.is_proxy { 1 } else { self.address.open() });
        let since = Duration::from_millis(doing >> 2);
        let is_evictable = is_evictable && (address_connections.0 > 1 || now >= since + GRACE);
        is_evictable.then_some(Rank { verified, address_connections, since: doing >> 2, doing })
    }

    fn is_idle(&self) -> bool {
        self.idle_since().is_some()
    }

    /// When the connection began to wait for its next request; `None` if it does not wait.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let doing = self.doing.load(Ordering::Relaxed);
        (Doing::of(doing) == Doing::Waiting).then(|| self.start + Duration::from_millis(doing >> 2))
    }

    /// Records whether a part of a head has arrived.
    pub(super) fn set_in_head(&self, in_head: bool) {
        self.in_head.store(in_head, Ordering::Relaxed);
    }

    /// Records that the rest of a head did not arrive in time.
    pub(super) fn head_late(&self) {
        self.head_late.store(true, Ordering::Relaxed);
    }

    /// Records that the connection began with another protocol.
    pub(super) fn set_foreign(&self, foreign: Rejected) {
        let _ = self.foreign.set(foreign);
    }

    /// Why the connection ended before a request was read; `None` if it did not, and if the request has its own log line.
    /// hyper reports no error for a head of which only empty lines arrived.
    pub(super) fn rejected(&self, error: Option<&hyper::Error>) -> Option<Rejected> {
        // The head of a request that was answered as malformed has ended for hyper only.
        let in_head = self.in_head.load(Ordering::Relaxed) && !self.is_malformed();
        let late = (in_head && self.head_late.load(Ordering::Relaxed)).then_some(Rejected::HeadTimeout);
        let Some(error) = error else { return late };
        self.foreign.get().copied().or(late).or_else(|| rejected::cause(error, in_head))
    }

    /// Evicts the connection. Returns false if its state has changed since it was observed.
    fn evict(&self, observed: u64) -> bool {
        let evicted = Doing::Evicted.since(self.start.elapsed());
        let changed =
            self.doing.compare_exchange(observed, evicted, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if changed {
            self.evicted.notify_one();
        }
        changed
    }

    /// Changes the state. Returns false if the connection was evicted.
    fn change_state(&self, to: Doing) -> bool {
        let next = to.since(self.start.elapsed());
        let change_state = |doing| (Doing::of(doing) != Doing::Evicted).then_some(next);
        // The value guards no other memory.
        self.doing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change_state).is_ok()
    }

    /// Records that a head is complete. Returns false if the connection was evicted.
    pub(super) fn head_complete(&self) -> bool {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.change_state(Doing::Receiving)
    }

    /// Records that the connection's `request`-th request is malformed.
    pub(super) fn malformed(&self, request: u32) {
        self.malformed.store(request, Ordering::Relaxed);
    }

    /// Whether the current request is malformed.
    pub(super) fn is_malformed(&self) -> bool {
        let malformed = self.malformed.load(Ordering::Relaxed);
        malformed > 0 && malformed == self.requests.load(Ordering::Relaxed)
    }

    /// Records that the body is complete. Returns false if the connection was evicted.
    pub(super) fn body_complete(&self) -> bool {
        self.change_state(Doing::InFlight)
    }

    /// Records an answer. Returns the reason if it is the connection's last.
    pub(super) fn answered(&self, verified: bool) -> Option<Closed> {
        if verified {
            self.verified.store(true, Ordering::Relaxed);
        }
        self.change_state(Doing::Waiting);
        if self.requests.load(Ordering::Relaxed) >= self.last_request {
            return Some(Closed::Requests);
        }
        (self.start.elapsed() >= self.ends).then_some(Closed::Age)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.table.table().connections.remove(&self.key);
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

    async fn place(table: &Arc<Connections>, address: &str) -> ConnectionSlot {
        table.place(address.parse().unwrap()).await.unwrap()
    }

    fn is_evicted(place: &ConnectionSlot) -> bool {
        Doing::of(place.connection.doing.load(Ordering::Relaxed)) == Doing::Evicted
    }

    /// The time is in milliseconds.
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
        // Wait until the grace period of each connection is over.
        tokio::time::sleep(2 * GRACE).await;
        waits_since(&verified, 0);
        waits_since(&unverified, 5);
        waits_since(&fresh, 6);
        // The longest of all, and alone at its address.
        waits_since(&other, 1);
        let mut closed = Vec::new();
        for expected in [unverified, other, fresh] {
            full.evict();
            assert!(is_evicted(&expected), "after {closed:?}");
            assert!(!expected.connection.head_complete(), "it accepts no more requests");
            closed.push(expected.key);
            drop(expected);
        }
        full.evict();
        assert!(is_evicted(&verified) && !is_evicted(&in_flight));
        verified = place(&full, "192.0.2.4").await;
        full.evict();
        assert!(!is_evicted(&verified), "it is within its grace period");
        waits_since(&verified, 0);
        full.evict();
        full.evict();
        assert!(is_evicted(&verified) && !is_evicted(&in_flight), "a delivery in flight is never evicted");
        assert_eq!(full.load(), Load { open: 2, idle: 0, full: false });
        drop((verified, in_flight));
        assert!(full.table().connections.is_empty());
    }

    #[tokio::test]
    async fn b2_a_connection_whose_state_has_changed_is_not_evicted() {
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
    async fn b2_each_connection_has_its_own_limits_of_answers_and_age() {
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
        let short = Lifetime { age: Duration::ZERO, requests: 10, ..Lifetime::default() };
        let old = place(&Connections::new("test", bounded.limits.clone(), short), "192.0.2.1").await;
        old.connection.head_complete();
        assert_eq!(old.connection.answered(false), Some(Closed::Age));
    }
}
