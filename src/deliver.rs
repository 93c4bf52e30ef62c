//! A finished record's way to durability: Kafka, within the deadline.

use std::sync::Arc;

use crate::delivery::Deadline;
use crate::kafka::{Ack, Producer, Trouble};
use crate::record::Record;

/// Why a record is not durable.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// Kafka will never take it.
    #[error("{0}")]
    Refused(Trouble),
    /// Not acknowledged in time, for all we know: it may still be written, as a duplicate.
    #[error("{0}")]
    Unavailable(String),
}

/// Delivers records.
pub struct Deliverer {
    producer: Arc<Producer>,
}

impl Deliverer {
    /// Delivers through `producer`.
    pub fn new(producer: Arc<Producer>) -> Self {
        Self { producer }
    }

    /// Resolves when the record is acknowledged by all in-sync replicas, or when Kafka's share of
    /// the deadline is over: our own timer ends the wait, since librdkafka's may report late.
    ///
    /// # Errors
    /// [`Undelivered`].
    ///
    /// # Cancellation
    /// Dropping the future does not recall the record.
    pub async fn deliver(&self, record: &Record, deadline: Deadline) -> Result<Ack, Undelivered> {
        let ack = self.producer.publish(record).map_err(undelivered)?;
        match tokio::time::timeout_at(deadline.kafka.into(), ack).await {
            Ok(result) => result.map_err(undelivered),
            Err(_) => Err(Undelivered::Unavailable(String::from("no acknowledgement within the deadline"))),
        }
    }
}

fn undelivered(trouble: Trouble) -> Undelivered {
    match trouble {
        Trouble::Refused(_) => Undelivered::Refused(trouble),
        Trouble::Unavailable(_) => Undelivered::Unavailable(trouble.to_string()),
    }
}
