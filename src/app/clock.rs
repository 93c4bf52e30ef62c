//! Compares this machine's clock with the reference clocks: Kafka's and the registry's.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::observe::clock::Reference;
use crate::observe::health::{Health, PartState};
use crate::observe::metrics;

/// Between two updates of metrics and readiness.
const INTERVAL: Duration = Duration::from_secs(1);

/// Reports the clock's offset to the metrics and to readiness.
pub(super) async fn watch(health: Arc<Health>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        let now = Timestamp::now();
        match health.clocks.judge(now) {
            Ok(remark) => health.clock.set(PartState::Ok, remark),
            Err(why) => health.clock.set(PartState::Degraded, why),
        }
        for reference in Reference::ALL {
            metrics::clock(reference.label(), health.clocks.ahead(reference, now));
        }
    }
}

/// The latest modification time of the directory's files. An earlier run wrote them, and its clock may have been right:
/// after a power cut, a machine without a battery for its clock starts in the past.
pub(super) fn newest_file_time(dir: &Path) -> Option<Timestamp> {
    let files = std::fs::read_dir(dir).ok()?;
    let written =
        files.filter_map(|file| Timestamp::try_from(file.ok()?.metadata().ok()?.modified().ok()?).ok());
    written.max()
}
