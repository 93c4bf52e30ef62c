//! How the spool is.

use std::borrow::Cow;
use std::sync::Arc;

use super::error::Bound;
use super::report::Salvage;
use crate::observe::health::PartState;

/// What to answer and report after one of the spool's threads has ended. It is not started again: the panic that ended
/// it may have left the ledger and the file apart, which a restart sorts out.
pub(super) fn thread_ended(thread: &str) -> String {
    format!("the spool's {thread} thread has ended; restart hookstream")
}

/// The state of the spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows on their way, those given out or being deleted included.
    pub live: u64,
    /// Rows that wait for a person.
    pub parked: u64,
    /// Bytes of all rows.
    pub bytes: u64,
    /// When the oldest live row was received, in milliseconds since 1970; up to a second late.
    pub oldest_ms: Option<i64>,
    /// Delivered rows whose delete is not committed yet.
    pub removing: u64,
    /// Bytes of SQLite's log.
    pub wal: u64,
    /// Bytes free on the disk, where they are known.
    pub free: Option<u64>,
    /// The bound that was met last, while it holds.
    pub full: Option<Bound>,
    /// The file is damaged: nothing is stored until a restart has salvaged it.
    pub damaged: bool,
    /// The thread that ended unasked, `writer` or `reader`: nothing is stored until a restart.
    pub ended: Option<&'static str>,
    /// The files in the directory are not those that are in use: nothing is stored; why.
    pub astray: Option<Arc<str>>,
    /// The last transaction failed; why. It is tried again every second.
    pub failing: Option<Arc<str>>,
    /// The last look for rows to deliver failed; why.
    pub unreadable: Option<Arc<str>>,
    /// Damage that was found at a start, until its report is taken out of the directory.
    pub salvaged: Arc<[Salvage]>,
    /// Whether the reserve is in place.
    pub reserve: bool,
    /// Transactions since the start.
    pub commits: u64,
}

impl Stats {
    /// Why nothing may be stored, if nothing may, however often it is tried.
    pub(super) fn stopped(&self) -> Option<Cow<'_, str>> {
        if let Some(thread) = self.ended {
            return Some(Cow::Owned(thread_ended(thread)));
        }
        if let Some(why) = &self.astray {
            return Some(Cow::Borrowed(why));
        }
        self.damaged.then_some(Cow::Borrowed("the spool file is damaged; restart the service to salvage it"))
    }

    /// For readiness: the worst of it, in one sentence with what to do.
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
            [first, others @ ..] => (PartState::Degraded, format!("{first}; and {} more such", others.len())),
        }
    }
}
