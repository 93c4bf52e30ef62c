//! One line for each delivery, when it has ended.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tracing::Level;

use super::callers::Client;
use crate::delivery::Id;
use crate::outcome::{Outcome, Reason};
use crate::pipeline::Ended;

/// What a delivery came to, for those who watch.
pub struct Line<'a> {
    /// The delivery's id.
    pub delivery: Id,
    /// Who sent it.
    pub client: Client,
    /// The source, `unknown` where there is none of that name.
    pub source: &'a str,
    /// The answer's status.
    pub status: u16,
    /// From the complete head to the end.
    pub took: Duration,
    /// All else.
    pub ended: &'a Ended,
}

/// Called once for each delivery, when it has ended; must not block.
pub type Watch = Arc<dyn Fn(&Line<'_>) + Send + Sync>;

/// Writes the log lines. What is not verified costs the sender nothing, so a flood of them must not fill a disk,
/// nor hide the other lines: past a bound they are left out, and counted.
pub fn log() -> Watch {
    let floods = Floods::new();
    Arc::new(move |line| {
        if !is_anybodys(line.ended) {
            write(line, None);
        } else if let Some(left_out) = floods.take() {
            write(line, Some(left_out).filter(|count| *count > 0));
        }
    })
}

/// Whether somebody without a secret can cause it.
fn is_anybodys(ended: &Ended) -> bool {
    let limited = matches!(&ended.result, Err(fault) if fault.reason == Reason::AddressLimited);
    limited || ended.outcome() == Outcome::Refused
}

/// Lines about refusals in a second; as many may come at once.
const REFUSALS: NonZeroU32 = NonZeroU32::new(20).unwrap();

struct Floods {
    lines: DefaultDirectRateLimiter,
    left_out: AtomicU64,
}

impl Floods {
    fn new() -> Self {
        Self { lines: RateLimiter::direct(Quota::per_second(REFUSALS)), left_out: AtomicU64::new(0) }
    }

    /// How many were left out before this line; `None` where it is left out, too.
    fn take(&self) -> Option<u64> {
        if self.lines.check().is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

fn write(line: &Line<'_>, left_out: Option<u64>) {
    let ended = line.ended;
    let fault = ended.result.as_ref().err();
    // The provider's own address would be the same in each line, and is nobody's business in the others.
    let client = is_anybodys(ended).then(|| line.client.counted());
    let level = fault.map_or(Level::INFO, |fault| fault.reason.row().level);
    // tracing wants each line's level fixed where it stands; the fields are the same.
    macro_rules! write_line {
        ($level:expr) => {
            tracing::event!(
                $level,
                delivery = %line.delivery,
                outcome = ended.outcome().label(),
                source = line.source,
                reason = fault.map(|fault| fault.reason.row().label),
                detail = fault.and_then(|fault| fault.detail.as_deref()),
                r#type = ended.event.as_ref().map(|name| name.event_type.as_str()),
                id = ended.event.as_ref().map(|name| name.id.as_str()),
                events = ended.event.as_ref().and_then(|name| name.events),
                secret = ended.secret.as_deref(),
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
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_flood_leaves_a_few_lines_and_their_number() {
        let floods = Floods::new();
        let mut told = 0;
        let mut sent = 0_u64;
        // Until one is written again after some were left out, so some tens of milliseconds.
        let until = Instant::now() + Duration::from_secs(10);
        let left_out = loop {
            assert!(Instant::now() < until, "none of {sent} was left out and then counted");
            sent += 1;
            match floods.take() {
                Some(left_out @ 1..) => break left_out,
                Some(0) => told += 1,
                None => {}
            }
        };
        assert!(told >= u64::from(REFUSALS.get()), "{told}");
        assert_eq!(told + left_out + 1, sent);
    }
}
