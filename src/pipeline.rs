//! The hot path: one delivery from its proof to its end.
//!
//! No lock is held across an await, no registry is called, and every wait ends at the deadline.

mod send;

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::decide::{Decided, Decision, EncodedRecords, EventRef, decide};
use crate::deliver::{DeliverError, Deliverer, OnRefusal, Receipt};
use crate::delivery::Deadline;
use crate::kafka::Ack;
use crate::observe::traces::Trace;
use crate::outcome::{Fault, Outcome, Reason};
use crate::quota::UsageGuard;
use crate::record::Record;
use crate::sources::Source;
use crate::verify::Verified;

/// What every delivery goes through.
pub struct Pipeline {
    places: Semaphore,
    deliverer: Deliverer,
}

/// A delivery's place in its source and in the process, until dropped.
type Permit<'p> = ([UsageGuard; 2], SemaphorePermit<'p>);

/// How a delivery ended: what answer, log and metrics are made from.
#[derive(Debug)]
pub struct DeliveryResult {
    /// `Err` for all but an event in its topic, or in the spool on its way there.
    pub result: Result<(), Fault>,
    /// The event's id and type, as far as they are known; of several events, the first one's.
    pub event: Option<EventRef>,
    /// Where the record stands: the event's (of several the first one's, and without partition and
    /// offset if any is in the spool) or the dead letter's.
    pub stored: Option<RecordLocation>,
    /// What is sent back as plain text in the place of the usual answer.
    pub text: Option<PlainReply>,
    authenticity: Authenticity,
}

/// Whether a secret of the source signed a delivery: what nobody signed, anybody can cause. Only a proof makes it
/// verified, so that bounds on strangers can go by it instead of a list of reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Authenticity {
    /// It ended before that was known, or without a secret that counts.
    #[default]
    Unverified,
    /// By the secret of this name.
    Verified(Arc<str>),
}

/// A text that the provider wants to be sent back.
pub struct PlainReply(pub String);

/// Its size only: it comes out of the delivery.
impl std::fmt::Debug for PlainReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Text({} bytes)", self.0.len())
    }
}

/// A durable record's place.
#[derive(Debug, Clone)]
pub struct RecordLocation {
    /// The topic.
    pub topic: Arc<str>,
    /// Partition and offset; `None` while it is in the spool.
    pub ack: Option<Ack>,
}

impl RecordLocation {
    fn new(topic: Arc<str>, receipt: Receipt) -> Self {
        let ack = match receipt {
            Receipt::Published(ack) => Some(ack),
            Receipt::Spooled => None,
        };
        Self { topic, ack }
    }
}

impl DeliveryResult {
    /// The outcome in one word.
    pub fn outcome(&self) -> Outcome {
        match &self.result {
            Ok(()) if self.stored.as_ref().is_some_and(|stored| stored.ack.is_none()) => Outcome::Spooled,
            Ok(()) => Outcome::Published,
            Err(fault) => fault.reason.info().outcome,
        }
    }
}

impl DeliveryResult {
    /// The same, of a delivery that a secret has signed.
    pub(crate) fn signed(self, proof: &Verified<'_>) -> Self {
        Self { authenticity: Authenticity::Verified(proof.secret_name()), ..self }
    }

    /// Whether a secret of the source signed it.
    pub fn is_verified(&self) -> bool {
        self.secret().is_some()
    }

    /// The name of the secret that signed it; `None` where none that counts did.
    pub fn secret(&self) -> Option<&Arc<str>> {
        match &self.authenticity {
            Authenticity::Unverified => None,
            Authenticity::Verified(secret) => Some(secret),
        }
    }

    /// Partition and offset, once Kafka has acknowledged.
    pub fn ack(&self) -> Option<Ack> {
        self.stored.as_ref()?.ack
    }
}

impl From<Fault> for DeliveryResult {
    fn from(fault: Fault) -> Self {
        Self {
            result: Err(fault),
            event: None,
            stored: None,
            text: None,
            authenticity: Authenticity::Unverified,
        }
    }
}

impl DeliveryResult {
    /// The end of a handshake: published nowhere.
    pub fn handshake(text: Option<String>) -> Self {
        Self { text: text.map(PlainReply), ..Fault::from(Reason::Handshake).into() }
    }

    fn stored(result: Result<(), Fault>, topic: Arc<str>, receipt: Receipt) -> Self {
        let stored = Some(RecordLocation::new(topic, receipt));
        Self { result, event: None, stored, text: None, authenticity: Authenticity::Unverified }
    }
}

impl Pipeline {
    /// At most `max_in_flight` verified deliveries at a time.
    pub fn new(max_in_flight: usize, deliverer: Deliverer) -> Self {
        Self { places: Semaphore::new(max_in_flight), deliverer }
    }

    /// Takes one verified delivery to its end; `stale` is what becomes of its age.
    ///
    /// # Cancellation
    /// Dropping the future does not recall a record that librdkafka or the spool already has. The caller lets it
    /// go on instead.
    pub async fn run(
        &self,
        source: &Source,
        verified: &Verified<'_>,
        stale: Option<Fault>,
        deadline: Deadline,
        trace: &mut Trace,
    ) -> DeliveryResult {
        source.record_secret_match(verified);
        trace.verified();
        self.process_verified(source, verified, stale, deadline, trace).await.signed(verified)
    }

    async fn process_verified(
        &self,
        source: &Source,
        verified: &Verified<'_>,
        stale: Option<Fault>,
        deadline: Deadline,
        trace: &mut Trace,
    ) -> DeliveryResult {
        let admit = || self.admit(source, verified);
        // The permit is held until the records are durable.
        let Decided { event, decision, permit: _permit } = decide(source, verified, stale, admit);
        let mut ended = match decision {
            Decision::Handshake(text) => DeliveryResult::handshake(text),
            Decision::Publish(records) => self.publish(source, verified, records, deadline, trace).await,
            Decision::DeadLetter { intended_topic, why } => {
                self.dead_letter(source, verified, intended_topic.as_deref(), why, deadline, trace).await
            }
            Decision::Unavailable(fault) => fault.into(),
        };
        ended.event = event;
        ended
    }

    /// Applies the limits of the source and of the process.
    fn admit(&self, source: &Source, verified: &Verified<'_>) -> Result<Permit<'_>, Fault> {
        if !source.delivery_allowed() {
            return Err(Fault::new(Reason::RateLimited, "rate_limit of the source"));
        }
        // Only now: an unverified request never holds a delivery's place.
        let of_source = source.try_acquire(verified.delivery().body.len())?;
        let of_process = self.places.try_acquire();
        let of_process =
            of_process.map_err(|_| Fault::new(Reason::Overloaded, "max_in_flight of all sources"))?;
        Ok((of_source, of_process))
    }

    async fn publish(
        &self,
        source: &Source,
        verified: &Verified<'_>,
        records: EncodedRecords,
        deadline: Deadline,
        trace: &mut Trace,
    ) -> DeliveryResult {
        let EncodedRecords { topic, records, unmapped } = records;
        match self.send(records, OnRefusal::DeadLetter, deadline, trace).await {
            Ok(receipt) => {
                unmapped.iter().for_each(|fields| source.count_unmapped(fields));
                DeliveryResult::stored(Ok(()), topic, receipt)
            }
            Err(DeliverError::Refused(trouble)) => {
                let why = Fault::new(Reason::KafkaRefused, trouble.to_string());
                self.dead_letter(source, verified, Some(&topic), why, deadline, trace).await
            }
            Err(undelivered) => unavailable(&undelivered, None).into(),
        }
    }

    /// Durable there, or in the spool on its way, the delivery is answered 2xx: a retry cannot help. Not
    /// durable, it is our trouble and answered as such.
    async fn dead_letter(
        &self,
        source: &Source,
        verified: &Verified<'_>,
        intended_topic: Option<&str>,
        why: Fault,
        deadline: Deadline,
        trace: &mut Trace,
    ) -> DeliveryResult {
        if !source.dead_letter_allowed() {
            return Fault::new(Reason::RateLimited, format!("dead_letter_rate of the source: {why}")).into();
        }
        let topic = source.dead_letter_topic.clone();
        let key = source.envelope.key(verified);
        let record =
            Record::dead_letter(&topic, key, intended_topic, verified, source.envelope.headers(), &why);
        match self.send(vec![record], OnRefusal::Spool, deadline, trace).await {
            Ok(receipt) => DeliveryResult::stored(Err(why), topic, receipt),
            Err(undelivered) => unavailable(&undelivered, Some(&why)).into(),
        }
    }
}

fn reason(undelivered: &DeliverError) -> Reason {
    match undelivered {
        DeliverError::Refused(_) | DeliverError::Kafka(_) => Reason::KafkaUnavailable,
        DeliverError::Overloaded(_) => Reason::Overloaded,
        DeliverError::SpoolFull(_) => Reason::SpoolFull,
        DeliverError::Spool(_) => Reason::SpoolError,
    }
}

/// Our trouble, and whose exactly; for a dead letter also why it was one.
fn unavailable(undelivered: &DeliverError, dead_letter: Option<&Fault>) -> Fault {
    let reason = reason(undelivered);
    match dead_letter {
        Some(why) => Fault::new(reason, format!("dead letter ({why}): {undelivered}")),
        None => Fault::new(reason, undelivered.to_string()),
    }
}
