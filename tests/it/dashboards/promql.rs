//! Extracts metrics and labels from a PromQL expression. Supports only what the shipped files use; promtool checks the
//! syntax.

/// The names in an expression.
#[derive(Debug, Default)]
pub struct Names {
    pub metrics: Vec<Asked>,
    /// Labels that match two sides: `on`, `ignoring`, `group_left`.
    pub matched: Vec<String>,
}

/// A metric, and the labels of it that the expression uses.
#[derive(Debug)]
pub struct Asked {
    pub metric: String,
    /// Labels of its selector with the values that they are compared with.
    pub selected: Vec<(String, String)>,
    /// Labels that the surrounding aggregations keep.
    pub kept: Vec<String>,
}

/// Parses an expression.
pub fn names(expression: &str) -> Names {
    let mut found = Names::default();
    scan(expression, &[], &mut found);
    found
}

fn scan(mut rest: &str, kept: &[String], found: &mut Names) {
    while let Some(first) = rest.chars().next() {
        match first {
            '#' => rest = rest.split_once('\n').map_or("", |(_, below)| below),
            '"' => rest = string(rest).1,
            '[' => rest = rest.split_once(']').unwrap_or_else(|| panic!("no ] in {rest}")).1,
            '{' => {
                let (selected, behind) = selector(rest);
                found.metrics.last_mut().unwrap_or_else(|| panic!("no metric before {rest}")).selected =
                    selected;
                rest = behind;
            }
            '0'..='9' => rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.'),
            _ if is_word(first) => rest = word(rest, kept, found),
            _ => rest = &rest[first.len_utf8()..],
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Parses the word at the start. Returns the rest.
fn word<'a>(rest: &'a str, kept: &[String], found: &mut Names) -> &'a str {
    let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    let (word, behind) = rest.split_at(end);
    let behind = behind.trim_start();
    match word {
        "by" => {
            let (labels, behind) = list(behind);
            let (inner, behind) = bracketed(behind.trim_start());
            scan(inner, &[kept, &labels].concat(), found);
            behind
        }
        "on" | "ignoring" | "group_left" | "group_right" => {
            let (labels, behind) = list(behind);
            found.matched.extend(labels);
            behind
        }
        "without" => panic!("`without` is not understood here; write `by`"),
        "and" | "or" | "unless" | "offset" | "bool" => behind,
        // A function or an aggregation.
        _ if behind.starts_with('(') || behind.starts_with("by ") => behind,
        _ => {
            found.metrics.push(Asked { metric: word.to_owned(), selected: Vec::new(), kept: kept.to_vec() });
            behind
        }
    }
}

/// The text in the parentheses at the start, and the rest.
fn bracketed(rest: &str) -> (&str, &str) {
    assert!(rest.starts_with('('), "no ( at {rest}");
    let (mut depth, mut at) = (0, 0);
    while let Some(c) = rest[at..].chars().next() {
        match c {
            '"' => {
                at = rest.len() - string(&rest[at..]).1.len();
                continue;
            }
            '(' => depth += 1,
            ')' if depth == 1 => return (&rest[1..at], &rest[at + 1..]),
            ')' => depth -= 1,
            _ => {}
        }
        at += c.len_utf8();
    }
    panic!("no ) for {rest}")
}

/// The labels in the parentheses at the start.
fn list(rest: &str) -> (Vec<String>, &str) {
    let (inside, behind) = bracketed(rest);
    let labels = inside.split(',').map(str::trim).filter(|label| !label.is_empty());
    (labels.map(str::to_owned).collect(), behind)
}

/// The text in the quotes at the start.
fn string(rest: &str) -> (&str, &str) {
    let inside = &rest[1..];
    let end = inside.find('"').unwrap_or_else(|| panic!("no end of {rest}"));
    assert!(!inside[..end].contains('\\'), "no escapes here: {rest}");
    (&inside[..end], &inside[end + 1..])
}

/// The labels in the braces at the start.
fn selector(rest: &str) -> (Vec<(String, String)>, &str) {
    let mut rest = &rest[1..];
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(behind) = rest.strip_prefix('}') {
            return (labels, behind);
        }
        let end = rest.find(|c| !is_word(c)).unwrap_or_else(|| panic!("no }} in {rest}"));
        let (label, behind) = rest.split_at(end);
        let (text, behind) = string(behind.trim_start_matches(['=', '!', '~']));
        labels.push((label.to_owned(), text.to_owned()));
        rest = behind;
    }
}
