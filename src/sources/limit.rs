//! A bound per second that outlives a reload.

use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// So many in a second, and as many at once.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    per_second: u32,
    limiter: Arc<DefaultDirectRateLimiter>,
}

impl Limit {
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
    fn a_reload_with_the_same_number_gives_no_second_helping() {
        let first = Limit::new(1000, None);
        let again = Limit::new(1000, Some(&first));
        assert!(Arc::ptr_eq(&first.limiter, &again.limiter));
        assert!(!Arc::ptr_eq(&first.limiter, &Limit::new(999, Some(&first)).limiter));
    }
}
