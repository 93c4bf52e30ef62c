//! The one list of delivery outcomes: reason -> outcome, status, level, text.
//!
//! The labels are a contract: answers, logs, metrics and record headers use them unchanged.

use std::borrow::Cow;
use std::fmt;

use http::StatusCode;
use tracing::Level;

/// The outcome of a delivery, as the sender sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Acknowledged by all in-sync replicas of its topic.
    Published,
    /// Synced to the local spool, from which it is published to its topic later.
    Spooled,
    /// Acknowledged in the source's dead-letter topic: authentic, but unusable as an event.
    DeadLettered,
    /// Not an event, but answered as the provider requires. Nothing is stored.
    Handled,
    /// The sender's fault. Nothing is stored.
    Refused,
    /// The service's fault: nothing is promised, and the sender should retry.
    Unavailable,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Published, Self::Spooled, Self::DeadLettered, Self::Handled, Self::Refused, Self::Unavailable];

    /// The label in answers, logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Spooled => "spooled",
            Self::DeadLettered => "dead_lettered",
            Self::Handled => "handled",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The meaning of a [`Reason`] for the sender and for the service.
#[derive(Clone, Copy, Debug)]
pub struct ReasonInfo {
    pub outcome: Outcome,
    /// The HTTP status of the answer.
    pub status: StatusCode,
    /// The label in answers, logs, metrics and record headers.
    pub label: &'static str,
    /// The level of the delivery's log line.
    pub level: Level,
    /// One sentence that explains the reason to people.
    pub text: &'static str,
}

/// Declares [`Reason`], [`Reason::ALL`] and [`Reason::info`] from one table.
macro_rules! reasons {
    ($($name:ident $label:literal $outcome:ident $status:ident $level:ident $text:literal;)*) => {
        /// Why a delivery was not published.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $(#[doc = $text] $name,)* }

        impl Reason {
            /// Every reason, for tests, docs and metric labels.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason of this label, as answers, metrics and record headers have it.
            pub fn from_label(label: &str) -> Option<Self> {
                Self::ALL.iter().find(|reason| reason.info().label == label).copied()
            }

            /// The reason's entry in the table.
            pub const fn info(self) -> ReasonInfo {
                match self {
                    $(Self::$name => ReasonInfo {
                        outcome: Outcome::$outcome,
                        status: StatusCode::$status,
                        label: $label,
                        level: Level::$level,
                        text: $text,
                    },)*
                }
            }
        }
    };
}

// The service's own faults are 503 and never 4xx: some senders disable a webhook on 4xx. Authentic but unusable
// deliveries are 200: a retry cannot help.
reasons! {
    JsonInvalid        "json_invalid"        DeadLettered OK                       WARN "The body is not strict JSON (RFC 8259) in UTF-8.";
    JsonTooDeep        "json_too_deep"       DeadLettered OK                       WARN "The body nests deeper than the limit.";
    DuplicateKey       "duplicate_key"       DeadLettered OK                       WARN "An object in the body has a duplicate key.";
    IdMissing          "id_missing"          DeadLettered OK                       WARN "The event id, or the key of its type, is missing.";
    IdInvalid          "id_invalid"          DeadLettered OK                       WARN "The event id, or the key of its type, is neither a number nor text of 1 to 1,024 bytes without control characters.";
    TypeMissing        "type_missing"        DeadLettered OK                       WARN "The event type is missing.";
    TypeUnknown        "type_unknown"        DeadLettered OK                       WARN "No topic is configured for the event type.";
    ShapeMismatch      "shape_mismatch"      DeadLettered OK                       WARN "The body does not fit the schema of its event type.";
    Stale              "stale"               DeadLettered OK                       WARN "The signed timestamp is too far from the current time.";
    KafkaRefused       "kafka_refused"       DeadLettered OK                       WARN "Kafka permanently rejects the record.";
    Handshake          "handshake"           Handled      OK                       INFO "The provider checks that the endpoint answers.";
    NoEvents           "no_events"           Handled      OK                       INFO "The delivery's list of events is empty.";
    SignatureMissing   "signature_missing"   Refused      UNAUTHORIZED             WARN "A header that the signature needs is missing.";
    SignatureMalformed "signature_malformed" Refused      UNAUTHORIZED             WARN "A header that the signature needs cannot be read.";
    SignatureMismatch  "signature_mismatch"  Refused      UNAUTHORIZED             WARN "No secret of the source made this signature.";
    SecretExpired      "secret_expired"      Refused      UNAUTHORIZED             WARN "The secret that made this signature is outside its validity period.";
    StaleRejected      "stale_rejected"      Refused      UNAUTHORIZED             WARN "The signed timestamp is too far from the current time.";
    SourceUnknown      "source_unknown"      Refused      NOT_FOUND                INFO "No source of this name is configured.";
    AddressNotAllowed  "address_not_allowed" Refused      FORBIDDEN                WARN "The source does not allow the client's address.";
    MethodNotAllowed   "method_not_allowed"  Refused      METHOD_NOT_ALLOWED       INFO "Deliveries must be sent by POST.";
    BodyIncomplete     "body_incomplete"     Refused      BAD_REQUEST              INFO "The body is incomplete, or its framing or its compression is invalid.";
    BodyTooSlow        "body_too_slow"       Refused      REQUEST_TIMEOUT          WARN "The body did not arrive in time.";
    BodyTooLarge       "body_too_large"      Refused      PAYLOAD_TOO_LARGE        WARN "The body is larger than the limit.";
    EncodingUnsupported "encoding_unsupported" Refused   UNSUPPORTED_MEDIA_TYPE   WARN "The source does not accept the body's content coding.";
    Overloaded         "overloaded"          Unavailable  SERVICE_UNAVAILABLE      WARN "Too many deliveries are in flight.";
    Draining           "draining"            Unavailable  SERVICE_UNAVAILABLE      INFO "The service is shutting down.";
    RateLimited        "rate_limited"        Unavailable  SERVICE_UNAVAILABLE      WARN "The source sends events, or dead letters, faster than its rate limit.";
    AddressLimited     "address_limited"     Unavailable  SERVICE_UNAVAILABLE      WARN "The client's address sends too much that fails verification.";
    KafkaUnavailable   "kafka_unavailable"   Unavailable  SERVICE_UNAVAILABLE      ERROR "Kafka did not acknowledge in time.";
    SpoolFull          "spool_full"          Unavailable  SERVICE_UNAVAILABLE      ERROR "Kafka is unavailable and the spool has reached a limit.";
    SpoolError         "spool_error"         Unavailable  SERVICE_UNAVAILABLE      ERROR "Kafka is unavailable and the spool cannot write.";
    ClockOff           "clock_off"           Unavailable  SERVICE_UNAVAILABLE      ERROR "The service's clock is off, so the signed timestamp looks too far from the current time.";
    SchemaUnknown      "schema_unknown"      Unavailable  SERVICE_UNAVAILABLE      ERROR "The registry has not assigned the schema an id yet, or has lost it.";
}

/// A reason with a detail for the log. The detail never contains a payload or a secret, only places, kinds and
/// counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The reason label, which determines the status.
    pub reason: Reason,
    /// The exact cause and place; for log lines and the dead letter's header, never for the answer.
    pub detail: Option<Cow<'static, str>>,
}

impl Fault {
    /// Creates a fault with a detail.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: Some(detail.into()) }
    }

    /// The same fault, with this detail if it has none.
    pub fn or_detail(self, detail: impl FnOnce() -> String) -> Self {
        Self { detail: self.detail.or_else(|| Some(detail().into())), ..self }
    }

    /// The same fault, with its detail behind the place that it is about.
    pub fn at(self, place: impl fmt::Display) -> Self {
        let detail = match self.detail {
            Some(detail) => format!("{place}: {detail}"),
            None => place.to_string(),
        };
        Self::new(self.reason, detail)
    }
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.info().label)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}
