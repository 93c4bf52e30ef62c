//! The table of Kafka errors and what each means for a record.
//!
//! ```text
//! never      Kafka can never accept this record                dead letter; a spool row is parked
//! ambiguous  Kafka refuses the record, or only its timestamp   spool, or 503; the row is retried automatically
//! limit      the topic's configuration refuses the record      spool; the row is retried automatically
//! again      no fault of the record, the topic or Kafka        spool, and retried at once
//! partition  the record's partition is unavailable             spool, as are its next records
//! topic      the complete topic is unavailable                 likewise
//! cluster    nothing can be published                          all deliveries go to the spool
//! ```
//!
//! Operators can change authorizations, clocks and limits, so none of those errors is "never". A code missing
//! from the table counts as an outage of its partition.

use std::borrow::Cow;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Why a record was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Kafka will never accept this record; retrying cannot help.
    #[error("Kafka refuses the record permanently: {0}")]
    Refused(Cow<'static, str>),
    /// Kafka refuses this record or only its timestamp, and has not accepted a similar timestamp so far. Retrying shows
    /// which, once the clocks agree.
    ///
    /// librdkafka reports `InvalidRecord` for each of several records that the broker refuses in one batch, also if the
    /// broker's own error is `InvalidTimestamp` (librdkafka 2.12, `rdkafka_request.c`, record errors).
    #[error("Kafka refuses the record or its timestamp: compare the clocks, and message.timestamp.*")]
    Ambiguous,
    /// The topic's current configuration refuses this record. Other records may pass.
    #[error("the topic's configuration refuses the record: {0}")]
    Limit(Cow<'static, str>),
    /// The producer's local queue is full: nothing was handed over, and Kafka and the topic may be healthy.
    #[error("the producer's queue is full")]
    QueueFull,
    /// Temporarily not possible, or unknown: the record may or may not have been written.
    #[error("{why}")]
    Unavailable {
        /// What else is unavailable.
        reach: Reach,
        /// The cause, and what an operator can do about it.
        why: Cow<'static, str>,
    },
}

/// The scope of an outage that kept a record from being acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing else, as far as is known.
    Record,
    /// The partition of the record's key.
    Partition,
    /// All partitions of its topic.
    Topic,
    /// All of Kafka.
    Cluster,
}

/// The class of an error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorClass {
    Never,
    Limit,
    QueueFull,
    Out(Reach),
}

use ErrorClass::{Limit, Never, Out};
use Reach::{Cluster, Partition, Topic};

const AGAIN: ErrorClass = Out(Reach::Record);

/// Each code that a produce request can end with, its class and its description.
const TABLE: &[(Code, ErrorClass, &str)] = &[
    // The broker's own check of the record's key and format. No setting of hookstream or of the topic changes it.
    (Code::InvalidRecord, Never, "the broker considers the record itself invalid"),
    // `max.message.bytes` and `segment.bytes` are topic settings. A batch may exceed them although each of
    // its records would pass alone.
    (
        Code::MessageSizeTooLarge,
        Limit,
        "larger than max.message.bytes; `hookstream provision` shows the topic's value",
    ),
    (Code::MessageBatchTooLarge, Limit, "larger than the topic's segment.bytes; raise it"),
    // The producer's local queue.
    (Code::QueueFull, ErrorClass::QueueFull, ""),
    // Caused by another record of the batch, or by a producer that is being replaced.
    (Code::InvalidDifferentRecord, AGAIN, "another record of its batch is invalid"),
    (Code::PurgeQueue, AGAIN, "purged from the producer's queue"),
    (Code::PurgeInflight, AGAIN, "purged in flight"),
    (Code::Retry, AGAIN, "must be retried"),
    (Code::Interrupted, AGAIN, "interrupted"),
    // Authorizations, clocks and rules of the topic; a deleted topic may be created again.
    (
        Code::TopicAuthorizationFailed,
        Out(Topic),
        "not authorized: grant Write on the topic to hookstream's user",
    ),
    (
        Code::InvalidTimestamp,
        Out(Topic),
        "the broker refuses the timestamp: compare the clocks, and message.timestamp.*",
    ),
    (Code::PolicyViolation, Out(Topic), "a policy of the cluster refuses it"),
    (Code::UnknownTopic, Out(Topic), "the topic does not exist"),
    (
        Code::UnknownTopicOrPartition,
        Out(Topic),
        "the topic does not exist, or hookstream may not describe it",
    ),
    (Code::UnknownTopicId, Out(Topic), "the topic was deleted"),
    (Code::InvalidTopic, Out(Topic), "the brokers refuse the topic's name"),
    (Code::InvalidRequiredAcks, Out(Topic), "the brokers refuse acks=all"),
    (Code::UnsupportedForMessageFormat, Out(Topic), "the topic's message format is too old"),
    (Code::UnsupportedCompressionType, Out(Topic), "the brokers do not know compression.type"),
    (Code::ThrottlingQuotaExceeded, Out(Topic), "a quota of the cluster is exceeded"),
    // The partition has no leader that can acknowledge.
    (Code::NotEnoughReplicas, Out(Partition), "fewer replicas in sync than min.insync.replicas"),
    (Code::NotEnoughReplicasAfterAppend, Out(Partition), "fewer replicas in sync than min.insync.replicas"),
    (Code::ISRInsufficient, Out(Partition), "fewer replicas in sync than required"),
    (Code::LeaderNotAvailable, Out(Partition), "the partition has no leader"),
    (Code::NotLeaderForPartition, Out(Partition), "the partition has another leader"),
    (Code::ReplicaNotAvailable, Out(Partition), "a replica is not available"),
    (Code::EligibleLeadersNotAvailable, Out(Partition), "no replica may lead the partition"),
    (Code::FencedLeaderEpoch, Out(Partition), "the partition has a newer leader"),
    (Code::UnknownLeaderEpoch, Out(Partition), "the leader has older metadata than the producer"),
    (Code::UnknownPartition, Out(Partition), "the topic has no such partition"),
    (Code::KafkaStorageError, Out(Partition), "a disk of the leader has failed"),
    (Code::LogDirNotFound, Out(Partition), "a disk of the leader has failed"),
    // The partition's leader does not answer.
    (Code::MessageTimedOut, Out(Partition), "its leader did not acknowledge in time"),
    (Code::OperationTimedOut, Out(Partition), "its leader did not answer in time"),
    (Code::TimedOutQueue, Out(Partition), "its leader accepted nothing in time"),
    (Code::RequestTimedOut, Out(Partition), "its replicas did not copy it in time"),
    (Code::BrokerTransportFailure, Out(Partition), "the connection to its leader broke"),
    (Code::NetworkException, Out(Partition), "the connection to its leader broke"),
    (Code::BrokerNotAvailable, Out(Partition), "its leader is not available"),
    (Code::UnknownBroker, Out(Partition), "its leader is unknown"),
    (Code::Resolve, Out(Partition), "its leader's name does not resolve"),
    (Code::SSL, Out(Partition), "TLS with its leader failed"),
    (Code::BrokerDestroy, Out(Partition), "its leader's connection was closed"),
    (Code::DestroyBroker, Out(Partition), "its leader's connection was closed"),
    // Damaged in transit, or a sequence error of the idempotent producer, which reports `Fatal` if it cannot continue.
    (Code::InvalidMessage, Out(Partition), "damaged in transit to the broker"),
    (Code::BadMessage, Out(Partition), "the broker's answer cannot be read"),
    (Code::OutOfOrderSequenceNumber, Out(Partition), "the producer's sequence numbers are out of order"),
    (Code::DuplicateSequenceNumber, Out(Partition), "the producer's sequence numbers are out of order"),
    (Code::UnknownProducerId, Out(Partition), "the broker has forgotten the producer"),
    (Code::InvalidProducerEpoch, Out(Partition), "the broker has forgotten the producer"),
    // Nothing can be published.
    (Code::Fatal, Out(Cluster), "the producer has failed fatally"),
    (Code::AllBrokersDown, Out(Cluster), "no broker answers"),
    (
        Code::ClusterAuthorizationFailed,
        Out(Cluster),
        "not authorized: grant IdempotentWrite on the cluster to hookstream's user",
    ),
    (Code::Authentication, Out(Cluster), "the brokers refuse hookstream's credentials"),
    (Code::SaslAuthenticationFailed, Out(Cluster), "the brokers refuse hookstream's credentials"),
    (Code::UnsupportedSASLMechanism, Out(Cluster), "the brokers do not know sasl.mechanism"),
    (Code::IllegalSASLState, Out(Cluster), "the brokers require different credentials"),
    (Code::UnsupportedVersion, Out(Cluster), "the brokers are too old, or too new"),
    (Code::UnsupportedFeature, Out(Cluster), "the brokers are too old"),
    (Code::Fenced, Out(Cluster), "the producer was fenced"),
    (Code::ProducerFenced, Out(Cluster), "the producer was fenced"),
    (Code::GaplessGuarantee, Out(Cluster), "the producer has failed fatally"),
    (Code::State, Out(Cluster), "the producer has failed fatally"),
    (Code::Inconsistent, Out(Cluster), "the producer has failed fatally"),
];

impl PublishError {
    /// The partition of the record's key is unavailable, or the outcome is unknown.
    pub fn unanswered(why: &'static str) -> Self {
        Self::Unavailable { reach: Partition, why: why.into() }
    }

    /// The same error if no other record was in the batch: librdkafka then reports the broker's own code.
    pub fn of_a_single_record(self) -> Self {
        match self {
            Self::Ambiguous => Self::from(&KafkaError::MessageProduction(Code::InvalidRecord)),
            other => other,
        }
    }

    /// librdkafka's error on handing over the record. "Too large" then refers to `message.max.bytes`, a
    /// limit that hookstream sets above the size of any record.
    pub(super) fn at_once(error: &KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge) => {
                Self::Refused("larger than the largest possible record".into())
            }
            _ => Self::from(error),
        }
    }

    /// An error that librdkafka reports after it accepted the record.
    pub(super) fn from(error: &KafkaError) -> Self {
        let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
        let row = TABLE.iter().find(|(listed, ..)| *listed == code);
        let (_, class, description) = row.copied().unwrap_or((code, Out(Partition), "an unknown error"));
        let why = || Cow::from(format!("{code:?}: {description}"));
        match class {
            Never => Self::Refused(why()),
            Limit => Self::Limit(why()),
            ErrorClass::QueueFull => Self::QueueFull,
            Out(reach) => Self::Unavailable { reach, why: why() },
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::types::RDKafkaRespErr;

    use super::*;

    fn later(code: Code) -> PublishError {
        PublishError::from(&KafkaError::MessageProduction(code))
    }

    /// All codes of librdkafka; the enum itself cannot be iterated.
    fn all() -> Vec<Code> {
        let codes = (-200..=200).filter_map(|number| RDKafkaRespErr::try_from(number).ok()).map(Code::from);
        codes.filter(|code| !matches!(code, Code::Begin | Code::End | Code::EndAll | Code::NoError)).collect()
    }

    #[test]
    fn k2_every_code_has_its_class_and_only_an_invalid_record_is_permanent() {
        let mut listed = 0;
        assert!(all().len() > 150, "{}", all().len());
        for code in all() {
            let error = later(code);
            let row = TABLE.iter().find(|(listed, ..)| *listed == code);
            listed += usize::from(row.is_some());
            match row.map(|(_, class, _)| *class) {
                Some(Never) => assert!(matches!(error, PublishError::Refused(_)), "{code:?}"),
                Some(Limit) => assert!(matches!(error, PublishError::Limit(_)), "{code:?}"),
                Some(ErrorClass::QueueFull) => assert_eq!(error, PublishError::QueueFull, "{code:?}"),
                Some(Out(expected)) => {
                    assert!(
                        matches!(error, PublishError::Unavailable { reach, .. } if reach == expected),
                        "{code:?}"
                    );
                }
                None => assert!(
                    matches!(error, PublishError::Unavailable { reach: Partition, .. }),
                    "an unknown code is an outage: {code:?}"
                ),
            }
        }
        assert_eq!(listed, TABLE.len(), "each row has a code of its own");
        let never: Vec<Code> =
            all().into_iter().filter(|code| matches!(later(*code), PublishError::Refused(_))).collect();
        assert_eq!(never, [Code::InvalidRecord]);
    }

    #[test]
    fn k2_rights_clocks_limits_and_missing_topics_are_an_outage_of_the_topic() {
        for code in [
            Code::TopicAuthorizationFailed,
            Code::InvalidTimestamp,
            Code::PolicyViolation,
            Code::UnknownTopic,
            Code::UnknownTopicOrPartition,
        ] {
            assert!(matches!(later(code), PublishError::Unavailable { reach: Topic, .. }), "{code:?}");
        }
        for code in [Code::NotEnoughReplicas, Code::NotLeaderForPartition, Code::MessageTimedOut] {
            assert!(matches!(later(code), PublishError::Unavailable { reach: Partition, .. }), "{code:?}");
        }
        for code in [Code::ClusterAuthorizationFailed, Code::SaslAuthenticationFailed, Code::Fatal] {
            assert!(matches!(later(code), PublishError::Unavailable { reach: Cluster, .. }), "{code:?}");
        }
    }

    #[test]
    fn k2c_too_large_is_permanent_for_the_local_limit_and_else_the_topics_limit() {
        let error = KafkaError::MessageProduction(Code::MessageSizeTooLarge);
        assert!(matches!(PublishError::at_once(&error), PublishError::Refused(_)));
        assert!(matches!(PublishError::from(&error), PublishError::Limit(_)));
        let denied = KafkaError::MessageProduction(Code::TopicAuthorizationFailed);
        assert_eq!(PublishError::at_once(&denied), PublishError::from(&denied));
    }

    #[test]
    fn a_full_queue_is_neither_an_outage_nor_a_refusal() {
        assert_eq!(later(Code::QueueFull), PublishError::QueueFull);
    }
}
