//! The ids of schemas: pinned ones at once, the registry's as soon as it answers, and both looked at
//! again as long as the service runs.
//!
//! A registry that lost its data hands out the same ids for other schemas: what we publish with such
//! an id is misread. So a type whose id no longer names its schema stops, and a new id is not taken
//! in its place without a person: the records that are in the topic by then carry the old one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use super::PAUSES;
use crate::config::{ConfigErrors, LoadedConfig};
use crate::observe::health::{Health, PartState};
use crate::schema::registry::{LOOK_AGAIN, Resolved, answered};
use crate::schema::{self, IdCache, IdState, Registry, Schemas};
use crate::sources::Sources;

/// Between two looks at ids that are confirmed.
pub const RECHECK: Duration = Duration::from_secs(60);

/// Subjects whose troubles are told at a time.
const TOLD: usize = 5;

/// How long a reload waits for the ids of its new schemas.
const ASK_FIRST: Duration = Duration::from_secs(5);

/// A configuration that was read again.
pub struct Reloaded {
    /// Its sources are new; all else is as at start.
    pub loaded: Arc<LoadedConfig>,
    /// Its schemas, nothing known of their ids.
    pub schemas: Schemas,
    /// Told when deliveries are judged by it, or why they never will be.
    pub answer: oneshot::Sender<Result<(), ConfigErrors>>,
}

/// Keeps the ids of all schemas, and the sources compiled with them: the one place that swaps them.
pub struct SchemaRegistrar {
    loaded: Arc<LoadedConfig>,
    registry: Registry,
    sources: Arc<ArcSwap<Sources>>,
    health: Arc<Health>,
    schemas: Schemas,
    pins: Option<IdCache>,
    silent: bool,
    /// Ids that the registry did not know when it was last asked, with their subjects. A second look decides:
    /// one replica that lags behind stops no type.
    doubted: BTreeSet<(String, u32)>,
    swapped: watch::Sender<()>,
}

impl SchemaRegistrar {
    /// Puts what is pinned to use: `sources` encodes with it when this returns. Nothing is asked yet.
    pub fn new(
        loaded: Arc<LoadedConfig>,
        registry: Registry,
        sources: Arc<ArcSwap<Sources>>,
        health: Arc<Health>,
        schemas: Schemas,
        pins: Option<IdCache>,
    ) -> Self {
        let swapped = watch::Sender::new(());
        let (silent, doubted) = (false, BTreeSet::new());
        let mut subjects =
            Self { loaded, registry, sources, health, schemas, pins, silent, doubted, swapped };
        if let Some(pins) = &subjects.pins
            && subjects.schemas.pin(pins)
        {
            subjects.health.schemas.put(PartState::Degraded, "from pins: the registry is being asked");
            subjects.compile();
        }
        subjects
    }

    /// Changes each time that a reload has swapped the sources.
    pub fn swaps(&self) -> watch::Receiver<()> {
        self.swapped.subscribe()
    }

    /// Asks until all ids are confirmed, with growing pauses, then again `every` so often; takes what
    /// `reloads` brings, and asks for its new subjects at once. Does not end; dropping it stops it.
    pub async fn run(mut self, every: Duration, mut reloads: mpsc::Receiver<Reloaded>) {
        let mut pauses = PAUSES.iter();
        let mut pause = Duration::ZERO;
        loop {
            // A registry that does not answer keeps no reload waiting, but for [`ASK_FIRST`]. What was
            // learned by then is compiled with it.
            let asked = tokio::select! {
                Some(reloaded) = reloads.recv() => Err(reloaded),
                troubles = self.round() => Ok(troubles),
            };
            let reloaded = match asked {
                Err(reloaded) => Some(reloaded),
                Ok(troubles) => {
                    self.save().await;
                    let settled = self.report(&troubles);
                    if !settled {
                        pause = pauses.next().copied().unwrap_or(pause);
                    }
                    let rest = match settled {
                        _ if !self.doubted.is_empty() => LOOK_AGAIN,
                        true => every,
                        false => pause,
                    };
                    tokio::select! {
                        Some(reloaded) = reloads.recv() => Some(reloaded),
                        () = tokio::time::sleep(rest) => None,
                    }
                }
            };
            if let Some(reloaded) = reloaded {
                self.reload(reloaded).await;
                pauses = PAUSES.iter();
            }
        }
    }

    /// Swaps in what was read again, or leaves all as it is. What is known of the ids of subjects
    /// that stay is carried over, from this run or, by the pins, an earlier one. New schemas get their
    /// ids first, so that no delivery meets one without; if the registry does not give them in time,
    /// their types are published as before until it does.
    async fn reload(&mut self, Reloaded { loaded, mut schemas, answer }: Reloaded) {
        if let Some(pins) = &self.pins {
            schemas.pin(pins);
        }
        schemas.carry_over(&self.schemas);
        // What is refused registers nothing.
        let compiled = Sources::compile(&loaded, &schemas, Some(&self.sources.load()));
        let outcome = match compiled {
            Ok(_) => {
                self.ask_first(&mut schemas).await;
                schemas.keep_former(&self.schemas);
                Sources::compile(&loaded, &schemas, Some(&self.sources.load()))
            }
            Err(problems) => Err(problems),
        };
        let outcome = outcome.map(|sources| {
            self.sources.store(Arc::new(sources));
            (self.loaded, self.schemas) = (loaded, schemas);
            self.doubted.clear();
            let former: Vec<&str> = self.schemas.formers().collect();
            if !former.is_empty() {
                let subjects = former.join(", ");
                tracing::warn!(
                    subjects,
                    "published with the schema of before the reload, until the new one has an id"
                );
            }
            self.swapped.send_replace(());
        });
        if outcome.is_err() {
            self.compile();
        }
        // Who asked may have gone; what was swapped stays.
        let _ = answer.send(outcome);
    }

    /// Asks for the ids of new schemas, each once.
    async fn ask_first(&mut self, schemas: &mut Schemas) {
        let unknown = |schema: &&schema::SchemaEntry| schemas.standing(&schema.subject) == IdState::Unknown;
        let new: Vec<schema::SchemaEntry> = schemas.iter().filter(unknown).cloned().collect();
        let asked = async {
            for schema in &new {
                let subject = schema.subject.as_str();
                match self.resolve(schema, IdState::Unknown).await {
                    Ok(standing) => schemas.set(subject, standing),
                    Err(error) => {
                        let why = format!("{error:#}");
                        tracing::warn!(subject, why, "no id for the new schema yet");
                    }
                }
            }
        };
        if tokio::time::timeout(ASK_FIRST, asked).await.is_err() {
            tracing::warn!("no ids for the new schemas yet: the registry does not answer in time");
        }
    }

    /// Asks for each subject once; what has come is swapped in at the end, so that one bad schema
    /// holds up its own types only. Returns what went wrong.
    async fn round(&mut self) -> Vec<String> {
        let mut troubles = Vec::new();
        let (mut news, mut silent) = (false, 0);
        let all: Vec<schema::SchemaEntry> = self.schemas.iter().cloned().collect();
        for schema in &all {
            match self.resolve(schema, self.schemas.standing(&schema.subject)).await {
                Ok(standing) => news |= self.apply(schema, standing),
                Err(error) => {
                    troubles.push(format!("{error:#}"));
                    // One that does not answer will not answer for the others either. One that says no to a
                    // subject may well have the next.
                    if !answered(&error) {
                        silent += 1;
                        // The second look is for one that answers.
                        self.doubted.clear();
                    }
                    if silent > 1 {
                        break;
                    }
                }
            }
        }
        if troubles.len() > TOLD {
            let more = format!("and {} more", troubles.len() - TOLD);
            troubles.truncate(TOLD);
            troubles.push(more);
        }
        news |= self.check_former().await;
        if news {
            troubles.extend(self.compile());
        }
        troubles
    }

    /// Takes back former schemas whose id the registry resolves otherwise by now: true if there are any.
    async fn check_former(&mut self) -> bool {
        let mut news = false;
        for subject in self.schemas.formers().map(str::to_owned).collect::<Vec<_>>() {
            let Some((former, id)) = self.schemas.former(&subject) else { continue };
            // One that does not answer was told already, and will not answer for the others either.
            let Ok(resolved) = self.registry.resolve(id, &former.schema).await else { break };
            if resolved != Resolved::Same && !self.doubt(&subject, id, resolved) {
                tracing::error!(subject, id, ?resolved, "the registry lost the former schema under its id");
                self.schemas.drop_previous(&subject);
                news = true;
            }
        }
        news
    }

    /// What the registry says of one subject. A known id is checked before anything is registered:
    /// in a registry that lost its data, that would only take up another id.
    async fn resolve(&mut self, schema: &schema::SchemaEntry, standing: IdState) -> anyhow::Result<IdState> {
        let subject = schema.subject.as_str();
        let known = match standing {
            IdState::Unknown => None,
            IdState::Pinned(id) | IdState::Lost(id) | IdState::Confirmed(id) => Some(id),
        };
        // Once is enough, however often it is asked again.
        let news = !matches!(standing, IdState::Lost(_));
        if let Some(id) = known {
            let resolved = self.registry.resolve(id, &schema.schema).await?;
            if news && self.doubt(subject, id, resolved) {
                return Ok(standing);
            }
            if resolved != Resolved::Same {
                if news {
                    let advice = self.advice();
                    tracing::error!(
                        subject,
                        id,
                        ?resolved,
                        advice,
                        "the registry lost the schema under its id"
                    );
                }
                return Ok(IdState::Lost(id));
            }
        }
        if matches!(standing, IdState::Confirmed(_)) {
            return Ok(standing);
        }
        let given = self.registry.id(schema, self.loaded.config.provision.on_start).await?;
        match known {
            Some(id) if id != given => {
                if news {
                    let advice = self.advice();
                    tracing::error!(subject, id, given, advice, "the registry gives the schema another id");
                }
                Ok(IdState::Lost(id))
            }
            Some(id) if !news => {
                tracing::info!(subject, id, "the registry has the schema under its id again");
                Ok(IdState::Confirmed(id))
            }
            _ => Ok(IdState::Confirmed(given)),
        }
    }

    /// Whether what the registry says of an id waits for a second look.
    fn doubt(&mut self, subject: &str, id: u32, resolved: Resolved) -> bool {
        let key = (subject.to_owned(), id);
        let doubted = resolved == Resolved::Missing && self.doubted.insert(key.clone());
        if doubted {
            tracing::warn!(subject, id, "the registry does not know the id; it is asked once more");
        } else {
            self.doubted.remove(&key);
        }
        doubted
    }

    /// True if the sources are to be compiled for it. A lost id is taken from them at once.
    fn apply(&mut self, schema: &schema::SchemaEntry, standing: IdState) -> bool {
        let subject = schema.subject.as_str();
        let before = self.schemas.id(subject);
        if let (Some(_), IdState::Confirmed(id)) = (self.schemas.former(subject), standing) {
            tracing::info!(subject, id, "published with the new schema");
        }
        self.schemas.set(subject, standing);
        match (standing, &mut self.pins) {
            (IdState::Confirmed(id), Some(pins)) => pins.put(subject, &schema.text, id),
            (IdState::Lost(_), Some(pins)) => pins.lose(subject),
            _ => {}
        }
        let changed = self.schemas.id(subject) != before;
        if changed && matches!(standing, IdState::Lost(_)) {
            self.compile();
        }
        changed
    }

    /// Swaps in sources with the ids of now; says what is wrong with them.
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
            Ok(Err(error)) => tracing::warn!(file = %file.display(), %error, "schema ids cannot be pinned"),
            // The runtime is going down.
            Err(_) => {}
        }
    }

    /// Tells readiness. A registry that merely does not answer is no news once all is confirmed.
    /// True when nothing is open.
    fn report(&mut self, troubles: &[String]) -> bool {
        let (mut open, mut pinned, mut lost) = (false, false, Vec::new());
        for schema in self.schemas.iter() {
            let subject = &schema.subject;
            match self.schemas.standing(subject) {
                IdState::Confirmed(_) => {}
                IdState::Unknown => open = true,
                IdState::Pinned(_) => pinned = true,
                IdState::Lost(id) => {
                    lost.push(format!("{subject}: the registry has lost or changed id {id}"));
                }
            }
        }
        let settled = !open && !pinned && lost.is_empty();
        if settled {
            self.silent = false;
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
            why.push(format!("published with the schema of before the reload: {}", former.join(", ")));
        }
        let trouble = troubles.join("; ");
        if pinned {
            why.push(format!("from pins: {trouble}"));
            if !std::mem::replace(&mut self.silent, true) {
                tracing::warn!(why = trouble, "publishing with pinned schema ids");
            }
        } else if !trouble.is_empty() {
            why.push(trouble);
        }
        let state = if self.schemas.any_id() { PartState::Degraded } else { PartState::Down };
        self.health.schemas.set(state, why.join("; "));
        settled
    }

    /// How to go on where an id was lost.
    fn advice(&self) -> String {
        match self.pins.as_ref().map(IdCache::file) {
            Some(file) => {
                format!("restore the registry, or remove {} and restart to take new ids", file.display())
            }
            None => "restore the registry, or restart to take new ids".into(),
        }
    }
}
