//! What commands print with: colours on terminals only, nothing that a payload could steer a
//! terminal with, and no panic when the reader of a pipe has left.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write as _};

use anstyle::Style;
use anyhow::Context as _;
use comfy_table::{Cell, CellAlignment, presets};
use serde::Serialize;

/// Results. Styles are dropped unless it is a terminal.
pub fn stdout() -> anstream::Stdout {
    anstream::stdout()
}

/// Progress, notes and faults. Styles are dropped unless it is a terminal.
pub fn stderr() -> anstream::Stderr {
    anstream::stderr()
}

/// One line to stdout. Without a terminal each control sequence in it is dropped: data that must
/// arrive byte by byte goes through [`print_exact`].
///
/// # Errors
/// What writing says; see [`reader_left`].
pub fn print_line(line: &str) -> io::Result<()> {
    writeln!(stdout().lock(), "{line}")
}

/// One line to stdout as it is, for JSON lines and raw values. Never styled.
///
/// # Errors
/// What writing says; see [`reader_left`].
pub fn print_exact(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// One line of JSON to stdout, as [`escape_json`] leaves it.
///
/// # Errors
/// What writing says; see [`reader_left`].
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(value).context("cannot write it as JSON")?;
    Ok(print_exact(&escape_json(&text))?)
}

/// Whether an error is only that the reader of a pipe has left (`hookstream tail | head`): the
/// command ends with exit code 0 and without a word.
pub fn reader_left(error: &anyhow::Error) -> bool {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(broken))
}

/// The text with each character that could steer a terminal as `\u{..}`: controls (line ends, tabs
/// and 8-bit controls too) and those that turn the direction of text around, which make a line look like
/// another. Printable text in any script passes.
pub fn escape_controls(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if steers(c) { escaped.extend(c.escape_unicode()) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}

/// The same for a text of several lines, whose line ends stay.
pub fn escape_lines(text: &str) -> String {
    text.split('\n').map(escape_controls).collect::<Vec<_>>().join("\n")
}

/// JSON text with the same characters as JSON's own `\u` escapes: equal for whoever parses it, and
/// safe where it is shown. They stand in strings only, so that nothing else can change.
pub fn escape_json(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // All of them are in the first plane, so four digits are enough.
        if steers(c) { escaped.push_str(&format!("\\u{:04x}", u32::from(c))) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}

fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The number as `12,345`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// In a table, what nobody knows.
pub const UNKNOWN: &str = "unknown";

/// Columns without lines around them; the header is bold on a terminal, columns of numbers stand
/// to the right, also where some are `-` or [`UNKNOWN`]. Cells are escaped by [`escape_controls`], so each row is one line. Print it with
/// [`print_line`]: it ends without a line end.
#[derive(Debug, Clone, Default)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<T: AsRef<str>>(header: impl IntoIterator<Item = T>) -> Self {
        Self { header: escaped(header), rows: Vec::new() }
    }

    /// Adds a row, one text for each column.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Self {
        self.rows.push(escaped(cells));
        self
    }

    fn is_numeric(&self, column: usize) -> bool {
        let none = |cell: &&String| matches!(cell.as_str(), "" | "-" | UNKNOWN);
        let mut cells = self.rows.iter().filter_map(|row| row.get(column)).filter(|cell| !none(cell));
        let number = |cell: &String| {
            cell.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '-' | '%'))
                && cell.contains(|c: char| c.is_ascii_digit())
        };
        cells.clone().next().is_some() && cells.all(number)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(self.header.iter().map(Cell::new));
        table.add_rows(&self.rows);
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if self.is_numeric(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let bold = Style::new().bold();
        for (index, line) in table.lines().enumerate() {
            let line = line.trim_end();
            match index {
                0 => write!(f, "{bold}{line}{bold:#}")?,
                _ => write!(f, "\n{line}")?,
            }
        }
        Ok(())
    }
}

fn escaped<T: AsRef<str>>(cells: impl IntoIterator<Item = T>) -> Vec<String> {
    cells.into_iter().map(|cell| escape_controls(cell.as_ref()).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped_and_all_else_passes() {
        assert_eq!(escape_controls("a\u{1b}[31m\n\u{9b}\u{7f}\t"), r"a\u{1b}[31m\u{a}\u{9b}\u{7f}\u{9}");
        assert_eq!(escape_controls("evt\u{202e}1\u{2066}\u{2028}"), r"evt\u{202e}1\u{2066}\u{2028}");
        let plain = "evt_1 ü 日本 😀 עברית";
        assert!(matches!(escape_controls(plain), Cow::Borrowed(same) if same == plain));
    }

    #[test]
    fn json_text_stays_the_same_json_and_steers_nothing() {
        let text = "{\"a\":\"\u{9b}31m\u{7f}\u{202e} ü😀 \\n\"}";
        let escaped = escape_json(text);
        assert_eq!(escaped, r#"{"a":"\u009b31m\u007f\u202e ü😀 \n"}"#);
        let parse =
            |text: &str| serde_json::from_str::<std::collections::BTreeMap<String, String>>(text).unwrap();
        assert_eq!(parse(&escaped), parse(text));
        assert!(matches!(escape_json("{\"ü\":1}"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_table_lines_up_with_numbers_to_the_right() {
        let mut table = Table::new(["source", "count", "note"]);
        table.row(["datagrid", "1,203", "ok"]).row(["日本", "7", "a\nb"]).row(["none", "-", "-"]);
        let text = anstream::adapter::strip_str(&table.to_string()).to_string();
        let expected = [
            "source    count  note",
            "datagrid  1,203  ok",
            r"日本          7  a\u{a}b",
            "none          -  -",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        assert!(table.to_string().starts_with("\u{1b}[1m"), "the header is bold");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn only_a_broken_pipe_counts_as_a_reader_that_left() {
        let error = |kind| Err::<(), _>(io::Error::from(kind)).context("cannot print").unwrap_err();
        assert!(reader_left(&error(io::ErrorKind::BrokenPipe)));
        assert!(!reader_left(&error(io::ErrorKind::StorageFull)));
    }
}
