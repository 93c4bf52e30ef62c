//! Avro: schemas and their ids, JSON in, framed values out.

pub mod decode;
pub mod encode;
mod instant;
mod number;
mod places;
mod plan;
pub mod registry;
pub mod shipped;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use apache_avro::Schema;

pub use encode::{Encoded, Encoder};
pub use registry::Registry;

use crate::config::{Config, Problems};
use crate::names;

/// The schemas of all event types, with the ids that the registry has given so far.
#[derive(Debug, Default, Clone)]
pub struct Schemas {
    loaded: BTreeMap<(String, String), Loaded>,
    ids: HashMap<String, u32>,
}

#[derive(Debug, Clone)]
struct Loaded {
    subject: String,
    text: String,
    schema: Schema,
}

impl Schemas {
    /// Finds and parses the schema of each event type of each source: below
    /// `directory` first, then among those in the binary. Faults go to `problems`.
    pub fn load(directory: &Path, config: &Config, problems: &mut Problems) -> Self {
        let mut loaded = BTreeMap::new();
        for (name, source) in &config.source {
            for event_type in &source.types {
                match shipped::find(Some(directory), name, source.preset.as_deref(), event_type) {
                    Ok(Some(found)) => match shipped::parse(&found.text) {
                        Ok(schema) => {
                            let subject = names::subject(&names::topic(name, event_type));
                            let entry = Loaded { subject, text: found.text.into_owned(), schema };
                            loaded.insert((name.clone(), event_type.clone()), entry);
                        }
                        Err(message) => problems.add(format!("schema of {name} {event_type}"), message),
                    },
                    Ok(None) => problems.add(
                        format!("source.{name}.types"),
                        format!("no schema for {event_type}: put one into {}/{name}/", directory.display()),
                    ),
                    Err(message) => problems.add(format!("schema of {name} {event_type}"), message),
                }
            }
        }
        Self { loaded, ids: HashMap::new() }
    }

    /// The schema of an event type.
    pub fn get(&self, source: &str, event_type: &str) -> Option<&Schema> {
        self.loaded.get(&(source.to_owned(), event_type.to_owned())).map(|loaded| &loaded.schema)
    }

    /// The id of a subject's schema, once the registry has given it.
    pub fn id(&self, subject: &str) -> Option<u32> {
        self.ids.get(subject).copied()
    }

    /// Remembers an id.
    pub fn set_id(&mut self, subject: String, id: u32) {
        self.ids.insert(subject, id);
    }

    /// Whether the registry has given any id.
    pub fn any_id(&self) -> bool {
        !self.ids.is_empty()
    }

    /// Subjects whose schema has no id yet, with the schema's text.
    pub fn without_id(&self) -> Vec<(String, String)> {
        let open = self.loaded.values().filter(|loaded| !self.ids.contains_key(&loaded.subject));
        open.map(|loaded| (loaded.subject.clone(), loaded.text.clone())).collect()
    }
}
