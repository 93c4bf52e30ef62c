//! Replay of dead letters that were produced by real deliveries.

mod encoded;
mod open_transaction;
mod stopped;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};

use crate::support::{PATIENCE, SECRET, Service, Setup, batch, datagrid, kafka, stack};

/// The types of the repaired source; the service that produces the dead letters has none of them.
const TYPES: &str = "types = [\"batch_prediction.completed\", \"batch_prediction.failed\"]";

/// A service with only one event type, and the repaired configuration.
struct Fixture {
    service: Service,
    dir: tempfile::TempDir,
    setup: Setup,
}

impl Fixture {
    async fn new() -> Self {
        Self::with("types = [\"batch_prediction.cancelled\"]", TYPES).await
    }

    /// `before` are the source's rules while dead letters are produced, `after` are those of the replay.
    async fn with(before: &str, after: &str) -> Self {
        let setup = Setup { rules: after.into(), ..Setup::new("datagrid") };
        let first = Setup {
            source: setup.source.clone(),
            // On a busy machine, Kafka may need more than 4 s for some hundred concurrent dead letters.
            rules: format!("{before}\ndead_letter_rate = 100000\nack_deadline = \"30s\""),
            ..Setup::new("datagrid")
        };
        let fixture = Self { service: first.ready().await, dir: tempfile::tempdir().unwrap(), setup };
        fixture.write(&fixture.setup.toml());
        fixture
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("hookstream.toml")
    }

    fn write(&self, toml: &str) {
        std::fs::write(self.file(), toml).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookstream"));
        command.env_clear().env("TEST_SECRET", SECRET).current_dir(self.dir.path());
        command.args(["replay", &self.service.source, "-c"]).arg(self.file()).args(arguments);
        command
    }

    /// Runs the command. Returns exit code, standard output and standard error.
    async fn replay(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.command(arguments);
        // The service runs on this thread and must not be blocked.
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output =
            tokio::time::timeout(10 * PATIENCE, output).await.expect("the end of the command").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// The same with `--json`: exit code and report.
    async fn report(&self, arguments: &[&str]) -> (i32, Value) {
        let (code, stdout, stderr) = self.replay(&[arguments, &["--json"]].concat()).await;
        (code, serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}")))
    }

    fn topic(&self, event_type: &str) -> String {
        self.service.topic(event_type)
    }

    fn outcomes(&self) -> String {
        format!("{}.replayed", self.service.dead_letters())
    }

    /// Sends a body that is dead-lettered for `reason`. Returns the position of the dead letter.
    async fn letter(&self, body: impl Into<Vec<u8>>, reason: &str) -> String {
        let answer = self.service.datagrid_post(body).await;
        answer.is(200, "dead_lettered", Some(reason));
        let place = &answer.body;
        format!("{}/{}/{}", place["topic"].as_str().unwrap(), place["partition"], place["offset"])
    }
}

/// A record in a topic.
#[derive(Debug, Clone, PartialEq)]
struct Found {
    key: String,
    value: Vec<u8>,
    timestamp: i64,
    headers: BTreeMap<String, String>,
}

async fn found(topic: &str) -> Vec<Found> {
    let topic = topic.to_owned();
    let read = move || {
        let mut all = Vec::new();
        // The order between partitions is arbitrary.
        kafka::records(&stack("KAFKA"), &topic, |message| {
            let place = (message.partition(), message.offset());
            let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            all.push((
                place,
                Found {
                    key: text(message.key().unwrap()),
                    value: message.payload().unwrap().to_vec(),
                    timestamp: message.timestamp().to_millis().unwrap(),
                    headers: headers
                        .map(|header| (header.key.to_owned(), text(header.value.unwrap())))
                        .collect(),
                },
            ));
        });
        all.sort_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, found)| found).collect()
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

fn of_type(event_type: &str, id: &str) -> String {
    batch(id).replace("batch_prediction.completed", event_type)
}

/// The last result of each dead letter, by its position.
async fn outcomes(topic: &str) -> BTreeMap<String, Value> {
    let all = found(topic).await;
    all.into_iter().map(|record| (record.key, serde_json::from_slice(&record.value).unwrap())).collect()
}

#[tokio::test]
async fn replay_lists_plans_and_publishes_letters_once_their_type_has_a_topic() {
    let fixture = Fixture::new().await;
    let (code, _, stderr) = fixture.replay(&["--all", "--apply"]).await;
    assert_eq!(code, 0, "nothing to do: {stderr}");
    let one = fixture.letter(batch("evt_1"), "type_unknown").await;
    let two = fixture.letter(of_type("batch_prediction.failed", "evt_2"), "type_unknown").await;
    let bad = fixture.letter("no json", "json_invalid").await;
    let empty = fixture.letter("", "json_invalid").await;

    let (code, stdout, stderr) = fixture.replay(&[]).await;
    assert_eq!((code, stderr.as_str()), (0, ""), "a list needs no selection");
    println!("{stdout}");
    let rows: Vec<Vec<&str>> = stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["reason", "count", "replayed", "failed", "again", "first", "last"]);
    assert_eq!((rows[1][0], rows[1][1], rows[1][2]), ("json_invalid", "2", "0"));
    assert_eq!((rows[2][0], rows[2][1]), ("type_unknown", "2"));

    let before = found(&fixture.service.dead_letters()).await;
    let (code, stdout, _) = fixture.replay(&["--all"]).await;
    println!("{stdout}");
    assert_eq!(code, 1);
    let completed = fixture.topic("batch_prediction.completed");
    for expected in [
        &format!("published to {completed}"),
        "fails again: json_invalid",
        "pending: 2 would be published, 2 would fail again; --apply does it",
    ] {
        assert!(stdout.contains(expected), "{expected}: {stdout}");
    }
    assert!(
        !kafka::exists(&completed).await && !kafka::exists(&fixture.outcomes()).await,
        "a plan changes nothing"
    );

    let (code, stdout, stderr) = fixture.replay(&["--all", "--apply"]).await;
    println!("{stdout}{stderr}");
    assert_eq!(code, 1, "two letters fail again: {stdout}{stderr}");
    assert!(stdout.contains("replayed: 2 published, 2 failed again"), "{stdout}");
    let published = found(&completed).await;
    assert_eq!(published.len(), 1);
    let letter = before.iter().find(|letter| letter.key == "evt_1").unwrap();
    assert_eq!(published[0].key, "evt_1");
    assert!(published[0].timestamp > letter.timestamp, "its retention starts again");
    assert_eq!(published[0].headers["hookstream-replayed"], one);
    for same in ["hookstream-delivery-id", "hookstream-received-at", "hookstream-secret"] {
        assert_eq!(published[0].headers[same], letter.headers[same], "{same}");
    }
    assert_eq!(found(&fixture.topic("batch_prediction.failed")).await.len(), 1);
    assert_eq!(found(&fixture.service.dead_letters()).await, before, "letters are never changed");
    // As another consumer reads it.
    let java = kafka::java(&[&completed]);
    assert_eq!(java[0]["value"]["data"]["id"], "bpred_abc123");

    let outcomes_of = outcomes(&fixture.outcomes()).await;
    assert_eq!(outcomes_of.keys().collect::<BTreeSet<_>>(), [&one, &two, &bad, &empty].into());
    assert_eq!(
        (&outcomes_of[&one]["outcome"], &outcomes_of[&one]["topic"]),
        (&json!("published"), &json!(completed))
    );
    assert_eq!(
        (&outcomes_of[&bad]["outcome"], &outcomes_of[&bad]["reason"]),
        (&json!("failed"), &json!("json_invalid"))
    );

    // Nothing is replayed twice, and failed ones are retried.
    let (code, report) = fixture.report(&["--all", "--apply"]).await;
    assert_eq!(code, 1);
    assert_eq!((&report["published"], &report["failed"]), (&json!(0), &json!(2)), "{report}");
    assert_eq!(report["replayed_before"], 2);
    let (code, stdout, _) = fixture.replay(&["--reason", "type_unknown", "--apply"]).await;
    assert!(code == 0 && stdout.contains("nothing to do: 2 replayed before"), "{stdout}");
    assert_eq!(found(&completed).await.len(), 1);
    let (_, list) = fixture.report(&["--id", "evt_1"]).await;
    assert_eq!((&list["selected"], &list["replayed_before"]), (&json!(1), &json!(1)));
    let (code, report) = fixture.report(&["--id", "evt_1", "--again", "--apply"]).await;
    assert_eq!((code, &report["published"]), (0, &json!(1)), "{report}");
    let twice = found(&completed).await;
    assert_eq!((twice.len(), &twice[0].value), (2, &twice[1].value), "the same bytes");
}

#[tokio::test]
async fn a_selection_contains_only_what_it_names() {
    let fixture = Fixture::new().await;
    for n in 0..4 {
        fixture.letter(batch(&format!("evt_{n}")), "type_unknown").await;
    }
    let place = fixture.letter("no json", "json_invalid").await;
    let selected = async |arguments: &[&str]| fixture.report(arguments).await.1["selected"].clone();
    assert_eq!(selected(&["--all"]).await, 5);
    assert_eq!(selected(&["--reason", "json_invalid"]).await, 1);
    assert_eq!(selected(&["--reason", "json_invalid", "--reason", "type_unknown"]).await, 5);
    assert_eq!(selected(&["--id", "evt_2"]).await, 1);
    assert_eq!(selected(&["--since", "-1h"]).await, 5);
    assert_eq!(selected(&["--until", "-1h"]).await, 0);
    assert_eq!(selected(&["--since", "-1h", "--until", "2999-01-01T00:00:00Z", "--id", "evt_0"]).await, 1);
    let mut parts = place.rsplit('/');
    let (offset, partition) = (parts.next().unwrap(), parts.next().unwrap());
    let (_, report) = fixture.report(&["--partition", partition, "--offset", offset]).await;
    assert_eq!((&report["selected"], &report["failed"]), (&json!(1), &json!(1)), "{report}");

    for (wrong, expected) in [
        (vec!["--apply"], "--reason"),
        (vec!["--reason", "handshake"], "type_unknown"),
        (vec!["--offset", "1"], "--partition"),
        (vec!["--partition", "99", "--apply"], "partitions 0 to"),
        (vec!["--since", "yesterday"], "expected a time such as"),
    ] {
        let (code, _, stderr) = fixture.replay(&wrong).await;
        assert!(code == 2 && stderr.contains(expected), "{wrong:?}: {stderr}");
    }
}

#[tokio::test]
async fn a_letter_without_a_valid_seal_is_never_published() {
    let fixture = Fixture::new().await;
    fixture.letter(batch("evt_true"), "type_unknown").await;
    let dead = fixture.service.dead_letters();
    let genuine = found(&dead).await.remove(0);
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", stack("KAFKA")).create().unwrap();
    let forge = async |body: &str, change: &dyn Fn(&str, &str) -> Option<String>| {
        // The order of the headers matters, so it is that of the service.
        let order = [
            "hookstream-reason",
            "datagrid-signature",
            "hookstream-form",
            "hookstream-seal",
            "hookstream-delivery-id",
            "hookstream-received-at",
            "hookstream-secret",
        ];
        let mut headers = OwnedHeaders::new();
        for name in order {
            let Some(value) = change(name, &genuine.headers[name]) else { continue };
            headers = headers.insert(Header { key: name, value: Some(&value) });
        }
        let record = FutureRecord::to(&dead).key("evt_forged").payload(body).headers(headers);
        producer.send(record, PATIENCE).await.unwrap();
    };
    let same = |_: &str, value: &str| Some(value.to_owned());
    forge(&batch("evt_forged"), &same).await;
    forge(&batch("evt_true"), &|name, value| (name != "hookstream-seal").then(|| value.to_owned())).await;
    forge(&batch("evt_forged"), &|name, value| {
        Some(if name == "hookstream-secret" { "\u{1b}[31mnobody".into() } else { value.to_owned() })
    })
    .await;
    let none = OwnedHeaders::new();
    let bare = FutureRecord::to(&dead).key("k").payload("{}").headers(none);
    producer.send(bare, PATIENCE).await.unwrap();
    let tombstone: FutureRecord<'_, str, str> = FutureRecord::to(&dead).key("k");
    // Letters that only another producer could write.
    let _ = producer.send(tombstone.payload(""), PATIENCE).await;

    let (code, report) = fixture.report(&["--all", "--apply"]).await;
    assert_eq!(code, 1);
    assert_eq!((&report["published"], &report["unsealable"]), (&json!(1), &json!(5)), "{report}");
    let why: BTreeMap<&str, u64> = report["groups"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|group| Some((group["why"].as_str()?, group["count"].as_u64()?)))
        .fold(BTreeMap::new(), |mut all, (why, n)| {
            *all.entry(why).or_default() += n;
            all
        });
    assert_eq!(why, [("forged", 1), ("no_seal", 3), ("secret_removed", 1)].into());
    let (_, stdout, _) = fixture.replay(&["--all"]).await;
    assert!(!stdout.contains('\u{1b}') && stdout.contains("forged"), "{stdout}");
    let published = found(&fixture.topic("batch_prediction.completed")).await;
    assert_eq!(published.iter().map(|record| record.key.as_str()).collect::<Vec<_>>(), ["evt_true"]);
    assert_eq!(outcomes(&fixture.outcomes()).await.len(), 1, "the others have no outcome");
}

#[tokio::test]
async fn replay_names_a_removed_secret_and_accepts_it_back_as_expired() {
    let mut fixture = Fixture::new().await;
    fixture.letter(batch("evt_1"), "type_unknown").await;
    let other = fixture.dir.path().join("other");
    std::fs::write(&other, "wh_another-secret-entirely").unwrap();
    let mut secrets = format!("{{ name = \"new\", file = \"{}\" }}", other.display());
    fixture.setup.secrets = format!("[{secrets}]");
    fixture.write(&fixture.setup.toml());
    let (code, stdout, _) = fixture.replay(&["--all", "--apply"]).await;
    println!("{stdout}");
    assert_eq!(code, 1);
    let name = found(&fixture.service.dead_letters()).await[0].headers["hookstream-secret"].clone();
    assert!(stdout.contains(&format!("the secret {name} sealed it and was removed")), "{stdout}");
    assert!(stdout.contains("not_after"), "{stdout}");

    secrets.push_str(&format!(
        ", {{ name = \"{name}\", env = \"TEST_SECRET\", not_after = 2020-01-01T00:00:00Z }}"
    ));
    fixture.setup.secrets = format!("[{secrets}]");
    fixture.write(&fixture.setup.toml());
    let (code, stdout, stderr) = fixture.replay(&["--all", "--apply"]).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(kafka::all(&fixture.topic("batch_prediction.completed")).await, ["evt_1"]);
}

#[tokio::test]
async fn w4_a_corrected_rule_reads_a_header_that_the_old_rules_did_not_read() {
    let corrected = format!("{TYPES}\nenvelope.type = {{ header = \"X-Event\", unsigned = true }}");
    let fixture = Fixture::with("envelope.type = \"/nothing\"", &corrected).await;
    let body = batch("evt_1");
    let headers = [
        ("Datagrid-Signature", datagrid(body.as_bytes())),
        ("X-Event", "batch_prediction.failed".into()),
        ("Authorization", "Bearer of-the-gateway".into()),
    ];
    let sent: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    fixture.service.post(&sent, body).await.is(200, "dead_lettered", Some("type_missing"));
    let letters = found(&fixture.service.dead_letters()).await;
    assert_eq!(letters[0].headers["x-event"], "batch_prediction.failed");
    assert!(!letters[0].headers.contains_key("authorization"), "a credential is stored");
    let (code, stdout, stderr) = fixture.replay(&["--all", "--apply"]).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    // The type is not signed, so the key ends with a digest.
    let keys = kafka::all(&fixture.topic("batch_prediction.failed")).await;
    assert!(keys.len() == 1 && keys[0].starts_with("evt_1:"), "{keys:?}");
}

#[tokio::test]
async fn all_events_of_a_split_delivery_are_in_one_letter() {
    let after = format!("{TYPES}\nenvelope.split = \"/events\"");
    let before = "types = [\"batch_prediction.cancelled\"]\nenvelope.split = \"/events\"";
    let fixture = Fixture::with(before, &after).await;
    let events: Vec<String> = (0..3).map(|n| batch(&format!("evt_{n}"))).collect();
    let whole = format!("{{\"events\":[{}]}}", events.join(","));
    let place = fixture.letter(whole, "type_unknown").await;
    let odd = format!("{{\"events\":[{},{{}}]}}", batch("evt_odd"));
    let bad = fixture.letter(odd, "id_missing").await;
    let (code, report) = fixture.report(&["--all", "--apply"]).await;
    assert_eq!((code, &report["published"], &report["failed"]), (1, &json!(1), &json!(1)), "{report}");
    let mut published = found(&fixture.topic("batch_prediction.completed")).await;
    published.sort_by(|one, other| one.key.cmp(&other.key));
    let keys: Vec<&str> = published.iter().map(|record| record.key.as_str()).collect();
    assert_eq!(keys, ["evt_0", "evt_1", "evt_2"], "all events of one delivery, none of the other");
    assert!(published.iter().all(|record| record.headers["hookstream-replayed"] == place));
    let outcomes_of = outcomes(&fixture.outcomes()).await;
    assert_eq!(
        (&outcomes_of[&place]["outcome"], &outcomes_of[&bad]["reason"]),
        (&json!("published"), &json!("id_missing"))
    );
}

#[tokio::test]
async fn a_form_is_replayed_as_a_form() {
    let form = "envelope.payload = \"form:payload\"";
    let before = format!("types = [\"batch_prediction.cancelled\"]\n{form}");
    let fixture = Fixture::with(&before, &format!("{TYPES}\n{form}")).await;
    let body: String =
        form_urlencoded::Serializer::new(String::new()).append_pair("payload", &batch("evt_form")).finish();
    let signature = crate::support::datagrid(body.as_bytes());
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    // Some senders repeat it.
    let headers = [("Datagrid-Signature", &*signature), form, form];
    fixture.service.post(&headers, body).await.is(200, "dead_lettered", Some("type_unknown"));
    let (code, report) = fixture.report(&["--all", "--apply"]).await;
    assert_eq!((code, &report["published"]), (0, &json!(1)), "{report}");
    assert_eq!(kafka::all(&fixture.topic("batch_prediction.completed")).await, ["evt_form"]);
}

#[tokio::test]
async fn replay_ignores_the_age_of_a_stale_letter() {
    let rules = "types = [\"batch_prediction.completed\"]\nstale = \"dead_letter\"";
    let fixture = Fixture::with(rules, rules).await;
    fixture.letter(batch("evt_old"), "stale").await;
    let (code, report) = fixture.report(&["--reason", "stale", "--apply"]).await;
    assert_eq!((code, &report["published"]), (0, &json!(1)), "{report}");
}
