//! No files use each other in a circle: every file can be read after those that it uses.

use std::collections::{BTreeMap, BTreeSet};

use super::{Modules, file_of, member, modules};

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::`, and each other character.
fn tokens(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if is_name(rest) {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        found.push(token);
        rest = after.trim_start();
    }
    found
}

/// A path in the code: `use http::{body::Charge as Bytes}` has `http`, `body`, `Charge`, and calls it `Bytes`.
struct NamedPath<'c> {
    parts: Vec<&'c str>,
    called: &'c str,
    imported: bool,
}

fn paths(code: &str) -> Vec<NamedPath<'_>> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_name(tokens[at]) && tokens.get(at + 1) == Some(&"::") {
            let before = found.len();
            let imported = at > 0 && tokens[at - 1] == "use";
            at = read_path(&tokens, at, Vec::new(), &mut found);
            found[before..].iter_mut().for_each(|path| path.imported = imported);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads the path that begins at a token, or each path of `{...}`; returns the index after it.
fn read_path<'c>(
    tokens: &[&'c str],
    mut at: usize,
    mut parts: Vec<&'c str>,
    found: &mut Vec<NamedPath<'c>>,
) -> usize {
    loop {
        match tokens.get(at) {
            Some(&"{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    at = read_path(tokens, at, parts.clone(), found).max(at + 1);
                    at += usize::from(tokens.get(at) == Some(&","));
                }
                return at + 1;
            }
            Some(name) if is_name(name) => parts.push(name),
            _ => break,
        }
        at += 1;
        if tokens.get(at) != Some(&"::") {
            break;
        }
        at += 1;
    }
    let alias = if tokens.get(at) == Some(&"as") { tokens.get(at + 1) } else { None };
    let called = match tokens.get(at) {
        Some(&"*") => "*",
        _ => alias.or(parts.last()).copied().unwrap_or_default(),
    };
    found.push(NamedPath { parts, called, imported: false });
    if alias.is_some() { at + 2 } else { at }
}

/// The module that defines what `path` means in `module`, and its name there. A name that a module only imports is
/// looked up where it comes from.
fn definition<'c>(
    named: &BTreeMap<&str, Vec<NamedPath<'c>>>,
    module: &str,
    path: &[&'c str],
) -> Option<(String, &'c str)> {
    let mut at = module.to_owned();
    for (index, name) in path.iter().enumerate() {
        match *name {
            "crate" => at.clear(),
            "super" => at.truncate(at.rfind("::").unwrap_or(0)),
            "self" => {}
            name if named.contains_key(member(&at, name).as_str()) => at = member(&at, name),
            // Another crate's, or a type of this file.
            _ if index == 0 => return None,
            name => {
                let import = named[at.as_str()].iter().find(|path| path.imported && path.called == name);
                let further = import.and_then(|import| definition(named, &at, &import.parts));
                return further.or(Some((at, name)));
            }
        }
    }
    Some((at, ""))
}

/// What one file takes from another.
type Uses = BTreeMap<(String, String), BTreeSet<String>>;

/// What a module takes from its own facade is left out: the facade declares it, and may use it.
fn uses(modules: &Modules) -> Uses {
    let named: BTreeMap<&str, Vec<NamedPath>> =
        modules.iter().map(|(module, code)| (module.as_str(), paths(code))).collect();
    let mut found = Uses::new();
    for (&module, paths) in &named {
        for path in paths {
            let Some((other, name)) = definition(&named, module, &path.parts) else { continue };
            let own = other.is_empty() || module == other || module.starts_with(&format!("{other}::"));
            if !own {
                found.entry((module.to_owned(), other)).or_default().insert(name.to_owned());
            }
        }
    }
    found
}

/// The uses from which a file is reached again.
fn circular(uses: &Uses) -> Vec<String> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    uses.keys().for_each(|(user, used)| next.entry(user).or_default().push(used));
    let reaches = |from: &str, to: &str| {
        let (mut open, mut seen) = (vec![from], BTreeSet::from([from]));
        while let Some(file) = open.pop() {
            let unseen = next.get(file).into_iter().flatten().filter(|file| seen.insert(file));
            open.extend(unseen);
        }
        seen.contains(to)
    };
    uses.iter()
        .filter(|((user, used), _)| reaches(used, user))
        .map(|((user, used), names)| {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            format!("{} uses {}: {}", file_of(user), file_of(used), names.join(", "))
        })
        .collect()
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let uses = uses(&modules());
    assert!(uses.len() > 1000, "{} uses", uses.len());
    let circular = circular(&uses);
    assert!(circular.is_empty(), "move what they share to a file below both:\n{}", circular.join("\n"));
}

#[test]
fn a_circle_of_files_is_found_through_their_facade() {
    let circles = |y: &str| {
        let files = [
            ("", "pub mod a;\npub mod b;"),
            ("a", "mod x;\nmod y;\npub use x::X as Renamed;\nstruct Own;"),
            ("a::x", "use super::{Own, y::{Y, Z}};\nfn f() { super::y::g() }"),
            ("a::y", y),
            ("b", "use crate::a::{self, Renamed};\nuse a::y;"),
        ];
        circular(&uses(&files.map(|(module, code)| (module.to_owned(), code.to_owned())).into()))
    };
    let expected = ["src/a/x.rs uses src/a/y.rs: Y, Z, g", "src/a/y.rs uses src/a/x.rs: X"];
    assert_eq!(circles("use crate::a::Renamed;"), expected);
    assert_eq!(circles("fn f() -> super::Renamed {}"), expected);
    assert!(circles("use super::Own;\nuse std::x::X;").is_empty());
}
