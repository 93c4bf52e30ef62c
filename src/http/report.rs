//! Logs one line for each delivery when it has ended.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::Level;

use super::client_address::ClientAddress;
use crate::delivery::DeliveryId;
use crate::observe::metrics;
use crate::pipeline::DeliveryResult;
use crate::quota::RateLimit;

/// The result of a delivery, for observers.
pub struct DeliveryReport<'a> {
    pub delivery: DeliveryId,
    pub client: ClientAddress,
    /// The source; `unknown` if no source has this name.
    pub source: &'a str,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The time from the complete head to the end.
    pub took: Duration,
    pub ended: &'a DeliveryResult,
}

/// Called once for each delivery when it has ended; must not block.
pub type DeliveryObserver = Arc<dyn Fn(&DeliveryReport<'_>) + Send + Sync>;

/// Writes the log lines. Unverified deliveries cost their sender nothing, so a flood of them must neither fill the disk
/// nor hide other lines: beyond a limit their lines are left out and counted.
pub fn log() -> DeliveryObserver {
    let limiter = LogLimiter::new();
    Arc::new(move |line| {
        if line.ended.is_verified() {
            write(line, None);
        } else if let Some(left_out) = limiter.take() {
            write(line, Some(left_out).filter(|count| *count > 0));
        }
    })
}

/// The limit of lines about unverified deliveries per second, which is also the burst.
const UNVERIFIED: u32 = 20;

/// Limits the log lines about what anybody can send.
#[derive(Debug)]
pub(super) struct LogLimiter {
    lines: RateLimit,
    left_out: AtomicU64,
}

impl LogLimiter {
    pub(super) fn new() -> Self {
        Self { lines: RateLimit::per_second(UNVERIFIED), left_out: AtomicU64::new(0) }
    }

    /// Returns the number of lines left out before this one; `None` if this one is left out, too.
    pub(super) fn take(&self) -> Option<u64> {
        if !self.lines.take() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            metrics::log_line_limited();
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

fn write(line: &DeliveryReport<'_>, left_out: Option<u64>) {
    let ended = line.ended;
    let fault = ended.result.as_ref().err();
    // Logged only for unverified deliveries: a provider's address would be the same in each line.
    let client = (!ended.is_verified()).then(|| line.client.counted());
    let level = fault.map_or(Level::INFO, |fault| fault.reason.info().level);
    // tracing needs a constant level in each call; the fields are the same.
    macro_rules! write_line {
        ($level:expr) => {
            tracing::event!(
                $level,
                delivery = %line.delivery,
                outcome = ended.outcome().label(),
                source = line.source,
                reason = fault.map(|fault| fault.reason.info().label),
                detail = fault.and_then(|fault| fault.detail.as_deref()),
                r#type = ended.event.as_ref().map(|name| name.event_type.as_str()),
                id = ended.event.as_ref().map(|name| name.id.as_str()),
                events = ended.event.as_ref().and_then(|name| name.events),
                secret = ended.secret().map(|secret| &**secret),
                topic = ended.stored.as_ref().map(|stored| &*stored.topic),
                partition = ended.ack().map(|ack| ack.partition),
                offset = ended.ack().map(|ack| ack.offset),
                client = client.as_ref().map(tracing::field::display::<&IpAddr>),
                ms = line.took.as_millis() as u64,
                left_out,
            )
        };
    }
    match level {
        Level::ERROR => write_line!(Level::ERROR),
        Level::WARN => write_line!(Level::WARN),
        _ => write_line!(Level::INFO),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_types, reason = "parses a log line")]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::envelope::{AnswerBody, HandshakeAnswer};
    use crate::outcome::{Fault, Reason};

    /// The log after `count` deliveries with this result.
    fn logged(ended: &DeliveryResult, count: usize) -> Vec<serde_json::Value> {
        #[derive(Clone, Default)]
        struct LogBuffer(Arc<std::sync::Mutex<Vec<u8>>>);
        impl std::io::Write for LogBuffer {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (written, watch) = (LogBuffer::default(), log());
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer({
            let written = written.clone();
            move || written.clone()
        });
        tracing::subscriber::with_default(subscriber.finish(), || {
            let address = "192.0.2.1".parse().unwrap();
            let client = ClientAddress { address: Some(address), peer: address };
            for _ in 0..count {
                let delivery = DeliveryId::new();
                watch(&DeliveryReport {
                    delivery,
                    client,
                    source: "s",
                    status: 200,
                    took: Duration::ZERO,
                    ended,
                });
            }
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn b4_lines_of_unverified_deliveries_are_limited_and_only_they_name_the_client() {
        let reasons = Reason::ALL.iter().map(|reason| DeliveryResult::from(Fault::from(*reason)));
        let text = || Some(AnswerBody::Text("1158201444".to_owned()));
        let handshake = || DeliveryResult::handshake(HandshakeAnswer { body: text(), headers: Vec::new() });
        let ends = || reasons.clone().chain([handshake()]);
        for ended in ends() {
            let start = Instant::now();
            let lines = logged(&ended, 100);
            let max = 20 * (2 + start.elapsed().as_secs() as usize);
            assert!((20..=max).contains(&lines.len()), "{ended:?}: {} lines", lines.len());
            assert!(lines.iter().all(|line| line["client"] == "192.0.2.1"), "{ended:?}");
        }
        for ended in ends().map(|ended| ended.signed(crate::verify::proof())) {
            let lines = logged(&ended, 100);
            assert_eq!(lines.len(), 100, "{ended:?}");
            assert!(lines.iter().all(|line| line.get("client").is_none()), "{ended:?}");
            assert!(lines.iter().all(|line| line["secret"] == "secret-0"), "{ended:?}");
        }
    }

    #[test]
    fn a_flood_is_reduced_to_a_few_lines_and_a_count() {
        let limiter = LogLimiter::new();
        let mut written = 0;
        let mut sent = 0_u64;
        // Until a line is written again after some were left out, which takes tens of milliseconds.
        let until = Instant::now() + Duration::from_secs(10);
        let left_out = loop {
            assert!(Instant::now() < until, "none of {sent} was left out and then counted");
            sent += 1;
            match limiter.take() {
                Some(left_out @ 1..) => break left_out,
                Some(0) => written += 1,
                None => {}
            }
        };
        assert!(written >= u64::from(UNVERIFIED), "{written}");
        assert_eq!(written + left_out + 1, sent);
    }
}
