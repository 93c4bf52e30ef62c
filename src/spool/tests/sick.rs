//! A disk that fails, and a file that another program holds.

use super::image::{filled, memory, row};
use super::*;
use crate::observe::health;

#[tokio::test]
async fn c5_a_disk_that_fails_is_down_with_its_cause_until_a_write_succeeds() {
    let dir = memory();
    let spool = filled(dir.path(), 1).await;
    on_writer(&spool, |_, fault| fault.io = true).await;
    assert!(matches!(spool.store(vec![row(1)]).await, Err(StoreError::Error(_))));
    let (state, why) = spool.stats().health();
    assert!(state == health::PartState::Down && why.contains("disk I/O error"), "{why}");
    // It still fails after some retries.
    let tries = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    while tries.load(std::sync::atomic::Ordering::Relaxed) < 5 {
        let tries = tries.clone();
        on_writer(&spool, move |_, fault| {
            tries.store(fault.tries.len(), std::sync::atomic::Ordering::Relaxed);
        })
        .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(spool.stats().health().0, health::PartState::Down);
    on_writer(&spool, |_, fault| fault.io = false).await;
    // No delivery is needed for that.
    eventually("a write to succeed", || spool.stats().health().0 == health::PartState::Ok).await;
    spool.store(vec![row(1)]).await.unwrap();
    assert_eq!(keys(&oldest(&spool, "a").await), ["0", "1"]);
}

/// Another program that holds SQLite's write lock.
fn locked(dir: &Path) -> rusqlite::Connection {
    let other = rusqlite::Connection::open(format::file(dir)).unwrap();
    other.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn k11_a_write_lock_of_another_program_is_waited_for_and_reported() {
    let dir = memory();
    let spool = filled(dir.path(), 1).await;
    let other = locked(dir.path());
    let storing = tokio::spawn({
        let spool = spool.clone();
        async move { spool.store(vec![row(1)]).await }
    });
    eventually("the lock to be reported", || spool.stats().failing.is_some()).await;
    let (state, why) = spool.stats().health();
    assert!(state == health::PartState::Down && why.contains("another program"), "{why}");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!storing.is_finished(), "the store was dropped");
    other.execute_batch("ROLLBACK").unwrap();
    storing.await.unwrap().unwrap();
    assert_eq!(spool.stats().health().0, health::PartState::Ok);
    assert_eq!(keys(&oldest(&spool, "a").await), ["0", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn k11_a_store_whose_caller_has_given_up_is_dropped() {
    let dir = memory();
    let spool = filled(dir.path(), 1).await;
    let other = locked(dir.path());
    let late = tokio::time::timeout(Duration::from_millis(400), spool.store(vec![row(1)])).await;
    assert!(late.is_err());
    // The lock is reported, and its end noticed, also without a delivery.
    eventually("the lock to be reported", || spool.stats().failing.is_some()).await;
    // Four times a second, the writer drops the stores whose callers are gone.
    tokio::time::sleep(Duration::from_millis(800)).await;
    other.execute_batch("ROLLBACK").unwrap();
    eventually("a write to succeed", || spool.stats().failing.is_none()).await;
    spool.store(vec![row(2)]).await.unwrap();
    assert_eq!(keys(&oldest(&spool, "a").await), ["0", "2"]);
}
