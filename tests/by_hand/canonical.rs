//! Compares the canonical form of random objects, in several spellings each, with what Python signs.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use hookstream::verify::canonical::json_compact_ascii;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of random objects.
    #[arg(long, default_value_t = 10_000)]
    objects: u64,
    /// Seed of Python's random generator.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(serde::Deserialize)]
struct Vector {
    canonical: String,
    wire: Vec<String>,
}

pub(crate) fn run(args: &Args) -> bool {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/canonical/make.py");
    let version = Command::new("python3").arg("--version").output().expect("python3").stdout;
    let began = Instant::now();
    println!("{} objects of {}, seed {}", args.objects, String::from_utf8_lossy(&version).trim(), args.seed);
    let mut python = Command::new("python3")
        .arg(script)
        .args([args.objects.to_string(), args.seed.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut objects, mut spellings, mut bytes, mut wrong) = (0_u64, 0_u64, 0, 0_u64);
    for line in BufReader::new(python.stdout.take().unwrap()).lines() {
        let Vector { canonical, wire } = serde_json::from_str(&line.unwrap()).unwrap();
        objects += 1;
        for text in &wire {
            spellings += 1;
            bytes += text.len();
            let form = json_compact_ascii(text.as_bytes());
            if form.as_deref().ok() != Some(canonical.as_bytes()) {
                wrong += 1;
                if wrong <= 10 {
                    println!("object {objects}: {text:?}\n  Python signs {canonical:?}\n  here {form:?}");
                }
            }
        }
    }
    let ended = python.wait().unwrap();
    println!(
        "{objects} objects, {spellings} spellings, {} MB compared in {} s: {wrong} differ",
        bytes / 1_000_000,
        began.elapsed().as_secs()
    );
    ended.success() && objects == args.objects && wrong == 0
}
