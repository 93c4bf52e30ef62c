//! Random orders of calls, one after the other and concurrently.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// The seed, printed; `SPOOL_SEED` repeats a run.
fn random() -> impl FnMut(u64) -> u64 + Send {
    let seed = std::env::var("SPOOL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x5eed_u64);
    println!("SPOOL_SEED={seed}");
    let mut state = seed | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

#[tokio::test]
async fn any_order_of_calls_keeps_to_the_model() {
    let mut random = random();
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(dir.path());
    // key -> (topic, live); keys rise in order of arrival
    let mut model: BTreeMap<u64, (usize, bool)> = BTreeMap::new();
    let topics = ["a", "b", "c"];
    let mut next = 0;
    for _ in 0..600 {
        match random(10) {
            0..=3 => {
                let mut records = Vec::new();
                for _ in 0..=random(4) {
                    let topic = random(3) as usize;
                    records.push(record(
                        topics[topic],
                        &next.to_string(),
                        &vec![next as u8; 1 + random(9000) as usize],
                    ));
                    model.insert(next, (topic, true));
                    next += 1;
                }
                spool.store(records).await.unwrap();
            }
            4..=7 => {
                let topic = random(3) as usize;
                let max_rows = 1 + random(6) as usize;
                let rows = spool.lease_oldest(&topics[topic].into(), max_rows, u64::MAX).await.unwrap();
                let expected: Vec<u64> = model
                    .iter()
                    .filter(|(_, row)| **row == (topic, true))
                    .map(|(key, _)| *key)
                    .take(max_rows)
                    .collect();
                let found: Vec<u64> = rows.iter().map(|row| row.record.key().parse().unwrap()).collect();
                assert_eq!(found, expected);
                for (row, key) in rows.iter().zip(found) {
                    match random(4) {
                        0 => {
                            assert!(spool.park(row.id, "why").await.unwrap());
                            model.insert(key, (topic, false));
                        }
                        1 => {}
                        _ => {
                            spool.remove(&[row.id]);
                            model.remove(&key);
                        }
                    }
                }
                if random(2) == 0 {
                    drop(rows);
                    continue; // the next lease comes while deletes are pending
                }
                spool.flush().await.unwrap();
            }
            8 => {
                let parked = model.values().filter(|(_, live)| !live).count() as u64;
                assert_eq!(spool.requeue(None).await.unwrap(), parked);
                model.values_mut().for_each(|(_, live)| *live = true);
            }
            _ => {
                drop(spool);
                (spool, _) = open(dir.path());
            }
        }
        spool.flush().await.unwrap();
        let stats = spool.stats();
        let live = model.values().filter(|(_, live)| *live).count() as u64;
        assert_eq!((stats.live, stats.parked), (live, model.len() as u64 - live));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_removed_row_is_leased_again_with_several_drains() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    let mut random = random();
    let stored = Arc::new(AtomicBool::new(false));
    let removed: Arc<Mutex<HashSet<i64>>> = Arc::default();
    let mut drains = Vec::new();
    for drain in 0..3 {
        let (spool, stored, removed) = (spool.clone(), stored.clone(), removed.clone());
        drains.push(tokio::spawn(async move {
            loop {
                let last = stored.load(Ordering::SeqCst);
                let rows = spool.lease_oldest(&"a".into(), 1 + drain * 7, u64::MAX).await.unwrap();
                if rows.is_empty() && last && spool.stats().live == spool.stats().removing {
                    return;
                }
                for (place, row) in rows.iter().enumerate() {
                    // Every fifth lease is dropped, and its row must be leased again.
                    if !(row.id as usize + place).is_multiple_of(5) || rows.len() == 1 {
                        assert!(removed.lock().unwrap().insert(row.id), "row {} was leased again", row.id);
                        spool.remove(&[row.id]);
                    }
                }
            }
        }));
    }
    for n in 0..1_500 {
        let records = (0..=random(3)).map(|part| record("a", &format!("{n}-{part}"), &[1; 300])).collect();
        spool.store(records).await.unwrap();
    }
    stored.store(true, Ordering::SeqCst);
    for drain in drains {
        drain.await.unwrap();
    }
    spool.flush().await.unwrap();
    let stats = spool.stats();
    assert_eq!((stats.live, stats.removing, stats.bytes), (0, 0, 0));
}
