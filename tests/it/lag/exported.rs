//! The lag that the service exports in `/metrics`.

use jiff::Timestamp;

use super::setup;
use crate::support::broker::Broker;
use crate::support::{Setup, groups, kafka, stack, unique, until};

#[tokio::test(flavor = "multi_thread")]
async fn lag_has_no_series_while_the_broker_is_down_and_then_recovers() {
    let mut broker = Broker::start().await;
    let mut setup = Setup::new("grapevine");
    setup.kafka = broker.bootstrap();
    let prefix = unique("lag");
    let (group, deleted) = (format!("{prefix}-group"), format!("{prefix}-gone"));
    // The exactly named group is requested from the start, before the cluster has a coordinator for it.
    setup.tables = format!("[lag]\ngroups = [\"{prefix}-*\", \"{group}\"]\ninterval = \"1s\"");
    // With the default, Kafka would replace the timestamps, which are a minute old.
    let topic = format!("{}.document.changed", setup.source);
    kafka::create_on(&broker.bootstrap(), &topic, 1, &[("message.timestamp.type", "CreateTime")]).await;
    let service = setup.ready().await;
    let labels = |group: &str| format!("consumergroup=\"{group}\",topic=\"{topic}\",partition=\"0\"");
    let records = format!("kafka_consumergroup_lag{{{}}}", labels(&group));
    let seconds = format!("kafka_consumergroup_lag_seconds{{{}}}", labels(&group));
    let end = format!("kafka_topic_partition_current_offset{{topic=\"{topic}\",partition=\"0\"}}");
    let lag_of_deleted = format!("kafka_consumergroup_lag{{{}}}", labels(&deleted));

    let time = Timestamp::now().as_millisecond() - 60_000;
    groups::write(&broker.bootstrap(), &topic, 0, &[("a", time), ("b", time), ("c", time)]).await;
    for group in [&*group, &*deleted] {
        groups::commit(&broker.bootstrap(), group, &[(&topic, 0, 1)]).await;
    }
    until("the lag", async || service.metric(&records).await == Some(2.0)).await;
    until("the lag", async || service.metric(&lag_of_deleted).await == Some(2.0)).await;
    assert!(service.metric(&seconds).await.unwrap() >= 60.0);
    assert_eq!(service.metric(&end).await, Some(3.0));
    let before = service.metric("hookstream_lag_measured_timestamp_seconds").await.unwrap();
    assert!(before > 1e9, "{before}");

    // A deleted group is neither an error nor a lag of 0.
    let admin: rdkafka::admin::AdminClient<_> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().unwrap();
    admin.delete_groups(&[&deleted], &rdkafka::admin::AdminOptions::new()).await.unwrap();
    let absent = async |name: &str| service.metric(name).await.is_none();
    until("the end of the deleted group's series", async || absent(&lag_of_deleted).await).await;
    assert_eq!(service.metric(&records).await, Some(2.0));
    let errors = service.metric("hookstream_lag_errors_total").await.unwrap();

    broker.kill();
    until("the end of the series", async || absent(&records).await).await;
    assert!(absent(&seconds).await && absent(&end).await);
    until("a counted error", async || service.metric("hookstream_lag_errors_total").await > Some(errors))
        .await;
    let last = service.metric("hookstream_lag_measured_timestamp_seconds").await.unwrap();

    broker.run().await;
    until("the lag", async || service.metric(&records).await == Some(2.0)).await;
    until("a new measurement", async || {
        service.metric("hookstream_lag_measured_timestamp_seconds").await > Some(last)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_has_committed_in_half_of_its_partitions_has_numbers_for_that_half() {
    let mut setup = setup();
    let (topic, group) = (format!("{}.document.changed", setup.source), unique("half"));
    setup.tables += &format!("[lag]\ngroups = [\"{group}\"]\ninterval = \"1s\"");
    kafka::create_wide(&topic, 6, &[]).await;
    until("the topic", async || kafka::exists(&topic).await).await;
    let now = Timestamp::now().as_millisecond();
    for partition in 0..6 {
        groups::write(&stack("KAFKA"), &topic, partition, &[("a", now), ("b", now)]).await;
    }
    groups::commit(&stack("KAFKA"), &group, &[(&topic, 0, 0), (&topic, 2, 1), (&topic, 4, 2)]).await;
    let service = setup.ready().await;
    let series = async |name: &str| {
        let (_, text) = service.admin("/metrics").await;
        let of_group = format!("{name}{{consumergroup=\"{group}\"");
        let lines = text.lines().filter_map(|line| line.strip_prefix(&*of_group)?.rsplit_once(' '));
        lines.map(|(_, value)| value.parse().unwrap()).collect::<Vec<f64>>()
    };
    until("the lag", async || series("kafka_consumergroup_lag").await.len() == 3).await;
    assert_eq!(series("kafka_consumergroup_lag").await.iter().sum::<f64>(), 3.0);
    assert!(series("kafka_consumergroup_lag_seconds").await.iter().all(|seconds| *seconds >= 0.0));
    assert_eq!(series("hookstream_lag_unknown").await, [1.0; 3]);

    groups::commit(&stack("KAFKA"), &group, &[(&topic, 1, 0), (&topic, 3, 0), (&topic, 5, 0)]).await;
    until("the lag of all six partitions", async || {
        series("kafka_consumergroup_lag").await.iter().sum::<f64>() == 9.0
    })
    .await;
    assert_eq!(series("hookstream_lag_unknown").await, [0.0; 0]);
}
