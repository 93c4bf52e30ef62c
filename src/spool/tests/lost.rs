//! Damage that looks like a clean end of the log, and clean ends that look like damage.

use super::image::{Image, filled, memory, opened, row};
use super::*;
use crate::observe::health;

const ROWS: u64 = 200;
const FRAME: usize = 4096 + 24;

/// All rows in the log, one transaction each, as kill -9 leaves them.
async fn killed() -> Image {
    let dir = memory();
    let spool = filled(dir.path(), ROWS).await;
    let image = Image::from_dir(dir.path());
    drop(spool);
    image
}

/// All rows in the file, none in the log.
async fn closed() -> Image {
    let dir = memory();
    filled(dir.path(), ROWS).await.close(SOON).await.unwrap();
    Image::from_dir(dir.path())
}

/// Opens an image. All rows must be there or reported as lost, in readiness and in the report, and the damaged files
/// must be set aside unchanged. Returns the number of lost rows.
async fn lost_rows(what: &str, image: &Image) -> u64 {
    let (dir, spool, opened, keys) = opened(image).await;
    let salvage = opened.salvage.unwrap_or_else(|| panic!("{what}: no report"));
    println!("{what}: {salvage}");
    assert_eq!(salvage.lost.most, Some(salvage.lost.least), "{what}: {salvage:?}");
    assert_eq!(salvage.kept + salvage.lost.least, ROWS, "{what}: {salvage:?}");
    assert_eq!(keys.len() as u64, salvage.kept, "{what}");
    for (name, bytes) in &image.0 {
        if let Some(end) = name.strip_prefix("spool.db").filter(|end| *end != "-shm") {
            let aside = format::with(&salvage.aside, end);
            assert_eq!(&std::fs::read(&aside).unwrap(), bytes, "{what}: {}", aside.display());
        }
    }
    assert_eq!(reports(dir.path()).unwrap(), std::slice::from_ref(&salvage), "{what}");
    let (state, why) = spool.stats().health();
    assert_eq!(state, health::PartState::Degraded, "{what}");
    assert!(why.contains(&format!("{} lost", salvage.lost.least)), "{why}");
    // No id is assigned twice, and the next start finds no damage.
    spool.store(vec![record("a", "999", &[1])]).await.unwrap();
    assert!(spool.topics().iter().any(|topic| topic.live == salvage.kept + 1), "{what}");
    drop(spool);
    let (again, opened) = open(dir.path());
    assert_eq!((opened.salvage, opened.live), (None, salvage.kept + 1), "{what}");
    assert!(oldest(&again, "a").await.last().unwrap().id > ROWS as i64, "{what}");
    assert_eq!(again.stats().health().0, health::PartState::Degraded, "{what}: the report is still there");
    salvage.lost.least
}

#[tokio::test]
async fn a1_a_flipped_bit_in_the_wal_is_reported_and_costs_a_row_at_most() {
    let image = killed().await;
    let length = image.clone().file("spool.db-wal").len();
    let places = [
        ("the log's magic", 1),
        ("the log's salt", 17),
        ("the log's checksum", 26),
        ("the first frame's page number", 32 + 3),
        ("the first frame's salt", 32 + 9),
        ("the first frame's checksum", 32 + 17),
        ("the first frame's page", 32 + 24 + 500),
        ("the middle", length / 2),
        ("the last frame's page", length - 1000),
        ("the last frame's checksum", length - FRAME + 20),
    ];
    for (what, at) in places {
        let flipped = image.with("spool.db-wal", |bytes| bytes[at] ^= 4);
        let lost = lost_rows(what, &flipped).await;
        assert!(lost <= 1, "{what}: {lost}");
    }
}

#[tokio::test]
async fn a1_a_wal_that_is_cut_or_gone_is_reported_with_the_number_of_lost_rows() {
    let image = killed().await;
    let length = image.clone().file("spool.db-wal").len();
    for (what, left) in [
        ("a third", length / 3),
        ("a frame less", length - FRAME),
        ("a byte less", length - 1),
        ("a header", 32),
        ("nothing", 0),
    ] {
        let lost = lost_rows(what, &image.with("spool.db-wal", |bytes| bytes.truncate(left))).await;
        assert!(lost >= 1, "{what}");
    }
    assert_eq!(lost_rows("no log", &image.without("spool.db-wal")).await, ROWS);
}

#[tokio::test]
async fn a1_a_database_that_is_gone_or_empty_or_headless_is_reported_and_its_rows_are_found() {
    let image = killed().await;
    assert_eq!(lost_rows("removed beside its log", &image.without("spool.db")).await, 0);
    assert_eq!(lost_rows("empty beside its log", &image.with("spool.db", Vec::clear)).await, 0);
    let image = closed().await;
    assert_eq!(lost_rows("removed", &image.without("spool.db")).await, ROWS);
    assert_eq!(lost_rows("empty", &image.with("spool.db", Vec::clear)).await, ROWS);
    assert_eq!(lost_rows("first 100 bytes", &image.with("spool.db", |bytes| bytes[..100].fill(0))).await, 0);
    assert_eq!(lost_rows("first page", &image.with("spool.db", |bytes| bytes[..4096].fill(0))).await, 0);
    // These make it another program's file, or a later version's.
    for (what, at) in [("application", 68), ("version", 60), ("write-ahead", 18), ("page size", 16)] {
        assert_eq!(lost_rows(what, &image.with("spool.db", |bytes| bytes[at] ^= 64)).await, 0);
    }
    let cut = image.with("spool.db", |bytes| bytes.truncate(bytes.len() / 2 / 4096 * 4096));
    assert!(lost_rows("half", &cut).await > 50);
}

#[tokio::test]
async fn a1_an_index_that_lacks_a_row_is_rebuilt() {
    let dir = memory();
    filled(dir.path(), ROWS).await.close(SOON).await.unwrap();
    let db = rusqlite::Connection::open(format::file(dir.path())).unwrap();
    // A row with a wrong id in the index would never be delivered.
    db.execute_batch("PRAGMA writable_schema = ON; UPDATE sqlite_schema SET type = 'table', tbl_name = 'by_topic', sql = 'CREATE TABLE by_topic (state, topic, id, bytes, PRIMARY KEY (state, topic, id, bytes)) WITHOUT ROWID' WHERE name = 'by_topic'").unwrap();
    drop(db);
    let db = rusqlite::Connection::open(format::file(dir.path())).unwrap();
    db.execute("UPDATE by_topic SET id = 5000 WHERE id = 7", []).unwrap();
    db.execute_batch("PRAGMA writable_schema = ON; UPDATE sqlite_schema SET type = 'index', tbl_name = 'records', sql = 'CREATE INDEX by_topic ON records (state, topic, id, bytes)' WHERE name = 'by_topic'").unwrap();
    drop(db);
    assert_eq!(lost_rows("index", &Image::from_dir(dir.path())).await, 0);
}

/// Opens an image that kill -9 or a power cut may leave: it must have these rows and no report.
async fn is_clean(what: &str, image: &Image, rows: u64) {
    let (dir, spool, opened, keys) = opened(image).await;
    assert_eq!(opened.salvage, None, "{what}");
    assert_eq!(keys, (0..rows).collect::<Vec<_>>(), "{what}");
    assert_eq!(spool.stats().health().0, health::PartState::Ok, "{what}");
    assert!(reports(dir.path()).unwrap().is_empty(), "{what}");
}

#[tokio::test]
async fn a1_what_a_kill_leaves_is_no_damage() {
    let dir = memory();
    let spool = filled(dir.path(), ROWS).await;
    let image = Image::from_dir(dir.path());
    is_clean("between two transactions", &image, ROWS).await;

    // During a transaction that did not fit into memory, so that its frames were written before its commit.
    let at = dir.path().to_owned();
    let (send, images) = mpsc::channel();
    on_writer(&spool, move |db, _| {
        db.execute_batch("PRAGMA cache_size = 2; BEGIN IMMEDIATE").unwrap();
        for n in 500..700 {
            InsertRow::from_record(row(n)).insert(db).unwrap();
        }
        send.send(Image::from_dir(&at)).unwrap();
        db.execute_batch("ROLLBACK; PRAGMA cache_size = -8192").unwrap();
    })
    .await;
    let within = images.recv().unwrap();
    let (log, before) = (within.clone().file("spool.db-wal").len(), image.clone().file("spool.db-wal").len());
    assert!(log > before + 20 * FRAME, "the log has the transaction's frames: {log}");
    is_clean("in a transaction", &within, ROWS).await;
    for cut in [1, 24, 2000, FRAME + 1] {
        let torn = within.with("spool.db-wal", |bytes| bytes.truncate(log - cut));
        is_clean("in a frame", &torn, ROWS).await;
    }
    let zeros = within.with("spool.db-wal", |bytes| bytes[before..before + 8192].fill(0));
    is_clean("with pages that a power cut took", &zeros, ROWS).await;

    // The frames of a failed transaction have the current salts; a shorter one overwrites some of them.
    spool.store(vec![row(ROWS)]).await.unwrap();
    is_clean("after a transaction that failed", &Image::from_dir(dir.path()), ROWS + 1).await;

    // Behind a shorter transaction is the end of a longer one, with its commit, that was never synced.
    let continued = async |rows: u64| {
        let (dir, spool, ..) = opened(&image).await;
        spool.store((0..rows).map(|n| row(ROWS + n)).collect()).await.unwrap();
        Image::from_dir(dir.path())
    };
    let (longer, shorter) = (continued(50).await, continued(1).await);
    let end = longer.clone().file("spool.db-wal").clone();
    let both = shorter.with("spool.db-wal", |bytes| {
        assert!(end.len() > bytes.len() + 2 * FRAME);
        bytes.extend_from_slice(&end[bytes.len()..]);
    });
    is_clean("in front of a transaction that was never synced", &both, ROWS + 1).await;

    // Between the commit and the mark.
    let older = Image::from_dir(dir.path()).file(mark::FILE).clone();
    spool.store(vec![row(ROWS + 1)]).await.unwrap();
    let ahead = Image::from_dir(dir.path()).with(mark::FILE, |bytes| *bytes = older);
    is_clean("ahead of its mark", &ahead, ROWS + 2).await;

    // The log starts over: behind it are frames with other salts.
    on_writer(&spool, |db, _| db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap()).await;
    is_clean("after a checkpoint", &Image::from_dir(dir.path()), ROWS + 2).await;
    spool.store(vec![row(ROWS + 2)]).await.unwrap();
    is_clean("in a log that started over", &Image::from_dir(dir.path()), ROWS + 3).await;
    let empty = Image(Vec::new());
    is_clean("before anything", &empty, 0).await;
    is_clean("before the first page", &Image(vec![("spool.db", Vec::new())]), 0).await;
}

#[tokio::test]
async fn a1_flipped_bits_in_unused_places_are_no_damage() {
    let dir = memory();
    let spool = filled(dir.path(), ROWS).await;
    on_writer(&spool, |db, _| db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap()).await;
    spool.store(vec![row(ROWS)]).await.unwrap();
    let image = Image::from_dir(dir.path());
    let end = image.clone().file("spool.db-wal").len();
    is_clean(
        "frames of the log before",
        &image.with("spool.db-wal", |bytes| bytes[end - 5000] ^= 1),
        ROWS + 1,
    )
    .await;
    is_clean("shared memory", &image.with("spool.db-shm", |bytes| bytes[..200].fill(7)), ROWS + 1).await;
    is_clean("no shared memory", &image.without("spool.db-shm"), ROWS + 1).await;
}

#[tokio::test]
async fn a1_rows_that_were_delivered_may_hide_lost_ones_so_a_range_is_reported() {
    let dir = memory();
    let spool = filled(dir.path(), ROWS).await;
    for some in oldest(&spool, "a").await.chunks(10).take(5) {
        spool.remove(&some.iter().map(|row| row.id).collect::<Vec<_>>());
        spool.flush().await.unwrap();
    }
    let image = Image::from_dir(dir.path());
    drop(spool);
    let due: Vec<u64> = (50..ROWS).collect();
    let (_, _, opening, keys) = opened(&image).await;
    assert_eq!((opening.salvage, &keys), (None, &due));
    let length = image.clone().file("spool.db-wal").len();
    for at in (100..length).step_by(length / 40) {
        for image in [
            image.with("spool.db-wal", |bytes| bytes[at] ^= 1),
            image.with("spool.db-wal", |bytes| bytes.truncate(at)),
        ] {
            let (_, _, opening, keys) = opened(&image).await;
            let lost = due.iter().filter(|key| !keys.contains(key)).count() as u64;
            let reported = opening.salvage.expect("a report").lost;
            assert!(
                reported.least <= lost && reported.most.is_some_and(|most| lost <= most),
                "{at}: {lost}, reported {reported}"
            );
        }
    }
}

#[tokio::test]
async fn a1_without_its_mark_the_number_of_lost_rows_is_reported_as_unknown() {
    let image = closed().await;
    for (what, image) in [
        ("removed", image.without(mark::FILE)),
        ("empty", image.with(mark::FILE, Vec::clear)),
        ("zeros", image.with(mark::FILE, |bytes| bytes.fill(0))),
    ] {
        let (dir, spool, opened, keys) = opened(&image).await;
        let salvage = opened.salvage.unwrap();
        assert_eq!((salvage.lost, salvage.kept, keys.len() as u64), (Lost::UNKNOWN, ROWS, ROWS), "{what}");
        assert!(spool.stats().health().1.contains("unknown"), "{what}");
        let aside = format::with(&salvage.aside, "-mark");
        assert_eq!(aside.exists(), what != "removed");
        drop(spool);
        assert_eq!(open(dir.path()).1.salvage, None, "{what}: reported once");
    }
}

#[tokio::test]
async fn a1_a_report_is_shown_until_it_is_removed() {
    let image = killed().await.without("spool.db-wal");
    let (dir, spool, opened, _) = opened(&image).await;
    assert_eq!(spool.stats().salvaged.len(), 1);
    let aside = opened.salvage.unwrap().aside;
    std::fs::remove_file(format::with(&aside, ".json")).unwrap();
    eventually("the report to be missed", || spool.stats().salvaged.is_empty()).await;
    assert_eq!(spool.stats().health().0, health::PartState::Ok);
    drop((spool, dir));
}

/// A spool as versions without the mark created it.
fn old(dir: &Path, rows: u64) {
    let mut db = rusqlite::Connection::open(format::file(dir)).unwrap();
    db.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).unwrap();
    db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    db.execute_batch(
        "BEGIN;
         CREATE TABLE records (
            id INTEGER PRIMARY KEY AUTOINCREMENT, state INTEGER NOT NULL, bytes INTEGER NOT NULL, timestamp INTEGER NOT NULL,
            topic TEXT NOT NULL, key TEXT NOT NULL, headers TEXT NOT NULL, why TEXT, sum INTEGER NOT NULL, value BLOB NOT NULL
         ) STRICT;
         CREATE INDEX by_topic ON records (state, topic, id, bytes);
         PRAGMA application_id = 1751872372; PRAGMA user_version = 1; COMMIT;",
    )
    .unwrap();
    for n in 0..rows + 3 {
        let work = db.transaction().unwrap();
        InsertRow::from_record(row(n)).insert(&work).unwrap();
        work.commit().unwrap();
    }
    db.execute("DELETE FROM records WHERE id > ?1", [rows]).unwrap();
}

#[tokio::test]
async fn a1_a_directory_without_a_mark_opens_cleanly_and_gets_one() {
    let dir = memory();
    old(dir.path(), ROWS);
    let image = Image::from_dir(dir.path());
    is_clean("old", &image, ROWS).await;
    let (dir, spool, _, _) = opened(&image).await;
    assert_eq!(
        mark::read(dir.path()).unwrap(),
        mark::MarkState::Counts(mark::Counts { given: ROWS + 3, removed: 3 })
    );
    spool.store(vec![row(ROWS)]).await.unwrap();
    drop(spool);
    // An older version uses the file and updates the tally through the trigger.
    let db = rusqlite::Connection::open(format::file(dir.path())).unwrap();
    InsertRow::from_record(row(ROWS + 1)).insert(&db).unwrap();
    db.execute("DELETE FROM records WHERE id <= 2", []).unwrap();
    drop(db);
    let (spool, opened) = open(dir.path());
    assert_eq!((opened.salvage, opened.live), (None, ROWS));
    drop(spool);

    // From then on lost rows are counted; before, their number is unknown.
    let (_, _, opening, _) =
        super::image::opened(&Image::from_dir(dir.path()).with("spool.db", |bytes| bytes.truncate(8192)))
            .await;
    assert_eq!(opening.salvage.unwrap().lost.most, Some(ROWS));
    let flipped = image.with("spool.db-wal", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let (_dir, _, opening, keys) = super::image::opened(&flipped).await;
    let report = opening.salvage.unwrap();
    assert!(
        report.lost.most.is_none() && keys.len() as u64 >= ROWS - 1 && report.aside.exists(),
        "{report:?}"
    );
}
