//! A finished record's way to durability: Kafka first, the spool when Kafka is out.
//!
//! ```text
//! topic well        Kafka until its share of the deadline is over, then the spool
//! topic known out   the spool at once; the drain finds out when it is well again
//! no broker at all  the spool at once, whatever the topic
//! our queue full    the spool at once, for this record only: the topic is as well as before
//! refused for good  Undelivered::Refused: the pipeline still holds the body for a dead letter
//! ```
//!
//! An outcome that nobody knows counts as not written: a duplicate is harmless, a loss is not.

mod drain;
mod pace;
#[cfg(test)]
mod tests;
mod topics;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use drain::Drain;
use futures_util::future::join_all;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use topics::Topics;

use crate::delivery::Deadline;
use crate::kafka::{Ack, Producer, Trouble};
use crate::observe::health::{Health, State};
use crate::observe::metrics::{self, Via};
use crate::planted::{self, Bug};
use crate::record::Record;
use crate::spool::{Refused, Spool};

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
pub enum Undelivered {
    /// Kafka will never take it.
    #[error("{0}")]
    Refused(Trouble),
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

/// Delivers records.
pub struct Deliverer {
    producer: Arc<Producer>,
    spool: Option<Arc<Spool>>,
    topics: Arc<Topics>,
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
        Self { producer, spool, topics: Arc::default(), health, live: Arc::default(), said }
    }

    /// The task that empties the spool; `None` without one.
    pub fn drain(&self) -> Option<Drain> {
        let spool = self.spool.clone()?;
        let (topics, health) = (self.topics.clone(), self.health.clone());
        Some(Drain::new(self.producer.clone(), spool, topics, health, self.live.clone()))
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
    pub async fn deliver(&self, records: Vec<Record>, deadline: Deadline) -> Result<Receipt, Undelivered> {
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
                Some(Err(refused @ Trouble::Refused(_))) => return Err(Undelivered::Refused(refused)),
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
            (_, _, Some(full @ Trouble::QueueFull)) => Err(Undelivered::Overloaded(full.to_string())),
            (_, _, Some(Trouble::Unavailable(why))) => Err(Undelivered::Kafka(why.into_owned())),
            _ => Err(Undelivered::Kafka("there is no record to deliver".into())),
        }
    }

    fn known_out(&self, record: &Record) -> bool {
        self.health.kafka.state() == State::Down || self.topics.is_out(record.topic())
    }

    async fn publish(&self, record: &Record, deadline: Deadline) -> Result<Ack, Trouble> {
        self.live.fetch_add(1, Ordering::Relaxed);
        let result = match self.producer.publish(record) {
            Ok(_) if planted::has(Bug::AnswerBeforeAck) => Ok(Ack { partition: 0, offset: 0 }),
            Ok(ack) => match tokio::time::timeout_at(deadline.kafka.into(), ack).await {
                Ok(result) => result,
                Err(_) => Err(Trouble::Unavailable("no acknowledgement within the deadline".into())),
            },
            Err(trouble) => Err(trouble),
        };
        if matches!(result, Err(Trouble::QueueFull)) && self.said.check().is_ok() {
            tracing::warn!("the producer's queue is full: deliveries turn to the spool, or are answered 503");
        }
        if result.is_ok() {
            metrics::record(record.topic(), Via::Direct);
        }
        self.topics.learn(record.topic(), &result);
        result
    }
}

async fn store(spool: &Spool, records: Vec<Record>, deadline: Deadline) -> Result<Receipt, Undelivered> {
    let until = deadline.answer - Deadline::ANSWER;
    match tokio::time::timeout_at(until.into(), spool.store(records)).await {
        Ok(Ok(())) => Ok(Receipt::Spooled),
        Ok(Err(full @ Refused::Full(_))) => Err(Undelivered::SpoolFull(full.to_string())),
        Ok(Err(refused)) => Err(Undelivered::Spool(refused.to_string())),
        Err(_) => Err(Undelivered::Spool("its disk did not sync within the deadline".into())),
    }
}
