//! Reads and decodes topics from a start up to their current ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use schema_registry_converter::avro_common::AvroSchema;
use tokio::sync::mpsc;

pub(super) use crate::cli::output::note;
use crate::cli::output::progress_bar;
use crate::cli::tail::visible;
use crate::config::LoadedConfig;
use crate::kafka::{ClusterConfig, Consumer, ConsumerEvent, Fetched, Start};
use crate::schema::Registry;
use crate::schema::decode::{self, Decoded, Decoder};

/// Records that may wait to be processed. With librdkafka's own bound, this limits the memory.
const WAITING: usize = 256;

/// A decoded record.
pub(super) struct DecodedRecord<'a> {
    pub(super) topic: &'a str,
    /// The record's timestamp: when the delivery was received.
    pub(super) time: Option<i64>,
    /// The schema that it was written with.
    pub(super) schema: &'a Arc<AvroSchema>,
    /// The value, from [`decode::json`].
    pub(super) json: &'a str,
}

/// The number of records read.
#[derive(Default)]
pub(super) struct ScanSummary {
    pub(super) records: u64,
    /// The number of records that could not be decoded, by reason.
    pub(super) unreadable: BTreeMap<String, u64>,
}

/// Calls `each` for every record of the existing topics. `None` if no topic exists.
///
/// # Errors
/// No broker; a cluster that stops answering; no record can be decoded.
pub(super) async fn topics(
    loaded: &LoadedConfig,
    topics: &[String],
    since: Option<Timestamp>,
    mut each: impl FnMut(DecodedRecord<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Option<ScanSummary>> {
    let kafka = ClusterConfig::new(&loaded.config.kafka.bootstrap_servers, loaded.properties.clone());
    let consumer = Consumer::new(&kafka)?;
    let existing = consumer.topics().await.context("cannot read topics")?;
    let partitions_of = |topic: &String| {
        let count = existing.get(topic).copied().unwrap_or(0);
        (0..count).map(|partition| (topic.clone(), partition)).collect::<Vec<_>>()
    };
    let partitions: Vec<_> = topics.iter().flat_map(partitions_of).collect();
    let missing: Vec<String> =
        topics.iter().filter(|topic| !existing.contains_key(*topic)).cloned().collect();
    visible(&consumer, &missing).await?;
    if partitions.is_empty() {
        return Ok(None);
    }
    let spans = consumer.spans(&partitions, since.map_or(Start::Beginning, Start::Time)).await?;
    let lengths = spans.iter().map(|span| span.end.saturating_sub(span.start));
    let length = lengths.map(|length| u64::try_from(length).unwrap_or_default()).sum();
    let bar = progress_bar(length, "{bar:30} {human_pos} of {human_len} records  {eta} left");

    let registry = Registry::new(loaded)?;
    let mut decoder = Decoder::new(&registry, true);
    let (sender, mut events) = mpsc::channel(WAITING);
    // The sender is dropped at the end of reading, which closes the channel.
    let reading = async { anyhow::Ok(consumer.read(&spans, true, &{ sender }).await?) };
    let decoding = async {
        let mut tally = ScanSummary::default();
        while let Some(event) = events.recv().await {
            match event {
                ConsumerEvent::Record(record) => {
                    bar.inc(1);
                    tally.records += 1;
                    if let Err(why) = process(&mut decoder, &record, &mut each).await? {
                        *tally.unreadable.entry(why).or_default() += 1;
                    }
                }
                ConsumerEvent::Trouble(text) => bar.suspend(|| note(&text))?,
            }
        }
        anyhow::Ok(tally)
    };
    let done = tokio::try_join!(reading, decoding);
    bar.finish_and_clear();
    let tally = done?.1;
    let unreadable: u64 = tally.unreadable.values().sum();
    if let Some(why) = tally.unreadable.keys().next().filter(|_| unreadable == tally.records) {
        anyhow::bail!(
            "none of {} can be decoded: {why} ([registry] url = {})",
            count(tally.records, "record"),
            registry.url()
        );
    }
    for (why, times) in &tally.unreadable {
        note(&format!("{} skipped: {why}", count(*times, "record")))?;
    }
    Ok(Some(tally))
}

/// Decodes a record and passes it to `each`. The inner error is the reason why it cannot be decoded.
async fn process(
    decoder: &mut Decoder,
    record: &Fetched,
    each: &mut impl FnMut(DecodedRecord<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Result<(), String>> {
    let Some(value) = record.value.as_deref() else { return Ok(Err("tombstones".into())) };
    let (schema, avro) = match decoder.writer(value).await {
        Ok(found) => found,
        Err(Decoded::Unreadable { schema_id, why }) => return Ok(Err(format!("schema {schema_id}: {why}"))),
        Err(_) => return Ok(Err("no schema id at the start".into())),
    };
    let Some(json) = decode::json(&schema.parsed, avro) else {
        return Ok(Err(format!("schema {}: the value does not match its schema", schema.id)));
    };
    each(DecodedRecord { topic: &record.topic, time: record.timestamp_ms, schema: &schema, json: &json })?;
    Ok(Ok(()))
}

/// `1 record`, `4,102 records`.
pub(super) fn count(n: u64, what: &str) -> String {
    format!("{} {what}{}", indicatif::HumanCount(n), if n == 1 { "" } else { "s" })
}
