//! Series that are made anew as a whole, so that none is left of what no longer exists: the `metrics` crate cannot
//! remove a series from a recorder.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// A recorder of its own.
pub(super) struct Snapshot(PrometheusRecorder);

impl Snapshot {
    /// No series.
    pub(super) fn empty() -> Self {
        let snapshot = Self(PrometheusBuilder::new().build_recorder());
        snapshot.record(super::describe);
        snapshot
    }

    /// Records what `set` sets.
    pub(super) fn record(&self, set: impl FnOnce()) {
        ::metrics::with_local_recorder(&self.0, set);
    }

    /// Renders the series, also after the snapshot is dropped.
    pub(super) fn handle(&self) -> PrometheusHandle {
        self.0.handle()
    }
}
