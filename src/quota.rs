//! Counters with a limit, whose guards release what they took. Each call passes the limit, so a counter survives a
//! change usage the limit. [`Rate`] limits how fast something is used.

use std::sync::Arc;
use std::time::Duration;

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The amount in use; shared by `Arc`.
#[derive(Debug, Default)]
pub struct Usage(AtomicUsize);

/// An amount in use, released on drop.
#[derive(Debug)]
pub struct UsageGuard {
    usage: Arc<Usage>,
    amount: usize,
}

impl Usage {
    /// Takes `amount`, or returns `None` if more than `limit` would be in use. Never waits.
    pub fn take(self: &Arc<Self>, amount: usize, limit: usize) -> Option<UsageGuard> {
        let mut held = UsageGuard { usage: self.clone(), amount: 0 };
        held.grow(amount, limit).then_some(held)
    }

    /// The amount in use now.
    pub fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl UsageGuard {
    /// Takes `amount` more. Returns false and takes nothing if more than `limit` would be in use.
    pub fn grow(&mut self, amount: usize, limit: usize) -> bool {
        let sum = |used: usize| used.checked_add(amount).filter(|sum| *sum <= limit);
        // The counter guards no other memory, so relaxed ordering is enough.
        let taken = self.usage.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok();
        if taken {
            self.amount += amount;
        }
        taken
    }
}

impl Drop for UsageGuard {
    fn drop(&mut self) {
        self.usage.0.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

/// A rate limit by the generic cell rate algorithm. The usage is stored in 8 bytes, as the time until which it would
/// last at exactly this rate. `governor` implements the algorithm, too, but it cannot check a limit without counting
/// one more, and it does not count usage beyond the limit. Here the cost is known only after the work is done.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// More than 0.
    pub per_second: u64,
    /// The unused time that accumulates: this much usage the rate is available at once.
    pub burst: Duration,
    /// The maximum time for which usage beyond the burst blocks the user.
    pub debt: Duration,
}

impl Rate {
    /// Counts `amount`. `used` belongs to the user and starts at 0; `now` is in nanoseconds since any fixed time.
    pub fn add(&self, used: &AtomicU64, amount: u64, now: u64) {
        let max = now.saturating_add(nanos(self.burst)).saturating_add(nanos(self.debt));
        let more = |used: u64| Some(used.max(now).saturating_add(self.time(amount)).min(max));
        // The counter guards no other memory.
        let _ = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether the limit is reached: one more unit would exceed it. Counts nothing.
    pub fn is_used_up(&self, used: &AtomicU64, now: u64) -> bool {
        used.load(Ordering::Relaxed) + self.time(1) > now.saturating_add(nanos(self.burst))
    }

    /// The time that `amount` takes at exactly this rate.
    fn time(&self, amount: u64) -> u64 {
        let time = u128::from(amount) * 1_000_000_000 / u128::from(self.per_second.max(1));
        u64::try_from(time).unwrap_or(u64::MAX / 4)
    }
}

/// The duration in nanoseconds; 64 bits are enough for 500 years.
pub fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_past_the_burst_is_held_against_the_user_up_to_a_bound() {
        let seconds = |seconds: u64| nanos(Duration::from_secs(seconds));
        let rate = Rate { per_second: 10, burst: Duration::from_secs(5), debt: Duration::from_secs(60) };
        let (used, start) = (AtomicU64::new(0), seconds(1000));
        rate.add(&used, 49, start);
        assert!(!rate.is_used_up(&used, start), "one usage five seconds' worth remains");
        rate.add(&used, 1, start);
        assert!(rate.is_used_up(&used, start));
        assert!(!rate.is_used_up(&used, start + seconds(1)));
        rate.add(&used, 200, start);
        assert!(rate.is_used_up(&used, start + seconds(20)));
        assert!(!rate.is_used_up(&used, start + seconds(21)), "the debt is 20 seconds");
        rate.add(&used, u64::MAX, start);
        assert!(rate.is_used_up(&used, start + seconds(60)));
        assert!(!rate.is_used_up(&used, start + seconds(61)), "the debt is at max a minute");
    }

    #[test]
    fn no_more_than_the_limit_is_taken_and_all_of_it_comes_back() {
        let bytes = Arc::new(Usage::default());
        let mut first = bytes.take(0, 10).unwrap();
        assert!(first.grow(6, 10));
        let second = bytes.take(4, 10).unwrap();
        assert!(!first.grow(1, 10) && bytes.take(1, 10).is_none(), "full");
        assert!(!first.grow(usize::MAX, usize::MAX), "no overflow");
        drop(second);
        assert!(first.grow(4, 10), "a refused amount is not counted");
        assert!(bytes.take(0, 9).is_none(), "a lower limit applies at once");
        drop(first);
        assert!(bytes.take(10, 10).is_some());
    }
}
