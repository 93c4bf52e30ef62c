//! The one table from Kafka's errors to what they mean for a record.

use std::borrow::Cow;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Why a record was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Kafka will never take this record; another try cannot help.
    #[error("Kafka refuses the record: {0:?}")]
    Refused(Code),
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
            // A missing topic belongs here: it looks like an outage and may come back.
            _ => Self::Unavailable(format!("Kafka did not acknowledge: {code:?}").into()),
        }
    }
}
