//! Rate limits that survive a reload.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use crate::quota::{Rate, RateLimit, nanos};

/// A source's limit, as a multiple of the limit of one address.
const ADDRESSES: u64 = 4;

/// Limits the work that deliveries without a valid signature cause for a source, in bytes of hashing: many addresses,
/// each within its own limit, must not occupy the pool with one source.
#[derive(Debug, Clone)]
pub struct UnverifiedWork {
    rate: Rate,
    used: Arc<AtomicU64>,
    since: Instant,
}

impl UnverifiedWork {
    /// `per_address` is the limit of one address per second. Work done before a reload still counts.
    pub(super) fn new(per_address: u64, before: Option<&Self>) -> Self {
        let rate = Rate {
            per_second: per_address.saturating_mul(ADDRESSES),
            burst: Duration::from_secs(5),
            debt: Duration::from_secs(5),
        };
        let used = before.map(|before| before.used.clone()).unwrap_or_default();
        Self { rate, used, since: before.map_or_else(Instant::now, |before| before.since) }
    }

    /// Counts `bytes`.
    pub fn add(&self, bytes: u64) {
        self.rate.add(&self.used, bytes, nanos(self.since.elapsed()));
    }

    /// Whether the limit is reached.
    pub fn is_used_up(&self) -> bool {
        self.rate.is_used_up(&self.used, nanos(self.since.elapsed()))
    }
}

/// The limit `before` if the number is the same, so that a reload does not refill it; else a new one.
pub(super) fn rate_limit(per_second: u32, before: Option<&Arc<RateLimit>>) -> Arc<RateLimit> {
    let before = before.filter(|before| before.is_per_second(per_second));
    before.cloned().unwrap_or_else(|| Arc::new(RateLimit::per_second(per_second)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b1_the_work_caused_by_a_source_still_counts_after_a_reload() {
        let before = UnverifiedWork::new(1 << 20, None);
        assert!(!before.is_used_up());
        before.add(21 << 20);
        assert!(before.is_used_up(), "five seconds' worth of four addresses");
        assert!(UnverifiedWork::new(1 << 20, Some(&before)).is_used_up());
    }

    #[test]
    fn a_reload_with_the_same_limit_does_not_refill_it() {
        let first = rate_limit(1000, None);
        assert!(Arc::ptr_eq(&first, &rate_limit(1000, Some(&first))));
        assert!(!Arc::ptr_eq(&first, &rate_limit(999, Some(&first))));
    }
}
