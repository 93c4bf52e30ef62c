//! The one list of what can become of a delivery: reason -> outcome, status, level, text.
//!
//! The labels are a contract: answer, log, metric and record header use them unchanged.

use std::borrow::Cow;
use std::fmt;

use http::StatusCode;
use tracing::Level;

/// How a delivery ended, as the sender sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Acknowledged by all in-sync replicas of its topic.
    Published,
    /// Synced to the local spool, from where it goes on to its topic.
    Spooled,
    /// Acknowledged in the source's dead letters: authentic, but of no use as an event.
    DeadLettered,
    /// No event, but answered as the provider asks: nothing was kept.
    Handled,
    /// The sender's trouble: nothing was kept.
    Refused,
    /// Our trouble: nothing is promised, the sender should try again.
    Unavailable,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Published, Self::Spooled, Self::DeadLettered, Self::Handled, Self::Refused, Self::Unavailable];

    /// The name in answer, log and metric.
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

/// What a [`Reason`] means for the sender and for us.
#[derive(Clone, Copy, Debug)]
pub struct ReasonInfo {
    /// How the delivery ended.
    pub outcome: Outcome,
    /// The answer's status.
    pub status: StatusCode,
    /// The reason's name in answer, log, metric and record header.
    pub label: &'static str,
    /// The level of the delivery's log line.
    pub level: Level,
    /// One sentence for people.
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

// Our trouble is 503 and never 4xx: some senders switch a hook off on 4xx. Authentic but
// unusable is 200: a retry cannot help.
reasons! {
    JsonInvalid        "json_invalid"        DeadLettered OK                       WARN "The body is not strict JSON (RFC 8259) in UTF-8.";
    JsonTooDeep        "json_too_deep"       DeadLettered OK                       WARN "The body nests deeper than the limit.";
    DuplicateKey       "duplicate_key"       DeadLettered OK                       WARN "An object of the body names a key twice.";
    IdMissing          "id_missing"          DeadLettered OK                       WARN "The event id, or the key of its type, is missing.";
    IdInvalid          "id_invalid"          DeadLettered OK                       WARN "The event id, or the key of its type, is no text of 1 to 1,024 bytes without control characters.";
    TypeMissing        "type_missing"        DeadLettered OK                       WARN "The event type is missing.";
    TypeUnknown        "type_unknown"        DeadLettered OK                       WARN "No topic is configured for the event type.";
    ShapeMismatch      "shape_mismatch"      DeadLettered OK                       WARN "The body does not fit the schema of its event type.";
    Stale              "stale"               DeadLettered OK                       WARN "The signed time is too far from now.";
    KafkaRefused       "kafka_refused"       DeadLettered OK                       WARN "Kafka refuses the record for good.";
    Handshake          "handshake"           Handled      OK                       INFO "The provider asks whether somebody is there.";
    SignatureMissing   "signature_missing"   Refused      UNAUTHORIZED             WARN "A header that the signature needs is missing.";
    SignatureMalformed "signature_malformed" Refused      UNAUTHORIZED             WARN "A header that the signature needs cannot be read.";
    SignatureMismatch  "signature_mismatch"  Refused      UNAUTHORIZED             WARN "No secret of the source made this signature.";
    SecretExpired      "secret_expired"      Refused      UNAUTHORIZED             WARN "The secret that made this signature is outside its time.";
    StaleRejected      "stale_rejected"      Refused      UNAUTHORIZED             WARN "The signed time is too far from now.";
    SourceUnknown      "source_unknown"      Refused      NOT_FOUND                INFO "No source of this name is configured.";
    AddressNotAllowed  "address_not_allowed" Refused      FORBIDDEN                WARN "The source is not open to the client's address.";
    MethodNotAllowed   "method_not_allowed"  Refused      METHOD_NOT_ALLOWED       INFO "Deliveries are sent by POST.";
    BodyIncomplete     "body_incomplete"     Refused      BAD_REQUEST              INFO "The body broke off, or its framing is invalid.";
    BodyTooSlow        "body_too_slow"       Refused      REQUEST_TIMEOUT          WARN "The body did not arrive in time.";
    BodyTooLarge       "body_too_large"      Refused      PAYLOAD_TOO_LARGE        WARN "The body is larger than the limit.";
    Overloaded         "overloaded"          Unavailable  SERVICE_UNAVAILABLE      WARN "Too many deliveries are in flight.";
    Draining           "draining"            Unavailable  SERVICE_UNAVAILABLE      INFO "The service is shutting down.";
    RateLimited        "rate_limited"        Unavailable  SERVICE_UNAVAILABLE      WARN "The source sends events, or dead letters, faster than its limit.";
    AddressLimited     "address_limited"     Unavailable  SERVICE_UNAVAILABLE      WARN "The client's address sends too much that does not verify.";
    KafkaUnavailable   "kafka_unavailable"   Unavailable  SERVICE_UNAVAILABLE      ERROR "Kafka did not acknowledge in time.";
    SpoolFull          "spool_full"          Unavailable  SERVICE_UNAVAILABLE      ERROR "Kafka is out and the spool has reached a bound.";
    SpoolError         "spool_error"         Unavailable  SERVICE_UNAVAILABLE      ERROR "Kafka is out and the spool cannot write.";
    ClockOff           "clock_off"           Unavailable  SERVICE_UNAVAILABLE      ERROR "Our clock is off, and by it the signed time is too far from now.";
    SchemaUnknown      "schema_unknown"      Unavailable  SERVICE_UNAVAILABLE      ERROR "The registry has not given the schema an id, or has lost it.";
}

/// A reason with what may be said about it in the log. The detail never holds a payload or a
/// secret: places, kinds and counts only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Why.
    pub reason: Reason,
    /// Where and what exactly; for log lines and the dead letter's header, never for the answer.
    pub detail: Option<Cow<'static, str>>,
}

impl Fault {
    /// A fault with its detail.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: Some(detail.into()) }
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
