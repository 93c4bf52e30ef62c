//! The alert rules and the dashboard use only metrics, labels and fixed label values that the service exports. promtool
//! tests what each rule does, in `deploy/prometheus/alerts_test.yml`.

mod promql;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use hookstream::observe::health::{Health, PartState};
use hookstream::observe::metrics::lag::{GroupPartition, LagSeries, LagSnapshot};
use hookstream::observe::metrics::scrape::{self, Now};
use hookstream::observe::metrics::{ALL, MetricKind};
use hookstream::outcome::{Outcome, Reason};
use serde_json::Value;

use self::promql::{Asked, names};
use crate::metrics_page::exporting;
use crate::support::until;

/// Labels that Prometheus or its service discovery adds to each series of a target.
const TARGET_LABELS: [&str; 3] = ["job", "instance", "namespace"];

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Labels by metric name.
type Known = BTreeMap<String, BTreeSet<String>>;

fn declared() -> Known {
    let mut known = Known::from([(String::from("up"), BTreeSet::new())]);
    let mut put = |name: &str, labels: &[&str], more: &[&str]| {
        let labels = labels.iter().chain(more).map(|&label| label.to_owned());
        known.insert(name.to_owned(), labels.collect());
    };
    for metric in ALL {
        match metric.kind {
            MetricKind::Histogram => {
                put(&format!("{}_bucket", metric.name), metric.labels, &["le"]);
                put(&format!("{}_sum", metric.name), metric.labels, &[]);
                put(&format!("{}_count", metric.name), metric.labels, &[]);
            }
            MetricKind::Counter | MetricKind::Gauge => put(metric.name, metric.labels, &[]),
        }
    }
    known
}

/// The fixed values of a label, if they do not depend on the configuration.
fn fixed_values(metric: &str, label: &str) -> Option<Vec<&'static str>> {
    match label {
        "state" if metric == "hookstream_readiness" => Some(PartState::ALL.map(PartState::label).to_vec()),
        "part" => Some(Health::new().readiness().parts().map(|(part, _)| part).to_vec()),
        "outcome" => Some(Outcome::ALL.map(Outcome::label).to_vec()),
        "reason" => Some(Reason::ALL.iter().map(|reason| reason.info().label).collect()),
        "state" => Some(vec!["live", "parked"]),
        "what" => Some(vec!["topic", "partitions", "rows", "held"]),
        "via" => Some(vec!["direct", "spool"]),
        _ => None,
    }
}

/// Problems of an expression, and of the labels that texts use from its result.
fn problems(expression: &str, shown: &[&str], known: &Known) -> Vec<String> {
    let names = names(expression);
    let (mut problems, mut all, mut result) = (Vec::new(), BTreeSet::from(TARGET_LABELS), BTreeSet::new());
    for Asked { metric, selected, kept } in &names.metrics {
        let Some(labels) = known.get(metric) else {
            problems.push(format!("there is no metric {metric}"));
            continue;
        };
        let has = |label: &str| labels.contains(label) || TARGET_LABELS.contains(&label);
        for label in selected.iter().map(|(label, _)| label).chain(kept) {
            if !has(label) {
                problems.push(format!("{metric} has no label {label}"));
            }
        }
        for (label, text) in selected {
            let Some(values) = fixed_values(metric, label) else { continue };
            let unknown = text.split('|').filter(|word| !values.contains(word));
            problems.extend(unknown.map(|word| format!("{label} is never {word}")));
        }
        all.extend(labels.iter().map(String::as_str));
        if kept.is_empty() {
            result.extend(labels.iter().map(String::as_str).chain(TARGET_LABELS));
        } else {
            result.extend(kept.iter().map(String::as_str));
        }
    }
    let matched = names.matched.iter().filter(|label| !all.contains(label.as_str()));
    problems.extend(matched.map(|label| format!("nothing has the label {label} to match by")));
    let shown = shown.iter().filter(|label| !result.contains(*label));
    problems.extend(shown.map(|label| format!("the result has no label {label} to show")));
    problems
}

/// A rule of alerts.yml.
struct Rule {
    /// The name of the alert or of the recorded series.
    name: String,
    is_alert: bool,
    expression: String,
    /// The lines of the rule.
    text: String,
}

/// Parses the rules. Supports only the form used in this file: `expr` is one line, or a block after `|`.
fn rules() -> Vec<Rule> {
    let file = read("deploy/prometheus/alerts.yml");
    let mut rules: Vec<Rule> = Vec::new();
    let mut in_expression = false;
    for line in file.lines() {
        let (depth, inside) = (line.len() - line.trim_start().len(), line.trim());
        let named = inside.strip_prefix("- alert: ").or_else(|| inside.strip_prefix("- record: "));
        if let Some(name) = named {
            let is_alert = inside.starts_with("- alert");
            rules.push(Rule { name: name.into(), is_alert, expression: String::new(), text: String::new() });
        }
        let Some(rule) = rules.last_mut() else { continue };
        in_expression &= depth > 8;
        if in_expression {
            rule.expression.push_str(&format!("{inside}\n"));
        }
        match inside.strip_prefix("expr: ") {
            Some("|") => in_expression = true,
            Some(expression) => rule.expression = expression.into(),
            None => {}
        }
        rule.text.push_str(&format!("{line}\n"));
    }
    assert!(
        rules.len() > 10 && rules.iter().all(|rule| !rule.expression.is_empty()),
        "alerts.yml is not understood"
    );
    rules
}

/// The metrics that the service exports, and those that the rules record.
fn known_to_rules() -> Known {
    let mut known = declared();
    for rule in rules().iter().filter(|rule| !rule.is_alert) {
        let kept = names(&rule.expression).metrics[0].kept.clone();
        known.insert(rule.name.clone(), kept.into_iter().collect());
    }
    known
}

/// The dashboard's panels without its rows.
fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/hookstream.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().clone();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "duplicate panel id");
    panels.into_iter().filter(|panel| panel["type"] != "row").collect()
}

/// Each panel's title, expression and legend.
fn targets() -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |panel: &Value| {
        let targets = panel["targets"].as_array().unwrap().iter();
        let all: Vec<_> = targets
            .map(|target| (text(&panel["title"]), text(&target["expr"]), text(&target["legendFormat"])))
            .collect();
        assert!(!all.is_empty(), "{panel}");
        all
    };
    panels().iter().flat_map(of).collect()
}

/// The texts between each `start` and the next `end`.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    text.split(start).skip(1).map(|rest| rest.split(end).next().unwrap().trim()).collect()
}

#[test]
fn dashboards_alert_rules_use_only_existing_metrics() {
    let known = known_to_rules();
    let mut all = Vec::new();
    for rule in rules() {
        let shown = between(&rule.text, "$labels.", " ");
        all.extend(
            problems(&rule.expression, &shown, &known)
                .into_iter()
                .map(|text| format!("{}: {text}", rule.name)),
        );
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn dashboards_panels_use_only_existing_metrics() {
    let known = declared();
    let mut all = Vec::new();
    for (title, expression, legend) in targets() {
        let found = problems(&expression, &between(&legend, "{{", "}}"), &known);
        all.extend(found.into_iter().map(|text| format!("{title}: {text}")));
    }
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/hookstream.json")).unwrap();
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if variable["type"] != "query" {
            continue;
        }
        let query = variable["definition"].as_str().unwrap();
        assert_eq!(variable["query"]["query"], query);
        let inside = query.strip_prefix("label_values(").and_then(|text| text.strip_suffix(')')).unwrap();
        let (selector, label) = inside.rsplit_once(", ").unwrap();
        all.extend(problems(selector, &[label], &known));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn dashboards_wrong_names_are_found() {
    let known = known_to_rules();
    let fine = r#"sum by (source) (rate(hookstream_deliveries_total{outcome="refused", source=~"$source"}[5m])) # x
        / on (source) group_left () sum by (source) (hookstream:deliveries:last30m) > 2 * 2^30 or vector(0)"#;
    assert_eq!(problems(fine, &["source"], &known), [""; 0]);
    for (broken, why) in [
        ("hookstream_delivery_total", "there is no metric hookstream_delivery_total"),
        (
            "rate(hookstream_delivery_duration_seconds[5m])",
            "there is no metric hookstream_delivery_duration_seconds",
        ),
        ("time() - max(hookstream_spool_oldest) > 3", "there is no metric hookstream_spool_oldest"),
        (r#"hookstream_in_flight{source="x"}"#, "hookstream_in_flight has no label source"),
        ("sum by (topic) (hookstream_deliveries_total)", "hookstream_deliveries_total has no label topic"),
        (
            "max by (source) (sum by (topic) (hookstream_records_total))",
            "hookstream_records_total has no label source",
        ),
        (
            "sum by (le) (hookstream_delivery_duration_seconds_sum)",
            "hookstream_delivery_duration_seconds_sum has no label le",
        ),
        (
            "hookstream_kafka_up / on (groups) hookstream_in_flight",
            "nothing has the label groups to match by",
        ),
        (r#"hookstream_deliveries_total{outcome=~"published|accepted"}"#, "outcome is never accepted"),
        (r#"hookstream_deliveries_total{reason!="drained"}"#, "reason is never drained"),
        (r#"hookstream_spool_rows{state="dead"}"#, "state is never dead"),
        (r#"hookstream_readiness{state="live"}"#, "state is never live"),
        (r#"hookstream_readiness{part="disk"}"#, "part is never disk"),
    ] {
        assert_eq!(problems(broken, &[], &known), [why], "{broken}");
    }
    let shown = problems("sum by (source) (hookstream_deliveries_total)", &["reason"], &known);
    assert_eq!(shown, ["the result has no label reason to show"]);
}

#[test]
fn dashboards_each_alert_has_a_runbook_section_and_test_cases() {
    let (runbook, cases) = (read("docs/runbook.md"), read("deploy/prometheus/alerts_test.yml"));
    let alerts: Vec<Rule> = rules().into_iter().filter(|rule| rule.is_alert).collect();
    for Rule { name, text, .. } in &alerts {
        let severities = ["critical", "warning", "info"].map(|severity| format!("severity: {severity}\n"));
        assert!(severities.iter().any(|severity| text.contains(severity)), "{name} has no severity");
        assert!(text.contains("summary: ") && text.contains("description: "), "{name}");
        let url = format!("runbook_url: docs/runbook.md#{}\n", name.to_lowercase());
        assert!(text.contains(&url), "{name} needs {url}");
        assert!(runbook.contains(&format!("\n### {name}\n")), "docs/runbook.md has no {name}");
        assert!(cases.contains(&format!("alertname: {name}\n")), "{name} has no test case in which it fires");
        assert!(
            cases.contains(&format!("alertname: {name}, exp_alerts: []}}")),
            "{name} has none in which it does not"
        );
    }
    let headings = between(&runbook, "\n### Hookstream", "\n");
    assert_eq!(headings.len(), alerts.len(), "a heading without an alert: {headings:?}");
}

/// The rules for all parts exclude those with their own alert. `service` is down only during a shutdown.
#[test]
fn dashboards_each_part_of_readiness_has_an_alert() {
    let own = BTreeMap::from([
        ("clock", "HookstreamClockOff"),
        ("connections", "HookstreamConnectionsFull"),
        ("durability", "HookstreamDurabilityWeak"),
        ("kafka", "HookstreamKafkaDown"),
        ("publishing", "HookstreamTopicFailing"),
        ("spool", "HookstreamSpoolDown"),
        ("tasks", "HookstreamTaskFailed"),
    ]);
    let rules = rules();
    let rule =
        |name: &str| rules.iter().find(|rule| rule.name == name).unwrap_or_else(|| panic!("no {name}"));
    for name in ["HookstreamPartDown", "HookstreamPartDegraded"] {
        let expression = &rule(name).expression;
        let left_out = between(expression, "part!~\"", "\"");
        let left_out = left_out.first().unwrap_or_else(|| panic!("{expression}"));
        let without = left_out.split('|').filter(|part| !own.contains_key(part) && *part != "service");
        assert_eq!(without.collect::<Vec<_>>(), [""; 0], "{name} leaves out parts without an alert");
    }
    own.values().for_each(|name| assert!(rule(name).is_alert));
}

#[test]
fn dashboards_panels_have_a_description_and_valid_promql() {
    for panel in panels() {
        let title = panel["title"].as_str().unwrap();
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
        assert!(!title.is_empty() && !unit.is_empty(), "{panel}");
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}");
    }
    // promtool can check expressions only as rules.
    let mut file = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (n, (_, expression, _)) in targets().iter().enumerate() {
        let expression = expression.replace("$__rate_interval", "5m").replace("$__range", "1h");
        file.push_str(&format!("  - record: dashboard:{n}\n    expr: {}\n", Value::from(expression)));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dashboard.yml");
    std::fs::write(&path, file).unwrap();
    promtool(&["check", "rules"], &path);
}

/// Runs promtool on a file.
fn promtool(command: &[&str], file: &Path) {
    let output = Command::new("promtool").args(command).arg(file).output();
    let output = output.expect("promtool is part of Prometheus; ./tests/run installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

/// The results of Prometheus for a scrape of a group that has committed in 3 of 6 partitions.
#[test]
fn dashboards_show_the_lag_of_a_group_that_has_not_committed_in_every_partition() {
    let (snapshot, series) = (LagSnapshot::empty(), LagSeries::default());
    let place = |partition| GroupPartition { group: "billing", topic: "datagrid.x", partition };
    for partition in 0..3 {
        snapshot.lag(place(partition), 10, Some(2_000.0));
        snapshot.unknown(place(3 + partition), "uncommitted");
    }
    series.publish(&snapshot);
    let readiness = Health::new().readiness();
    let scrape = scrape::render(&Now {
        in_flight: 0,
        kafka_up: true,
        readiness: &readiness,
        expiring: Vec::new(),
        lag: &series,
    });
    let scrape = scrape.lines().filter(|line| line.contains("consumergroup="));
    let scrape: Vec<(&str, &str)> = scrape.filter_map(|line| line.rsplit_once(' ')).collect();
    assert_eq!(scrape.len(), 9, "{scrape:?}");
    let input =
        scrape.iter().map(|(series, value)| format!("  - {{series: '{series}', values: '{value}x30'}}\n"));

    let sample = |labels: &str, value: u64| {
        format!(
            "    exp_samples: [{{labels: '{{consumergroup=\"billing\", topic=\"datagrid.x\"{labels}}}', value: {value}}}]\n"
        )
    };
    let mut file = format!(
        "rule_files: [{:?}]\ntests:\n- interval: 1m\n  input_series:\n{}  promql_expr_test:\n",
        Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/alerts.yml"),
        input.collect::<String>()
    );
    let mut panels = 0;
    for (title, expression, _) in targets() {
        let expected = match &*title {
            "Lag in records, by group and topic" => sample("", 30),
            "Lag in seconds, by group and topic" => sample("", 2_000),
            "Partitions whose lag is unknown, by group, topic and cause" => {
                sample(", cause=\"uncommitted\"", 3)
            }
            _ => continue,
        };
        let all = ["job", "topic", "group"]
            .iter()
            .fold(expression, |text, variable| text.replace(&format!("=~\"${variable}\""), "=~\".*\""));
        file.push_str(&format!("  - expr: {}\n    eval_time: 20m\n{expected}", Value::from(all)));
        panels += 1;
    }
    assert_eq!(panels, 3);
    // The alert uses the partitions whose lag is known.
    let alert = "ALERTS{alertstate=\"firing\", consumergroup=\"billing\"}";
    let firing = "ALERTS{alertname=\"HookstreamConsumerLag\", alertstate=\"firing\", consumergroup=\"billing\", \
                  severity=\"warning\", topic=\"datagrid.x\"}";
    file.push_str(&format!("  - expr: {}\n    eval_time: 20m\n", Value::from(alert)));
    file.push_str(&format!("    exp_samples: [{{labels: {}, value: 1}}]\n", Value::from(firing)));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lag_test.yml");
    std::fs::write(&path, file).unwrap();
    promtool(&["test", "rules"], &path);
}

/// The series of a scrape with their labels.
fn scraped(text: &str) -> Known {
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let mut scraped = Known::new();
    for Asked { metric, selected, .. } in lines.flat_map(|(series, _)| names(series).metrics) {
        scraped.entry(metric).or_default().extend(selected.into_iter().map(|(label, _)| label));
    }
    scraped
}

/// Whether the scrape lacks the metric or one of the required labels.
fn lacks(scraped: &Known, Asked { metric, selected, kept }: &Asked) -> bool {
    let Some(labels) = scraped.get(metric) else { return true };
    let mut asked = selected.iter().map(|(label, _)| label).chain(kept);
    !asked.all(|label| labels.contains(label) || TARGET_LABELS.contains(&label.as_str()))
}

#[tokio::test]
async fn dashboards_use_only_metrics_that_a_service_exports() {
    let (service, _spool) = exporting().await;
    service.datagrid_post("no JSON").await.is(200, "dead_lettered", Some("json_invalid"));

    let rules = rules();
    let expressions =
        rules.iter().map(|rule| rule.expression.clone()).chain(targets().into_iter().map(|target| target.1));
    // Metrics of Prometheus, recorded ones, and those of events that do not occur in this test.
    let elsewhere = [
        "up",
        "hookstream_connections_refused_total",
        "hookstream_lag_unknown",
        "hookstream_secret_not_after_timestamp_seconds",
        "hookstream_tls_not_after_timestamp_seconds",
        "hookstream_topic_failing",
        "hookstream_unverified_limited_total",
    ];
    let elsewhere = |name: &str| elsewhere.contains(&name) || rules.iter().any(|rule| rule.name == name);
    let asked: Vec<Asked> =
        expressions.flat_map(|text| names(&text).metrics).filter(|asked| !elsewhere(&asked.metric)).collect();
    assert!(asked.len() > 30);
    let mut missing = BTreeSet::new();
    // The producer and the spool update their metrics once a second.
    until("all metrics of the dashboard", async || {
        let scraped = scraped(&service.admin("/metrics").await.1);
        let lacking: BTreeSet<&str> =
            asked.iter().filter(|asked| lacks(&scraped, asked)).map(|asked| asked.metric.as_str()).collect();
        if missing != lacking {
            println!("missing, or without a label that is used: {lacking:?}");
            missing = lacking;
        }
        missing.is_empty()
    })
    .await;
}
