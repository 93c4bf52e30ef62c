//! Tests whether the time of a refusal depends on which byte of a signature is wrong, like dudect (Reparaz, Balasch,
//! Verbauwhede 2017): two classes in random order, and Welch's t over many samples, for all samples and for several crops
//! without the slowest ones.
//!
//! As a control, each part also runs with an additional comparison that stops at the first difference. The test must
//! detect that one, or its other results mean nothing.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use hookstream::config::{ConfigErrors, Secret, Signature};
use hookstream::delivery::{Delivery, DeliveryId};
use hookstream::verify::Verifier;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use jiff::Timestamp;

/// A larger |t| counts as a difference (dudect's limit).
const BOUND: f64 = 4.5;

/// The fractions of the fastest samples that are tested.
const CROPS: [f64; 7] = [0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0];

/// The deliveries for the samples. Both classes use all of them, so that peculiarities of one affect both.
const DELIVERIES: usize = 64;

const SECRET: &str = "timing-secret-0123456789abcdefghijklmnopqrstuvwx";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Samples of each part, for both classes together.
    #[arg(long, default_value_t = 2_000_000)]
    samples: usize,
    /// Seed of the order of the classes and of the bodies.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(args: &Args) -> bool {
    if cfg!(debug_assertions) {
        println!(
            "this build is not optimised; use cargo test --release to test the code that runs in production"
        );
    }
    println!("{} samples per row, seed {}; |t| above {BOUND} is a difference", args.samples, args.seed);
    println!("{:<12} {:<28} {:>10} {:>10} {:>8} {:>7}", "", "", "first, ns", "last, ns", "max |t|", "crop");
    let token = "kind = \"token\"\nheader = \"x-sig\"";
    let hex = "header = \"x-sig\"\nprefix = \"sha256=\"\nsigned = \"{body}\"";
    let mut right = true;
    for (name, rules, prefix) in [("hex HMAC", hex, "sha256=".len()), ("shared token", token, 0)] {
        let nothing = measure(rules, prefix, args, |_, _| false);
        right &= !print_row(name, "verify", &nothing);
        // As ordinary code compares two strings.
        let equals = measure(rules, prefix, args, |given, right| black_box(given) == black_box(right));
        right &= print_row(name, "verify, then ==: must differ", &equals);
        // Byte by byte until the first difference.
        let by_byte = |given: &[u8], right: &[u8]| given.iter().zip(right).all(|(a, b)| black_box(a) == b);
        right &= print_row(name, "verify, then a loop: must differ", &measure(rules, prefix, args, by_byte));
    }
    right
}

/// Prints a row. Returns whether it shows a difference.
fn print_row(name: &str, what: &str, found: &Found) -> bool {
    let differs = found.t > BOUND;
    println!(
        "{name:<12} {what:<30} {:>8.1} {:>10.1} {:>8.1} {:>5.0} %  {}",
        found.means[0],
        found.means[1],
        found.t,
        found.crop * 100.0,
        if differs { "different" } else { "no difference" }
    );
    differs
}

struct Found {
    /// Nanoseconds of both classes, at the crop with the largest t.
    means: [f64; 2],
    t: f64,
    crop: f64,
}

/// A delivery with its valid signature, and for each class the position and the value of the wrong byte. Both classes are
/// copied from the same memory.
struct Case {
    delivery: Delivery,
    right: Vec<u8>,
    wrong: [(usize, u8); 2],
}

/// `control` is a comparison after the verifier's work. It is generic, so that each control is compiled separately: with
/// all of them in one function, speculative execution of the others caused a difference of 0.1 ns in 400.
fn measure(rules: &str, prefix: usize, args: &Args, control: impl Fn(&[u8], &[u8]) -> bool) -> Found {
    let mut problems = ConfigErrors::default();
    let rules: Signature = toml::from_str(rules).unwrap();
    let verifier =
        Verifier::compile(std::slice::from_ref(&rules), &[Secret::new("only", SECRET)], "", &mut problems)
            .unwrap();
    let name = HeaderName::from_static("x-sig");
    let mut random = fastrand::Rng::with_seed(args.seed);
    let mut cases: Vec<_> = (0..DELIVERIES).map(|_| case(&verifier, &name, prefix, &mut random)).collect();
    let mut samples = Vec::with_capacity(args.samples);
    // The first tenth is a warm-up.
    for round in 0..args.samples + args.samples / 10 {
        let class = usize::from(random.bool());
        let Case { delivery, right, wrong } = random.choice(&mut cases).unwrap();
        // Into new memory for both classes, so that no address is specific to one of them.
        let mut given = right.clone();
        let (at, byte) = wrong[class];
        given[at] = byte;
        delivery.headers.insert(&name, HeaderValue::from_bytes(&given).unwrap());
        // Runs once unmeasured, to remove traces of the copy from caches and store buffers. Without it, there was a
        // difference of 0.1 ns in 300.
        black_box(verifier.verify(black_box(delivery)).is_err());
        let start = Instant::now();
        let refused = verifier.verify(black_box(delivery)).is_err();
        let equal = control(&given, right);
        let time = start.elapsed();
        assert!(refused && !black_box(equal));
        if round >= args.samples / 10 {
            samples.push((class, time.as_nanos() as f64));
        }
    }
    let mut times: Vec<_> = samples.iter().map(|(_, time)| *time).collect();
    times.sort_unstable_by(f64::total_cmp);
    let found = CROPS.map(|crop| {
        let bound = times[((times.len() as f64 * crop) as usize).clamp(1, times.len()) - 1];
        let [first, last] = [0, 1].map(|class| {
            moments(samples.iter().filter(|(of, time)| *of == class && *time <= bound).map(|(_, time)| *time))
        });
        let error = (first.variance / first.count + last.variance / last.count).sqrt();
        // The mean of a class with very few samples means nothing.
        let enough = first.count.min(last.count) >= 100.0;
        let t = if enough { ((first.mean - last.mean) / error.max(1e-9)).abs() } else { 0.0 };
        Found { means: [first.mean, last.mean], t, crop }
    });
    found.into_iter().max_by(|a, b| a.t.total_cmp(&b.t)).unwrap()
}

fn case(verifier: &Verifier, name: &HeaderName, prefix: usize, random: &mut fastrand::Rng) -> Case {
    let body = format!("{{\"id\":\"{:016x}\",\"data\":\"{:032x}\"}}", random.u64(..), random.u128(..));
    let mut headers = HeaderMap::new();
    verifier.sign(body.as_bytes(), Timestamp::UNIX_EPOCH, &mut headers).unwrap();
    let right = headers[name].as_bytes().to_vec();
    let change = |at: usize| {
        // A digit stays a digit and a letter a letter, since the time of hex decoding may depend on that.
        let byte = match right[at] {
            b'9' => b'0',
            b'f' => b'a',
            b'x' => b'w',
            byte => byte + 1,
        };
        (at, byte)
    };
    let wrong = [change(prefix), change(right.len() - 1)];
    let delivery = Delivery {
        id: DeliveryId::new(),
        uri: Uri::from_static("/"),
        headers,
        body: Bytes::from(body),
        received_at: Timestamp::UNIX_EPOCH,
    };
    Case { delivery, right, wrong }
}

struct Moments {
    count: f64,
    mean: f64,
    variance: f64,
}

/// Welford's algorithm.
fn moments(samples: impl Iterator<Item = f64>) -> Moments {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for sample in samples {
        count += 1.0;
        let off = sample - mean;
        mean += off / count;
        squares += off * (sample - mean);
    }
    Moments { count, mean, variance: squares / (count - 1.0_f64).max(1.0) }
}
