//! A full disk.

use super::*;

#[tokio::test]
async fn on_a_full_disk_the_reserve_is_released_for_deletes_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let reserve = dir.path().join("reserve");
    let (spool, _) = open(dir.path());
    spool.store(vec![record("a", "1", b"x"), record("a", "2", b"x")]).await.unwrap();
    assert!(reserve.exists());
    on_writer(&spool, |_, fault| fault.full = true).await;
    assert_eq!(spool.store(vec![record("a", "3", b"x")]).await, Err(StoreError::Full(Bound::Disk)));
    assert!(reserve.exists(), "no delete needed it yet");
    let rows = oldest(&spool, "a").await;
    // Upkeep in between may create the reserve again: the test's real disk is not full.
    let log = || std::fs::metadata(dir.path().join("spool.db-wal")).unwrap().len();
    let before = log();
    spool.remove(&[rows[0].id]);
    spool.flush().await.unwrap();
    assert_eq!(spool.stats().live, 1);
    assert!(log() >= before, "on a full disk the log keeps its blocks");
    on_writer(&spool, |_, fault| fault.full = false).await;
    while spool.stats().full.is_some() || !spool.stats().reserve {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(reserve.exists());
    spool.store(vec![record("a", "3", b"x")]).await.unwrap();
}

#[tokio::test]
async fn no_more_of_the_reserve_is_released_than_the_deletes_need() {
    const MIB: u64 = 1024 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open_with(dir.path(), SpoolLimits { reserve: 4 * MIB, ..LIMITS });
    spool.store(vec![record("a", "1", b"x")]).await.unwrap();
    on_writer(&spool, |_, fault| *fault = Fault { full: true, left: 2 * MIB, ..Fault::default() }).await;
    let rows = oldest(&spool, "a").await;
    spool.remove(&[rows[0].id]);
    spool.flush().await.unwrap();
    // The flush may be a transaction of its own, or follow upkeep that completes the reserve.
    on_writer(&spool, |_, fault| {
        assert!(fault.tries.starts_with(&[4 * MIB, 3 * MIB, 2 * MIB]), "{:?}", fault.tries);
        assert!(fault.tries.iter().all(|left| *left >= 2 * MIB), "{:?}", fault.tries);
    })
    .await;
    assert_eq!(spool.stats().live, 0);
}
