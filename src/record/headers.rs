//! The names of record headers, for the code that writes records and the code that reads them. They are a contract:
//! docs/topics.md lists them.

/// The version of CloudEvents.
pub const CE_SPECVERSION: &str = "ce_specversion";
/// The event id.
pub const CE_ID: &str = "ce_id";
/// `/hooks/` and the source's name.
pub const CE_SOURCE: &str = "ce_source";
/// The event type.
pub const CE_TYPE: &str = "ce_type";
/// When the event happened, if the provider says so.
pub const CE_TIME: &str = "ce_time";
/// [`AVRO`], for an event's record.
pub const CONTENT_TYPE: &str = "content-type";
/// The value of [`CONTENT_TYPE`].
pub const AVRO: &str = "application/avro";

/// The sender's trace context, or that of the span that published the record.
pub const TRACEPARENT: &str = "traceparent";
/// The delivery's id, which the log line and the answer have too.
pub const DELIVERY_ID: &str = "hookstream-delivery-id";
/// When the delivery was received.
pub const RECEIVED_AT: &str = "hookstream-received-at";
/// The name of the secret that signed the delivery.
pub const SECRET: &str = "hookstream-secret";
/// The fields that the signature does not cover.
pub const UNSIGNED: &str = "hookstream-unsigned";
/// The dead letter that a replayed record was made from.
pub const REPLAYED: &str = "hookstream-replayed";

/// The reason of a dead letter.
pub const REASON: &str = "hookstream-reason";
/// The detail of that reason.
pub const DETAIL: &str = "hookstream-detail";
/// The topic that a dead letter's event would have gone to.
pub const ORIGINAL_TOPIC: &str = "hookstream-original-topic";
/// The form of a dead letter's body that was signed.
pub const FORM: &str = "hookstream-form";
/// The seal of a dead letter.
pub const SEAL: &str = "hookstream-seal";
