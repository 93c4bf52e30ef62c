//! Counts and latencies of many deliveries.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::{LoadPlan, SendResult};
use crate::cli::output::{TextTable, grouped};

/// The counts by answer, and the latencies.
pub(super) struct SendSummary {
    kinds: BTreeMap<AnswerCount, u64>,
    /// The latencies of answered deliveries, in microseconds.
    times: Histogram<u64>,
    /// From the first delivery to the last answer.
    pub(super) took: Duration,
}

/// Answers that are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct AnswerCount {
    /// `None` without an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The summary as a JSON line.
#[derive(Serialize)]
struct Summary<'a> {
    sent: u64,
    not_2xx: u64,
    seconds: f64,
    per_second: f64,
    answers: Vec<SummaryRow<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<Latency>,
}

#[derive(Serialize)]
struct SummaryRow<'a> {
    #[serde(flatten)]
    kind: &'a AnswerCount,
    count: u64,
}

#[derive(Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

/// The maximum latency, as long as the longest timeout; longer ones count as this.
const MAX_MICROS: u64 = 3_600_000_000;

impl SendSummary {
    /// An empty summary.
    ///
    /// # Errors
    /// None in practice, since the histogram's bounds are constants.
    pub(super) fn new() -> anyhow::Result<Self> {
        let times = Histogram::new_with_max(MAX_MICROS, 3)?;
        Ok(Self { kinds: BTreeMap::new(), times, took: Duration::ZERO })
    }

    pub(super) fn add(&mut self, ended: &SendResult) {
        let kind = match &ended.result {
            Ok(answer) => {
                self.times.saturating_record(answer.took.as_micros().try_into().unwrap_or(u64::MAX));
                let known = answer.known.as_ref();
                AnswerCount {
                    status: Some(answer.status),
                    outcome: known.map_or("unknown", |known| &*known.outcome).to_owned(),
                    reason: known.and_then(|known| known.reason.as_deref().map(str::to_owned)),
                }
            }
            Err(none) => AnswerCount {
                status: None,
                outcome: "no_answer".to_owned(),
                reason: Some(none.word.to_owned()),
            },
        };
        *self.kinds.entry(kind).or_default() += 1;
    }

    /// Adds deliveries whose answers were not awaited.
    pub(super) fn add_left(&mut self, count: u64) {
        if count > 0 {
            let reason = Some("not_awaited".to_owned());
            let kind = AnswerCount { status: None, outcome: "no_answer".to_owned(), reason };
            *self.kinds.entry(kind).or_default() += count;
        }
    }

    /// The number of deliveries sent.
    pub(super) fn sent(&self) -> u64 {
        self.kinds.values().sum()
    }

    /// The number of deliveries without a 2xx answer.
    pub(super) fn failed(&self) -> u64 {
        let failed = |kind: &AnswerCount| !kind.status.is_some_and(|status| (200..300).contains(&status));
        self.kinds.iter().filter(|(kind, _)| failed(kind)).map(|(_, count)| count).sum()
    }

    /// Whether all deliveries failed without an answer for this one reason.
    pub(super) fn is_all(&self, reason: &str) -> bool {
        !self.kinds.is_empty()
            && self.kinds.keys().all(|kind| kind.status.is_none() && kind.reason.as_deref() == Some(reason))
    }

    /// Deliveries per second.
    pub(super) fn rate(&self) -> f64 {
        match self.took.as_secs_f64() {
            0.0 => 0.0,
            seconds => self.sent() as f64 / seconds,
        }
    }

    pub(super) fn text(&self, plan: &LoadPlan) -> String {
        let mut table = TextTable::new(["status", "outcome", "reason", "count"]);
        for (kind, count) in &self.kinds {
            let status = kind.status.map_or("-".to_owned(), |status| status.to_string());
            table.row([&status, &kind.outcome, kind.reason.as_deref().unwrap_or("-"), &grouped(*count)]);
        }
        let mut text = format!(
            "{table}\n\n{} sent in {:.2} s: {}/s, at most {} at a time",
            grouped(self.sent()),
            self.took.as_secs_f64(),
            grouped(self.rate().round() as u64),
            plan.concurrency
        );
        if let Some(Latency { p50, p90, p99, max }) = self.latency() {
            let [p50, p90, p99, max] = [p50, p90, p99, max].map(millis);
            text += &format!("\nlatency  p50 {p50}  p90 {p90}  p99 {p99}  max {max}");
        }
        text
    }

    /// The summary as one line of JSON.
    ///
    /// # Errors
    /// None in practice, since it has only numbers and text.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Summary {
            sent: self.sent(),
            not_2xx: self.failed(),
            seconds: (self.took.as_secs_f64() * 1e3).round() / 1e3,
            per_second: (self.rate() * 10.0).round() / 10.0,
            answers: self.kinds.iter().map(|(kind, count)| SummaryRow { kind, count: *count }).collect(),
            latency_ms: self.latency(),
        })
    }

    /// `None` without answers.
    fn latency(&self) -> Option<Latency> {
        let at = |quantile| self.times.value_at_quantile(quantile) as f64 / 1000.0;
        let max = self.times.max() as f64 / 1000.0;
        (!self.times.is_empty()).then(|| Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), max })
    }
}

/// Milliseconds with three significant digits, so that runs can be compared by eye.
pub(super) fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::post::SendAnswer;
    use super::*;

    fn tally(bodies: &[(u16, &str)]) -> SendSummary {
        let mut tally = SendSummary::new().unwrap();
        for (index, (status, body)) in bodies.iter().enumerate() {
            let took = Duration::from_micros(1000 * (index as u64 + 1));
            tally.add(&SendResult { id: None, result: Ok(SendAnswer::of_test(*status, body, took)) });
        }
        tally.took = Duration::from_millis(500);
        tally
    }

    const PUBLISHED: (u16, &str) = (200, r#"{"outcome":"published"}"#);
    const REFUSED: (u16, &str) = (401, r#"{"outcome":"refused","reason":"unauthorized"}"#);
    const STRANGE: (u16, &str) = (502, "<html>");

    #[test]
    fn answers_of_one_kind_are_counted_together() {
        let tally = tally(&[PUBLISHED, REFUSED, PUBLISHED, STRANGE]);
        assert_eq!((tally.sent(), tally.failed()), (4, 2));
        let text =
            anstream::adapter::strip_str(&tally.text(&LoadPlan { count: 4, concurrency: 2, rate: None }))
                .to_string();
        let expected = [
            "status  outcome    reason        count",
            "   200  published  -                 2",
            "   401  refused    unauthorized      1",
            "   502  unknown    -                 1",
            "",
            "4 sent in 0.50 s: 8/s, at most 2 at a time",
            "latency  p50 2.00 ms  p90 4.00 ms  p99 4.00 ms  max 4.00 ms",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn json_has_the_same_numbers_on_one_line() {
        assert_eq!(
            tally(&[PUBLISHED, REFUSED]).json().unwrap(),
            r#"{"sent":2,"not_2xx":1,"seconds":0.5,"per_second":4.0,"answers":[{"status":200,"outcome":"published","count":1},{"status":401,"outcome":"refused","reason":"unauthorized","count":1}],"latency_ms":{"p50":1.0,"p90":2.0,"p99":2.0,"max":2.0}}"#
        );
    }

    #[test]
    fn without_an_answer_there_is_no_latency() {
        let tally = tally(&[]);
        assert!(!tally.json().unwrap().contains("latency"));
        assert!(!tally.text(&LoadPlan { count: 1, concurrency: 1, rate: None }).contains("latency"));
        assert!(!tally.is_all("connection_refused"));
    }

    #[test]
    fn answers_that_were_not_awaited_count_as_failures() {
        let mut tally = tally(&[PUBLISHED]);
        tally.add_left(0);
        assert_eq!((tally.sent(), tally.failed()), (1, 0));
        tally.add_left(2);
        assert_eq!((tally.sent(), tally.failed()), (3, 2));
    }

    #[test]
    fn latencies_have_three_digits() {
        assert_eq!([0.2114, 9.994, 12.34, 4000.4].map(millis), ["0.21 ms", "9.99 ms", "12.3 ms", "4000 ms"]);
    }
}
