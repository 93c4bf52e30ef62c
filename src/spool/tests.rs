//! Tests of the complete spool.

mod astray;
mod checked;
mod damage;
mod ended;
mod fuzz;
mod image;
mod lost;
mod orders;
mod reserve;
mod sick;

use super::*;
use crate::record::RecordParts;

/// Code that a test runs on the writer's thread.
pub(super) type Run = Box<dyn FnOnce(&rusqlite::Connection, &mut Fault) + Send>;

/// A full disk: nothing is stored, and nothing deleted until at most `left` bytes of the reserve remain.
#[derive(Default)]
pub(super) struct Fault {
    full: bool,
    left: u64,
    /// The bytes of the reserve at each try.
    tries: Vec<u64>,
    dead: bool,
    /// The disk answers EIO.
    io: bool,
}

impl Fault {
    pub(super) fn check(&mut self, stores: bool, reserve: u64) -> rusqlite::Result<()> {
        self.tries.push(reserve);
        if self.io {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
            return Err(rusqlite::Error::SqliteFailure(code, None));
        }
        if self.dead || self.full && (stores || reserve > self.left) {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
            return Err(rusqlite::Error::SqliteFailure(code, None));
        }
        Ok(())
    }
}

const LIMITS: SpoolLimits = SpoolLimits { reserve: 64 * 1024, ..SpoolLimits::UNBOUNDED };

fn open(dir: &Path) -> (Arc<Spool>, Opened) {
    open_with(dir, LIMITS)
}

fn open_with(dir: &Path, limits: SpoolLimits) -> (Arc<Spool>, Opened) {
    let (spool, opened) = Spool::open(dir, limits).unwrap();
    (Arc::new(spool), opened)
}

fn record(topic: &str, key: &str, value: &[u8]) -> Record {
    Record::from_spool(RecordParts {
        topic: topic.into(),
        key: key.into(),
        value: value.into(),
        timestamp_ms: 1_767_323_045_678,
        headers: vec![("ce_id".into(), key.to_owned().into()), ("odd \"name\"".into(), "ä\u{0}\n".into())],
    })
    .unwrap()
}

async fn oldest(spool: &Spool, topic: &str) -> Vec<Row> {
    spool.lease_oldest(&topic.into(), 1_000_000, u64::MAX).await.unwrap()
}

fn keys(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| row.record.key()).collect()
}

/// Runs `run` on the writer's thread and waits for it.
async fn on_writer(spool: &Spool, run: impl FnOnce(&rusqlite::Connection, &mut Fault) + Send + 'static) {
    let (done, wait) = oneshot::channel();
    let run: Run = Box::new(move |db, fault| {
        run(db, fault);
        done.send(()).unwrap();
    });
    spool.shared.push_change(WriterCommand::Run { run }).unwrap();
    wait.await.unwrap();
}

/// Blocks the writer until the sender is used.
fn block(spool: &Spool) -> mpsc::Sender<()> {
    let ((started, blocked), (go, wait)) = (mpsc::channel(), mpsc::channel());
    let run: Run = Box::new(move |_, _| {
        started.send(()).unwrap();
        let _ = wait.recv();
    });
    spool.shared.push_change(WriterCommand::Run { run }).unwrap();
    blocked.recv().unwrap();
    go
}

const SOON: Duration = Duration::from_secs(20);

/// Waits until the condition holds, with a limit.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(SOON, waiting).await;
    waited.unwrap_or_else(|_| panic!("waited {SOON:?} for {what}"));
}

#[tokio::test]
async fn stored_records_are_returned_unchanged_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, opened) = open(&dir.path().join("new/spool"));
    assert_eq!((opened.live, opened.parked, opened.salvage), (0, 0, None));
    let large = vec![7_u8; 900_000];
    spool.store(vec![record("a", "1", b"\0one"), record("b", "2", &large)]).await.unwrap();
    spool.store(vec![record("a", "3", b"three")]).await.unwrap();
    let rows = oldest(&spool, "a").await;
    assert_eq!(keys(&rows), ["1", "3"]);
    let (first, expected) = (&rows[0].record, record("a", "1", b"\0one"));
    assert_eq!(first.value(), expected.value());
    assert_eq!(first.headers(), expected.headers());
    assert_eq!(first.timestamp_ms(), expected.timestamp_ms());
    assert_eq!((first.topic(), first.key()), ("a", "1"));
    assert_eq!(oldest(&spool, "b").await[0].record.value(), large);
    spool.remove(&[rows[0].id]);
    spool.flush().await.unwrap();
    let stats = spool.stats();
    assert_eq!((stats.live, stats.removing), (2, 0));
    assert_eq!(
        spool.topics().iter().map(|topic| (&*topic.name, topic.live)).collect::<Vec<_>>(),
        [("a", 1), ("b", 1)]
    );
    drop(rows);
    spool.close(SOON).await.unwrap();
    assert!(matches!(spool.store(vec![record("a", "4", b"x")]).await, Err(StoreError::Error(_))));
}

#[tokio::test]
async fn a_spool_that_was_not_closed_opens_with_all_that_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    spool.store(vec![record("a", "1", b"one"), record("a", "2", b"two")]).await.unwrap();
    // After a crash, the log is not moved into the file.
    let after = tempfile::tempdir().unwrap();
    for name in ["spool.db", "spool.db-wal"] {
        std::fs::copy(dir.path().join(name), after.path().join(name)).unwrap();
    }
    let (again, opened) = open(after.path());
    assert_eq!(opened.live, 2);
    assert_eq!(keys(&oldest(&again, "a").await), ["1", "2"]);
}

#[tokio::test]
async fn a_second_holder_is_refused_with_the_pid_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    let error = Spool::open(dir.path(), LIMITS).err().unwrap().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(spool);
    open(dir.path());
}

#[tokio::test]
async fn each_bound_refuses_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let one = || vec![record("a", "k", &[1; 1000])];
    let (spool, _) = open_with(&dir.path().join("rows"), SpoolLimits { max_rows: 2, ..LIMITS });
    assert_eq!(
        spool.store([one(), one(), one()].concat()).await,
        Err(StoreError::Full(Bound::Rows)),
        "all or none"
    );
    spool.store(one()).await.unwrap();
    spool.store(one()).await.unwrap();
    assert_eq!(spool.store(one()).await, Err(StoreError::Full(Bound::Rows)));
    let rows = oldest(&spool, "a").await;
    spool.remove(&[rows[0].id]);
    spool.flush().await.unwrap();
    spool.store(one()).await.expect("room again");
    assert!(spool.park(rows[1].id, "too large").await.unwrap());
    assert_eq!(spool.store(one()).await, Err(StoreError::Full(Bound::Rows)), "parked rows count");

    let (spool, _) = open_with(&dir.path().join("bytes"), SpoolLimits { max_bytes: 1_500, ..LIMITS });
    spool.store(one()).await.unwrap();
    assert_eq!(spool.store(one()).await, Err(StoreError::Full(Bound::Bytes)));

    let (spool, _) = open_with(&dir.path().join("disk"), SpoolLimits { min_free: u64::MAX / 2, ..LIMITS });
    assert_eq!(spool.store(one()).await, Err(StoreError::Full(Bound::Disk)));
    assert_eq!(spool.stats().full, Some(Bound::Disk));
}

#[tokio::test]
async fn a_source_past_its_share_is_refused_and_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let limits = SpoolLimits { source_rows: 2, source_bytes: 1_500, ..LIMITS };
    let full = Err(StoreError::Full(Bound::Share));
    let small = |topic: &str| vec![record(topic, "k", b"x")];
    let (spool, _) = open_with(dir.path(), limits);
    // Also within one transaction, store by store.
    let (a, b, c, other) = tokio::join!(
        spool.store(small("a.x")),
        spool.store(small("dead_letter.a")),
        spool.store(small("a.y")),
        spool.store(small("b.x")),
    );
    assert_eq!((a, b, c, other), (Ok(()), Ok(()), full.clone(), Ok(())));
    assert!(spool.park(oldest(&spool, "a.x").await[0].id, "too large").await.unwrap());
    assert_eq!(spool.store(small("a.z")).await, full, "parked rows count");
    assert_eq!(spool.store(vec![record("c.x", "k", &[1; 1_500])]).await, full, "bytes");
    spool.close(Duration::from_secs(30)).await.unwrap();
    drop(spool);

    let (spool, _) = open_with(dir.path(), limits);
    assert_eq!(spool.store(small("a.x")).await, full, "counted again from the file");
    let dead = oldest(&spool, "dead_letter.a").await;
    spool.remove(&[dead[0].id]);
    spool.flush().await.unwrap();
    spool.store(small("a.x")).await.expect("room again");
}

#[tokio::test]
async fn a_log_that_a_reader_keeps_from_emptying_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open_with(dir.path(), SpoolLimits { max_wal: 1 << 20, ..LIMITS });
    let reader = SpoolReader::open(dir.path()).unwrap();
    spool.store(vec![record("a", "0", b"x")]).await.unwrap();
    reader.hold().unwrap();
    let refused = loop {
        // The log is checked after a number of bytes, so this ends.
        if let Err(refused) = spool.store(vec![record("a", "k", &[1; 200_000])]).await {
            break refused;
        }
    };
    assert_eq!(refused, StoreError::Full(Bound::Wal));
    assert!(spool.stats().wal < 40 << 20, "{:?}", spool.stats());
    drop(reader);
    // The next check finds it released.
    while spool.stats().full.is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    spool.store(vec![record("a", "k", b"x")]).await.unwrap();
}

#[tokio::test]
async fn a_full_file_refuses_whole_stores_and_still_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    spool.store((0..50).map(|n| record("a", &n.to_string(), &[1; 5000])).collect()).await.unwrap();
    on_writer(&spool, |db, _| {
        let pages: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        db.pragma_update_and_check(None, "max_page_count", pages + 2, |_| Ok(())).unwrap();
    })
    .await;
    let many = (0..50).map(|n| record("b", &n.to_string(), &[1; 5000])).collect();
    assert_eq!(spool.store(many).await, Err(StoreError::Full(Bound::Disk)));
    assert!(oldest(&spool, "b").await.is_empty(), "none of a store that failed");
    let rows = oldest(&spool, "a").await;
    assert_eq!(rows.len(), 50);
    spool.remove(&rows.iter().map(|row| row.id).collect::<Vec<_>>());
    spool.flush().await.unwrap();
    assert_eq!(spool.stats().live, 0);
}

#[tokio::test]
async fn a_delivered_row_is_not_leased_again_while_its_delete_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    spool.store(vec![record("a", "1", b"x"), record("a", "2", b"x")]).await.unwrap();
    on_writer(&spool, |_, fault| fault.dead = true).await;
    let rows = oldest(&spool, "a").await;
    spool.remove(&[rows[0].id]);
    assert!(spool.flush().await.is_err());
    assert!(spool.park(rows[1].id, "why").await.is_err());
    drop(rows);
    assert_eq!(keys(&oldest(&spool, "a").await), ["2"], "the other can be leased again");
    assert_eq!(spool.stats().removing, 1);
    on_writer(&spool, |_, fault| fault.dead = false).await;
    while spool.stats().removing > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(spool.stats().live, 1, "deleted once it could be");
}

#[tokio::test]
async fn leased_rows_are_not_leased_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    spool.store((1..=5).map(|n| record("a", &n.to_string(), &[0; 100])).collect()).await.unwrap();
    let first = spool.lease_oldest(&"a".into(), 2, u64::MAX).await.unwrap();
    let second = spool.lease_oldest(&"a".into(), 10, 1).await.unwrap();
    assert_eq!((keys(&first), keys(&second)), (vec!["1", "2"], vec!["3"]), "at least one past the bytes");
    drop(first);
    assert_eq!(keys(&oldest(&spool, "a").await), ["1", "2", "4", "5"]);
}

#[tokio::test]
async fn parked_rows_are_kept_listed_and_requeued() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    spool.store(vec![record("a", "1", b"x"), record("a", "2", b"yy")]).await.unwrap();
    let rows = oldest(&spool, "a").await;
    assert!(spool.park(rows[0].id, "too large for the topic").await.unwrap());
    assert!(!spool.park(rows[0].id, "again").await.unwrap());
    let id = rows[0].id;
    drop(rows);
    assert_eq!(keys(&oldest(&spool, "a").await), ["2"]);
    drop(spool);
    let (spool, opened) = open(dir.path());
    assert_eq!((opened.live, opened.parked), (1, 1));
    let reader = SpoolReader::open(dir.path()).unwrap();
    let parked = Filter { state: Some(RowState::Parked), topic: None };
    let listed = reader.list(&parked, 0, 10).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].id, listed[0].why.as_deref()), (id, Some("too large for the topic")));
    assert_eq!(reader.show(id).unwrap().unwrap().record.unwrap().value(), b"x");
    assert_eq!(spool.requeue(Some(&[id, 999])).await.unwrap(), 1);
    assert_eq!(keys(&oldest(&spool, "a").await), ["1", "2"]);
    assert_eq!((spool.stats().live, spool.stats().parked), (2, 0));
    assert_eq!(reader.list(&parked, 0, 10).unwrap(), []);
    for row in oldest(&spool, "a").await {
        spool.park(row.id, "x").await.unwrap();
    }
    assert_eq!(spool.requeue(None).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_wait_together_share_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    let go = block(&spool);
    let before = spool.stats().commits;
    let stores: Vec<_> = (0..200)
        .map(|n| {
            let spool = spool.clone();
            tokio::spawn(async move { spool.store(vec![record("a", &n.to_string(), b"x")]).await })
        })
        .collect();
    while spool.shared.waiting() < 200 {
        tokio::task::yield_now().await;
    }
    go.send(()).unwrap();
    for store in stores {
        store.await.unwrap().unwrap();
    }
    let commits = spool.stats().commits - before;
    assert!(commits <= 4, "{commits} commits for 200 stores");
    assert_eq!(spool.stats().live, 200);
}

#[tokio::test]
async fn a_queue_that_the_disk_does_not_empty_refuses_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    let go = block(&spool);
    let mut waiting = Vec::new();
    let refused = loop {
        let mut store = Box::pin(spool.store(vec![record("a", "k", &[0; 900_000])]));
        match futures_util::poll!(&mut store) {
            std::task::Poll::Ready(answer) => break answer,
            std::task::Poll::Pending => waiting.push(store),
        }
    };
    assert_eq!(refused, Err(StoreError::Busy));
    assert!((60..=100).contains(&waiting.len()), "{}", waiting.len());
    go.send(()).unwrap();
    for store in waiting {
        store.await.unwrap();
    }
}
