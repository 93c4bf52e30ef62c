//! What is to be done so that the wished state is there, and what is left alone.
//!
//! Left alone is what would lose something that is there now, whatever the configuration wishes: fewer
//! copies before an acknowledgement, and, without [`Allowed::removal`], whatever makes Kafka remove records
//! (less retention, a `cleanup.policy` that newly compacts or deletes). What a key means to old records we
//! cannot know, so that compaction, too, is switched on by a person only.

mod subject;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::TIMESTAMP_TYPE;
use crate::config::CompatibilityLevel;
use crate::kafka::{Alteration, NewTopic, TopicDescription};
use crate::schema::changes::FieldChange;
pub(super) use subject::{Latest, RegisteredSubject, subject};

/// What may be done although it cannot be taken back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowed {
    /// More partitions: the records of one key are then in two.
    pub repartition: bool,
    /// Settings by which Kafka removes records.
    pub removal: bool,
}

/// All topics and subjects, those that are as wished among them.
#[derive(Debug, Default, Serialize)]
pub struct ProvisionPlan {
    /// Topics by name, then subjects.
    pub items: Vec<Item>,
    /// Commands that give us the permissions that are missing.
    pub grants: Vec<String>,
}

/// A topic or a subject.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Which of both.
    pub kind: ItemKind,
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub action: PlanAction,
    /// What is to change.
    pub changes: Vec<SettingChange>,
    /// Of a subject: the fields that differ from its last version.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// What consumers are to know of the change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What differs, and stays.
    pub left: Vec<Unchanged>,
    /// What somebody else has set, and stays.
    pub foreign: BTreeMap<String, String>,
    /// Why it cannot be done, or not be known; none of its steps is tried then.
    pub faults: Vec<String>,
    /// Whether it is unknown what it is like.
    pub unknown: bool,
    /// What `--apply` does.
    #[serde(skip)]
    pub steps: Vec<PlanStep>,
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// Of Kafka.
    Topic,
    /// Of the registry.
    Subject,
}

/// What becomes of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanAction {
    /// It is not there.
    Create,
    /// Something of it differs.
    Change,
    /// Nothing is to be done.
    Keep,
}

/// One value that is to change.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct SettingChange {
    /// `partitions`, `replication`, a key of the topic's configuration, `schema` or `compatibility`.
    pub setting: String,
    /// What it is; `None` where there is nothing yet.
    pub from: Option<String>,
    /// What it will be.
    pub to: String,
    /// What else is to be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One value that differs and is left alone.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Unchanged {
    /// As in [`Change`].
    pub setting: String,
    /// What it is.
    pub actual: String,
    /// What the configuration wishes.
    pub wished: String,
    /// Why it stays, and what to do for it.
    pub why: String,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanStep {
    /// Creates a topic.
    Create(NewTopic),
    /// Sets keys of a topic's configuration.
    Alter(Alteration),
    /// Gives a topic so many partitions.
    Partitions(String, usize),
    /// Sets a subject's level.
    Level(String, CompatibilityLevel),
    /// Registers a schema; a new subject gets its level, too.
    Register {
        /// The subject.
        subject: String,
        /// Its schema.
        schema: String,
        /// The level of a new subject.
        level: CompatibilityLevel,
    },
}

impl fmt::Display for PlanStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(topic) => write!(f, "create topic {}", topic.name),
            Self::Alter(Alteration { topic, settings }) => {
                let settings = settings.iter().map(|(key, value)| format!("{key}={value}"));
                write!(f, "set {} of topic {topic}", settings.collect::<Vec<_>>().join(" "))
            }
            Self::Partitions(topic, count) => write!(f, "give topic {topic} {count} partitions"),
            Self::Level(subject, level) => write!(f, "set compatibility {level} of subject {subject}"),
            Self::Register { subject, .. } => write!(f, "register the schema of subject {subject}"),
        }
    }
}

impl ProvisionPlan {
    /// How many topics and subjects are to be created or changed.
    pub fn pending(&self) -> usize {
        self.items.iter().filter(|item| item.action != PlanAction::Keep).count()
    }

    /// How many cannot be made as wished.
    pub fn blocked(&self) -> usize {
        self.items.iter().filter(|item| !item.faults.is_empty()).count()
    }
}

impl Item {
    fn new(kind: ItemKind, name: &str, action: PlanAction) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            action,
            changes: Vec::new(),
            fields: Vec::new(),
            notes: Vec::new(),
            left: Vec::new(),
            foreign: BTreeMap::new(),
            faults: Vec::new(),
            unknown: false,
            steps: Vec::new(),
        }
    }

    fn change(&mut self, setting: &str, from: Option<String>, to: String) {
        self.changes.push(SettingChange { setting: setting.to_owned(), from, to, note: None });
    }

    /// To the change that was added last.
    fn note(&mut self, note: &str) {
        if let Some(change) = self.changes.last_mut() {
            change.note = Some(note.to_owned());
        }
    }

    fn left(&mut self, setting: &str, actual: &str, wished: &str, why: &str) {
        let [setting, actual, wished, why] = [setting, actual, wished, why].map(str::to_owned);
        self.left.push(Unchanged { setting, actual, wished, why });
    }

    /// The same item as what its changes make of it.
    fn judged(mut self) -> Self {
        if self.action == PlanAction::Keep && !self.changes.is_empty() {
            self.action = PlanAction::Change;
        }
        self
    }
}

/// A topic as wished, and as it is if it is there.
pub(super) fn topic(wished: &NewTopic, actual: Option<&TopicDescription>, allowed: Allowed) -> Item {
    let Some(actual) = actual else {
        let mut item = Item::new(ItemKind::Topic, &wished.name, PlanAction::Create);
        item.change("partitions", None, wished.partitions.to_string());
        item.change("replication", None, wished.replication.to_string());
        for (key, value) in &wished.config {
            item.change(key, None, value.clone());
        }
        item.steps.push(PlanStep::Create(wished.clone()));
        return item;
    };
    let mut item = Item::new(ItemKind::Topic, &wished.name, PlanAction::Keep);
    if actual.settings.is_empty() {
        item.faults.push("its configuration cannot be read".into());
        item.unknown = true;
        return item;
    }
    size(&mut item, wished, actual, allowed);
    let mut settings = Vec::new();
    for (key, value) in &wished.config {
        let value = attainable(key, value, actual);
        let is = actual.settings.get(*key).map_or("", |setting| &setting.value);
        match judge(key, is, &value, allowed) {
            Comparison::Same => {}
            Comparison::Change => {
                item.change(key, Some(is.to_owned()), value.clone());
                if *key == TIMESTAMP_TYPE {
                    item.note("of new records; when they were received stays in hookstream-received-at and received_at");
                }
                settings.push(((*key).to_owned(), value));
            }
            Comparison::Left(why) => item.left(key, is, &value, why),
        }
    }
    if !settings.is_empty() {
        item.steps.push(PlanStep::Alter(Alteration { topic: wished.name.clone(), settings }));
    }
    let ours = |key: &str| wished.config.iter().any(|(our, _)| *our == key);
    let foreign = actual.settings.iter().filter(|(key, setting)| setting.own && !ours(key));
    item.foreign = foreign.map(|(key, setting)| (key.clone(), setting.value.clone())).collect();
    item.judged()
}

fn size(item: &mut Item, wished: &NewTopic, actual: &TopicDescription, allowed: Allowed) {
    let (is, should) = (actual.partitions, usize::try_from(wished.partitions).unwrap_or_default());
    let texts = (is.to_string(), should.to_string());
    if is < should && allowed.repartition {
        item.change("partitions", Some(texts.0), texts.1);
        item.note("new records of a key may go to another partition than its old ones");
        item.steps.push(PlanStep::Partitions(wished.name.clone(), should));
    } else if is < should {
        let why = "keys would move to other partitions; --allow-repartition does it";
        item.left("partitions", &texts.0, &texts.1, why);
    } else if is > should {
        item.left("partitions", &texts.0, &texts.1, "Kafka cannot take partitions away");
    }
    let (is, should) = (actual.copies.replication, usize::try_from(wished.replication).unwrap_or_default());
    if is != should {
        let why = if is < should {
            "copies are moved by kafka-reassign-partitions, not from here"
        } else {
            "more copies than wished"
        };
        item.left("replication", &is.to_string(), &should.to_string(), why);
    }
}

/// Where the topic takes smaller records than may be sent to it: its `max.message.bytes`, and the wished one.
pub fn takes_less<'a>(wished: &'a NewTopic, actual: &'a TopicDescription) -> Option<(&'a str, &'a str)> {
    let (key, value) = wished.config.iter().find(|(key, _)| *key == "max.message.bytes")?;
    let is = &actual.settings.get(*key)?.value;
    matches!(judge(key, is, value, Allowed::default()), Comparison::Change).then_some((is, value))
}

/// More replicas in sync than there are stop a topic on brokers before Kafka 4.
fn attainable(key: &str, wished: &str, actual: &TopicDescription) -> String {
    match (key, wished.parse::<usize>()) {
        ("min.insync.replicas", Ok(min)) => min.min(actual.copies.replication).to_string(),
        _ => wished.to_owned(),
    }
}

enum Comparison {
    Same,
    Change,
    /// Why.
    Left(&'static str),
}

const REMOVES: &str = "Kafka would remove records; --allow-removal does it";

fn judge(key: &str, is: &str, wished: &str, allowed: Allowed) -> Comparison {
    if is == wished {
        return Comparison::Same;
    }
    let removing = if allowed.removal { Comparison::Change } else { Comparison::Left(REMOVES) };
    match key {
        "cleanup.policy" => {
            let (is, wished) = (policies(is), policies(wished));
            let gains = |word| wished.contains(word) && !is.contains(word);
            // One that stops compacting keeps more than before, even where its records get an age.
            let stops = is.contains("compact") && !wished.contains("compact");
            if is == wished {
                Comparison::Same
            } else if gains("compact") || (gains("delete") && !stops) {
                removing
            } else {
                Comparison::Change
            }
        }
        "retention.ms" => match (age(is), age(wished)) {
            (is, wished) if is == wished => Comparison::Same,
            (is, wished) if is > wished => removing,
            _ => Comparison::Change,
        },
        "min.insync.replicas" if number(is) > number(wished) => Comparison::Left("safer than wished"),
        "max.message.bytes" if number(is) > number(wished) => Comparison::Left("more than is needed"),
        _ => Comparison::Change,
    }
}

fn policies(text: &str) -> BTreeSet<&str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// Kafka's -1 is for good.
fn age(text: &str) -> Option<i64> {
    number(text).map(|ms| if ms < 0 { i64::MAX } else { ms })
}

#[cfg(test)]
mod tests;
