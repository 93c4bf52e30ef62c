//! The effect of compaction on retries, and what it leaves unchanged.

use std::process::Command;

use rdkafka::message::Message as _;

use crate::support::{Service, Setup, batch, kafka, stack, until};

/// Makes Kafka compact immediately: `segment.ms` closes a segment at the next record, and only closed segments are
/// compacted.
const AT_ONCE: &str = "segment.ms=500,max.compaction.lag.ms=500,min.cleanable.dirty.ratio=0.001";

/// Changes a topic with Kafka's own tool, as an operator does.
fn alter(topic: &str) {
    let output = Command::new(stack("JAVA"))
        .args(["-XX:TieredStopAtLevel=1", "-cp", &stack("CLASSPATH"), "kafka.admin.ConfigCommand"])
        .args(["--bootstrap-server", &stack("KAFKA"), "--entity-type", "topics", "--entity-name", topic])
        .args(["--alter", "--add-config", AT_ONCE])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Key and offset of the records in a topic with one partition.
async fn records(topic: &str) -> Vec<(String, i64)> {
    let topic = topic.to_owned();
    let read = move || {
        let mut found = Vec::new();
        kafka::records(&stack("KAFKA"), &topic, |message| {
            let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
            found.push((key, message.offset()));
        });
        found
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// A delivery of a type without a topic.
fn paused(id: &str) -> String {
    batch(id).replace(".completed", ".paused")
}

async fn delivered(service: &Service, id: &str) -> i64 {
    let answer = service.datagrid_post(batch(id)).await;
    answer.is(200, "published", None);
    answer.body["offset"].as_i64().unwrap()
}

async fn dead_lettered(service: &Service, id: &str) {
    service.datagrid_post(paused(id)).await.is(200, "dead_lettered", Some("type_unknown"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_merges_retries_of_one_id_and_keeps_other_ids_and_all_dead_letters() {
    let mut setup = Setup::new("datagrid");
    setup.environment.insert("HOOKSTREAM_KAFKA__TOPICS__PARTITIONS".into(), "1".into());
    let service = setup.ready().await;
    let (events, letters) = (service.topic("batch_prediction.completed"), service.dead_letters());
    let both =
        [events.clone(), letters.clone()].map(|topic| tokio::task::spawn_blocking(move || alter(&topic)));
    for altered in both {
        altered.await.unwrap();
    }
    let settings = kafka::own_settings(&letters).await;
    assert_eq!((settings["cleanup.policy"].as_str(), settings["retention.ms"].as_str()), ("delete", "-1"));

    let other = delivered(&service, "evt_other").await;
    for id in ["evt_unusable", "evt_unusable", "evt_also_unusable"] {
        dead_lettered(&service, id).await;
    }
    // Twice, so that Kafka has checked for more to compact after its first pass.
    for _ in 0..2 {
        delivered(&service, "evt_retried").await;
        delivered(&service, "evt_retried").await;
        let last = delivered(&service, "evt_retried").await;
        let copies = records(&events).await.into_iter().filter(|(key, _)| key == "evt_retried").count();
        assert!(copies >= 3, "{copies}");
        let last_of_each = [("evt_other".to_owned(), other), ("evt_retried".to_owned(), last)];
        // The last record of a topic is never in a closed segment, so further deliveries must close the segments.
        until("compaction", async || {
            delivered(&service, "evt_next").await;
            dead_lettered(&service, "evt_next").await;
            let mut found = records(&events).await;
            found.retain(|(key, _)| key != "evt_next");
            assert!(last_of_each.iter().all(|one| found.contains(one)), "{found:?}");
            found == last_of_each
        })
        .await;
    }

    let found = records(&letters).await;
    let first: Vec<&str> = found.iter().take(3).map(|(key, _)| key.as_str()).collect();
    assert_eq!(first, ["evt_unusable", "evt_unusable", "evt_also_unusable"]);
    let offsets: Vec<i64> = found.iter().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets, (0..found.len() as i64).collect::<Vec<_>>(), "no dead letter is missing");
}
