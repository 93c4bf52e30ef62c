//! Prepares what publishing a letter needs: schema ids and topics. As `serve` does, and within `[provision] on_start`.

use std::path::Path;

use anyhow::Context as _;

use super::note;
use crate::app;
use crate::config::LoadedConfig;
use crate::kafka::{Admin, ClusterConfig};
use crate::names;
use crate::provision::{self, Waiting};
use crate::schema::registry::Resolved;
use crate::schema::{self, IdCache, IdState, Registry, Schemas};
use crate::sources::Sources;

/// The sources, with schema ids and topics for the source named `source`.
pub(super) async fn sources(
    loaded: &LoadedConfig,
    kafka: &ClusterConfig,
    source: &str,
) -> anyhow::Result<Sources> {
    let (_, mut schemas) = app::compile(loaded)?;
    ids(loaded, source, &mut schemas).await?;
    let sources = Sources::compile(loaded, &schemas, None)?;
    topics(loaded, &Admin::new(kafka)?, &sources, source).await?;
    policies(loaded, kafka, &sources).await?;
    Ok(sources)
}

/// Warns of topics that are compacted but must not be.
pub(super) async fn policies(
    loaded: &LoadedConfig,
    kafka: &ClusterConfig,
    sources: &Sources,
) -> anyhow::Result<()> {
    let topics = provision::non_compacted_topics(sources);
    if topics.is_empty() {
        return Ok(());
    }
    let (admin, servers) = (Admin::new(kafka)?, &loaded.config.kafka.bootstrap_servers);
    if let Some(why) = provision::check_compaction(&admin, &topics, servers, Waiting::Deliveries).await? {
        note(&why)?;
    }
    Ok(())
}

/// Types whose schema gets no id fail as `schema_unknown`; it is an error if no schema gets one.
async fn ids(loaded: &LoadedConfig, source: &str, schemas: &mut Schemas) -> anyhow::Result<()> {
    let registry = Registry::new(loaded)?;
    let pins = loaded.config.spool.dir.as_deref().map(|dir: &Path| IdCache::open(dir, registry.url()));
    let own: Vec<schema::SchemaEntry> = schemas.of(source).cloned().collect();
    let (mut given, mut trouble) = (0, None);
    for schema in &own {
        match id(loaded, &registry, pins.as_ref(), schema).await {
            Ok(id) => {
                schemas.set(&schema.subject, IdState::Confirmed(id));
                given += 1;
            }
            Err(error) => {
                note(&format!("{error:#}"))?;
                trouble = Some(error);
            }
        }
    }
    match trouble {
        Some(error) if given == 0 => {
            Err(error).with_context(|| format!("no schema has an id ([registry] url = {})", registry.url()))
        }
        _ => Ok(()),
    }
}

/// The id of a schema. If `serve` has pinned one, it must still belong to that schema.
async fn id(
    loaded: &LoadedConfig,
    registry: &Registry,
    pins: Option<&IdCache>,
    schema: &schema::SchemaEntry,
) -> anyhow::Result<u32> {
    let subject = &schema.subject;
    if let Some(pin) = pins.and_then(|pins| pins.get(subject, &schema.text)) {
        let resolved = registry.resolve_surely(pin.id, &schema.schema).await?;
        anyhow::ensure!(
            resolved == Resolved::Same && !pin.lost,
            "the registry lost the schema of {subject} under its id {}: restore the registry first",
            pin.id
        );
        return Ok(pin.id);
    }
    Ok(registry.id(schema, loaded.config.provision.on_start).await?)
}

/// Creates missing topics. Without `on_start` the topics of events must exist; the topic of outcomes is created anyway,
/// since nothing else creates it.
async fn topics(loaded: &LoadedConfig, admin: &Admin, sources: &Sources, source: &str) -> anyhow::Result<()> {
    if admin.is_in_memory().await? {
        // `hookstream dev` has created them.
        return Ok(());
    }
    let cluster = admin.cluster().await?;
    let prefix = names::topic(source, "");
    let mut desired = provision::desired_topics(&loaded.config, sources, cluster.brokers);
    desired.retain(|topic| topic.name.starts_with(&prefix));
    let (_, mut missing) = cluster.split(desired);
    if !missing.is_empty() && !loaded.config.provision.on_start {
        let names: Vec<&str> = missing.iter().map(|topic| topic.name.as_str()).collect();
        anyhow::bail!("topics are missing, and [provision] on_start is false: {}", names.join(", "));
    }
    missing.extend(cluster.split(vec![provision::replayed_topic(&loaded.config, source, cluster.brokers)]).1);
    if missing.is_empty() {
        return Ok(());
    }
    let refused = admin.create(&missing).await.context("the topics could not be created")?.refused;
    anyhow::ensure!(refused.is_empty(), provision::not_created(&refused));
    Ok(())
}
