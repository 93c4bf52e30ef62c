//! The modules are in the order of `lib.rs`, and each uses only modules below it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod circles;

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
            // Macros and test helpers at the root are not modules.
            None => false,
            Some(other) => {
                other < own || (room == "kafka" && *name == "spool") || (room == "spool" && *name == "kafka")
            }
        })
        .map(|name| format!("{room} names {name}, which is above it"))
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
        assert!(!hidden(&text), "{}: write each crate::ROOM separately", relative.display());
        wrong.extend(
            violations(&rooms, room, &text).into_iter().map(|text| format!("{}: {text}", relative.display())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// HTTP clients are created only in `client.rs`, which disables redirects.
#[test]
fn every_http_client_is_created_in_one_file() {
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

/// The product's code by module, such as `http::body`; lib.rs is "".
type Modules = BTreeMap<String, String>;

fn modules() -> Modules {
    let mut found = Modules::new();
    read_modules("", &mut found);
    found
}

/// Reads a module and those that it declares, except those that only tests declare.
fn read_modules(module: &str, found: &mut Modules) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file_of(module));
    let code = without_comments(&product_code(&std::fs::read_to_string(file).unwrap()));
    let declared = code.lines().filter_map(|line| {
        let (visibility, name) = line.strip_suffix(';')?.split_once("mod ")?;
        (visibility.is_empty() || visibility.starts_with("pub")).then_some(name)
    });
    declared.for_each(|name| read_modules(&member(module, name), found));
    found.insert(module.to_owned(), code);
}

fn member(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

fn file_of(module: &str) -> String {
    format!("src/{}.rs", if module.is_empty() { "lib".to_owned() } else { module.replace("::", "/") })
}

/// Code without items under `#[cfg(test)]`; rustfmt's indentation shows where an item ends.
fn product_code(text: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let (mut code, mut lines) = (String::new(), text.lines());
    while let Some(line) = lines.next() {
        if line.trim_start() == "#[cfg(test)]" {
            lines.by_ref().find(|next| indent(next) == indent(line) && next.ends_with([';', '}', ',']));
        } else {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

fn without_comments(code: &str) -> String {
    code.split_inclusive('\n').filter(|line| !line.trim_start().starts_with("//")).collect()
}

/// Comparisons with the text of a message: a new wording would change what the program does.
fn decisions_by_message(code: &str) -> Vec<String> {
    const TEXTS: [&str; 8] =
        ["detail", "message", "error", "why", "cause", "hint", "to_string()", "to_string().as_str()"];
    const COMPARISONS: [&str; 6] =
        ["contains(", "starts_with(", "ends_with(", "strip_prefix(", "find(", "eq("];
    // Joins calls that rustfmt has broken into lines.
    let code = code.lines().map(str::trim).collect::<Vec<_>>().join("\n").replace("\n.", ".");
    let found = |line: &&str| {
        TEXTS.iter().any(|text| {
            let called = COMPARISONS.iter().any(|comparison| {
                let call = format!("{text}.{comparison}");
                line.match_indices(&call).any(|(at, _)| {
                    let before = line.get(..at).unwrap_or_default().chars().next_back();
                    before.is_none_or(|before| !before.is_alphanumeric() && before != '_')
                })
            });
            called || line.contains(&format!(" {text} == \"")) || line.contains(&format!(".{text} == \""))
        })
    };
    code.lines().filter(found).map(str::to_owned).collect()
}

#[test]
fn no_code_branches_on_the_text_of_a_message() {
    let mut wrong = Vec::new();
    for (module, code) in modules() {
        let found = decisions_by_message(&code);
        wrong.extend(found.into_iter().map(|line| format!("{}: {line}", file_of(&module))));
    }
    assert!(wrong.is_empty(), "match on a type for the cause instead:\n{}", wrong.join("\n"));
}

#[test]
fn a_branch_on_a_message_is_found_in_any_spelling() {
    for code in [
        "if detail.ends_with(\"twice\") {",
        "Err(error) if error.error.contains(\"status 404\") => {",
        "let found = error\n    .to_string()\n    .contains(\"x\");",
        "parts.iter().any(|part| detail.contains(part))",
        "fields.filter(|field| field.why == \"new\")",
    ] {
        assert_eq!(decisions_by_message(code).len(), 1, "{code}");
    }
    for code in ["first_error.contains(&key)", "known.contains(detail)"] {
        assert!(decisions_by_message(code).is_empty(), "{code}");
    }
    let tested = "fn f() {}\n// a comment\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\nfn g() {}\n";
    assert_eq!(without_comments(&product_code(tested)), "fn f() {}\nfn g() {}\n");
    assert_eq!(product_code("#[cfg(test)]\nmod tests;\nmod a;\n"), "mod a;\n");
}

/// The types that a file defines. Associated types are indented.
fn types(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter_map(|line| {
        let mut rest = line;
        if let Some(public) = line.strip_prefix("pub") {
            rest = public.trim_start();
            if rest.starts_with('(') {
                rest = rest.split_once(')')?.1.trim_start();
            }
        }
        let kinds = ["struct ", "enum ", "trait ", "type ", "union "];
        let rest = kinds.iter().find_map(|kind| rest.strip_prefix(kind))?;
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
    })
}

#[test]
fn no_two_types_share_a_name() {
    // The arguments of a command are always written with its module: `serve::Args`.
    const QUALIFIED: [&str; 1] = ["Args"];
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (module, code) in modules() {
        for name in types(&code) {
            found.entry(name.to_owned()).or_default().push(file_of(&module));
        }
    }
    assert!(found.len() > 400, "{} types", found.len());
    found.retain(|name, files| files.len() > 1 && !QUALIFIED.contains(&&**name));
    assert!(found.is_empty(), "{found:#?}");
}

/// The public items of a room's own file without a doc. Fields, variants and methods need one only if their names do not
/// explain them.
fn undocumented(facade: &str) -> Vec<&str> {
    let (mut documented, mut found) = (false, Vec::new());
    for line in facade.lines() {
        let is_item =
            line.starts_with("pub ") && !line.starts_with("pub mod ") && !line.starts_with("pub use ");
        if is_item && !documented {
            found.push(line);
        }
        // Attributes may be between a doc and its item.
        documented = line.starts_with("///") || documented && line.starts_with(['#', ' ', ')']);
    }
    found
}

#[test]
fn every_room_and_the_items_of_its_own_file_have_a_doc() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for room in rooms(&std::fs::read_to_string(source.join("lib.rs")).unwrap()) {
        let text = std::fs::read_to_string(source.join(format!("{room}.rs"))).unwrap();
        assert!(text.starts_with("//! "), "{room}");
        assert_eq!(undocumented(&product_code(&text)), [""; 0], "{room}");
    }
}

#[test]
fn an_undocumented_item_is_found() {
    let code = "/// A.\n#[derive(\n    Debug,\n)]\npub struct A {\n    pub field: u8,\n}\n\npub use b::B;\npub const C: u8 = 1;\n";
    assert_eq!(undocumented(code), ["pub const C: u8 = 1;"]);
}

#[test]
fn an_upward_path_is_found_anywhere_in_the_code() {
    let rooms: Vec<String> = ["http", "kafka", "spool", "json"].map(str::to_owned).into();
    assert!(violations(&rooms, "http", "use crate::json;\nfn f() { crate::kafka::g() }").is_empty());
    assert_eq!(violations(&rooms, "json", "fn f(x: crate::kafka::Ack) {}").len(), 1);
    assert_eq!(
        violations(&rooms, "kafka", "crate::spool::put()").len(),
        1,
        "kafka and spool must not name each other"
    );
    assert!(violations(&rooms, "json", "/// see [`crate::kafka`]").is_empty());
    assert!(hidden("use crate::{http, json};"));
}

#[test]
fn below_the_program_every_error_has_a_type() {
    let programs = ["cli", "app", "dev"];
    let below = |module: &str| !programs.contains(&module.split("::").next().unwrap_or_default());
    let wrong = modules().into_iter().filter(|(module, code)| below(module) && code.contains("anyhow"));
    let wrong: Vec<_> = wrong.map(|(module, _)| file_of(&module)).collect();
    assert!(wrong.is_empty(), "give the errors an enum, whose causes a caller can match: {wrong:?}");
}
