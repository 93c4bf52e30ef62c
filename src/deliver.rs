//! A finished record's way to durability: Kafka first, the spool when Kafka is out.
//!
//! ```text
//! partition well    Kafka until its share of the deadline is over, then the spool
//! known to be out   the spool at once; the drain finds out when it is well again
//! no broker at all  the spool at once, whatever the topic
//! our queue full    the spool at once, for this record only: the topic is as well as before
//! topic's limit     likewise; without a spool as the next
//! refused for good  Undelivered::Refused: the pipeline still holds the body for a dead letter
//! ```
//!
//! Health is that of the partition, which the key tells: its leader may be gone while the other brokers
//! are there. What is refused as a whole topic (rights, a topic that is gone) counts for all of them.
//!
//! An outcome that nobody knows counts as not written: a duplicate is harmless, a loss is not.

mod backoff;
mod drain;
mod holds;
mod outages;
mod batch_size;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod state_machine;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use drain::Drain;
use futures_util::future::join_all;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
pub use holds::Holds;
use outages::Outages;
use tokio::sync::watch;

use crate::delivery::Deadline;
use crate::failpoints::{self, Failpoint};
use crate::kafka::{Ack, Producer, PublishError};
use crate::observe::health::{Health, PartState};
use crate::observe::metrics::{self, Via};
use crate::record::Record;
use crate::spool::{Spool, StoreError};

/// Where a record is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Acknowledged by all in-sync replicas.
    Published(Ack),
    /// In a row of the spool that was synced to disk.
    Spooled,
}

/// Why a record is not durable.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliverError {
    /// Kafka will never take it.
    #[error("{0}")]
    Refused(PublishError),
    /// Kafka is out, for all we know, and there is no spool.
    #[error("{0}")]
    Kafka(String),
    /// More is on its way to Kafka than we hold, and there is no spool.
    #[error("{0}")]
    Overloaded(String),
    /// Kafka is out and the spool has reached a bound.
    #[error("{0}")]
    SpoolFull(String),
    /// Kafka is out and the spool cannot write.
    #[error("{0}")]
    Spool(String),
}

/// What is left for a record that Kafka refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRefusal {
    /// The pipeline has its delivery's body.
    DeadLetter,
    /// It is a dead letter: only the spool can keep it, for a person if it is refused for good.
    Spool,
}

/// Delivers records.
pub struct Deliverer {
    producer: Arc<Producer>,
    spool: Option<Arc<Spool>>,
    outages: Arc<Outages>,
    health: Arc<Health>,
    /// Counts the records that go to Kafka first: the drain gives way while it rises.
    live: Arc<AtomicU64>,
    /// A full queue is said at most once per second: it comes with many deliveries, and each has
    /// its line.
    said: DefaultDirectRateLimiter,
}

impl Deliverer {
    /// Delivers through `producer`, and to `spool` where there is one.
    pub fn new(producer: Arc<Producer>, spool: Option<Arc<Spool>>, health: Arc<Health>) -> Self {
        let said = RateLimiter::direct(Quota::per_second(NonZeroU32::MIN));
        let outages = Arc::new(Outages::new(health.clone()));
        Self { producer, spool, outages, health, live: Arc::default(), said }
    }

    /// Changes whenever a topic that was out, or a part of one, acknowledges again.
    pub fn recoveries(&self) -> watch::Receiver<()> {
        self.outages.recoveries()
    }

    /// The task that empties the spool, but for what has to wait; `None` without a spool.
    pub fn drain(&self, holds: Arc<dyn Holds>) -> Option<Drain> {
        let spool = self.spool.clone()?;
        let (outages, health) = (self.outages.clone(), self.health.clone());
        Some(Drain::new(self.producer.clone(), spool, outages, health, self.live.clone(), holds))
    }

    /// Resolves when all records of one delivery are durable, or when it is clear that they are not:
    /// acknowledged all, or those that are not in one transaction of the spool. Where all are
    /// acknowledged, the receipt is that of the first.
    ///
    /// Our own timer ends the wait for Kafka, since librdkafka's may report late.
    ///
    /// # Errors
    /// [`Undelivered`]. Some of several may be in their topics by then: the sender's retry, or a replay
    /// of the dead letter, makes them duplicates.
    ///
    /// # Cancellation
    /// Dropping the future recalls neither the records nor the rows.
    pub async fn deliver(
        &self,
        records: Vec<Record>,
        last: OnRefusal,
        deadline: Deadline,
    ) -> Result<Receipt, DeliverError> {
        let results = join_all(records.iter().map(async |record| {
            let at_once = self.spool.is_some() && self.known_out(record);
            if at_once { None } else { Some(self.publish(record, deadline).await) }
        }))
        .await;
        let (mut ack, mut trouble, mut rest) = (None, None, Vec::new());
        for (record, result) in records.into_iter().zip(results) {
            match result {
                Some(Ok(found)) => {
                    ack.get_or_insert(found);
                    continue;
                }
                Some(Err(refused)) if self.is_last_word(&refused, last) => {
                    return Err(DeliverError::Refused(refused));
                }
                Some(Err(other)) => {
                    trouble.get_or_insert(other);
                }
                None => {}
            }
            rest.push(record);
        }
        match (&self.spool, ack, trouble) {
            (_, Some(ack), _) if rest.is_empty() => Ok(Receipt::Published(ack)),
            (Some(spool), ..) if !rest.is_empty() => store(spool, rest, deadline).await,
            (_, _, Some(full @ PublishError::QueueFull)) => Err(DeliverError::Overloaded(full.to_string())),
            (_, _, Some(trouble)) => Err(DeliverError::Kafka(trouble.to_string())),
            _ => Err(DeliverError::Kafka("there is no record to deliver".into())),
        }
    }

    /// Whether the delivery is to be dead-lettered: a limit of the topic may be lifted, but without a spool
    /// nobody keeps the record until then.
    fn is_last_word(&self, trouble: &PublishError, last: OnRefusal) -> bool {
        match (trouble, last) {
            (PublishError::Refused(_), OnRefusal::DeadLetter) => true,
            (PublishError::Refused(_), OnRefusal::Spool) | (PublishError::Limit(_), _) => {
                self.spool.is_none()
            }
            (PublishError::QueueFull | PublishError::Unavailable { .. }, _) => false,
        }
    }

    fn known_out(&self, record: &Record) -> bool {
        self.health.kafka.state() == PartState::Down
            || self.outages.is_unavailable(record.topic(), || self.producer.partition_of(record))
    }

    async fn publish(&self, record: &Record, deadline: Deadline) -> Result<Ack, PublishError> {
        self.live.fetch_add(1, Ordering::Relaxed);
        let mut result = self.publish_once(record, deadline).await;
        if matches!(result, Err(PublishError::Limit(_))) {
            // It may have been the batch that was too large, whose other records are at their ends now.
            result = self.publish_once(record, deadline).await;
        }
        if matches!(result, Err(PublishError::QueueFull)) && self.said.check().is_ok() {
            tracing::warn!("the producer's queue is full: deliveries turn to the spool, or are answered 503");
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
            Err(trouble) => Err(trouble),
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
