//! Models of the state that the spool's callers and its threads share, with stubs of the modules it uses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loom::thread;
use tokio::sync::oneshot;

use self::error::{Bound, StoreError};
use self::format::{InsertRow, Record, RowState};
use self::shared::{Ledger, SpoolState, SpoolUsage, StoreRequest};

#[path = "../../../src/spool/shared.rs"]
mod shared;

#[derive(Clone, Copy)]
pub(crate) struct SpoolLimits {
    pub(crate) max_bytes: u64,
    pub(crate) max_rows: u64,
    pub(crate) source_bytes: u64,
    pub(crate) source_rows: u64,
}

mod error {
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(crate) enum Bound {
        Rows,
        Bytes,
        Share,
        Wal,
        Disk,
    }

    #[derive(Debug)]
    pub(crate) struct SpoolError;

    impl SpoolError {
        pub(crate) fn new(_: &str) -> Self {
            Self
        }

        pub(crate) fn closed() -> Self {
            Self
        }

        pub(crate) fn thread_ended(_: &str) -> Self {
            Self
        }
    }

    #[derive(Debug)]
    pub(crate) enum StoreError {
        Full(Bound),
        Busy,
        Error(SpoolError),
    }

    impl StoreError {
        pub(crate) fn closed() -> Self {
            Self::Error(SpoolError)
        }
    }
}

mod format {
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub(crate) enum RowState {
        Live,
        Parked,
    }

    pub(crate) struct Record(pub(crate) &'static str);

    impl Record {
        pub(crate) fn topic(&self) -> &str {
            self.0
        }
    }

    pub(crate) struct InsertRow {
        pub(crate) record: Record,
        pub(crate) bytes: u64,
    }
}

mod stats {
    #[derive(Clone, Default)]
    pub(crate) struct Stats {
        pub(crate) live: u64,
        pub(crate) parked: u64,
        pub(crate) bytes: u64,
        pub(crate) removing: u64,
        pub(crate) full: Option<super::Bound>,
        pub(crate) commits: u64,
        pub(crate) ended: Option<&'static str>,
    }

    impl Stats {
        pub(crate) fn stopped(&self) -> Option<&str> {
            None
        }
    }
}

pub(crate) fn models() {
    super::model("the ledger's sums equal what was added and removed", ledger);
    super::model("the writer takes each request once, and no row is lost", queue);
}

fn shared() -> Arc<SpoolState> {
    let limits = SpoolLimits { max_bytes: 100, max_rows: 3, source_bytes: 100, source_rows: 3 };
    Arc::new(SpoolState::new(Ledger::default(), limits))
}

fn store(topic: &'static str, bytes: &[u64]) -> StoreRequest {
    let lines = bytes.iter().map(|bytes| InsertRow { record: Record(topic), bytes: *bytes }).collect();
    StoreRequest { lines, bytes: bytes.iter().sum(), reply: oneshot::channel().0 }
}

/// Checks that rows and bytes agree, in total and by topic: half a transaction is never visible.
fn check(shared: &SpoolState) {
    let stats = shared.stats();
    assert!([0, 2].contains(&stats.live) && stats.parked <= 1, "{} live", stats.live);
    assert_eq!(stats.bytes, 5 * u64::from(stats.live == 2) + 7 * stats.parked);
    let topics = shared.topics();
    for topic in &topics {
        let seen = (&*topic.name, topic.live, topic.parked, topic.bytes);
        assert!([("a.x", 2, 0, 5), ("b.y", 0, 1, 7)].contains(&seen), "{seen:?}");
    }
}

/// Two writers and one reader. The service has only one writing thread, but the ledger does not rely on that.
fn ledger() {
    let shared = shared();
    let two = {
        let shared = shared.clone();
        thread::spawn(move || {
            // Two rows are added together, and both are removed.
            shared.committed(&[store("a.x", &[2, 3])], &[], &[]);
            shared.remove(&[1, 2]);
            let removed = || (String::from("a.x"), Some(RowState::Live), None);
            let moves = [2, 3].map(|bytes| (removed().0, removed().1, removed().2, bytes));
            shared.committed(&[], &moves, &[1, 2]);
        })
    };
    let one = {
        let shared = shared.clone();
        thread::spawn(move || {
            // One row is added and parked immediately, and remains.
            let moves = [
                (String::from("b.y"), None, Some(RowState::Live), 7),
                (String::from("b.y"), Some(RowState::Live), Some(RowState::Parked), 7),
            ];
            shared.committed(&[], &moves, &[]);
        })
    };
    check(&shared);
    let more = SpoolUsage { rows: 1, bytes: 1 };
    match shared.judge("a", more, more) {
        Ok(()) | Err(StoreError::Full(Bound::Rows)) => {}
        Err(other) => panic!("{other:?}"),
    }
    two.join().unwrap();
    one.join().unwrap();
    check(&shared);
    let stats = shared.stats();
    let seen = (stats.live, stats.parked, stats.bytes, stats.removing, stats.commits);
    assert_eq!(seen, (0, 1, 7, 0, 3));
    let topics = shared.topics();
    assert!(topics.len() == 1 && &*topics[0].name == "b.y", "{topics:?}");
    assert!(shared.taken().is_empty());
    let all = SpoolUsage { rows: 3, bytes: 3 };
    assert!(matches!(shared.judge("b", all, all), Err(StoreError::Full(Bound::Rows))), "one row exists");
    let two = SpoolUsage { rows: 2, bytes: 2 };
    assert!(shared.judge("b", two, two).is_ok());
}

/// One thread stores, one removes, and the writer takes both.
fn queue() {
    let shared = shared();
    let stores = {
        let shared = shared.clone();
        thread::spawn(move || shared.push_store(store("a.x", &[1, 1])).unwrap())
    };
    let removes = {
        let shared = shared.clone();
        thread::spawn(move || shared.remove(&[1]))
    };
    let (mut rows, mut removals) = (0, Vec::new());
    while rows < 2 || removals.is_empty() {
        // Waits for requests: after a lost wake-up all threads would sleep, which loom reports.
        let batch = shared.next(Instant::now() + Duration::from_secs(600));
        rows += batch.stores.iter().map(|store| store.lines.len()).sum::<usize>();
        // A delivered row is not leased again before its removal is committed.
        let taken = shared.taken();
        assert!(batch.removals.iter().all(|id| taken.contains(id)));
        shared.committed(&batch.stores, &[], &batch.removals);
        removals.extend(batch.removals);
    }
    stores.join().unwrap();
    removes.join().unwrap();
    assert_eq!((rows, removals), (2, vec![1]));
    let stats = shared.stats();
    assert_eq!((stats.live, stats.bytes, stats.removing), (2, 2, 0));
    assert!(shared.taken().is_empty());
    shared.close();
    let last = shared.next(Instant::now());
    assert!(last.closing && last.stores.is_empty());
    assert!(shared.push_store(store("a.x", &[1])).is_err());
}
