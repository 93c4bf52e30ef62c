//! Manages schema ids: pinned ids are used immediately, the registry's ids as soon as it answers, and both are
//! checked repeatedly as long as the service runs.
//!
//! A registry that lost its data assigns the same ids to other schemas, and consumers would misread records with
//! such an id. So an event type stops if its id no longer belongs to its schema. Only a person can accept a
//! new id, because the records already in the topic carry the old one.

mod ask;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::stream::StreamExt as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::ask::{SubjectAnswer, ask};
use super::BACKOFF;
use crate::config::{ConfigErrors, LoadedConfig};
use crate::observe::error_chain::ErrorChain;
use crate::observe::health::{Health, PartState};
use crate::schema::registry::{LOOK_AGAIN, Resolved};
use crate::schema::{self, IdCache, IdState, Registry, Schemas};
use crate::sources::Sources;

/// The interval between two checks of confirmed ids.
pub const RECHECK: Duration = Duration::from_secs(60);

/// The maximum number of subjects whose errors are reported at once.
const MAX_REPORTED: usize = 5;

/// While ids are requested, sources with the ids known so far are swapped in after this time, or after ten times as long as
/// compiling them takes: with hundreds of sources, the registry answers faster than that.
const SWAP: Duration = Duration::from_millis(500);

/// How long a reload waits for the ids of its new schemas.
const NEW_ID_TIMEOUT: Duration = Duration::from_secs(5);

/// A reloaded configuration.
pub struct Reloaded {
    /// Its sources are new; everything else is unchanged since the start.
    pub loaded: Arc<LoadedConfig>,
    /// Its schemas, without known ids.
    pub schemas: Schemas,
    /// Receives the result: Ok when deliveries use the configuration, or why they never will.
    pub answer: oneshot::Sender<Result<(), ConfigErrors>>,
}

/// Manages the ids of all schemas and the sources compiled with them; nothing else swaps the sources.
pub struct SchemaRegistrar {
    loaded: Arc<LoadedConfig>,
    registry: Registry,
    sources: Arc<ArcSwap<Sources>>,
    health: Arc<Health>,
    schemas: Schemas,
    pins: Option<IdCache>,
    pin_warning_logged: bool,
    /// Ids that were unknown to the registry at the last lookup, with their subjects. The second lookup decides,
    /// so that one lagging replica stops no type.
    suspects: BTreeSet<(String, u32)>,
    swapped: watch::Sender<()>,
}

impl SchemaRegistrar {
    /// Applies the pinned ids: `sources` encodes with them when this returns. Contacts no registry yet.
    pub fn new(
        loaded: Arc<LoadedConfig>,
        registry: Registry,
        sources: Arc<ArcSwap<Sources>>,
        health: Arc<Health>,
        schemas: Schemas,
        pins: Option<IdCache>,
    ) -> Self {
        let swapped = watch::Sender::new(());
        let (pin_warning_logged, suspects) = (false, BTreeSet::new());
        let mut subjects =
            Self { loaded, registry, sources, health, schemas, pins, pin_warning_logged, suspects, swapped };
        if let Some(pins) = &subjects.pins
            && subjects.schemas.pin(pins)
        {
            subjects
                .health
                .schemas
                .put(PartState::Degraded, "using pinned ids: the registry has not answered yet");
            subjects.compile();
        }
        subjects
    }

    /// Changes after each reload that has swapped the sources.
    pub fn swaps(&self) -> watch::Receiver<()> {
        self.swapped.subscribe()
    }

    /// Asks the registry with growing pauses until all ids are confirmed, then again after each interval `every`.
    /// Applies each configuration from `reloads` and resolves its new subjects immediately. Does not return;
    /// dropping the future stops it.
    pub async fn run(mut self, every: Duration, mut reloads: mpsc::Receiver<Reloaded>) {
        let mut pauses = BACKOFF.iter();
        let mut pause = Duration::ZERO;
        loop {
            // A registry that does not answer delays a reload by no more than [`NEW_ID_TIMEOUT`]. The reload
            // is compiled with the ids known by then.
            let next = tokio::select! {
                Some(reloaded) = reloads.recv() => Err(reloaded),
                errors = self.round() => Ok(errors),
            };
            let reloaded = match next {
                Err(reloaded) => Some(reloaded),
                Ok(errors) => {
                    self.save().await;
                    let settled = self.report(&errors);
                    if !settled {
                        pause = pauses.next().copied().unwrap_or(pause);
                    }
                    let wait = match settled {
                        _ if !self.suspects.is_empty() => LOOK_AGAIN,
                        true => every,
                        false => pause,
                    };
                    tokio::select! {
                        Some(reloaded) = reloads.recv() => Some(reloaded),
                        () = tokio::time::sleep(wait) => None,
                    }
                }
            };
            if let Some(reloaded) = reloaded {
                self.reload(reloaded).await;
                pauses = BACKOFF.iter();
            }
        }
    }

    /// Swaps in the new configuration, or leaves everything unchanged. Known ids of unchanged subjects are
    /// carried over, from this run or, by the pins, an earlier one. New schemas get their ids before the swap,
    /// so that no delivery meets a schema without id; if the registry does not provide them in time, their types
    /// use the previous schema until it does.
    async fn reload(&mut self, Reloaded { loaded, mut schemas, answer }: Reloaded) {
        if let Some(pins) = &self.pins {
            schemas.pin(pins);
        }
        schemas.carry_over(&self.schemas);
        // A refused configuration must not register schemas.
        let compiled = Sources::compile(&loaded, &schemas, Some(&self.sources.load()));
        let outcome = match compiled {
            Ok(_) => {
                self.request_new_ids(&mut schemas).await;
                schemas.keep_former(&self.schemas);
                Sources::compile(&loaded, &schemas, Some(&self.sources.load()))
            }
            Err(problems) => Err(problems),
        };
        let outcome = outcome.map(|sources| {
            self.sources.store(Arc::new(sources));
            (self.loaded, self.schemas) = (loaded, schemas);
            self.suspects.clear();
            let former: Vec<&str> = self.schemas.formers().collect();
            if !former.is_empty() {
                let subjects = former.join(", ");
                tracing::warn!(
                    subjects,
                    "publishing with the schema from before the reload until the new one has an id"
                );
            }
            self.swapped.send_replace(());
        });
        if outcome.is_err() {
            self.compile();
        }
        // The requester may be gone; the swap remains.
        let _ = answer.send(outcome);
    }

    /// Requests the ids of new schemas, each once.
    async fn request_new_ids(&mut self, schemas: &mut Schemas) {
        let unknown = |schema: &&schema::SchemaEntry| schemas.standing(&schema.subject) == IdState::Unknown;
        let new: Vec<schema::SchemaEntry> = schemas.iter().filter(unknown).cloned().collect();
        let mut answers = ask(
            self.registry.clone(),
            self.loaded.config.provision.on_start,
            new.into_iter().map(|schema| (schema, IdState::Unknown)).collect(),
        );
        let requests = async {
            while let Some((schema, _, answer)) = answers.next().await {
                let subject = schema.subject.as_str();
                match answer {
                    Ok(answer) => schemas.set(subject, self.decide(subject, IdState::Unknown, answer)),
                    Err(error) => {
                        let why = ErrorChain(&error).to_string();
                        tracing::warn!(subject, why, "no id for the new schema yet");
                    }
                }
            }
        };
        if tokio::time::timeout(NEW_ID_TIMEOUT, requests).await.is_err() {
            tracing::warn!("no ids for the new schemas yet: the registry did not answer in time");
        }
    }

    /// Resolves each subject once, so that a bad schema affects only its own types, and swaps in the results while the
    /// others are resolved. Returns the errors.
    async fn round(&mut self) -> Vec<String> {
        let mut errors = Vec::new();
        let (mut changed, mut unanswered) = (false, 0);
        let all = self.schemas.iter();
        let all = all.map(|schema| (schema.clone(), self.schemas.standing(&schema.subject)));
        let mut answers = ask(self.registry.clone(), self.loaded.config.provision.on_start, all.collect());
        let mut next_swap = Instant::now() + SWAP;
        // If it does not answer for two subjects, it will not answer for the others either.
        while unanswered < 2 {
            tokio::select! {
                answer = answers.next() => match answer {
                    None => break,
                    Some((schema, before, Ok(answer))) => {
                        let id_state = self.decide(&schema.subject, before, answer);
                        changed |= self.apply(&schema, id_state);
                    }
                    Some((_, _, Err(error))) => {
                        let text = ErrorChain(&error).to_string();
                        if !errors.contains(&text) {
                            errors.push(text);
                        }
                        if !error.is_answer() {
                            unanswered += 1;
                            // Second lookups are meaningful only with a registry that answers.
                            self.suspects.clear();
                        }
                    }
                },
                () = tokio::time::sleep_until(next_swap), if changed => {
                    let begin = Instant::now();
                    // The end of the round reports a problem.
                    let _ = self.compile();
                    changed = false;
                    next_swap = Instant::now() + SWAP.max(10 * begin.elapsed());
                }
            }
        }
        drop(answers);
        if errors.len() > MAX_REPORTED {
            let more = format!("and {} more", errors.len() - MAX_REPORTED);
            errors.truncate(MAX_REPORTED);
            errors.push(more);
        }
        changed |= self.check_former().await;
        if changed {
            errors.extend(self.compile());
        }
        errors
    }

    /// Drops previous schemas whose id no longer belongs to them; true if there were any.
    async fn check_former(&mut self) -> bool {
        let mut changed = false;
        for subject in self.schemas.formers().map(str::to_owned).collect::<Vec<_>>() {
            let Some((former, id)) = self.schemas.former(&subject) else { continue };
            // An unreachable registry was already reported, and will not answer for the others either.
            let Ok(resolved) = self.registry.resolve(id, &former.schema).await else { break };
            if resolved != Resolved::Same && !self.await_second_lookup(&subject, id, resolved) {
                tracing::error!(
                    subject,
                    id,
                    ?resolved,
                    "the registry no longer has the previous schema under its id"
                );
                self.schemas.drop_previous(&subject);
                changed = true;
            }
        }
        changed
    }

    /// What the registry's answer means for a subject whose id was in the state `before`.
    fn decide(&mut self, subject: &str, before: IdState, answer: SubjectAnswer) -> IdState {
        // Log a lost id once, however often it is checked.
        let first_report = !matches!(before, IdState::Lost(_));
        match answer {
            SubjectAnswer::Gone(id, resolved) => {
                if first_report && self.await_second_lookup(subject, id, resolved) {
                    return before;
                }
                if first_report {
                    let advice = self.advice();
                    tracing::error!(
                        subject,
                        id,
                        ?resolved,
                        advice,
                        "the registry no longer has the schema under its id"
                    );
                }
                IdState::Lost(id)
            }
            SubjectAnswer::Id(registry_id) => match before.known() {
                Some(id) if id != registry_id => {
                    if first_report {
                        let advice = self.advice();
                        tracing::error!(
                            subject,
                            id,
                            registry_id,
                            advice,
                            "the registry assigned the schema a different id"
                        );
                    }
                    IdState::Lost(id)
                }
                known => {
                    if let Some(id) = known {
                        self.suspects.remove(&(subject.to_owned(), id));
                        if !first_report {
                            tracing::info!(subject, id, "the registry has the schema under its id again");
                        }
                    }
                    IdState::Confirmed(registry_id)
                }
            },
        }
    }

    /// Whether the registry's answer about an id must be confirmed by a second lookup.
    fn await_second_lookup(&mut self, subject: &str, id: u32, resolved: Resolved) -> bool {
        let key = (subject.to_owned(), id);
        let suspects = resolved == Resolved::Missing && self.suspects.insert(key.clone());
        if suspects {
            tracing::warn!(subject, id, "the registry does not know the id; looking it up once more");
        } else {
            self.suspects.remove(&key);
        }
        suspects
    }

    /// Stores the id's state; true if the sources must be recompiled. A lost id is removed from them immediately.
    fn apply(&mut self, schema: &schema::SchemaEntry, id_state: IdState) -> bool {
        let subject = schema.subject.as_str();
        let before = self.schemas.id(subject);
        if let (Some(_), IdState::Confirmed(id)) = (self.schemas.former(subject), id_state) {
            tracing::info!(subject, id, "publishing with the new schema");
        }
        self.schemas.set(subject, id_state);
        match (id_state, &mut self.pins) {
            (IdState::Confirmed(id), Some(pins)) => pins.put(subject, &schema.text, id),
            (IdState::Lost(_), Some(pins)) => pins.lose(subject),
            _ => {}
        }
        let changed = self.schemas.id(subject) != before;
        if changed && matches!(id_state, IdState::Lost(_)) {
            self.compile();
        }
        changed
    }

    /// Swaps in sources with the current ids; returns the error if they do not compile.
    fn compile(&self) -> Option<String> {
        match Sources::compile(&self.loaded, &self.schemas, Some(&self.sources.load())) {
            Ok(sources) => {
                self.sources.store(Arc::new(sources));
                None
            }
            Err(problems) => Some(problems.to_string()),
        }
    }

    async fn save(&mut self) {
        let Some(mut pins) = self.pins.clone() else { return };
        let file = pins.file();
        let saved = tokio::task::spawn_blocking(move || pins.save().map(|()| pins)).await;
        match saved {
            Ok(Ok(pins)) => self.pins = Some(pins),
            Ok(Err(error)) => {
                tracing::warn!(file = %file.display(), %error, "cannot save the pinned schema ids")
            }
            // The runtime is shutting down.
            Err(_) => {}
        }
    }

    /// Updates readiness. Once all ids are confirmed, a registry that does not answer changes nothing.
    /// True if every id is confirmed.
    fn report(&mut self, errors: &[String]) -> bool {
        let (mut unresolved, mut pinned, mut lost) = (false, false, Vec::new());
        for schema in self.schemas.iter() {
            let subject = &schema.subject;
            match self.schemas.standing(subject) {
                IdState::Confirmed(_) => {}
                IdState::Unknown => unresolved = true,
                IdState::Pinned(_) => pinned = true,
                IdState::Lost(id) => {
                    lost.push(format!("{subject}: the registry has lost or changed id {id}"));
                }
            }
        }
        let settled = !unresolved && !pinned && lost.is_empty();
        if settled {
            self.pin_warning_logged = false;
            self.health.schemas.set(PartState::Ok, "");
            return true;
        }
        let mut why = Vec::new();
        if !lost.is_empty() {
            why.push(format!("{}: {}", lost.join(", "), self.advice()));
        }
        let mut former: Vec<&str> = self.schemas.formers().collect();
        if !former.is_empty() {
            former.sort_unstable();
            why.push(format!("publishing with the schema from before the reload: {}", former.join(", ")));
        }
        let error_text = errors.join("; ");
        if pinned {
            why.push(format!("using pinned ids: {error_text}"));
            if !std::mem::replace(&mut self.pin_warning_logged, true) {
                tracing::warn!(why = error_text, "publishing with pinned schema ids");
            }
        } else if !error_text.is_empty() {
            why.push(error_text);
        }
        let state = if self.schemas.any_id() { PartState::Degraded } else { PartState::Down };
        self.health.schemas.set(state, why.join("; "));
        settled
    }

    /// The remedy for a lost id.
    fn advice(&self) -> String {
        match self.pins.as_ref().map(IdCache::file) {
            Some(file) => {
                format!("restore the registry, or remove {} and restart to take new ids", file.display())
            }
            None => "restore the registry, or restart to take new ids".into(),
        }
    }
}
