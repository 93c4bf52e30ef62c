//! Counts of answers, and their latencies.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Answer, NoAnswer};

/// The answers of a load.
#[derive(Clone, Debug)]
pub struct Tally {
    /// How many there are of each kind.
    pub kinds: BTreeMap<AnswerKind, u64>,
    /// The latencies of answered deliveries, in microseconds.
    times: Histogram<u64>,
}

/// Answers that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct AnswerKind {
    /// `None` without an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The outcome; `unknown` if it is not an answer of the service, `no_answer` without one.
    pub outcome: String,
    /// The reason in the answer, or why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl AnswerKind {
    /// No answer, for this reason.
    pub fn none(reason: &str) -> Self {
        Self { status: None, outcome: "no_answer".to_owned(), reason: Some(reason.to_owned()) }
    }

    fn of(result: &Result<Answer, NoAnswer>) -> Self {
        let answer = match result {
            Ok(answer) => answer,
            Err(none) => return Self::none(none.word),
        };
        let known = answer.known.as_ref();
        Self {
            status: Some(answer.status),
            outcome: known.map_or("unknown", |known| &*known.outcome).to_owned(),
            reason: known.and_then(|known| known.reason.as_deref().map(str::to_owned)),
        }
    }

    pub fn is_2xx(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

impl fmt::Display for AnswerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.iter().try_for_each(|status| write!(f, "{status} "))?;
        f.write_str(&self.outcome)?;
        self.reason.iter().try_for_each(|reason| write!(f, " {reason}"))
    }
}

impl Tally {
    /// # Errors
    /// None in practice, since the histogram's precision is a constant.
    pub fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self { kinds: BTreeMap::new(), times: Histogram::new(3)? })
    }

    pub fn add(&mut self, result: &Result<Answer, NoAnswer>) {
        if let Ok(answer) = result {
            // The histogram grows, so every latency has its place.
            let _ = self.times.record(answer.took.as_micros().try_into().unwrap_or(u64::MAX));
        }
        *self.kinds.entry(AnswerKind::of(result)).or_default() += 1;
    }

    /// Adds all of another tally.
    pub fn merge(&mut self, other: &Self) {
        let _ = self.times.add(&other.times);
        for (kind, count) in &other.kinds {
            *self.kinds.entry(kind.clone()).or_default() += count;
        }
    }

    /// The number of deliveries of these kinds.
    pub fn count(&self, is_counted: impl Fn(&AnswerKind) -> bool) -> u64 {
        self.kinds.iter().filter(|(kind, _)| is_counted(kind)).map(|(_, count)| count).sum()
    }

    pub fn sent(&self) -> u64 {
        self.count(|_| true)
    }

    /// The number of deliveries without a 2xx answer.
    pub fn failed(&self) -> u64 {
        self.count(|kind| !kind.is_2xx())
    }

    /// A quantile of the latencies in milliseconds; 1.0 is the maximum. `None` without answers.
    pub fn latency(&self, quantile: f64) -> Option<f64> {
        (!self.times.is_empty()).then(|| self.times.value_at_quantile(quantile) as f64 / 1000.0)
    }
}
