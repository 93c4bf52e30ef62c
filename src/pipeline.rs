//! The hot path of one delivery, from its verification to its result.
//!
//! No lock is held across an await, no registry is called, and every wait ends at the deadline.

mod send;

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::decide::{Decided, Decision, EncodedRecords, EventRef, decide};
use crate::deliver::{DeliverError, Deliverer, OnRefusal, Receipt};
use crate::delivery::Deadline;
use crate::envelope::HandshakeAnswer;
use crate::kafka::Ack;
use crate::observe::traces::Trace;
use crate::outcome::{Fault, Outcome, Reason};
use crate::quota::UsageGuard;
use crate::record::Record;
use crate::sources::Source;
use crate::verify::Verified;

/// Processes verified deliveries.
pub struct Pipeline {
    places: Semaphore,
    deliverer: Deliverer,
}

/// A delivery's place in its source and in the process, held until dropped.
type Permit<'p> = ([UsageGuard; 2], SemaphorePermit<'p>);

/// The result of a delivery, from which answer, log and metrics are made.
#[derive(Debug)]
pub struct DeliveryResult {
    /// `Ok` only for an event that is in its topic, or in the spool to go there.
    pub result: Result<(), Fault>,
    /// The event's id and type, if known; if the delivery has several events, those of the first.
    pub event: Option<EventRef>,
    /// The location of the event's record or of the dead letter. For several events that of the first record, without
    /// partition and offset if any is in the spool.
    pub stored: Option<RecordLocation>,
    /// What a handshake is answered instead of the usual JSON.
    pub answer: Option<HandshakeAnswer>,
    authenticity: Authenticity,
}

/// Whether a secret of the source signed a delivery. Anybody can send an unsigned one. Only a proof makes a delivery
/// verified, so that limits on strangers can use this instead of a list of reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Authenticity {
    /// It ended before the signature was checked, or no valid secret made the signature.
    #[default]
    Unverified,
    /// The secret of this name signed it.
    Verified(Arc<str>),
}

/// The location of a durable record.
#[derive(Debug, Clone)]
pub struct RecordLocation {
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
    pub fn outcome(&self) -> Outcome {
        match &self.result {
            Ok(()) if self.stored.as_ref().is_some_and(|stored| stored.ack.is_none()) => Outcome::Spooled,
            Ok(()) => Outcome::Published,
            Err(fault) => fault.reason.info().outcome,
        }
    }
}

impl DeliveryResult {
    /// Marks the delivery as verified.
    pub(crate) fn signed(self, proof: &Verified<'_>) -> Self {
        Self { authenticity: Authenticity::Verified(proof.secret_name()), ..self }
    }

    /// Whether a secret of the source signed it.
    pub fn is_verified(&self) -> bool {
        self.secret().is_some()
    }

    /// The name of the secret that signed it; `None` if no valid secret did.
    pub fn secret(&self) -> Option<&Arc<str>> {
        match &self.authenticity {
            Authenticity::Unverified => None,
            Authenticity::Verified(secret) => Some(secret),
        }
    }

    /// Partition and offset, once Kafka has acknowledged the record.
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
            answer: None,
            authenticity: Authenticity::Unverified,
        }
    }
}

impl DeliveryResult {
    /// The result of a handshake, which is not published.
    pub fn handshake(answer: HandshakeAnswer) -> Self {
        Self::handled(Reason::Handshake.into(), Some(answer))
    }

    fn handled(why: Fault, answer: Option<HandshakeAnswer>) -> Self {
        Self { answer, ..why.into() }
    }

    fn stored(result: Result<(), Fault>, topic: Arc<str>, receipt: Receipt) -> Self {
        let stored = Some(RecordLocation::new(topic, receipt));
        Self { result, event: None, stored, answer: None, authenticity: Authenticity::Unverified }
    }
}

impl Pipeline {
    /// A pipeline for at most `max_in_flight` verified deliveries at a time.
    pub fn new(max_in_flight: usize, deliverer: Deliverer) -> Self {
        Self { places: Semaphore::new(max_in_flight), deliverer }
    }

    /// Processes one verified delivery. `stale` is the fault to apply if the signature is too old.
    ///
    /// # Cancellation
    /// Dropping the future does not recall a record that librdkafka or the spool already has. The caller lets it finish
    /// instead.
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
            Decision::Handled { why, answer } => DeliveryResult::handled(why, answer),
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
        // Not earlier: an unverified request must not take a delivery's place.
        let of_source = source.try_acquire(verified.bytes())?;
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

    /// Once the dead letter is durable, in its topic or in the spool, the delivery is answered 2xx: a retry cannot help.
    /// If it cannot be made durable, the answer is 503.
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

/// The fault of a delivery that could not be made durable; for a dead letter it includes why it was one.
fn unavailable(undelivered: &DeliverError, dead_letter: Option<&Fault>) -> Fault {
    let reason = reason(undelivered);
    match dead_letter {
        Some(why) => Fault::new(reason, format!("dead letter ({why}): {undelivered}")),
        None => Fault::new(reason, undelivered.to_string()),
    }
}
