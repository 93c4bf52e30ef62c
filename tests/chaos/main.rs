//! The oracle: the promise counted, not argued.
//!
//! ```text
//! cargo test --test chaos -- --minutes 30 --seed 7     faults from a seeded schedule, then the count
//! cargo test --test chaos -- order                     each 202 follows the sync of its row
//! cargo test --test chaos -- disk                      a spool on a file system that is full
//! ```
//!
//! Needs the parts that `tests/stack/stack` fetches and its `HOOKSTREAM_TEST_*`: `./tests/run --keep NAME`
//! leaves a stack up and says how to use it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_types, clippy::print_stdout, clippy::print_stderr, unreachable_pub)]

use hookstream::planted::Bug;

mod disk;
mod order;
mod provider;
mod service;
mod trace;

#[allow(dead_code)]
#[path = "../it/support/mod.rs"]
mod support;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let second = std::env::args().nth(2);
    match std::env::args().nth(1).as_deref() {
        Some("order") => order::run(second.filter(|bug| bug == "no-sync").map(|_| Bug::NoSync)).await,
        Some("disk") => disk::run().await,
        other => anyhow::bail!("no such mode: {other:?}"),
    }
}
