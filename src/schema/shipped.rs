//! The schemas that are built into the binary, and the search for an event type's schema.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::files;
use crate::names;

/// Source (a preset's name), file name, text. A test compares it with the directory.
const SHIPPED: &[(&str, &str, &str)] = &[
    ("datagrid", "batch_prediction.avsc", include_str!("../../schemas/datagrid/batch_prediction.avsc")),
    (
        "datagrid",
        "knowledge.processing.completed.avsc",
        include_str!("../../schemas/datagrid/knowledge.processing.completed.avsc"),
    ),
    ("grapevine", "document.changed.avsc", include_str!("../../schemas/grapevine/document.changed.avsc")),
];

/// The schema of every event type that has no schema of its own.
const GENERIC: &str = include_str!("../../schemas/generic.avsc");

/// The generic schema for an event type, with the record name that its own schema would have.
pub fn generic(source: &str, event_type: &str) -> String {
    let (name, namespace) = (names::avro_record(event_type), names::avro_namespace(source));
    GENERIC.replace("{NAME}", &name).replace("{NAMESPACE}", &namespace)
}

/// A schema for an event type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSchema {
    /// The file's name without `.avsc`, as [`names::avro_name`] expects it.
    pub stem: String,
    /// The schema as JSON.
    pub text: Cow<'static, str>,
    /// Where the schema was found.
    pub origin: SchemaOrigin,
}

/// Where a schema was found; displayed as a path or as `built in: <source>/<file>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaOrigin {
    /// An operator's file.
    File(PathBuf),
    /// Built into the binary for this source.
    BuiltIn {
        /// The source or preset that it was made for: the namespace in its Avro name.
        source: &'static str,
        /// The file's name.
        file: &'static str,
    },
}

impl SchemaOrigin {
    /// The operator's file, if it is one.
    pub fn file(self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::BuiltIn { .. } => None,
        }
    }
}

impl fmt::Display for SchemaOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::BuiltIn { source, file } => write!(f, "built in: {source}/{file}"),
        }
    }
}

/// Finds the schema of `event_type`: first among the files in `dir/<source>/`, in the order of [`names::schema_files`],
/// then among those built in for the source's name, then among those for its preset. `None` if there is none.
///
/// # Errors
/// One sentence with the path of a file that exists and cannot be read.
pub fn find(
    dir: Option<&Path>,
    source: &str,
    preset: Option<&str>,
    event_type: &str,
) -> Result<Option<FoundSchema>, String> {
    let files: Vec<String> = names::schema_files(event_type).collect();
    for file in &files {
        let Some(path) = dir.map(|dir| dir.join(source).join(file)) else { break };
        match files::read_text(&path, files::MAX_TEXT) {
            Ok(text) => {
                return Ok(Some(FoundSchema {
                    stem: stem(file),
                    text: text.into(),
                    origin: SchemaOrigin::File(path),
                }));
            }
            // `dir` or `dir/<source>` may also be an unrelated file.
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(format!("cannot read the schema {}: {error}", path.display())),
        }
    }
    Ok(std::iter::once(source).chain(preset).find_map(|owner| built_in(owner, &files)))
}

fn built_in(owner: &str, files: &[String]) -> Option<FoundSchema> {
    files.iter().find_map(|wanted| {
        SHIPPED.iter().find(|(source, file, _)| *source == owner && file == wanted).map(
            |&(source, file, text)| FoundSchema {
                stem: stem(file),
                text: text.into(),
                origin: SchemaOrigin::BuiltIn { source, file },
            },
        )
    })
}

fn stem(file: &str) -> String {
    file.strip_suffix(".avsc").unwrap_or(file).to_owned()
}

/// Parses a schema's text.
///
/// # Errors
/// One sentence; it may quote the schema, which is not payload.
pub fn parse(text: &str) -> Result<apache_avro::Schema, String> {
    apache_avro::Schema::parse_str(text).map_err(|error| {
        let mut sentence = format!("this is not an Avro schema: {error}");
        let mut cause = std::error::Error::source(&error);
        while let Some(next) = cause {
            let next_text = next.to_string();
            if !sentence.contains(&next_text) {
                sentence.push_str(": ");
                sentence.push_str(&next_text);
            }
            cause = next.source();
        }
        sentence
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use apache_avro::Schema;

    use super::*;

    fn origin(dir: Option<&Path>, source: &str, preset: Option<&str>, event_type: &str) -> Option<String> {
        find(dir, source, preset, event_type).unwrap().map(|found| found.origin.to_string())
    }

    #[test]
    fn the_table_matches_the_directory() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let mut files = Vec::new();
        let sources = std::fs::read_dir(&root).unwrap().map(Result::unwrap);
        for source in sources.filter(|source| source.file_name() != "generic.avsc") {
            let inside = std::fs::read_dir(source.path()).unwrap().map(Result::unwrap);
            for file in inside.filter(|file| file.file_name() != "versions") {
                let text = std::fs::read_to_string(file.path()).unwrap();
                let names = (source.file_name(), file.file_name());
                files.push((names.0.into_string().unwrap(), names.1.into_string().unwrap(), text));
            }
        }
        files.sort();
        let shipped: Vec<_> =
            SHIPPED.iter().map(|(s, f, t)| (s.to_string(), f.to_string(), t.to_string())).collect();
        assert_eq!(shipped, files);
    }

    #[test]
    fn every_shipped_record_has_the_expected_name_and_no_name_is_used_twice() {
        fn names(schema: &Schema, seen: &mut Vec<String>) {
            match schema {
                Schema::Record(record) => {
                    seen.push(record.name.fullname(None));
                    record.fields.iter().for_each(|field| names(&field.schema, seen));
                }
                Schema::Union(union) => union.variants().iter().for_each(|schema| names(schema, seen)),
                Schema::Array(array) => names(&array.items, seen),
                Schema::Map(map) => names(&map.types, seen),
                _ => {}
            }
        }
        let mut seen = Vec::new();
        for (source, file, text) in SHIPPED {
            let before = seen.len();
            names(&parse(text).unwrap(), &mut seen);
            assert_eq!(seen[before], names::avro_name(source, &stem(file)), "{source}/{file}");
            let namespace = format!("hookstream.{source}.");
            assert!(seen[before..].iter().all(|name| name.starts_with(&namespace)), "{seen:?}");
        }
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len(), "{seen:?}");
    }

    #[test]
    fn every_shipped_record_and_field_has_a_doc_and_provider_fields_are_nullable() {
        fn check(schema: &Schema, provider: bool) {
            match schema {
                Schema::Record(record) => {
                    assert!(record.doc.is_some(), "{}", record.name);
                    for field in &record.fields {
                        let at = format!("{}.{}", record.name, field.name);
                        assert!(field.doc.as_ref().is_some_and(|doc| doc.ends_with('.')), "{at}");
                        if provider || field.name == "tenant_id" {
                            assert!(field.is_nullable(), "{at}");
                            assert!(field.default.as_ref().unwrap().is_null(), "{at}");
                        }
                        check(&field.schema, provider || field.name == "data");
                    }
                }
                Schema::Union(union) => union.variants().iter().for_each(|schema| check(schema, provider)),
                _ => {}
            }
        }
        for (_, _, text) in SHIPPED {
            check(&parse(text).unwrap(), false);
        }
        check(&parse(&generic("datagrid", "batch_prediction.new")).unwrap(), false);
    }

    #[test]
    fn the_operators_file_is_preferred_then_the_source_then_its_preset() {
        let dir = tempfile::tempdir().unwrap();
        let root = Some(dir.path());
        let event = "batch_prediction.completed";
        assert_eq!(
            origin(root, "datagrid", None, event).unwrap(),
            "built in: datagrid/batch_prediction.avsc"
        );
        assert_eq!(
            origin(root, "mine", Some("datagrid"), event).unwrap(),
            "built in: datagrid/batch_prediction.avsc"
        );
        assert_eq!(origin(root, "mine", None, event), None);
        assert_eq!(origin(None, "datagrid", None, "batch_predictions"), None);

        std::fs::create_dir(dir.path().join("datagrid")).unwrap();
        let file = dir.path().join("datagrid/batch_prediction.avsc");
        std::fs::write(&file, "mine").unwrap();
        let found = find(root, "datagrid", None, event).unwrap().unwrap();
        assert_eq!((found.stem.as_str(), &*found.text), ("batch_prediction", "mine"));
        assert_eq!(found.origin, SchemaOrigin::File(file));
        std::fs::write(dir.path().join("datagrid/batch_prediction.completed.avsc"), "own").unwrap();
        assert_eq!(find(root, "datagrid", None, event).unwrap().unwrap().text, "own");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("datagrid/batch_prediction.avsc");
        std::fs::create_dir_all(&file).unwrap();
        let error = find(Some(dir.path()), "datagrid", None, "batch_prediction.failed").unwrap_err();
        assert!(error.contains("batch_prediction.avsc"), "{error}");
    }

    #[test]
    fn the_generic_schema_is_valid_for_any_name() {
        for (source, event_type) in
            [("github", "push"), ("my-shop", "orders/create"), ("x", "日本"), ("x", "")]
        {
            let Schema::Record(record) = parse(&generic(source, event_type)).unwrap() else { panic!() };
            assert_eq!(record.name.fullname(None), names::avro_name(source, event_type));
        }
    }

    #[test]
    fn an_invalid_schema_is_reported_in_one_sentence() {
        for text in ["{", "{\"type\":\"record\"}", "\"strin\""] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("this is not an Avro schema: ") && !error.contains('\n'), "{error}");
        }
    }
}
