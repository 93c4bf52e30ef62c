//! Publishes letters (`--apply`). The outcome of a letter is written after its records were acknowledged. If the process is
//! killed between the two, the next run publishes those letters again, with the same key.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;

use super::history::History;
use super::letters::{self, Letters, ReplayDecision};
use super::selection::Selection;
use super::summary::ReplaySummary;
use crate::cli::output::progress_bar;
use crate::cli::serve::Signals;
use crate::config::LoadedConfig;
use crate::decide::{Decision, EncodedRecords};
use crate::kafka::{Ack, ClusterConfig, ConsumerEvent, Fetched, Producer, PublishError, Tuning};
use crate::names;
use crate::observe::health::Health;
use crate::outcome::{Fault, Reason};
use crate::provision;
use crate::record::{Record, RecordId, ReplayOutcome};
use crate::sources::Source;

/// The number of letters in flight. As many bodies are in memory, and a kill may repeat as many.
const IN_FLIGHT: usize = 32;

/// The time for each acknowledgement. No sender waits for an answer here, so it can outlast the election of a partition's
/// leader.
const BUDGET: Duration = Duration::from_secs(30);

/// Longer than the producer's own limit, in case the producer does not keep it.
const PATIENCE: Duration = Duration::from_secs(45);

/// After a pause, the pace may catch up by at most this much.
const CATCH_UP: Duration = Duration::from_millis(200);

pub(super) struct Publisher {
    producer: Producer,
    source: Arc<Source>,
    /// The topic of outcomes.
    outcomes: Arc<str>,
}

/// The reason of a letter, and its outcome.
type Settled = (Option<Reason>, ReplayDecision);

impl Publisher {
    pub(super) fn new(
        loaded: &LoadedConfig,
        kafka: &ClusterConfig,
        source: Arc<Source>,
    ) -> anyhow::Result<Self> {
        let max_record = provision::max_record(loaded.config.http.max_body);
        let tuning = Tuning { kafka_budget: BUDGET, max_record, queue_kib: Tuning::QUEUE_KIB };
        let producer = Producer::new(kafka, tuning, Health::new())?;
        let outcomes = names::replayed_topic(&source.name).into();
        Ok(Self { producer, source, outcomes })
    }

    /// Replays the selected letters. The first Ctrl-C waits for the letters in flight.
    pub(super) async fn run(
        &self,
        letters: Letters,
        choice: &Selection,
        past: &History,
        rate: u32,
    ) -> anyhow::Result<ReplaySummary> {
        // It counts the letters read: the number of selected ones is known only at the end.
        let bar = progress_bar(letters.at_most(), "{bar:30} {human_pos} of {human_len}  {eta} left  {msg}");
        let (reading, mut events) = letters.stream();
        let replaying = async {
            let (mut tally, mut signals) = (ReplaySummary::default(), Signals::new()?);
            let mut turns = RatePacer::new(rate);
            let (mut held, mut ended) = (None, false);
            let mut under_way = FuturesUnordered::new();
            while !(ended && held.is_none() && under_way.is_empty()) {
                tokio::select! {
                    Some(settled) = under_way.next() => {
                        let settled: anyhow::Result<Settled> = settled;
                        let (reason, became) = settled.with_context(|| stopped_at(&tally))?;
                        tally.add(reason, &became);
                        bar.set_message(tally.in_short());
                    }
                    event = events.recv(), if held.is_none() && !ended => match event {
                        Some(ConsumerEvent::Record(record)) => {
                            bar.inc(1);
                            held = tally.takes(&record, choice, past).then_some(record);
                        }
                        Some(ConsumerEvent::Trouble(text)) => bar.suspend(|| super::note(&text))?,
                        None => ended = true,
                    },
                    () = turns.next(), if held.is_some() && under_way.len() < IN_FLIGHT => {
                        if let Some(record) = held.take() {
                            turns.taken();
                            // They are first polled, and so handed to Kafka, in this order.
                            under_way.push(self.settle(record));
                        }
                    }
                    () = signals.next(), if !tally.stopped => {
                        (tally.stopped, ended, held) = (true, true, None);
                    }
                }
            }
            // This ends the reading after Ctrl-C, too.
            drop(events);
            anyhow::Ok(tally)
        };
        let done = both(reading, replaying).await;
        bar.finish_and_clear();
        done
    }

    /// Hands all records of the letter to Kafka before its first wait.
    async fn settle(&self, record: Fetched) -> anyhow::Result<Settled> {
        let reason = letters::reason_of(&record);
        let (topic, partition, offset) = (record.topic.as_str().into(), record.partition, record.offset);
        let place = RecordId { topic, partition, offset };
        let mut letter = match letters::open(record) {
            Ok(letter) => letter,
            Err(unsealed) => return Ok((reason, unsealed)),
        };
        let verified = match letter.unseal(&self.source.verifier) {
            Ok(verified) => verified,
            Err(why) => return Ok((reason, ReplayDecision::Unsealable(why))),
        };
        let (became, ack) = match letters::today(&self.source, &verified) {
            Decision::Publish(EncodedRecords { topic, records, .. }) => {
                match self.publish(letters::marked(records, &place)).await? {
                    Ok(ack) => (ReplayDecision::Published(topic), ack),
                    Err(refused) => (ReplayDecision::Failed(refused), None),
                }
            }
            Decision::Handled { .. } => (ReplayDecision::Handled, None),
            Decision::DeadLetter { why, .. } | Decision::Unavailable(why) => {
                (ReplayDecision::Failed(why), None)
            }
        };
        let outcome = Record::outcome(&self.outcomes, &verified, &place, &said(&became, ack))?;
        match self.acknowledged(&outcome).await {
            Ok(_) => Ok((reason, became)),
            Err(trouble) => {
                Err(trouble).with_context(|| format!("cannot write an outcome to {}", self.outcomes))
            }
        }
    }

    /// Publishes all records of one letter. Returns the place of the first record. The inner error is Kafka's permanent
    /// refusal of one record, which fails the whole letter.
    async fn publish(&self, records: Vec<Record>) -> anyhow::Result<Result<Option<Ack>, Fault>> {
        let mut first = None;
        for result in join_all(records.iter().map(|record| self.acknowledged(record))).await {
            match result {
                Ok(ack) => first = first.or(Some(ack)),
                Err(
                    refused @ (PublishError::Refused(_) | PublishError::Limit(_) | PublishError::Ambiguous),
                ) => {
                    return Ok(Err(Fault::new(Reason::KafkaRefused, refused.to_string())));
                }
                Err(trouble) => {
                    let topic = records.first().map_or("", Record::topic).to_owned();
                    return Err(trouble).with_context(|| format!("cannot publish to {topic}"));
                }
            }
        }
        Ok(Ok(first))
    }

    async fn acknowledged(&self, record: &Record) -> Result<Ack, PublishError> {
        match tokio::time::timeout(PATIENCE, self.producer.publish(record)?).await {
            Ok(result) => result,
            Err(_) => Err(PublishError::unanswered("Kafka did not acknowledge")),
        }
    }
}

fn stopped_at(tally: &ReplaySummary) -> String {
    format!("{}; then Kafka was unavailable: the same command continues from there", tally.in_short())
}

fn said<'a>(became: &'a ReplayDecision, ack: Option<Ack>) -> ReplayOutcome<'a> {
    let (outcome, reason, topic) = match became {
        ReplayDecision::Published(topic) => (ReplayOutcome::PUBLISHED, None, Some((&**topic).into())),
        ReplayDecision::Failed(why) => (ReplayOutcome::FAILED, Some(why.reason.info().label.into()), None),
        _ => (ReplayOutcome::HANDLED, None, None),
    };
    ReplayOutcome {
        outcome: outcome.into(),
        reason,
        topic,
        partition: ack.map(|ack| ack.partition),
        offset: ack.map(|ack| ack.offset),
        at: Timestamp::now().to_string().into(),
    }
}

/// Runs both until the replay ends, which is after the last letter or with an error.
async fn both(
    reading: impl Future<Output = anyhow::Result<()>>,
    replaying: impl Future<Output = anyhow::Result<ReplaySummary>>,
) -> anyhow::Result<ReplaySummary> {
    tokio::pin!(reading, replaying);
    tokio::select! {
        tally = &mut replaying => tally,
        read = &mut reading => {
            // Letters that were already read are still replayed.
            let tally = replaying.await?;
            read.map(|()| tally)
        }
    }
}

/// Limits the rate of letters.
struct RatePacer {
    next: Instant,
    every: Duration,
}

impl RatePacer {
    fn new(rate: u32) -> Self {
        Self { next: Instant::now(), every: Duration::from_secs(1) / rate.max(1) }
    }

    async fn next(&self) {
        tokio::time::sleep_until(self.next.into()).await;
    }

    fn taken(&mut self) {
        self.next = (self.next + self.every).max(Instant::now() - CATCH_UP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_kept_and_made_up_for_by_a_little_only() {
        let mut turns = RatePacer::new(100);
        let start = turns.next;
        turns.taken();
        turns.taken();
        assert_eq!(turns.next, start + Duration::from_millis(20));
        turns.next = start - Duration::from_secs(10);
        turns.taken();
        assert!(turns.next >= start - CATCH_UP);
    }

    #[test]
    fn an_outcome_is_small_json_text() {
        let text = |became: &ReplayDecision, ack| {
            let replayed = ReplayOutcome { at: "2026-11-24T02:41:03Z".into(), ..said(became, ack) };
            serde_json::to_string(&replayed).unwrap()
        };
        assert_eq!(
            text(&ReplayDecision::Published("a.b".into()), Some(Ack { partition: 1, offset: 9 })),
            r#"{"outcome":"published","topic":"a.b","partition":1,"offset":9,"at":"2026-11-24T02:41:03Z"}"#
        );
        assert_eq!(
            text(&ReplayDecision::Failed(Reason::IdMissing.into()), None),
            r#"{"outcome":"failed","reason":"id_missing","at":"2026-11-24T02:41:03Z"}"#
        );
        assert_eq!(
            text(&ReplayDecision::Handled, None),
            r#"{"outcome":"handled","at":"2026-11-24T02:41:03Z"}"#
        );
    }
}
