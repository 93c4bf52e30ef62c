//! Creates and deletes topics, and counts their records.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Runtime;

/// The timeout of each call.
const PATIENCE: Duration = Duration::from_secs(120);

/// The broker of `tests/stack`.
pub struct Kafka {
    pub bootstrap: String,
    /// The broker's process id.
    pub pid: u32,
    admin: AdminClient<DefaultClientContext>,
    consumer: BaseConsumer,
    runtime: Runtime,
}

impl Kafka {
    pub fn new(bootstrap: String, pid: u32) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &bootstrap);
        let admin = config.create()?;
        let consumer = config.set("group.id", "bench").create()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { bootstrap, pid, admin, consumer, runtime })
    }

    /// Creates topics as `hookstream serve` does in a cluster of one broker.
    pub fn create(&self, topics: &[String]) -> anyhow::Result<()> {
        let new: Vec<_> = topics
            .iter()
            .map(|topic| {
                let new = NewTopic::new(topic, 6, TopicReplication::Fixed(1));
                new.set("cleanup.policy", "compact,delete").set("retention.ms", "2592000000")
            })
            .collect();
        for result in self.runtime.block_on(self.admin.create_topics(&new, &options()))? {
            result.map_err(|(topic, code)| anyhow::anyhow!("topic {topic}: {code}"))?;
        }
        Ok(())
    }

    /// All topics except Kafka's internal ones, with their number of partitions.
    pub fn topics(&self) -> anyhow::Result<Vec<(String, usize)>> {
        let until = Instant::now() + PATIENCE;
        let metadata = loop {
            match self.consumer.fetch_metadata(None, PATIENCE) {
                Ok(metadata) => break metadata,
                // Occasionally an invalid argument, right after topics were deleted and others created.
                Err(error) if Instant::now() > until => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        let topics =
            metadata.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len()));
        Ok(topics.filter(|(name, _)| !name.starts_with("__")).collect())
    }

    /// Deletes all topics, so that no group of measurements affects the next.
    pub fn clear(&self) -> anyhow::Result<()> {
        let topics = self.topics()?;
        let names: Vec<_> = topics.iter().map(|(name, _)| name.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        for result in self.runtime.block_on(self.admin.delete_topics(&names, &options()))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => anyhow::bail!("topic {topic} cannot be deleted: {code}"),
            }
        }
        Ok(())
    }

    /// The number of records that were ever written to these topics, by the ends of their partitions.
    pub fn records(&self, topics: &[(String, usize)]) -> anyhow::Result<u64> {
        let mut list = TopicPartitionList::new();
        for (topic, partitions) in topics {
            for partition in 0..*partitions {
                list.add_partition_offset(topic, partition as i32, Offset::End)?;
            }
        }
        let found = self.consumer.offsets_for_times(list, PATIENCE)?;
        let end = |offset| if let Offset::Offset(end) = offset { Some(end as u64) } else { None };
        let ends = found.elements().into_iter().map(|partition| {
            partition.error()?;
            Ok(end(partition.offset()))
        });
        let ends: Vec<Option<u64>> = ends.collect::<Result<_, rdkafka::error::KafkaError>>()?;
        ends.into_iter().map(|end| end.context("a partition without an end")).sum()
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}
