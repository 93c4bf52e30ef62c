//! The outcomes of letters that were replayed before.

use std::collections::{BTreeMap, HashMap};

use super::letters::Letters;
use crate::client::JsonObject;
use crate::kafka::{ClusterConfig, Fetched, Start};
use crate::names;
use crate::outcome::Reason;
use crate::record::{RecordId, ReplayOutcome};

/// The last outcome of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastOutcome {
    /// Nothing is left to do.
    Done,
    /// It failed again, for a reason that this version may not know.
    Failed(Option<Reason>),
}

/// Outcomes by partition and offset: about 20 bytes for each replayed letter.
#[derive(Debug, Default)]
pub(super) struct History(HashMap<(i32, i64), LastOutcome>);

impl History {
    /// Reads the topic of outcomes, if there is one.
    pub(super) async fn read(
        kafka: &ClusterConfig,
        there: &BTreeMap<String, i32>,
        source: &str,
    ) -> anyhow::Result<Self> {
        let (topic, letters) = (names::replayed_topic(source), names::dead_letter_topic(source));
        let Some(&count) = there.get(&topic) else { return Ok(Self::default()) };
        let partitions: Vec<_> = (0..count).map(|partition| (topic.clone(), partition)).collect();
        let mut past = Self::default();
        let outcomes = Letters::new(kafka, &partitions, Start::Beginning).await?;
        outcomes
            .each(|record| {
                // All outcomes of a letter have the same key, so they are in one partition, in order.
                past.0.extend(said(&record, &letters));
                Ok(())
            })
            .await?;
        Ok(past)
    }

    pub(super) fn of(&self, record: &Fetched) -> Option<LastOutcome> {
        self.0.get(&(record.partition, record.offset)).copied()
    }

    #[cfg(test)]
    pub(super) fn with(entries: impl IntoIterator<Item = ((i32, i64), LastOutcome)>) -> Self {
        Self(entries.into_iter().collect())
    }
}

/// Parses an outcome and the letter that it is about. `None` if hookstream did not write it for these letters.
fn said(record: &Fetched, letters: &str) -> Option<((i32, i64), LastOutcome)> {
    let place = RecordId::parse(std::str::from_utf8(record.key.as_deref()?).ok()?)?;
    let JsonObject::<ReplayOutcome<'_>>(replayed) = serde_json::from_slice(record.value.as_deref()?).ok()?;
    let said = if replayed.is_done() {
        LastOutcome::Done
    } else {
        LastOutcome::Failed(replayed.reason.as_deref().and_then(Reason::from_label))
    };
    (*place.topic == *letters).then_some(((place.partition, place.offset), said))
}

#[cfg(test)]
mod tests {
    use super::super::selection::tests::record;
    use super::*;

    #[test]
    fn an_outcome_speaks_for_the_letter_of_its_key_only() {
        let told = |key: &str, value: &str| {
            said(&Fetched { value: Some(value.into()), ..record("", key, 0) }, "dead_letter.a")
        };
        let published = r#"{"outcome":"published","topic":"a.b","partition":1,"offset":9,"at":"x","new":1}"#;
        assert_eq!(told("dead_letter.a/2/41", published), Some(((2, 41), LastOutcome::Done)));
        let failed = r#"{"outcome":"failed","reason":"id_missing","at":"x"}"#;
        let expected = LastOutcome::Failed(Some(Reason::IdMissing));
        assert_eq!(told("dead_letter.a/2/41", failed), Some(((2, 41), expected)));
        for (key, value) in
            [("dead_letter.b/2/41", published), ("2/41", published), ("dead_letter.a/2/41", "")]
        {
            assert_eq!(told(key, value), None, "{key} {value}");
        }
    }
}
