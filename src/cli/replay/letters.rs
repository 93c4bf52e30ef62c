//! The letters of a source, read once and one by one, and what each becomes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::note;
use super::selection::Selection;
use crate::decide::{Decision, EncodedRecords, decide};
use crate::kafka::{ClusterConfig, Consumer, Event, Fetched, Span, Start};
use crate::names;
use crate::outcome::{Fault, Reason};
use crate::record::{DeadLetter, Record, headers};
use crate::sources::Source;
use crate::verify::{UnsealError, Verified};

/// Records that wait to be looked at; beside librdkafka's own bound all that is held.
const WAITING: usize = 64;

/// The dead letters that are asked for, up to the ends as they were.
pub(super) struct Letters {
    consumer: Consumer,
    pub(super) spans: Vec<Span>,
}

impl Letters {
    /// `None` where the topic does not exist.
    pub(super) async fn find(
        kafka: &ClusterConfig,
        there: &BTreeMap<String, i32>,
        source: &str,
        choice: &Selection,
    ) -> anyhow::Result<Option<Self>> {
        let topic = names::dead_letter_topic(source);
        let Some(&count) = there.get(&topic) else { return Ok(None) };
        let wanted = match choice.partition {
            Some(partition) => {
                anyhow::ensure!(partition < count, "{topic} has the partitions 0 to {}", count - 1);
                partition..partition + 1
            }
            None => 0..count,
        };
        let partitions: Vec<_> = wanted.map(|partition| (topic.clone(), partition)).collect();
        let start = choice.since.map_or(Start::Beginning, Start::Time);
        let mut letters = Self::new(kafka, &partitions, start).await?;
        if let Some(offset) = choice.offset {
            for span in &mut letters.spans {
                (span.start, span.end) = (span.start.max(offset), span.end.min(offset.saturating_add(1)));
            }
        }
        Ok(Some(letters))
    }

    pub(super) async fn new(
        kafka: &ClusterConfig,
        partitions: &[(String, i32)],
        start: Start,
    ) -> anyhow::Result<Self> {
        let consumer = Consumer::new(kafka)?;
        let spans = consumer.spans(partitions, start).await?;
        Ok(Self { consumer, spans })
    }

    /// How many there are at most: an offset may stand for none.
    pub(super) fn at_most(&self) -> u64 {
        let lengths = self.spans.iter().map(|span| span.end.saturating_sub(span.start));
        lengths.map(|length| u64::try_from(length).unwrap_or_default()).sum()
    }

    /// Reads them into a channel that lets few wait.
    pub(super) fn stream(&self) -> (impl Future<Output = anyhow::Result<()>> + '_, mpsc::Receiver<Event>) {
        let (sender, events) = mpsc::channel(WAITING);
        // The sender goes with the end of the reading: then the channel ends.
        (async move { self.consumer.read(&self.spans, true, &sender).await }, events)
    }

    /// Shows `each` of them.
    pub(super) async fn each(
        &self,
        mut each: impl FnMut(Fetched) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (reading, mut events) = self.stream();
        let looking = async move {
            while let Some(event) = events.recv().await {
                match event {
                    Event::Record(record) => each(record)?,
                    Event::Trouble(text) => note(&text)?,
                }
            }
            Ok(())
        };
        tokio::try_join!(reading, looking).map(|_| ())
    }
}

/// The first header of the name, if it is text.
pub(super) fn header<'r>(record: &'r Fetched, name: &str) -> Option<&'r str> {
    let (_, value) = record.headers.iter().find(|(found, _)| found == name)?;
    std::str::from_utf8(value.as_deref()?).ok()
}

/// Why it was dead-lettered, if that is one of the reasons there are. Only what a seal covers is proven,
/// and this is not: it is for people and for `--reason`.
pub(super) fn reason_of(record: &Fetched) -> Option<Reason> {
    Reason::from_label(header(record, headers::REASON)?)
}

/// What a letter becomes, or has become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReplayDecision {
    /// A record, or several, the first in this topic.
    Published(Arc<str>),
    /// Nothing: a handshake.
    Handled,
    /// What keeps it from being an event today.
    Failed(Fault),
    /// Nothing, ever: it has no seal that can be read.
    Unsealed,
    /// Nothing, as long as this is so.
    Unsealable(UnsealError),
}

/// Reads a record as a letter.
pub(super) fn open(record: Fetched) -> Result<DeadLetter, ReplayDecision> {
    record.value.and_then(|value| DeadLetter::read(record.headers, value)).ok_or(ReplayDecision::Unsealed)
}

/// The decision about a letter if it were replayed now. Nothing is published.
pub(super) fn becomes(source: &Source, letter: &mut DeadLetter) -> ReplayDecision {
    match letter.unseal(&source.verifier) {
        Ok(verified) => match today(source, &verified) {
            Decision::Publish(EncodedRecords { topic, .. }) => ReplayDecision::Published(topic),
            Decision::Handshake(_) => ReplayDecision::Handled,
            Decision::DeadLetter { why, .. } | Decision::Unavailable(why) => ReplayDecision::Failed(why),
        },
        Err(why) => ReplayDecision::Unsealable(why),
    }
}

/// The decision about a delivery that was verified when it was received: its age does not matter, and no limit applies.
pub(super) fn today(source: &Source, verified: &Verified<'_>) -> Decision {
    decide(source, verified, None, || Ok(())).decision
}

/// The records, each with the place of the letter that it was made from.
pub(super) fn marked(records: Vec<Record>, place: &crate::record::RecordId) -> Vec<Record> {
    records.into_iter().map(|record| record.replayed(place)).collect()
}
