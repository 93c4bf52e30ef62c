//! Damaged files.

use super::*;

/// Fills a spool, closes it, and overwrites some of its pages.
async fn damaged(dir: &Path, rows: u64, damage: impl FnOnce(&mut Vec<u8>)) {
    let (spool, _) = open(dir);
    for n in 0..rows {
        let topic = if n % 2 == 0 { "a" } else { "b" };
        spool.store(vec![record(topic, &n.to_string(), &[n as u8 + 1; 700])]).await.unwrap();
    }
    spool.park(1, "parked").await.unwrap();
    spool.close(SOON).await.unwrap();
    let path = format::file(dir);
    let mut bytes = std::fs::read(&path).unwrap();
    damage(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
}

/// The number of lost rows, which must be exact.
fn exactly(salvage: &Salvage) -> u64 {
    assert_eq!(salvage.lost.most, Some(salvage.lost.least), "{salvage:?}");
    salvage.lost.least
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_its_rows_salvaged_and_the_lost_counted() {
    for (pages, most) in [(20..23, 15), (10..12, 15), (30..31, 6), (4..40, 200)] {
        let dir = tempfile::tempdir().unwrap();
        let range = pages.start * 4096..pages.end * 4096;
        let mut evidence = Vec::new();
        damaged(dir.path(), 200, |bytes| {
            for byte in &mut bytes[range] {
                *byte = 0xA5;
            }
            evidence = bytes.clone();
        })
        .await;
        let (spool, opened) = open(dir.path());
        let salvage = opened.salvage.expect("salvaged");
        assert_eq!(salvage.kept + exactly(&salvage), 200, "pages {pages:?}: {salvage:?}");
        assert!((1..=most).contains(&exactly(&salvage)), "pages {pages:?}: {salvage:?}");
        assert_eq!(opened.live + opened.parked, salvage.kept);
        assert_eq!(std::fs::read(&salvage.aside).unwrap(), evidence, "set aside unchanged");
        for topic in ["a", "b"] {
            let rows = oldest(&spool, topic).await;
            assert!(rows.is_sorted_by_key(|row| row.id));
            for row in rows {
                let n: u64 = row.record.key().parse().unwrap();
                assert_eq!(row.record.value(), [n as u8 + 1; 700]);
                assert_eq!(row.id, n as i64 + 1);
            }
        }
        spool.store(vec![record("a", "new", b"x")]).await.unwrap();
        assert!(oldest(&spool, "a").await.last().unwrap().id > 200, "no id is assigned twice");
    }
}

#[tokio::test]
async fn a_file_that_lost_its_end_is_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    damaged(dir.path(), 200, |bytes| bytes.truncate(bytes.len() / 2 / 4096 * 4096)).await;
    let salvage = open(dir.path()).1.salvage.unwrap();
    assert!(salvage.kept >= 50 && exactly(&salvage) >= 50, "{salvage:?}");
    assert_eq!(salvage.kept + exactly(&salvage), 200);
}

#[tokio::test]
async fn damage_found_while_running_stops_storing_and_is_salvaged_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    spool.store((0..200).map(|n| record("a", &n.to_string(), &[1; 700])).collect()).await.unwrap();
    let path = format::file(dir.path());
    on_writer(&spool, move |db, _| {
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0xA5; 3 * 4096], 20 * 4096).unwrap();
    })
    .await;
    assert!(spool.lease_oldest(&"a".into(), 1_000, u64::MAX).await.is_err());
    assert!(spool.stats().damaged);
    assert!(matches!(spool.store(vec![record("a", "x", b"x")]).await, Err(StoreError::Error(_))));
    drop(spool);
    let (spool, opened) = open(dir.path());
    let salvage = opened.salvage.unwrap();
    assert_eq!(salvage.kept + exactly(&salvage), 200);
    assert!(!spool.stats().damaged && !dir.path().join("damaged").exists());
}

#[tokio::test]
async fn a_file_that_is_no_database_any_more_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    damaged(dir.path(), 10, |bytes| bytes[..4096].fill(0x55)).await;
    let (spool, opened) = open(dir.path());
    assert!(opened.salvage.unwrap().aside.exists());
    spool.store(vec![record("a", "new", b"x")]).await.unwrap();
}

#[tokio::test]
async fn a_row_whose_bytes_changed_is_parked_and_never_delivered() {
    let dir = tempfile::tempdir().unwrap();
    damaged(dir.path(), 10, |bytes| {
        // SQLite leaves old copies of a row in free space.
        let copies: Vec<usize> =
            (0..bytes.len() - 700).filter(|at| bytes[*at..*at + 700] == [4; 700]).collect();
        assert!(!copies.is_empty());
        copies.iter().for_each(|at| bytes[at + 300] = 99);
    })
    .await;
    let (spool, opened) = open(dir.path());
    assert_eq!(opened.salvage, None, "no check finds it");
    assert_eq!(keys(&oldest(&spool, "b").await), ["1", "5", "7", "9"]);
    spool.flush().await.unwrap();
    assert_eq!(spool.stats().parked, 2);
}

#[tokio::test]
async fn a_salvage_that_was_cut_short_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    damaged(dir.path(), 10, |_| {}).await;
    let new = dir.path().join("spool.db.salvage");
    std::fs::copy(format::file(dir.path()), &new).unwrap();
    std::fs::write(dir.path().join("salvage"), "/elsewhere/spool.db.corrupt-1").unwrap();
    std::fs::write(dir.path().join("spool.db-wal"), "the old log").unwrap();
    let (_spool, opened) = open(dir.path());
    assert_eq!(opened.live + opened.parked, 10);
    assert!(dir.path().join("spool.db.corrupt-1").exists());
    assert_eq!(std::fs::read(dir.path().join("spool.db.corrupt-1-wal")).unwrap(), b"the old log");
    assert!(!new.exists() && !dir.path().join("salvage").exists());
}
