//! Pure functions for every name derived from source and event type: topic, dead-letter topic, subject, schema file,
//! Avro name.

/// Kafka's limit on the length of a topic name.
pub const MAX_TOPIC: usize = 249;

/// The prefix of hookstream's own headers, in HTTP and in records. No rule may read one as a provider's: in a dead letter
/// it would be among hookstream's own.
pub const HEADER_PREFIX: &str = "hookstream-";

/// Whether `name` is valid for a source: it appears in the URL, in topics and in file names.
pub fn is_source(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
        && name.len() <= 64
        && name != "dead_letter"
}

/// `<source>.<event_type>`; characters that Kafka does not allow in a topic become `-`.
pub fn topic(source: &str, event_type: &str) -> String {
    let mut topic = format!("{source}.");
    topic.extend(event_type.chars().map(|c| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => c,
        _ => '-',
    }));
    topic
}

/// Replaces the event type for all types without a topic of their own.
pub const UNMAPPED: &str = "unmapped";

/// `dead_letter.<source>`: outside the source's prefix, so that a consumer of `<source>\..*` reads typed Avro only.
pub fn dead_letter_topic(source: &str) -> String {
    format!("dead_letter.{source}")
}

/// `dead_letter.<source>.replayed`: the results of replaying dead letters. No event topic has this prefix, since no
/// source is called `dead_letter`; `.` and `_` are compared with the other topics.
pub fn replayed_topic(source: &str) -> String {
    format!("{}.replayed", dead_letter_topic(source))
}

/// The source of an event topic or a dead-letter topic. Source names contain no dot.
pub fn source_of(topic: &str) -> &str {
    let rest = topic.strip_prefix("dead_letter.").unwrap_or(topic);
    rest.split_once('.').map_or(rest, |(source, _)| source)
}

/// The subject of a topic's values: Confluent's TopicNameStrategy.
pub fn subject(topic: &str) -> String {
    format!("{topic}-value")
}

/// The schema files that may serve an event type, in order of preference: its own, then those of its ever shorter
/// dotted prefixes (`batch_prediction.avsc` serves `batch_prediction.completed`). File names without directory.
pub fn schema_files(event_type: &str) -> impl Iterator<Item = String> + '_ {
    let clean = |prefix: &str| {
        let stem: String = prefix
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
            .collect();
        format!("{stem}.avsc")
    };
    let ends = std::iter::once(event_type.len()).chain(event_type.rmatch_indices('.').map(|(at, _)| at));
    ends.filter_map(|end| event_type.get(..end)).filter(|prefix| !prefix.is_empty()).map(clean)
}

/// The full Avro name for a schema file (given without `.avsc`): `hookstream.<source>.<Name>`. Avro names must begin
/// with a letter, so a name without letters, or with a digit first, gets the prefix `Event`.
pub fn avro_name(source: &str, stem: &str) -> String {
    format!("{}.{}", avro_namespace(source), avro_record(stem))
}

/// `hookstream.<source>`
pub fn avro_namespace(source: &str) -> String {
    format!("hookstream.{}", source.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
}

/// The last part of [`avro_name`].
pub fn avro_record(stem: &str) -> String {
    let mut name = String::new();
    for word in stem.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let mut chars = word.chars();
        name.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        name.push_str(chars.as_str());
    }
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("Event{name}") }
}

/// The form in which Kafka compares topics for collisions: its metric names do not distinguish `.` from `_`.
pub fn collision_key(topic: &str) -> String {
    topic.replace('.', "_")
}

/// Whether a name matches a pattern: `*` matches any characters, dots too; everything else matches itself.
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let Some((middles, end)) = rest.rsplit_once('*') else { return name.ends_with(rest) };
    // The leftmost match of each part leaves the most text for the parts after it.
    for middle in middles.split('*') {
        let Some(at) = name.find(middle) else { return false };
        name = name.get(at + middle.len()..).unwrap_or_default();
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_and_type_lead_to_every_name() {
        let topic = topic("datagrid", "batch_prediction.completed");
        assert_eq!(topic, "datagrid.batch_prediction.completed");
        assert_eq!(subject(&topic), "datagrid.batch_prediction.completed-value");
        assert_eq!(source_of(&topic), "datagrid");
        assert_eq!(source_of(&dead_letter_topic("my-shop")), "my-shop");
        assert_eq!(source_of(&replayed_topic("my-shop")), "my-shop");
        assert_eq!(super::topic("shop", "orders/create ü"), "shop.orders-create--");
        assert_eq!(dead_letter_topic("datagrid"), "dead_letter.datagrid");
        assert_eq!(
            avro_name("datagrid", "knowledge.processing.completed"),
            "hookstream.datagrid.KnowledgeProcessingCompleted"
        );
        assert_eq!(avro_name("my-shop", "batch_prediction"), "hookstream.my_shop.BatchPrediction");
        assert_eq!(avro_name("shop", "2fa.enabled"), "hookstream.shop.Event2faEnabled");
        assert_eq!(avro_name("shop", "ü"), "hookstream.shop.Event");
        let files: Vec<_> = schema_files("a.b.c/d").collect();
        assert_eq!(files, ["a.b.c-d.avsc", "a.b.avsc", "a.avsc"]);
        assert_eq!(collision_key("a.b_c"), collision_key("a_b.c"));
    }

    #[test]
    fn source_names_are_narrow() {
        for good in ["datagrid", "my-shop", "a1_b"] {
            assert!(is_source(good), "{good}");
        }
        for bad in ["", "Datagrid", "1a", "a.b", "a/b", "dead_letter", "ü", &"a".repeat(65)] {
            assert!(!is_source(bad), "{bad}");
        }
    }

    #[test]
    fn a_star_stands_for_anything_and_all_else_for_itself() {
        for (pattern, topic) in [
            ("a.b", "a.b"),
            ("*", "a.b"),
            ("a*", "a"),
            ("a.*", "a.b.c"),
            ("*.c", "a.b.c"),
            ("a*c", "abcbc"),
            ("*b*b*", "abab"),
            ("a*b*c", "a-b-b-c"),
            ("**", "x"),
        ] {
            assert!(matches(pattern, topic), "{pattern} {topic}");
        }
        for (pattern, topic) in [
            ("a.b", "a-b"),
            ("a.*", "ab"),
            ("*.c", "a.cd"),
            ("aa*aa", "aaa"),
            ("*b*b", "ab"),
            ("a*b*c", "acb"),
        ] {
            assert!(!matches(pattern, topic), "{pattern} {topic}");
        }
    }
}
