//! One line for each delivery, when it has ended.

use std::sync::Arc;
use std::time::Duration;

use tracing::Level;

use crate::delivery::Id;
use crate::pipeline::Ended;

/// What a delivery came to, for those who watch.
pub struct Line<'a> {
    /// The delivery's id.
    pub delivery: Id,
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

/// Writes the log line.
pub fn log(line: &Line<'_>) {
    let ended = line.ended;
    let fault = ended.result.as_ref().err();
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
                ms = line.took.as_millis() as u64,
            )
        };
    }
    match level {
        Level::ERROR => write_line!(Level::ERROR),
        Level::WARN => write_line!(Level::WARN),
        _ => write_line!(Level::INFO),
    }
}
