//! Output of the commands: colours on terminals only, no character from a payload that controls the terminal, and no
//! panic when the reader of a pipe has exited.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write as _};

use anstyle::Style;
use anyhow::Context as _;
use comfy_table::{Cell, CellAlignment, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;

/// Standard output, for results. Styles are dropped unless it is a terminal.
pub fn stdout() -> anstream::Stdout {
    anstream::stdout()
}

/// Standard error, for progress, notes and errors. Styles are dropped unless it is a terminal.
pub fn stderr() -> anstream::Stderr {
    anstream::stderr()
}

/// Prints lines to standard output, escaped by [`escape_all_but_styles`]. Without a terminal, control sequences are
/// dropped: print data that must arrive unchanged with [`print_exact`].
///
/// # Errors
/// Standard output cannot be written; see [`is_broken_pipe`].
pub fn print_line(line: &str) -> io::Result<()> {
    writeln!(stdout().lock(), "{}", escape_all_but_styles(line))
}

/// Clears the terminal and moves the cursor to its top.
///
/// # Errors
/// Standard output cannot be written.
pub fn clear_screen() -> io::Result<()> {
    write!(stdout().lock(), "\u{1b}[2J\u{1b}[H")
}

/// Prints a one-line message to standard error, for people.
///
/// # Errors
/// Standard error cannot be written.
pub fn note(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(stderr(), "hookstream: {}", escape_controls(text))?)
}

/// A progress bar on standard error, shown only if that is a terminal. Besides indicatif's keys the template has
/// `{rate}`, in whole items per second.
pub fn progress_bar(count: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(count), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        let rate = |state: &ProgressState, to: &mut dyn fmt::Write| {
            // A bar that cannot be written is no reason to stop.
            let _ = write!(to, "{}/s", grouped(state.per_sec() as u64));
        };
        bar.set_style(style.with_key("rate", rate));
    }
    bar
}

/// Prints one line to standard output unchanged, for JSON lines and raw values. Never styled.
///
/// # Errors
/// Standard output cannot be written; see [`is_broken_pipe`].
pub fn print_exact(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// Prints one line of JSON to standard output, escaped by [`escape_json`].
///
/// # Errors
/// Standard output cannot be written; see [`is_broken_pipe`].
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(value).context("cannot serialize the result to JSON")?;
    Ok(print_exact(&escape_json(&text))?)
}

/// Whether an error only means that the reader of a pipe has exited (`hookstream tail | head`): the command then exits
/// silently with code 0.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(broken))
}

/// Replaces each invisible character by `\u{..}`: control characters (also line ends, tabs and 8-bit controls),
/// direction overrides, and zero-width characters, which make one id look like another. Printable text in any script
/// stays as it is; an emoji that is joined from several is shown as its parts.
pub fn escape_controls(text: &str) -> Cow<'_, str> {
    if !text.contains(is_invisible) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_invisible(c) { escaped.extend(c.escape_unicode()) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}

/// Like [`escape_controls`] for a text of several lines: line ends stay.
pub fn escape_lines(text: &str) -> String {
    text.split('\n').map(escape_controls).collect::<Vec<_>>().join("\n")
}

/// Like [`escape_controls`] for styled text: colours and line ends stay. Callers escape the text between their styles
/// themselves; this catches what a caller forgot.
pub fn escape_all_but_styles(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| is_invisible(c) && c != '\n') {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let unchanged = style(rest).unwrap_or(if is_invisible(c) && c != '\n' { 0 } else { c.len_utf8() });
        let (same, after) = rest.split_at(unchanged);
        escaped.push_str(same);
        rest = after;
        if unchanged == 0 {
            escaped.extend(c.escape_unicode());
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
        }
    }
    Cow::Owned(escaped)
}

/// The length of the colour or weight escape sequence at the start of the text.
fn style(text: &str) -> Option<usize> {
    let codes = text.strip_prefix("\u{1b}[")?;
    let end = codes.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    codes.get(end..)?.starts_with('m').then_some("\u{1b}[".len() + end + 1)
}

/// Replaces the same characters in JSON text by JSON's own `\u` escapes: the text parses to the same value and is safe
/// to show. These characters occur in strings only, so nothing else can change.
pub fn escape_json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_invisible) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_invisible(c) {
            let units =
                c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
            escaped.push_str(&units);
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Control characters and those that Unicode calls default ignorable: terminals do not show them.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}')
        || matches!(c, '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}')
        || matches!(c, '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}')
        || matches!(c, '\u{e0000}'..='\u{e0fff}')
}

/// The number with separators between thousands, as in `12,345`.
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

/// The text of an unknown value in a table.
pub const UNKNOWN: &str = "unknown";

/// A table without borders. The header is bold on a terminal; columns of numbers are aligned to the right, even if some
/// cells are `-` or [`UNKNOWN`]. Cells are escaped by [`escape_controls`], so that each row is one line. The text does
/// not end with a line end: print it with [`print_line`].
#[derive(Debug, Clone, Default)]
pub struct TextTable {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// A table with a header and no rows.
    pub fn new<T: AsRef<str>>(header: impl IntoIterator<Item = T>) -> Self {
        Self { header: escaped(header), rows: Vec::new() }
    }

    /// Adds a row with one text for each column.
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

impl fmt::Display for TextTable {
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
    fn control_characters_are_escaped_and_other_text_is_unchanged() {
        assert_eq!(escape_controls("a\u{1b}[31m\n\u{9b}\u{7f}\t"), r"a\u{1b}[31m\u{a}\u{9b}\u{7f}\u{9}");
        assert_eq!(escape_controls("evt\u{202e}1\u{2066}\u{2028}"), r"evt\u{202e}1\u{2066}\u{2028}");
        let plain = "evt_1 ü 日本 😀 עברית";
        assert!(matches!(escape_controls(plain), Cow::Borrowed(same) if same == plain));
    }

    #[test]
    fn c7_what_has_no_width_is_escaped_wherever_it_is_printed() {
        for unseen in [
            "\u{200b}",
            "\u{feff}",
            "\u{200d}",
            "\u{ad}",
            "\u{2060}",
            "\u{180e}",
            "\u{fe0f}",
            "\u{e0041}",
            "\u{202e}",
        ] {
            let (text, c) = (format!("evt_{unseen}1"), unseen.chars().next().unwrap());
            let expected = format!("evt_{}1", c.escape_unicode());
            assert_eq!(escape_controls(&text), expected);
            assert_eq!(escape_all_but_styles(&text), expected);
            assert_eq!(escape_lines(&text), expected);
            let json = serde_json::to_string(&text).unwrap();
            let escaped = escape_json(&json);
            assert!(escaped.is_ascii(), "{escaped}");
            assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
            let table = TextTable::new(["id"]).row([&text]).to_string();
            assert!(table.ends_with(&expected), "{table}");
        }
    }

    #[test]
    fn c7_only_style_sequences_are_left_unescaped() {
        let bold = Style::new().bold();
        let styled = format!("{bold}a{bold:#}\nb");
        assert!(matches!(escape_all_but_styles(&styled), Cow::Owned(same) if same == styled));
        for (text, expected) in [
            ("\u{1b}[2Ja", "\\u{1b}[2Ja"),
            ("\u{1b}[31", "\\u{1b}[31"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("\u{1b}[1;31mred", "\u{1b}[1;31mred"),
            ("a\tb\r\n", "a\\u{9}b\\u{d}\n"),
        ] {
            assert_eq!(escape_all_but_styles(text), expected);
        }
    }

    #[test]
    fn escaped_json_parses_to_the_same_value() {
        let text = "{\"a\":\"\u{9b}31m\u{7f}\u{202e} ü😀 \\n\"}";
        let escaped = escape_json(text);
        assert_eq!(escaped, r#"{"a":"\u009b31m\u007f\u202e ü😀 \n"}"#);
        let parse =
            |text: &str| serde_json::from_str::<std::collections::BTreeMap<String, String>>(text).unwrap();
        assert_eq!(parse(&escaped), parse(text));
        assert!(matches!(escape_json("{\"ü\":1}"), Cow::Borrowed(_)));
    }

    #[test]
    fn tables_align_numbers_to_the_right() {
        let mut table = TextTable::new(["source", "count", "note"]);
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
    fn only_a_broken_pipe_means_that_the_reader_exited() {
        let error = |kind| Err::<(), _>(io::Error::from(kind)).context("cannot print").unwrap_err();
        assert!(is_broken_pipe(&error(io::ErrorKind::BrokenPipe)));
        assert!(!is_broken_pipe(&error(io::ErrorKind::StorageFull)));
    }
}
