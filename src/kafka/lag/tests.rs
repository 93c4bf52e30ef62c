use super::*;

fn position(committed: Option<i64>, log: Option<(i64, i64)>) -> Result<(u64, u64, Option<i64>), LagUnknown> {
    position_of(committed, log).map(|Position { records, deleted, unread }| (records, deleted, unread))
}

#[test]
fn lag_is_log_end_minus_committed_and_an_unknown_lag_is_never_zero() {
    // Committed offset, log start and log end; then the result: records, deleted ones, first unread offset.
    let cases = [
        (Some(3), Some((0, 10)), Ok((7, 0, Some(3)))),
        (Some(10), Some((0, 10)), Ok((0, 0, None))),
        (Some(0), Some((0, 0)), Ok((0, 0, None))),
        (None, Some((0, 0)), Ok((0, 0, None))),
        // Retention has emptied the partition: wherever the group begins, there is nothing to read.
        (None, Some((10, 10)), Ok((0, 0, None))),
        (None, Some((0, 1)), Err(LagUnknown::NothingCommitted)),
        (Some(11), Some((0, 10)), Err(LagUnknown::PastTheEnd)),
        (Some(5), Some((0, 0)), Err(LagUnknown::PastTheEnd)),
        // Kafka's tool counts deleted records, too.
        (Some(2), Some((6, 10)), Ok((8, 4, Some(6)))),
        (Some(2), Some((10, 10)), Ok((8, 8, None))),
        (Some(2), None, Err(LagUnknown::NoEnd)),
        (None, None, Err(LagUnknown::NoEnd)),
        (Some(0), Some((0, i64::MAX)), Ok((i64::MAX as u64, 0, Some(0)))),
        (Some(-5), Some((0, 1)), Ok((6, 5, Some(0)))),
    ];
    for (committed, log, expected) in cases {
        assert_eq!(position(committed, log), expected, "{committed:?} {log:?}");
    }
}

fn group() -> GroupDescription {
    GroupDescription { state: "Stable".into(), protocol: "Classic".into() }
}

#[test]
fn patterns_match_listed_groups_and_names_also_match_unlisted_ones() {
    let listed = ["billing", "billing-2", "search"].map(|name| (name.to_owned(), group())).into();
    let choose = |patterns: &[&str]| {
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        select_groups(&patterns, &listed).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(choose(&[]), ["billing", "billing-2", "search"]);
    assert_eq!(choose(&["billing*"]), ["billing", "billing-2"]);
    assert_eq!(choose(&["search", "gone", "none*"]), ["gone", "search"]);
}

#[test]
fn a_group_shows_all_partitions_of_the_topics_it_has_committed_on_and_deleted_partitions() {
    let (topic, other) = (String::from("a.mine"), String::from("a.other"));
    let existing = [(topic.clone(), 0), (topic.clone(), 1), (other.clone(), 0)];
    let bounds = existing.iter().map(|place| (place.clone(), (0, 5))).collect();
    let configured = BTreeSet::from([&topic, &other]);
    let offsets: Committed =
        Ok([((topic.clone(), 0), 5), ((topic.clone(), 7), 1), (("foreign".into(), 0), 1)].into());
    let found = partition_rows(&offsets, &configured, &existing, &bounds).unwrap_or_default();
    let found: Vec<_> = found
        .into_iter()
        .map(|row| (row.topic, row.partition, row.committed, row.position.map(|position| position.records)))
        .collect();
    let expected = [
        (topic.clone(), 0, Some(5), Ok(0)),
        (topic.clone(), 1, None, Err(LagUnknown::NothingCommitted)),
        (topic.clone(), 7, Some(1), Err(LagUnknown::Gone)),
    ];
    assert_eq!(found, expected);

    let nothing: Committed = Ok([(("foreign".into(), 0), 1)].into());
    assert!(matches!(
        partition_rows(&nothing, &configured, &existing, &bounds),
        Err(GroupLagError::NothingCommitted)
    ));
}

#[test]
fn seconds_are_the_age_of_the_record_and_never_negative() {
    let now = Timestamp::from_millisecond(1_000_000).unwrap();
    let seconds = |first: Option<FirstUnread>| {
        let row = PartitionRow {
            topic: "a.b".into(),
            partition: 0,
            committed: Some(3),
            end: Some(10),
            position: position_of(Some(3), Some((0, 10))),
        };
        let firsts = first.map(|first| (("a.b".into(), 0, 3), first)).into_iter().collect();
        row.finish(&firsts, now).behind.unwrap().seconds
    };
    assert_eq!(seconds(Some(FirstUnread::At(995_500))), Ok(4.5));
    assert_eq!(seconds(Some(FirstUnread::At(1_000_500))), Ok(0.0), "a clock that is ahead");
    assert_eq!(seconds(Some(FirstUnread::Nothing)), Ok(0.0), "only a transaction marker remains");
    assert!(seconds(Some(FirstUnread::Unread("why".into()))).is_err() && seconds(None).is_err());
}
