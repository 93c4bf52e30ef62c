//! Earlier versions of a schema, stored in files beside it, so that an incompatible change is found without a registry:
//! `schemas/<source>/versions/<stem>/<number>.avsc` beside `schemas/<source>/<stem>.avsc`. The search for an event
//! type's schema does not descend below its source's folder, so it never finds one of these. The numbers are local to
//! the folder: one file may serve several subjects, which may number their versions differently.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use apache_avro::Schema;

use super::compatibility::faults;
use super::shipped;
use crate::config::CompatibilityLevel;
use crate::files::{self, ReadError};

/// The folder's name.
const VERSIONS: &str = "versions";

/// A stored version.
#[derive(Debug)]
pub struct VersionFile {
    /// The file's path.
    pub path: PathBuf,
    /// The version number, from 1.
    pub number: u32,
    /// The text as it was registered.
    text: String,
    schema: Schema,
}

/// The folder with the versions of a schema file.
fn folder(file: &Path) -> Option<PathBuf> {
    Some(file.parent()?.join(VERSIONS).join(file.file_stem()?))
}

/// The stored versions of a schema file, by number.
///
/// # Errors
/// One sentence with the path of a file that has an unexpected name, cannot be read, or is not a schema.
pub fn read(file: &Path) -> Result<Vec<VersionFile>, String> {
    let Some(folder) = folder(file) else { return Ok(Vec::new()) };
    let unreadable = |path: &Path, error: &ReadError| format!("cannot read {}: {error}", path.display());
    let entries = match files::list(&folder) {
        Ok(entries) => entries,
        Err(error) if error.is_missing() => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(&folder, &error)),
    };
    let mut kept = Vec::new();
    for (path, _) in entries {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') {
            continue;
        }
        let number = name.strip_suffix(".avsc").and_then(|number| number.parse().ok());
        let number = number.filter(|number| *number > 0).ok_or_else(|| {
            format!(
                "{} is not a stored version: its name must be a number and .avsc, such as 3.avsc",
                path.display()
            )
        })?;
        let text = files::read_text(&path, files::MAX_TEXT).map_err(|error| unreadable(&path, &error))?;
        let schema = shipped::parse(&text).map_err(|why| format!("{}: {why}", path.display()))?;
        kept.push(VersionFile { path, number, text, schema });
    }
    kept.sort_by_key(|kept| kept.number);
    Ok(kept)
}

/// The stored versions with which a schema is incompatible at this level: the file, and a line for each field.
pub fn incompatibilities<'k>(
    level: CompatibilityLevel,
    schema: &Schema,
    kept: &'k [VersionFile],
) -> Vec<(&'k Path, Vec<String>)> {
    let latest = if level.transitive() { 0 } else { kept.len().saturating_sub(1) };
    let counting = kept.iter().skip(latest);
    let faults = counting.map(|kept| (kept.path.as_path(), faults(level, schema, &kept.schema)));
    faults.filter(|(_, faults)| !faults.is_empty()).collect()
}

/// Whether a schema is among the stored versions, apart from white space and the order of attributes.
pub fn contains(kept: &[VersionFile], text: &str) -> bool {
    kept.iter().any(|kept| same(&kept.text, text))
}

/// Stores a version of a schema file in a new file with the next number, completely or not at all.
///
/// # Errors
/// An error of the file system.
pub fn write_next(file: &Path, kept: &[VersionFile], text: &str) -> std::io::Result<PathBuf> {
    let folder = folder(file).ok_or_else(|| std::io::Error::from(ErrorKind::InvalidInput))?;
    fs::create_dir_all(&folder)?;
    let number = kept.last().map_or(0, |last| last.number) + 1;
    let path = folder.join(format!("{number}.avsc"));
    files::replace(&path, text.as_bytes(), 0o644)?;
    Ok(path)
}

#[expect(clippy::disallowed_types, reason = "schemas are compared as JSON values; no payload comes here")]
fn same(a: &str, b: &str) -> bool {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    a == b || (parse(a).is_some() && parse(a) == parse(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
    }

    const A: &str = r#"{"name":"a","type":"string"}"#;
    const B: &str = r#"{"name":"b","type":["null","string"],"default":null}"#;

    #[test]
    fn versions_are_numbered_in_order_and_never_found_as_the_schema_of_an_event_type() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("shop");
        fs::create_dir(&source).unwrap();
        let file = source.join("a.b.avsc");
        assert!(read(&file).unwrap().is_empty());
        for number in 1..=10 {
            let kept = read(&file).unwrap();
            let text = record(&format!(r#"{{"name":"f{number}","type":"string"}}"#));
            assert!(!contains(&kept, &text));
            write_next(&file, &kept, &text).unwrap();
            assert!(contains(&read(&file).unwrap(), &text.replace(',', " ,\n")));
        }
        let numbers: Vec<u32> = read(&file).unwrap().iter().map(|kept| kept.number).collect();
        assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
        for event_type in ["versions", "versions.a.b.1", "versions/a.b/1", "a.b.1"] {
            let found = shipped::find(Some(dir.path()), "shop", None, event_type).unwrap();
            assert_eq!(found, None, "{event_type}");
        }
    }

    #[test]
    fn the_level_decides_which_versions_are_compared() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.avsc");
        for fields in [r#"{"name":"a","type":"long"}"#, A] {
            write_next(&file, &read(&file).unwrap(), &record(fields)).unwrap();
        }
        let (kept, new) = (read(&file).unwrap(), shipped::parse(&record(&format!("{A},{B}"))).unwrap());
        let numbers = |level| -> Vec<String> {
            let found = incompatibilities(level, &new, &kept);
            found
                .into_iter()
                .map(|(path, faults)| format!("{} {}", path.file_name().unwrap().display(), faults.len()))
                .collect()
        };
        assert_eq!(numbers(CompatibilityLevel::FullTransitive), ["1.avsc 2"]);
        assert_eq!(numbers(CompatibilityLevel::BackwardTransitive), ["1.avsc 1"]);
        assert_eq!(numbers(CompatibilityLevel::Full), [""; 0]);
        assert_eq!(numbers(CompatibilityLevel::None), [""; 0]);
    }

    #[test]
    fn a_file_with_an_unexpected_name_or_without_a_schema_is_reported_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.avsc");
        let folder = dir.path().join("versions/a");
        fs::create_dir_all(&folder).unwrap();
        for (name, text, expected) in [
            ("v1.avsc", "{}", "v1.avsc is not a stored version: its name must be a number"),
            ("0.avsc", "{}", "0.avsc is not a stored version"),
            ("1.avsc", "{", "1.avsc: this is not an Avro schema"),
        ] {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            let error = read(&file).unwrap_err();
            assert!(error.contains(expected), "{error}");
            fs::remove_file(path).unwrap();
        }
    }
}
