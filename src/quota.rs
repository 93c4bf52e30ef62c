//! How much of something is in use, and guards that give it back. The limit comes with each
//! call, so that a count outlives a change of it. And how fast something may be used up: [`Rate`].

use std::sync::Arc;
use std::time::Duration;

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A count of what is in use; shared by `Arc`.
#[derive(Debug, Default)]
pub struct Usage(AtomicUsize);

/// A part of it. Given back when it is dropped.
#[derive(Debug)]
pub struct UsageGuard {
    of: Arc<Usage>,
    amount: usize,
}

impl Usage {
    /// Takes `amount`; `None` where more than `limit` would be in use. Never waits.
    pub fn take(self: &Arc<Self>, amount: usize, limit: usize) -> Option<UsageGuard> {
        let mut held = UsageGuard { of: self.clone(), amount: 0 };
        held.grow(amount, limit).then_some(held)
    }

    /// What is in use now.
    pub fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl UsageGuard {
    /// Takes `amount` more; false, and nothing is taken, where more than `limit` would be in use.
    pub fn grow(&mut self, amount: usize, limit: usize) -> bool {
        let sum = |used: usize| used.checked_add(amount).filter(|sum| *sum <= limit);
        // The count guards no other memory: its own order is enough.
        let taken = self.of.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok();
        if taken {
            self.amount += amount;
        }
        taken
    }
}

impl Drop for UsageGuard {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

/// So much in a second, by the generic cell rate algorithm: what was used is kept as the time up to which it would
/// have been used at exactly the rate, in 8 bytes. `governor` has it, too, but cannot tell whether a rate is used up
/// without counting one more, nor count what is past it, and what is to be counted here is known only afterwards.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// More than 0.
    pub per_second: u64,
    /// How long the rate may be saved up: as much may come at once.
    pub burst: Duration,
    /// How long what was used past the burst is held against the user.
    pub debt: Duration,
}

impl Rate {
    /// Counts `amount`. `used` is the user's, 0 at first; `now` is in nanoseconds since any fixed time.
    pub fn add(&self, used: &AtomicU64, amount: u64, now: u64) {
        let most = now.saturating_add(nanos(self.burst)).saturating_add(nanos(self.debt));
        let more = |used: u64| Some(used.max(now).saturating_add(self.time(amount)).min(most));
        // It guards no other memory.
        let _ = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether one more would be too many. Counts nothing.
    pub fn is_used_up(&self, used: &AtomicU64, now: u64) -> bool {
        used.load(Ordering::Relaxed) + self.time(1) > now.saturating_add(nanos(self.burst))
    }

    /// How long so much takes at exactly the rate.
    fn time(&self, amount: u64) -> u64 {
        let time = u128::from(amount) * 1_000_000_000 / u128::from(self.per_second.max(1));
        u64::try_from(time).unwrap_or(u64::MAX / 4)
    }
}

/// 64 bits are enough for 500 years.
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
        assert!(!rate.is_used_up(&used, start), "one is left of five seconds' worth");
        rate.add(&used, 1, start);
        assert!(rate.is_used_up(&used, start));
        assert!(!rate.is_used_up(&used, start + seconds(1)));
        rate.add(&used, 200, start);
        assert!(rate.is_used_up(&used, start + seconds(20)));
        assert!(!rate.is_used_up(&used, start + seconds(21)), "20 seconds of debt");
        rate.add(&used, u64::MAX, start);
        assert!(rate.is_used_up(&used, start + seconds(60)));
        assert!(!rate.is_used_up(&used, start + seconds(61)), "no more than a minute");
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
        assert!(first.grow(4, 10), "what was refused was not counted");
        assert!(bytes.take(0, 9).is_none(), "a lower limit holds at once");
        drop(first);
        assert!(bytes.take(10, 10).is_some());
    }
}
