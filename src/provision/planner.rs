//! Creates a [`ProvisionPlan`] from the state of Kafka and the registry, and applies it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::plan::{self, Allowed, Item, ItemKind, Latest, PlanStep, ProvisionPlan, RegisteredSubject};
use super::{ProvisionError, SUBJECTS_AT_ONCE, desired_topics, grants};
use crate::config::LoadedConfig;
use crate::kafka::{Admin, Creation, NewTopic, TopicError};
use crate::observe::error_chain::ErrorChain;
use crate::schema::changes::changes;
use crate::schema::promoted_fields::promoted;
use crate::schema::registry::{Listing, RegistryError, SubjectVersion};
use crate::schema::{self, Registry, Schemas, shipped, version_files};
use crate::sources::Sources;

/// The inputs of a plan.
pub struct Planner<'a> {
    pub loaded: &'a LoadedConfig,
    /// The sources whose topics are planned.
    pub sources: &'a Sources,
    /// The schemas whose subjects are planned.
    pub schemas: &'a Schemas,
    pub admin: &'a Admin,
    pub registry: &'a Registry,
}

/// A step that was executed.
#[derive(Debug, Serialize)]
pub struct Done {
    /// The step's description.
    pub step: String,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// The topics for which an authorization is missing, by operation.
type Denied = BTreeMap<&'static str, BTreeSet<String>>;

impl Planner<'_> {
    /// Plans all topics and subjects. Nothing is created or changed.
    ///
    /// # Errors
    /// If Kafka or the registry does not answer in time, or the registry returns an error.
    pub async fn plan(&self, allowed: Allowed) -> Result<ProvisionPlan, ProvisionError> {
        let ((topics, denied), subjects) = tokio::try_join!(self.topics(allowed), self.subjects())?;
        let grants = denied.iter().flat_map(|(operation, topics)| {
            let topics = topics.iter().map(String::as_str).collect();
            grants(self.loaded, self.sources, operation, &topics)
        });
        Ok(ProvisionPlan { grants: grants.collect(), items: topics.into_iter().chain(subjects).collect() })
    }

    async fn topics(&self, allowed: Allowed) -> Result<(Vec<Item>, Denied), ProvisionError> {
        let cluster = self.admin.cluster().await?;
        let desired = desired_topics(&self.loaded.config, self.sources, cluster.brokers);
        let names: Vec<String> = desired.iter().map(|topic| topic.name.clone()).collect();
        let descriptions = self.admin.topic_descriptions(&names).await?;
        let plan = |topic: &NewTopic| plan::topic(topic, descriptions.get(&topic.name), allowed);
        let mut items: Vec<Item> = desired.iter().map(plan).collect();
        let mut denied = Denied::new();
        for item in items.iter().filter(|item| item.unknown) {
            denied.entry("DescribeConfigs").or_default().insert(item.name.clone());
        }
        for (operation, refused) in self.dry_run(&items).await? {
            for TopicError { topic, denied: is_denied, hidden, why } in refused {
                for (operation, missing) in [(operation, is_denied), ("Describe", hidden)] {
                    if missing {
                        denied.entry(operation).or_default().insert(topic.clone());
                    }
                }
                match items.iter_mut().find(|item| item.name == topic) {
                    Some(item) if hidden => *item = plan::unreadable(ItemKind::Topic, &topic, why),
                    Some(item) => item.faults.push(format!("{operation} is refused: {why}")),
                    None => {}
                }
            }
        }
        Ok((items, denied))
    }

    /// The brokers' refusals of each step, by the required operation, found without executing the step.
    async fn dry_run(&self, items: &[Item]) -> Result<[(&'static str, Vec<TopicError>); 3], ProvisionError> {
        let (mut new, mut altered, mut larger) = (Vec::new(), Vec::new(), Vec::new());
        for step in items.iter().flat_map(|item| &item.steps) {
            match step {
                PlanStep::Create(topic) => new.push(topic.clone()),
                PlanStep::Alter(alteration) => altered.push(alteration.clone()),
                PlanStep::Partitions(topic, count) => larger.push((topic.clone(), *count)),
                PlanStep::Level(..) | PlanStep::Register { .. } => {}
            }
        }
        let created = if new.is_empty() { Vec::new() } else { self.admin.refusals(&new).await? };
        let altered = self.admin.alter(altered, true).await?;
        let larger = self.admin.add_partitions(&larger, true).await?;
        Ok([("Create", created), ("AlterConfigs", altered), ("Alter", larger)])
    }

    async fn subjects(&self) -> Result<Vec<Item>, ProvisionError> {
        let items = stream::iter(self.schemas.iter()).map(|schema| self.subject(schema));
        items.buffered(SUBJECTS_AT_ONCE).try_collect().await
    }

    /// A subject that cannot be read has a fault, and the others are planned.
    async fn subject(&self, schema: &schema::SchemaEntry) -> Result<Item, ProvisionError> {
        match self.registered(schema).await {
            Ok(registered) => {
                Ok(plan::subject(schema, registered, self.loaded.config.registry.auto_register))
            }
            Err(error) if error.is_answer() => {
                let why = ErrorChain(&error).to_string();
                Ok(plan::unreadable(ItemKind::Subject, &schema.subject, why))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn registered(&self, schema: &schema::SchemaEntry) -> Result<RegisteredSubject, RegistryError> {
        let subject = schema.subject.as_str();
        let listing = self.registry.listing(subject, &schema.text).await?;
        let (level, latest) = match &listing {
            Listing::NoSubject => (None, None),
            Listing::Registered(_) => (self.registry.level(subject).await?, None),
            Listing::Other { .. } => {
                (self.registry.level(subject).await?, self.registry.latest(subject).await?)
            }
        };
        let latest = latest.and_then(|latest| self.compare_with(schema, &latest));
        Ok(RegisteredSubject { listing, level, latest })
    }

    /// What the local schema changes of a version. `None` if that version is not valid Avro.
    fn compare_with(&self, local: &schema::SchemaEntry, latest: &SubjectVersion) -> Option<Latest> {
        let registered = shipped::parse(&latest.schema).ok()?;
        let places = self.sources.get(&local.source)?.envelope.places();
        Some(Latest {
            version: latest.version,
            fields: changes(&registered, &local.schema),
            promoted: promoted(&registered, &local.schema, places),
            demoted: promoted(&local.schema, &registered, places),
        })
    }

    /// Writes each registered version that is missing in the versions folder of its schema file to that
    /// folder. Returns the new files, and why the versions of a subject could not be stored.
    ///
    /// # Errors
    /// If the registry does not answer; files already written remain.
    pub async fn keep_versions(&self) -> Result<(Vec<PathBuf>, Vec<String>), ProvisionError> {
        let (mut written, mut faults) = (Vec::new(), Vec::new());
        for schema in self.schemas.iter() {
            match self.keep_versions_of(schema, &mut written).await {
                Ok(()) => {}
                Err(ProvisionError::Registry(error)) if !error.is_answer() => return Err(error.into()),
                Err(error) => faults.push(format!("subject {}: {}", schema.subject, ErrorChain(&error))),
            }
        }
        Ok((written, faults))
    }

    async fn keep_versions_of(
        &self,
        schema: &schema::SchemaEntry,
        written: &mut Vec<PathBuf>,
    ) -> Result<(), ProvisionError> {
        let Some(file) = &schema.file else { return Ok(()) };
        for version in self.registry.versions(&schema.subject).await? {
            let versions = version_files::read(file).map_err(ProvisionError::Versions)?;
            if !version_files::contains(&versions, &version.schema) {
                let path = version_files::write_next(file, &versions, &version.schema);
                let failed = |cause| ProvisionError::NotSaved { file: file.clone(), cause };
                written.push(path.map_err(failed)?);
            }
        }
        Ok(())
    }

    /// Executes the plan's steps, except for items with faults, and reports each: new topics together, then the other
    /// topics one by one, then the subjects. A failed step stops only the later steps of its own item. Returns the number
    /// of failed steps.
    ///
    /// # Errors
    /// Errors of `report`.
    pub async fn apply<E>(
        &self,
        plan: &ProvisionPlan,
        mut report: impl FnMut(Done) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut failed = 0;
        let mut report = |done: Done| {
            failed += usize::from(done.error.is_some());
            report(done)
        };
        let ready = || plan.items.iter().filter(|item| item.faults.is_empty());
        self.create(ready().flat_map(|item| &item.steps)).await.into_iter().try_for_each(&mut report)?;
        let is_new = |item: &&Item| item.steps.iter().any(|step| matches!(step, PlanStep::Create(_)));
        let (topics, subjects): (Vec<&Item>, Vec<&Item>) =
            ready().filter(|item| !is_new(item)).partition(|item| item.kind == ItemKind::Topic);
        for item in topics {
            self.apply_item(item).await.into_iter().try_for_each(&mut report)?;
        }
        let mut done = stream::iter(subjects).map(|item| self.apply_item(item)).buffered(SUBJECTS_AT_ONCE);
        while let Some(done) = done.next().await {
            done.into_iter().try_for_each(&mut report)?;
        }
        Ok(failed)
    }

    /// Creates all new topics.
    async fn create(&self, steps: impl Iterator<Item = &PlanStep>) -> Vec<Done> {
        let new = steps.filter_map(|step| match step {
            PlanStep::Create(topic) => Some(topic.clone()),
            _ => None,
        });
        let new: Vec<NewTopic> = new.collect();
        let creation = if new.is_empty() { Ok(Creation::default()) } else { self.admin.create(&new).await };
        let error = |topic: &str| match &creation {
            Ok(Creation { refused, .. }) => {
                refused.iter().find(|refused| refused.topic == topic).map(|refused| refused.why.clone())
            }
            Err(error) => Some(ErrorChain(error).to_string()),
        };
        let done = new.iter().map(|topic| {
            let error = error(&topic.name);
            Done { step: PlanStep::Create(topic.clone()).to_string(), error }
        });
        done.collect()
    }

    /// Executes the steps of one item up to the first that fails.
    async fn apply_item(&self, item: &Item) -> Vec<Done> {
        let mut done = Vec::new();
        for step in &item.steps {
            let error = self.apply_step(step).await.err().map(|error| ErrorChain(&error).to_string());
            let has_failed = error.is_some();
            done.push(Done { step: step.to_string(), error });
            if has_failed {
                break;
            }
        }
        done
    }

    async fn apply_step(&self, step: &PlanStep) -> Result<(), ProvisionError> {
        match step {
            // [`Self::create`] creates all topics together.
            PlanStep::Create(_) => Ok(()),
            PlanStep::Alter(alteration) => {
                ensure_accepted(self.admin.alter(vec![alteration.clone()], false).await?)
            }
            PlanStep::Partitions(topic, count) => {
                ensure_accepted(self.admin.add_partitions(&[(topic.clone(), *count)], false).await?)
            }
            PlanStep::Level(subject, level) => Ok(self.registry.set_level(subject, *level).await?),
            PlanStep::Register { subject, schema, level } => {
                self.registry.register(subject, schema, *level).await?;
                Ok(())
            }
        }
    }
}

fn ensure_accepted(refused: Vec<TopicError>) -> Result<(), ProvisionError> {
    match refused.into_iter().next() {
        Some(TopicError { topic, why, .. }) => Err(ProvisionError::Refused { topic, why }),
        None => Ok(()),
    }
}
