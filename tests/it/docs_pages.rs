//! Checks all pages: links have a target, the program accepts the commands, and line numbers are right.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All pages: those at the root, and those below these directories.
fn pages() -> Vec<PathBuf> {
    fn markdown(directory: &Path, deep: bool, found: &mut Vec<PathBuf>) {
        for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() && deep {
                markdown(&path, deep, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    markdown(root(), false, &mut found);
    for directory in ["docs", "deploy", "examples", "config", "schemas"] {
        markdown(&root().join(directory), true, &mut found);
    }
    found.sort();
    found
}

/// A page as lines of prose and fenced blocks with their language.
fn parts(page: &str) -> (Vec<&str>, Vec<(&str, Vec<&str>)>) {
    let (mut prose, mut blocks, mut fence) = (Vec::new(), Vec::new(), None);
    for line in page.lines() {
        let trimmed = line.trim_start();
        match (trimmed.strip_prefix("```"), &mut fence) {
            (Some(language), None) => fence = Some((language, Vec::new())),
            (Some(_), Some(_)) => blocks.extend(fence.take()),
            (None, Some((_, lines))) => lines.push(trimmed),
            (None, None) => prose.push(line),
        }
    }
    assert!(fence.is_none(), "an unclosed block");
    (prose, blocks)
}

/// The texts in backticks, and the rest.
fn code_and_text(prose: &[&str]) -> (Vec<String>, String) {
    // A span may continue on the next line.
    let (mut code, mut text) = (Vec::new(), String::new());
    for (n, part) in prose.join("\n").split('`').enumerate() {
        if n % 2 == 1 {
            code.push(part.replace('\n', " "));
            text.push('`');
        } else {
            text += part;
        }
    }
    (code, text)
}

fn targets(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// The anchors of a page, as GitHub makes them from its headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in parts(page).0 {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        // For a link in a heading, its text counts.
        let (mut text, mut rest) = (String::new(), heading.trim());
        while let Some((before, after)) = rest.split_once("](") {
            text += before;
            rest = after.split_once(')').map_or("", |(_, rest)| rest);
        }
        text += rest;
        let slug: String = text
            .to_lowercase()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || matches!(c, '-' | '_') => Some(c),
                _ => None,
            })
            .collect();
        let numbered = (0..).map(|n| if n == 0 { slug.clone() } else { format!("{slug}-{n}") });
        let free = numbered.into_iter().find(|slug| !anchors.contains(slug));
        anchors.extend(free);
    }
    anchors
}

/// The broken links of a page.
fn broken(path: &Path, page: &str) -> Vec<String> {
    let (_, text) = code_and_text(&parts(page).0);
    let is_ours = |target: &&str| !target.contains("://") && !target.starts_with("mailto:");
    let mut broken = Vec::new();
    for target in targets(&text).into_iter().filter(is_ours) {
        let (file, anchor) =
            target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
        let file = if file.is_empty() { path.to_owned() } else { path.with_file_name("").join(file) };
        if file != path && !file.exists() {
            broken.push(format!("{target}: no such file"));
        } else if let Some(anchor) = anchor {
            let page = if file == path { page.to_owned() } else { read(&file) };
            if !anchors(&page).contains(anchor) {
                broken.push(format!("{target}: no such heading"));
            }
        }
    }
    broken
}

#[test]
fn docs_links_lead_to_existing_files_and_headings() {
    let pages = pages();
    assert!(pages.len() > 20, "{pages:?}");
    let mut all = Vec::new();
    for path in &pages {
        let name = path.strip_prefix(root()).unwrap().display();
        all.extend(broken(path, &read(path)).into_iter().map(|link| format!("{name}: {link}")));
    }
    assert!(all.is_empty(), "{all:#?}");
}

#[test]
fn docs_broken_links_are_found() {
    let page = "# A `[b.C]`: d_e\n## Same\n## Same\n[ok](#a-bc-d_e) [ok](#same-1) `[no](link)` [x](#same-2)\n\
                ```text\n# no heading\n[no](link)\n```\n[ok](../README.md#try-it) [x](../README.md#try-that) [x](gone.md) \
                [ok](https://example.com/gone.md) ![x](images/gone.png) [x](#no-heading)";
    let found = broken(&root().join("docs/page.md"), page);
    let expected = [
        "#same-2: no such heading",
        "../README.md#try-that: no such heading",
        "gone.md: no such file",
        "images/gone.png: no such file",
        "#no-heading: no such heading",
    ];
    assert_eq!(found, expected);
}

#[test]
fn docs_readme_stays_short() {
    let lines = read(&root().join("README.md")).lines().count();
    assert!(lines <= 250, "{lines} lines: details belong in docs/");
}

/// The words of a shell line; `None` is an operator such as `|`. Comments are omitted.
fn words(line: &str) -> Vec<Option<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take().map(Some)),
            (None, '|' | '&' | ';' | '>' | '<' | '(' | ')') => {
                words.extend(word.take().map(Some));
                words.push(None);
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word.map(Some));
    words
}

/// The arguments of each call of the program in a shell line.
fn calls(line: &str) -> Vec<Vec<String>> {
    let is_program = |word: &str| word == "hookstream" || word.ends_with("/hookstream");
    let words = words(line);
    let commands = words.split(Option::is_none).map(|words| words.iter().flatten().collect::<Vec<_>>());
    let calls = commands.filter_map(|command| {
        // The program is first, or after a command that runs it elsewhere: `kubectl exec POD -- hookstream`.
        let after = command.iter().position(|word| *word == "--").map_or(0, |at| at + 1);
        let program = command.get(after).filter(|word| is_program(word)).is_some();
        // `docker compose exec SERVICE hookstream`: the service has the same name.
        let in_compose = command.windows(2).position(|two| two.iter().all(|word| is_program(word)));
        let at = if program { Some(after) } else { in_compose.map(|at| at + 1) };
        at.map(|at| command[at..].iter().map(|word| (*word).clone()).collect())
    });
    calls.collect()
}

/// The error if the program does not accept a command of a page.
fn refusal(call: &[String]) -> Option<clap::Error> {
    // Placeholders for a number or a choice in the pages.
    let words = call.iter().map(|word| match word.as_str() {
        "ROW" | "RECORDS" | "S" | "N" => "7",
        "SHELL" => "bash",
        word => word,
    });
    hookstream::cli::command().try_get_matches_from(words).err()
}

/// Whether only arguments are missing: prose may name a command without them.
fn is_incomplete(error: &clap::Error) -> bool {
    let kinds = [
        ErrorKind::MissingRequiredArgument,
        ErrorKind::MissingSubcommand,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
        ErrorKind::DisplayVersion,
    ];
    kinds.contains(&error.kind())
}

#[test]
fn docs_commands_are_accepted_by_the_program() {
    let (mut seen, mut refused) = (0, Vec::new());
    for path in pages() {
        let page = read(&path);
        let (prose, blocks) = parts(&page);
        let mut lines = Vec::new();
        for (_, block) in blocks.iter().filter(|(language, _)| *language == "console") {
            let joined = block.join("\n").replace("\\\n", " ");
            let typed = joined.lines().filter_map(|line| line.strip_prefix("$ "));
            lines.extend(typed.map(|line| (line.to_owned(), false)));
        }
        let (code, _) = code_and_text(&prose);
        let code = code.into_iter().filter(|code| code.starts_with("hookstream ") && !code.contains("..."));
        lines.extend(code.map(|line| (line, true)));
        for (line, in_prose) in lines {
            for call in calls(&line) {
                seen += 1;
                let error = refusal(&call).filter(|error| !in_prose || !is_incomplete(error));
                refused.extend(error.map(|error| format!("{}: {line}\n{error}", path.display())));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(seen > 100, "{seen}");
}

#[test]
fn docs_invalid_commands_are_found() {
    let line = "kubectl exec pod -- hookstream tail 'a b' -o start | jq . && target/release/hookstream lag --frob # hookstream x";
    let calls = calls(line);
    let words: Vec<Vec<&str>> = calls.iter().map(|call| call.iter().map(String::as_str).collect()).collect();
    let expected = [
        vec!["hookstream", "tail", "a b", "-o", "start"],
        vec!["target/release/hookstream", "lag", "--frob"],
    ];
    assert_eq!(words, expected);
    assert!(refusal(&calls[0]).is_none());
    assert!(refusal(&calls[1]).unwrap().to_string().contains("--frob"));
}

/// A line of a shipped file that a page names: `config/hookstream.toml:31: [kafka]`.
#[test]
fn docs_line_numbers_of_the_shipped_file_are_right() {
    let shipped = read(&root().join("config/hookstream.toml"));
    let lines: Vec<&str> = shipped.lines().collect();
    let mut wrong = Vec::new();
    for path in pages() {
        let page = read(&path);
        for place in page.split("config/hookstream.toml:").skip(1) {
            let Some((line, rest)) = place.split_once(": ") else { continue };
            let Ok(line) = line.parse::<usize>() else { continue };
            let found = lines.get(line - 1).copied().unwrap_or_default();
            // The line begins with the text on the page.
            let expected = rest.split([',', ':', '\n']).next().unwrap_or_default();
            if !found.starts_with(expected) {
                wrong.push(format!("{}: line {line} is {found:?}, not {expected:?}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The first number of the row with this label.
fn figure(page: &str, label: &str, column: usize) -> f64 {
    let row = page.lines().find(|line| line.strip_prefix("| ").is_some_and(|line| line.starts_with(label)));
    let row = row.unwrap_or_else(|| panic!("no row {label}"));
    let cell = row.split('|').nth(column + 1).unwrap().trim();
    cell.split(' ').next().unwrap().replace(',', "").parse().unwrap_or_else(|_| panic!("{label}: {cell}"))
}

/// Other pages quote some figures of `docs/benchmarks.md`, which `./bench/run` writes.
#[test]
fn docs_figures_quoted_from_the_benchmarks_are_those_of_the_page() {
    let page = |name: &str| read(&root().join(name)).replace('\n', " ");
    let benchmarks = read(&root().join("docs/benchmarks.md"));
    let measured = |label| figure(&benchmarks, label, 1);
    let memory = format!("{:.0} MiB", measured("memory at 1,000/s"));
    let (requests, time) = (figure(&benchmarks, "hookstream |", 1), figure(&benchmarks, "hookstream |", 2));
    let mut wrong = Vec::new();
    for (name, quoted) in [
        ("README.md", format!("handled {:.0},000 deliveries of 1 KB a second", (requests / 1000.0).floor())),
        ("README.md", format!("{:.1} of what a relay", measured("requests/s, relative to the relay"))),
        (
            "README.md",
            format!("takes {} times its processor", measured("CPU per delivery, relative to the relay")),
        ),
        ("README.md", format!("added {:.1} ms", measured("added to rdkafka's acknowledgement, p50"))),
        ("README.md", format!("used {memory}")),
        ("docs/operations.md", format!("| memory at 1,000 a second | {memory} |")),
        ("docs/operations.md", format!("{time:.0} µs: a core handles")),
        (
            "docs/operations.md",
            format!("{:.2} s after that", measured("start to ready with 50 schemas") / 1000.0),
        ),
    ] {
        if !page(name).contains(&quoted) {
            wrong.push(format!("{name} does not say: {quoted}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The sizing of the spool follows from its setting and from the size of a row, which are on pages of their own.
#[test]
fn docs_hours_that_the_spool_holds_follow_from_its_size_and_that_of_a_row() {
    let operations = read(&root().join("docs/operations.md")).replace('\n', " ");
    let settings = read(&root().join("docs/configuration.md"));
    assert!(settings.contains("| `spool.max_size` | `4 GiB` |"), "the default has changed");
    let (_, row) = operations.split_once("| a row of the spool | ").unwrap();
    let bytes: u64 = row.split(' ').next().unwrap().parse().unwrap();
    let hours = (4 << 30) / (bytes * 100 * 3600);
    assert!(
        operations
            .contains(&format!("`spool.max_size` (4 GiB) holds {hours} hours of 100 deliveries a second"))
    );
    assert!(operations.contains(&format!("each gets half, {} hours", hours / 2)), "{hours}");
}

/// The README names each preset, and no other.
#[test]
fn docs_readme_lists_the_presets() {
    let names: Vec<String> = hookstream::config::presets().map(|(name, _)| format!("`{name}`")).collect();
    let list = format!("{} presets: {}.", names.len(), names.join(", "));
    let readme = read(&root().join("README.md"));
    let found = readme.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(found.contains(&list), "README.md, Providers, should say: {list}");
}
