//! Whether the time of a refusal tells which byte of a signature is wrong, in the manner of dudect
//! (Reparaz, Balasch, Verbauwhede 2017): two classes in random order, Welch's t over many samples, once as
//! they are and once for each of several bounds that crop what the machine has delayed.
//!
//! Each part also runs with a comparison behind it that stops at the first difference. That one must be
//! found, or the test could not have found anything.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use hookstream::config::{ConfigErrors, Secret, Signature};
use hookstream::delivery::{Delivery, DeliveryId};
use hookstream::verify::Verifier;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use jiff::Timestamp;

/// |t| past this is a difference (dudect's bound).
const BOUND: f64 = 4.5;

/// The part of the fastest samples that is looked at.
const CROPS: [f64; 7] = [0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0];

/// Deliveries that samples are made of: what one of them has by chance, both classes have.
const DELIVERIES: usize = 64;

const SECRET: &str = "timing-secret-0123456789abcdefghijklmnopqrstuvwx";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// For each part, both classes together.
    #[arg(long, default_value_t = 2_000_000)]
    samples: usize,
    /// Of the order of the classes and of the bodies.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(args: &Args) -> bool {
    if cfg!(debug_assertions) {
        println!("this build is not optimised; cargo test --release tells about the one that runs");
    }
    println!("{} samples a row, seed {}; |t| past {BOUND} is a difference", args.samples, args.seed);
    println!("{:<12} {:<28} {:>10} {:>10} {:>8} {:>7}", "", "", "first, ns", "last, ns", "max |t|", "of the");
    let token = "kind = \"token\"\nheader = \"x-sig\"";
    let hex = "header = \"x-sig\"\nprefix = \"sha256=\"\nsigned = \"{body}\"";
    let mut right = true;
    for (name, rules, prefix) in [("hex HMAC", hex, "sha256=".len()), ("shared token", token, 0)] {
        let nothing = measure(rules, prefix, args, |_, _| false);
        right &= !tell(name, "verify", &nothing);
        // As plain code would compare two texts.
        let equals = measure(rules, prefix, args, |given, right| black_box(given) == black_box(right));
        right &= tell(name, "verify, then ==: must show", &equals);
        // Byte by byte until the first difference.
        let by_byte = |given: &[u8], right: &[u8]| given.iter().zip(right).all(|(a, b)| black_box(a) == b);
        right &= tell(name, "verify, then a loop: must show", &measure(rules, prefix, args, by_byte));
    }
    right
}

/// Prints a row; whether it shows a difference.
fn tell(name: &str, what: &str, found: &Found) -> bool {
    let shows = found.t > BOUND;
    println!(
        "{name:<12} {what:<30} {:>8.1} {:>10.1} {:>8.1} {:>5.0} %  {}",
        found.means[0],
        found.means[1],
        found.t,
        found.crop * 100.0,
        if shows { "different" } else { "no difference" }
    );
    shows
}

struct Found {
    /// Nanoseconds of both classes, at the crop with the largest t.
    means: [f64; 2],
    t: f64,
    crop: f64,
}

/// A delivery with its right signature, and where which byte makes it wrong: both classes are copied
/// from the same memory.
struct Case {
    delivery: Delivery,
    right: Vec<u8>,
    wrong: [(usize, u8); 2],
}

/// `behind` is what is compared after the verifier's own work. It is compiled into a function of its own:
/// where all controls stood in one, the processor ran ahead into the others, and 0.1 ns of 400 showed.
fn measure(rules: &str, prefix: usize, args: &Args, behind: impl Fn(&[u8], &[u8]) -> bool) -> Found {
    let mut problems = ConfigErrors::default();
    let rules: Signature = toml::from_str(rules).unwrap();
    let verifier = Verifier::compile(&rules, &[Secret::new("only", SECRET)], "", &mut problems).unwrap();
    let name = HeaderName::from_static("x-sig");
    let mut random = fastrand::Rng::with_seed(args.seed);
    let mut cases: Vec<_> = (0..DELIVERIES).map(|_| case(&verifier, &name, prefix, &mut random)).collect();
    let mut samples = Vec::with_capacity(args.samples);
    // The first tenth warms caches and the processor up.
    for round in 0..args.samples + args.samples / 10 {
        let class = usize::from(random.bool());
        let Case { delivery, right, wrong } = random.choice(&mut cases).unwrap();
        // Into fresh memory for either class, so that no address speaks for one of them.
        let mut given = right.clone();
        let (at, byte) = wrong[class];
        given[at] = byte;
        delivery.headers.insert(&name, HeaderValue::from_bytes(&given).unwrap());
        // Once before, unmeasured: what copying has left in caches and store buffers is then gone. Without,
        // 0.1 ns of 300 showed.
        black_box(verifier.verify(black_box(delivery)).is_err());
        let start = Instant::now();
        let refused = verifier.verify(black_box(delivery)).is_err();
        let equal = behind(&given, right);
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
        // A crop that leaves next to nothing of a class says nothing about its mean.
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
        // A digit stays a digit and a letter a letter: that the reader of hex may tell them apart is no secret.
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

/// Welford's way.
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
