//! Avro: schemas and their ids, JSON in, framed values out.

mod annotation;
pub mod changes;
pub mod compatibility;
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

/// The schemas of all event types, with the ids that the registry has given so far.
#[derive(Debug, Default, Clone)]
pub struct Schemas {
    loaded: BTreeMap<(String, String), SchemaEntry>,
    standings: HashMap<String, IdState>,
    /// By subject: what it is published with until the registry has given its new schema an id.
    former: HashMap<String, PreviousSchema>,
}

/// A schema of before a reload, and its id.
#[derive(Debug, Clone)]
struct PreviousSchema {
    loaded: SchemaEntry,
    standing: IdState,
}

/// What we know of the id of a subject's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdState {
    /// Nothing: the registry is to be asked for one.
    Unknown,
    /// From an earlier run. Used, and to be confirmed.
    Pinned(u32),
    /// The registry says so. Used.
    Confirmed(u32),
    /// The registry resolved it otherwise, or not at all, in this run or an earlier one. Not used
    /// until the registry confirms it.
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
}

/// A subject and its schema.
#[derive(Debug, Clone)]
pub struct SchemaEntry {
    /// By the strategy; `<topic>-value` by default.
    pub subject: String,
    /// The source whose event type it serves; of several that share the subject, each has one.
    pub source: String,
    /// The event type.
    pub event_type: String,
    /// The level that the subject is to have.
    pub level: CompatibilityLevel,
    /// Where it stands, if it is a file of the operator's.
    pub file: Option<PathBuf>,
    /// As it is registered.
    pub text: String,
    /// Parsed.
    pub schema: Schema,
}

impl Schemas {
    /// Finds and parses the schema of each event type of each source: below `directory` first, then
    /// among those in the binary, else the generic one. Faults go to `problems`.
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

    /// The schema of an event type, and its subject.
    pub fn get(&self, source: &str, event_type: &str) -> Option<&SchemaEntry> {
        self.loaded.get(&(source.to_owned(), event_type.to_owned()))
    }

    /// Whether an event type has no schema of its own.
    pub fn is_generic(&self, source: &str, event_type: &str) -> bool {
        let loaded = self.loaded.get(&(source.to_owned(), event_type.to_owned()));
        loaded.is_some_and(|loaded| loaded.text == shipped::generic(source, event_type))
    }

    /// The id of a subject's schema, if it may be used.
    pub fn id(&self, subject: &str) -> Option<u32> {
        self.standing(subject).id()
    }

    /// The schema that a subject had before a reload, with its id, as long as the new one has none.
    pub fn former(&self, subject: &str) -> Option<(&SchemaEntry, u32)> {
        let PreviousSchema { loaded, standing } = self.former.get(subject)?;
        Some((loaded, standing.id()?))
    }

    /// The subjects that are published with their former schemas.
    pub fn formers(&self) -> impl Iterator<Item = &str> {
        self.former.keys().map(String::as_str)
    }

    /// No longer uses a subject's former schema: the registry resolves its id otherwise.
    pub fn drop_previous(&mut self, subject: &str) {
        self.former.remove(subject);
    }

    /// What we know of a subject's id.
    pub fn standing(&self, subject: &str) -> IdState {
        self.standings.get(subject).copied().unwrap_or(IdState::Unknown)
    }

    /// Remembers what we know of a subject's id. With one that may be used, its former schema goes.
    pub fn set(&mut self, subject: &str, standing: IdState) {
        self.standings.insert(subject.to_owned(), standing);
        if standing.id().is_some() {
            self.former.remove(subject);
        }
    }

    /// Takes the ids that an earlier run has left. True if any may be used at once.
    pub fn pin(&mut self, cache: &IdCache) -> bool {
        for SchemaEntry { subject, text, .. } in self.loaded.values() {
            let Some(pin) = cache.get(subject, text) else { continue };
            let standing = if pin.lost { IdState::Lost(pin.id) } else { IdState::Pinned(pin.id) };
            self.standings.insert(subject.clone(), standing);
        }
        self.any_id()
    }

    /// Takes what `before` knows of the subjects whose schema is still the same, or again.
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

    /// Keeps the schemas that `before` is published with for the subjects whose new one has no id yet.
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

    /// The sources with a schema that differs, or that only one of both has.
    pub fn differing_sources(&self, other: &Self) -> BTreeSet<String> {
        let text = |schemas: &Self, key| schemas.loaded.get(key).map(|loaded| loaded.text.clone());
        let keys = self.loaded.keys().chain(other.loaded.keys());
        keys.filter(|key| text(self, key) != text(other, key)).map(|(source, _)| source.clone()).collect()
    }

    /// Whether any id may be used.
    pub fn any_id(&self) -> bool {
        !self.former.is_empty() || self.loaded.values().any(|loaded| self.id(&loaded.subject).is_some())
    }

    /// All subjects with their schemas, each subject once.
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
    /// One sentence, where the text is no schema.
    fn new(
        source: &str,
        event_type: &str,
        level: CompatibilityLevel,
        text: String,
        strategy: SubjectNameStrategy,
    ) -> Result<Self, String> {
        let schema = shipped::parse(&text)?;
        let topic = names::topic(source, event_type);
        // What is no record is told where it is compiled.
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

/// A subject that several event types share has one schema and one level.
fn shared(all: &[SchemaEntry], problems: &mut ConfigErrors) {
    let mut first: HashMap<&str, &SchemaEntry> = HashMap::new();
    for loaded in all {
        let other = *first.entry(&loaded.subject).or_insert(loaded);
        let whose = format!("{} {}", other.source, other.event_type);
        let subject = &loaded.subject;
        if other.text != loaded.text {
            let message = format!(
                "has the record's name {subject}, and so the subject, of the other schema of {whose}; rename one, or \
                 set registry.subject_name_strategy = \"topic_record_name\""
            );
            problems.add(loaded.place(), message);
        } else if other.level != loaded.level {
            let message = format!(
                "shares the subject {subject} with {whose}, whose compatibility is {}, not {}; give both sources the same",
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
    fn a_subject_is_named_by_the_strategy_and_may_be_shared_by_equals_only() {
        let text = shipped::generic("a", "x.y");
        let subject = |strategy| loaded("shop", "x.y", &text, strategy).subject;
        assert_eq!(subject(TopicName), "shop.x.y-value");
        assert_eq!(subject(RecordName), "hookstream.a.XY");
        assert_eq!(subject(TopicRecordName), "shop.x.y-hookstream.a.XY");
        let told = |all: &[SchemaEntry]| {
            let mut problems = ConfigErrors::default();
            shared(all, &mut problems);
            problems.lines()
        };
        let other = text.replace("The event id", "An event id");
        let (one, same) = (loaded("a", "x", &text, RecordName), loaded("b", "x", &text, RecordName));
        assert_eq!(told(&[one.clone(), same.clone()]), [""; 0]);
        let schemas = Schemas { loaded: keyed(vec![one.clone(), same.clone()]), ..Schemas::default() };
        assert_eq!((schemas.iter().count(), schemas.of("b").count()), (1, 1));
        let differs = loaded("b", "x", &other, RecordName);
        let problem = "schema of b x: has the record's name hookstream.a.XY, and so the subject, of the other schema of a x; \
                       rename one, or set registry.subject_name_strategy = \"topic_record_name\"";
        assert_eq!(told(&[one.clone(), differs]), [problem]);
        let weaker = SchemaEntry { level: CompatibilityLevel::Full, ..same };
        assert!(
            told(&[one, weaker])[0].contains("whose compatibility is FULL_TRANSITIVE, not FULL; give both")
        );
    }

    /// The schemas of a source.
    fn with(types: &[(&str, String)]) -> Schemas {
        let all = types.iter().map(|(event_type, text)| loaded("a", event_type, text, TopicName));
        Schemas { loaded: keyed(all.collect()), ..Schemas::default() }
    }

    #[test]
    fn the_former_schema_serves_until_the_new_one_has_an_id_or_is_taken_back() {
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
        // Changed once more before the registry has answered.
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
