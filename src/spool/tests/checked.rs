//! The check of the directory before a start: it refuses nothing that the start would open or salvage.

use super::image::{Image, filled, memory};
use super::*;

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The check's error and that of the start. The check must add no file, which could belong to another user than the service.
fn refused(dir: &Path) -> (String, String) {
    let before = names(dir);
    let checked = check_dir(dir).unwrap_err().to_string();
    assert_eq!(names(dir), before);
    (checked, Spool::open(dir, LIMITS).err().unwrap().to_string())
}

#[test]
fn another_programs_database_is_refused_before_the_start_and_by_it() {
    for mode in ["delete", "wal"] {
        let dir = memory();
        let db = rusqlite::Connection::open(format::file(dir.path())).unwrap();
        db.pragma_update_and_check(None, "journal_mode", mode, |_| Ok(())).unwrap();
        db.execute_batch("CREATE TABLE theirs (a INTEGER)").unwrap();
        drop(db);
        let (checked, opened) = refused(dir.path());
        assert!(checked.contains("no hookstream spool"), "{mode}: {checked}");
        assert_eq!(checked, opened, "{mode}");
    }
}

#[tokio::test]
async fn a_newer_spool_is_refused_before_the_start_and_by_it() {
    let dir = memory();
    filled(dir.path(), 1).await.close(SOON).await.unwrap();
    let newer = Image::from_dir(dir.path()).without(mark::FILE).with("spool.db", |bytes| bytes[63] = 2);
    let dir = memory();
    newer.put(dir.path());
    let (checked, opened) = refused(dir.path());
    assert!(checked.contains("format version 2"), "{checked}");
    assert_eq!(checked, opened);
}

#[test]
fn what_a_killed_first_start_leaves_is_a_new_spool() {
    let dir = memory();
    drop(format::open_writer(dir.path()).unwrap());
    assert_eq!(std::fs::metadata(format::file(dir.path())).unwrap().len(), 4096);
    check_dir(dir.path()).unwrap();
    assert_eq!(open(dir.path()).1.salvage, None);
}

#[tokio::test]
async fn a_salvage_that_was_cut_short_is_left_to_the_start() {
    let dir = memory();
    filled(dir.path(), 5).await.close(SOON).await.unwrap();
    // The mark was damaged and is set aside; the damaged file is about to be.
    std::fs::copy(format::file(dir.path()), dir.path().join("spool.db.salvage")).unwrap();
    std::fs::write(dir.path().join("salvage"), "spool.db.corrupt-1").unwrap();
    std::fs::remove_file(dir.path().join(mark::FILE)).unwrap();
    Image::from_dir(dir.path()).with("spool.db", |bytes| bytes[68] ^= 64).put(dir.path());
    check_dir(dir.path()).unwrap();
    assert_eq!(open(dir.path()).1.live, 5);
}
