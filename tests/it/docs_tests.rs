//! `docs/security.md` and `docs/reliability.md`: each promise names the test that proves it, and that test exists. So do the
//! rows of `docs/bug-reports.md`.
//!
//! A test is named in brackets, as a file and functions in it, each in backticks: (`tests/it/kill.rs`
//! `kills_while_spooling_lose_no_acknowledged_delivery`). A file below `tests/chaos` is a mode of the oracle and has
//! no functions to name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A file, and the tests that the page names in it.
type Named = (String, Vec<String>);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// The texts in backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_file(span: &str) -> bool {
    ["src/", "tests/"].iter().any(|start| span.starts_with(start)) && span.ends_with(".rs")
}

fn is_function(span: &str) -> bool {
    span.contains('_') && span.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The tests that a text names.
fn named(text: &str) -> Vec<Named> {
    let mut found: Vec<Named> = Vec::new();
    // Brackets in a page do not nest, except inside backticks.
    for bracket in text.split('(').skip(1).map(|rest| rest.split(')').next().unwrap_or_default()) {
        let mut open = false;
        for span in spans(bracket) {
            if is_file(span) {
                found.push((span.to_owned(), Vec::new()));
                open = true;
            } else if open && is_function(span) {
                found.last_mut().unwrap().1.push(span.to_owned());
            }
        }
    }
    found
}

/// The tests in a file: functions with a test attribute, or in a `proptest!`.
fn tests_of(file: &str) -> BTreeSet<String> {
    let path = root().join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let (mut tests, mut is_test) = (BTreeSet::new(), false);
    for line in text.lines().map(str::trim) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let Some((_, rest)) = line.split_once("fn ") else { continue };
        if !line.starts_with("//") && std::mem::take(&mut is_test) {
            tests.extend(rest.split(['(', '<']).next().map(str::to_owned));
        }
    }
    tests
}

/// The text below a heading, up to the next heading of its level.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let start = format!("\n## {heading}\n");
    let (_, rest) = page.split_once(&start).unwrap_or_else(|| panic!("no section {heading}"));
    rest.split("\n## ").next().unwrap()
}

/// The rows of a section's tables, by the first cell up to its bracket.
fn rows(section: &str) -> BTreeMap<&str, &str> {
    let mut rows = BTreeMap::new();
    let mut lines = section.lines().peekable();
    while let Some(line) = lines.next() {
        let is_head = lines.peek().is_some_and(|next| next.starts_with("|---"));
        if is_head {
            lines.next();
        } else if let Some((first, rest)) = line.strip_prefix('|').and_then(|line| line.split_once('|')) {
            rows.insert(first.split(" (").next().unwrap().trim(), rest);
        }
    }
    rows
}

/// The items of a section's list, with their continuation lines.
fn items(section: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let mut inside = false;
    for line in section.lines() {
        if line.starts_with("- ") {
            items.push(line.to_owned());
            inside = true;
        } else if inside && line.starts_with("  ") {
            *items.last_mut().unwrap() += &format!("\n{line}");
        } else {
            inside = false;
        }
    }
    items
}

fn names_a_test(text: &str) -> bool {
    named(text).iter().any(|(file, functions)| !functions.is_empty() || file.starts_with("tests/chaos/"))
}

#[test]
fn each_test_that_a_page_names_exists() {
    let mut count = 0;
    for name in ["security.md", "reliability.md", "bug-reports.md"] {
        for (file, functions) in named(&page(name)) {
            let tests = tests_of(&file);
            for function in functions {
                // `k2a_`: all tests with this prefix.
                let begins = |test: &String| function.ends_with('_') && test.starts_with(&function);
                let exists = tests.contains(&function) || tests.iter().any(begins);
                assert!(exists, "{name} names {function}, which is not a test in {file}");
                count += 1;
            }
        }
    }
    assert!(count > 40, "{count}");
}

#[test]
fn each_promise_names_a_test() {
    for (name, promises) in
        [("reliability.md", "What happens on each fault"), ("security.md", "The order, and why")]
    {
        let page = page(name);
        let shown = rows(section(&page, "Which test shows it"));
        let promises = rows(section(&page, promises));
        assert!(promises.len() > 10, "{name}: {promises:?}");
        for promise in promises.keys() {
            let row = shown.get(promise);
            let row =
                row.unwrap_or_else(|| panic!("{name}: no row of \"Which test shows it\" for \"{promise}\""));
            assert!(names_a_test(row), "{name}: \"{promise}\" has no test: {row}");
        }
    }
    let security = page("security.md");
    let headings = security.lines().filter_map(|line| line.strip_prefix("## "));
    let attackers: Vec<_> = headings.filter(|heading| heading.starts_with("An attacker ")).collect();
    assert!(attackers.len() >= 6, "{attackers:?}");
    for heading in attackers {
        let section = section(&security, heading);
        let items = items(section);
        let parts = if items.is_empty() { vec![section.to_owned()] } else { items };
        for part in parts {
            assert!(names_a_test(&part), "security.md, {heading}: this names no test:\n{part}");
        }
    }
    let reliability = page("reliability.md");
    for item in items(section(&reliability, "Which test shows it")) {
        assert!(names_a_test(&item), "reliability.md: this names no test:\n{item}");
    }
}

#[test]
fn the_page_parser_distinguishes_tests_from_anything_else() {
    let text = "a promise (`tests/it/kill.rs` `kills_while_x`, 8 kills; `HOOKSTREAM_TEST_KILLS=100 ./tests/run x_y`), \
                and `max_body_bytes` (`src/a.rs`, `tests/chaos/b.rs`)";
    let expected =
        [("tests/it/kill.rs", vec!["kills_while_x"]), ("src/a.rs", vec![]), ("tests/chaos/b.rs", vec![])];
    let found = named(text);
    let found: Vec<(&str, Vec<&str>)> =
        found.iter().map(|(file, all)| (file.as_str(), all.iter().map(String::as_str).collect())).collect();
    assert_eq!(found, expected);
    assert!(names_a_test(text) && !names_a_test("(`src/a.rs`) `a_b_c`"));
    let own = tests_of("tests/it/docs_tests.rs");
    assert!(own.contains("each_promise_names_a_test") && !own.contains("named"), "{own:?}");
    assert!(tests_of("src/envelope/key.rs").contains("c1_no_two_bindings_and_ids_share_a_key"));
}
