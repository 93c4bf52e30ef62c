use super::*;

fn judged(committed: Option<i64>, log: Option<(i64, i64)>) -> Result<(u64, u64, Option<i64>), LagUnknown> {
    judge(committed, log).map(|Judged { records, deleted, unread }| (records, deleted, unread))
}

#[test]
fn lag_is_log_end_minus_committed_and_what_nobody_knows_is_never_zero() {
    // Committed, log start and end, and what follows: records, of these deleted, the first to be read.
    let cases = [
        (Some(3), Some((0, 10)), Ok((7, 0, Some(3)))),
        (Some(10), Some((0, 10)), Ok((0, 0, None))),
        (Some(0), Some((0, 0)), Ok((0, 0, None))),
        (None, Some((0, 0)), Ok((0, 0, None))),
        // Retention has emptied it: whatever the group begins with, nothing is there.
        (None, Some((10, 10)), Ok((0, 0, None))),
        (None, Some((0, 1)), Err(LagUnknown::NothingCommitted)),
        (Some(11), Some((0, 10)), Err(LagUnknown::PastTheEnd)),
        (Some(5), Some((0, 0)), Err(LagUnknown::PastTheEnd)),
        // Kafka's tool counts what is deleted, too.
        (Some(2), Some((6, 10)), Ok((8, 4, Some(6)))),
        (Some(2), Some((10, 10)), Ok((8, 8, None))),
        (Some(2), None, Err(LagUnknown::NoEnd)),
        (None, None, Err(LagUnknown::NoEnd)),
        (Some(0), Some((0, i64::MAX)), Ok((i64::MAX as u64, 0, Some(0)))),
        (Some(-5), Some((0, 1)), Ok((6, 5, Some(0)))),
    ];
    for (committed, log, expected) in cases {
        assert_eq!(judged(committed, log), expected, "{committed:?} {log:?}");
    }
}

fn group() -> GroupDescription {
    GroupDescription { state: "Stable".into(), protocol: "Classic".into() }
}

#[test]
fn patterns_choose_what_is_listed_and_names_also_what_is_not() {
    let listed = ["billing", "billing-2", "search"].map(|name| (name.to_owned(), group())).into();
    let choose = |patterns: &[&str]| {
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        chosen(&patterns, &listed).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(choose(&[]), ["billing", "billing-2", "search"]);
    assert_eq!(choose(&["billing*"]), ["billing", "billing-2"]);
    assert_eq!(choose(&["search", "gone", "none*"]), ["gone", "search"]);
}

#[test]
fn a_group_shows_all_partitions_of_the_topics_it_has_committed_on_and_those_that_are_gone() {
    let (mine, other) = (String::from("a.mine"), String::from("a.other"));
    let there = [(mine.clone(), 0), (mine.clone(), 1), (other.clone(), 0)];
    let bounds = there.iter().map(|place| (place.clone(), (0, 5))).collect();
    let ours = BTreeSet::from([&mine, &other]);
    let offsets: Committed =
        Ok([((mine.clone(), 0), 5), ((mine.clone(), 7), 1), (("foreign".into(), 0), 1)].into());
    let found = rows(&offsets, &ours, &there, &bounds).unwrap_or_default();
    let found: Vec<_> = found
        .into_iter()
        .map(|row| (row.topic, row.partition, row.committed, row.judged.map(|judged| judged.records)))
        .collect();
    let expected = [
        (mine.clone(), 0, Some(5), Ok(0)),
        (mine.clone(), 1, None, Err(LagUnknown::NothingCommitted)),
        (mine.clone(), 7, Some(1), Err(LagUnknown::Gone)),
    ];
    assert_eq!(found, expected);

    let nothing: Committed = Ok([(("foreign".into(), 0), 1)].into());
    assert!(matches!(rows(&nothing, &ours, &there, &bounds), Err(GroupLagError::NothingCommitted)));
}

#[test]
fn seconds_are_those_since_the_record_and_never_negative() {
    let now = Timestamp::from_millisecond(1_000_000).unwrap();
    let seconds = |first: Option<FirstUnread>| {
        let row = PartitionRow {
            topic: "a.b".into(),
            partition: 0,
            committed: Some(3),
            end: Some(10),
            judged: judge(Some(3), Some((0, 10))),
        };
        let firsts = first.map(|first| (("a.b".into(), 0, 3), first)).into_iter().collect();
        row.finish(&firsts, now).behind.unwrap().seconds
    };
    assert_eq!(seconds(Some(FirstUnread::At(995_500))), Ok(4.5));
    assert_eq!(seconds(Some(FirstUnread::At(1_000_500))), Ok(0.0), "a clock that is ahead");
    assert_eq!(seconds(Some(FirstUnread::Nothing)), Ok(0.0), "only a transaction's marker is left");
    assert!(seconds(Some(FirstUnread::Unread("why".into()))).is_err() && seconds(None).is_err());
}
