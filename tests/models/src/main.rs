//! What must be so of the shared counters in whatever order threads meet, and whatever of each other's relaxed stores
//! they see: loom runs each model once for every such order, none left out. The counters are the service's own files;
//! `sync` has loom's types in the place of the standard library's.
#![allow(dead_code, missing_docs, reason = "no more of the files is used than the models need")]

/// `quick_cache::sync::Cache` is the table below: loom does not see quick_cache's own locks.
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

/// Runs it in every order, and says how many there were. Only those whose name contains the program's argument, if any.
fn model(name: &str, run: impl Fn() + Send + Sync + 'static) {
    if std::env::args().nth(1).is_some_and(|wanted| !name.contains(&wanted)) {
        return;
    }
    let (orders, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let counted = orders.clone();
    loom::model(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        run();
    });
    let orders = orders.load(Ordering::Relaxed);
    println!("{name}: {orders} orders in {:.1?}", began.elapsed());
    assert!(orders > 1, "{name}: no two threads met");
}

fn main() {
    model("no more than the limit is in use, and in the end nothing", limit);
    model("what is used up at once is counted, all of it", rate);
    http::models();
    spool::models();
}

/// Two, and one; each would have one more, for which there is no room while both are there.
fn limit() {
    const LIMIT: usize = 3;
    let bytes = Arc::new(Usage::default());
    // What the guards say that they hold. loom does not see it, so that it makes no order of its own.
    let held = Arc::new(AtomicUsize::new(0));
    let threads = [2, 1].map(|amount| {
        let (bytes, held) = (bytes.clone(), held.clone());
        let take = move || {
            let Some(mut taken) = bytes.take(amount, LIMIT) else { return };
            let mut mine = amount;
            assert!(held.fetch_add(amount, Ordering::Relaxed) + amount <= LIMIT);
            if taken.grow(1, LIMIT) {
                mine += 1;
                assert!(held.fetch_add(1, Ordering::Relaxed) < LIMIT);
            }
            assert!(bytes.used() <= LIMIT);
            held.fetch_sub(mine, Ordering::Relaxed);
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

/// 40, 10 and 49 of a hundred at once, ten a second.
fn rate() {
    let rate = Rate { per_second: 10, burst: Duration::from_secs(10), debt: Duration::from_secs(1) };
    let used = Arc::new(sync::atomic::AtomicU64::new(0));
    let now = quota::nanos(Duration::from_secs(1000));
    let threads = [vec![40, 10], vec![49]].map(|amounts| {
        let used = used.clone();
        thread::spawn(move || amounts.into_iter().for_each(|amount| rate.add(&used, amount, now)))
    });
    assert!(!rate.is_used_up(&used, now), "one is left");
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(!rate.is_used_up(&used, now), "one is left");
    rate.add(&used, 1, now);
    assert!(rate.is_used_up(&used, now), "none is left");
}
