//! Commands that grant missing authorizations.

use std::collections::BTreeSet;

use crate::config::{LoadedConfig, Property};
use crate::names;
use crate::sources::Sources;

/// Commands that authorize hookstream's user for the operation (`Create`, `Alter`, `AlterConfigs`,
/// `Describe`, `DescribeConfigs`) on the denied topics: a source's event topics by their prefix, its dead letters by name.
pub fn grants(
    loaded: &LoadedConfig,
    sources: &Sources,
    operation: &str,
    denied: &BTreeSet<&str>,
) -> Vec<String> {
    let user = match loaded.config.kafka.properties.get("sasl.username") {
        Some(Property::Text(user)) => user.as_str(),
        _ => "HOOKSTREAM-USER",
    };
    let servers = &loaded.config.kafka.bootstrap_servers;
    let grant = |topic: &str, more: &str| {
        format!(
            "kafka-acls --bootstrap-server {servers} --add --allow-principal User:{user} \
             --operation {operation} --topic {topic}{more}"
        )
    };
    let mut grants = Vec::new();
    for name in loaded.config.source.keys() {
        let Some(source) = sources.get(name) else { continue };
        if source.routes().any(|route| denied.contains(&*route.topic)) {
            grants.push(grant(&names::topic(name, ""), " --resource-pattern-type prefixed"));
        }
        if denied.contains(&*source.dead_letter_topic) {
            grants.push(grant(&source.dead_letter_topic, ""));
        }
    }
    grants
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, ConfigErrors, Environment, Overrides};
    use crate::schema::Schemas;

    #[test]
    fn a_grant_names_the_source_s_prefix_and_its_dead_letters() {
        let sets = [
            "kafka.bootstrap_servers=kafka:9093",
            "kafka.properties.security.protocol=SASL_SSL",
            "kafka.properties.sasl.username=connect",
            "source.grapevine.enabled=false",
        ];
        let overrides = Overrides { sets: sets.map(str::to_owned).into(), ..Overrides::default() };
        let secrets = [("DATAGRID_WEBHOOK_SECRET", "whsec_of-the-check-tests-0123")];
        let loaded = config::load(&overrides, &secrets.into_iter().collect::<Environment>()).unwrap();
        let schemas = Schemas::load("schemas".as_ref(), &loaded.config, &mut ConfigErrors::default());
        let sources = Sources::compile(&loaded, &schemas, None).unwrap();
        let head = "kafka-acls --bootstrap-server kafka:9093 --add --allow-principal User:connect \
                    --operation Create --topic";
        let events = format!("{head} datagrid. --resource-pattern-type prefixed");
        let dead = format!("{head} dead_letter.datagrid");
        let denied = ["datagrid.batch_prediction.failed", "datagrid.batch_prediction.expired"];
        assert_eq!(grants(&loaded, &sources, "Create", &denied.into()), [events.as_str()]);
        let denied = ["dead_letter.datagrid", "datagrid.batch_prediction.failed"];
        let both = [&events, &dead].map(|text| text.replace("Create", "AlterConfigs"));
        assert_eq!(grants(&loaded, &sources, "AlterConfigs", &denied.into()), both);
    }
}
