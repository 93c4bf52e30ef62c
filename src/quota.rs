//! How much of something is in use, and guards that give it back. The limit comes with each
//! call, so that a count outlives a change of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A count of what is in use; shared by `Arc`.
#[derive(Debug, Default)]
pub struct InUse(AtomicUsize);

/// A part of it. Given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    of: Arc<InUse>,
    amount: usize,
}

impl InUse {
    /// Takes `amount`; `None` where more than `limit` would be in use. Never waits.
    pub fn take(self: &Arc<Self>, amount: usize, limit: usize) -> Option<Held> {
        let mut held = Held { of: self.clone(), amount: 0 };
        held.grow(amount, limit).then_some(held)
    }
}

impl Held {
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

impl Drop for Held {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_is_taken_and_all_of_it_comes_back() {
        let bytes = Arc::new(InUse::default());
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
