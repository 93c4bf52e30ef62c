use super::*;
use crate::kafka::{Copies, Setting};
use crate::schema::promoted_fields::Promoted;
use crate::schema::registry::Listing;
use crate::schema::{SchemaEntry, shipped};

const SAFE: Allowed = Allowed { repartition: false, removal: false };
const ALL: Allowed = Allowed { repartition: true, removal: true };

fn wished(policy: &str, retention: &str) -> NewTopic {
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

/// One that is as `wished("compact,delete", "1000")`, but for these.
fn actual(but: &[(&str, &str)]) -> TopicDescription {
    let base = [
        ("min.insync.replicas", "2"),
        ("max.message.bytes", "2000000"),
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "1000"),
    ];
    let settings = base
        .iter()
        .chain(but)
        .map(|(key, value)| ((*key).to_owned(), Setting { value: (*value).to_owned(), own: true }));
    let copies = Copies { replication: 3, min_insync: Some(2) };
    TopicDescription { partitions: 6, copies, settings: settings.collect() }
}

/// `CHANGE` or `left` for the only difference, or nothing.
fn verdict(item: &Item) -> &'static str {
    match (item.changes.len(), item.left.len(), item.action) {
        (0, 0, PlanAction::Keep) => "",
        (0, 1, PlanAction::Keep) => "left",
        (1, 0, PlanAction::Change) => "CHANGE",
        _ => panic!("{item:?}"),
    }
}

#[test]
fn what_would_lose_records_or_copies_is_left_alone_and_all_else_is_changed() {
    // Wished policy and retention; what is there; without and with every flag.
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
    for (policy, retention, key, is, safe, all) in cases {
        for (allowed, expected) in [(SAFE, safe), (ALL, all)] {
            let item = topic(&wished(policy, retention), Some(&actual(&[(key, is)])), allowed);
            assert_eq!(verdict(&item), expected, "{policy} {retention}: {key} {is}, {allowed:?}");
            assert_eq!(item.steps.is_empty(), expected != "CHANGE", "{item:?}");
        }
    }
}

#[test]
fn partitions_grow_with_the_flag_only_and_copies_never_move() {
    let mut few = actual(&[]);
    few.partitions = 3;
    assert_eq!(verdict(&topic(&wished("compact,delete", "1000"), Some(&few), SAFE)), "left");
    let item = topic(&wished("compact,delete", "1000"), Some(&few), ALL);
    assert_eq!((verdict(&item), &item.steps[..]), ("CHANGE", &[PlanStep::Partitions("a.b".into(), 6)][..]));
    few.partitions = 9;
    assert_eq!(verdict(&topic(&wished("compact,delete", "1000"), Some(&few), ALL)), "left");

    // With one replica two can never be in sync.
    let mut one = actual(&[("min.insync.replicas", "1")]);
    one.copies.replication = 1;
    let item = topic(&wished("compact,delete", "1000"), Some(&one), ALL);
    assert_eq!((verdict(&item), &*item.left[0].setting), ("left", "replication"));
}

#[test]
fn what_somebody_else_has_set_is_named_and_what_cannot_be_read_is_a_fault() {
    let mut shape = actual(&[("segment.ms", "500")]);
    shape.settings.insert("flush.ms".into(), Setting { value: "1".into(), own: false });
    let item = topic(&wished("compact,delete", "1000"), Some(&shape), SAFE);
    assert_eq!(verdict(&item), "");
    assert_eq!(item.foreign, BTreeMap::from([("segment.ms".into(), "500".into())]));

    shape.settings.clear();
    let item = topic(&wished("compact,delete", "1000"), Some(&shape), SAFE);
    assert!(item.unknown && item.faults.len() == 1 && item.steps.is_empty(), "{item:?}");
}

#[test]
fn a_missing_topic_is_created_whole() {
    let item = topic(&wished("delete", "-1"), None, SAFE);
    assert_eq!((item.action, item.changes.len()), (PlanAction::Create, 6));
    assert_eq!(item.steps, [PlanStep::Create(wished("delete", "-1"))]);
}

fn ours(level: CompatibilityLevel) -> SchemaEntry {
    let text = shipped::generic("a", "b");
    let schema = shipped::parse(&text).unwrap();
    let (source, event_type) = ("a".into(), "b".into());
    SchemaEntry { subject: "s".into(), source, event_type, level, file: None, text, schema }
}

fn known(listing: Listing, level: Option<&str>) -> RegisteredSubject {
    let latest = Latest { version: 3, fields: Vec::new(), promoted: Vec::new(), demoted: Vec::new() };
    let latest = matches!(listing, Listing::Other { .. }).then_some(latest);
    RegisteredSubject { listing, level: level.map(str::to_owned), latest }
}

fn fits() -> Listing {
    Listing::Other { compatible: true, why: Vec::new() }
}

#[test]
fn a_subject_gets_its_level_before_its_schema_and_one_that_does_not_fit_gets_none() {
    let ours = ours(CompatibilityLevel::FullTransitive);
    let subject = |known| subject(&ours, known, true);
    let item = subject(known(Listing::NoSubject, None));
    assert_eq!((item.action, item.steps.len()), (PlanAction::Create, 1));
    let item = subject(known(Listing::Registered(1), Some("FULL_TRANSITIVE")));
    assert_eq!((item.action, item.steps.len()), (PlanAction::Keep, 0));

    let item = subject(known(fits(), Some("BACKWARD")));
    let level = CompatibilityLevel::FullTransitive;
    let register = PlanStep::Register { subject: "s".into(), schema: ours.text.clone(), level };
    assert_eq!(
        (item.action, &item.steps[..]),
        (PlanAction::Change, &[PlanStep::Level("s".into(), level), register][..])
    );
    assert_eq!(item.changes[1].note.as_deref(), Some("BACKWARD: compatible"));
    assert_eq!(item.notes.len(), 1, "the fields are the same");

    let why = vec!["field x".to_owned()];
    let item = subject(known(Listing::Other { compatible: false, why }, Some("FULL_TRANSITIVE")));
    assert_eq!((item.action, item.steps.len(), &*item.faults[1]), (PlanAction::Keep, 0, "field x"));
}

#[test]
fn the_level_that_is_wished_is_set_and_a_stricter_one_is_lowered_to_it() {
    let ours = ours(CompatibilityLevel::BackwardTransitive);
    let item = subject(&ours, known(Listing::Registered(1), Some("FULL_TRANSITIVE")), true);
    assert_eq!(item.steps, [PlanStep::Level("s".into(), CompatibilityLevel::BackwardTransitive)]);
    assert_eq!(item.changes[0].to, "BACKWARD_TRANSITIVE");
    let item = subject(&ours, known(Listing::Registered(1), None), true);
    assert_eq!(item.changes[0].from.as_deref(), Some("the registry's default"));
}

#[test]
fn where_schemas_are_never_registered_what_is_missing_is_told_and_nothing_is_done() {
    let ours = ours(CompatibilityLevel::FullTransitive);
    for listing in [Listing::NoSubject, fits()] {
        let item = subject(&ours, known(listing, Some("FULL_TRANSITIVE")), false);
        assert_eq!((item.action, item.steps.len(), item.faults.len()), (PlanAction::Keep, 0, 1), "{item:?}");
        assert!(item.faults[0].contains("`hookstream provision --apply -X registry.auto_register=true`"));
    }
    let item = subject(&ours, known(Listing::Registered(1), Some("NONE")), false);
    assert_eq!((item.faults.len(), &*item.left[0].setting, item.steps.len()), (0, "compatibility", 0));
}

#[test]
fn consumers_are_told_what_moves_out_of_additional_fields_and_into_it() {
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
        &ours(CompatibilityLevel::FullTransitive),
        RegisteredSubject { latest: Some(latest), ..known(fits(), None) },
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
