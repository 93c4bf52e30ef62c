//! The spool's state, for readiness, metrics and `/status`.

use std::borrow::Cow;
use std::sync::Arc;

use super::error::{Bound, thread_ended};
use super::report::Salvage;
use crate::observe::health::PartState;

/// The state of the spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows on their way to Kafka, including leased rows and rows being deleted.
    pub live: u64,
    /// Rows that wait for a person's decision.
    pub parked: u64,
    /// Bytes of all rows.
    pub bytes: u64,
    /// When the oldest live row was received, in milliseconds since 1970; up to a second late.
    pub oldest_ms: Option<i64>,
    /// Delivered rows whose delete is not committed yet.
    pub removing: u64,
    /// Bytes of SQLite's log.
    pub wal: u64,
    /// Free bytes on the disk, if they are known.
    pub free: Option<u64>,
    /// The bound that is reached, if any.
    pub full: Option<Bound>,
    /// The file is damaged: nothing is stored until a restart has salvaged it.
    pub damaged: bool,
    /// The thread that ended unasked, `writer` or `reader`: nothing is stored until a restart.
    pub ended: Option<&'static str>,
    /// Why the files in the directory are not those in use: nothing is stored.
    pub astray: Option<Arc<str>>,
    /// Why the last transaction failed. Writing is retried every second.
    pub failing: Option<Arc<str>>,
    /// Why the last read of rows to deliver failed.
    pub unreadable: Option<Arc<str>>,
    /// Damage found at a start, until its report is removed from the directory.
    pub salvaged: Arc<[Salvage]>,
    /// Whether the reserve is complete.
    pub reserve: bool,
    /// Transactions since the start.
    pub commits: u64,
}

impl Stats {
    /// Why nothing is stored, if that lasts until somebody acts.
    pub(super) fn stopped(&self) -> Option<Cow<'_, str>> {
        if let Some(thread) = self.ended {
            return Some(Cow::Owned(thread_ended(thread)));
        }
        if let Some(why) = &self.astray {
            return Some(Cow::Borrowed(why));
        }
        self.damaged.then_some(Cow::Borrowed("the spool file is damaged; restart the service to salvage it"))
    }

    /// The state for readiness: the most severe problem, in one sentence with what to do.
    pub fn health(&self) -> (PartState, String) {
        if let Some(thread) = self.ended {
            return (PartState::Down, thread_ended(thread));
        }
        if let Some(why) = &self.astray {
            return (PartState::Down, why.to_string());
        }
        if self.damaged {
            return (PartState::Down, String::from("damaged: a restart salvages it"));
        }
        if let Some(why) = &self.failing {
            return (PartState::Down, why.to_string());
        }
        if let Some(bound) = self.full {
            return (PartState::Down, format!("full: {}", bound.label()));
        }
        if let Some(why) = &self.unreadable {
            return (PartState::Degraded, why.to_string());
        }
        match &*self.salvaged {
            [] => (PartState::Ok, String::new()),
            [one] => (PartState::Degraded, one.to_string()),
            [first, others @ ..] => {
                (PartState::Degraded, format!("{first}; and {} more reports", others.len()))
            }
        }
    }
}
