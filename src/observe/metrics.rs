//! Every metric, declared once with its help text.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::outcome::{Outcome, Reason};

const DELIVERIES: &str = "hookstream_deliveries_total";
const DURATION: &str = "hookstream_delivery_duration_seconds";
const BUILD: &str = "hookstream_build_info";

/// From a fast acknowledgement to past the default deadline.
const BUCKETS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The label of deliveries to a source that is not configured: label values stay bounded.
pub const UNKNOWN_SOURCE: &str = "unknown";

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder, once in a process.
pub fn init() {
    HANDLE.get_or_init(|| {
        let builder =
            PrometheusBuilder::new().set_buckets_for_metric(Matcher::Full(DURATION.into()), &BUCKETS);
        let handle = builder.ok()?.install_recorder().ok()?;
        metrics::describe_counter!(DELIVERIES, "Deliveries by source, outcome and reason.");
        metrics::describe_histogram!(
            DURATION,
            metrics::Unit::Seconds,
            "From the complete request head to the end of the delivery."
        );
        metrics::describe_gauge!(BUILD, "Always 1; the version is a label.");
        metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Some(handle)
    });
}

/// Counts a delivery that has ended.
pub fn delivery(source: &str, outcome: Outcome, reason: Option<Reason>, took: Duration) {
    let source = source.to_owned();
    let reason = reason.map_or("", |reason| reason.row().label);
    metrics::counter!(DELIVERIES, "source" => source.clone(), "outcome" => outcome.label(), "reason" => reason)
        .increment(1);
    metrics::histogram!(DURATION, "source" => source, "outcome" => outcome.label())
        .record(took.as_secs_f64());
}

/// The text of `/metrics`.
pub fn render() -> String {
    match HANDLE.get() {
        Some(Some(handle)) => {
            handle.run_upkeep();
            handle.render()
        }
        _ => String::new(),
    }
}
