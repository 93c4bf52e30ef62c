//! Generates `docs/metrics.md` from the table of metrics, and checks that everything a running service exports is in
//! that table.
//!
//! `HOOKSTREAM_WRITE_DOCS=1 cargo test --test it metrics_page` writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use hookstream::observe::metrics::{ALL, MetricKind};
use tempfile::TempDir;

use crate::support::{Service, Setup, batch, groups, stack, unique, until};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");

const HEAD: &str = "# Metrics

The metrics in `/metrics` on the operator's port. A test makes this page from
[src/observe/metrics.rs](../src/observe/metrics.rs): to change a text, change it there, then
`HOOKSTREAM_WRITE_DOCS=1 cargo test --test it metrics_page`.

Label values are bounded: by the configuration, the list of reasons, the size of the cluster, or as the row says. A metric with
labels appears with its first event, unless its row says otherwise; `hookstream_deliveries_total` and
`hookstream_delivery_duration_seconds` have the outcome `published` of each source from the start, with 0. Times are seconds since
1970, so that `time() - METRIC` is an age; NaN compares as false, and triggers no alert.

| metric | | labels | |
|---|---|---|---|
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for metric in ALL {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(page, "| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help).unwrap();
    }
    page
}

#[test]
fn metrics_page_matches_the_table() {
    if std::env::var_os("HOOKSTREAM_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, page()).unwrap();
    }
    let found = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert_eq!(found, page(), "HOOKSTREAM_WRITE_DOCS=1 cargo test --test it metrics_page writes it");
}

/// The metric's name without a histogram's suffix, and the names of its labels.
fn series(line: &str) -> (String, BTreeSet<String>) {
    let name = line.split(['{', ' ']).next().unwrap();
    let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
    let known =
        |name: &str| ALL.iter().any(|metric| metric.name == name && metric.kind == MetricKind::Histogram);
    let name = histogram.filter(|name| known(name)).unwrap_or(name);
    let inside =
        line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(inside, _)| inside);
    // Label values in the tests contain no quotes or commas.
    let labels = inside
        .split("\",")
        .filter(|one| !one.is_empty())
        .map(|one| one.split_once('=').unwrap().0.to_owned());
    (name.to_owned(), labels.filter(|label| label != "le").collect())
}

/// A service that exports all metrics except those of rare events, and the directory of its spool.
pub async fn exporting() -> (Service, TempDir) {
    let (spool, group) = (tempfile::tempdir().unwrap(), unique("group"));
    let mut setup = Setup::new("datagrid");
    setup.tables = format!(
        "[spool]\ndir = {:?}\nmin_free = \"1 MiB\"\n[lag]\ngroups = [{group:?}]\ninterval = \"1s\"\n",
        spool.path()
    );
    let service = setup.ready().await;
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
    let drifting = r#"{"id":"evt_2","event_type":"batch_prediction.completed","timestamp":1,"data":{"status":7,"new":1}}"#;
    service.datagrid_post(drifting).await.is(200, "published", None);
    let topic = service.topic("batch_prediction.completed");
    groups::commit(&stack("KAFKA"), &group, &[(&topic, 0, 0)]).await;
    (service, spool)
}

#[tokio::test]
async fn metrics_page_lists_all_metrics_that_a_service_exports() {
    let (service, _spool) = exporting().await;
    let wanted: BTreeMap<&str, BTreeSet<String>> = ALL
        .iter()
        .map(|metric| (metric.name, metric.labels.iter().map(|&label| label.to_owned()).collect()))
        .collect();
    let mut seen = BTreeSet::new();
    // The producer and the spool update their metrics once a second.
    until("all metrics", async || {
        let (_, text) = service.admin("/metrics").await;
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (name, labels) = series(line);
            assert_eq!(wanted.get(name.as_str()), Some(&labels), "{line}");
            seen.insert(name);
        }
        // Metrics of events that do not occur in this test.
        let rare = [
            "hookstream_connections_refused_total",
            "hookstream_log_lines_limited_total",
            "hookstream_requests_malformed_total",
            "hookstream_spans_dropped_total",
            "hookstream_spans_exported_total",
            "hookstream_tls_handshakes_failed_total",
            "hookstream_tls_not_after_timestamp_seconds",
            "hookstream_topic_failing",
            "hookstream_unverified_limited_total",
            "hookstream_unverified_work_bytes_total",
        ];
        wanted.keys().all(|name| rare.contains(name) || seen.contains(*name))
    })
    .await;
    let (_, text) = service.admin("/metrics").await;
    let topic = service.topic("batch_prediction.completed");
    assert!(
        text.contains(&format!("hookstream_records_total{{topic=\"{topic}\",via=\"direct\"}} 2\n")),
        "{text}"
    );
    assert!(text.contains("hookstream_kafka_up 1\n") && text.contains("hookstream_in_flight 0\n"), "{text}");
}
