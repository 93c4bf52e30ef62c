//! The measurements, as they are stored in `bench/results/`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::pace::Latency;

/// One group of contenders, measured in turn, round by round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    /// The name for `--only` and of the file.
    pub name: String,
    /// The heading on the page.
    pub title: String,
    /// An explanation for readers.
    pub note: String,
    /// The time of its end, as RFC 3339.
    pub when: String,
    pub machine: String,
    /// The checked-out commit.
    pub commit: String,
    /// The length of each measurement in seconds.
    pub seconds: f64,
    /// In the order of measurement.
    pub contenders: Vec<Contender>,
    /// Sorted by round, then contender.
    pub samples: Vec<Sample>,
}

/// A contender of a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contender {
    pub name: String,
    /// The contenders that it is compared with: label and name.
    pub against: Vec<(String, String)>,
}

/// One contender in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    pub contender: String,
    pub round: usize,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Answered 2xx.
    pub answered: u64,
    /// All other answers by status; 0 for broken connections.
    pub failed: BTreeMap<u16, u64>,
    /// Records that were added to its topics, or rows to its spool; `None` if it has neither.
    pub records: Option<u64>,
    /// Processor time of the contender, of Kafka and of the generator in that interval, in microseconds.
    pub service_us: u64,
    pub broker_us: u64,
    pub generator_us: u64,
    /// Resident memory of the contender after the measurement, and its peak.
    pub rss_kib: u64,
    pub peak_kib: u64,
    /// Only at a fixed rate.
    pub latency: Option<Latency>,
}

impl Sample {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.seconds
    }

    /// Microseconds of the contender's processor time per delivery.
    pub fn service(&self) -> f64 {
        self.service_us as f64 / self.answered as f64
    }

    /// The same for Kafka.
    pub fn broker(&self) -> f64 {
        self.broker_us as f64 / self.answered as f64
    }

    /// The same for the generator.
    pub fn generator(&self) -> f64 {
        self.generator_us as f64 / self.answered as f64
    }

    /// Why the measurement is invalid, if it is.
    pub fn problem(&self) -> Option<String> {
        let who = format!("{}, round {}", self.contender, self.round + 1);
        if !self.failed.is_empty() {
            return Some(format!("{who}: answers other than 2xx, by status: {:?}", self.failed));
        }
        match self.records {
            Some(records) if records != self.answered => {
                Some(format!("{who}: {} answers and {records} records", self.answered))
            }
            _ => None,
        }
    }
}

impl Group {
    /// A figure of a contender, round by round.
    pub fn series(&self, contender: &str, figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().filter(|sample| sample.contender == contender).map(figure).collect()
    }

    /// Why its measurements are invalid, if any are.
    pub fn problems(&self) -> Vec<String> {
        self.samples.iter().filter_map(Sample::problem).collect()
    }

    /// Writes the file of the group.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        let path = dir.join(format!("{}.json", self.name));
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads the file of a group; `None` if it does not exist.
    pub fn read(dir: &Path, name: &str) -> anyhow::Result<Option<Self>> {
        let path = dir.join(format!("{name}.json"));
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path)?;
        let group = serde_json::from_str(&text);
        Ok(Some(
            group.with_context(|| format!("{} has another version's format; remove it", path.display()))?,
        ))
    }
}
