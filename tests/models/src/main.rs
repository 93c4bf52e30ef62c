//! Models of the shared counters: loom runs each model for every interleaving of the threads and every visibility of
//! relaxed stores. The counters are compiled from the service's own files; `sync` has loom's types instead of the standard
//! library's.
#![allow(dead_code, reason = "the models use only parts of the files")]

/// `quick_cache::sync::Cache` is the table in `sync`: loom cannot observe quick_cache's own locks.
extern crate self as quick_cache;

mod sync;

#[path = "../../../src/quota.rs"]
mod quota;

#[path = "../../../src/names.rs"]
mod names;

mod http;
mod spool;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use loom::thread;
use quota::{Usage, Rate};

/// Runs a model in every order, and prints the number of orders. The program's argument selects models by a part of their
/// name.
fn model(name: &str, run: impl Fn() + Send + Sync + 'static) {
    if std::env::args().nth(1).is_some_and(|wanted| !name.contains(&wanted)) {
        return;
    }
    let (orders, start) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let counted = orders.clone();
    loom::model(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        run();
    });
    let orders = orders.load(Ordering::Relaxed);
    println!("{name}: {orders} orders in {:.1?}", start.elapsed());
    assert!(orders > 1, "{name}: the threads did not interact");
}

fn main() {
    model("usage never exceeds the limit, and ends at zero", limit);
    model("concurrent usage is counted completely", rate);
    model("concurrent takers never exceed the burst, and refusals are not counted", take);
    http::models();
    spool::models();
}

/// Takes two and one. Each tries to take one more, which exceeds the limit while both hold theirs.
fn limit() {
    const LIMIT: usize = 3;
    let bytes = Arc::new(Usage::default());
    // The amounts of the guards. loom does not observe this counter, so that it adds no orders.
    let held = Arc::new(AtomicUsize::new(0));
    let threads = [2, 1].map(|amount| {
        let (bytes, held) = (bytes.clone(), held.clone());
        let take = move || {
            let Some(mut taken) = bytes.take(amount, LIMIT) else { return };
            let mut amount_held = amount;
            assert!(held.fetch_add(amount, Ordering::Relaxed) + amount <= LIMIT);
            if taken.grow(1, LIMIT) {
                amount_held += 1;
                assert!(held.fetch_add(1, Ordering::Relaxed) < LIMIT);
            }
            assert!(bytes.used() <= LIMIT);
            held.fetch_sub(amount_held, Ordering::Relaxed);
            drop(taken);
        };
        thread::spawn(take)
    });
    assert!(bytes.used() <= LIMIT);
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(bytes.used(), 0);
    assert!(bytes.take(LIMIT, LIMIT).is_some());
}

/// Uses 40, 10 and 49 of a burst of a hundred concurrently, at ten per second.
fn rate() {
    let rate = Rate { per_second: 10, burst: Duration::from_secs(10), debt: Duration::from_secs(1) };
    let used = Arc::new(sync::atomic::AtomicU64::new(0));
    let now = quota::nanos(Duration::from_secs(1000));
    let threads = [vec![40, 10], vec![49]].map(|amounts| {
        let used = used.clone();
        thread::spawn(move || amounts.into_iter().for_each(|amount| rate.add(&used, amount, now)))
    });
    assert!(!rate.is_used_up(&used, now), "one remains");
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(!rate.is_used_up(&used, now), "one remains");
    rate.add(&used, 1, now);
    assert!(rate.is_used_up(&used, now), "none remains");
}

/// Takes two, and twice one, of a burst of three concurrently.
fn take() {
    const BURST: u64 = 3;
    let rate = Rate { per_second: 10, burst: Duration::from_millis(300), debt: Duration::ZERO };
    let used = Arc::new(sync::atomic::AtomicU64::new(0));
    let now = quota::nanos(Duration::from_secs(1000));
    let threads = [vec![2], vec![1, 1]].map(|amounts| {
        let used = used.clone();
        thread::spawn(move || amounts.into_iter().filter(|amount| rate.take(&used, *amount, now)).sum::<u64>())
    });
    let taken: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!([2, BURST].contains(&taken), "{taken}");
    assert!(rate.take(&used, BURST - taken, now));
    assert!(rate.is_used_up(&used, now));
}
