//! From a configuration to what the service is made of; every problem at once.

use std::path::Path;

use crate::config::{Loaded, Problems};
use crate::http::Ports;
use crate::kafka::Connection;
use crate::schema::Schemas;
use crate::sources::Sources;

/// Schemas of one's own stand here, in the working directory; the shipped ones are in the binary.
pub(crate) const SCHEMAS: &str = "schemas";

/// What of the configuration becomes sources and schemas.
///
/// # Errors
/// Every problem at once.
pub fn compile(loaded: &Loaded) -> Result<(Sources, Schemas), Problems> {
    compile_on(loaded, loaded.problems())
}

/// The same with the ports' certificates and token, which only the service itself need be able to read.
///
/// # Errors
/// Every problem at once.
pub fn compile_service(loaded: &Loaded) -> Result<(Sources, Schemas, Ports), Problems> {
    let mut problems = loaded.problems();
    let ports = Ports::read(loaded, &mut problems);
    let (sources, schemas) = compile_on(loaded, problems)?;
    Ok((sources, schemas, ports))
}

fn compile_on(loaded: &Loaded, mut problems: Problems) -> Result<(Sources, Schemas), Problems> {
    let kafka = &loaded.config.kafka;
    Connection::new(&kafka.bootstrap_servers, loaded.properties.clone()).judge(&mut problems);
    let schemas = Schemas::load(Path::new(SCHEMAS), &loaded.config, &mut problems);
    problems.or(())?;
    let sources = Sources::compile(loaded, &schemas, None)?;
    Ok((sources, schemas))
}
