//! Every metric, declared once with its help text.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::outcome::{Outcome, Reason};

const DELIVERIES: &str = "hookstream_deliveries_total";
const DURATION: &str = "hookstream_delivery_duration_seconds";
const SPOOL_ROWS: &str = "hookstream_spool_rows";
const SPOOL_BYTES: &str = "hookstream_spool_bytes";
const SPOOL_OLDEST: &str = "hookstream_spool_oldest_timestamp_seconds";
const REFUSED: &str = "hookstream_connections_refused_total";
const SECRET_MATCHES: &str = "hookstream_secret_matches_total";
const SECRET_LAST: &str = "hookstream_secret_last_match_timestamp_seconds";
const MISFITS: &str = "hookstream_misfits_total";
const DRIFT: &str = "hookstream_drift_total";
const LAG: &str = "kafka_consumergroup_lag";
const LAG_SECONDS: &str = "kafka_consumergroup_lag_seconds";
const LOG_END: &str = "kafka_topic_partition_current_offset";
const LAG_ERRORS: &str = "hookstream_lag_errors_total";
const LAG_MEASURED: &str = "hookstream_lag_measured_timestamp_seconds";
const RELOAD: &str = "hookstream_config_last_reload_successful";
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
        metrics::describe_gauge!(SPOOL_ROWS, "Rows in the spool: live on their way to Kafka, parked for a person.");
        metrics::describe_gauge!(
            SPOOL_BYTES,
            metrics::Unit::Bytes,
            "Bytes of all rows in the spool: topics, keys, headers, values."
        );
        metrics::describe_gauge!(
            SPOOL_OLDEST,
            metrics::Unit::Seconds,
            "When the oldest live row of the spool was received, in seconds since 1970; NaN while there is none."
        );
        metrics::describe_counter!(REFUSED, "Connections closed at once: their address had too many open.");
        metrics::describe_counter!(SECRET_MATCHES, "Deliveries that verified, by the name of the secret that signed them.");
        metrics::describe_gauge!(
            SECRET_LAST,
            metrics::Unit::Seconds,
            "When the last of them was received, in seconds since 1970; NaN while there is none."
        );
        metrics::describe_counter!(
            MISFITS,
            "Values kept in additional_fields because they did not fit their field, by source and event type."
        );
        metrics::describe_counter!(
            DRIFT,
            "Members that no field of the schema reads, by their JSON pointer; `other` past 50 pointers of a type."
        );
        describe_lag();
        metrics::describe_gauge!(
            RELOAD,
            "Whether the last attempt to read the configuration again was: 1 taken, 0 refused (the old one stays)."
        );
        metrics::gauge!(RELOAD).set(1.0);
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

/// Counts values that did not fit their fields. `event_type` is one of the source's `types`, so that
/// the label's values are bounded.
pub fn misfits(source: &str, event_type: &str, count: usize) {
    let labels = [("source", source.to_owned()), ("type", event_type.to_owned())];
    metrics::counter!(MISFITS, &labels).increment(count as u64);
}

/// The counter of what stands at one pointer, registered once. `event_type` is one of the source's
/// `types`; the caller bounds the pointers.
pub fn drift(source: &str, event_type: &str, pointer: &str) -> metrics::Counter {
    let labels =
        [("source", source.to_owned()), ("type", event_type.to_owned()), ("pointer", pointer.to_owned())];
    metrics::counter!(DRIFT, &labels)
}

/// How full the spool is; without one, these metrics are absent. `oldest_ms` is the oldest live
/// row's receipt in milliseconds since 1970.
pub fn spool(live: u64, parked: u64, bytes: u64, oldest_ms: Option<i64>) {
    metrics::gauge!(SPOOL_ROWS, "state" => "live").set(live as f64);
    metrics::gauge!(SPOOL_ROWS, "state" => "parked").set(parked as f64);
    metrics::gauge!(SPOOL_BYTES).set(bytes as f64);
    // A zero would make every alarm on its age go off; NaN compares as false.
    metrics::gauge!(SPOOL_OLDEST).set(oldest_ms.map_or(f64::NAN, |ms| ms as f64 / 1000.0));
}

/// The metrics of one secret of a source, registered once, so that a delivery only counts. They are
/// there from the start, at zero; those of a secret that was taken away stay until a restart.
pub struct SecretMeter {
    matches: metrics::Counter,
    last: metrics::Gauge,
}

impl SecretMeter {
    /// That of the secret of this name. Without [`init`] before, one that shows nowhere.
    pub fn new(source: &str, secret: &str) -> Self {
        let labels = [("source", source.to_owned()), ("secret", secret.to_owned())];
        let last = metrics::gauge!(SECRET_LAST, &labels);
        // A zero would make every alarm on its age go off; NaN compares as false.
        last.set(f64::NAN);
        Self { matches: metrics::counter!(SECRET_MATCHES, &labels), last }
    }

    /// Counts a delivery; the last one so far was received at `last_ms`, in milliseconds since 1970.
    pub fn matched(&self, last_ms: i64) {
        self.matches.increment(1);
        self.last.set(last_ms as f64 / 1000.0);
    }
}

/// The first three have the names by which dashboards know them from kafka-exporter.
fn describe_lag() {
    metrics::describe_gauge!(
        LAG,
        "Records between a group's committed offset and the log end, by offsets; NaN while it is not known."
    );
    metrics::describe_gauge!(
        LAG_SECONDS,
        metrics::Unit::Seconds,
        "How long ago the first record that the group has not yet read was written, 0 where none is left; NaN while it is not known."
    );
    metrics::describe_gauge!(
        LOG_END,
        "The log end: the offset that the partition's next record gets; NaN while it is not known."
    );
    metrics::describe_counter!(LAG_ERRORS, "Measurements of the lag that failed, wholly or for some groups.");
    metrics::describe_gauge!(
        LAG_MEASURED,
        metrics::Unit::Seconds,
        "When the lag was last measured, in seconds since 1970; NaN before."
    );
}

/// The gauges of a group's lag on one partition: records, seconds. The caller bounds the groups.
pub fn lag(group: &str, topic: &str, partition: i32) -> [metrics::Gauge; 2] {
    let labels = [
        ("consumergroup", group.to_owned()),
        ("topic", topic.to_owned()),
        ("partition", partition.to_string()),
    ];
    [metrics::gauge!(LAG, &labels), metrics::gauge!(LAG_SECONDS, &labels)]
}

/// The gauge of a partition's log end.
pub fn log_end(topic: &str, partition: i32) -> metrics::Gauge {
    let labels = [("topic", topic.to_owned()), ("partition", partition.to_string())];
    metrics::gauge!(LOG_END, &labels)
}

/// The counter of failed measurements, and when the last one succeeded, in seconds since 1970. There from
/// now on, which is to be the start of measuring.
pub fn lag_meters() -> (metrics::Counter, metrics::Gauge) {
    let measured = metrics::gauge!(LAG_MEASURED);
    // A zero would make every alarm on its age go off; NaN compares as false.
    measured.set(f64::NAN);
    (metrics::counter!(LAG_ERRORS), measured)
}

/// Tells whether the configuration that was read last is in force.
pub fn reload(successful: bool) {
    metrics::gauge!(RELOAD).set(f64::from(u8::from(successful)));
}

/// Counts a connection that was closed at once.
pub fn connection_refused() {
    metrics::counter!(REFUSED).increment(1);
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
