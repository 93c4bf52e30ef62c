//! Measures the time of each stage of a delivery, without a network: with a release build, on a quiet machine.
//!
//!     cargo bench --bench stages               # all
//!     cargo bench --bench stages -- encode     # only names that contain encode
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

#[path = "count/deliveries.rs"]
mod deliveries;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use hookstream::decide::decide;
use hookstream::json;
use hookstream::record::Record;
use hookstream::spool::{Spool, SpoolLimits};
use sha2::Sha256;

use deliveries::{Case, Deliveries};

const KIB: usize = 1 << 10;
const SIZES: [usize; 4] = [KIB / 5, KIB, 16 * KIB, 256 * KIB];

/// One benchmark of a group, by the size of the body.
fn one<R>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, case: &Case, mut stage: impl FnMut() -> R) {
    group.throughput(Throughput::Bytes(case.bytes() as u64));
    group.bench_function(BenchmarkId::new(name, case.bytes()), |bencher| bencher.iter(&mut stage));
}

fn verify(criterion: &mut Criterion) {
    let (deliveries, mut group) = (Deliveries::new(), criterion.benchmark_group("verify"));
    for size in SIZES {
        for (name, case) in [("raw", deliveries.raw(size)), ("canonical", deliveries.canonical(size))] {
            one(&mut group, name, case, || black_box(black_box(case).verified()).age());
        }
    }
    // The cost of a forged delivery, with one secret and with twenty.
    for (name, source) in [("forged, 1 secret", "python"), ("forged, 20 secrets", "tenants")] {
        let case = deliveries.forged(source, 16 * KIB);
        one(&mut group, name, case, || black_box(case).source.verifier.verify(&case.delivery).is_err());
    }
}

/// The minimum work of any verifier and encoder.
fn alone(criterion: &mut Criterion) {
    let (deliveries, mut group) = (Deliveries::new(), criterion.benchmark_group("alone"));
    let keyed = Hmac::<Sha256>::new_from_slice(b"bench-secret-0123456789abcdef").unwrap();
    for size in SIZES {
        let case = deliveries.raw(size);
        let body = &case.delivery.body;
        one(&mut group, "hmac", case, || {
            let mut mac = keyed.clone();
            mac.update(black_box(body));
            mac.finalize()
        });
        one(&mut group, "strict scan", case, || json::check(black_box(body)).unwrap());
    }
}

fn envelope(criterion: &mut Criterion) {
    let (deliveries, mut group) = (Deliveries::new(), criterion.benchmark_group("envelope"));
    for case in [deliveries.typical()].into_iter().chain(SIZES.map(|size| deliveries.raw(size))) {
        let (source, verified) = (&case.source, case.verified());
        let body = &case.delivery.body;
        one(&mut group, "open", case, || {
            source.envelope.extract_events(&source.name, black_box(&verified), body).is_ok()
        });
    }
}

/// For comparison also serde_json's parse of the same body, into a tree and without one.
#[expect(clippy::disallowed_types, reason = "a yardstick, of bodies of our own")]
fn encode(criterion: &mut Criterion) {
    let (deliveries, mut group) = (Deliveries::new(), criterion.benchmark_group("encode"));
    let large = [64 * KIB, 256 * KIB].map(|size| deliveries.raw(size));
    for case in [deliveries.small(), deliveries.typical()].into_iter().chain(large) {
        let (event, encoder) = case.event();
        one(&mut group, "avro", case, || encoder.encode(black_box(&event)).unwrap());
        let body = &case.delivery.body;
        let tree = || serde_json::from_slice::<serde_json::Value>(black_box(body)).unwrap();
        one(&mut group, "serde_json tree", case, tree);
        let scan = || serde_json::from_slice::<serde::de::IgnoredAny>(black_box(body)).unwrap();
        one(&mut group, "serde_json scan", case, scan);
    }
}

/// From an encoded event to a record with its headers.
fn frame(criterion: &mut Criterion) {
    let (deliveries, mut group) = (Deliveries::new(), criterion.benchmark_group("frame"));
    for case in [deliveries.small(), deliveries.typical()] {
        let (event, _) = case.event();
        let topic = &case.source.route(event.route()).unwrap().topic;
        group.throughput(Throughput::Bytes(case.bytes() as u64));
        group.bench_function(BenchmarkId::new("record", case.bytes()), |bencher| {
            let record = |encoded| Record::event(topic, &event, encoded).unwrap();
            bencher.iter_batched(|| case.encoded(), record, BatchSize::SmallInput);
        });
    }
}

/// Everything from the complete body to the record.
fn delivery(criterion: &mut Criterion) {
    let (deliveries, mut group) = (Deliveries::new(), criterion.benchmark_group("delivery"));
    let cases = [deliveries.small(), deliveries.typical()].into_iter();
    for case in cases.chain(SIZES.map(|size| deliveries.raw(size))) {
        let source = &case.source;
        one(&mut group, source.name.as_str(), case, || {
            let (verified, stale) = source.authenticate(black_box(&case.delivery)).unwrap();
            decide(source, &verified, stale, || Ok(())).event.unwrap()
        });
    }
}

/// Until the rows are on disk: of one delivery, and of 64 at the same time.
fn spool(criterion: &mut Criterion) {
    let (deliveries, mut group) = (Deliveries::new(), criterion.benchmark_group("spool"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let case = deliveries.typical();
    let (event, encoder) = case.event();
    let topic = &case.source.route(event.route()).unwrap().topic;
    let record = || Record::event(topic, &event, encoder.encode(&event).unwrap()).unwrap();
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for batch in [1, 64] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::new("commit", batch), |bencher| {
            bencher.iter_custom(|rounds| {
                let dir = tempfile::tempdir().unwrap();
                let (spool, _) = Spool::open(dir.path(), LIMITS).unwrap();
                let batches: Vec<Vec<Record>> =
                    (0..rounds).map(|_| (0..batch).map(|_| record()).collect()).collect();
                runtime.block_on(async {
                    let began = Instant::now();
                    for batch in batches {
                        let stored =
                            join_all(batch.into_iter().map(|record| spool.store(vec![record]))).await;
                        assert!(stored.iter().all(Result::is_ok));
                    }
                    began.elapsed()
                })
            });
        });
    }
}

const LIMITS: SpoolLimits = SpoolLimits {
    max_bytes: 8 << 30,
    max_rows: 10_000_000,
    source_bytes: 8 << 30,
    source_rows: 10_000_000,
    max_wal: 1 << 30,
    min_free: 256 << 20,
    reserve: 16 << 20,
};

criterion_group!(stages, verify, alone, envelope, encode, frame, delivery, spool);
criterion_main!(stages);
