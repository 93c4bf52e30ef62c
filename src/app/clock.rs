//! Whether our wall clock is right, as far as others tell.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::observe::clock::Reference;
use crate::observe::health::Health;
use crate::observe::metrics;

/// Between two looks, for metrics and readiness.
const LOOK: Duration = Duration::from_secs(1);

/// Tells metrics and readiness whether our clock is right.
pub(super) async fn watch(health: Arc<Health>) {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        let now = Timestamp::now();
        let (state, why) = health.clocks.judge(now);
        health.clock.set(state, why);
        for reference in Reference::ALL {
            metrics::clock(reference.label(), health.clocks.ahead(reference, now));
        }
    }
}

/// When a file of the directory was written last: by an earlier run, whose clock may have been right where ours
/// is not any more, as after a power cut.
pub(super) fn newest(dir: &Path) -> Option<Timestamp> {
    let files = std::fs::read_dir(dir).ok()?;
    let written =
        files.filter_map(|file| Timestamp::try_from(file.ok()?.metadata().ok()?.modified().ok()?).ok());
    written.max()
}
