//! Counts the outcomes of the letters by reason and prints them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::history::{History, LastOutcome};
use super::letters::ReplayDecision;
use super::selection::Selection;
use crate::cli::ExitStatus;
use crate::cli::output::{self, TextTable};
use crate::kafka::Fetched;
use crate::names;
use crate::outcome::Reason;
use crate::verify::UnsealError;

/// The limit of groups: anybody who may write to the topic could invent names of secrets.
const MAX_GROUPS: usize = 200;

/// The number of characters of a secret's name that are shown.
const MAX_NAME: usize = 64;

/// The outcomes of all selected letters.
#[derive(Debug, Default)]
pub(super) struct ReplaySummary {
    /// Whether Ctrl-C stopped it.
    pub(super) stopped: bool,
    selected: u64,
    replayed_before: u64,
    groups: BTreeMap<(&'static str, ReplayEnd), SummaryGroup>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum ReplayEnd {
    Published(String),
    Handled,
    Failed(&'static str),
    NoSeal,
    Forged,
    SecretRemoved(String),
    SecretBound(String),
}

#[derive(Debug, Default)]
struct SummaryGroup {
    count: u64,
    /// The detail of the first letter.
    detail: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ReplayReport<'a> {
    source: &'a str,
    applied: bool,
    stopped: bool,
    /// All letters of the selection.
    selected: u64,
    /// Those of them that were replayed before, and are skipped.
    replayed_before: u64,
    published: u64,
    handled: u64,
    failed: u64,
    unsealable: u64,
    groups: Vec<SummaryLine<'a>>,
}

#[derive(Debug, Serialize)]
struct SummaryLine<'a> {
    reason: &'a str,
    count: u64,
    becomes: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

impl ReplaySummary {
    /// Counts the record if it is selected. Returns whether to replay it.
    pub(super) fn takes(&mut self, record: &Fetched, choice: &Selection, past: &History) -> bool {
        if !choice.takes(record) {
            return false;
        }
        self.selected += 1;
        let done = past.of(record) == Some(LastOutcome::Done);
        self.replayed_before += u64::from(done);
        !done
    }

    pub(super) fn add(&mut self, reason: Option<Reason>, becomes: &ReplayDecision) {
        let mut key = (reason.map_or("-", |reason| reason.info().label), ReplayEnd::of(becomes));
        if let (_, ReplayEnd::SecretRemoved(name)) = &mut key
            && self.groups.len() >= MAX_GROUPS
        {
            *name = String::from("...");
        }
        let group = self.groups.entry(key).or_default();
        group.count += 1;
        if let (1, ReplayDecision::Failed(why)) = (group.count, becomes) {
            group.detail = why.detail.as_deref().map(str::to_owned);
        }
    }

    fn count(&self, wanted: impl Fn(&ReplayEnd) -> bool) -> u64 {
        self.groups.iter().filter(|((_, end), _)| wanted(end)).map(|(_, group)| group.count).sum()
    }

    fn published(&self) -> u64 {
        self.count(|end| matches!(end, ReplayEnd::Published(_)))
    }

    fn handled(&self) -> u64 {
        self.count(|end| *end == ReplayEnd::Handled)
    }

    fn failed(&self) -> u64 {
        self.count(|end| matches!(end, ReplayEnd::Failed(_)))
    }

    fn unsealable(&self) -> u64 {
        self.groups.values().map(|group| group.count).sum::<u64>()
            - self.published()
            - self.handled()
            - self.failed()
    }

    /// The text of the progress bar.
    pub(super) fn in_short(&self) -> String {
        format!("{} published, {} failed again", self.published(), self.failed())
    }

    pub(super) fn verdict(&self, applied: bool) -> ExitStatus {
        let settled = if applied { self.failed() + self.unsealable() == 0 } else { self.groups.is_empty() };
        if settled && !self.stopped { ExitStatus::Success } else { ExitStatus::Failure }
    }

    pub(super) fn print(&self, source: &str, applied: bool) -> anyhow::Result<()> {
        if !self.groups.is_empty() {
            output::print_line(&self.table(applied).to_string())?;
        }
        let (published, failed, before) = (self.published(), self.failed(), self.replayed_before);
        let mut parts = Vec::new();
        let mut part = |count: u64, text: String| {
            if count > 0 {
                parts.push(text);
            }
        };
        let would = if applied { "" } else { "would be " };
        part(published, format!("{published} {would}published"));
        part(self.handled(), format!("{} {would}left, as they have no event", self.handled()));
        part(failed, format!("{failed} {} again", if applied { "failed" } else { "would fail" }));
        part(self.unsealable(), format!("{} cannot be unsealed", self.unsealable()));
        part(before, format!("{before} replayed before"));
        let what = if parts.is_empty() { String::from("no letter is selected") } else { parts.join(", ") };
        let text = match (applied, self.groups.is_empty(), self.stopped) {
            (_, _, true) => format!("stopped: {what}; the same command continues from there"),
            (_, true, _) => format!("nothing to do: {what}"),
            (true, ..) if failed > 0 => {
                format!("replayed: {what}; the reasons are in {}", names::replayed_topic(source))
            }
            (true, ..) => format!("replayed: {what}"),
            (false, ..) => format!("pending: {what}; --apply does it"),
        };
        Ok(output::print_line(&text)?)
    }

    fn table(&self, applied: bool) -> TextTable {
        let mut table = TextTable::new(["reason", "letters", if applied { "became" } else { "becomes" }]);
        for ((reason, end), SummaryGroup { count, detail }) in &self.groups {
            let detail = detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
            table.row([*reason, &count.to_string(), &format!("{}{detail}", end.text())]);
        }
        table
    }

    pub(super) fn json<'a>(&'a self, source: &'a str, applied: bool) -> ReplayReport<'a> {
        let groups = self.groups.iter().map(|((reason, end), group)| {
            let (becomes, topic, why, secret) = end.parts();
            let detail = group.detail.as_deref();
            SummaryLine { reason, count: group.count, becomes, topic, why, secret, detail }
        });
        ReplayReport {
            source,
            applied,
            stopped: self.stopped,
            selected: self.selected,
            replayed_before: self.replayed_before,
            published: self.published(),
            handled: self.handled(),
            failed: self.failed(),
            unsealable: self.unsealable(),
            groups: groups.collect(),
        }
    }
}

impl ReplayEnd {
    fn of(becomes: &ReplayDecision) -> Self {
        let name = |name: &String| name.chars().take(MAX_NAME).collect();
        match becomes {
            ReplayDecision::Published(topic) => Self::Published(topic.to_string()),
            ReplayDecision::Handled => Self::Handled,
            ReplayDecision::Failed(why) => Self::Failed(why.reason.info().label),
            ReplayDecision::Unsealed => Self::NoSeal,
            ReplayDecision::Unsealable(UnsealError::Forged) => Self::Forged,
            ReplayDecision::Unsealable(UnsealError::SecretRemoved(secret)) => {
                Self::SecretRemoved(name(secret))
            }
            ReplayDecision::Unsealable(UnsealError::Bound(secret)) => Self::SecretBound(name(secret)),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Published(topic) => format!("published to {topic}"),
            Self::Handled => "a handshake or an empty list: no event to publish".into(),
            Self::Failed(why) => format!("fails again: {why}"),
            Self::NoSeal => "never published: it has no seal, so hookstream did not write it".into(),
            Self::Forged => "never published: forged, the seal is not by the secret that it names".into(),
            Self::SecretRemoved(name) => format!(
                "not published: the secret {name} sealed it and was removed; restore it with a not_after in the \
                 past"
            ),
            Self::SecretBound(name) => {
                format!("not published: the secret {name} sealed it, and is now bound to other deliveries")
            }
        }
    }

    /// The values of `becomes`, `topic`, `why` and `secret` in the JSON report.
    fn parts(&self) -> (&'static str, Option<&str>, Option<&str>, Option<&str>) {
        match self {
            Self::Published(topic) => ("published", Some(topic), None, None),
            Self::Handled => ("handled", None, None, None),
            Self::Failed(why) => ("failed", None, Some(why), None),
            Self::NoSeal => ("unsealable", None, Some("no_seal"), None),
            Self::Forged => ("unsealable", None, Some("forged"), None),
            Self::SecretRemoved(name) => ("unsealable", None, Some("secret_removed"), Some(name)),
            Self::SecretBound(name) => ("unsealable", None, Some("secret_bound"), Some(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::selection::tests::record;
    use super::*;
    use crate::outcome::Fault;

    #[test]
    fn letters_are_counted_by_reason_and_end() {
        let mut tally = ReplaySummary::default();
        let unknown = Some(Reason::TypeUnknown);
        for _ in 0..2 {
            tally.add(unknown, &ReplayDecision::Published("a.b".into()));
        }
        assert_eq!((tally.verdict(true), tally.verdict(false)), (ExitStatus::Success, ExitStatus::Failure));
        tally.add(unknown, &ReplayDecision::Failed(Fault::new(Reason::IdMissing, "the key of its type")));
        tally.add(None, &ReplayDecision::Unsealed);
        assert_eq!(tally.verdict(true), ExitStatus::Failure);
        let text = anstream::adapter::strip_str(&tally.table(false).to_string()).to_string();
        let expected = [
            "reason        letters  becomes",
            "-                   1  never published: it has no seal, so hookstream did not write it",
            "type_unknown        2  published to a.b",
            "type_unknown        1  fails again: id_missing (the key of its type)",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        let report = tally.json("a", true);
        assert_eq!((report.published, report.failed, report.unsealable), (2, 1, 1));
    }

    #[test]
    fn what_was_replayed_is_left_alone_and_what_failed_is_not() {
        let letter = record("type_unknown", "evt_1", 0);
        let all = Selection::default();
        let mut tally = ReplaySummary::default();
        let past = |said| History::with([((0, 7), said)]);
        assert!(!tally.takes(&letter, &all, &past(LastOutcome::Done)));
        assert!(tally.takes(&letter, &all, &past(LastOutcome::Failed(None))));
        assert!(tally.takes(&letter, &all, &History::default()));
        assert_eq!((tally.selected, tally.replayed_before), (3, 1));
    }

    #[test]
    fn made_up_secrets_do_not_fill_the_memory() {
        let mut tally = ReplaySummary::default();
        for n in 0..10_000 {
            let secret = UnsealError::SecretRemoved(format!("{n}{}", "x".repeat(1_000)));
            tally.add(None, &ReplayDecision::Unsealable(secret));
        }
        assert_eq!(tally.unsealable(), 10_000);
        assert!(tally.groups.len() <= MAX_GROUPS + 1);
    }
}
