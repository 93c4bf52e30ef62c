//! The one table from Kafka's errors to what they mean for a record.
//!
//! ```text
//! never      the same record can never pass                    dead letter; a row of the spool is parked
//! limit      the topic does not take this record as it is set  spool; the row is tried again by itself
//! again      nothing about record, topic or Kafka              spool, and tried again at once
//! partition  the record's partition is out now                 spool, and so its next ones
//! topic      the whole topic is out now                        likewise
//! cluster    nothing can be published now                      all to the spool
//! ```
//!
//! Rights, clocks and limits can be changed by an operator: none of them is "never". A code that is not
//! in the table is an outage of its partition.

use std::borrow::Cow;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Why a record was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Kafka will never take this record; another try cannot help.
    #[error("Kafka refuses the record for good: {0}")]
    Refused(Cow<'static, str>),
    /// The topic does not take this record as long as it is configured as it is. Others may pass.
    #[error("the topic does not take the record now: {0}")]
    Limit(Cow<'static, str>),
    /// Our own queue for the producer is full: nothing was handed over, and it says nothing about
    /// Kafka or the topic.
    #[error("the producer's queue is full")]
    QueueFull,
    /// Not now, or nobody knows: the record may or may not have been written.
    #[error("{why}")]
    Unavailable {
        /// What else is out.
        reach: Reach,
        /// The cause, and what to do if somebody can do something.
        why: Cow<'static, str>,
    },
}

/// What is out when a record was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing else, for all we know.
    Record,
    /// The partition of the record's key.
    Partition,
    /// All partitions of its topic.
    Topic,
    /// All of Kafka.
    Cluster,
}

/// What a code means.
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

/// Each code that a produce can end in, and what is to be said of it.
const TABLE: &[(Code, ErrorClass, &str)] = &[
    // The broker's own check of the record: its key, its format. No setting of ours or of the topic changes it.
    (Code::InvalidRecord, Never, "the broker finds the record itself invalid"),
    // `max.message.bytes` and `segment.bytes` are the topic's, and a batch may meet them where each of its
    // records alone would not.
    (
        Code::MessageSizeTooLarge,
        Limit,
        "larger than max.message.bytes; `hookstream provision` shows the topic's",
    ),
    (Code::MessageBatchTooLarge, Limit, "larger than segment.bytes of the topic; raise it"),
    // Ours.
    (Code::QueueFull, ErrorClass::QueueFull, ""),
    // Of another record of the batch, or of a producer that is being replaced.
    (Code::InvalidDifferentRecord, AGAIN, "another record of its batch was invalid"),
    (Code::PurgeQueue, AGAIN, "purged from the producer's queue"),
    (Code::PurgeInflight, AGAIN, "purged on its way"),
    (Code::Retry, AGAIN, "to be tried again"),
    (Code::Interrupted, AGAIN, "interrupted"),
    // Rights, clocks, rules of the topic; a topic that is gone may come back.
    (Code::TopicAuthorizationFailed, Out(Topic), "not authorized: grant Write on the topic to our user"),
    (
        Code::InvalidTimestamp,
        Out(Topic),
        "the broker refuses the time: compare the clocks, and message.timestamp.*",
    ),
    (Code::PolicyViolation, Out(Topic), "a policy of the cluster refuses it"),
    (Code::UnknownTopic, Out(Topic), "the topic does not exist"),
    (Code::UnknownTopicOrPartition, Out(Topic), "the topic does not exist, or we may not see it"),
    (Code::UnknownTopicId, Out(Topic), "the topic was deleted"),
    (Code::InvalidTopic, Out(Topic), "the brokers refuse the topic's name"),
    (Code::InvalidRequiredAcks, Out(Topic), "the brokers refuse acks=all"),
    (Code::UnsupportedForMessageFormat, Out(Topic), "the topic's message format is too old"),
    (Code::UnsupportedCompressionType, Out(Topic), "the brokers do not know compression.type"),
    (Code::ThrottlingQuotaExceeded, Out(Topic), "a quota of the cluster is used up"),
    // The partition has no leader that can acknowledge.
    (Code::NotEnoughReplicas, Out(Partition), "fewer replicas in sync than min.insync.replicas"),
    (Code::NotEnoughReplicasAfterAppend, Out(Partition), "fewer replicas in sync than min.insync.replicas"),
    (Code::ISRInsufficient, Out(Partition), "fewer replicas in sync than are asked for"),
    (Code::LeaderNotAvailable, Out(Partition), "the partition has no leader"),
    (Code::NotLeaderForPartition, Out(Partition), "the partition has another leader"),
    (Code::ReplicaNotAvailable, Out(Partition), "a replica is not there"),
    (Code::EligibleLeadersNotAvailable, Out(Partition), "no replica may lead the partition"),
    (Code::FencedLeaderEpoch, Out(Partition), "the partition has a newer leader"),
    (Code::UnknownLeaderEpoch, Out(Partition), "the leader is behind what we know"),
    (Code::UnknownPartition, Out(Partition), "the topic has no such partition"),
    (Code::KafkaStorageError, Out(Partition), "a disk of the leader has failed"),
    (Code::LogDirNotFound, Out(Partition), "a disk of the leader has failed"),
    // Its leader does not answer.
    (Code::MessageTimedOut, Out(Partition), "its leader did not acknowledge in time"),
    (Code::OperationTimedOut, Out(Partition), "its leader did not answer in time"),
    (Code::TimedOutQueue, Out(Partition), "its leader took nothing in time"),
    (Code::RequestTimedOut, Out(Partition), "its replicas did not have it in time"),
    (Code::BrokerTransportFailure, Out(Partition), "the connection to its leader broke"),
    (Code::NetworkException, Out(Partition), "the connection to its leader broke"),
    (Code::BrokerNotAvailable, Out(Partition), "its leader is not there"),
    (Code::UnknownBroker, Out(Partition), "its leader is not known"),
    (Code::Resolve, Out(Partition), "its leader's name does not resolve"),
    (Code::SSL, Out(Partition), "TLS with its leader failed"),
    (Code::BrokerDestroy, Out(Partition), "its leader's connection was closed"),
    (Code::DestroyBroker, Out(Partition), "its leader's connection was closed"),
    // Damaged on the way, or the idempotent producer's count: where it cannot go on, it says so by `Fatal`.
    (Code::InvalidMessage, Out(Partition), "damaged on the way to the broker"),
    (Code::BadMessage, Out(Partition), "the broker's answer cannot be read"),
    (Code::OutOfOrderSequenceNumber, Out(Partition), "the producer lost count"),
    (Code::DuplicateSequenceNumber, Out(Partition), "the producer lost count"),
    (Code::UnknownProducerId, Out(Partition), "the broker has forgotten the producer"),
    (Code::InvalidProducerEpoch, Out(Partition), "the broker has forgotten the producer"),
    // Nothing can be published.
    (Code::Fatal, Out(Cluster), "the producer can do no more"),
    (Code::AllBrokersDown, Out(Cluster), "no broker answers"),
    (
        Code::ClusterAuthorizationFailed,
        Out(Cluster),
        "not authorized: grant IdempotentWrite on the cluster to our user",
    ),
    (Code::Authentication, Out(Cluster), "the brokers refuse our credentials"),
    (Code::SaslAuthenticationFailed, Out(Cluster), "the brokers refuse our credentials"),
    (Code::UnsupportedSASLMechanism, Out(Cluster), "the brokers do not know sasl.mechanism"),
    (Code::IllegalSASLState, Out(Cluster), "the brokers ask for other credentials"),
    (Code::UnsupportedVersion, Out(Cluster), "the brokers are too old, or too new"),
    (Code::UnsupportedFeature, Out(Cluster), "the brokers are too old"),
    (Code::Fenced, Out(Cluster), "the producer was fenced"),
    (Code::ProducerFenced, Out(Cluster), "the producer was fenced"),
    (Code::GaplessGuarantee, Out(Cluster), "the producer can do no more"),
    (Code::State, Out(Cluster), "the producer can do no more"),
    (Code::Inconsistent, Out(Cluster), "the producer can do no more"),
];

impl PublishError {
    /// The partition of the record's key is out, or nobody knows.
    pub fn unanswered(why: &'static str) -> Self {
        Self::Unavailable { reach: Partition, why: why.into() }
    }

    /// What librdkafka says at once, when it is handed the record: too large is there too large for
    /// `message.max.bytes`, which is ours and larger than any record should be.
    pub(super) fn at_once(error: &KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge) => Self::Refused("larger than any record may be".into()),
            _ => Self::from(error),
        }
    }

    /// What it reports later.
    pub(super) fn from(error: &KafkaError) -> Self {
        let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
        let row = TABLE.iter().find(|(listed, ..)| *listed == code);
        let (_, verdict, means) =
            row.copied().unwrap_or((code, Out(Partition), "an error that is not known"));
        let why = || Cow::from(format!("{code:?}: {means}"));
        match verdict {
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

    /// All that librdkafka has; the enum itself cannot be iterated.
    fn all() -> Vec<Code> {
        let codes = (-200..=200).filter_map(|number| RDKafkaRespErr::try_from(number).ok()).map(Code::from);
        codes.filter(|code| !matches!(code, Code::Begin | Code::End | Code::EndAll | Code::NoError)).collect()
    }

    #[test]
    fn k2_every_code_has_its_verdict_and_only_an_invalid_record_is_for_good() {
        let mut listed = 0;
        assert!(all().len() > 150, "{}", all().len());
        for code in all() {
            let trouble = later(code);
            let row = TABLE.iter().find(|(listed, ..)| *listed == code);
            listed += usize::from(row.is_some());
            match row.map(|(_, verdict, _)| *verdict) {
                Some(Never) => assert!(matches!(trouble, PublishError::Refused(_)), "{code:?}"),
                Some(Limit) => assert!(matches!(trouble, PublishError::Limit(_)), "{code:?}"),
                Some(ErrorClass::QueueFull) => assert_eq!(trouble, PublishError::QueueFull, "{code:?}"),
                Some(Out(expected)) => {
                    assert!(
                        matches!(trouble, PublishError::Unavailable { reach, .. } if reach == expected),
                        "{code:?}"
                    );
                }
                None => assert!(
                    matches!(trouble, PublishError::Unavailable { reach: Partition, .. }),
                    "an unknown code is an outage: {code:?}"
                ),
            }
        }
        assert_eq!(listed, TABLE.len(), "each row names a code of its own");
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
    fn k2c_too_large_is_for_good_where_it_is_our_own_bound_and_else_the_topics_limit() {
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
