use super::*;
use crate::kafka::{Copies, TopicSetting};
use crate::schema::promoted_fields::Promoted;
use crate::schema::registry::Listing;
use crate::schema::{SchemaEntry, shipped};

const SAFE: Allowed = Allowed { repartition: false, removal: false };
const ALL: Allowed = Allowed { repartition: true, removal: true };

fn desired(policy: &str, retention: &str) -> NewTopic {
    NewTopic {
        name: "a.b".into(),
        partitions: 6,
        replication: 3,
        config: vec![
            ("min.insync.replicas", "2".into()),
            ("max.message.bytes", "2000000".into()),
            ("cleanup.policy", policy.into()),
            ("retention.ms", retention.into()),
        ],
    }
}

/// A topic as in `desired("compact,delete", "1000")`, with these overrides.
fn actual(overrides: &[(&str, &str)]) -> TopicDescription {
    let base = [
        ("min.insync.replicas", "2"),
        ("max.message.bytes", "2000000"),
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "1000"),
    ];
    let settings = base
        .iter()
        .chain(overrides)
        .map(|(key, value)| ((*key).to_owned(), TopicSetting { value: (*value).to_owned(), own: true }));
    let copies = Copies { replication: 3, min_insync: Some(2) };
    TopicDescription { partitions: 6, copies, settings: settings.collect() }
}

/// `CHANGE` or `left` for the only difference, or an empty string.
fn outcome(item: &Item) -> &'static str {
    match (item.changes.len(), item.left.len(), item.action) {
        (0, 0, PlanAction::Keep) => "",
        (0, 1, PlanAction::Keep) => "left",
        (1, 0, PlanAction::Change) => "CHANGE",
        _ => panic!("{item:?}"),
    }
}

#[test]
fn settings_that_would_lose_records_or_copies_stay_and_all_others_are_changed() {
    // Desired policy and retention; the actual setting; the outcome without and with all flags.
    let cases = [
        ("compact,delete", "1000", "cleanup.policy", "delete, compact", "", ""),
        ("compact,delete", "1000", "cleanup.policy", "delete", "left", "CHANGE"),
        ("compact,delete", "1000", "cleanup.policy", "compact", "left", "CHANGE"),
        ("delete", "1000", "cleanup.policy", "compact,delete", "CHANGE", "CHANGE"),
        ("delete", "1000", "cleanup.policy", "compact", "CHANGE", "CHANGE"),
        ("compact,delete", "1000", "retention.ms", "999", "CHANGE", "CHANGE"),
        ("compact,delete", "1000", "retention.ms", "1001", "left", "CHANGE"),
        ("compact,delete", "1000", "retention.ms", "-1", "left", "CHANGE"),
        ("compact,delete", "-1", "retention.ms", "1000", "CHANGE", "CHANGE"),
        ("compact,delete", "1000", "min.insync.replicas", "1", "CHANGE", "CHANGE"),
        ("compact,delete", "1000", "min.insync.replicas", "3", "left", "left"),
        ("compact,delete", "1000", "max.message.bytes", "1999999", "CHANGE", "CHANGE"),
        ("compact,delete", "1000", "max.message.bytes", "2000001", "left", "left"),
    ];
    for (policy, retention, key, value, safe, all) in cases {
        for (allowed, expected) in [(SAFE, safe), (ALL, all)] {
            let item = topic(&desired(policy, retention), Some(&actual(&[(key, value)])), allowed);
            assert_eq!(outcome(&item), expected, "{policy} {retention}: {key} {value}, {allowed:?}");
            assert_eq!(item.steps.is_empty(), expected != "CHANGE", "{item:?}");
        }
    }
}

#[test]
fn k10_a_topic_with_fewer_replicas_than_min_insync_replicas_is_not_called_safer() {
    let mut short = actual(&[("min.insync.replicas", "2")]);
    short.copies = Copies { replication: 1, min_insync: Some(2) };
    let item = topic(&desired("compact,delete", "1000"), Some(&short), ALL);
    let left = item.left.iter().find(|left| left.setting == "min.insync.replicas").unwrap();
    assert_eq!((&*left.actual, &*left.wished), ("2", "1"));
    assert!(left.why.contains("brokers before Kafka 4 accept no record"), "{left:?}");
    assert!(item.steps.is_empty(), "more replicas may be what is wanted: {item:?}");
}

#[test]
fn partitions_grow_only_with_the_flag_and_replicas_never_move() {
    let mut few = actual(&[]);
    few.partitions = 3;
    assert_eq!(outcome(&topic(&desired("compact,delete", "1000"), Some(&few), SAFE)), "left");
    let item = topic(&desired("compact,delete", "1000"), Some(&few), ALL);
    assert_eq!((outcome(&item), &item.steps[..]), ("CHANGE", &[PlanStep::Partitions("a.b".into(), 6)][..]));
    few.partitions = 9;
    assert_eq!(outcome(&topic(&desired("compact,delete", "1000"), Some(&few), ALL)), "left");

    // With one replica, two can never be in sync.
    let mut one = actual(&[("min.insync.replicas", "1")]);
    one.copies.replication = 1;
    let item = topic(&desired("compact,delete", "1000"), Some(&one), ALL);
    assert_eq!((outcome(&item), &*item.left[0].setting), ("left", "replication"));
}

#[test]
fn settings_made_by_others_are_listed_and_an_unreadable_configuration_is_a_fault() {
    let mut description = actual(&[("segment.ms", "500")]);
    description.settings.insert("flush.ms".into(), TopicSetting { value: "1".into(), own: false });
    let item = topic(&desired("compact,delete", "1000"), Some(&description), SAFE);
    assert_eq!(outcome(&item), "");
    assert_eq!(item.foreign, BTreeMap::from([("segment.ms".into(), "500".into())]));

    description.settings.clear();
    let item = topic(&desired("compact,delete", "1000"), Some(&description), SAFE);
    assert!(item.unknown && item.faults.len() == 1 && item.steps.is_empty(), "{item:?}");
}

#[test]
fn a_missing_topic_is_created_with_all_settings() {
    let item = topic(&desired("delete", "-1"), None, SAFE);
    assert_eq!((item.action, item.changes.len()), (PlanAction::Create, 6));
    assert_eq!(item.steps, [PlanStep::Create(desired("delete", "-1"))]);
}

fn local(level: CompatibilityLevel) -> SchemaEntry {
    let text = shipped::generic("a", "b");
    let schema = shipped::parse(&text).unwrap();
    let (source, event_type) = ("a".into(), "b".into());
    SchemaEntry { subject: "s".into(), source, event_type, level, file: None, text, schema }
}

fn registered(listing: Listing, level: Option<&str>) -> RegisteredSubject {
    let latest = Latest { version: 3, fields: Vec::new(), promoted: Vec::new(), demoted: Vec::new() };
    let latest = matches!(listing, Listing::Other { .. }).then_some(latest);
    RegisteredSubject { listing, level: level.map(str::to_owned), latest }
}

fn compatible() -> Listing {
    Listing::Other { compatible: true, why: Vec::new() }
}

#[test]
fn a_subject_gets_its_level_before_its_schema_and_no_incompatible_schema() {
    let local = local(CompatibilityLevel::FullTransitive);
    let subject = |registered| subject(&local, registered, true);
    let item = subject(registered(Listing::NoSubject, None));
    assert_eq!((item.action, item.steps.len()), (PlanAction::Create, 1));
    let item = subject(registered(Listing::Registered(1), Some("FULL_TRANSITIVE")));
    assert_eq!((item.action, item.steps.len()), (PlanAction::Keep, 0));

    let item = subject(registered(compatible(), Some("BACKWARD")));
    let level = CompatibilityLevel::FullTransitive;
    let register = PlanStep::Register { subject: "s".into(), schema: local.text.clone(), level };
    assert_eq!(
        (item.action, &item.steps[..]),
        (PlanAction::Change, &[PlanStep::Level("s".into(), level), register][..])
    );
    assert_eq!(item.changes[1].note.as_deref(), Some("BACKWARD: compatible"));
    assert_eq!(item.notes.len(), 1, "the fields are the same");

    let why = vec!["field x".to_owned()];
    let item = subject(registered(Listing::Other { compatible: false, why }, Some("FULL_TRANSITIVE")));
    assert_eq!((item.action, item.steps.len(), &*item.faults[1]), (PlanAction::Keep, 0, "field x"));
}

#[test]
fn the_configured_level_is_set_even_if_the_actual_one_is_stricter() {
    let local = local(CompatibilityLevel::BackwardTransitive);
    let item = subject(&local, registered(Listing::Registered(1), Some("FULL_TRANSITIVE")), true);
    assert_eq!(item.steps, [PlanStep::Level("s".into(), CompatibilityLevel::BackwardTransitive)]);
    assert_eq!(item.changes[0].to, "BACKWARD_TRANSITIVE");
    let item = subject(&local, registered(Listing::Registered(1), None), true);
    assert_eq!(item.changes[0].from.as_deref(), Some("the registry's default"));
}

#[test]
fn without_auto_register_a_missing_schema_is_reported_and_nothing_is_done() {
    let local = local(CompatibilityLevel::FullTransitive);
    for listing in [Listing::NoSubject, compatible()] {
        let item = subject(&local, registered(listing, Some("FULL_TRANSITIVE")), false);
        assert_eq!((item.action, item.steps.len(), item.faults.len()), (PlanAction::Keep, 0, 1), "{item:?}");
        assert!(item.faults[0].contains("`hookstream provision --apply -X registry.auto_register=true`"));
    }
    let item = subject(&local, registered(Listing::Registered(1), Some("NONE")), false);
    assert_eq!((item.faults.len(), &*item.left[0].setting, item.steps.len()), (0, "compatibility", 0));
}

#[test]
fn notes_name_what_moves_out_of_additional_fields_and_into_it() {
    let moved = |name: &str| Promoted {
        pointer: format!("/data/{name}"),
        field: format!("data.{name}"),
        is: "string".into(),
    };
    let field = |name: &str| FieldChange { field: name.into(), from: None, to: Some("string".into()) };
    let latest = Latest {
        version: 3,
        fields: vec![field("data.new")],
        promoted: vec![moved("new")],
        demoted: vec![moved("gone")],
    };
    let item = subject(
        &local(CompatibilityLevel::FullTransitive),
        RegisteredSubject { latest: Some(latest), ..registered(compatible(), None) },
        true,
    );
    assert_eq!(
        item.notes,
        [
            "consumers that read additional_fields['/data/new'] get null from v4 on: COALESCE(data.new, ...), see docs/schemas.md",
            "consumers that read data.gone find it in additional_fields['/data/gone'] from v4 on",
        ]
    );
    assert_eq!(item.fields, [field("data.new")]);
}
