//! Reloads the configuration while the service runs, and finds the differences.

use std::collections::BTreeSet;

use figment::value::{Dict, Value};

use super::errors::ConfigErrors;
use super::load::{LoadedConfig, reload};

/// Tables that are read at start only: listeners, clients and the spool are created from them.
const AT_START: [&str; 8] = ["http", "admin", "kafka", "registry", "spool", "provision", "lag", "traces"];

impl LoadedConfig {
    /// Reads the same files again, with the variables and the `-X` of the first load.
    ///
    /// # Errors
    /// All problems at once, each with its location and without values.
    pub fn reread(&self) -> Result<Self, ConfigErrors> {
        reload(&self.origin)
    }

    /// Copies all settings that are read at start only from `started`, the configuration that the service was started
    /// with. Returns the names of those settings that differ (`http.listen`), without values.
    pub fn retain_startup_settings(&mut self, started: &Self) -> Vec<String> {
        let mut names = BTreeSet::new();
        let (before, now) = (started.layers.merged(), self.layers.merged());
        for table in AT_START {
            let differing = differing(table_of(&before, table), table_of(&now, table));
            names.extend(differing.into_iter().map(|key| format!("{table}.{key}")));
        }
        // The same reference may yield a new password.
        if self.properties != started.properties {
            names.insert("kafka.properties".to_owned());
        }
        if self.registry_auth != started.registry_auth || self.registry_identity != started.registry_identity
        {
            names.insert("registry (credentials)".to_owned());
        }
        let source = std::mem::take(&mut self.config.source);
        let log = self.config.log.clone();
        self.config = super::Config { source, log, ..started.config.clone() };
        self.properties = started.properties.clone();
        self.registry_auth = started.registry_auth.clone();
        self.registry_identity = started.registry_identity.clone();
        names.into_iter().collect()
    }

    /// The sources whose rules or secrets differ, including sources that only one of the two has.
    pub fn differing_sources(&self, other: &Self) -> BTreeSet<String> {
        let (these, those) = (self.layers.merged(), other.layers.merged());
        let mut names = differing(table_of(&these, "source"), table_of(&those, "source"));
        let all = self.secrets.keys().chain(other.secrets.keys());
        names.extend(all.filter(|name| self.secrets.get(*name) != other.secrets.get(*name)).cloned());
        // A source that is disabled in both has not changed.
        names.retain(|name| [self, other].iter().any(|loaded| loaded.config.source.contains_key(name)));
        names
    }
}

fn table_of<'a>(all: &'a Dict, name: &str) -> Option<&'a Dict> {
    all.get(name).and_then(Value::as_dict)
}

fn differing(one: Option<&Dict>, other: Option<&Dict>) -> BTreeSet<String> {
    let keys = one.into_iter().chain(other).flat_map(Dict::keys);
    let value = |table: Option<&Dict>, key: &str| table.and_then(|table| table.get(key)).cloned();
    keys.filter(|key| value(one, key) != value(other, key)).cloned().collect()
}
