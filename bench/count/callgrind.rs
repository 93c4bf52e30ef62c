//! Runs this program under callgrind, which writes a dump for each stage.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::table::{Row, Table};

/// The function whose calls are counted. It must be the full name: with `*` in it, callgrind writes no dump.
const COLLECTED: &str = "count::stages::collected";

pub(crate) fn run() -> Table {
    let dir = tempfile::tempdir().unwrap();
    let dumps = dir.path().join("dump");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no", "--compress-strings=no"])
        .arg(format!("--toggle-collect={COLLECTED}"))
        .arg(format!("--dump-after={COLLECTED}"))
        .arg(format!("--callgrind-out-file={}", dumps.display()))
        .arg(std::env::current_exe().unwrap())
        .arg("--stages")
        .stderr(Stdio::inherit())
        .output()
        .expect("valgrind, from the package of the same name");
    assert!(output.status.success(), "the stages ended with {}", output.status);
    let lines = String::from_utf8(output.stdout).unwrap();
    let rows = lines.lines().zip(1..).map(|(line, dump)| {
        let mut parts = line.split('\t');
        let stage = parts.next().unwrap();
        let [bytes, rounds, allocations] = std::array::from_fn(|_| parts.next().unwrap().parse().unwrap());
        let (own, hash) = count(&dumps.with_extension(format!("{dump}")));
        let stage = format!("{stage} {}", size(bytes));
        Row { stage, instructions: own / rounds, hash: hash / rounds, allocations: allocations / rounds }
    });
    Table { rows: rows.collect(), made_with: versions() }
}

fn size(bytes: u64) -> String {
    if bytes < 1000 { format!("{bytes} B") } else { format!("{} KiB", bytes >> 10) }
}

/// Instructions of our own code and of the hash in a dump. Those of the allocator are excluded, since they depend on earlier
/// allocations, by up to a tenth of a small stage.
fn count(dump: &Path) -> (u64, u64) {
    let text = std::fs::read_to_string(dump).unwrap();
    let (mut own, mut hash, mut allocator, mut kind, mut is_call) = (0, 0, 0, Kind::Own, false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            kind = Kind::of(name);
        } else if line.starts_with("calls=") {
            // The next line has the called function's cost, which its own lines contain too.
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split(' ').nth(1).map_or(0, |cost| cost.parse::<u64>().unwrap());
            match (std::mem::take(&mut is_call), kind) {
                (true, _) => {}
                (false, Kind::Own) => own += cost,
                (false, Kind::Hash) => hash += cost,
                (false, Kind::Allocator) => allocator += cost,
            }
        }
    }
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a finished dump");
    assert_eq!(
        total.parse(),
        Ok(own + hash + allocator),
        "the lines of {} do not add up to the total",
        dump.display()
    );
    (own, hash)
}

#[derive(Clone, Copy)]
enum Kind {
    Own,
    Hash,
    Allocator,
}

impl Kind {
    /// The kind of a function by its name; the allocator is glibc's.
    fn of(name: &str) -> Self {
        const ALLOCATOR: [&str; 9] = [
            "malloc",
            "calloc",
            "realloc",
            "free",
            "_int_",
            "unlink_chunk",
            "sysmalloc",
            "systrim",
            "tcache_",
        ];
        if name.starts_with("sha2::") && name.contains("compress") {
            Self::Hash
        } else if ALLOCATOR.iter().any(|start| name.starts_with(start)) {
            Self::Allocator
        } else {
            Self::Own
        }
    }
}

/// The versions of the tools on which the counts depend.
fn versions() -> String {
    let version = |tool: &str, argument: &str| {
        let output = Command::new(tool).arg(argument).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let valgrind = version("valgrind", "--version");
    format!("{}, {valgrind}, {}", version("rustc", "-V"), std::env::consts::ARCH)
}
