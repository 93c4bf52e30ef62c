//! Health is per partition: a broker outage affects only the partitions that need the broker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hookstream::kafka::partition_of;
use hookstream::names;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

use crate::spool::spool;
use crate::support::broker::Broker;
use crate::support::{PATIENCE, Service, Setup, batch, kafka, until};

/// The replicas by partition, the leader first. Partitions without broker 3 keep all replicas when it is down; Kafka
/// acknowledges nothing on the others.
const REPLICAS: [&[i32]; 6] = [&[1, 2], &[2, 1], &[3, 1], &[1, 2], &[2, 1], &[3, 2]];

/// Less than Kafka's share of the deadline (2 s), and far longer than a delivery takes.
const QUICK: Duration = Duration::from_millis(1500);

fn partition(id: &str) -> usize {
    usize::try_from(partition_of(id.as_bytes(), 6)).unwrap()
}

/// Whether the key's partition needs broker 3.
fn needs_broker_3(id: &str) -> bool {
    REPLICAS[partition(id)].contains(&3)
}

/// Sends all deliveries concurrently. Returns the status and duration of each.
async fn post(service: &Service, ids: &[String]) -> Vec<(String, u16, Duration)> {
    let posts = ids.iter().map(async |id| {
        let start = Instant::now();
        let answer = service.datagrid_post(batch(id)).await;
        (id.clone(), answer.status, start.elapsed())
    });
    join_all(posts).await
}

async fn create(bootstrap: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let new = NewTopic::new(topic, 6, TopicReplication::Variable(&REPLICAS)).set("min.insync.replicas", "2");
    assert_eq!(admin.create_topics(&[new], &options).await.unwrap(), [Ok(topic.to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn k15_a_killed_broker_causes_only_deliveries_for_its_partitions_to_be_spooled() {
    let dir = tempfile::tempdir().unwrap();
    let mut brokers = Broker::cluster(3, "auto.create.topics.enable=false\n").await;
    let bootstrap = brokers.iter().map(Broker::bootstrap).collect::<Vec<_>>().join(",");
    let setup = Setup {
        kafka: bootstrap.clone(),
        rules: "ack_deadline = \"3s\"\ntypes = [\"batch_prediction.completed\"]".into(),
        tables: spool(dir.path(), ""),
        ..Setup::new("datagrid")
    };
    let topic = names::topic(&setup.source, "batch_prediction.completed");
    create(&bootstrap, &topic).await;
    let service = setup.ready().await;
    // Four deliveries for each partition.
    let ids = |round: &str| -> Vec<String> {
        let mut found = [0; 6];
        let all = (0..).map(|n| format!("evt_{round}_{n}"));
        let wanted = all.filter(|id| {
            found[partition(id)] += 1;
            found[partition(id)] <= 4
        });
        wanted.take(24).collect()
    };
    let mut sent = Vec::new();
    // Brokers are slow right after their start.
    until("brokers that answer quickly", async || {
        let some = ids(&format!("before-{}", sent.len()));
        assert_eq!(
            (0..6).filter(|p| some.iter().any(|id| partition(id) == *p)).count(),
            6,
            "every partition"
        );
        let answers = post(&service, &some).await;
        sent.extend(some);
        answers.iter().all(|(_, status, took)| *status == 200 && *took < QUICK / 5)
    })
    .await;

    brokers[2].kill();
    let (mut answers, mut known_rounds) = (BTreeMap::new(), 0);
    for round in 0..3 {
        let round = ids(&format!("round-{round}"));
        for (id, status, took) in post(&service, &round).await {
            if needs_broker_3(&id) {
                assert_eq!(status, 202, "{id} after {took:?}");
                // In the first round deliveries wait for Kafka; after that the failure is known.
                assert!(
                    known_rounds == 0 || took < QUICK,
                    "{id} after {took:?}, although its partition is known to be down"
                );
            } else {
                assert_eq!(status, 200, "{id} after {took:?}, although the brokers of its partition are up");
                assert!(took < QUICK, "{id} after {took:?}");
            }
            *answers.entry((needs_broker_3(&id), status)).or_insert(0) += 1;
        }
        known_rounds += 1;
        sent.extend(round);
    }
    assert!(answers.len() == 2 && answers.values().all(|count| *count >= 24), "{answers:?}");
    let (status, ready) = service.admin("/readyz").await;
    assert!(status == 200 && ready.contains(&format!("{topic}: partitions 2, 5: ")), "{ready}");
    let (_, metrics) = service.admin("/metrics").await;
    let failing = format!("hookstream_topic_failing{{topic=\"{topic}\",what=\"partitions\"}} 2\n");
    assert!(metrics.contains(&failing), "{metrics}");

    // Rows of a healthy partition do not wait for those of the others, so the spool can become empty.
    brokers[2].run().await;
    until("an empty spool", async || service.app.spool().unwrap().live == 0).await;
    assert_eq!(service.app.spool().unwrap().parked, 0);
    until("healthy partitions", async || {
        !service.admin("/readyz").await.1.contains(&format!("{topic}: partition"))
    })
    .await;
    for (id, status, _) in post(&service, &ids("after")).await {
        assert_eq!(status, 200, "{id}");
        sent.push(id);
    }
    let mut found = tokio::task::spawn_blocking(move || kafka::read(&bootstrap, &topic)).await.unwrap();
    found.sort();
    found.dedup();
    sent.sort();
    assert_eq!(found, sent);
}
