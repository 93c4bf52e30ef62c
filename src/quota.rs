//! Counters with a limit, whose guards release what they took. Each call passes the limit, so a counter survives a
//! change of the limit. [`Rate`] limits how fast something is used.

use std::sync::Arc;
use std::time::{Duration, Instant};

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
/// last at exactly this rate. Where the cost is known before the work, [`Rate::take`] refuses it beyond the burst; where
/// it is known only afterwards, [`Rate::is_used_up`] decides and [`Rate::add`] counts, also beyond the burst.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// More than 0.
    pub per_second: u64,
    /// The unused time that accumulates: this much of the rate is available at once.
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

    /// Counts `amount`, or returns false and counts nothing if it would exceed the limit.
    pub fn take(&self, used: &AtomicU64, amount: u64, now: u64) -> bool {
        let max = now.saturating_add(nanos(self.burst));
        let more =
            |used: u64| Some(used.max(now).saturating_add(self.time(amount))).filter(|sum| *sum <= max);
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
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

/// A limit per second with a burst of one second's worth, and what is used of it; shared by reference.
#[derive(Debug)]
pub struct RateLimit {
    rate: Rate,
    used: AtomicU64,
    since: Instant,
}

impl RateLimit {
    /// An unused limit.
    pub fn per_second(per_second: u32) -> Self {
        let rate =
            Rate { per_second: per_second.into(), burst: Duration::from_secs(1), debt: Duration::ZERO };
        Self { rate, used: AtomicU64::new(0), since: Instant::now() }
    }

    /// Whether the limit is this number per second.
    pub fn is_per_second(&self, per_second: u32) -> bool {
        self.rate.per_second == u64::from(per_second)
    }

    /// Counts one, or returns false if the limit is reached.
    pub fn take(&self) -> bool {
        self.rate.take(&self.used, 1, nanos(self.since.elapsed()))
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
        assert!(!rate.is_used_up(&used, start), "one of five seconds' worth remains");
        rate.add(&used, 1, start);
        assert!(rate.is_used_up(&used, start));
        assert!(!rate.is_used_up(&used, start + seconds(1)));
        rate.add(&used, 200, start);
        assert!(rate.is_used_up(&used, start + seconds(20)));
        assert!(!rate.is_used_up(&used, start + seconds(21)), "the debt is 20 seconds");
        rate.add(&used, u64::MAX, start);
        assert!(rate.is_used_up(&used, start + seconds(60)));
        assert!(!rate.is_used_up(&used, start + seconds(61)), "the debt is at most a minute");
    }

    #[test]
    fn no_more_than_the_burst_is_taken_at_once_and_then_the_rate() {
        let millis = |millis: u64| nanos(Duration::from_millis(millis));
        let rate = Rate { per_second: 20, burst: Duration::from_secs(1), debt: Duration::ZERO };
        let (used, start) = (AtomicU64::new(0), millis(1_000_000));
        assert!(!rate.take(&used, 21, start), "more than the burst");
        assert!((0..20).all(|_| rate.take(&used, 1, start)));
        assert!(!rate.take(&used, 1, start), "the burst is used up");
        assert!(!rate.take(&used, 1, start + millis(49)), "what was refused is not counted");
        assert!(rate.take(&used, 1, start + millis(50)));
        assert!(!rate.take(&used, 1, start + millis(50)));
        assert!(rate.take(&used, 20, start + millis(1050)), "the burst is available again");
        assert!(!rate.take(&used, u64::MAX, start + millis(9000)), "no overflow");
        let uneven = Rate { per_second: 3, ..rate };
        let used = AtomicU64::new(0);
        assert_eq!(
            (0..10).filter(|_| uneven.take(&used, 1, start)).count(),
            3,
            "a third of a second is rounded"
        );
    }

    #[test]
    fn a_limit_per_second_allows_its_number_at_once() {
        let limit = RateLimit::per_second(1);
        assert!(limit.take());
        assert!(!limit.take(), "in the same second");
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
