//! How often an address may send what does not verify.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use super::addresses::network_of;
use super::response::RETRY_AFTER;

/// Addresses that are remembered; some 10 MB. Of more, those that came once go first, so that somebody with many
/// networks pushes out his own before any that comes again and again (S3-FIFO), at a fixed cost for each.
const MOST: usize = 65_536;

/// A rate for each address, in 8 bytes: the generic cell rate algorithm. `governor` has it, too, but cannot tell
/// whether an address has used up its rate without counting one more, and what is to be counted is known only after
/// a body was read.
#[derive(Debug)]
pub(super) struct Unverified {
    /// Between two.
    interval: Duration,
    /// How far ahead an address may be: what [`RETRY_AFTER`] gives back, so that who waits as long as it was told
    /// has all of it again.
    burst: Duration,
    since: Instant,
    /// When an address would have sent what it sent at exactly the rate, in nanoseconds after `since`. One that is
    /// not there has sent nothing.
    ahead: Cache<IpAddr, Arc<AtomicU64>>,
}

impl Unverified {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            burst: RETRY_AFTER,
            since: Instant::now(),
            ahead: Cache::new(MOST),
        }
    }

    /// Counts one. What is past the bound is not held against the address for longer than one interval: it was
    /// on its way when the bound was reached, and others may share the address.
    pub(super) fn count(&self, address: IpAddr, now: Instant) {
        let now = self.nanos(now);
        let most = now + nanos(self.burst);
        let one_more = |ahead: u64| Some((ahead.max(now) + nanos(self.interval)).min(most));
        let entry = || Ok::<_, Infallible>(Arc::default());
        let Ok(ahead) = self.ahead.get_or_insert_with(&network_of(address), entry);
        // It guards no other memory.
        let _ = ahead.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
    }

    /// Whether one more would be too many. Counts nothing.
    pub(super) fn is_used_up(&self, address: IpAddr, now: Instant) -> bool {
        let Some(ahead) = self.ahead.get(&network_of(address)) else { return false };
        ahead.load(Ordering::Relaxed) + nanos(self.interval) > self.nanos(now) + nanos(self.burst)
    }

    fn nanos(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.since))
    }
}

/// 64 bits are enough for 500 years.
fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(limit: &Unverified, address: &str, now: Instant) -> usize {
        let address = address.parse().unwrap();
        let counted = (0..1000).take_while(|_| {
            let free = !limit.is_used_up(address, now);
            limit.count(address, now);
            free
        });
        counted.count()
    }

    #[test]
    fn an_address_has_five_seconds_worth_at_once_then_its_rate_and_networks_of_ipv6_are_one() {
        let limit = Unverified::new(4);
        let start = limit.since + Duration::from_secs(3600);
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(sent(&limit, "192.0.2.1", at(0)), 20);
        assert_eq!(sent(&limit, "::ffff:192.0.2.1", at(0)), 0, "the same address");
        assert_eq!(sent(&limit, "192.0.2.2", at(0)), 20, "another");
        // However many came past the bound, it is free again after an interval.
        assert_eq!(sent(&limit, "192.0.2.1", at(249)), 0);
        assert_eq!(sent(&limit, "192.0.2.1", at(499)), 1);
        assert_eq!(sent(&limit, "192.0.2.1", at(499 + 5000)), 20, "all of it, after Retry-After");
        assert_eq!(sent(&limit, "2001:db8::1", at(0)), 20);
        assert_eq!(sent(&limit, "2001:db8::ffff:0:0:1", at(0)), 0, "the same network");
        assert_eq!(sent(&limit, "2001:db8:0:1::1", at(0)), 20, "the next one");
        assert!(!limit.is_used_up("192.0.2.3".parse().unwrap(), at(0)));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_does_not_free_one_that_keeps_coming() {
        let limit = Unverified::new(1);
        let now = limit.since;
        assert_eq!(sent(&limit, "192.0.2.1", now), 5);
        for network in 0..4 * MOST as u128 {
            limit.count(IpAddr::V6(((0x2001_0db8 << 96) | (network << 64)).into()), now);
            if network % 1000 == 0 {
                assert!(limit.is_used_up("192.0.2.1".parse().unwrap(), now), "forgotten after {network}");
            }
        }
        assert!(limit.ahead.len() <= MOST, "{}", limit.ahead.len());
        assert_eq!(sent(&limit, "192.0.2.2", now), 5, "a new one is counted, although it is full");
    }

    #[test]
    fn counting_at_once_loses_none() {
        let limit = Unverified::new(1000);
        let (now, address) = (limit.since, "192.0.2.1".parse().unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| limit.count(address, now)));
            }
        });
        assert_eq!(sent(&limit, "192.0.2.1", now), 1000);
    }
}
