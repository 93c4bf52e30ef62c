//! Reads every topic and counts deliveries that were answered 2xx but are missing, records without a valid signature, and
//! records that differ from what was sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use anyhow::Context as _;
use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use rdkafka::message::{Headers as _, Message as _};
use serde_json::Value;

use crate::deliveries::{self, Fate};
use crate::registry::Registry;
use crate::senders::{Accepted, Ledger};
use crate::support::kafka;
use crate::tree;

/// A consumed record.
#[derive(Debug)]
pub struct Found {
    topic: String,
    key: Vec<u8>,
    value: Vec<u8>,
    /// The reason of a dead letter.
    reason: Option<String>,
}

/// Reads a topic up to its current end.
pub async fn read(bootstrap: &str, topic: &str) -> anyhow::Result<Vec<Found>> {
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
    let read = move || {
        let mut found = Vec::new();
        kafka::records(&bootstrap, &topic, |message| {
            let bytes = |part: Option<&[u8]>| part.unwrap_or_default().to_vec();
            let (key, value) = (bytes(message.key()), bytes(message.payload()));
            let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
            let reason =
                headers.filter(|header| header.key == "hookstream-reason").find_map(|header| header.value);
            let reason = reason.map(|reason| String::from_utf8_lossy(reason).into_owned());
            found.push(Found { topic: topic.clone(), key, value, reason });
        });
        found
    };
    tokio::task::spawn_blocking(read).await.context("a topic could not be read")
}

/// A deleted topic, and the time of its deletion: records acknowledged within that time may be deleted with it.
#[derive(Debug)]
pub struct Deleted {
    /// The topic's name.
    pub topic: String,
    /// The start: just before the topic was read for the last time.
    pub from: Duration,
    /// The end: when all brokers had deleted it.
    pub until: Duration,
    /// The keys of the spool's rows for the topic after that: they have yet to be published, and are never excused.
    pub in_spool: BTreeSet<String>,
}

impl Deleted {
    /// Whether a record that was acknowledged then may have been deleted with the topic.
    fn excuses(&self, topic: &str, key: &str, at: Duration) -> bool {
        self.topic == topic && (self.from..self.until).contains(&at) && !self.in_spool.contains(key)
    }
}

/// The result of the count.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Records read.
    pub records: u64,
    /// Records beyond the first of a delivery.
    pub duplicates: u64,
    /// Answered 2xx, and parked in the spool.
    pub parked: u64,
    /// Answered 2xx, and deleted with their topic.
    pub gone_with_topic: u64,
    /// Answered 2xx, but stored nowhere.
    pub lost: Vec<String>,
    /// Stored without a valid signature.
    pub forged: Vec<String>,
    /// Different from what was sent, or in the wrong topic.
    pub wrong: Vec<String>,
}

/// The expectations for every record and every answer.
#[derive(Debug)]
pub struct Judge<'a> {
    /// The seed of the deliveries.
    pub seed: u64,
    /// Deliveries that were sent.
    pub sent: u64,
    /// The topics that were deleted.
    pub deleted: &'a [Deleted],
    /// Keys of parked rows.
    pub parked: &'a BTreeSet<String>,
}

impl Judge<'_> {
    /// Compares all records with the deliveries. Every schema comes from the registry, as for consumers.
    pub async fn count(
        &self,
        ledger: &Ledger,
        found: &[Found],
        registry: &Registry,
    ) -> anyhow::Result<Verdict> {
        let mut verdict = Verdict { records: found.len() as u64, ..Verdict::default() };
        let schemas = schemas(found, registry).await?;
        // By key for events, by body for dead letters.
        let mut events: HashMap<Vec<u8>, u64> = HashMap::new();
        let mut letters: HashMap<[u8; 32], u64> = HashMap::new();
        for n in 0..self.sent {
            let delivery = deliveries::make(self.seed, n);
            match delivery.fate {
                Fate::Event { key, .. } => drop(events.insert(key.into_bytes(), n)),
                Fate::DeadLetter { .. } => drop(letters.insert(deliveries::digest(&delivery.body), n)),
                Fate::Forged => {}
            }
        }
        let mut copies: BTreeMap<u64, u64> = BTreeMap::new();
        for record in found {
            let n = match record.topic.starts_with("dead_letter.") {
                true => letters.get(&deliveries::digest(&record.value)),
                false => events.get(&record.key),
            };
            let Some(n) = n else {
                verdict.forged.push(format!("{}: a record without a valid signature", record.topic));
                continue;
            };
            *copies.entry(*n).or_default() += 1;
            if let Err(error) = self.judge(*n, record, &schemas) {
                verdict.wrong.push(format!("delivery {n} in {}: {error:#}", record.topic));
            }
        }
        verdict.duplicates = copies.values().map(|copies| copies - 1).sum();
        for (n, accepted) in ledger.accepted.iter().filter(|(n, _)| !copies.contains_key(n)) {
            let delivery = deliveries::make(self.seed, *n);
            let Fate::Event { topic, key, .. } = &delivery.fate else {
                verdict.lost.push(format!("delivery {n}, a dead letter, answered {}", accepted.status));
                continue;
            };
            if self.parked.contains(key) {
                verdict.parked += 1;
            } else if self.deleted.iter().any(|gone| gone.excuses(topic, key, accepted.at)) {
                verdict.gone_with_topic += 1;
            } else {
                let Accepted { at, status } = accepted;
                verdict.lost.push(format!("delivery {n} for {topic}, answered {status} after {at:.1?}"));
            }
        }
        Ok(verdict)
    }

    /// Checks that a record is the expected outcome of its delivery.
    fn judge(&self, n: u64, record: &Found, schemas: &BTreeMap<u32, Schema>) -> anyhow::Result<()> {
        let delivery = deliveries::make(self.seed, n);
        match &delivery.fate {
            Fate::Event { topic, tree, .. } => {
                anyhow::ensure!(*topic == record.topic, "belongs in {topic}");
                let id = schema_id(&record.value).context("not in the wire format")?;
                let mut rest = record.value.get(5..).unwrap_or_default();
                let schema = schemas.get(&id).context("no schema")?;
                let value = GenericDatumReader::builder(schema).build()?.read_value(&mut rest)?;
                anyhow::ensure!(rest.is_empty(), "bytes after the value");
                let mut sent: Value = tree.clone();
                tree::drop_nulls(&mut sent);
                let back = tree::sent(&value, delivery.source)?;
                anyhow::ensure!(back == sent, "differs from what was sent");
            }
            Fate::DeadLetter { reason } => {
                let topic = format!("dead_letter.{}", delivery.source);
                anyhow::ensure!(topic == record.topic, "belongs in {topic}");
                let found = record.reason.as_deref();
                anyhow::ensure!(found == Some(reason), "a dead letter for {found:?}, not for {reason}");
            }
            Fate::Forged => anyhow::bail!("forged"),
        }
        Ok(())
    }
}

fn schema_id(value: &[u8]) -> Option<u32> {
    let (0, rest) = value.split_first()? else { return None };
    Some(u32::from_be_bytes(*rest.first_chunk()?))
}

/// The schemas of all records.
async fn schemas(found: &[Found], registry: &Registry) -> anyhow::Result<BTreeMap<u32, Schema>> {
    let events = found.iter().filter(|record| !record.topic.starts_with("dead_letter."));
    let ids: BTreeSet<u32> = events.filter_map(|record| schema_id(&record.value)).collect();
    let mut schemas = BTreeMap::new();
    for id in ids {
        let text = registry.schema(id).await.with_context(|| format!("the registry has no schema {id}"))?;
        schemas.insert(id, Schema::parse_str(&text)?);
    }
    Ok(schemas)
}
