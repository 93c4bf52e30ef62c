//! Bounds per second that outlive a reload.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::quota::{Rate, nanos};

/// A source may cost unverified what so many addresses may.
const ADDRESSES: u64 = 4;

/// What deliveries that do not verify may cost a source, in bytes of hashing: so that many addresses, each within its
/// own budget, cannot keep the pool busy with one source.
#[derive(Debug, Clone)]
pub struct UnverifiedWork {
    rate: Rate,
    used: Arc<AtomicU64>,
    since: Instant,
}

impl UnverifiedWork {
    /// `per_address` is that of one address in a second. What was used before a reload stays used.
    pub(super) fn new(per_address: u64, before: Option<&Self>) -> Self {
        let rate = Rate {
            per_second: per_address.saturating_mul(ADDRESSES),
            burst: Duration::from_secs(5),
            debt: Duration::from_secs(5),
        };
        let used = before.map(|before| before.used.clone()).unwrap_or_default();
        Self { rate, used, since: before.map_or_else(Instant::now, |before| before.since) }
    }

    /// Counts so many bytes.
    pub fn add(&self, bytes: u64) {
        self.rate.add(&self.used, bytes, nanos(self.since.elapsed()));
    }

    /// Whether there is nothing left.
    pub fn is_used_up(&self) -> bool {
        self.rate.is_used_up(&self.used, nanos(self.since.elapsed()))
    }
}

/// So many in a second, and as many at once.
#[derive(Debug, Clone)]
pub(super) struct RateLimit {
    per_second: u32,
    limiter: Arc<DefaultDirectRateLimiter>,
}

impl RateLimit {
    /// That of before where the number is the same, so that a reload gives nobody a second helping.
    pub(super) fn new(per_second: u32, before: Option<&Self>) -> Self {
        if let Some(before) = before.filter(|before| before.per_second == per_second) {
            return before.clone();
        }
        let quota = Quota::per_second(NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN));
        Self { per_second, limiter: Arc::new(RateLimiter::direct(quota)) }
    }

    /// Counts one; false when they are used up.
    pub(super) fn take(&self) -> bool {
        self.limiter.check().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b1_what_a_source_has_cost_is_no_less_after_a_reload() {
        let before = UnverifiedWork::new(1 << 20, None);
        assert!(!before.is_used_up());
        before.add(21 << 20);
        assert!(before.is_used_up(), "five seconds' worth of four addresses");
        assert!(UnverifiedWork::new(1 << 20, Some(&before)).is_used_up());
    }

    #[test]
    fn a_reload_with_the_same_number_gives_no_second_helping() {
        let first = RateLimit::new(1000, None);
        let again = RateLimit::new(1000, Some(&first));
        assert!(Arc::ptr_eq(&first.limiter, &again.limiter));
        assert!(!Arc::ptr_eq(&first.limiter, &RateLimit::new(999, Some(&first)).limiter));
    }
}
