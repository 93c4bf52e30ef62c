//! The sources as the hot path uses them: compiled from configuration, secrets and schemas.

mod unmapped;
mod rate_limit;
mod secret_usage;
mod compaction;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use jiff::Timestamp;

use rate_limit::{UnverifiedWork, rate_limit};
use secret_usage::SecretUsages;
pub use unmapped::UnmappedFields;

use crate::config::{
    ConfigErrors, ContentEncoding, Encoding, LoadedConfig, Networks, Secret, Stale, Unmapped,
};
use crate::delivery::{ContentCoding, Delivery};
use crate::envelope::{Envelope, Handshakes};
use crate::names;
use crate::observe::drift::Drift;
use crate::observe::metrics;
use crate::observe::metrics::scrape::ExpiringSecret;
use crate::observe::refusals::RefusalTable;
use crate::observe::status;
use crate::observe::traffic::Traffic;
use crate::outcome::{Fault, Reason};
use crate::quota::{RateLimit, Usage, UsageGuard};
use crate::schema::{self, Encoder, Schemas};
use crate::verify::diagnose::{self, Cause, Other};
use crate::verify::explain::{ConfiguredSecrets, Diagnosis};
use crate::verify::{Verified, Verifier};
pub use compaction::CompactionState;

/// All enabled sources, swapped as a unit.
#[derive(Debug, Default)]
pub struct Sources {
    by_name: HashMap<String, Arc<Source>>,
    /// See [`Sources::uncompacted`].
    uncompacted: HashMap<Arc<str>, Arc<CompactionState>>,
}

/// One source of webhooks.
#[derive(Debug)]
pub struct Source {
    /// The name in the URL and in the topics.
    pub name: String,
    /// The answer is due this long after the complete request head.
    pub ack_deadline: Duration,
    /// Checks signatures.
    pub verifier: Verifier,
    /// Where the event's id, type, time and data are.
    pub envelope: Envelope,
    /// Requests that are answered but are not events.
    pub handshakes: Handshakes,
    /// The routes by event type.
    routes: HashMap<String, Route>,
    /// The route of all other types, unless they are dead letters.
    unmapped: Option<Route>,
    /// The topic for authentic but unusable deliveries.
    pub dead_letter_topic: Arc<str>,
    dead_letters: Arc<RateLimit>,
    rate: Option<Arc<RateLimit>>,
    allow: Option<Networks>,
    /// Refused deliveries by reason.
    pub refusals: Arc<RefusalTable>,
    /// The recent outcomes of deliveries.
    pub traffic: Arc<Traffic>,
    drift: Arc<Drift>,
    /// The work spent on deliveries that failed verification.
    pub unverified: UnverifiedWork,
    in_flight: Arc<Usage>,
    max_in_flight: usize,
    body_bytes: Arc<Usage>,
    max_body_bytes: usize,
    matches: SecretUsages,
    stale: Stale,
    tolerance: Duration,
    content_encoding: ContentEncoding,
    /// The limit of a body, also of a decoded one.
    max_body: usize,
}

/// The route of an event type into Kafka.
#[derive(Debug)]
pub struct Route {
    /// The topic's name.
    pub topic: Arc<str>,
    /// `None` until the registry has assigned the schema an id, and after it has lost it.
    pub encoder: Option<Encoder>,
    /// The compaction state of a topic whose key names more than one event; `None` for all others, which may compact.
    pub policy: Option<Arc<CompactionState>>,
}

impl Route {
    /// The encoder for records.
    ///
    /// # Errors
    /// `schema_unknown`; `kafka_unavailable` for a topic that compacts although it must not.
    pub fn encoder(&self) -> Result<&Encoder, Fault> {
        if let Some(policy) = &self.policy {
            policy.allows()?;
        }
        self.encoder.as_ref().ok_or_else(|| Reason::SchemaUnknown.into())
    }
}

impl Source {
    /// The route of an event type. A type that is not configured never gets its own topic.
    pub fn route(&self, event_type: &str) -> Option<&Route> {
        self.routes.get(event_type).or(self.unmapped.as_ref())
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.values().chain(&self.unmapped)
    }

    /// The event types with their own route, in no order.
    pub fn types(&self) -> impl Iterator<Item = (&str, &Route)> {
        self.routes.iter().map(|(name, route)| (name.as_str(), route))
    }

    /// The topic of all other event types: the unmapped topic, else the dead-letter topic.
    pub fn topic_of_others(&self) -> &str {
        self.unmapped.as_ref().map_or(&self.dead_letter_topic, |route| &route.topic)
    }

    /// Counts one dead letter against the source's limit. Returns false if the limit is reached.
    pub fn dead_letter_allowed(&self) -> bool {
        self.dead_letters.take()
    }

    /// Counts one verified delivery against the source's limit. Returns false if the limit is reached.
    pub fn delivery_allowed(&self) -> bool {
        self.rate.as_ref().is_none_or(|rate| rate.take())
    }

    /// Whether a client may call. A client with an unknown address may only if the source has no allow list.
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        let inside = |allow: &Networks| client.is_some_and(|client| allow.contains(client));
        self.allow.as_ref().is_none_or(inside)
    }

    /// Checks the coding of a body that has not arrived yet.
    ///
    /// # Errors
    /// `encoding_unsupported`
    pub fn accepts_coding(&self, headers: &HeaderMap) -> Result<(), Fault> {
        match (self.content_encoding, ContentCoding::of(headers)) {
            (ContentEncoding::AsSent, _) => Ok(()),
            (_, coding) => coding.map(drop),
        }
    }

    /// Whether the signature of this delivery covers what its body decodes to.
    pub fn verifies_decoded(&self, delivery: &Delivery) -> bool {
        self.content_encoding == ContentEncoding::SignedDecoded && delivery.is_encoded()
    }

    /// Whether the body is compressed, and is read as it was sent.
    pub fn reads_compressed(&self, delivery: &Delivery) -> bool {
        self.content_encoding == ContentEncoding::AsSent && delivery.is_encoded()
    }

    /// The limit of a body, also of a decoded one.
    pub fn max_body(&self) -> usize {
        self.max_body
    }

    /// Verifies a delivery. A signature that is too old may be a fault for the dead letters, returned with the proof.
    ///
    /// # Errors
    /// Every refusal that the sender sees as 401.
    pub fn authenticate<'d>(
        &'d self,
        delivery: &'d Delivery,
    ) -> Result<(Verified<'d>, Option<Fault>), Fault> {
        let verified = self.verifier.verify(delivery)?;
        let stale = self.judge_age(&verified)?;
        Ok((verified, stale))
    }

    /// Checks the age of a verified delivery: a fault for the dead letters, or none.
    ///
    /// # Errors
    /// `stale_rejected`
    pub fn judge_age(&self, verified: &Verified<'_>) -> Result<Option<Fault>, Fault> {
        match self.stale(verified) {
            Some(fault) if fault.reason == Reason::StaleRejected => Err(fault),
            fault => Ok(fault),
        }
    }

    /// The HMAC of a challenge with the first secret that is valid now.
    pub fn keyed(&self, text: &str, encoding: Encoding) -> Option<String> {
        self.verifier.keyed(text, encoding, Timestamp::now())
    }

    /// The likely cause if the delivery is refused. It hashes many times the body: not for the hot path.
    pub fn cause(&self, delivery: &Delivery, sources: &Sources) -> Option<Cause> {
        let refusal = self.authenticate(delivery).err()?;
        self.verifier.cause(delivery, &refusal, &sources.others(&self.name), diagnose::BUDGET)
    }

    /// What `hookstream explain` tells of the delivery. `secrets` are those of all sources.
    pub fn explain(
        &self,
        delivery: &Delivery,
        sources: &Sources,
        secrets: &BTreeMap<String, Vec<Secret>>,
    ) -> Diagnosis {
        let refusal = self.authenticate(delivery).err();
        let secrets = ConfiguredSecrets { source: &self.name, all: secrets };
        self.verifier.explain(delivery, refusal.as_ref(), &secrets, &sources.others(&self.name))
    }

    /// Why a delivery is too old, or too far in the future, to be an event: `stale_rejected` makes the sender sign
    /// anew, `stale` makes it a dead letter. `None` if its age is acceptable.
    fn stale(&self, verified: &Verified<'_>) -> Option<Fault> {
        let reason = match self.stale {
            Stale::Accept => return None,
            Stale::DeadLetter => Reason::Stale,
            Stale::Reject => Reason::StaleRejected,
        };
        let age = verified.age()?;
        let seconds = age.unsigned_abs().as_secs();
        let (tolerance, side) = (self.tolerance.as_secs(), if age.is_negative() { "ahead" } else { "old" });
        (age.unsigned_abs() > self.tolerance)
            .then(|| Fault::new(reason, format!("{seconds} s {side}, the tolerance is {tolerance} s")))
    }

    /// Counts a delivery for the secret that signed it.
    pub fn record_secret_match(&self, verified: &Verified<'_>) {
        self.matches.add(verified.secret(), verified.delivery().received_at);
    }

    /// Counts the fields that a durable event left to `additional_fields`.
    pub fn count_unmapped(&self, fields: &UnmappedFields) {
        let UnmappedFields { event_type, misfits, drift } = fields;
        if *misfits > 0 {
            metrics::misfits(&self.name, event_type, *misfits);
        }
        if !drift.is_empty() {
            self.drift.count(&self.name, event_type, drift, Timestamp::now());
        }
    }

    /// The source's part of `/status`.
    pub fn status(&self, now: Timestamp) -> status::SourceStatus {
        status::SourceStatus {
            traffic: self.traffic.shown(now),
            refusals: self.refusals.shown(),
            secrets: self.matches.shown(now),
        }
    }

    /// The secrets that expire.
    pub fn expiring_secrets(&self) -> impl Iterator<Item = ExpiringSecret<'_>> {
        let source = &*self.name;
        let expiring = self.matches.expiring();
        expiring.map(move |(secret, not_after)| ExpiringSecret { source, secret, not_after })
    }

    /// The limit of verified deliveries in flight.
    pub fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }

    /// Reserves a slot for one verified delivery with a body of `bytes`, released on drop.
    ///
    /// # Errors
    /// `overloaded` if the source's slots, or its share of the bodies' bytes, are in use.
    pub fn try_acquire(&self, bytes: usize) -> Result<[UsageGuard; 2], Fault> {
        let overloaded = |limit: &'static str| Fault::new(Reason::Overloaded, limit);
        let slot = self.in_flight.take(1, self.max_in_flight);
        let slot = slot.ok_or_else(|| overloaded("max_in_flight of the source"))?;
        let bytes = self.body_bytes.take(bytes, self.max_body_bytes);
        Ok([slot, bytes.ok_or_else(|| overloaded("the source's share of max_body_bytes"))?])
    }
}

impl Sources {
    /// Compiles all sources, or reports every problem. Counters and limits are taken over from `previous` by the
    /// source's name, and so is the memory of removed secrets.
    ///
    /// # Errors
    /// Every problem, each with its place in the configuration.
    pub fn compile(
        loaded: &LoadedConfig,
        schemas: &Schemas,
        previous: Option<&Self>,
    ) -> Result<Self, ConfigErrors> {
        let mut problems = loaded.problems();
        let mut sources = HashMap::new();
        let uncompacted = uncompacted(loaded, previous);
        let http = &loaded.config.http;
        let share = |amount| share(amount, loaded.config.source.len());
        for (name, rules) in &loaded.config.source {
            let secrets = loaded.secrets.get(name).map(Vec::as_slice).unwrap_or_default();
            let place = |part: &str| format!("source.{name}.{part}");
            let verifier = Verifier::compile(&rules.signature, secrets, &place("signature"), &mut problems);
            let envelope =
                Envelope::compile(&rules.envelope, &rules.signature, &place("envelope"), &mut problems);
            let handshakes = Handshakes::compile(rules, &format!("source.{name}"), &mut problems);
            let (Some(verifier), Some(envelope)) = (verifier, envelope) else { continue };
            let mut verifier = verifier.with_envelope(&rules.envelope);
            // Also for `signed_decoded`: a dead letter of another time may have a body that was signed encoded.
            if matches!(
                rules.content_encoding,
                ContentEncoding::SignedEncoded | ContentEncoding::SignedDecoded
            ) {
                verifier = verifier.decoding(http.max_body);
            }
            let bound = secrets.iter().any(|secret| secret.binds.is_some());
            let generic = rules.unmapped == Unmapped::Generic;
            if handshakes.signs_for_anybody() {
                verifier = verifier.signing_challenges();
            }
            let envelope = envelope.separating(rules.binding_in_key && bound).with_untyped(generic);
            let before = previous.and_then(|sources| sources.get(name));
            if let Some(source) = before {
                verifier.remember(&source.verifier, Timestamp::now());
            }
            let mut route = |event_type: &str| {
                let route = route(name, event_type, &envelope, schemas, &mut problems)?;
                let policy = || uncompacted.get(&route.topic).cloned().unwrap_or_default();
                let policy = envelope.has_own_key(event_type).then(policy);
                Some(Route { policy, ..route })
            };
            let routes =
                rules.types.iter().filter_map(|known| Some((known.clone(), route(known)?))).collect();
            let unmapped = generic.then(|| route(names::UNMAPPED)).flatten();
            let in_flight = before.map(|source| source.in_flight.clone()).unwrap_or_default();
            let body_bytes = before.map(|source| source.body_bytes.clone()).unwrap_or_default();
            let unverified = UnverifiedWork::new(
                http.unverified_work_per_address as u64,
                before.map(|source| &source.unverified),
            );
            let matches = SecretUsages::new(name, secrets, before.map(|source| &source.matches));
            let refusals = before.map(|source| source.refusals.clone()).unwrap_or_default();
            let traffic =
                before.map_or_else(|| Arc::new(Traffic::new(name)), |source| source.traffic.clone());
            let drift = before.map(|source| source.drift.clone()).unwrap_or_default();
            let dead_letters = rate_limit(rules.dead_letter_rate, before.map(|source| &source.dead_letters));
            let rate_before = before.and_then(|source| source.rate.as_ref());
            let rate = rules.rate_limit.map(|rate| rate_limit(rate, rate_before));
            let source = Source {
                name: name.clone(),
                ack_deadline: rules.ack_deadline,
                verifier,
                envelope,
                handshakes,
                routes,
                unmapped,
                dead_letter_topic: names::dead_letter_topic(name).into(),
                dead_letters,
                rate,
                allow: rules.allow.clone(),
                refusals,
                traffic,
                drift,
                unverified,
                in_flight,
                max_in_flight: rules.max_in_flight.unwrap_or_else(|| share(http.max_in_flight)),
                body_bytes,
                max_body_bytes: share(http.max_body_bytes).max(http.max_body),
                matches,
                stale: rules.stale,
                tolerance: rules.tolerance,
                content_encoding: rules.content_encoding,
                max_body: http.max_body,
            };
            sources.insert(name.clone(), Arc::new(source));
        }
        problems.or(Self { by_name: sources, uncompacted })
    }

    /// No source, for a service that only empties its spool: the topics that must not compact are those of `loaded`.
    pub fn without_routes(loaded: &LoadedConfig) -> Self {
        Self { by_name: HashMap::new(), uncompacted: uncompacted(loaded, None) }
    }

    /// The topics that must not compact, with their known state. Rows of the spool may still go to a topic that no
    /// route leads to any more, so those of disabled sources are among them, and those of sources and keys that a
    /// reload of this run has removed.
    pub fn uncompacted(&self) -> &HashMap<Arc<str>, Arc<CompactionState>> {
        &self.uncompacted
    }

    /// The source `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Source>> {
        self.by_name.get(name)
    }

    /// All sources but `name`, by name.
    fn others(&self, name: &str) -> Vec<Other<'_>> {
        let others = self.iter().filter(|other| other.name != name);
        let mut others: Vec<_> =
            others.map(|other| Other { source: &other.name, verifier: &other.verifier }).collect();
        others.sort_by_key(|other| other.source);
        others
    }

    /// The topics of all sources, including the dead-letter topics, in no order.
    pub fn topics(&self) -> Vec<String> {
        let topics = self.iter().flat_map(|source| {
            let events = source.routes().map(|route| &*route.topic);
            events.chain([&*source.dead_letter_topic])
        });
        topics.map(str::to_owned).collect()
    }

    /// All sources, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.by_name.values()
    }
}

/// See [`Sources::uncompacted`].
fn uncompacted(loaded: &LoadedConfig, previous: Option<&Sources>) -> HashMap<Arc<str>, Arc<CompactionState>> {
    let mut topics = previous.map(|previous| previous.uncompacted.clone()).unwrap_or_default();
    for (source, event_type) in loaded.keyed_types() {
        topics.entry(names::topic(source, event_type).into()).or_default();
    }
    topics
}

/// Compiles the route of one event type; `None` if its schema is unusable.
fn route(
    source: &str,
    event_type: &str,
    envelope: &Envelope,
    schemas: &Schemas,
    problems: &mut ConfigErrors,
) -> Option<Route> {
    let topic: Arc<str> = names::topic(source, event_type).into();
    let schema::SchemaEntry { schema, subject, .. } = schemas.get(source, event_type)?;
    let id = schemas.id(subject);
    let former = || {
        let (former, id) = schemas.former(subject)?;
        Encoder::compile(&former.schema, id, envelope.places()).ok()
    };
    // Compiled even without an id, so that problems of a schema show before the registry is asked.
    match Encoder::compile(schema, id.unwrap_or(0), envelope.places()) {
        Ok(encoder) => {
            let encoder = if id.is_some() { Some(encoder) } else { former() };
            Some(Route { topic, encoder, policy: None })
        }
        Err(faults) => {
            for fault in faults {
                problems.add(format!("schema of {source} {event_type}"), fault);
            }
            None
        }
    }
}

/// The default share of the slots and of the bodies' bytes for a source that sets no limit: half, so that no single
/// source blocks the others; all if it is the only source.
fn share(amount: usize, sources: usize) -> usize {
    if sources > 1 { amount.div_ceil(2) } else { amount }
}
