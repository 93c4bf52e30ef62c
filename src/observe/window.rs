//! Counts events within the last minutes or hours.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

/// Counts in slots of equal length, and reuses the oldest slot for the newest. Adding takes no lock: each slot
/// is one word, with the slot's number in the upper half and its count in the lower half.
///
/// A requested interval ends with the current slot, so it is short by up to one slot.
#[derive(Debug)]
pub struct SlidingWindow {
    /// The length of a slot in seconds.
    slot: u32,
    slots: Box<[AtomicU64]>,
}

const COUNT: u64 = u32::MAX as u64;

impl SlidingWindow {
    /// Covers the last `slots` times `slot` seconds.
    pub fn new(slot: u32, slots: usize) -> Self {
        Self { slot: slot.max(1), slots: (0..slots.max(1)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Counts one event. An event older than all slots is not counted.
    pub fn add(&self, now: Timestamp) {
        let number = self.number(now);
        let Some(slot) = self.slots.get(number as usize % self.slots.len()) else { return };
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (held, count) = (word >> 32, word & COUNT);
            match held.cmp(&u64::from(number)) {
                std::cmp::Ordering::Equal => Some(held << 32 | (count + 1).min(COUNT)),
                std::cmp::Ordering::Less => Some(u64::from(number) << 32 | 1),
                std::cmp::Ordering::Greater => None,
            }
        });
    }

    /// The number of events within the last `seconds`.
    pub fn sum(&self, now: Timestamp, seconds: u32) -> u64 {
        let (newest, span) = (u64::from(self.number(now)), u64::from(seconds / self.slot));
        let recent = |word: &u64| (word >> 32) + span > newest && (word >> 32) <= newest;
        self.slots
            .iter()
            .map(|slot| slot.load(Ordering::Relaxed))
            .filter(recent)
            .map(|word| word & COUNT)
            .sum()
    }

    /// The number of the slot for this time. With slots of one second, 32 bits last past the year 2100.
    fn number(&self, time: Timestamp) -> u32 {
        u32::try_from(time.as_second() / i64::from(self.slot)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn new_slots_replace_old_ones() {
        let window = SlidingWindow::new(60, 60);
        for second in [0, 59, 60, 3_599] {
            window.add(at(second));
        }
        assert_eq!(window.sum(at(3_599), 3_600), 4);
        assert_eq!(window.sum(at(3_600), 3_600), 2, "the first minute has expired");
        assert_eq!((window.sum(at(3_599), 300), window.sum(at(3_599 + 300), 300)), (1, 0));
        window.add(at(3_600));
        assert_eq!(window.sum(at(3_600), 3_600), 3);
        window.add(at(0));
        assert_eq!(window.sum(at(3_600), 3_600), 3, "too old to be counted");
        assert_eq!(window.sum(at(10 * 3_600), 3_600), 0);
        assert_eq!(window.sum(at(59), 3_600), 0, "after the clock was set back, future slots do not count");
    }

    #[test]
    fn adding_from_several_threads_loses_nothing() {
        let window = SlidingWindow::new(60, 60);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|n| window.add(at(n % 120))));
            }
        });
        assert_eq!(window.sum(at(119), 3_600), 40_000);
    }
}
