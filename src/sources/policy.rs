//! Whether a topic whose key names more than one event may take records: compaction would leave one
//! event of each key, and the others were answered 200.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::outcome::{Fault, Reason};

/// What Kafka has told of such a topic. Shared by all configurations of one run: what was learned
/// before a reload still holds after it.
#[derive(Debug, Default)]
pub struct Policy(AtomicU8);

const UNKNOWN: u8 = 0;
const KEEPS: u8 = 1;
const COMPACTS: u8 = 2;

impl Policy {
    /// Remembers whether the topic compacts; `None` where it cannot be told, and nobody relies on it.
    /// True if that is news.
    pub fn learn(&self, compacts: Option<bool>) -> bool {
        let told = match compacts {
            None => UNKNOWN,
            Some(false) => KEEPS,
            Some(true) => COMPACTS,
        };
        self.0.swap(told, Ordering::Relaxed) != told
    }

    /// `Ok` once Kafka has said that the topic does not compact.
    ///
    /// # Errors
    /// `kafka_unavailable`: the sender is to come again, until somebody has altered the topic.
    pub(super) fn allows(&self) -> Result<(), Fault> {
        let why = match self.0.load(Ordering::Relaxed) {
            KEEPS => return Ok(()),
            COMPACTS => "its topic compacts, and its key names more than one event",
            _ => "Kafka has not told yet whether its topic compacts",
        };
        Err(Fault::new(Reason::KafkaUnavailable, why))
    }
}
