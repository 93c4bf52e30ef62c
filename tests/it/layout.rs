//! The modules are in the order of `lib.rs`, and each uses only modules below it.

use std::path::{Path, PathBuf};

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn rooms(lib: &str) -> Vec<String> {
    let declared = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    declared.map(str::to_owned).collect()
}

/// Every `crate::MODULE` in the code, not only in `use` lines. Comments may refer to any module.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
}

/// `crate::{a, b}` would hide modules from this test.
fn hidden(text: &str) -> bool {
    text.contains("crate::{") || text.contains("crate::*")
}

fn violations(rooms: &[String], room: &str, text: &str) -> Vec<String> {
    let place = |name: &str| rooms.iter().position(|room| room == name);
    let own = place(room).unwrap_or_else(|| panic!("{room} is not in lib.rs"));
    named(text)
        .filter(|name| match place(name) {
            // A macro or a test helper at the root is not a module.
            None => false,
            Some(other) => {
                other < own || (room == "kafka" && *name == "spool") || (room == "spool" && *name == "kafka")
            }
        })
        .map(|name| format!("{room} names {name}, which stands above it"))
        .collect()
}

#[test]
fn every_room_names_only_rooms_below_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rooms = rooms(&std::fs::read_to_string(source.join("lib.rs")).unwrap());
    assert!(rooms.len() > 15, "{rooms:?}");
    let mut all = Vec::new();
    files(&source, &mut all);
    let mut wrong = Vec::new();
    for file in all {
        let relative = file.strip_prefix(&source).unwrap();
        let first = relative.iter().next().unwrap().to_str().unwrap();
        let room = first.strip_suffix(".rs").unwrap_or(first);
        if matches!(room, "lib" | "main") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!hidden(&text), "{}: write crate::ROOM out", relative.display());
        wrong.extend(
            violations(&rooms, room, &text).into_iter().map(|text| format!("{}: {text}", relative.display())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// HTTP clients are created only in `client.rs`, which disables redirects.
#[test]
fn every_http_client_begins_in_one_place() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&source, &mut all);
    let begins = ["reqwest::Client::builder", "reqwest::Client::new", "reqwest::get", "ClientBuilder::new"];
    let found = all.iter().filter(|file| {
        let text = std::fs::read_to_string(file).unwrap();
        begins.iter().any(|begin| text.contains(begin))
    });
    assert_eq!(found.collect::<Vec<_>>(), [&source.join("client.rs")]);
}

#[test]
fn a_path_that_goes_up_is_found_anywhere_in_the_code() {
    let rooms: Vec<String> = ["http", "kafka", "spool", "json"].map(str::to_owned).into();
    assert!(violations(&rooms, "http", "use crate::json;\nfn f() { crate::kafka::g() }").is_empty());
    assert_eq!(violations(&rooms, "json", "fn f(x: crate::kafka::Ack) {}").len(), 1);
    assert_eq!(violations(&rooms, "kafka", "crate::spool::put()").len(), 1, "they never name each other");
    assert!(violations(&rooms, "json", "/// see [`crate::kafka`]").is_empty());
    assert!(hidden("use crate::{http, json};"));
}
