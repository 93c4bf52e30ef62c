//! Checks the topics: which exist, their settings, and whether `serve` may create the missing ones.

use std::collections::{BTreeMap, BTreeSet};

use super::within;
use crate::cli::check::{CheckState, CheckedPart};
use crate::config::LoadedConfig;
use crate::kafka::{Admin, Cluster, NewTopic, TopicDescription, TopicError};
use crate::observe::health;
use crate::provision::{
    IN_MEMORY, desired_topics, ending, fix_command, grants, judge, lasting, mend, non_compacted_topics,
    takes_less,
};
use crate::sources::Sources;

/// Checks missing topics and, for existing ones, durability, maximum record size, retention and compaction: one part
/// for each.
pub(super) async fn check(
    loaded: &LoadedConfig,
    sources: &Sources,
    admin: &Admin,
    cluster: &Cluster,
) -> Vec<CheckedPart> {
    let desired = desired_topics(&loaded.config, sources, cluster.brokers);
    let (existing, missing) = cluster.split(desired);
    let mut names: Vec<String> = existing.iter().map(|topic| topic.name.clone()).collect();
    // The topics of replayed dead letters too, if they exist.
    names.extend(lasting(sources).into_iter().filter(|topic| cluster.topics.contains_key(topic)));
    names.sort();
    names.dedup();
    let mut parts = vec![creation(loaded, sources, admin, existing.len(), &missing).await];
    if existing.is_empty() {
        return parts;
    }
    if within("Kafka", admin.is_in_memory()).await.unwrap_or_default() {
        parts.push(CheckedPart::new("durability", CheckState::Degraded, IN_MEMORY));
        return parts;
    }
    match within("settings of the topics: Kafka", admin.topic_descriptions(&names)).await {
        Ok(shapes) => {
            parts.push(durability(&shapes));
            parts.extend(sizes(&existing, &shapes));
            parts.extend(retention(loaded, sources, &shapes));
            parts.extend(compaction(sources, &shapes, &loaded.config.kafka.bootstrap_servers));
        }
        // A denied topic is among the descriptions, without its settings: this is another fault.
        Err(error) => {
            parts.push(CheckedPart::new("durability", CheckState::No, format!("unknown: {error:#}")));
        }
    }
    parts
}

async fn creation(
    loaded: &LoadedConfig,
    sources: &Sources,
    admin: &Admin,
    existing: usize,
    missing: &[NewTopic],
) -> CheckedPart {
    let all = existing + missing.len();
    if missing.is_empty() {
        return CheckedPart::new("topics", CheckState::Ok, format!("{existing} of {all}"));
    }
    let refused = within("permission to create them: Kafka", admin.refusals(missing)).await;
    let is_hidden =
        |name: &str| refused.iter().flatten().any(|refusal| refusal.hidden && refusal.topic == name);
    let hidden = missing.iter().filter(|topic| is_hidden(&topic.name)).count();
    let mut head = format!("{existing} of {all}, {} missing", missing.len() - hidden);
    if hidden > 0 {
        head.push_str(&format!(", {hidden} not visible"));
    }
    let no = |why: String| CheckedPart::new("topics", CheckState::No, format!("{head}{why}"));
    let part = match &refused {
        Err(error) => no(format!("; {error:#}")),
        Ok(refused) if !refused.is_empty() => refusal(loaded, sources, refused, no),
        Ok(_) if loaded.config.provision.on_start => CheckedPart::new(
            "topics",
            CheckState::Ok,
            format!("{head}: `serve` creates them and has permission"),
        ),
        Ok(_) => no(", and [provision] on_start is false".into())
            .next("create them, or set on_start = true: hookstream has permission to create them"),
    };
    let details = missing.iter().map(|NewTopic { name, .. }| match is_hidden(name) {
        true => format!("hidden   {name}"),
        false => format!("missing  {name}"),
    });
    CheckedPart { details: details.collect(), ..part }
}

/// The part for topics that cannot be created, because hookstream lacks an authorization or for another reason.
fn refusal(
    loaded: &LoadedConfig,
    sources: &Sources,
    refused: &[TopicError],
    no: impl Fn(String) -> CheckedPart,
) -> CheckedPart {
    let topics = |is: fn(&TopicError) -> bool| {
        let topics = refused.iter().filter(|refusal| is(refusal));
        topics.map(|refusal| &*refusal.topic).collect::<BTreeSet<&str>>()
    };
    let (denied, hidden) = (topics(|refusal| refusal.denied), topics(|refusal| refusal.hidden));
    let named = refused.iter().filter(|refusal| refusal.hidden || !refusal.denied);
    let named = named.map(|TopicError { topic, why, .. }| format!("{topic} ({why})")).collect::<Vec<_>>();
    let mut text = String::new();
    if !denied.is_empty() {
        text.push_str(", Create denied");
    }
    if !named.is_empty() {
        text.push_str(&format!("; could not be created: {}", named.join(", ")));
    }
    let grants = [("Describe", &hidden), ("Create", &denied)]
        .into_iter()
        .flat_map(|(operation, topics)| grants(loaded, sources, operation, topics));
    grants.fold(no(text), |part, grant| part.next(format!("grant with: {grant}")))
}

/// The durability of existing topics, by their actual settings.
fn durability(shapes: &BTreeMap<String, TopicDescription>) -> CheckedPart {
    let copies = shapes.iter().map(|(topic, shape)| (topic.clone(), Some(shape.copies))).collect();
    let part = match judge(&copies) {
        (health::PartState::Ok, _) => {
            CheckedPart::new("durability", CheckState::Ok, "at least 2 copies of each acknowledged record")
        }
        (health::PartState::Unknown, why) => CheckedPart::new("durability", CheckState::No, why)
            .next("grant DescribeConfigs on the topics to hookstream's user"),
        (_, why) => CheckedPart::new("durability", CheckState::Degraded, why)
            .next("give the topics 3 replicas and min.insync.replicas 2, if there are enough brokers"),
    };
    CheckedPart { details: details(shapes), ..part }
}

/// Topics whose maximum record size is below that of the largest possible record; `None` if there are none.
fn sizes(desired: &[NewTopic], shapes: &BTreeMap<String, TopicDescription>) -> Option<CheckedPart> {
    let small = desired.iter().filter_map(|topic| {
        let (actual, desired) = takes_less(topic, shapes.get(&topic.name)?)?;
        Some(format!("{} (max.message.bytes {actual}, records may have {desired})", topic.name))
    });
    let small: Vec<String> = small.collect();
    let text = || format!("large deliveries stay in the spool or become dead letters: {}", small.join(", "));
    let next = "`hookstream provision --apply` raises max.message.bytes";
    (!small.is_empty()).then(|| CheckedPart::new("sizes", CheckState::Degraded, text()).next(next))
}

/// Topics from which Kafka deletes records that must last, or too soon; `None` if there are none.
fn retention(
    loaded: &LoadedConfig,
    sources: &Sources,
    shapes: &BTreeMap<String, TopicDescription>,
) -> Option<CheckedPart> {
    let ending = ending(sources, shapes, &loaded.config.spool);
    let servers = &loaded.config.kafka.bootstrap_servers;
    let why: Vec<&str> = ending.iter().map(|(_, why)| &**why).collect();
    let part = CheckedPart::new("retention", CheckState::Degraded, why.join("; "));
    let part = ending.iter().fold(part, |part, (topic, _)| part.next(mend(topic, servers)));
    (!ending.is_empty()).then_some(part)
}

/// Topics whose key is not the event id and so must not compact; `None` if there are none.
fn compaction(
    sources: &Sources,
    shapes: &BTreeMap<String, TopicDescription>,
    servers: &str,
) -> Option<CheckedPart> {
    let topics: Vec<_> = non_compacted_topics(sources).into_iter().map(|(topic, _)| topic).collect();
    let there = topics.iter().filter_map(|topic| Some((&**topic, shapes.get(&**topic)?.compacts())));
    let (mut kept, mut compacting, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for (topic, compacts) in there {
        match compacts {
            Some(false) => kept.push(topic),
            Some(true) => compacting.push(topic),
            None => unknown.push(topic),
        }
    }
    let no = |text: String| CheckedPart::new("compaction", CheckState::No, text);
    if !compacting.is_empty() {
        let text = "on although the key identifies more than one event: `serve` answers 503 for";
        let part = no(format!("{text} {}", compacting.join(", ")));
        return Some(compacting.iter().fold(part, |part, topic| part.next(fix_command(topic, servers))));
    }
    if !unknown.is_empty() {
        let part = no(format!("unknown; `serve` answers 503 until it is known: {}", unknown.join(", ")));
        return Some(part.next("grant DescribeConfigs on the topics to hookstream's user"));
    }
    let text = format!("off, as required if the key identifies more than one event: {}", kept.join(", "));
    (!kept.is_empty()).then(|| CheckedPart::new("compaction", CheckState::Ok, text))
}

fn details(shapes: &BTreeMap<String, TopicDescription>) -> Vec<String> {
    let width = shapes.keys().map(String::len).max().unwrap_or_default();
    let line = |(topic, shape): (&String, &TopicDescription)| {
        let min = shape.copies.min_insync.map_or_else(|| "?".to_owned(), |min| min.to_string());
        format!(
            "{topic:<width$}  partitions {}, replication {}, min.insync.replicas {min}, cleanup.policy {}",
            shape.partitions,
            shape.copies.replication,
            shape.cleanup_policy().unwrap_or("?")
        )
    };
    shapes.iter().map(line).collect()
}
