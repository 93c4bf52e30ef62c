//! Creates a [`ProvisionPlan`] from the state of Kafka and the registry, and applies it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use super::plan::{self, Allowed, Item, Latest, PlanStep, ProvisionPlan, RegisteredSubject};
use super::{ProvisionError, desired_topics, grants};
use crate::config::LoadedConfig;
use crate::kafka::{Admin, Alteration, NewTopic, TopicError};
use crate::observe::error_chain::ErrorChain;
use crate::schema::changes::changes;
use crate::schema::promoted_fields::promoted;
use crate::schema::registry::{Listing, SubjectVersion};
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
            for TopicError { topic, denied: is_denied, why } in refused {
                if is_denied {
                    denied.entry(operation).or_default().insert(topic.clone());
                }
                if let Some(item) = items.iter_mut().find(|item| item.name == topic) {
                    item.faults.push(format!("{operation} is refused: {why}"));
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
        let mut items = Vec::new();
        for schema in self.schemas.iter() {
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
            let auto_register = self.loaded.config.registry.auto_register;
            items.push(plan::subject(schema, RegisteredSubject { listing, level, latest }, auto_register));
        }
        Ok(items)
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
    /// folder. Returns the new files.
    ///
    /// # Errors
    /// If the registry returns an error, or a folder cannot be read or written; files already written remain.
    pub async fn keep_versions(&self) -> Result<Vec<PathBuf>, ProvisionError> {
        let mut written = Vec::new();
        for schema in self.schemas.iter() {
            let Some(file) = &schema.file else { continue };
            for version in self.registry.versions(&schema.subject).await? {
                let versions = version_files::read(file).map_err(ProvisionError::Versions)?;
                if !version_files::contains(&versions, &version.schema) {
                    let path = version_files::write_next(file, &versions, &version.schema);
                    let failed = |cause| ProvisionError::NotSaved { file: file.clone(), cause };
                    written.push(path.map_err(failed)?);
                }
            }
        }
        Ok(written)
    }

    /// Executes the plan's steps one by one, except for items with faults, and reports each. A failed step
    /// stops only the later steps of its own item. Returns the number of failed steps.
    ///
    /// # Errors
    /// Errors of `report`.
    pub async fn apply<E>(
        &self,
        plan: &ProvisionPlan,
        mut report: impl FnMut(Done) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut failed = 0;
        for item in plan.items.iter().filter(|item| item.faults.is_empty()) {
            for step in &item.steps {
                let error = self.apply_step(step).await.err().map(|error| ErrorChain(&error).to_string());
                let has_failed = error.is_some();
                report(Done { step: step.to_string(), error })?;
                if has_failed {
                    failed += 1;
                    break;
                }
            }
        }
        Ok(failed)
    }

    async fn apply_step(&self, step: &PlanStep) -> Result<(), ProvisionError> {
        match step {
            PlanStep::Create(topic) => Ok(self.admin.create(std::slice::from_ref(topic)).await?),
            PlanStep::Alter(alteration) => self.alter(alteration).await,
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

    async fn alter(&self, alteration: &Alteration) -> Result<(), ProvisionError> {
        ensure_accepted(self.admin.alter(vec![alteration.clone()], false).await?)
    }
}

fn ensure_accepted(refused: Vec<TopicError>) -> Result<(), ProvisionError> {
    match refused.into_iter().next() {
        Some(TopicError { topic, why, .. }) => Err(ProvisionError::Refused { topic, why }),
        None => Ok(()),
    }
}
