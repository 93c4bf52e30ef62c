//! From a configuration to what the service is made of; every problem at once.

use std::path::Path;

use crate::config::{ConfigErrors, LoadedConfig};
use crate::http::PortSecurity;
use crate::kafka::ClusterConfig;
use crate::observe::traces::Collector;
use crate::schema::Schemas;
use crate::sources::Sources;

/// Schemas of one's own stand here, in the working directory; the shipped ones are in the binary.
pub(crate) const SCHEMAS: &str = "schemas";

/// All that the service is made of.
pub struct Compiled {
    /// Who may deliver.
    pub sources: Sources,
    /// What their events are encoded with.
    pub schemas: Schemas,
    /// How our ports are secured.
    pub ports: PortSecurity,
    /// Where spans go, if anywhere.
    pub collector: Option<Collector>,
}

/// What of the configuration becomes sources and schemas.
///
/// # Errors
/// Every problem at once.
pub fn compile(loaded: &LoadedConfig) -> Result<(Sources, Schemas), ConfigErrors> {
    compile_on(loaded, loaded.problems())
}

/// The same with the ports' certificates and token and the collector's, which only the service itself need
/// be able to read.
///
/// # Errors
/// Every problem at once.
pub fn compile_service(loaded: &LoadedConfig) -> Result<Compiled, ConfigErrors> {
    let mut problems = loaded.problems();
    let ports = PortSecurity::read(loaded, &mut problems);
    let collector = Collector::read(loaded, &mut problems);
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
