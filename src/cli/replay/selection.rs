//! The selection of dead letters.

use jiff::Timestamp;

use super::Args;
use crate::envelope::{KEY_DIGITS, without_binding};
use crate::kafka::Fetched;
use crate::outcome::Reason;
use crate::record::headers;

/// The conditions that a selected letter meets; without conditions, every letter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selection {
    reasons: Vec<Reason>,
    pub(super) since: Option<Timestamp>,
    until: Option<Timestamp>,
    id: Option<String>,
    pub(super) partition: Option<i32>,
    pub(super) offset: Option<i64>,
}

impl Selection {
    pub(super) fn new(args: &Args) -> Self {
        Self {
            reasons: args.reason.clone(),
            since: args.since,
            until: args.until,
            id: args.id.clone(),
            partition: args.partition,
            offset: args.offset,
        }
    }

    /// Whether the record, which has a selected partition and offset, meets the other conditions.
    pub(super) fn takes(&self, record: &Fetched) -> bool {
        let reason = record.header(headers::REASON);
        let by_reason = || self.reasons.iter().any(|wanted| reason == Some(wanted.info().label));
        // Kafka's timestamp is from another clock, and later if the record waited in the spool.
        let received = record.header(headers::RECEIVED_AT).and_then(|time| time.parse::<Timestamp>().ok());
        let received = received.map(Timestamp::as_millisecond).or(record.timestamp_ms).unwrap_or_default();
        (self.reasons.is_empty() || by_reason())
            && self.since.is_none_or(|since| received >= since.as_millisecond())
            && self.until.is_none_or(|until| received < until.as_millisecond())
            && self.id.as_deref().is_none_or(|id| is(record, id))
    }
}

fn is(record: &Fetched, id: &str) -> bool {
    let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
    let with_digits = |rest: &str| {
        let digits = rest.strip_prefix(':').unwrap_or_default();
        digits.len() == KEY_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let ids = key.into_iter().flat_map(|key| [key, without_binding(key)]);
    let mut rests = ids.filter_map(|key| key.strip_prefix(id));
    rests.any(|rest| rest.is_empty() || with_digits(rest)) || record.header(headers::DELIVERY_ID) == Some(id)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn record(reason: &str, key: &str, timestamp_ms: i64) -> Fetched {
        let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        Fetched {
            topic: "dead_letter.a".into(),
            partition: 0,
            offset: 7,
            timestamp_ms: Some(timestamp_ms),
            key: Some(key.as_bytes().to_vec()),
            headers: vec![header("hookstream-reason", reason), header("hookstream-delivery-id", "0193")],
            value: Some(b"{}".to_vec()),
        }
    }

    #[test]
    fn all_that_is_asked_for_must_hold() {
        let letter = record("type_unknown", "evt_1", 2_000);
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let all = Selection::default();
        assert!(all.takes(&letter));
        let wanted = |reasons: &[Reason]| Selection { reasons: reasons.to_vec(), ..Selection::default() };
        assert!(wanted(&[Reason::JsonInvalid, Reason::TypeUnknown]).takes(&letter));
        assert!(!wanted(&[Reason::JsonInvalid]).takes(&letter));
        for (since, until, taken) in [(2, 3, true), (1, 2, false), (3, 4, false), (0, 9, true)] {
            let choice = Selection { since: at(since), until: at(until), ..Selection::default() };
            assert_eq!(choice.takes(&letter), taken, "{since} {until}");
        }
        let named = |id: &str| Selection { id: Some(id.into()), ..Selection::default() };
        assert!(named("evt_1").takes(&letter) && named("0193").takes(&letter));
        assert!(!named("evt_").takes(&letter) && !named("evt_11").takes(&letter));
        let unsigned = record("type_unknown", "evt_1:0123456789abcdef", 2_000);
        assert!(named("evt_1").takes(&unsigned) && !named("evt").takes(&unsigned));
        for key in ["/tenant_id=acme:evt_1", "/tenant_id=acme:evt_1:0123456789abcdef"] {
            let bound = record("type_unknown", key, 2_000);
            assert!(named("evt_1").takes(&bound) && named(key).takes(&bound), "{key}");
            assert!(!named("evt").takes(&bound) && !named("acme").takes(&bound), "{key}");
        }
    }
}
