//! The last reason that librdkafka gave for a broken connection. Its calls end with a time-out that says nothing; only
//! this reason tells a wrong password from a broker that is down.

use std::sync::{Mutex, PoisonError};

use rdkafka::error::RDKafkaErrorCode as Code;

/// The last reason of one client, for error messages.
#[derive(Default)]
pub(super) struct LastError(Mutex<Option<(Code, String)>>);

impl LastError {
    pub(super) fn record(&self, code: Code, reason: &str) {
        if code == Code::PartitionEOF {
            return;
        }
        // The previous error says more about the cause than "all brokers are down".
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = match last.take() {
            Some((_, reason)) if code == Code::AllBrokersDown => reason,
            // The part after this counts repetitions.
            _ => reason.split(" (after ").next().unwrap_or_default().to_owned(),
        };
        *last = Some((code, reason));
    }

    /// Call this after a broker has answered.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether another attempt would only repeat the error.
    pub(super) fn is_hopeless(&self) -> bool {
        let hopeless = [Code::AllBrokersDown, Code::Authentication, Code::Resolve, Code::SSL];
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().is_some_and(|(code, _)| hopeless.contains(code))
    }

    /// `: reason`, or an empty string.
    pub(super) fn text(&self) -> String {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|(_, reason)| format!(": {reason}")).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k3_the_cause_outlives_the_summary_that_all_brokers_are_down() {
        let last = LastError::default();
        assert!(!last.is_hopeless() && last.text().is_empty());
        last.record(Code::Authentication, "SASL authentication error: wrong (after 3ms in state AUTH_REQ)");
        last.record(Code::AllBrokersDown, "1/1 brokers are down");
        last.record(Code::PartitionEOF, "end");
        assert!(last.is_hopeless());
        assert_eq!(last.text(), ": SASL authentication error: wrong");
        last.forget();
        assert!(!last.is_hopeless() && last.text().is_empty());
    }
}
