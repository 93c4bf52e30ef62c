//! Makes a finished record durable: in Kafka, or in the spool while Kafka is unavailable.
//!
//! ```text
//! partition healthy     Kafka until its share of the deadline is over, then the spool
//! known to be failing   the spool at once; the drain finds out when the partition is healthy again
//! no broker reachable   the spool at once, whatever the topic
//! producer queue full   the spool at once, for this record only: the topic is not failing
//! topic's limit         likewise; without a spool, as in the next line
//! rejected permanently  DeliverError::Refused: the pipeline still holds the body for a dead letter
//! ```
//!
//! Health is tracked by partition, which the key determines: its leader may be down while the other brokers are up. An
//! error of the topic (no rights, deleted) applies to all of its partitions.
//!
//! An unknown outcome counts as not written: a duplicate is harmless, a loss is not.

mod backoff;
mod batch_size;
mod drain;
mod holds;
mod outages;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod state_machine;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use drain::Drain;
use futures_util::future::join_all;
pub use holds::Holds;
use outages::Outages;
use tokio::sync::watch;

use crate::delivery::Deadline;
use crate::failpoints::{self, Failpoint};
use crate::kafka::{Ack, Producer, PublishError};
use crate::observe::health::{Health, PartState};
use crate::observe::metrics::{self, Via};
use crate::quota::RateLimit;
use crate::record::Record;
use crate::spool::{Spool, StoreError};

/// Where a record is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Acknowledged by all in-sync replicas.
    Published(Ack),
    /// Stored in a row of the spool that was synced to disk.
    Spooled,
}

/// Why a record is not durable.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeliverError {
    /// Kafka rejects the record permanently.
    #[error("{0}")]
    Refused(PublishError),
    /// Kafka is probably unavailable, and there is no spool.
    #[error("{0}")]
    Kafka(String),
    /// The producer's queue is full, and there is no spool.
    #[error("{0}")]
    Overloaded(String),
    /// Kafka is unavailable, and the spool has reached a limit.
    #[error("{0}")]
    SpoolFull(String),
    /// Kafka is unavailable, and the spool cannot write.
    #[error("{0}")]
    Spool(String),
}

/// What to do with a record that Kafka rejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRefusal {
    /// Dead-letter the delivery: the pipeline has its body.
    DeadLetter,
    /// Store the record, which is a dead letter itself, in the spool; if it is rejected permanently, a person decides.
    Spool,
}

/// Delivers records.
pub struct Deliverer {
    producer: Arc<Producer>,
    spool: Option<Arc<Spool>>,
    outages: Arc<Outages>,
    health: Arc<Health>,
    /// The number of records sent to Kafka directly: the drain gives way while it rises.
    live: Arc<AtomicU64>,
    /// Limits the message about a full queue to one per second: it concerns many deliveries, and each has its own log
    /// line.
    queue_full_log: RateLimit,
}

impl Deliverer {
    /// Delivers through `producer`, and to `spool` if there is one.
    pub fn new(producer: Arc<Producer>, spool: Option<Arc<Spool>>, health: Arc<Health>) -> Self {
        let queue_full_log = RateLimit::per_second(1);
        let outages = Arc::new(Outages::new(health.clone()));
        Self { producer, spool, outages, health, live: Arc::default(), queue_full_log }
    }

    /// Changes whenever a failing topic or partition acknowledges again.
    pub fn recoveries(&self) -> watch::Receiver<()> {
        self.outages.recoveries()
    }

    /// The task that empties the spool, except for topics that `holds` holds; `None` without a spool.
    pub fn drain(&self, holds: Arc<dyn Holds>) -> Option<Drain> {
        Some(self.drains(holds)?())
    }

    /// The same as often as it is called: a drain that panicked is replaced. Its rows are leased again; those that
    /// Kafka has taken meanwhile become duplicates.
    pub fn drains(
        &self,
        holds: Arc<dyn Holds>,
    ) -> Option<impl Fn() -> Drain + Clone + Send + Sync + 'static + use<>> {
        let spool = self.spool.clone()?;
        let (producer, outages) = (self.producer.clone(), self.outages.clone());
        let (health, live) = (self.health.clone(), self.live.clone());
        Some(move || {
            Drain::new(
                producer.clone(),
                spool.clone(),
                outages.clone(),
                health.clone(),
                live.clone(),
                holds.clone(),
            )
        })
    }

    /// Resolves when all records of a delivery are durable, or when it is clear that they are not: all are
    /// acknowledged, or the rest is stored in one transaction of the spool. If all are acknowledged, the receipt is
    /// that of the first.
    ///
    /// A timer of the service ends the wait for Kafka, since librdkafka's may report late.
    ///
    /// # Errors
    /// [`DeliverError`]. Some of several records may be in their topics by then: the sender's retry, or a replay of the
    /// dead letter, makes them duplicates.
    ///
    /// # Cancellation
    /// Dropping the future withdraws neither records nor rows.
    pub async fn deliver(
        &self,
        records: Vec<Record>,
        last: OnRefusal,
        deadline: Deadline,
    ) -> Result<Receipt, DeliverError> {
        let results = join_all(records.iter().map(async |record| {
            let skips_kafka = self.spool.is_some() && self.is_known_unavailable(record);
            if skips_kafka { None } else { Some(self.publish(record, deadline).await) }
        }))
        .await;
        let (mut ack, mut error, mut rest) = (None, None, Vec::new());
        for (record, result) in records.into_iter().zip(results) {
            match result {
                Some(Ok(found)) => {
                    ack.get_or_insert(found);
                    continue;
                }
                Some(Err(refused)) if self.is_final(&refused, last) => {
                    return Err(DeliverError::Refused(refused));
                }
                Some(Err(other)) => {
                    error.get_or_insert(other);
                }
                None => {}
            }
            rest.push(record);
        }
        match (&self.spool, ack, error) {
            (_, Some(ack), _) if rest.is_empty() => Ok(Receipt::Published(ack)),
            (Some(spool), ..) if !rest.is_empty() => store(spool, rest, deadline).await,
            (_, _, Some(full @ PublishError::QueueFull)) => Err(DeliverError::Overloaded(full.to_string())),
            (_, _, Some(error)) => Err(DeliverError::Kafka(error.to_string())),
            _ => Err(DeliverError::Kafka("there is no record to deliver".into())),
        }
    }

    /// Whether the error ends the delivery as a dead letter. A topic's limit may be raised later, but without a spool
    /// the record is not stored until then.
    fn is_final(&self, error: &PublishError, last: OnRefusal) -> bool {
        match (error, last) {
            (PublishError::Refused(_), OnRefusal::DeadLetter) => true,
            (PublishError::Refused(_), OnRefusal::Spool) | (PublishError::Limit(_), _) => {
                self.spool.is_none()
            }
            (PublishError::QueueFull | PublishError::Ambiguous | PublishError::Unavailable { .. }, _) => {
                false
            }
        }
    }

    fn is_known_unavailable(&self, record: &Record) -> bool {
        self.health.kafka.state() == PartState::Down
            || self.outages.is_unavailable(record.topic(), || self.producer.partition_of(record))
    }

    async fn publish(&self, record: &Record, deadline: Deadline) -> Result<Ack, PublishError> {
        self.live.fetch_add(1, Ordering::Relaxed);
        let mut result = self.publish_once(record, deadline).await;
        if matches!(result, Err(PublishError::Limit(_))) {
            // The batch may have been too large because of its other records, which are finished now.
            result = self.publish_once(record, deadline).await;
        }
        if matches!(result, Err(PublishError::QueueFull)) && self.queue_full_log.take() {
            tracing::warn!("the producer's queue is full: deliveries go to the spool, or are answered 503");
        }
        if result.is_ok() {
            metrics::record(record.topic(), Via::Direct);
        }
        self.outages.record(record.topic(), || self.producer.place_of(record), &result);
        result
    }

    async fn publish_once(&self, record: &Record, deadline: Deadline) -> Result<Ack, PublishError> {
        match self.producer.publish(record) {
            Ok(_) if failpoints::is_active(Failpoint::AnswerBeforeAck) => Ok(Ack { partition: 0, offset: 0 }),
            Ok(ack) => match tokio::time::timeout_at(deadline.kafka.into(), ack).await {
                Ok(result) => result,
                Err(_) => Err(PublishError::unanswered("no acknowledgement within the deadline")),
            },
            Err(error) => Err(error),
        }
    }
}

async fn store(spool: &Spool, records: Vec<Record>, deadline: Deadline) -> Result<Receipt, DeliverError> {
    let until = deadline.answer - Deadline::ANSWER;
    match tokio::time::timeout_at(until.into(), spool.store(records)).await {
        Ok(Ok(())) => Ok(Receipt::Spooled),
        Ok(Err(full @ StoreError::Full(_))) => Err(DeliverError::SpoolFull(full.to_string())),
        Ok(Err(refused)) => Err(DeliverError::Spool(refused.to_string())),
        Err(_) => Err(DeliverError::Spool("its disk did not sync within the deadline".into())),
    }
}
