//! Avro: schemas and their ids, and the encoding of JSON events as framed values.

mod annotation;
pub mod changes;
pub mod compatibility;
mod compile;
pub mod decode;
pub mod drift;
pub mod encode;
mod timestamp;
pub mod version_files;
mod number;
pub mod id_cache;
mod places;
mod plan;
pub mod promoted_fields;
mod incompatibility;
pub mod registry;
pub mod shipped;
mod walk;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use apache_avro::Schema;

pub use encode::{Encoded, Encoder};
pub use id_cache::IdCache;
pub use registry::Registry;
use shipped::FoundSchema;

use crate::config::{CompatibilityLevel, Config, ConfigErrors, SubjectNameStrategy, Unmapped};
use crate::names;

/// The schemas of all event types, with the ids known so far.
#[derive(Debug, Default, Clone)]
pub struct Schemas {
    loaded: BTreeMap<(String, String), SchemaEntry>,
    standings: HashMap<String, IdState>,
    /// By subject: the schema that records are published with until the new schema has an id.
    former: HashMap<String, PreviousSchema>,
}

/// The schema from before a reload, and its id.
#[derive(Debug, Clone)]
struct PreviousSchema {
    loaded: SchemaEntry,
    standing: IdState,
}

/// What is known about the id of a subject's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdState {
    /// No id is known; the registry must be asked for one.
    Unknown,
    /// An id from an earlier run. It is used, and must be confirmed.
    Pinned(u32),
    /// The registry confirmed the id. It is used.
    Confirmed(u32),
    /// In this run or an earlier one, the registry resolved the id to another schema or to none. It is not used until
    /// the registry confirms it.
    Lost(u32),
}

impl IdState {
    /// The id, if it may be used.
    fn id(self) -> Option<u32> {
        match self {
            Self::Pinned(id) | Self::Confirmed(id) => Some(id),
            Self::Unknown | Self::Lost(_) => None,
        }
    }

    /// The id, used or not.
    pub fn known(self) -> Option<u32> {
        match self {
            Self::Pinned(id) | Self::Confirmed(id) | Self::Lost(id) => Some(id),
            Self::Unknown => None,
        }
    }
}

/// A subject and its schema.
#[derive(Debug, Clone)]
pub struct SchemaEntry {
    /// Named by the strategy; `<topic>-value` by default.
    pub subject: String,
    /// The source of the event type. If several event types share the subject, each has its own entry.
    pub source: String,
    pub event_type: String,
    /// The compatibility level that the subject should have.
    pub level: CompatibilityLevel,
    /// The operator's file, if the schema is not built in.
    pub file: Option<PathBuf>,
    /// The text that is registered.
    pub text: String,
    /// The parsed text.
    pub schema: Schema,
}

impl Schemas {
    /// Finds and parses the schema of each event type of each source: first below `directory`, then among the built-in
    /// ones, else the generic one. Faults are added to `problems`.
    pub fn load(directory: &Path, config: &Config, problems: &mut ConfigErrors) -> Self {
        let mut all = Vec::new();
        let strategy = config.registry.subject_name_strategy;
        for (name, source) in &config.source {
            let mut add = |event_type: &str, text, file, problems: &mut ConfigErrors| match SchemaEntry::new(
                name,
                event_type,
                source.compatibility,
                text,
                strategy,
            ) {
                Ok(loaded) => all.push(SchemaEntry { file, ..loaded }),
                Err(message) => problems.add(format!("schema of {name} {event_type}"), message),
            };
            for event_type in &source.types {
                match shipped::find(Some(directory), name, source.preset.as_deref(), event_type) {
                    Ok(Some(FoundSchema { text, origin, .. })) => {
                        add(event_type, text.into_owned(), origin.file(), problems);
                    }
                    Ok(None) => add(event_type, shipped::generic(name, event_type), None, problems),
                    Err(message) => problems.add(format!("schema of {name} {event_type}"), message),
                }
            }
            if source.unmapped == Unmapped::Generic {
                add(names::UNMAPPED, shipped::generic(name, names::UNMAPPED), None, problems);
            }
        }
        shared(&all, problems);
        Self { loaded: keyed(all), ..Self::default() }
    }

    /// The schema of an event type, with its subject.
    pub fn get(&self, source: &str, event_type: &str) -> Option<&SchemaEntry> {
        self.loaded.get(&(source.to_owned(), event_type.to_owned()))
    }

    /// Whether an event type uses the generic schema.
    pub fn is_generic(&self, source: &str, event_type: &str) -> bool {
        let loaded = self.loaded.get(&(source.to_owned(), event_type.to_owned()));
        loaded.is_some_and(|loaded| loaded.text == shipped::generic(source, event_type))
    }

    /// The id of a subject's schema, if it may be used.
    pub fn id(&self, subject: &str) -> Option<u32> {
        self.standing(subject).id()
    }

    /// The schema that a subject had before a reload, with its id, as long as the new schema has none.
    pub fn former(&self, subject: &str) -> Option<(&SchemaEntry, u32)> {
        let PreviousSchema { loaded, standing } = self.former.get(subject)?;
        Some((loaded, standing.id()?))
    }

    /// The subjects whose records are published with the former schema.
    pub fn formers(&self) -> impl Iterator<Item = &str> {
        self.former.keys().map(String::as_str)
    }

    /// Stops using a subject's former schema, because the registry no longer resolves its id to it.
    pub fn drop_previous(&mut self, subject: &str) {
        self.former.remove(subject);
    }

    /// What is known about a subject's id.
    pub fn standing(&self, subject: &str) -> IdState {
        self.standings.get(subject).copied().unwrap_or(IdState::Unknown)
    }

    /// Records what is known about a subject's id. If the id may be used, the former schema is dropped.
    pub fn set(&mut self, subject: &str, standing: IdState) {
        self.standings.insert(subject.to_owned(), standing);
        if standing.id().is_some() {
            self.former.remove(subject);
        }
    }

    /// Uses the ids that an earlier run stored. True if any may be used immediately.
    pub fn pin(&mut self, cache: &IdCache) -> bool {
        for SchemaEntry { subject, text, .. } in self.loaded.values() {
            let Some(pin) = cache.get(subject, text) else { continue };
            let standing = if pin.lost { IdState::Lost(pin.id) } else { IdState::Pinned(pin.id) };
            self.standings.insert(subject.clone(), standing);
        }
        self.any_id()
    }

    /// Copies the ids from `before` for the subjects whose schema is unchanged, or was restored.
    pub fn carry_over(&mut self, before: &Self) {
        for (key, SchemaEntry { subject, text, .. }) in &self.loaded {
            if let Some(standing) = before.standings.get(subject)
                && before.loaded.get(key).is_some_and(|before| before.text == *text)
            {
                self.standings.insert(subject.clone(), *standing);
            } else if let Some(PreviousSchema { loaded, standing }) = before.former.get(subject)
                && loaded.text == *text
            {
                self.standings.insert(subject.clone(), *standing);
            }
        }
    }

    /// Retains the schemas that `before` publishes with, for the subjects whose new schema has no id yet.
    pub fn keep_former(&mut self, before: &Self) {
        for (key, SchemaEntry { subject, .. }) in &self.loaded {
            if self.standing(subject) != IdState::Unknown {
                continue;
            }
            let standing = before.standing(subject);
            let former = match before.loaded.get(key) {
                Some(loaded) if standing.id().is_some() => {
                    Some(PreviousSchema { loaded: loaded.clone(), standing })
                }
                _ => before.former.get(subject).cloned(),
            };
            self.former.extend(former.map(|former| (subject.clone(), former)));
        }
    }

    /// The sources with a schema that differs, or that only one of the two has.
    pub fn differing_sources(&self, other: &Self) -> BTreeSet<String> {
        let text = |schemas: &Self, key| schemas.loaded.get(key).map(|loaded| loaded.text.clone());
        let keys = self.loaded.keys().chain(other.loaded.keys());
        keys.filter(|key| text(self, key) != text(other, key)).map(|(source, _)| source.clone()).collect()
    }

    /// Whether any id may be used.
    pub fn any_id(&self) -> bool {
        !self.former.is_empty() || self.loaded.values().any(|loaded| self.id(&loaded.subject).is_some())
    }

    /// All schemas, each subject once.
    pub fn iter(&self) -> impl Iterator<Item = &SchemaEntry> {
        let mut seen = HashSet::new();
        self.loaded.values().filter(move |loaded| seen.insert(loaded.subject.as_str()))
    }

    /// The schemas of a source.
    pub fn of<'s>(&'s self, source: &str) -> impl Iterator<Item = &'s SchemaEntry> {
        let own = source.to_owned();
        self.loaded.values().filter(move |loaded| loaded.source == own)
    }
}

impl SchemaEntry {
    /// # Errors
    /// One sentence, if the text is not a schema.
    fn new(
        source: &str,
        event_type: &str,
        level: CompatibilityLevel,
        text: String,
        strategy: SubjectNameStrategy,
    ) -> Result<Self, String> {
        let schema = shipped::parse(&text)?;
        let topic = names::topic(source, event_type);
        // A schema that is not a record is reported when it is compiled.
        let record = schema.name().map(|name| name.fullname(None)).unwrap_or_default();
        let subject = match strategy {
            SubjectNameStrategy::TopicName => names::subject(&topic),
            SubjectNameStrategy::RecordName => record,
            SubjectNameStrategy::TopicRecordName => format!("{topic}-{record}"),
        };
        let (source, event_type) = (source.to_owned(), event_type.to_owned());
        Ok(Self { subject, source, event_type, level, file: None, text, schema })
    }

    fn place(&self) -> String {
        format!("schema of {} {}", self.source, self.event_type)
    }
}

fn keyed(all: Vec<SchemaEntry>) -> BTreeMap<(String, String), SchemaEntry> {
    all.into_iter().map(|loaded| ((loaded.source.clone(), loaded.event_type.clone()), loaded)).collect()
}

/// Event types that share a subject must have the same schema and the same level.
fn shared(all: &[SchemaEntry], problems: &mut ConfigErrors) {
    let mut first: HashMap<&str, &SchemaEntry> = HashMap::new();
    for loaded in all {
        let other = *first.entry(&loaded.subject).or_insert(loaded);
        let owner = format!("{} {}", other.source, other.event_type);
        let subject = &loaded.subject;
        if other.text != loaded.text {
            let message = format!(
                "has the record name {subject}, and therefore the subject, of the different schema of {owner}; rename one, or \
                 set registry.subject_name_strategy = \"topic_record_name\""
            );
            problems.add(loaded.place(), message);
        } else if other.level != loaded.level {
            let message = format!(
                "shares the subject {subject} with {owner}, whose compatibility is {}, not {}; set the same for both sources",
                other.level, loaded.level
            );
            problems.add(loaded.place(), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_that_are_pinned_or_confirmed_are_used() {
        let mut schemas = Schemas::default();
        let used = [IdState::Pinned(7), IdState::Confirmed(7)];
        for standing in used {
            schemas.set("a-value", standing);
            assert_eq!(schemas.id("a-value"), Some(7), "{standing:?}");
        }
        for standing in [IdState::Unknown, IdState::Lost(7)] {
            schemas.set("a-value", standing);
            assert_eq!(schemas.id("a-value"), None, "{standing:?}");
        }
        assert_eq!(schemas.id("b-value"), None);
    }

    use SubjectNameStrategy::{RecordName, TopicName, TopicRecordName};

    fn loaded(source: &str, event_type: &str, text: &str, strategy: SubjectNameStrategy) -> SchemaEntry {
        SchemaEntry::new(source, event_type, CompatibilityLevel::FullTransitive, text.to_owned(), strategy)
            .unwrap()
    }

    #[test]
    fn the_strategy_names_the_subject_and_only_equal_schemas_may_share_one() {
        let text = shipped::generic("a", "x.y");
        let subject = |strategy| loaded("shop", "x.y", &text, strategy).subject;
        assert_eq!(subject(TopicName), "shop.x.y-value");
        assert_eq!(subject(RecordName), "hookstream.a.XY");
        assert_eq!(subject(TopicRecordName), "shop.x.y-hookstream.a.XY");
        let problems = |all: &[SchemaEntry]| {
            let mut problems = ConfigErrors::default();
            shared(all, &mut problems);
            problems.lines()
        };
        let other = text.replace("The event id", "An event id");
        let (one, same) = (loaded("a", "x", &text, RecordName), loaded("b", "x", &text, RecordName));
        assert_eq!(problems(&[one.clone(), same.clone()]), [""; 0]);
        let schemas = Schemas { loaded: keyed(vec![one.clone(), same.clone()]), ..Schemas::default() };
        assert_eq!((schemas.iter().count(), schemas.of("b").count()), (1, 1));
        let differs = loaded("b", "x", &other, RecordName);
        let problem = "schema of b x: has the record name hookstream.a.XY, and therefore the subject, of the different schema of a x; \
                       rename one, or set registry.subject_name_strategy = \"topic_record_name\"";
        assert_eq!(problems(&[one.clone(), differs]), [problem]);
        let weaker = SchemaEntry { level: CompatibilityLevel::Full, ..same };
        assert!(
            problems(&[one, weaker])[0]
                .contains("whose compatibility is FULL_TRANSITIVE, not FULL; set the same")
        );
    }

    /// The schemas of a source.
    fn with(types: &[(&str, String)]) -> Schemas {
        let all = types.iter().map(|(event_type, text)| loaded("a", event_type, text, TopicName));
        Schemas { loaded: keyed(all.collect()), ..Schemas::default() }
    }

    #[test]
    fn the_former_schema_is_used_until_the_new_one_has_an_id_or_is_reverted() {
        let text =
            |n: usize| shipped::generic("a", "x").replace("The event id", &format!("The event id {n}"));
        let subject = "a.x-value";
        let reload = |before: &Schemas, n: usize| {
            let mut after = with(&[("x", text(n)), ("new", shipped::generic("a", "new"))]);
            after.carry_over(before);
            after.keep_former(before);
            after
        };
        let former =
            |schemas: &Schemas| schemas.former(subject).map(|(loaded, id)| (loaded.text == text(1), id));
        let mut first = with(&[("x", text(1))]);
        first.set(subject, IdState::Confirmed(7));
        let second = reload(&first, 2);
        assert_eq!((second.id(subject), former(&second)), (None, Some((true, 7))));
        assert!(second.any_id() && second.former("a.new-value").is_none());
        // Changed again before the registry has answered.
        let mut third = reload(&second, 3);
        assert_eq!((third.id(subject), former(&third)), (None, Some((true, 7))));
        let back = reload(&third, 1);
        assert_eq!((back.standing(subject), former(&back)), (IdState::Confirmed(7), None));
        third.set(subject, IdState::Confirmed(9));
        assert_eq!((third.id(subject), former(&third)), (Some(9), None));
        let mut lost = reload(&first, 2);
        lost.drop_previous(subject);
        assert_eq!((former(&lost), lost.any_id()), (None, false));
    }

    #[test]
    fn an_id_is_carried_over_to_the_same_schema_only() {
        let text = |event_type: &str| shipped::generic("a", event_type);
        let changed = text("changed").replace("The event id", "An event id");
        let mut before =
            with(&[("same", text("same")), ("changed", text("changed")), ("gone", text("gone"))]);
        for (event_type, id) in [("same", 1), ("changed", 2), ("gone", 3)] {
            before.set(&format!("a.{event_type}-value"), IdState::Lost(id));
        }
        let mut after = with(&[("same", text("same")), ("changed", changed), ("new", text("new"))]);
        after.carry_over(&before);
        assert_eq!(after.standing("a.same-value"), IdState::Lost(1));
        for event_type in ["changed", "gone", "new"] {
            assert_eq!(after.standing(&format!("a.{event_type}-value")), IdState::Unknown, "{event_type}");
        }
        after.keep_former(&before);
        assert_eq!(after.formers().count(), 0, "nothing is published with a lost id");
        assert_eq!(before.differing_sources(&after).into_iter().collect::<Vec<_>>(), ["a"]);
        assert!(before.differing_sources(&before).is_empty());
    }
}
