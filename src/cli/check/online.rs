//! `check --online`: checks Kafka, the topics, the registry and the spool directory. Each check is independent and
//! has a timeout, so that one unavailable service does not hide the results of the others.

mod topics;

use std::future::Future;
use std::time::Duration;

use bytesize::ByteSize;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::{CheckState, CheckedPart};
use crate::config::{Auth, LoadedConfig, Property};
use crate::kafka::{Admin, ClusterConfig, ClusterError};
use crate::observe::error_chain::ErrorChain;
use crate::provision::SUBJECTS_AT_ONCE;
use crate::schema::registry::{AND_REGISTER, Listing, RegistryError};
use crate::schema::{self, Registry, Schemas, version_files};
use crate::sources::Sources;
use crate::spool;

/// The timeout of each check; the longest sends three requests to Kafka.
const BOUND: Duration = Duration::from_secs(6);

/// Checks all parts and returns them in the order in which they are shown.
pub(super) async fn check(loaded: &LoadedConfig, sources: &Sources, schemas: &Schemas) -> Vec<CheckedPart> {
    let (mut parts, registry, spool) =
        tokio::join!(kafka(loaded, sources), registry(loaded, schemas), spool(loaded));
    parts.extend([registry, spool]);
    parts
}

async fn within<T, E: Into<anyhow::Error>>(
    subject: &str,
    work: impl Future<Output = Result<T, E>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(BOUND, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => anyhow::bail!("{subject} did not answer within {BOUND:?}"),
    }
}

/// Checks the brokers and, if they answer, the topics.
async fn kafka(loaded: &LoadedConfig, sources: &Sources) -> Vec<CheckedPart> {
    let servers = &loaded.config.kafka.bootstrap_servers;
    let protocol = security(loaded);
    let connection = ClusterConfig::new(servers.clone(), loaded.properties.clone());
    let reached = async {
        let admin = Admin::new(&connection)?;
        let cluster = admin.cluster_within(BOUND).await?;
        Ok((admin, cluster))
    };
    let (admin, cluster) = match reached.await {
        Ok(reached) => reached,
        Err(error) => {
            let why = match error {
                ClusterError::Unreachable { reason, .. } => format!("no broker answers{reason}"),
                other => ErrorChain(&other).to_string(),
            };
            let part = CheckedPart::new("kafka", CheckState::No, format!("{protocol}, {servers}: {why}"));
            let next = "check [kafka] bootstrap_servers, that the brokers run, and [kafka.properties]";
            return vec![
                part.next(next),
                CheckedPart::new("topics", CheckState::No, "unknown without Kafka"),
            ];
        }
    };
    let brokers = cluster.brokers;
    let plural = if brokers == 1 { "" } else { "s" };
    let mut parts =
        vec![CheckedPart::new("kafka", CheckState::Ok, format!("{protocol}, {brokers} broker{plural}"))];
    parts.extend(topics::check(loaded, sources, &admin, &cluster).await);
    parts
}

/// The security protocol of the connection to Kafka, without secrets.
fn security(loaded: &LoadedConfig) -> String {
    let plain = |name: &str| match loaded.config.kafka.properties.get(name) {
        Some(Property::Text(text)) => Some(text.to_uppercase()),
        _ => None,
    };
    let protocol = plain("security.protocol").unwrap_or_else(|| "PLAINTEXT".to_owned());
    match plain("sasl.mechanism").filter(|_| protocol.starts_with("SASL")) {
        Some(mechanism) => format!("{protocol} {mechanism}"),
        None => protocol,
    }
}

async fn registry(loaded: &LoadedConfig, schemas: &Schemas) -> CheckedPart {
    let rules = &loaded.config.registry;
    let auth = match (&loaded.registry_auth, &loaded.registry_identity) {
        (Auth::None, None) => "no auth",
        (Auth::None, Some(_)) => "client certificate",
        (Auth::Basic(..), None) => "basic auth",
        (Auth::Basic(..), Some(_)) => "basic auth and client certificate",
        (Auth::Bearer(_), None) => "bearer token",
        (Auth::Bearer(_), Some(_)) => "bearer token and client certificate",
    };
    let listings = async {
        let registry = &Registry::new(loaded)?;
        let each = stream::iter(schemas.iter()).map(async |schema| {
            match registered(registry, schema).await {
                // The others may be in order.
                Err(error) if !error.is_answer() => Err(error),
                found => Ok((schema.subject.as_str(), found)),
            }
        });
        anyhow::Ok(each.buffered(SUBJECTS_AT_ONCE).try_collect::<Vec<_>>().await?)
    };
    let found = match within("it", listings).await {
        Ok(found) => found,
        Err(error) => {
            let text = format!("{auth}, {}: {}", rules.url, message_and_cause(&error));
            let part = CheckedPart::new("registry", CheckState::No, text);
            return part.next("check [registry] url and its credentials, and that the registry runs");
        }
    };
    let consequence = match (rules.auto_register, loaded.config.provision.on_start) {
        (false, _) => "[registry] auto_register is false",
        (true, false) => "[provision] on_start is false",
        (true, true) => "`serve` registers it",
    };
    let registers = rules.auto_register && loaded.config.provision.on_start;
    let (mut count, mut bad, mut unreadable, mut details) = (0, false, false, Vec::new());
    let width = found.iter().map(|(subject, _)| subject.len()).max().unwrap_or_default();
    for (subject, found) in &found {
        let mut line = |text: &str| details.push(format!("{subject:<width$}  {text}"));
        let (listing, not_stored) = match found {
            Ok(found) => found,
            Err(error) => {
                unreadable = true;
                line(&ErrorChain(error).to_string());
                continue;
            }
        };
        line(&describe(listing, consequence));
        let why = match listing {
            Listing::Other { compatible: false, why } => why.as_slice(),
            _ => &[],
        };
        details.extend(why.iter().chain(not_stored).map(|why| format!("  {why}")));
        count += usize::from(matches!(listing, Listing::Registered(_)));
        bad |= match listing {
            Listing::Registered(_) => false,
            Listing::NoSubject | Listing::Other { compatible: true, .. } => !registers,
            Listing::Other { compatible: false, .. } => true,
        };
    }
    let state = if bad || unreadable { CheckState::No } else { CheckState::Ok };
    let text = format!("{auth}, {count} of {} subjects", found.len());
    let mut part = CheckedPart { details, ..CheckedPart::new("registry", state, text) };
    if unreadable {
        part = part.next("check the subjects with an error, [registry] url and its credentials");
    }
    if bad {
        let setting = if rules.auto_register { "" } else { AND_REGISTER };
        part = part.next(format!(
            "`hookstream provision --apply{setting}` registers missing schemas; fix the incompatible ones first"
        ));
    }
    part
}

/// What the registry has of a schema, and a message if its latest version is not stored next to the schema's file.
async fn registered(
    registry: &Registry,
    schema: &schema::SchemaEntry,
) -> Result<(Listing, Option<String>), RegistryError> {
    let listing = registry.listing(&schema.subject, &schema.text).await?;
    Ok((listing, not_stored(registry, schema).await?))
}

/// A message if versions are stored next to the schema's file and the registry's latest version is not among them.
async fn not_stored(
    registry: &Registry,
    schema: &schema::SchemaEntry,
) -> Result<Option<String>, RegistryError> {
    // Faults of the folder are among the problems of the report already.
    let versions =
        schema.file.as_ref().map(|file| version_files::read(file).unwrap_or_default()).unwrap_or_default();
    if versions.is_empty() {
        return Ok(None);
    }
    let latest = registry.latest(&schema.subject).await?;
    Ok(latest.filter(|latest| !version_files::contains(&versions, &latest.schema)).map(|latest| {
        format!(
            "version {} is not stored next to its file: hookstream provision --apply --keep-versions",
            latest.version
        )
    }))
}

/// The message of an error and its root cause: in between, the registry's client repeats the same text three times.
fn message_and_cause(error: &anyhow::Error) -> String {
    let (message, cause) = (error.to_string(), error.root_cause().to_string());
    if message == cause { message } else { format!("{message}: {cause}") }
}

fn describe(listing: &Listing, consequence: &str) -> String {
    match listing {
        Listing::Registered(id) => format!("registered, id {id}"),
        Listing::NoSubject => format!("missing: {consequence}"),
        Listing::Other { compatible: true, .. } => {
            format!("different schema, compatible with the configured one: {consequence}")
        }
        Listing::Other { compatible: false, .. } => {
            "different schema, not compatible with the configured one".to_owned()
        }
    }
}

async fn spool(loaded: &LoadedConfig) -> CheckedPart {
    let rules = &loaded.config.spool;
    let Some(dir) = rules.dir.clone() else {
        return CheckedPart::new("spool", CheckState::Off, "[spool] dir is not set");
    };
    let work = async {
        let dir = dir.clone();
        anyhow::Ok(tokio::task::spawn_blocking(move || spool::probe(&dir)).await??)
    };
    let found = match within("the spool's disk", work).await {
        Ok(found) => found,
        Err(error) => return CheckedPart::new("spool", CheckState::No, format!("{error:#}")),
    };
    let mut text = format!("{} free", ByteSize(found.free));
    match found.sync {
        Some(sync) => text.push_str(&format!(", fsync {:.1} ms", sync.as_secs_f64() * 1e3)),
        None => text.push_str(&format!(", {} does not exist yet: `serve` creates it", dir.display())),
    }
    if found.in_use {
        text.push_str(", in use by a running service");
    }
    let least = rules.min_free as u64;
    if found.free < least {
        let part = CheckedPart::new(
            "spool",
            CheckState::No,
            format!("{text}, [spool] min_free is {}", ByteSize(least)),
        );
        return part.next("free disk space or lower min_free: otherwise the spool takes no rows");
    }
    CheckedPart::new("spool", CheckState::Ok, text)
}
