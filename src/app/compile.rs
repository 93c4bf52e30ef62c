//! Compiles a configuration into sources, schemas and the security of the ports. It reports all problems at once.

use std::path::Path;

use super::{listeners, tuning};
use crate::config::{ConfigErrors, LoadedConfig};
use crate::http::PortSecurity;
use crate::kafka::ClusterConfig;
use crate::observe::traces::Collector;
use crate::schema::{Schemas, registry};
use crate::sources::Sources;
use crate::spool;

/// The directory of the operator's own schemas, below the working directory. The shipped ones are in the binary.
pub(crate) const SCHEMAS: &str = "schemas";

/// A compiled configuration.
pub struct Compiled {
    /// The sources that may deliver.
    pub sources: Sources,
    /// The schemas of their event types.
    pub schemas: Schemas,
    /// Certificates and token of the two ports.
    pub ports: PortSecurity,
    /// The collector of traces; `None` if none is configured.
    pub collector: Option<Collector>,
}

/// Compiles sources and schemas.
///
/// # Errors
/// All problems at once.
pub fn compile(loaded: &LoadedConfig) -> Result<(Sources, Schemas), ConfigErrors> {
    compile_on(loaded, loaded.problems())
}

/// Compiles everything. In addition to [`compile`] it checks what only the service uses, and only its user may be
/// permitted to read: certificates and tokens of the ports and of the collector, the addresses of the ports, the
/// files that `[kafka.properties]` and `[registry]` name, and the spool's directory. It connects to nothing and creates nothing.
///
/// # Errors
/// All problems at once.
pub fn compile_service(loaded: &LoadedConfig) -> Result<Compiled, ConfigErrors> {
    let mut problems = loaded.problems();
    let ports = PortSecurity::read(loaded, &mut problems);
    let collector = Collector::read(loaded, &mut problems);
    listeners::check(&loaded.config, &mut problems);
    registry::check_certificates(loaded, &mut problems);
    if let Some(dir) = &loaded.config.spool.dir
        && let Err(error) = spool::check_dir(dir)
    {
        problems.add("spool.dir", error.to_string());
    }
    let cluster = ClusterConfig::new(&loaded.config.kafka.bootstrap_servers, loaded.properties.clone());
    cluster.validate_clients(tuning(&loaded.config), &mut problems);
    let (sources, schemas) = compile_on(loaded, problems)?;
    Ok(Compiled { sources, schemas, ports, collector })
}

fn compile_on(loaded: &LoadedConfig, mut problems: ConfigErrors) -> Result<(Sources, Schemas), ConfigErrors> {
    let kafka = &loaded.config.kafka;
    ClusterConfig::new(&kafka.bootstrap_servers, loaded.properties.clone()).validate(&mut problems);
    let schemas = Schemas::load(Path::new(SCHEMAS), &loaded.config, &mut problems);
    problems.or(())?;
    let sources = Sources::compile(loaded, &schemas, None)?;
    Ok((sources, schemas))
}
