//! Usage counts of a source's secrets, which show when a rotation can be finished.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use jiff::Timestamp;

use crate::config::Secret;
use crate::observe::metrics::SecretMeter;
use crate::observe::status;
use crate::observe::window::SlidingWindow;

const NEVER: i64 = i64::MIN;

/// The seconds of a slot of the sliding window, and of the intervals shown.
const SLOT: u32 = 10 * 60;
const HOUR: u32 = 60 * 60;
const DAY: u32 = 24 * HOUR;

/// The counts of one secret, since the process first loaded it.
pub(super) struct SecretUsage {
    count: AtomicU64,
    /// The last match, in milliseconds since 1970.
    last: AtomicI64,
    recent: SlidingWindow,
    meter: SecretMeter,
}

impl std::fmt::Debug for SecretUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretUsage({})", self.count())
    }
}

impl SecretUsage {
    fn new(source: &str, secret: &str) -> Self {
        Self {
            count: AtomicU64::new(0),
            last: AtomicI64::new(NEVER),
            recent: SlidingWindow::new(SLOT, (DAY / SLOT) as usize),
            meter: SecretMeter::new(source, secret),
        }
    }

    fn add(&self, at: Timestamp) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.recent.add(at);
        let at = at.as_millisecond();
        let last = self.last.fetch_max(at, Ordering::Relaxed).max(at);
        self.meter.matched(last);
    }

    /// The number of deliveries that it signed and that were not refused.
    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// When the last of them was received; `None` if there was none.
    fn last(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.last.load(Ordering::Relaxed)).ok()
    }
}

/// What the configuration says of a secret.
#[derive(Debug)]
struct TrackedSecret {
    name: Arc<str>,
    from: Option<Arc<str>>,
    not_after: Option<Timestamp>,
}

/// The counts of a source's secrets, by name. The names come from the configuration, so their number is bounded.
#[derive(Debug, Default)]
pub(super) struct SecretUsages {
    matches: HashMap<Arc<str>, Arc<SecretUsage>>,
    /// In the order of the configuration.
    order: Vec<TrackedSecret>,
}

impl SecretUsages {
    /// Creates counters for these secrets. Earlier counts are taken over by name; those of removed secrets are dropped.
    pub(super) fn new(source: &str, secrets: &[Secret], before: Option<&Self>) -> Self {
        let matches = |name: &Arc<str>| {
            let before = before.and_then(|before| before.matches.get(name)).cloned();
            before.unwrap_or_else(|| Arc::new(SecretUsage::new(source, name)))
        };
        let entry = |secret: &Secret| TrackedSecret {
            name: secret.name.clone(),
            from: secret.from.clone(),
            not_after: secret.window.not_after,
        };
        Self {
            matches: secrets.iter().map(|secret| (secret.name.clone(), matches(&secret.name))).collect(),
            order: secrets.iter().map(entry).collect(),
        }
    }

    /// Counts one delivery; returns the secret's name.
    pub(super) fn add(&self, secret: &str, at: Timestamp) -> Option<Arc<str>> {
        let (name, matches) = self.matches.get_key_value(secret)?;
        matches.add(at);
        Some(name.clone())
    }

    /// The secrets that expire, with the time.
    pub(super) fn expiring(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.order.iter().filter_map(|entry| Some((&*entry.name, entry.not_after?)))
    }

    /// The usage to show, in the order of the configuration.
    pub(super) fn shown(&self, now: Timestamp) -> Vec<status::SecretStatus> {
        let newest = self.matches.values().filter_map(|matches| matches.last()).max();
        let shown = |TrackedSecret { name, from, .. }: &TrackedSecret| {
            let matches = self.matches.get(name)?;
            let (last, last_hour) = (matches.last(), matches.recent.sum(now, HOUR));
            Some(status::SecretStatus {
                name: name.to_string(),
                from: from.as_deref().map(str::to_owned),
                last_match: last,
                last_hour,
                last_day: matches.recent.sum(now, DAY),
                // A secret that has never matched may be the next one: nothing shows whether it is needed.
                safe_to_remove: last_hour == 0 && last.is_some() && last < newest,
            })
        };
        self.order.iter().filter_map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_move_over_by_name_and_the_last_match_never_goes_back() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let secrets = ["old", "new"].map(|name| Secret::new(name, "a-secret-of-16-b"));
        let before = SecretUsages::new("s", &secrets, None);
        assert_eq!(before.matches["old"].last(), None);
        assert_eq!(before.add("old", at(20)).as_deref(), Some("old"));
        before.add("old", at(10));
        assert_eq!(before.matches["old"].last(), Some(at(20)));
        assert_eq!(before.add("unknown", at(30)), None);

        let third = Secret::new("third", "a-secret-of-16-b");
        let after = SecretUsages::new("s", &[secrets[0].clone(), third], Some(&before));
        // A delivery received before the reload ends after it.
        before.add("old", at(30));
        let seen = |name: &str| after.matches.get(name).map(|matches| (matches.count(), matches.last()));
        assert_eq!(seen("old"), Some((3, Some(at(30)))));
        assert_eq!((seen("third"), seen("new")), (Some((0, None)), None));
    }

    #[test]
    fn a_secret_is_safe_to_remove_once_only_others_have_matched_for_an_hour() {
        let at = |minute: i64| Timestamp::from_second(1_800_000_000 + 60 * minute).unwrap();
        let secrets = ["new", "old"].map(|name| Secret::new(name, "a-secret-of-16-b"));
        let by_secret = SecretUsages::new("s", &secrets, None);
        let shown = |minute| {
            let shown = by_secret.shown(at(minute)).into_iter();
            shown.map(|one| (one.last_hour, one.last_day, one.safe_to_remove)).collect::<Vec<_>>()
        };
        by_secret.add("old", at(0));
        assert_eq!(shown(70), [(0, 0, false), (0, 1, false)], "the new one has not matched yet");
        by_secret.add("new", at(71));
        assert_eq!(shown(71), [(1, 1, false), (0, 1, true)]);
        by_secret.add("old", at(72));
        assert_eq!(shown(72), [(1, 1, false), (1, 2, false)]);
        assert_eq!(shown(72 + 24 * 60), [(0, 0, true), (0, 0, false)]);
    }
}
