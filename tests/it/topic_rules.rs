//! Denied permissions and size limits of a topic count as an outage of that topic, since an operator can change them.

use std::path::Path;
use std::time::{Duration, Instant};

use hookstream::config::Properties;
use hookstream::kafka::{Admin, Alteration, ClusterConfig};
use hookstream::names;
use rdkafka::types::RDKafkaRespErr;

use crate::cli::{hookstream, run};
use crate::spool::{keys, spool, waiting, with_spool};
use crate::support::{SECRET, Service, Setup, batch, kafka, stack, until};

const TYPES: &str = "types = [\"batch_prediction.completed\"]\n";

/// Far longer than a refusal takes, and less than Kafka's share of the deadline.
const AT_ONCE: Duration = Duration::from_millis(1500);

/// Runs one of Kafka's own commands with an administrator's rights.
async fn kafka_acls(arguments: String) {
    let work = move || {
        std::process::Command::new(stack("JAVA"))
            .args(["-cp", &stack("CLASSPATH"), "org.apache.kafka.tools.AclCommand"])
            .args(["--bootstrap-server", &stack("KAFKA")])
            .args(arguments.split_whitespace())
            .output()
            .unwrap()
    };
    let output = tokio::task::spawn_blocking(work).await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The status of `/readyz`, and its part `publishing`.
pub async fn publishing(service: &Service) -> (u16, String) {
    let (status, ready) = service.admin("/readyz").await;
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    (status.as_u16(), ready["parts"]["publishing"].to_string())
}

fn parked(service: &Service) -> u64 {
    service.app.spool().unwrap().parked
}

#[tokio::test(flavor = "multi_thread")]
async fn k2a_a_denied_topic_is_an_outage_of_that_topic() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = Setup {
        kafka: stack("KAFKA_SCRAM"),
        rules: TYPES.into(),
        tables: format!(
            r#"
            [kafka.properties]
            security.protocol = "SASL_PLAINTEXT"
            sasl.mechanism = "PLAIN"
            sasl.username = "limited"
            sasl.password = {{ env = "TEST_KAFKA_PASSWORD" }}
            {}"#,
            spool(dir.path(), "")
        ),
        ..Setup::new("datagrid")
    };
    setup.environment.insert("TEST_KAFKA_PASSWORD".into(), stack("KAFKA_PASSWORD"));
    let (topic, letters) =
        (names::topic(&setup.source, "batch_prediction.completed"), names::dead_letter_topic(&setup.source));
    for topic in [&topic, &letters] {
        kafka::create(topic, "cleanup.policy", "delete").await;
    }
    let service = setup.ready().await;
    service.datagrid_post(batch("evt_0")).await.is(200, "published", None);

    let deny = format!("--deny-principal User:limited --operation Write --topic {topic} --topic {letters}");
    kafka_acls(format!("--add {deny}")).await;
    let mut sent = vec![String::from("evt_0")];
    until("a spooled delivery", async || {
        let id = format!("evt_{}", sent.len());
        let answer = service.datagrid_post(batch(&id)).await;
        assert!(matches!(answer.status, 200 | 202), "never 503: {answer:?}");
        sent.push(id);
        answer.status == 202
    })
    .await;
    for _ in 0..3 {
        let (id, start) = (format!("evt_{}", sent.len()), Instant::now());
        service.datagrid_post(batch(&id)).await.is(202, "spooled", None);
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        sent.push(id);
    }
    // The dead-letter topic is denied too.
    service.datagrid_post("no JSON").await.is(200, "dead_lettered", Some("json_invalid"));
    let (status, report) = publishing(&service).await;
    assert!(status == 200 && report.contains("degraded") && report.contains(&topic), "{report}");
    assert!(report.contains("AuthorizationFailed") && report.contains("since 20"), "{report}");
    let (_, metrics) = service.admin("/metrics").await;
    let failing = format!("hookstream_topic_failing{{topic=\"{topic}\",what=\"topic\"}} 1\n");
    assert!(metrics.contains(&failing), "{metrics}");
    assert_eq!(waiting(&service), 5);

    // While this command starts, the drain tries the denied topics repeatedly.
    kafka_acls(format!("--remove --force {deny}")).await;
    until("an empty spool", async || waiting(&service) == 0).await;
    assert_eq!(parked(&service), 0);
    until("a healthy topic", async || publishing(&service).await.1.contains("\"ok\"")).await;
    service.datagrid_post(batch("evt_after")).await.is(200, "published", None);
    sent.push("evt_after".into());
    let mut found = kafka::all(&topic).await;
    found.sort();
    found.dedup();
    sent.sort();
    assert_eq!(found, sent);
    assert_eq!(kafka::all(&letters).await.len(), 1);
}

/// A body of half a megabyte that does not compress.
fn large(id: &str) -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let filler: String = (0..500_000)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'#' + (state % 57) as u8) // no quote, no backslash
        })
        .collect();
    batch(id).replace("\"data\":{", &format!("\"data\":{{\"filler\":\"{filler}\","))
}

pub async fn set_limit(topic: &str, bytes: &str) {
    let admin = Admin::new(&ClusterConfig::new(stack("KAFKA"), Properties::default())).unwrap();
    let settings = vec![("max.message.bytes".to_owned(), bytes.to_owned())];
    let refused = admin.alter(vec![Alteration { topic: topic.to_owned(), settings }], false).await.unwrap();
    assert_eq!(refused, []);
}

/// A service whose topics accept at most 200,000 bytes.
async fn small_topics(dir: &Path, spools: bool) -> (Service, String, String) {
    let tables = if spools { spool(dir, "") } else { String::new() };
    let setup = Setup { rules: TYPES.into(), tables, ..Setup::new("datagrid") };
    let topic = names::topic(&setup.source, "batch_prediction.completed");
    let letters = names::dead_letter_topic(&setup.source);
    for topic in [&topic, &letters] {
        kafka::create_with(topic, &[("max.message.bytes", "200000")]).await;
    }
    (setup.ready().await, topic, letters)
}

#[tokio::test(flavor = "multi_thread")]
async fn k2c_a_record_over_the_limit_of_its_topic_is_spooled_until_the_limit_is_raised() {
    let dir = tempfile::tempdir().unwrap();
    let (service, topic, letters) = small_topics(dir.path(), true).await;
    service.datagrid_post(large("evt_large")).await.is(202, "spooled", None);
    let no_json = large("evt_odd").replace("{\"id\"", "\"id\"");
    service.datagrid_post(no_json).await.is(200, "dead_lettered", Some("json_invalid"));
    until("a report of both topics", async || {
        let report = publishing(&service).await.1;
        [&topic, &letters]
            .iter()
            .all(|topic| report.contains(&format!("{topic}: 1 row of the spool: MessageSize")))
    })
    .await;
    let (_, metrics) = service.admin("/metrics").await;
    let failing = format!("hookstream_topic_failing{{topic=\"{topic}\",what=\"rows\"}} 1\n");
    assert!(metrics.contains(&failing), "{metrics}");
    // The topic is unavailable only for this record.
    service.datagrid_post(batch("evt_small")).await.is(200, "published", None);
    assert_eq!((waiting(&service), parked(&service)), (2, 0));

    let (file, home) = (service.file.path().to_owned(), dir.path().to_owned());
    let check = move || {
        let mut program = hookstream(&home);
        run(program.args(["check", "--online", "-c"]).arg(file).env("TEST_SECRET", SECRET))
    };
    let (code, stdout, _) = tokio::task::spawn_blocking(check).await.unwrap();
    for name in [&topic, &letters] {
        assert!(stdout.contains(&format!("{name} (max.message.bytes 200000")), "{stdout}");
    }
    assert!(code == 1 && stdout.contains("provision --apply"), "{stdout}");

    for topic in [&topic, &letters] {
        set_limit(topic, "2000000").await;
    }
    until("an empty spool", async || waiting(&service) == 0).await;
    assert_eq!(parked(&service), 0);
    until("healthy topics", async || publishing(&service).await.1.contains("\"ok\"")).await;
    let mut found = kafka::all(&topic).await;
    found.sort();
    found.dedup();
    assert_eq!(found, ["evt_large", "evt_small"]);
    assert!(!kafka::all(&letters).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn k2c_without_a_spool_it_is_dead_lettered_or_503_if_the_dead_letter_is_too_large_too() {
    let dir = tempfile::tempdir().unwrap();
    let (service, topic, letters) = small_topics(dir.path(), false).await;
    service.datagrid_post(large("evt_large")).await.is(503, "unavailable", Some("kafka_unavailable"));
    set_limit(&letters, "2000000").await;
    until("the new limit", async || {
        let answer = service.datagrid_post(large("evt_large")).await;
        answer.status == 200 && answer.body["reason"] == "kafka_refused"
    })
    .await;
    assert!(kafka::all(&topic).await.is_empty());
}

#[tokio::test]
async fn k2d_a_row_for_a_denied_topic_is_retried_and_not_parked() {
    let dir = tempfile::tempdir().unwrap();
    let (service, kafka) = with_spool(dir.path(), "").await;
    kafka.broker_down().unwrap();
    for n in 0..3 {
        service.datagrid_post(batch(&format!("evt_{n}"))).await.is(202, "spooled", None);
    }
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    kafka.fail_produce(&[denied; 6]).unwrap();
    kafka.broker_up().unwrap();
    until("a report of the denied topic", async || {
        publishing(&service).await.1.contains("TopicAuthorizationFailed")
    })
    .await;
    until("an empty spool", async || waiting(&service) == 0).await;
    assert_eq!(parked(&service), 0);
    let topic = service.topic("batch_prediction.completed");
    assert_eq!(keys(&kafka, &topic).await, ["evt_0", "evt_1", "evt_2"]);
    until("healthy topics", async || publishing(&service).await.1.contains("\"ok\"")).await;
}

#[tokio::test]
async fn k2_a_row_that_can_never_be_published_is_parked_and_the_others_continue() {
    let dir = tempfile::tempdir().unwrap();
    let (service, kafka) = with_spool(dir.path(), "").await;
    // Kafka has accepted the clock, so that only the record can be wrong.
    service.datagrid_post(batch("evt_first")).await.is(200, "published", None);
    kafka.broker_down().unwrap();
    service.datagrid_post(batch("evt_bad")).await.is(202, "spooled", None);
    kafka.fail_produce(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD; 20]).unwrap();
    kafka.broker_up().unwrap();
    until("a parked row", async || parked(&service) == 1).await;
    kafka.fail_produce_no_more().unwrap();
    service.datagrid_post(batch("evt_good")).await.is(200, "published", None);
    assert_eq!((waiting(&service), parked(&service)), (0, 1));
}

#[tokio::test]
async fn k2_a_refused_dead_letter_is_spooled() {
    let dir = tempfile::tempdir().unwrap();
    let (service, kafka) = with_spool(dir.path(), "").await;
    service.datagrid_post(batch("evt_0")).await.is(200, "published", None);
    kafka.fail_produce(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD; 2]).unwrap();
    service.datagrid_post(batch("evt_1")).await.is(200, "dead_lettered", Some("kafka_refused"));
    // The record can never be published, but its dead letter can: the drain retries it.
    until("the dead letter", async || waiting(&service) == 0).await;
    assert_eq!((parked(&service), keys(&kafka, &service.dead_letters()).await.len()), (0, 1));
}
