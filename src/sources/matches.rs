//! What came with each secret of a source, so that a rotation can be finished with confidence.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use jiff::Timestamp;

use crate::config::Secret;
use crate::observe::metrics::SecretMeter;

const NEVER: i64 = i64::MIN;

/// Counts of one secret, since the process has known its name.
pub struct Matches {
    count: AtomicU64,
    /// Milliseconds since 1970.
    last: AtomicI64,
    meter: SecretMeter,
}

impl std::fmt::Debug for Matches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matches({})", self.count())
    }
}

impl Matches {
    fn new(source: &str, secret: &str) -> Self {
        Self {
            count: AtomicU64::new(0),
            last: AtomicI64::new(NEVER),
            meter: SecretMeter::new(source, secret),
        }
    }

    fn add(&self, at: Timestamp) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let at = at.as_millisecond();
        let last = self.last.fetch_max(at, Ordering::Relaxed).max(at);
        self.meter.matched(last);
    }

    /// Deliveries that it has signed and that were not refused.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The receipt of the last of them; `None` where there was none.
    pub fn last(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.last.load(Ordering::Relaxed)).ok()
    }
}

/// Those of a source's secrets, by name. Names are the operator's, so there are only so many.
#[derive(Debug, Default)]
pub(super) struct BySecret(HashMap<Arc<str>, Arc<Matches>>);

impl BySecret {
    /// For these secrets; what was counted before moves over by name, and what has no secret any more
    /// is forgotten.
    pub(super) fn new(source: &str, secrets: &[Secret], before: Option<&Self>) -> Self {
        let matches = |name: &Arc<str>| {
            let before = before.and_then(|before| before.0.get(name)).cloned();
            before.unwrap_or_else(|| Arc::new(Matches::new(source, name)))
        };
        Self(secrets.iter().map(|secret| (secret.name.clone(), matches(&secret.name))).collect())
    }

    /// Counts one delivery; gives the name to keep.
    pub(super) fn add(&self, secret: &str, at: Timestamp) -> Option<Arc<str>> {
        let (name, matches) = self.0.get_key_value(secret)?;
        matches.add(at);
        Some(name.clone())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Matches)> {
        self.0.iter().map(|(name, matches)| (&**name, &**matches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_move_over_by_name_and_the_last_match_never_goes_back() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let secrets = ["old", "new"].map(|name| Secret::new(name, "a-secret-of-16-b"));
        let before = BySecret::new("s", &secrets, None);
        assert_eq!(before.0["old"].last(), None);
        assert_eq!(before.add("old", at(20)).as_deref(), Some("old"));
        before.add("old", at(10));
        assert_eq!(before.0["old"].last(), Some(at(20)));
        assert_eq!(before.add("unknown", at(30)), None);

        let third = Secret::new("third", "a-secret-of-16-b");
        let after = BySecret::new("s", &[secrets[0].clone(), third], Some(&before));
        // A delivery that came before the reload ends after it.
        before.add("old", at(30));
        let seen = |name: &str| after.0.get(name).map(|matches| (matches.count(), matches.last()));
        assert_eq!(seen("old"), Some((3, Some(at(30)))));
        assert_eq!((seen("third"), seen("new")), (Some((0, None)), None));
    }
}
