//! The schemas of a source and the event types that they serve.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use apache_avro::Schema;

use crate::app;
use crate::cli::explain;
use crate::config::{ConfigErrors, LoadedConfig, Unmapped};
use crate::envelope::{Envelope, EventPlaces};
use crate::files;
use crate::names;
use crate::schema::shipped::{self, SchemaOrigin};

/// A source with its schemas.
pub(super) struct ServedSource {
    pub(super) name: String,
    pub(super) places: EventPlaces,
    /// The schemas, each with the types that it serves.
    pub(super) files: Vec<File>,
    /// The types without a schema.
    pub(super) generic: Vec<String>,
    /// Whether types that are not configured use the generic record.
    pub(super) unmapped: bool,
}

/// A schema with the types it serves.
pub(super) struct File {
    pub(super) origin: SchemaOrigin,
    pub(super) text: String,
    pub(super) schema: Schema,
    pub(super) types: Vec<String>,
}

impl ServedSource {
    /// # Errors
    /// An unknown source, invalid rules, or a schema that cannot be read.
    pub(super) fn find(loaded: &LoadedConfig, name: &str) -> anyhow::Result<Self> {
        let rules = loaded.config.source.get(name).with_context(|| explain::missing(name, loaded))?;
        let (mut problems, place) = (ConfigErrors::default(), format!("source.{name}.envelope"));
        let envelope = Envelope::compile(&rules.envelope, &rules.signature, &place, &mut problems);
        problems.or(())?;
        let places = envelope.with_context(|| format!("{place} is empty"))?.places().clone();
        let mut files: BTreeMap<String, File> = BTreeMap::new();
        let mut generic = Vec::new();
        for event_type in &rules.types {
            let found =
                shipped::find(Some(Path::new(app::SCHEMAS)), name, rules.preset.as_deref(), event_type);
            match found.map_err(anyhow::Error::msg)? {
                None => generic.push(event_type.clone()),
                Some(found) => {
                    let origin = found.origin.to_string();
                    if let Some(file) = files.get_mut(&origin) {
                        file.types.push(event_type.clone());
                        continue;
                    }
                    let text = found.text.into_owned();
                    let schema = shipped::parse(&text);
                    let schema = schema.map_err(anyhow::Error::msg).with_context(|| origin.clone())?;
                    let types = vec![event_type.clone()];
                    files.insert(origin, File { origin: found.origin, text, schema, types });
                }
            }
        }
        let unmapped = rules.unmapped == Unmapped::Generic;
        Ok(Self { name: name.to_owned(), places, files: files.into_values().collect(), generic, unmapped })
    }

    /// The schema of a type.
    ///
    /// # Errors
    /// A type that is not configured, or has no schema.
    pub(super) fn file(&self, event_type: &str) -> anyhow::Result<&File> {
        let file = self.files.iter().find(|file| file.types.iter().any(|known| known == event_type));
        file.with_context(|| {
            let name = &self.name;
            if self.unmapped || self.generic.iter().any(|known| known == event_type) {
                return format!(
                    "{event_type} has no schema, its records contain the complete event as text: \
                     `hookstream schema infer {name} {event_type}` makes one"
                );
            }
            let known = self.files.iter().flat_map(|file| &file.types).chain(&self.generic);
            let known: Vec<&str> = known.map(String::as_str).collect();
            format!("{name} has no event type `{event_type}`; there are: {}", known.join(", "))
        })
    }

    pub(super) fn topic(&self, event_type: &str) -> String {
        names::topic(&self.name, event_type)
    }

    /// The path of the operator's own schema file, existing or not.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        Path::new(app::SCHEMAS).join(&self.name).join(file)
    }
}

impl File {
    /// The path that a new version is written to.
    pub(super) fn path(&self, source: &ServedSource) -> PathBuf {
        match &self.origin {
            SchemaOrigin::File(path) => path.clone(),
            SchemaOrigin::BuiltIn { file, .. } => source.path(file),
        }
    }
}

/// Writes a schema file atomically.
pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(cannot)?;
    }
    files::replace(path, text.as_bytes(), 0o644).with_context(cannot)
}
