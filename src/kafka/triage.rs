//! The one table from Kafka's errors to what they mean for a record.

use std::borrow::Cow;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Why a record was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Kafka will never take this record; another try cannot help.
    #[error("Kafka refuses the record: {0:?}")]
    Refused(Code),
    /// Our own queue for the producer is full: nothing was handed over, and it says nothing about
    /// Kafka or the topic.
    #[error("the producer's queue is full")]
    QueueFull,
    /// Not now, or nobody knows: the record may or may not have been written.
    #[error("{0}")]
    Unavailable(Cow<'static, str>),
}

impl Trouble {
    pub(super) fn from(error: &KafkaError) -> Self {
        let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
        match code {
            // About this record or its topic's rules.
            Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidTimestamp
            | Code::InvalidRecord
            | Code::PolicyViolation
            | Code::TopicAuthorizationFailed => Self::Refused(code),
            Code::QueueFull => Self::QueueFull,
            // A missing topic belongs here: it looks like an outage and may come back.
            _ => Self::Unavailable(format!("Kafka did not acknowledge: {code:?}").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_neither_an_outage_nor_a_refusal() {
        let trouble = |code| Trouble::from(&KafkaError::MessageProduction(code));
        assert_eq!(trouble(Code::QueueFull), Trouble::QueueFull);
        assert_eq!(trouble(Code::MessageSizeTooLarge), Trouble::Refused(Code::MessageSizeTooLarge));
        for outage in [Code::UnknownTopic, Code::MessageTimedOut, Code::PurgeQueue, Code::Fatal] {
            assert!(matches!(trouble(outage), Trouble::Unavailable(_)), "{outage:?}");
        }
    }
}
