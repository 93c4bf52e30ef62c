//! The stages, each repeated with the same delivery.

use std::hint::black_box;

use hookstream::decide::{Decision, decide};
use hookstream::record::Record;

use crate::allocations;
use crate::deliveries::{Case, Deliveries};

/// Rounds for a small body; a large one has a tenth of them.
const ROUNDS: usize = 200;

/// callgrind counts the calls of this function, by its name.
#[inline(never)]
fn collected(rounds: usize, stage: &mut dyn FnMut()) {
    for _ in 0..rounds {
        stage();
    }
}

/// Runs all stages, and prints a line for each: name, size of the body, rounds, allocations.
pub(crate) fn run() {
    let deliveries = Deliveries::new();
    let (small, typical, large) = (deliveries.small(), deliveries.typical(), deliveries.raw(64 << 10));
    verify("verify", small);
    verify("verify", typical);
    verify("verify", large);
    verify("verify canonical", deliveries.canonical(1 << 10));
    verify("verify canonical", deliveries.canonical(64 << 10));
    forged("forged, 1 secret", deliveries.forged("python", 10 << 10));
    forged("forged, 20 secrets", deliveries.forged("tenants", 10 << 10));
    envelope(typical);
    envelope(large);
    encode("encode", small);
    encode("encode", typical);
    encode("encode", large);
    encode("encode generic", deliveries.canonical(1 << 10));
    record(typical);
    outlook(small);
    outlook(typical);
    outlook(large);
}

fn rounds(case: &Case) -> usize {
    if case.bytes() > 8 << 10 { ROUNDS / 10 } else { ROUNDS }
}

/// The first calls are not counted, since they initialise lazy values and fill the allocator's caches.
fn stage(name: &str, case: &Case, mut stage: impl FnMut()) {
    (0..3).for_each(|_| stage());
    let rounds = rounds(case);
    let before = allocations::so_far();
    collected(rounds, &mut stage);
    println!("{name}\t{}\t{rounds}\t{}", case.bytes(), allocations::so_far() - before);
}

fn verify(name: &str, case: &'static Case) {
    stage(name, case, || drop(black_box(black_box(case).verified())));
}

/// The cost of a delivery from somebody without a secret.
fn forged(name: &str, case: &'static Case) {
    stage(name, case, || {
        drop(black_box(black_box(case).source.verifier.verify(&case.delivery).unwrap_err()))
    });
}

/// From the body to an event with id, type and time.
fn envelope(case: &'static Case) {
    let (source, verified) = (&case.source, case.verified());
    stage("envelope", case, || {
        let events = source.envelope.extract_events(&source.name, black_box(&verified), &case.delivery.body);
        drop(black_box(events.unwrap()));
    });
}

fn encode(name: &str, case: &'static Case) {
    let (event, encoder) = case.event();
    stage(name, case, || drop(black_box(encoder.encode(black_box(&event)).unwrap())));
}

/// From an encoded event to a finished record with its headers.
fn record(case: &'static Case) {
    let (event, _) = case.event();
    let mut encoded: Vec<_> = (0..rounds(case) + 3).map(|_| case.encoded()).collect();
    let topic = &case.source.route(event.route()).unwrap().topic;
    stage("record", case, || {
        let encoded = encoded.pop().unwrap();
        drop(black_box(Record::event(topic, black_box(&event), encoded).unwrap()));
    });
}

/// Everything between verification and Kafka.
fn outlook(case: &'static Case) {
    let (source, verified) = (&case.source, case.verified());
    stage("outlook", case, || {
        let outlook = decide(source, black_box(&verified), None, || Ok(()));
        assert!(matches!(outlook.decision, Decision::Publish(_)));
        drop(black_box(outlook));
    });
}
