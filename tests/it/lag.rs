//! Consumer lag: `hookstream lag` compared with Kafka's own tool, its exit codes, and the service's gauges.

mod exported;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::{hookstream, run};
use crate::support::groups::{self, Member};
use crate::support::process::Process;
use crate::support::{PATIENCE, Setup, kafka, stack, unique, until};

/// Configures only the test's own source, so that other tests' topics are not measured.
fn setup() -> Setup {
    let mut setup = Setup::new("grapevine");
    setup.tables = "[source.datagrid]\nenabled = false\n[source.grapevine]\nenabled = false\n".into();
    setup
}

/// Runs `lag` with this set-up's configuration.
async fn lag(setup: &Setup, arguments: &[&str]) -> (i32, String, String) {
    let toml = setup.toml();
    let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    let work = move || {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("own.toml"), toml).unwrap();
        let (code, stdout, stderr) =
            run(hookstream(directory.path()).args(["lag", "-c", "own.toml"]).args(arguments));
        println!("{stdout}{stderr}");
        (code, stdout, stderr)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Like [`lag`] with `--json`: groups by name.
async fn report(setup: &Setup, groups: &[&str]) -> BTreeMap<String, Value> {
    let groups = if groups.is_empty() { Vec::new() } else { [&["--group"], groups].concat() };
    let (code, stdout, stderr) = lag(setup, &[&["--json"], &groups[..]].concat()).await;
    assert_eq!((code, &*stderr), (0, ""));
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert!(report["measured"].as_str().unwrap().parse::<Timestamp>().is_ok(), "{report}");
    let groups = report["groups"].as_array().unwrap().iter();
    let with_time = |group: &Value| {
        let mut group = group.clone();
        group["measured"] = report["measured"].clone();
        (group["group"].as_str().unwrap().to_owned(), group)
    };
    groups.map(with_time).collect()
}

/// The report of one partition of a group.
fn at<'a>(group: &'a Value, topic: &str, partition: i32) -> &'a Value {
    let of = |list: &'a Value, key: &str, value: Value| {
        let found = list.as_array().unwrap().iter().find(|one| one[key] == value);
        found.unwrap_or_else(|| panic!("no {key} {value} in {group}"))
    };
    of(&of(&group["topics"], "topic", json!(topic))["partitions"], "partition", json!(partition))
}

/// Committed offset, end offset and lag in records.
fn numbers(partition: &Value) -> [Option<i64>; 3] {
    ["committed", "end", "records"].map(|key| partition[key].as_i64())
}

/// Checks that the seconds are those between the record's time and the measurement.
fn check_seconds(group: &Value, partition: &Value, since: Timestamp) {
    let measured: Timestamp = group["measured"].as_str().unwrap().parse().unwrap();
    let expected = measured.duration_since(since).as_secs_f64();
    let seconds = partition["seconds"].as_f64().unwrap();
    assert!((seconds - expected).abs() < 0.01, "{seconds} of {expected}: {partition}");
}

/// A source whose event topic has three partitions: the first with ten records, each a second younger than the one
/// before, the second with none, the third with five.
struct Fixture {
    setup: Setup,
    topic: String,
    dead: String,
    oldest: Timestamp,
}

impl Fixture {
    async fn new() -> Self {
        let setup = setup();
        let topic = format!("{}.document.changed", setup.source);
        let dead = format!("dead_letter.{}", setup.source);
        kafka::create_wide(&topic, 3, &[]).await;
        kafka::create_with(
            &dead,
            &[("cleanup.policy", "compact"), ("segment.ms", "1000"), ("min.cleanable.dirty.ratio", "0.001")],
        )
        .await;
        for topic in [&topic, &dead] {
            until("the topic", async || kafka::exists(topic).await).await;
        }
        let oldest = Timestamp::from_second(Timestamp::now().as_second() - 1_000).unwrap();
        let records: Vec<_> = (0..10).map(|n| ("key", oldest.as_millisecond() + n * 1_000)).collect();
        groups::write(&stack("KAFKA"), &topic, 0, &records).await;
        groups::write(&stack("KAFKA"), &topic, 2, &records[..5]).await;
        Self { setup, topic, dead, oldest }
    }

    async fn commit(&self, group: &str, offsets: groups::Offsets<'_>) {
        groups::commit(&stack("KAFKA"), group, offsets).await;
    }

    fn after(&self, seconds: i64) -> Timestamp {
        Timestamp::from_second(self.oldest.as_second() + seconds).unwrap()
    }
}

/// Checks that each partition that Kafka's tool lists has the same three numbers, or is unknown to both.
fn check_agreement(described: &groups::Described, groups: &BTreeMap<String, Value>) {
    for ((group, topic, partition), theirs) in described {
        let ours = at(&groups[group], topic, *partition);
        match theirs {
            [None, end, None] => {
                assert_eq!(
                    (ours["committed"].as_i64(), ours["end"].as_i64()),
                    (None, *end),
                    "{group} {ours}"
                );
                assert!(ours["records"].is_null() || *end == Some(0), "{group} {ours}");
            }
            _ => assert_eq!(numbers(ours), *theirs, "{group} {topic} {partition}: {ours}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_agrees_with_kafkas_own_tool() {
    let fixture = Fixture::new().await;
    let topic = &*fixture.topic;
    let names = ["middle", "partly", "left", "classic", "kip848", "kip848-left"].map(unique);
    let [middle, partly, left, classic, kip848, kip848_left] = names.each_ref().map(String::as_str);
    fixture.commit(middle, &[(topic, 0, 4), (topic, 2, 5)]).await;
    fixture.commit(partly, &[(topic, 0, 10)]).await;
    drop(Member::join(left, "classic", topic, &[(topic, 0, 1), (topic, 1, 0), (topic, 2, 0)]).await);
    let _classic = Member::join(classic, "classic", topic, &[(topic, 0, 7), (topic, 2, 4)]).await;
    let _kip848 = Member::join(kip848, "consumer", topic, &[(topic, 0, 3), (topic, 1, 0)]).await;
    drop(Member::join(kip848_left, "consumer", topic, &[(topic, 0, 2)]).await);

    let everyone = [middle, partly, left, classic, kip848, kip848_left];
    let described = groups::describe(&everyone).await;
    let found = report(&fixture.setup, &everyone).await;
    check_agreement(&described, &found);
    let listed = |group: &str| described.keys().filter(|(name, _, _)| name == group).count();
    assert_eq!(everyone.map(listed), [2, 1, 3, 3, 3, 1], "{described:?}");

    // The absolute values, in case both tools are wrong.
    assert_eq!(numbers(at(&found[middle], topic, 0)), [Some(4), Some(10), Some(6)]);
    check_seconds(&found[middle], at(&found[middle], topic, 0), fixture.after(4));
    let end = at(&found[middle], topic, 2);
    assert_eq!((numbers(end), &end["seconds"]), ([Some(5), Some(5), Some(0)], &json!(0.0)));
    let empty = at(&found[middle], topic, 1);
    assert_eq!((numbers(empty), &empty["seconds"]), ([None, Some(0), Some(0)], &json!(0.0)));
    assert_eq!(found[middle]["topics"][0]["records"], 6);
    check_seconds(&found[middle], &found[middle]["topics"][0], fixture.after(4));

    let unknown = at(&found[partly], topic, 2);
    assert_eq!(numbers(unknown), [None, Some(5), None]);
    assert!(unknown["seconds"].is_null() && unknown["why"] == "nothing committed", "{unknown}");
    assert!(found[partly]["topics"][0]["records"].is_null(), "{}", found[partly]);

    let kind = |group: &str| (found[group]["state"].clone(), found[group]["protocol"].clone());
    assert_eq!(kind(middle), (json!("Empty"), json!("Classic")));
    assert_eq!(kind(left), (json!("Empty"), json!("Classic")));
    assert_eq!(kind(classic), (json!("Stable"), json!("Classic")));
    assert_eq!(kind(kip848), (json!("Stable"), json!("Consumer")));
    assert_eq!(kind(kip848_left), (json!("Empty"), json!("Consumer")));

    // Without --group, only groups that read the configured topics are listed, and none of other tests.
    let other = unique("other");
    let elsewhere = unique("elsewhere");
    kafka::create_with(&elsewhere, &[]).await;
    until("the topic", async || kafka::exists(&elsewhere).await).await;
    fixture.commit(&other, &[(&elsewhere, 0, 0)]).await;
    let all = report(&fixture.setup, &[]).await;
    assert_eq!(all.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    let (_, stdout, _) = lag(&fixture.setup, &["--group", middle, &other]).await;
    assert!(
        stdout.contains(&format!("{other}  Empty (Classic)\nunknown: it has committed nothing")),
        "{stdout}"
    );
    for line in [
        format!("{middle}  Empty (Classic)\n"),
        format!("{topic}          0          4   10    6"),
        format!("{topic}          1          -    0    0      0.0"),
        "\n  total ".into(),
    ] {
        assert!(stdout.contains(&line), "{line} is not in\n{stdout}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_in_a_compacted_topic_counts_offsets_and_has_the_age_of_the_next_remaining_record() {
    let fixture = Fixture::new().await;
    let (dead, kafka) = (&*fixture.dead, stack("KAFKA"));
    let group = unique("compacted");
    let old: Vec<_> = (0..10).map(|n| ("same", fixture.after(n).as_millisecond())).collect();
    groups::write(&kafka, dead, 0, &old).await;
    // Its timestamp starts a new segment, so that the previous one can be cleaned.
    groups::write(&kafka, dead, 0, &[("other", fixture.after(500).as_millisecond())]).await;
    fixture.commit(&group, &[(dead, 0, 2)]).await;
    let cleaned = async || kafka::all(dead).await.len() == 2;
    let mut pause = tokio::time::interval(Duration::from_millis(200));
    // The log cleaner runs every 15 seconds, on its own schedule.
    let cleaning = tokio::time::timeout(4 * PATIENCE, async {
        while !cleaned().await {
            pause.tick().await;
        }
    });
    cleaning.await.expect("compaction by Kafka");

    let found = report(&fixture.setup, &[&group]).await;
    check_agreement(&groups::describe(&[&group]).await, &found);
    let partition = at(&found[&group], dead, 0);
    assert_eq!(numbers(partition), [Some(2), Some(11), Some(9)]);
    check_seconds(&found[&group], partition, fixture.after(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_counts_an_open_transaction_and_its_marker_has_no_age() {
    let fixture = Fixture::new().await;
    let (topic, group) = (&*fixture.topic, unique("transactions"));
    fixture.commit(&group, &[(topic, 2, 5)]).await;
    let transaction = groups::begin_transaction(topic, 2).await;
    let found = report(&fixture.setup, &[&group]).await;
    check_agreement(&groups::describe(&[&group]).await, &found);
    let partition = at(&found[&group], topic, 2);
    assert_eq!(numbers(partition), [Some(5), Some(6), Some(1)]);
    assert!(partition["seconds"].as_f64().unwrap() < PATIENCE.as_secs_f64(), "{partition}");

    groups::commit_transaction(transaction).await;
    fixture.commit(&group, &[(topic, 2, 6)]).await;
    let found = report(&fixture.setup, &[&group]).await;
    check_agreement(&groups::describe(&[&group]).await, &found);
    let partition = at(&found[&group], topic, 2);
    assert_eq!((numbers(partition), &partition["seconds"]), ([Some(6), Some(7), Some(1)], &json!(0.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_of_a_deleted_or_recreated_topic_or_group_is_unknown_with_a_reason_and_never_zero() {
    let fixture = Fixture::new().await;
    let topic = &*fixture.topic;
    let [deleted, ahead, behind] = ["deleted", "ahead", "behind"].map(unique);
    fixture.commit(&deleted, &[(topic, 0, 4)]).await;
    fixture.commit(&ahead, &[(topic, 0, 99)]).await;
    fixture.commit(&behind, &[(topic, 0, 1), (topic, 2, 5)]).await;
    groups::delete(&deleted).await;
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(topic, 0, rdkafka::Offset::Offset(6)).unwrap();
    kafka::admin().delete_records(&list, &rdkafka::admin::AdminOptions::new()).await.unwrap();

    let found = report(&fixture.setup, &[&deleted, &ahead, &behind, "never-was"]).await;
    for group in [&*deleted, "never-was"] {
        let group = &found[group];
        assert_eq!((&group["state"], &group["topics"]), (&Value::Null, &json!([])), "{group}");
        assert!(group["why"].as_str().unwrap().starts_with("there is no such group"), "{group}");
    }
    let partition = at(&found[&ahead], topic, 0);
    assert_eq!(numbers(partition), [Some(99), Some(10), None]);
    assert!(partition["why"].as_str().unwrap().starts_with("committed past the log end"), "{partition}");
    check_agreement(&groups::describe(&[&behind]).await, &found);
    let partition = at(&found[&behind], topic, 0);
    assert_eq!((numbers(partition), &partition["deleted"]), ([Some(1), Some(10), Some(9)], &json!(5)));
    check_seconds(&found[&behind], partition, fixture.after(6));
    let (_, stdout, _) = lag(&fixture.setup, &["--group", &behind]).await;
    assert!(stdout.contains("5 of them deleted by retention"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_distinguishes_too_much_lag_from_unknown_lag() {
    let fixture = Fixture::new().await;
    let topic = &*fixture.topic;
    let [well, partly] = ["well", "partly"].map(unique);
    let none = unique("none");
    fixture.commit(&well, &[(topic, 0, 4), (topic, 2, 5)]).await;
    fixture.commit(&partly, &[(topic, 0, 4)]).await;
    for (arguments, expected, word) in [
        (vec!["--group", &*well, "--max", "6"], 0, ""),
        (vec!["--group", &*well, "--max", "5"], 1, "over the limit"),
        (vec!["--group", &*well, "--max-seconds", "100000"], 0, ""),
        (vec!["--group", &*well, "--max-seconds", "900.5"], 1, "over the limit"),
        (vec!["--group", &*well, "--max", "6", "--max-seconds", "1", "--json"], 1, "over the limit"),
        (vec!["--group", &*partly, "--max", "6"], 2, "lag is unknown"),
        (vec!["--group", &*partly, "--max-seconds", "100000"], 2, "nothing committed"),
        (vec!["--group", &*partly, "--max", "5"], 1, "over the limit"),
        (vec!["--group", &*none, "--max", "5"], 2, "there is no such group"),
        (vec!["--group", "no-such-*", "--max", "5"], 2, "no lag is known"),
        (vec!["--group", &*none], 0, ""),
        (vec!["--max", "many"], 2, "invalid value"),
        (vec!["--max-seconds=-1"], 2, "expected a number of seconds"),
    ] {
        let (code, _, stderr) = lag(&fixture.setup, &arguments).await;
        assert!(code == expected && stderr.contains(word), "{arguments:?}: {code} {stderr}");
        assert_eq!(stderr.is_empty(), word.is_empty(), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_exits_with_2_and_one_sentence_if_no_broker_answers() {
    let mut setup = setup();
    let (code, stdout, stderr) = lag(&setup, &[]).await;
    assert_eq!((code, &*stdout), (2, ""));
    assert!(stderr.contains("none of the topics of the configured sources exists"), "{stderr}");
    setup.kafka = "127.0.0.1:1".into();
    for arguments in [&["--max", "1"][..], &["--watch"]] {
        let (code, stdout, stderr) = lag(&setup, arguments).await;
        assert_eq!((code, &*stdout, stderr.lines().count()), (2, "", 1), "{stderr}");
        assert!(stderr.contains("no Kafka broker answers at 127.0.0.1:1"), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_prints_a_changed_lag_again() {
    let fixture = Fixture::new().await;
    let (topic, group) = (&*fixture.topic, unique("watched"));
    fixture.commit(&group, &[(topic, 0, 4)]).await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("own.toml"), fixture.setup.toml()).unwrap();
    let mut command = hookstream(directory.path());
    command.args(["lag", "-c", "own.toml", "--watch", "--json", "--group", &group]);
    let mut process = Process(command.stdout(Stdio::piped()).spawn().unwrap());
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let reader = BufReader::new(process.0.stdout.take().unwrap()).lines();
    std::thread::spawn(move || reader.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    let mut next = async || {
        let line = tokio::time::timeout(PATIENCE, lines.recv()).await.unwrap().unwrap();
        at(&serde_json::from_str::<Value>(&line).unwrap()["groups"][0], topic, 0)["records"].clone()
    };
    assert_eq!(next().await, 6);
    fixture.commit(&group, &[(topic, 0, 9)]).await;
    until("the new lag", async || next().await == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k9_a_share_group_is_not_reported_as_a_group_that_never_existed() {
    let fixture = Fixture::new().await;
    let group = unique("share");
    let mut java = Command::new(stack("JAVA"));
    java.args(["-XX:TieredStopAtLevel=1", "-cp", &stack("CLASSPATH")]);
    java.args([
        "org.apache.kafka.tools.consumer.ConsoleShareConsumer",
        "--bootstrap-server",
        &stack("KAFKA"),
    ]);
    java.args(["--topic", &fixture.topic, "--group", &group]).stdout(Stdio::null()).stderr(Stdio::null());
    let _member = Process(java.spawn().unwrap());
    until("the share group", async || {
        let (code, stdout, _) = lag(&fixture.setup, &["--group", &group]).await;
        assert_eq!(code, 0);
        stdout.contains("unknown: it is not a consumer group")
    })
    .await;
    let (code, _, stderr) = lag(&fixture.setup, &["--group", &group, "--max", "0"]).await;
    assert!(code == 2 && stderr.contains("share groups, is not measured"), "{stderr}");
}
