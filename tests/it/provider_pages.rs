//! docs/providers/ is generated from the presets: a table of all of them, and a page for each.
//!
//! `HOOKSTREAM_WRITE_DOCS=1 cargo test --test it provider_pages` writes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use hookstream::cli::providers::{ProviderFacts, block, facts};
use hookstream::config;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/providers")
}

/// A cell of a table: a bar would end it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn page(facts: &ProviderFacts) -> String {
    let mut page = format!("# {}\n\n", facts.provider);
    let rules = format!("[its rules](../../config/providers/{}.toml)", facts.preset);
    match facts.docs {
        "" => writeln!(page, "Preset `{}`: {rules}.\n", facts.preset).unwrap(),
        docs => writeln!(page, "Preset `{}`: {rules}, after [the provider's page]({docs}).\n", facts.preset)
            .unwrap(),
    }
    writeln!(page, "```toml\n{}\n```\n\n| | |\n|---|---|", block(facts, facts.preset)).unwrap();
    let vectors = facts.vectors.join("; ");
    for (label, value) in [
        ("signature", Some(facts.signed.join("; or ")).as_deref()),
        ("not covered by it", Some(facts.unsigned)),
        ("old deliveries", Some(facts.stale.as_str())),
        ("the provider sends again", facts.retries),
        ("the provider waits", facts.timeout),
        ("secret", Some(facts.secret)),
        ("where to enter the URL", Some(facts.setup)),
        ("note", facts.note),
        ("test deliveries, signed by", Some(vectors.as_str())),
    ] {
        if let Some(value) = value {
            writeln!(page, "| {label} | {} |", cell(value)).unwrap();
        }
    }
    page
}

/// File name and text of each page.
fn pages() -> BTreeMap<String, String> {
    let mut index = String::from(
        "# All presets\n\n`hookstream providers` prints this list, `hookstream init NAME` the configuration of one. A provider that is not \
         here is\nconfigured in [a few lines](../providers.md#a-provider-without-a-preset).\n\n\
         | preset | provider | signature | old deliveries | test deliveries, signed by |\n|---|---|---|---|---|\n",
    );
    let mut pages = BTreeMap::new();
    for name in config::providers().keys() {
        let facts = facts(name).unwrap();
        let stale = facts.stale.split([':', ';']).next().unwrap();
        writeln!(
            index,
            "| [`{name}`]({name}.md) | {} | {} | {stale} | {} |",
            cell(facts.provider),
            cell(&facts.signed.join("; or ")),
            cell(facts.vectors.first().unwrap()),
        )
        .unwrap();
        pages.insert(format!("{name}.md"), page(&facts));
    }
    pages.insert("README.md".to_owned(), index);
    pages
}

/// The book's table of contents, with all pages below that of the providers.
fn summary(found: &str) -> String {
    let mut made = String::new();
    for line in found.lines().filter(|line| !line.contains("](providers/")) {
        writeln!(made, "{line}").unwrap();
        if line == "- [Providers](providers.md)" {
            writeln!(made, "  - [All presets](providers/README.md)").unwrap();
            for (name, provider) in config::providers() {
                writeln!(made, "    - [{}](providers/{name}.md)", provider.about.name).unwrap();
            }
        }
    }
    made
}

#[test]
fn provider_pages_are_generated_from_the_presets() {
    let (pages, directory) = (pages(), directory());
    let contents = directory.with_file_name("SUMMARY.md");
    let found = std::fs::read_to_string(&contents).unwrap();
    if std::env::var_os("HOOKSTREAM_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(&directory).unwrap();
        for (file, text) in &pages {
            std::fs::write(directory.join(file), text).unwrap();
        }
        std::fs::write(&contents, summary(&found)).unwrap();
    }
    let command = "HOOKSTREAM_WRITE_DOCS=1 cargo test --test it provider_pages writes it";
    assert_eq!(std::fs::read_to_string(&contents).unwrap(), summary(&found), "docs/SUMMARY.md: {command}");
    for (file, text) in &pages {
        let found = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
        assert_eq!(&found, text, "docs/providers/{file}: {command}");
    }
    for entry in std::fs::read_dir(&directory).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(pages.contains_key(&file), "docs/providers/{file} has no preset: remove it");
    }
}
