//! Declares every metric once. docs/metrics.md is generated from the table.

pub mod lag;
pub mod scrape;
mod snapshot;

use std::sync::OnceLock;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::outcome::{Outcome, Reason};

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only increases; starts at 0 with the process.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// Counts by bucket, with total count and sum.
    Histogram,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name, with its unit at the end as Prometheus recommends.
    pub name: &'static str,
    pub kind: MetricKind,
    /// The names of its labels. Their values are bounded: by the configuration, by the list of reasons, by the
    /// cluster's size, or as the help text describes.
    pub labels: &'static [&'static str],
    /// One or two sentences, shown as `# HELP` and in docs/metrics.md.
    pub help: &'static str,
}

/// Declares, from one table, a constant with the name of each metric, and [`ALL`].
macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(const $constant: &str = $name;)*

        /// Every metric of the service.
        pub const ALL: &[Metric] = &[
            $(Metric { name: $name, kind: MetricKind::$kind, labels: &[$($label),*], help: $help },)*
        ];
    };
}

metrics! {
    DELIVERIES    Counter   "hookstream_deliveries_total" ["source", "outcome", "reason"]
        "Deliveries by outcome; the reason is empty for published ones. Requests that name no configured source count as source `unknown`.";
    DURATION      Histogram "hookstream_delivery_duration_seconds" ["source", "outcome"]
        "From the complete request head to the end of the delivery.";
    IN_FLIGHT     Gauge     "hookstream_in_flight" []
        "Deliveries between their complete body and their end.";
    LAST_ACCEPTED Gauge     "hookstream_last_accepted_timestamp_seconds" ["source"]
        "When the last delivery that was kept (published, spooled or dead-lettered) ended, in seconds since 1970; NaN if there was none.";
    RECORDS       Counter   "hookstream_records_total" ["topic", "via"]
        "Records that Kafka acknowledged, dead letters included: `direct`, or from the `spool`.";
    SECRET_MATCHES Counter  "hookstream_secret_matches_total" ["source", "secret"]
        "Verified deliveries by the name of the secret that signed them, from 0 on.";
    SECRET_LAST   Gauge     "hookstream_secret_last_match_timestamp_seconds" ["source", "secret"]
        "When the last of them was received, in seconds since 1970; NaN if there was none. A removed secret keeps its row until a restart.";
    SECRET_END    Gauge     "hookstream_secret_not_after_timestamp_seconds" ["source", "secret"]
        "When the secret expires, in seconds since 1970; only for secrets in force that have `not_after`.";
    MISFITS       Counter   "hookstream_misfits_total" ["source", "type"]
        "Values that did not fit their field, which is null; they are in additional_fields.";
    DRIFT         Counter   "hookstream_drift_total" ["source", "type", "pointer"]
        "Members without a field in the schema, kept in additional_fields, by their JSON pointer: `*` for indexes and map keys, `other` beyond 50 pointers of a type.";
    FAILING       Gauge     "hookstream_topic_failing" ["topic", "what"]
        "What Kafka does not accept of a topic now: 1 for the whole `topic`, the number of its `partitions`, the number of spool `rows` that exceed the topic's limits, the number of rows `held` because it is compacted. Exists from its first failure on.";
    READINESS     Gauge     "hookstream_readiness" ["part", "state"]
        "1 for the state of each part of `/readyz`, else 0: `ok`, `unknown`, `degraded` or `down`.";
    KAFKA_UP      Gauge     "hookstream_kafka_up" []
        "1 while a broker answers, else 0.";
    QUEUE_RECORDS Gauge     "hookstream_kafka_queue_records" []
        "Records in the producer that wait for their acknowledgement, once a second.";
    QUEUE_BYTES   Gauge     "hookstream_kafka_queue_bytes" []
        "Bytes of those records.";
    ROUND_TRIP    Gauge     "hookstream_kafka_round_trip_seconds" ["broker"]
        "99 of 100 requests to the broker in the last second were answered within this time; NaN if there were none.";
    RETRIES       Counter   "hookstream_kafka_retries_total" ["broker"]
        "Requests to the broker that were sent again.";
    ERRORS        Counter   "hookstream_kafka_errors_total" ["broker"]
        "Requests to the broker that failed: in sending, in receiving, or by timeout.";
    SPOOL_ROWS    Gauge     "hookstream_spool_rows" ["state"]
        "Rows in the spool: `live` on their way to Kafka, `parked` for a person. This and the next four exist only with a spool, and are up to two seconds old.";
    SPOOL_BYTES   Gauge     "hookstream_spool_bytes" []
        "Bytes of all rows in the spool: topics, keys, headers, values.";
    SPOOL_OLDEST  Gauge     "hookstream_spool_oldest_timestamp_seconds" []
        "When the oldest live row of the spool was received, in seconds since 1970; NaN if there is none.";
    SPOOL_UP      Gauge     "hookstream_spool_up" []
        "1 while the spool accepts rows; 0 while it is full, cannot be written or is not in its place: `/readyz` says why.";
    SPOOL_DAMAGES Gauge     "hookstream_spool_damage_reports" []
        "Damage reports in the spool's directory: how many acknowledged rows are lost, or that nobody knows. Each stays until a person removes it.";
    CLOCK         Gauge     "hookstream_clock_offset_seconds" ["reference"]
        "Our clock minus another one: `kafka`, as acknowledgements from topics with message.timestamp.type=LogAppendTime show it, or `registry`, by the Date of its answers; NaN while it is unknown.";
    RETENTION     Gauge     "hookstream_topic_retention_seconds" ["topic"]
        "How long Kafka keeps a record of the topic, by retention.ms, read each minute; +Inf if age removes none.";
    LAG           Gauge     "kafka_consumergroup_lag" ["consumergroup", "topic", "partition"]
        "Records between a group's committed offset and the log end, by offsets. A partition whose lag is unknown has no series here, so that sums stay numbers. This and the next five exist only with `[lag] groups`.";
    LAG_SECONDS   Gauge     "kafka_consumergroup_lag_seconds" ["consumergroup", "topic", "partition"]
        "Since the first record that the group has not yet read was written; 0 if there is none, no series if it is unknown.";
    LAG_UNKNOWN   Gauge     "hookstream_lag_unknown" ["consumergroup", "topic", "partition", "cause"]
        "1 for each partition without `kafka_consumergroup_lag`: `uncommitted` if the group has committed nothing although there are records, `past_end` if it has committed past the log end, `gone` if the partition no longer exists, `no_end` if Kafka does not report the log end.";
    LOG_END       Gauge     "kafka_topic_partition_current_offset" ["topic", "partition"]
        "The log end: the offset that the partition's next record gets; no series if it is unknown.";
    LAG_ERRORS    Counter   "hookstream_lag_errors_total" []
        "Lag measurements that failed, wholly or for some groups.";
    LAG_MEASURED  Gauge     "hookstream_lag_measured_timestamp_seconds" []
        "When the lag was last measured, in seconds since 1970; NaN before that.";
    REFUSED       Counter   "hookstream_connections_refused_total" []
        "Connections closed at once because their address already had `http.max_connections_per_address`.";
    LIMITED       Counter   "hookstream_unverified_limited_total" ["cause"]
        "Deliveries rejected before verification, by the limit they exceeded: `address_deliveries`, `address_work` and `address_bytes` of their client's address, `source_work` of their source, `all_bytes` of all bodies, `queue` if no verification slot was free in time.";
    UNVERIFIED    Counter   "hookstream_unverified_work_bytes_total" ["source"]
        "Bytes hashed for deliveries that did not verify; the canonical form counts as the bytes that could be hashed in its time.";
    LOG_LIMITED   Counter   "hookstream_log_lines_limited_total" []
        "Log lines about unverified deliveries that were left out, beyond 20 in a second.";
    CONNECTIONS   Gauge     "hookstream_connections" ["port"]
        "Open connections to the ports `http` and `admin`, once a second.";
    IDLE          Gauge     "hookstream_connections_idle" ["port"]
        "Of these, the ones between two requests or before the first, including unfinished TLS handshakes and heads.";
    MAX_OPEN      Gauge     "hookstream_connections_max" ["port"]
        "Their limit: `http.max_connections`, or what the limit of open files leaves of it.";
    CLOSED        Counter   "hookstream_connections_closed_total" ["port", "cause"]
        "Connections that hookstream closed although they could have continued. To make room for a new one: `unverified`, on which nothing had verified yet, or `idle`. After an answer: `age` or `requests`, at `http.max_connection_age` or `http.max_requests_per_connection`.";
    MALFORMED     Counter   "hookstream_requests_malformed_total" []
        "Requests answered 400 because servers disagree about how to read them: no Host or two, a bare LF, a transfer coding other than `chunked`. Requests that are not HTTP at all are not counted.";
    REJECTED      Counter   "hookstream_connections_rejected_total" ["port", "cause"]
        "Requests that HTTP itself rejects, and connections that end within a request head, so that no delivery is counted. What arrived was another protocol: `tls` on a port without TLS, `proxy_protocol`, `http2`. Answered 400 `malformed` or 431 `head_too_large`. Not answered: `head_timeout`, or `incomplete` if the client closed it.";
    HANDSHAKES    Counter   "hookstream_tls_handshakes_failed_total" []
        "Connections to a TLS port that ended before their handshake was done: clients that do not trust the certificate, plain HTTP, port scans, timeouts.";
    CERTIFICATE   Gauge     "hookstream_tls_not_after_timestamp_seconds" ["port"]
        "When the certificate in use expires, in seconds since 1970, for the ports `http` and `admin`; only if they have TLS.";
    TASKS_FAILED  Gauge     "hookstream_tasks_failed" []
        "Background tasks that ended unasked: until hookstream is restarted, or for the minute after they were restarted. `/readyz` names them.";
    LOG_DROPPED   Counter   "hookstream_log_lines_dropped_total" []
        "Log lines that were dropped because their reader was too slow.";
    SPANS         Counter   "hookstream_spans_exported_total" []
        "Spans that the collector of `[traces]` accepted. This and the next exist only with a collector, from their first event on.";
    SPANS_DROPPED Counter   "hookstream_spans_dropped_total" ["cause"]
        "Spans that the collector never got: `queue_full` while it accepts fewer than there are, `export_failed` if it does not answer or refuses them. Deliveries never wait for it.";
    RELOAD        Gauge     "hookstream_config_last_reload_successful" []
        "1 if the configuration that was read last is in force, 0 if it was refused and the old one is still in force.";
    BUILD         Gauge     "hookstream_build_info" ["version"]
        "Always 1; the version is a label.";
}

/// The buckets, from a fast acknowledgement to beyond the default deadline.
const BUCKETS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The label of deliveries to sources that are not configured, so that label values stay bounded.
pub const UNKNOWN_SOURCE: &str = "unknown";

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder, once per process.
pub fn init() {
    HANDLE.get_or_init(|| {
        let builder =
            PrometheusBuilder::new().set_buckets_for_metric(Matcher::Full(DURATION.into()), &BUCKETS);
        let handle = builder.ok()?.install_recorder().ok()?;
        describe();
        metrics::gauge!(RELOAD).set(1.0);
        metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Some(handle)
    });
}

/// Sets the help texts in the current recorder.
fn describe() {
    for &Metric { name, kind, help, .. } in ALL {
        match kind {
            MetricKind::Counter => metrics::describe_counter!(name, help),
            MetricKind::Gauge => metrics::describe_gauge!(name, help),
            MetricKind::Histogram => metrics::describe_histogram!(name, help),
        }
    }
}

/// The metrics of a source's deliveries. Those of published deliveries, the most frequent, are looked up once.
pub struct DeliveryMeter {
    source: String,
    published: EndMeter,
}

struct EndMeter {
    count: metrics::Counter,
    duration: metrics::Histogram,
}

impl DeliveryMeter {
    /// Creates the meter of the named source. Before [`init`], its metrics are not exported.
    pub fn new(source: &str) -> Self {
        Self { source: source.to_owned(), published: EndMeter::new(source, Outcome::Published, None) }
    }

    /// Counts a completed delivery.
    pub fn count(&self, outcome: Outcome, reason: Option<Reason>, took: Duration) {
        match (outcome, reason) {
            (Outcome::Published, None) => self.published.count(took),
            _ => EndMeter::new(&self.source, outcome, reason).count(took),
        }
    }
}

impl EndMeter {
    fn new(source: &str, outcome: Outcome, reason: Option<Reason>) -> Self {
        let (source, outcome) = (source.to_owned(), outcome.label());
        let reason = reason.map_or("", |reason| reason.info().label);
        Self {
            duration: metrics::histogram!(DURATION, "source" => source.clone(), "outcome" => outcome),
            count: metrics::counter!(DELIVERIES, "source" => source, "outcome" => outcome, "reason" => reason),
        }
    }

    fn count(&self, took: Duration) {
        self.count.increment(1);
        self.duration.record(took.as_secs_f64());
    }
}

/// Counts a completed delivery that named no configured source.
pub fn unknown_source(outcome: Outcome, reason: Option<Reason>, took: Duration) {
    EndMeter::new(UNKNOWN_SOURCE, outcome, reason).count(took);
}

/// The gauge of a source's last accepted delivery; NaN until there is one.
pub fn last_accepted(source: &str) -> metrics::Gauge {
    let gauge = metrics::gauge!(LAST_ACCEPTED, "source" => source.to_owned());
    gauge.set(f64::NAN);
    gauge
}

/// The path of a record into its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Published while its delivery waited for the answer.
    Direct,
    /// Published later, from the spool.
    Spool,
}

/// Counts a record that Kafka has acknowledged. `topic` is a topic of the configuration.
pub fn record(topic: &str, via: Via) {
    let via = match via {
        Via::Direct => "direct",
        Via::Spool => "spool",
    };
    metrics::counter!(RECORDS, "topic" => topic.to_owned(), "via" => via).increment(1);
}

/// The failures of one topic.
#[derive(Clone, Copy, Debug)]
pub struct Failing<'a> {
    /// A topic of the configuration or of a spool row.
    pub topic: &'a str,
    /// Whether the complete topic is unavailable.
    pub whole: bool,
    /// The number of unavailable partitions.
    pub partitions: usize,
    /// The number of spool rows that the topic's configuration refuses.
    pub rows: usize,
    /// The number of spool rows held back because of the topic's configuration.
    pub held: u64,
}

/// Sets the gauges of a topic's failures; all zero when it has recovered.
pub fn failing(Failing { topic, whole, partitions, rows, held }: Failing<'_>) {
    let counts = [
        ("topic", u64::from(whole)),
        ("partitions", partitions as u64),
        ("rows", rows as u64),
        ("held", held),
    ];
    for (what, value) in counts {
        metrics::gauge!(FAILING, "topic" => topic.to_owned(), "what" => what).set(value as f64);
    }
}

/// The producer's queue, from its statistics every second.
#[derive(Clone, Copy, Debug)]
pub struct ProducerQueue {
    /// Records that await acknowledgement.
    pub records: u64,
    pub bytes: u64,
}

/// The producer's statistics of one broker. Counts start when the producer is created. A new producer replaces
/// it only after a fatal error; the exported counters then pause until the new counts exceed them.
#[derive(Clone, Copy, Debug)]
pub struct Broker {
    pub id: i32,
    /// The 99th percentile of the last second; `None` if there were no requests.
    pub round_trip: Option<Duration>,
    /// Retried requests.
    pub retries: u64,
    /// Failed requests.
    pub errors: u64,
}

/// Sets the gauges of the producer's queue.
pub fn queue(ProducerQueue { records, bytes }: ProducerQueue) {
    metrics::gauge!(QUEUE_RECORDS).set(records as f64);
    metrics::gauge!(QUEUE_BYTES).set(bytes as f64);
}

/// Sets the metrics of a broker.
pub fn broker(broker: Broker) {
    let labels = [("broker", broker.id.to_string())];
    let round_trip = broker.round_trip.map_or(f64::NAN, |time| time.as_secs_f64());
    metrics::gauge!(ROUND_TRIP, &labels).set(round_trip);
    metrics::counter!(RETRIES, &labels).absolute(broker.retries);
    metrics::counter!(ERRORS, &labels).absolute(broker.errors);
}

/// Counts values that did not fit their fields. `event_type` is one of the source's `types`, so the label's
/// values are bounded.
pub fn misfits(source: &str, event_type: &str, count: usize) {
    let labels = [("source", source.to_owned()), ("type", event_type.to_owned())];
    metrics::counter!(MISFITS, &labels).increment(count as u64);
}

/// Registers the counter of members at one pointer. `event_type` is one of the source's `types`; the caller
/// bounds the pointers.
pub fn drift(source: &str, event_type: &str, pointer: &str) -> metrics::Counter {
    let labels =
        [("source", source.to_owned()), ("type", event_type.to_owned()), ("pointer", pointer.to_owned())];
    metrics::counter!(DRIFT, &labels)
}

/// Sets the gauges of the spool; without a spool these metrics are absent. `oldest_ms` is the time of receipt
/// of the oldest live row, in milliseconds since 1970.
pub fn spool(live: u64, parked: u64, bytes: u64, oldest_ms: Option<i64>) {
    metrics::gauge!(SPOOL_ROWS, "state" => "live").set(live as f64);
    metrics::gauge!(SPOOL_ROWS, "state" => "parked").set(parked as f64);
    metrics::gauge!(SPOOL_BYTES).set(bytes as f64);
    // A zero would fire every alert on its age; comparisons with NaN are false.
    metrics::gauge!(SPOOL_OLDEST).set(oldest_ms.map_or(f64::NAN, |ms| ms as f64 / 1000.0));
}

/// Sets whether the spool accepts rows, and how many damage reports wait for a person.
pub fn spool_health(up: bool, reports: usize) {
    metrics::gauge!(SPOOL_UP).set(f64::from(u8::from(up)));
    metrics::gauge!(SPOOL_DAMAGES).set(reports as f64);
}

/// Sets how far the local clock is ahead of the `reference` clock.
pub fn clock(reference: &'static str, ahead: Option<SignedDuration>) {
    // A zero would look like a correct clock; comparisons with NaN are false.
    let ahead = ahead.map_or(f64::NAN, |ahead| ahead.as_secs_f64());
    metrics::gauge!(CLOCK, "reference" => reference).set(ahead);
}

/// Sets a topic's retention by age; `None` if age removes nothing.
pub fn retention(topic: &str, retention: Option<Duration>) {
    let retention = retention.map_or(f64::INFINITY, |retention| retention.as_secs_f64());
    metrics::gauge!(RETENTION, "topic" => topic.to_owned()).set(retention);
}

/// The metrics of one secret of a source, registered once, so that a delivery only counts. They exist from the
/// start, at zero; those of a removed secret remain until a restart.
pub struct SecretMeter {
    matches: metrics::Counter,
    last: metrics::Gauge,
}

impl SecretMeter {
    /// Registers the metrics of the named secret. Before [`init`], they are not exported.
    pub fn new(source: &str, secret: &str) -> Self {
        let labels = [("source", source.to_owned()), ("secret", secret.to_owned())];
        let last = metrics::gauge!(SECRET_LAST, &labels);
        // A zero would fire every alert on its age; comparisons with NaN are false.
        last.set(f64::NAN);
        Self { matches: metrics::counter!(SECRET_MATCHES, &labels), last }
    }

    /// Counts a delivery. The latest delivery so far was received at `last_ms`, in milliseconds since 1970.
    pub fn matched(&self, last_ms: i64) {
        self.matches.increment(1);
        self.last.set(last_ms as f64 / 1000.0);
    }
}

/// The counter of failed measurements, and the gauge of the last successful one, in seconds since 1970. Both
/// exist from this call on, which should be the start of measuring.
pub fn lag_meters() -> (metrics::Counter, metrics::Gauge) {
    let measured = metrics::gauge!(LAG_MEASURED);
    // A zero would fire every alert on its age; comparisons with NaN are false.
    measured.set(f64::NAN);
    (metrics::counter!(LAG_ERRORS), measured)
}

/// Seconds since 1970, the unit of the gauges.
pub fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

/// Sets whether the configuration that was read last is in effect.
pub fn reload(successful: bool) {
    metrics::gauge!(RELOAD).set(f64::from(u8::from(successful)));
}

/// Counts a connection that was closed immediately.
pub fn connection_refused() {
    metrics::counter!(REFUSED).increment(1);
}

/// The limit that refused a delivery before verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// `http.unverified_rate_per_address`
    AddressDeliveries,
    /// `http.unverified_work_per_address`
    AddressWork,
    /// An address's share of `http.max_body_bytes`.
    AddressBytes,
    /// The source's budget of verification work.
    SourceWork,
    /// `http.max_body_bytes`
    AllBytes,
    /// Waiting for a verification slot.
    Queue,
}

/// Counts a delivery that was refused before verification.
pub fn limited(cause: Limited) {
    let cause = match cause {
        Limited::AddressDeliveries => "address_deliveries",
        Limited::AddressWork => "address_work",
        Limited::AddressBytes => "address_bytes",
        Limited::SourceWork => "source_work",
        Limited::AllBytes => "all_bytes",
        Limited::Queue => "queue",
    };
    metrics::counter!(LIMITED, "cause" => cause).increment(1);
}

/// Counts the verification work for a delivery whose signature did not match.
pub fn unverified_work(source: &str, bytes: u64) {
    metrics::counter!(UNVERIFIED, "source" => source.to_owned()).increment(bytes);
}

/// Counts a log line omitted by the rate limit.
pub fn log_line_limited() {
    metrics::counter!(LOG_LIMITED).increment(1);
}

/// Why hookstream closed a usable connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// To make room for another: nothing had been verified on it.
    Unverified,
    /// To make room for another: it was between two requests.
    Idle,
    /// It reached its maximum age.
    Age,
    /// It reached its maximum number of requests.
    Requests,
}

/// Counts closed connections. `port` is `http` or `admin`, or empty for a connection that is not counted.
pub fn connections_closed(port: &'static str, cause: Closed, count: usize) {
    if count == 0 || port.is_empty() {
        return;
    }
    let cause = match cause {
        Closed::Unverified => "unverified",
        Closed::Idle => "idle",
        Closed::Age => "age",
        Closed::Requests => "requests",
    };
    metrics::counter!(CLOSED, "port" => port, "cause" => cause).increment(count as u64);
}

/// Sets a port's number of connections, how many of them are idle, and its limit.
pub fn connections(port: &'static str, open: usize, idle: usize, max: usize) {
    metrics::gauge!(CONNECTIONS, "port" => port).set(open as f64);
    metrics::gauge!(IDLE, "port" => port).set(idle as f64);
    metrics::gauge!(MAX_OPEN, "port" => port).set(max as f64);
}

/// Sets the number of failed background tasks.
pub fn tasks_failed(count: usize) {
    metrics::gauge!(TASKS_FAILED).set(count as f64);
}

/// Why HTTP rejects a request, or ends a connection within a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// TLS on a port without TLS.
    Tls,
    /// A header of the PROXY protocol, version 1 or 2.
    ProxyProtocol,
    /// HTTP/2 without TLS.
    Http2,
    /// It violates HTTP/1.1: 400.
    Malformed,
    /// The head is too large: 431.
    HeadTooLarge,
    /// The head was not complete in time.
    HeadTimeout,
    /// The client closed the connection within a head.
    Incomplete,
}

impl Rejected {
    /// The label in metrics and log.
    pub fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::ProxyProtocol => "proxy_protocol",
            Self::Http2 => "http2",
            Self::Malformed => "malformed",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::Incomplete => "incomplete",
        }
    }
}

/// Counts a rejected request or connection. `port` is `http` or `admin`, or empty for one that is not counted.
pub fn connection_rejected(port: &'static str, cause: Rejected) {
    if !port.is_empty() {
        metrics::counter!(REJECTED, "port" => port, "cause" => cause.label()).increment(1);
    }
}

/// Counts a request whose framing violates RFC 9112.
pub fn malformed() {
    metrics::counter!(MALFORMED).increment(1);
}

/// Counts a connection whose TLS handshake was not completed.
pub fn handshake_failed() {
    metrics::counter!(HANDSHAKES).increment(1);
}

/// Sets the expiry of the certificate in use. `port` is `http` or `admin`.
pub fn certificate(port: &'static str, not_after: Timestamp) {
    metrics::gauge!(CERTIFICATE, "port" => port).set(seconds(not_after));
}

/// Counts spans that the collector accepted.
pub fn spans_exported(count: usize) {
    metrics::counter!(SPANS).increment(count as u64);
}

/// Why spans did not reach the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    QueueFull,
    ExportFailed,
}

/// Counts spans that the collector will never receive.
pub fn spans_dropped(cause: Dropped, count: usize) {
    let cause = match cause {
        Dropped::QueueFull => "queue_full",
        Dropped::ExportFailed => "export_failed",
    };
    metrics::counter!(SPANS_DROPPED, "cause" => cause).increment(count as u64);
}

/// Sorts new durations into their buckets. Until then each duration is stored, so that without upkeep a service
/// that nobody scrapes would grow by some bytes for each delivery.
pub fn upkeep() {
    if let Some(Some(handle)) = HANDLE.get() {
        handle.run_upkeep();
    }
}
