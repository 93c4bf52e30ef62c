//! Plans the steps from the actual to the desired state, and what stays unchanged.
//!
//! A difference stays unchanged if removing it would lose something, whatever the configuration desires: fewer
//! copies before an acknowledgement, and, without [`Allowed::removal`], whatever makes Kafka remove records
//! (shorter retention, a `cleanup.policy` that newly compacts or deletes). hookstream cannot know what the keys
//! of old records mean, so only a person switches on compaction.

mod subject;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::TIMESTAMP_TYPE;
use crate::config::CompatibilityLevel;
use crate::kafka::{Alteration, NewTopic, TopicDescription};
use crate::schema::changes::FieldChange;
pub(super) use subject::{Latest, RegisteredSubject, subject};

/// Irreversible changes that the user has allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowed {
    /// More partitions: the records of one key are then in two partitions.
    pub repartition: bool,
    /// Settings that make Kafka remove records.
    pub removal: bool,
}

/// All topics and subjects, including those in the desired state.
#[derive(Debug, Default, Serialize)]
pub struct ProvisionPlan {
    /// Topics by name, then subjects.
    pub items: Vec<Item>,
    /// Commands that grant the missing authorizations.
    pub grants: Vec<String>,
}

/// A topic or a subject.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    pub kind: ItemKind,
    pub name: String,
    /// What the plan does with it.
    pub action: PlanAction,
    /// The values that will change.
    pub changes: Vec<SettingChange>,
    /// For a subject: the fields that differ from its last version.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// Notes for consumers about the change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The values that differ and stay unchanged.
    pub left: Vec<Unchanged>,
    /// Settings made by somebody else, which stay unchanged.
    pub foreign: BTreeMap<String, String>,
    /// Why it cannot be changed or read; if there is a fault, none of its steps is executed.
    pub faults: Vec<String>,
    /// Whether its actual state is unknown.
    pub unknown: bool,
    /// The steps that `--apply` executes.
    #[serde(skip)]
    pub steps: Vec<PlanStep>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    Topic,
    Subject,
}

/// What the plan does with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanAction {
    /// Create it, because it is missing.
    Create,
    /// Change it, because it differs.
    Change,
    /// Leave it as it is.
    Keep,
}

/// One value that will change.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct SettingChange {
    /// `partitions`, `replication`, a key of the topic's configuration, `schema` or `compatibility`.
    pub setting: String,
    /// The current value; `None` if it does not exist yet.
    pub from: Option<String>,
    pub to: String,
    /// A remark for the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One value that differs and stays unchanged.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Unchanged {
    /// The same names as in [`SettingChange::setting`].
    pub setting: String,
    pub actual: String,
    /// The value of the configuration.
    pub wished: String,
    /// Why it stays unchanged, and how a person can change it.
    pub why: String,
}

/// One call to Kafka or the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanStep {
    Create(NewTopic),
    /// Sets keys of a topic's configuration.
    Alter(Alteration),
    /// Increases a topic's partitions to this count.
    Partitions(String, usize),
    /// Sets a subject's compatibility level.
    Level(String, CompatibilityLevel),
    /// Registers a schema; a new subject also gets its compatibility level.
    Register {
        subject: String,
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
            Self::Partitions(topic, count) => write!(f, "increase topic {topic} to {count} partitions"),
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

    /// How many cannot be brought to the desired state.
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

    /// Adds a note to the last change.
    fn note(&mut self, note: &str) {
        if let Some(change) = self.changes.last_mut() {
            change.note = Some(note.to_owned());
        }
    }

    fn left(&mut self, setting: &str, actual: &str, wished: &str, why: &str) {
        let [setting, actual, wished, why] = [setting, actual, wished, why].map(str::to_owned);
        self.left.push(Unchanged { setting, actual, wished, why });
    }

    /// Sets the action that follows from the changes.
    fn with_action(mut self) -> Self {
        if self.action == PlanAction::Keep && !self.changes.is_empty() {
            self.action = PlanAction::Change;
        }
        self
    }
}

/// A topic or a subject whose actual state cannot be read.
pub(super) fn unreadable(kind: ItemKind, name: &str, why: impl Into<String>) -> Item {
    let mut item = Item::new(kind, name, PlanAction::Keep);
    item.faults.push(why.into());
    item.unknown = true;
    item
}

/// Plans one topic; `actual` is `None` if the topic is missing.
pub(super) fn topic(desired: &NewTopic, actual: Option<&TopicDescription>, allowed: Allowed) -> Item {
    let Some(actual) = actual else {
        let mut item = Item::new(ItemKind::Topic, &desired.name, PlanAction::Create);
        item.change("partitions", None, desired.partitions.to_string());
        item.change("replication", None, desired.replication.to_string());
        for (key, value) in &desired.config {
            item.change(key, None, value.clone());
        }
        item.steps.push(PlanStep::Create(desired.clone()));
        return item;
    };
    if actual.settings.is_empty() {
        return unreadable(ItemKind::Topic, &desired.name, "its configuration cannot be read");
    }
    let mut item = Item::new(ItemKind::Topic, &desired.name, PlanAction::Keep);
    size(&mut item, desired, actual, allowed);
    let mut settings = Vec::new();
    for (key, value) in &desired.config {
        let value = attainable(key, value, actual);
        let current = actual.settings.get(*key).map_or("", |setting| &setting.value);
        match compare(key, current, &value, allowed) {
            Comparison::Left(_) if *key == "min.insync.replicas" && actual.copies.is_short() => {
                item.left(key, current, &value, SHORT);
            }
            Comparison::Same => {}
            Comparison::Change => {
                item.change(key, Some(current.to_owned()), value.clone());
                if *key == TIMESTAMP_TYPE {
                    item.note("for new records; the time of receipt stays in hookstream-received-at and received_at");
                }
                settings.push(((*key).to_owned(), value));
            }
            Comparison::Left(why) => item.left(key, current, &value, why),
        }
    }
    if !settings.is_empty() {
        item.steps.push(PlanStep::Alter(Alteration { topic: desired.name.clone(), settings }));
    }
    let is_configured = |key: &str| desired.config.iter().any(|(configured, _)| *configured == key);
    let foreign = actual.settings.iter().filter(|(key, setting)| setting.own && !is_configured(key));
    item.foreign = foreign.map(|(key, setting)| (key.clone(), setting.value.clone())).collect();
    item.with_action()
}

fn size(item: &mut Item, desired: &NewTopic, actual: &TopicDescription, allowed: Allowed) {
    let (current, target) = (actual.partitions, usize::try_from(desired.partitions).unwrap_or_default());
    let texts = (current.to_string(), target.to_string());
    if current < target && allowed.repartition {
        item.change("partitions", Some(texts.0), texts.1);
        item.note("new records of a key may go to another partition than its old ones");
        item.steps.push(PlanStep::Partitions(desired.name.clone(), target));
    } else if current < target {
        let why = "keys would move to other partitions; --allow-repartition does it";
        item.left("partitions", &texts.0, &texts.1, why);
    } else if current > target {
        item.left("partitions", &texts.0, &texts.1, "Kafka cannot remove partitions");
    }
    let (current, target) =
        (actual.copies.replication, usize::try_from(desired.replication).unwrap_or_default());
    if current != target {
        let why = if current < target {
            "kafka-reassign-partitions moves replicas, hookstream does not"
        } else {
            "more replicas than configured"
        };
        item.left("replication", &current.to_string(), &target.to_string(), why);
    }
}

/// The actual and the desired `max.message.bytes`, if the topic accepts only smaller records than desired.
pub fn takes_less<'a>(desired: &'a NewTopic, actual: &'a TopicDescription) -> Option<(&'a str, &'a str)> {
    let (key, value) = desired.config.iter().find(|(key, _)| *key == "max.message.bytes")?;
    let current = &actual.settings.get(*key)?.value;
    matches!(compare(key, current, value, Allowed::default()), Comparison::Change).then_some((current, value))
}

/// Limits `min.insync.replicas` to the replica count: a larger value stops a topic on brokers before Kafka 4.
fn attainable(key: &str, desired: &str, actual: &TopicDescription) -> String {
    match (key, desired.parse::<usize>()) {
        ("min.insync.replicas", Ok(min)) => min.min(actual.copies.replication).to_string(),
        _ => desired.to_owned(),
    }
}

enum Comparison {
    Same,
    Change,
    /// Stays unchanged, for this reason.
    Left(&'static str),
}

const SHORT: &str = "more than the topic has replicas: brokers before Kafka 4 accept no record; add replicas, or lower it with kafka-configs";

const REMOVES: &str = "Kafka would remove records; --allow-removal does it";

fn compare(key: &str, current: &str, desired: &str, allowed: Allowed) -> Comparison {
    if current == desired {
        return Comparison::Same;
    }
    let removal = if allowed.removal { Comparison::Change } else { Comparison::Left(REMOVES) };
    match key {
        "cleanup.policy" => {
            let (current, desired) = (policies(current), policies(desired));
            let adds = |word| desired.contains(word) && !current.contains(word);
            // A topic that stops compacting retains more than before, even if age now removes its records.
            let stops = current.contains("compact") && !desired.contains("compact");
            if current == desired {
                Comparison::Same
            } else if adds("compact") || (adds("delete") && !stops) {
                removal
            } else {
                Comparison::Change
            }
        }
        "retention.ms" => match (age(current), age(desired)) {
            (current, desired) if current == desired => Comparison::Same,
            (current, desired) if current > desired => removal,
            _ => Comparison::Change,
        },
        "min.insync.replicas" if number(current) > number(desired) => {
            Comparison::Left("safer than configured")
        }
        "max.message.bytes" if number(current) > number(desired) => Comparison::Left("larger than required"),
        _ => Comparison::Change,
    }
}

fn policies(text: &str) -> BTreeSet<&str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// Kafka's -1 means no limit.
fn age(text: &str) -> Option<i64> {
    number(text).map(|ms| if ms < 0 { i64::MAX } else { ms })
}

#[cfg(test)]
mod tests;
