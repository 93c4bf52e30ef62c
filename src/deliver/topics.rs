//! Which topics are known to be out. One sick topic never sends the others to the spool.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::kafka::{Ack, Trouble};

/// The sick topics. While there is none, which is always, asking costs one atomic load.
#[derive(Debug, Default)]
pub(super) struct Topics {
    sick: AtomicUsize,
    names: RwLock<HashSet<String>>,
}

impl Topics {
    /// Whether the topic's last record was not acknowledged.
    pub(super) fn is_out(&self, topic: &str) -> bool {
        self.sick.load(Ordering::Relaxed) > 0
            && self.names.read().unwrap_or_else(PoisonError::into_inner).contains(topic)
    }

    /// One failure is enough: the record that met it is in the spool, so the drain tries the topic
    /// at once, and one acknowledgement makes it well.
    pub(super) fn learn(&self, topic: &str, result: &Result<Ack, Trouble>) {
        match result {
            Ok(_) if self.sick.load(Ordering::Relaxed) == 0 => {}
            Ok(_) => {
                let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
                if names.remove(topic) {
                    tracing::info!(topic, "acknowledges again");
                }
                self.sick.store(names.len(), Ordering::Relaxed);
            }
            Err(Trouble::Unavailable(why)) => {
                let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
                if names.insert(topic.to_owned()) {
                    tracing::warn!(topic, %why, "does not acknowledge: its deliveries go to the spool");
                }
                self.sick.store(names.len(), Ordering::Relaxed);
            }
            // About the record, or about us, not about the topic.
            Err(Trouble::Refused(_) | Trouble::QueueFull) => {}
        }
    }
}
