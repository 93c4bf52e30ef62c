//! Files that were removed, replaced or linked.

use super::image::{filled, memory, row};
use super::*;
use crate::observe::health;

#[tokio::test]
async fn a3_nothing_is_acknowledged_into_files_that_are_not_in_the_directory() {
    for name in ["spool.db", "spool.db-wal", "spool.db-shm", "spool.mark", "lock"] {
        let dir = memory();
        let spool = filled(dir.path(), 3).await;
        std::fs::remove_file(dir.path().join(name)).unwrap();
        let refused = spool.store(vec![row(3)]).await.unwrap_err();
        assert!(
            matches!(&refused, StoreError::Error(error) if error.to_string().contains(name)),
            "{refused}"
        );
        // Later stores fail at once, and readiness has the remedy.
        let go = block(&spool);
        let refused = spool.store(vec![row(4)]).await.unwrap_err();
        assert!(refused.to_string().contains("restart"), "{refused}");
        go.send(()).unwrap();
        let (state, why) = spool.stats().health();
        assert!(
            state == health::PartState::Down && why.contains(name) && why.contains("0 live rows"),
            "{why}"
        );
        // Rows in the old files can still go to Kafka.
        let rows = oldest(&spool, "a").await;
        assert!(keys(&rows).starts_with(&["0", "1", "2"]), "{name}");
        spool.remove(&rows.iter().map(|row| row.id).collect::<Vec<_>>());
        spool.flush().await.unwrap();
        assert_eq!(spool.stats().live, 0);
        drop(spool);
        // Nothing was lost, so nothing is reported.
        let (spool, opened) = open(dir.path());
        assert_eq!(opened.live, 0, "{name}");
        spool.store(vec![row(5)]).await.unwrap();
    }
}

#[tokio::test]
async fn a3_missing_files_are_noticed_without_a_delivery() {
    let dir = memory();
    let (inner, away) = (dir.path().join("spool"), dir.path().join("away"));
    let spool = filled(&inner, 1).await;
    std::fs::rename(&inner, &away).unwrap();
    eventually("the files to be missed", || spool.stats().astray.is_some()).await;
    // Another directory of this name, with files of the same names.
    drop(filled(&inner, 2).await);
    assert!(spool.store(vec![row(7)]).await.is_err());
    std::fs::remove_dir_all(&inner).unwrap();
    std::fs::rename(&away, &inner).unwrap();
    eventually("the files to be found", || spool.stats().astray.is_none()).await;
    spool.store(vec![row(8)]).await.expect("the same files are back");
}

#[tokio::test]
async fn a3_without_its_lock_file_a_second_process_is_still_refused() {
    let dir = memory();
    let spool = filled(dir.path(), 1).await;
    std::fs::remove_file(dir.path().join("lock")).unwrap();
    assert!(matches!(Spool::open(dir.path(), LIMITS), Err(OpenError::Locked { .. })));
    assert!(probe(dir.path()).unwrap().in_use);
    assert!(!dir.path().join("lock").exists(), "and it leaves nothing behind");
    drop(spool);
    assert!(!probe(dir.path()).unwrap().in_use);
    open(dir.path());
}

#[tokio::test]
async fn a3_a_database_that_was_removed_while_running_is_reported_at_the_next_start() {
    let dir = memory();
    let spool = filled(dir.path(), 5).await;
    for name in ["spool.db", "spool.db-wal", "spool.db-shm"] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    spool.close(SOON).await.unwrap();
    let (_spool, opened) = open(dir.path());
    assert_eq!(opened.salvage.unwrap().lost, Lost { least: 5, most: Some(5) });
}

#[tokio::test]
async fn c2_the_spools_files_are_private_even_if_the_directory_is_not() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = memory();
    let mode = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let spool = filled(dir.path(), 1).await;
    let names: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.len() >= 6, "{names:?}");
    for name in &names {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    // An earlier version left files that others can read.
    spool.close(SOON).await.unwrap();
    drop(spool);
    std::fs::write(dir.path().join("spool.db.corrupt-20260101T000000Z"), "payloads").unwrap();
    let names = [names, vec!["spool.db.corrupt-20260101T000000Z".into()]].concat();
    for name in &names {
        std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let _spool = filled(dir.path(), 1).await;
    for name in &names {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!(mode("."), 0o755, "the directory keeps its mode");
}

#[tokio::test]
async fn c2_no_planted_link_is_followed() {
    for name in ["lock", "reserve", "spool.db", "spool.db-wal", "spool.db-shm", "spool.mark"] {
        let dir = memory();
        let (spool, victim) = (dir.path().join("spool"), dir.path().join("victim"));
        std::fs::create_dir(&spool).unwrap();
        std::fs::write(&victim, "untouched").unwrap();
        std::os::unix::fs::symlink(&victim, spool.join(name)).unwrap();
        let error = Spool::open(&spool, LIMITS).err().unwrap().to_string();
        assert!(error.contains("symbolic link") && error.contains(name), "{name}: {error}");
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched", "{name}");
    }
}
