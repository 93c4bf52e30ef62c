//! Reads the dead letters of a source one by one, and decides about each.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::note;
use super::selection::Selection;
use crate::decide::{Decision, EncodedRecords, decide};
use crate::kafka::{ClusterConfig, Consumer, ConsumerEvent, Fetched, Span, Start};
use crate::names;
use crate::outcome::{Fault, Reason};
use crate::record::{DeadLetter, Record, headers};
use crate::sources::Source;
use crate::verify::{UnsealError, Verified};

/// The number of records that wait for processing. With librdkafka's own queue that is all that is held in memory.
const WAITING: usize = 64;

/// The dead letters of the selected partitions, up to their ends at the start.
pub(super) struct Letters {
    consumer: Consumer,
    pub(super) spans: Vec<Span>,
}

impl Letters {
    /// `None` if the topic does not exist.
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

    /// An upper limit of their number: an offset may have no record.
    pub(super) fn at_most(&self) -> u64 {
        let lengths = self.spans.iter().map(|span| span.end.saturating_sub(span.start));
        lengths.map(|length| u64::try_from(length).unwrap_or_default()).sum()
    }

    /// Reads them into a channel with a small capacity.
    pub(super) fn stream(
        &self,
    ) -> (impl Future<Output = anyhow::Result<()>> + '_, mpsc::Receiver<ConsumerEvent>) {
        let (sender, events) = mpsc::channel(WAITING);
        // The sender is dropped at the end of the reading, which closes the channel.
        (async move { Ok(self.consumer.read(&self.spans, true, &sender).await?) }, events)
    }

    /// Calls `each` with every record.
    pub(super) async fn each(
        &self,
        mut each: impl FnMut(Fetched) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (reading, mut events) = self.stream();
        let looking = async move {
            while let Some(event) = events.recv().await {
                match event {
                    ConsumerEvent::Record(record) => each(record)?,
                    ConsumerEvent::Trouble(text) => note(&text)?,
                }
            }
            Ok(())
        };
        tokio::try_join!(reading, looking).map(|_| ())
    }
}

/// The reason of a dead letter, if this version knows it. The seal does not cover it: it is only for display and for
/// `--reason`.
pub(super) fn reason_of(record: &Fetched) -> Option<Reason> {
    Reason::from_label(record.header(headers::REASON)?)
}

/// The outcome of a replayed letter, or of its plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReplayDecision {
    /// Published; the first record is in this topic.
    Published(Arc<str>),
    /// A handshake, or no events: nothing to publish.
    Handled,
    /// Not an event today, for this reason.
    Failed(Fault),
    /// Never published: it has no readable seal.
    Unsealed,
    /// Not published as long as this error applies.
    Unsealable(UnsealError),
}

/// Reads a record as a dead letter.
pub(super) fn open(record: Fetched) -> Result<DeadLetter, ReplayDecision> {
    record.value.and_then(|value| DeadLetter::read(record.headers, value)).ok_or(ReplayDecision::Unsealed)
}

/// The decision about a letter if it were replayed now. Nothing is published.
pub(super) fn becomes(source: &Source, letter: &mut DeadLetter) -> ReplayDecision {
    match letter.unseal(&source.verifier) {
        Ok(verified) => match today(source, &verified) {
            Decision::Publish(EncodedRecords { topic, .. }) => ReplayDecision::Published(topic),
            Decision::Handled { .. } => ReplayDecision::Handled,
            Decision::DeadLetter { why, .. } | Decision::Unavailable(why) => ReplayDecision::Failed(why),
        },
        Err(why) => ReplayDecision::Unsealable(why),
    }
}

/// The decision about a delivery that was verified when it was received: its age does not matter, and no limit applies.
pub(super) fn today(source: &Source, verified: &Verified<'_>) -> Decision {
    decide(source, verified, None, || Ok(())).decision
}

/// Marks the records with the place of their letter.
pub(super) fn marked(records: Vec<Record>, place: &crate::record::RecordId) -> Vec<Record> {
    records.into_iter().map(|record| record.replayed(place)).collect()
}
