//! Runs the fuzz targets for some seconds on their corpora and on seeded mutations. `cargo fuzz` runs them without a
//! limit (CONTRIBUTING.md).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

#[path = "../fuzz/src/lib.rs"]
mod targets;

use targets::{canonical, capture, config, envelope, forwarded, letter, pins, signature, wire};

const SEED: u64 = 20_261_124;

/// Pieces that mutations insert; each means something to some parser.
const PIECES: &str =
    r#"" \ \u \ud83d , : { } [ ] {} [] null true -0 1e400 1.50 t= v1= v1, sha256= \n / /a # = ' """ & % + ü"#;

/// Runs each file of the corpus unchanged, then mutations of them until `runs` runs or `LIMIT` is over.
fn pass(name: &str, runs: usize, target: fn(&[u8])) {
    const LIMIT: Duration = Duration::from_secs(20);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let corpus: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!((10..=70).contains(&corpus.len()) && corpus.iter().all(|file| file.len() <= 1024), "{name}");
    let run = |data: &[u8], what: &str| {
        let failed = catch_unwind(AssertUnwindSafe(|| target(data))).is_err();
        assert!(!failed, "{name}: {what}, seed {SEED}: {:?}", String::from_utf8_lossy(data));
    };
    for (file, data) in files.iter().zip(&corpus) {
        run(data, &file.display().to_string());
    }
    let (mut random, began) = (fastrand::Rng::with_seed(SEED), Instant::now());
    let mut done = 0;
    while done < runs && began.elapsed() < LIMIT {
        let mut data = random.choice(&corpus).unwrap().clone();
        for _ in 0..random.usize(1..5) {
            mutate(&mut data, &corpus, &mut random);
        }
        run(&data, &format!("run {done}"));
        done += 1;
    }
    println!(
        "{name}: {} files, {done} of {runs} runs with seed {SEED} in {:?}",
        corpus.len(),
        began.elapsed()
    );
}

fn mutate(data: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut fastrand::Rng) {
    let place = |random: &mut fastrand::Rng, data: &[u8]| random.usize(..=data.len());
    let (a, b) = (place(random, data), place(random, data));
    let (start, end) = (a.min(b), a.max(b));
    match random.u8(..7) {
        0 if a < data.len() => data[a] ^= 1 << random.u8(..8),
        1 if a < data.len() => data[a] = random.u8(..),
        2 => drop(data.drain(start..end.min(start + 8))),
        3 => {
            let copy = data[start..end.min(start + 32)].to_vec();
            drop(data.splice(a..a, copy));
        }
        4 => {
            let other = random.choice(corpus).unwrap();
            let from = random.usize(..=other.len());
            drop(data.splice(start..end, other[from..].iter().copied()));
        }
        _ => {
            let pieces: Vec<_> = PIECES.split(' ').collect();
            let piece = random.choice(&pieces).unwrap().bytes();
            drop(data.splice(a..a, piece));
        }
    }
    data.truncate(4096);
}

#[test]
fn any_signature_header_gets_a_verdict() {
    pass("signature", 4_000, signature::run);
}

#[test]
fn any_json_has_one_canonical_form() {
    pass("canonical", 10_000, canonical::run);
}

#[test]
fn any_signed_body_becomes_lossless_events_or_a_dead_letter() {
    pass("envelope", 4_000, envelope::run);
}

#[test]
fn c7_any_bytes_on_a_connection_are_parsed_as_by_a_strict_parser() {
    pass("wire", 3_000, wire::run);
}

#[test]
fn any_x_forwarded_for_gives_the_same_client_as_a_strict_parser() {
    pass("forwarded", 10_000, forwarded::run);
}

#[test]
fn any_configuration_is_refused_or_usable() {
    pass("config", 300, config::run);
}

#[test]
fn any_dead_letter_unseals_only_if_it_is_ours_and_unchanged() {
    pass("letter", 2_000, letter::run);
}

#[test]
fn any_capture_parses_or_fails_without_repeating_its_content() {
    pass("capture", 10_000, capture::run);
}

#[test]
fn any_file_of_pins_gives_encodable_ids_or_none() {
    pass("pins", 300, pins::run);
}
