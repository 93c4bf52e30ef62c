//! Medians with their spread, and tables. `tests/it/bench.rs` tests it.

use std::fmt;

/// A median with the smallest and the largest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// `None` if there is no finite value.
pub fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median =
        if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
    Some(Spread { median, min, max })
}

/// Ratios within rounds, not of medians, since the machine drifts between rounds.
pub fn ratios(ours: &[f64], theirs: &[f64]) -> Option<Spread> {
    spread(&ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
}

/// The same with differences.
pub fn differences(ours: &[f64], theirs: &[f64]) -> Option<Spread> {
    spread(&ours.iter().zip(theirs).map(|(ours, theirs)| ours - theirs).collect::<Vec<_>>())
}

/// `0.87 (0.84 to 0.91)`; the format's precision applies to all three.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        let text = |value: f64| grouped(value, digits);
        if self.min == self.max {
            return f.write_str(&text(self.median));
        }
        write!(f, "{} ({} to {})", text(self.median), text(self.min), text(self.max))
    }
}

/// A number with thousands separators.
pub fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{:.*}", digits, value.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    let nothing = text.chars().all(|c| matches!(c, '0' | '.'));
    format!("{}{out}{rest}", if value < 0.0 && !nothing { "-" } else { "" })
}

/// A Markdown table that is also readable as text: the first column is left-aligned, figures are right-aligned.
pub fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).chain(head.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let mut line = String::from("|");
        for (column, width) in widths.iter().enumerate() {
            let cell = cells.get(column).map_or("", String::as_str);
            let cell = if column == 0 { format!(" {cell:<width$} |") } else { format!(" {cell:>width$} |") };
            line.push_str(&cell);
        }
        line.push('\n');
        line
    };
    let rule: String = widths
        .iter()
        .enumerate()
        .map(|(column, width)| {
            if column == 0 {
                format!("|{}", "-".repeat(width + 2))
            } else {
                format!("|{}:", "-".repeat(width + 1))
            }
        })
        .collect();
    let mut out = line(head) + &rule + "|\n";
    for row in rows {
        out.push_str(&line(row));
    }
    out
}
