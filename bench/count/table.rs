//! `bench/counts.txt`, and the comparison with new counts.

use std::fmt;

/// By how many percent a count may differ in either direction; an improvement must be recorded too, or it could be lost
/// again unnoticed.
const BOUND: u64 = 10;

const UPDATE: &str = "cargo bench --profile dev --config bench/count.toml --bench count -- --update";

/// The cost of a delivery in one stage.
pub(crate) struct Row {
    /// The name, and the size of the body.
    pub(crate) stage: String,
    /// Instructions without those of the hash and of the allocator.
    pub(crate) instructions: u64,
    /// Instructions of the hash's compression, in software.
    pub(crate) hash: u64,
    /// Allocations and reallocations.
    pub(crate) allocations: u64,
}

pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
    /// The versions of compiler and valgrind.
    pub(crate) made_with: String,
}

impl Table {
    /// # Panics
    /// If the text does not have this format.
    pub(crate) fn read(text: &str) -> Self {
        let made_with = text.lines().find_map(|line| line.strip_prefix("# Made with ")).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let rows = lines.map(|line| {
            let (stage, counts) = line.split_once(" | ").expect("a stage and its counts");
            let mut counts = counts.split_whitespace().map(|count| count.parse().expect("a count"));
            let [instructions, hash, allocations] =
                std::array::from_fn(|_| counts.next().expect("three counts"));
            Row { stage: stage.trim().to_owned(), instructions, hash, allocations }
        });
        Self { rows: rows.collect(), made_with: made_with.to_owned() }
    }

    /// Prints both side by side. Returns whether every stage agrees.
    pub(crate) fn compare(&self, known: &Self) -> bool {
        println!("{:<26}{:>14}{:>8}{:>12}{:>8}{:>13}", "", "instructions", "", "hash", "", "allocations");
        let mut all_agree = true;
        for row in &self.rows {
            let before = known.rows.iter().find(|before| before.stage == row.stage);
            let same = before.is_some_and(|before| row.is_within(before));
            println!("{}{}", row.beside(before), if same { "" } else { "  <-" });
            all_agree &= same;
        }
        for row in known.rows.iter().filter(|row| !self.rows.iter().any(|now| now.stage == row.stage)) {
            println!("{:<26}does not exist any more  <-", row.stage);
            all_agree = false;
        }
        if !all_agree {
            println!(
                "Lines with <- differ from bench/counts.txt by more than {BOUND} %, or have another number of"
            );
            println!("allocations. If that is intended, update the file and commit it:");
            println!("  {UPDATE}");
            if self.made_with != known.made_with {
                println!("The compiler may be the reason:");
                println!("  the file: {}", known.made_with);
                println!("  here:     {}", self.made_with);
            }
        }
        all_agree
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# The cost of a delivery in each stage, from bench/count.rs; ./tests/run --all compares it with the code."
        )?;
        writeln!(
            f,
            "# The hash is counted separately, in software: with SHA instructions it takes a fraction of this. For the\n\
             # allocator, only the calls are counted."
        )?;
        writeln!(f, "# Made with {}", self.made_with)?;
        writeln!(f, "# {:<24} | {:>12} {:>12} {:>12}", "stage", "instructions", "hash", "allocations")?;
        for Row { stage, instructions, hash, allocations } in &self.rows {
            writeln!(f, "{stage:<26} | {instructions:>12} {hash:>12} {allocations:>12}")?;
        }
        Ok(())
    }
}

impl Row {
    fn is_within(&self, before: &Self) -> bool {
        let near = |now: u64, before: u64| now.abs_diff(before) * 100 <= before * BOUND;
        near(self.instructions, before.instructions)
            && near(self.hash, before.hash)
            && self.allocations == before.allocations
    }

    fn beside(&self, before: Option<&Self>) -> String {
        let moved = |now: u64, before: Option<u64>| match before {
            Some(0) if now == 0 => String::new(),
            Some(before) if before > 0 => format!("{:+.1} %", (now as f64 / before as f64 - 1.0) * 100.0),
            _ => String::from("new"),
        };
        let allocations = match before {
            Some(before) if before.allocations != self.allocations => {
                format!("{} -> {}", before.allocations, self.allocations)
            }
            _ => self.allocations.to_string(),
        };
        format!(
            "{:<26}{:>14}{:>8}{:>12}{:>8}{allocations:>13}",
            self.stage,
            self.instructions,
            moved(self.instructions, before.map(|before| before.instructions)),
            self.hash,
            moved(self.hash, before.map(|before| before.hash)),
        )
    }
}
